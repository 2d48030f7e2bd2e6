//! One process from start to end: its wall time, its CPU time, and the most memory that it ever held.

use std::fs;
use std::process::Command;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use tokio::time::Instant;

/// Linux gives CPU time in these, on every machine, and cuts off what is left: a case that costs less than a
/// quarter of a second is measured better with more MiB.
const TICKS_PER_SECOND: f64 = 100.0;

/// How often a running process is looked at. Its peak grows early; its end is seen this late.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// What a process cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) rss_mib: f64,
}

/// Runs `command` to its end.
///
/// CPU time is read once the process is dead and not yet reaped: it is complete then, threads that ended
/// earlier included. The peak of its memory is gone by then, so it is read on the way.
pub(crate) async fn run(mut command: Command) -> Result<(ExitStatus, Cost)> {
    let started = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut rss_mib = 0.0;
    let cpu_s = loop {
        let (dead, cpu_s) = stat(child.id())?;
        if dead {
            break cpu_s;
        }
        rss_mib = peak_mib(child.id()).unwrap_or(rss_mib);
        tokio::time::sleep(LOOK_EVERY).await;
    };
    let wall_s = started.elapsed().as_secs_f64();
    let status = child.wait()?;
    let cost = Cost {
        wall_s,
        cpu_s,
        rss_mib,
    };
    Ok((status, cost))
}

/// The CPU time of a running process so far, user and system.
pub(crate) fn cpu_s(pid: u32) -> Result<f64> {
    stat(pid).map(|(_, cpu_s)| cpu_s)
}

/// Whether a process is dead, and its CPU time.
fn stat(pid: u32) -> Result<(bool, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc")?;
    // The name, in parentheses, may hold anything; after it come state, ten numbers, and the two wanted.
    let (_, fields) = stat.rsplit_once(") ").context("understand /proc")?;
    let mut fields = fields.split(' ');
    let state = fields.next().context("understand /proc")?;
    let ticks: f64 = fields
        .skip(10)
        .take(2)
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum();
    Ok((state == "Z", ticks / TICKS_PER_SECOND))
}

/// The most memory that a process has held, in MiB. `None` once it is dead.
fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1_024.0)
}
