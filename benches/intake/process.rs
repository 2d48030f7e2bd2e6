//! Another process as Linux sees it: its CPU time and what it holds.

use std::fs;
use std::process::Child;
use std::process::Command;

use anyhow::Context as _;
use anyhow::Result;

/// Linux gives CPU time in these, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// A child that ends with its owner.
pub(crate) struct Process(pub(crate) Child);

/// What a process has used and holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// User and system time, in seconds.
    pub(crate) cpu_s: f64,
    /// Memory of its own, files that are mapped left out.
    pub(crate) own_kib: f64,
}

impl Process {
    /// Starts `command`.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self(child))
    }

    /// What it has used so far and holds now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        let pid = self.0.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("read CPU time")?;
        // The name, in brackets, may have spaces in it.
        let (_, fields) = stat.rsplit_once(") ").context("read CPU time")?;
        let ticks = fields.split(' ').skip(11).take(2);
        let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read memory")?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok()
        };
        Ok(Usage {
            cpu_s: ticks / TICKS_PER_SECOND,
            own_kib: kib("RssAnon:").context("read memory")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
