//! What was measured, as a table for people and as JSON for others.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use anyhow::Result;
use serde::Serialize;

use crate::groups::Case;
use crate::groups::Figure;
use crate::groups::Group;
use crate::measure::Cost;
use crate::movers::Mover;
use crate::rig::Measured;
use crate::rig::RigCost;

/// One mover on one case: medians over the rounds. What does not exist, such as the floor of a group that has
/// none, is NaN, and null in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    group: &'static str,
    pub(crate) mover: &'static str,
    pub(crate) case: String,
    tls: bool,
    wall_s: f64,
    cpu_s_per_gib: f64,
    /// CPU time against the floor's in the same round.
    x_floor: f64,
    /// The same of wall time and of memory.
    wall_x_floor: f64,
    rss_mib: f64,
    rss_x_floor: f64,
    /// The group's own answer, and what it compares.
    pub(crate) figure: f64,
    pub(crate) figure_name: &'static str,
    figure_min: f64,
    pub(crate) figure_max: f64,
    rounds: usize,
    origin_cpu_s_per_gib: f64,
    sink_cpu_s_per_gib: f64,
}

/// CPU time comes in hundredths of a second: of less than ten of them no number is made.
const CPU_S_MIN: f64 = 0.1;

/// Building the bench alone leaves a load behind; what is above this is somebody else's.
const LOAD_MAX: f64 = 1.5;

/// A ratio of two costs of one round.
type Ratio = fn(&Cost, &Cost) -> f64;

impl Line {
    /// Condenses the rounds of all movers on a case, of which the first is the floor.
    pub(crate) fn all(group: Group, case: &Case, measured: &[Measured], rig: RigCost) -> Vec<Self> {
        let floor = measured.first().map(|one| one.costs.as_slice());
        let floor = floor.filter(|_| group.figure() != Figure::Rss);
        let hash = measured.iter().find(|one| one.mover == Mover::Sha256);
        let hash = hash.map(|one| one.costs.as_slice());
        let lines = measured.iter().map(|one| {
            let against = |ratio: Ratio| {
                let pairs = one.costs.iter().zip(floor.unwrap_or_default());
                pairs.map(|(cost, floor)| ratio(cost, floor)).collect()
            };
            let figures: Vec<f64> = match (group.figure(), one.mover, floor.zip(hash)) {
                (Figure::Cpu, Mover::Reelvault, Some((floor, hash))) => {
                    let halves = floor.iter().zip(hash);
                    let whole = halves.map(|(floor, hash)| counted(floor) + counted(hash));
                    let pairs = one.costs.iter().zip(whole);
                    pairs.map(|(cost, whole)| counted(cost) / whole).collect()
                }
                (Figure::Cpu, _, _) => against(|cost, floor| counted(cost) / counted(floor)),
                (Figure::Wall, _, _) => against(|cost, floor| cost.wall_s / floor.wall_s),
                (Figure::Rss, _, _) => {
                    let ratios = one
                        .costs
                        .iter()
                        .map(|cost| cost.rss_mib / case.rss_mib_max());
                    ratios.collect()
                }
            };
            let over = |of: fn(&Cost) -> f64| median(one.costs.iter().map(of).collect());
            Self {
                group: group.name(),
                mover: one.mover.name(),
                case: case.name(),
                tls: case.tls,
                wall_s: rounded(over(|cost| cost.wall_s)),
                cpu_s_per_gib: rounded(over(counted) / case.gib()),
                x_floor: rounded(median(against(|cost, floor| {
                    counted(cost) / counted(floor)
                }))),
                wall_x_floor: rounded(median(against(|cost, floor| cost.wall_s / floor.wall_s))),
                rss_mib: rounded(over(|cost| cost.rss_mib)),
                rss_x_floor: rounded(median(against(|cost, floor| cost.rss_mib / floor.rss_mib))),
                figure_min: rounded(figures.iter().copied().fold(f64::NAN, f64::min)),
                figure_max: rounded(figures.iter().copied().fold(f64::NAN, f64::max)),
                figure: rounded(median(figures)),
                figure_name: group.figure_name(),
                rounds: one.costs.len(),
                origin_cpu_s_per_gib: rounded(rig.origin),
                sink_cpu_s_per_gib: rounded(rig.sink),
            }
        });
        lines.collect()
    }
}

/// Says on what kind of machine all of this is measured, and whether it is busy with other things.
pub(crate) fn print_machine() {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("unknown");
    println!("{cores} cores; load when this began: {load}");
    if load.parse().is_ok_and(|load: f64| load > LOAD_MAX) {
        println!("The machine is busy: wall times say little, and ratios scatter.");
    }
}

/// Prints the table of a group.
pub(crate) fn print(group: Group, lines: &[Line]) {
    println!("\n{}", group.title());
    println!("figure: {}", group.figure_name());
    println!(
        "{:<22} {:<11} {:>9} {:>6} {:>8} {:>6} {:>8} {:>6} {:>6} {:>7} {:>7} {:>7}",
        "mover",
        "case",
        "CPU-s/GiB",
        "x",
        "wall s",
        "x",
        "RSS MiB",
        "x",
        "rounds",
        "figure",
        "least",
        "most"
    );
    for line in lines {
        println!(
            "{:<22} {:<11} {} {} {} {} {} {} {:>6} {} {} {}",
            line.mover,
            line.case,
            cell(line.cpu_s_per_gib, 9, 2),
            cell(line.x_floor, 6, 2),
            cell(line.wall_s, 8, 3),
            cell(line.wall_x_floor, 6, 2),
            cell(line.rss_mib, 8, 1),
            cell(line.rss_x_floor, 6, 2),
            line.rounds,
            cell(line.figure, 7, 2),
            cell(line.figure_min, 7, 2),
            cell(line.figure_max, 7, 2),
        );
    }
    let mut told = None;
    for line in lines
        .iter()
        .filter(|line| line.sink_cpu_s_per_gib.is_finite())
    {
        if told.replace(&line.case) != Some(&line.case) {
            println!(
                "the rig itself, {}: origin {:.2}, sink {:.2} CPU-s/GiB",
                line.case, line.origin_cpu_s_per_gib, line.sink_cpu_s_per_gib
            );
        }
    }
}

/// A number in a column; a dash where there is none.
fn cell(value: f64, width: usize, digits: usize) -> String {
    if value.is_finite() {
        format!("{value:>width$.digits$}")
    } else {
        format!("{:>width$}", "-")
    }
}

/// Writes the lines as JSON.
pub(crate) fn write(lines: &[Line], path: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(lines)?;
    write_file(path, &(json + "\n"))
}

/// Writes a file, and the folder that it is in.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().context("write beside the root")?;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// The CPU time of a cost, where there is enough of it.
fn counted(cost: &Cost) -> f64 {
    if cost.cpu_s < CPU_S_MIN {
        f64::NAN
    } else {
        cost.cpu_s
    }
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
