//! What the manifest does in a second, on both engines, and what a million tasks change about that.
//!
//! `benches/README.md` says what each group measures and how to read what it prints.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::ValueEnum;

mod bare;
mod crowd;
mod ground;
mod million;
mod speed;
mod statement;
mod work;

/// The server of the tests.
#[path = "../../tests/it/postgres/server.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with the tests, where a panic is how a wrong result is told"
)]
mod server;

/// Measures the manifest's verbs beside bare statements, and with a million tasks beside few.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which groups are measured; all by default.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<Group>,
    /// Which engines; both by default.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<ground::Kind>,
    /// How often each thing is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How many tasks `million` has.
    #[arg(long, default_value_t = 1_000_000)]
    tasks: i64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Verbs a second beside bare statements.
    Speed,
    /// Each hot path with a million tasks beside few.
    Million,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manifest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let all = |given: &[Group]| match given {
        [] => Group::value_variants().to_vec(),
        some => some.to_vec(),
    };
    let engines = match arguments.engines.as_slice() {
        [] => ground::Kind::value_variants(),
        some => some,
    };
    for group in all(&arguments.groups) {
        match group {
            Group::Speed => speed::title(),
            Group::Million => million::title(arguments.tasks),
        }
        for engine in engines {
            runtime.block_on(async {
                match group {
                    Group::Speed => speed::measure(*engine, arguments.rounds).await,
                    Group::Million => million::measure(*engine, arguments.tasks).await,
                }
            })?;
        }
        println!();
    }
    Ok(())
}
