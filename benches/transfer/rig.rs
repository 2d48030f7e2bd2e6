//! The rounds: movers take turns on a case, and what each moved is compared with what was sent.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use reelvault::model::digest::Crc64;
use serde::Deserialize;

use crate::content::Film;
use crate::groups::Case;
use crate::groups::Figure;
use crate::groups::Group;
use crate::groups::Peers;
use crate::lag;
use crate::measure;
use crate::measure::Cost;
use crate::movers::Mover;
use crate::movers::mover_command;
use crate::peers;
use crate::report::Line;
use crate::servers::Servers;
use crate::sink;

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) mib: u64,
    pub(crate) peers: Peers,
    /// Only these, besides what they are compared with.
    pub(crate) movers: Option<Vec<Mover>>,
}

/// A mover, and what it cost in each of its rounds.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) mover: Mover,
    pub(crate) costs: Vec<Cost>,
    /// Why it takes no part any more.
    failed: Option<String>,
}

/// What the rig itself spent on a case, in CPU seconds a GiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RigCost {
    pub(crate) origin: f64,
    pub(crate) sink: f64,
}

/// What the sink says of an object.
#[derive(Debug, Deserialize)]
struct Arrived {
    bytes: u64,
    crc64: String,
}

/// Measures a group, and gives a line for each mover in each of its cases.
pub(crate) async fn run(group: Group, plan: &Plan) -> Result<Vec<Line>> {
    let servers = Servers::start(group.conducts())?;
    let mut lines = Vec::new();
    for case in group.cases(plan.mib) {
        let mut measured = taking_part(group, &case, plan);
        let rig = rounds(group, &case, plan.rounds, &servers, &mut measured).await?;
        for failed in measured.iter().filter_map(|one| one.failed.as_ref()) {
            eprintln!("left out: {failed}");
        }
        measured.retain(|one| one.failed.is_none());
        lines.extend(Line::all(group, &case, &measured, rig));
    }
    Ok(lines)
}

/// Who is measured on a case: asked for, and there.
fn taking_part(group: Group, case: &Case, plan: &Plan) -> Vec<Measured> {
    let asked = plan.movers.as_ref();
    let mut movers = group.movers(case, asked.map_or(plan.peers, |_| Peers::All));
    if let Some(asked) = asked {
        let floor = movers
            .first()
            .copied()
            .filter(|_| group.figure() != Figure::Rss);
        let half = Some(Mover::Sha256);
        movers
            .retain(|mover| asked.contains(mover) || Some(*mover) == floor || Some(*mover) == half);
    }
    movers.retain(|mover| {
        let program = mover.program();
        let there = program.is_none_or(|program| peers::is_there(&program));
        if !there {
            let name = mover.name();
            eprintln!("left out: {name} is not installed (benches/peers/setup)");
        }
        there
    });
    let new = |mover| Measured {
        mover,
        costs: Vec::new(),
        failed: None,
    };
    movers.into_iter().map(new).collect()
}

/// Has the movers take turns, round after round. A peer that fails is left out from then on; one of ours that
/// fails ends it all.
async fn rounds(
    group: Group,
    case: &Case,
    rounds: usize,
    servers: &Servers,
    measured: &mut [Measured],
) -> Result<RigCost> {
    let sums = Sums::of(case);
    let (origin_before, sink_before) = servers.cpu_s()?;
    let mut moved_gib = 0.0;
    eprintln!(
        "measuring {}, {}: {rounds} rounds",
        group.name(),
        case.name()
    );
    for round in 1..=rounds {
        for one in measured.iter_mut() {
            let mover = one.mover;
            if one.failed.is_some() || round > mover.rounds(rounds) {
                continue;
            }
            let cost = moved(group, mover, case, servers, &sums).await;
            let cost = cost.with_context(|| {
                let (mover, case) = (mover.name(), case.name());
                format!("move {case} with {mover} in round {round}")
            });
            match cost {
                Ok(cost) => one.costs.push(cost),
                Err(error) if mover.program().is_some() => {
                    one.failed = Some(format!("failed to {error:#}"));
                }
                Err(error) => return Err(error),
            }
            moved_gib += if mover.moves() { case.gib() } else { 0.0 };
        }
    }
    let (origin, sink) = servers.cpu_s()?;
    Ok(RigCost {
        origin: (origin - origin_before) / moved_gib,
        sink: (sink - sink_before) / moved_gib,
    })
}

/// Has a case moved once, and checks what arrived.
async fn moved(
    group: Group,
    mover: Mover,
    case: &Case,
    servers: &Servers,
    sums: &Sums,
) -> Result<Cost> {
    servers.ask_sink(sink::RESET).await?;
    servers.ask_origin(sink::RESET).await?;
    let scratch = tempfile::tempdir()?;
    let cost = if group == Group::Lag {
        lag::cost(mover, case, servers, scratch.path()).await?
    } else {
        measure::run(mover_command(mover, case, servers, scratch.path())?).await?
    };
    if mover.moves() {
        let report = servers.ask_sink(sink::REPORT).await?;
        sums.compare(serde_json::from_str(&report)?)?;
    }
    Ok(cost)
}

/// What must arrive: lengths and checksums, whatever the keys are.
struct Sums(Vec<(u64, Crc64)>);

impl Sums {
    fn of(case: &Case) -> Self {
        let films = case.all_films();
        let mut sums: Vec<_> = films.map(|film| (film.bytes, film.crc64())).collect();
        sums.sort_by_key(|(_, crc64)| crc64.0);
        Self(sums)
    }

    /// What is too small for a film, such as a record beside one, is not counted.
    fn compare(&self, arrived: Vec<Arrived>) -> Result<()> {
        let films = arrived
            .into_iter()
            .filter(|object| object.bytes >= Film::BYTES_MIN);
        let found = films.map(|film| Ok((film.bytes, film.crc64.parse::<Crc64>()?)));
        let mut found: Vec<_> = found.collect::<Result<_>>()?;
        found.sort_by_key(|(_, crc64)| crc64.0);
        let (came, expected) = (found.len(), self.0.len());
        ensure!(
            came == expected,
            "move everything: {came} of {expected} films arrived"
        );
        ensure!(
            found == self.0,
            "move everything: what arrived is not what was sent"
        );
        Ok(())
    }
}
