//! What it costs to let tasks become known: each group measures one way in.
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

mod hooks;

/// Measures what it costs to let tasks become known.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which groups are measured; all by default.
    #[arg(long, value_delimiter = ',')]
    groups: Vec<Group>,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One way in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// A burst of webhooks: 5,000 in 10 s.
    Hooks,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let groups = if arguments.groups.is_empty() {
        Group::value_variants().to_vec()
    } else {
        arguments.groups
    };
    for group in groups {
        if let Err(error) = measure(group) {
            eprintln!("{group:?}: {error:#}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(group: Group) -> Result<()> {
    match group {
        Group::Hooks => hooks::measure(),
    }
}
