//! A process with all its children from start to end: wall time, CPU time, and the most memory that they held.

use std::fs;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use tokio::time::Instant;

/// Linux gives CPU time in these, on every machine, and cuts off what is left.
const TICKS_PER_SECOND: f64 = 100.0;

/// What is cut off of a count of ticks, on average.
const TICKS_CUT_OFF: f64 = 0.5;

/// How often a running process is looked at. Its peak grows early; its end is seen this late.
const LOOK_EVERY: Duration = Duration::from_millis(3);

/// No mover takes as long for any case; one that does will not end.
const LONGEST: Duration = Duration::from_mins(15);

/// What a process cost, its children included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) wall_s: f64,
    pub(crate) cpu_s: f64,
    pub(crate) rss_mib: f64,
}

/// A process that is being measured. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
    name: String,
    started: Instant,
}

impl Running {
    /// Starts `command`.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let started = Instant::now();
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self {
            child,
            name,
            started,
        })
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    ///
    /// CPU time is read once the process is dead and not yet reaped: it is complete then, with threads that
    /// ended earlier and children that were waited for. The peak of memory is gone by then, so it is read on
    /// the way.
    pub(crate) async fn ended(mut self) -> Result<(ExitStatus, Cost)> {
        let pid = self.pid();
        let mut rss_mib: f64 = 0.0;
        let cpu_s = loop {
            let (dead, cpu_s) = stat(pid)?;
            if dead {
                break cpu_s;
            }
            ensure!(
                self.started.elapsed() < LONGEST,
                "end {} within {LONGEST:?}",
                self.name
            );
            let (family_mib, count) = peak_mib(pid);
            rss_mib = rss_mib.max(family_mib);
            // A look costs by the head; the mover shall not feel it.
            tokio::time::sleep(LOOK_EVERY * count.max(1)).await;
        };
        let wall_s = self.started.elapsed().as_secs_f64();
        let status = self.child.wait()?;
        let cost = Cost {
            wall_s,
            cpu_s,
            rss_mib,
        };
        Ok((status, cost))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already; either way it is reaped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs `command` to its end and gives what it cost.
pub(crate) async fn run(command: Command) -> Result<Cost> {
    let (status, cost) = Running::start(command)?.ended().await?;
    ensure!(status.success(), "end well: {status}");
    Ok(cost)
}

/// The CPU time of a running process so far, user and system.
pub(crate) fn cpu_s(pid: u32) -> Result<f64> {
    stat(pid).map(|(_, cpu_s)| cpu_s)
}

/// Whether a process is dead, and its CPU time with that of the children it has waited for.
fn stat(pid: u32) -> Result<(bool, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read /proc")?;
    // The name, in parentheses, may hold anything; after it come state, ten numbers, and the four wanted: user
    // and system time, and both of the children.
    let (_, fields) = stat.rsplit_once(") ").context("understand /proc")?;
    let mut fields = fields.split(' ');
    let state = fields.next().context("understand /proc")?;
    let ticks = fields
        .skip(10)
        .take(4)
        .filter_map(|ticks| ticks.parse::<f64>().ok());
    let ticks: f64 = ticks
        .filter(|ticks| *ticks > 0.0)
        .map(|ticks| ticks + TICKS_CUT_OFF)
        .sum();
    Ok((state == "Z", ticks / TICKS_PER_SECOND))
}

/// The peaks of a process and its living descendants, summed, in MiB, and how many they are.
fn peak_mib(pid: u32) -> (f64, u32) {
    let own = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let own = own.lines().find_map(|line| {
        let kib = line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?;
        kib.parse::<f64>().ok()
    });
    // Only shells and their like have children here, and those have one thread.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|child| child.parse().ok());
    let first = (own.unwrap_or(0.0) / 1_024.0, 1);
    children.map(peak_mib).fold(first, |sum, child| {
        (sum.0 + child.0, sum.1.saturating_add(child.1))
    })
}
