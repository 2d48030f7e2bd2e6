//! What it costs to let tasks become known and to watch them: each group measures one part.
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
use clap::Subcommand;
use clap::ValueEnum;

mod daemon;
mod gateway;
mod hooks;
mod polls;
mod process;
mod wire;

/// Measures what it costs to let tasks become known and to watch them.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which groups are measured; all by default.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<Group>,
    /// How many unfinished tasks `polls` watches.
    #[arg(long, default_value_t = 100_000)]
    tasks: usize,
    /// For how many seconds they are watched at their intervals.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// What the gateway adds to a submission.
    Gateway,
    /// A burst of webhooks: 5,000 in 10 s.
    Hooks,
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
    if let Some(Role::Provider { tasks }) = arguments.role {
        return ended("provider", polls::provider(tasks));
    }
    let groups = if arguments.groups.is_empty() {
        Group::value_variants()
    } else {
        &arguments.groups
    };
    for group in groups {
        let name = format!("{group:?}").to_lowercase();
        if ended(&name, measure(*group, &arguments)) != ExitCode::SUCCESS {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(group: Group, arguments: &Arguments) -> Result<()> {
    match group {
        Group::Gateway => gateway::measure(),
        Group::Hooks => hooks::measure(),
        Group::Polls => polls::run(arguments.tasks, arguments.seconds),
    }
}

fn ended(what: &str, outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{what}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
