//! What was measured, as a table for people and as JSON for others.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;

use crate::measure::Cost;
use crate::movers::Mover;
use crate::rig::Case;

/// One mover on one case: medians over the rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    mover: &'static str,
    case: String,
    tls: bool,
    wall_s: f64,
    cpu_s_per_gib: f64,
    /// CPU time against the relay's in the same round.
    x_floor: f64,
    rss_mib: f64,
    rounds: usize,
    #[serde(skip)]
    wall_x_floor: f64,
    #[serde(skip)]
    rss_x_floor: f64,
    #[serde(skip)]
    sink_cpu_s_per_gib: f64,
}

impl Line {
    /// Condenses the rounds of one mover; `floor` are the relay's.
    pub(crate) fn new(
        mover: Mover,
        case: &Case,
        costs: &[Cost],
        floor: &[Cost],
        sink_cpu_s_per_gib: f64,
    ) -> Self {
        let over = |of: fn(&Cost) -> f64| median(costs.iter().map(of).collect());
        let against = |of: fn(&Cost) -> f64| {
            let pairs = costs.iter().zip(floor);
            median(pairs.map(|(cost, floor)| of(cost) / of(floor)).collect())
        };
        Self {
            mover: mover.name(),
            case: case.name(),
            tls: case.tls,
            wall_s: rounded(over(|cost| cost.wall_s)),
            cpu_s_per_gib: rounded(over(|cost| cost.cpu_s) / case.gib()),
            x_floor: rounded(against(|cost| cost.cpu_s)),
            rss_mib: rounded(over(|cost| cost.rss_mib)),
            rounds: costs.len(),
            wall_x_floor: against(|cost| cost.wall_s),
            rss_x_floor: against(|cost| cost.rss_mib),
            sink_cpu_s_per_gib,
        }
    }
}

/// Prints the table.
pub(crate) fn print(lines: &[Line]) {
    println!(
        "{:<10} {:<12} {:<5} {:>10} {:>6} {:>8} {:>6} {:>8} {:>6} {:>10}",
        "mover", "case", "wire", "CPU-s/GiB", "x", "wall s", "x", "RSS MiB", "x", "sink CPU-s"
    );
    for line in lines {
        println!(
            "{:<10} {:<12} {:<5} {:>10.2} {:>6.2} {:>8.2} {:>6.2} {:>8.1} {:>6.2} {:>10.2}",
            line.mover,
            line.case,
            if line.tls { "tls" } else { "plain" },
            line.cpu_s_per_gib,
            line.x_floor,
            line.wall_s,
            line.wall_x_floor,
            line.rss_mib,
            line.rss_x_floor,
            line.sink_cpu_s_per_gib,
        );
    }
}

/// Writes the lines as JSON.
pub(crate) fn write(lines: &[Line], path: &Path) -> Result<()> {
    let directory = path.parent().context("write beside the root")?;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    let json = serde_json::to_string_pretty(lines)?;
    fs::write(path, json + "\n").with_context(|| format!("write {}", path.display()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (
        values.get((values.len().max(1) - 1) / 2),
        values.get(values.len() / 2),
    );
    let pair = low.zip(high);
    pair.map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
