//! What moving a video costs: CPU, time and memory of reelvault beside floors and beside peers.
//!
//! One program in several processes, so that each one's CPU and memory are its own: an origin and a sink serve
//! a group of cases, movers come and go between them. `relay` is the floor: a blocking loop with one buffer.
//! `bare` is the SDK's path with nothing around it, `sha256` the hashing and nothing else. Rounds are
//! interleaved, and ratios are taken within a round, because a shared machine drifts.
//!
//! ```text
//!   origin  ==GET==>  relay | bare | reelvault | peer  ==PUT, UploadPart==>  sink (counts, checksums, forgets)
//! ```
//!
//! `benches/README.md` says what each group measures and how to read its table.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum as _;

mod bare;
mod chart;
mod chunked;
mod content;
mod groups;
mod hash;
mod lag;
mod measure;
mod movers;
mod origin;
mod pace;
mod peers;
mod relay;
mod report;
mod rig;
mod serve;
mod servers;
mod sink;

/// Measures what moving a video costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// How often each case is measured. `BENCH_ROUNDS` in the environment says the same.
    #[arg(long, default_value_t = rounds_of_environment())]
    rounds: usize,
    /// How much a case moves, in MiB: as one object, and as objects of 8 MiB.
    #[arg(long, default_value_t = 512)]
    mib: u64,
    /// Which groups of cases are measured; all by default.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<groups::Group>,
    /// Which peers are measured beside the daemon.
    #[arg(long, default_value = "fast")]
    peers: groups::Peers,
    /// Only these movers, whatever `--peers` says; what they are compared with always is.
    #[arg(long, value_delimiter = ',')]
    movers: Option<Vec<movers::Mover>>,
    /// What cargo adds to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What the other processes of this program do.
#[derive(Debug, Subcommand)]
enum Role {
    /// Serves films, and the task API that knows of them.
    Origin(serve::Listen),
    /// Takes objects as S3 does, and forgets them.
    Sink(serve::Listen),
    /// Moves films in a blocking loop.
    Relay(relay::Work),
    /// Moves films through the SDK.
    Bare(relay::Work),
    /// Hashes films without moving them.
    Sha256(hash::Work),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        None => measured(&arguments),
        Some(Role::Origin(listen)) => origin::run(&listen),
        Some(Role::Sink(listen)) => sink::run(&listen),
        Some(Role::Relay(work)) => relay::run(&work),
        Some(Role::Bare(work)) => bare::run(&work),
        Some(Role::Sha256(work)) => {
            hash::run(&work);
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn rounds_of_environment() -> usize {
    let said = std::env::var("BENCH_ROUNDS").ok();
    said.and_then(|rounds| rounds.parse().ok()).unwrap_or(5)
}

fn measured(arguments: &Arguments) -> Result<()> {
    let plan = rig::Plan {
        rounds: arguments.rounds.max(1),
        mib: arguments.mib.max(8),
        peers: arguments.peers,
        movers: arguments.movers.clone(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    report::print_machine();
    let asked = &arguments.cases;
    let mut done = Vec::new();
    for group in groups::Group::value_variants() {
        if asked.is_empty() || asked.contains(group) {
            let lines = runtime.block_on(rig::run(*group, &plan))?;
            report::print(*group, &lines);
            done.push((*group, lines));
        }
    }
    let place = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    report::write_file(&place.join("transfer.svg"), &chart::svg(&done))?;
    let lines: Vec<_> = done.into_iter().flat_map(|(_, lines)| lines).collect();
    report::write(&lines, &place.join("transfer.json"))
}
