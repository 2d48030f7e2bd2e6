//! What knowing of tasks costs: CPU, time and memory of the daemon while tasks come in and are watched.
//!
//! One program in two processes beside the daemon's own, so that each one's CPU and memory are its own: this one
//! measures, `provider` is the simulated task API. The daemon is the real program, on a core of its own where the
//! machine has two.
//!
//! `benches/README.md` says what each group measures.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people at a terminal"
)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap::Subcommand;
use clap::ValueEnum;

mod polls;
mod process;

/// Measures what knowing of tasks costs.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which groups are measured; all by default.
    #[arg(long, value_delimiter = ',')]
    cases: Vec<Group>,
    /// How many unfinished tasks are watched.
    #[arg(long, default_value_t = 100_000)]
    tasks: usize,
    /// For how many seconds they are watched at their intervals.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What cargo adds to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Unfinished tasks, watched one by one.
    Polls,
}

/// What the other process of this program does.
#[derive(Debug, Subcommand)]
enum Role {
    /// Is a task API with so many tasks that never finish, and says on each line of its input how often it was asked.
    Provider {
        /// How many.
        tasks: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match &arguments.role {
        None => measured(&arguments),
        Some(Role::Provider { tasks }) => polls::provider(*tasks),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measured(arguments: &Arguments) -> Result<()> {
    for group in Group::value_variants() {
        if arguments.cases.is_empty() || arguments.cases.contains(group) {
            match group {
                Group::Polls => polls::run(arguments.tasks, arguments.seconds)?,
            }
        }
    }
    Ok(())
}
