//! Daemons of a fleet, killed and frozen at random for minutes: `make chaos`.
//!
//! The game itself is `tests/it/fleet.rs`, which the tests play for half a minute.
#![expect(
    dead_code,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "shares its files with the integration tests, where a panic is how a wrong result is told"
)]

use std::time::Duration;

use clap::Parser;
use reelvault::chance::Dice;

use crate::fleet::Game;

#[path = "../../tests/it/fleet.rs"]
mod fleet;
#[path = "../../tests/it/process.rs"]
mod process;
#[path = "../../tests/it/world.rs"]
mod world;

#[path = "../../tests/it/postgres"]
mod postgres {
    pub(crate) mod server;
}

/// Kills and freezes the daemons of a fleet at random, and sees whether everything is archived once.
#[derive(Debug, Parser)]
struct Arguments {
    /// What chance is drawn from; drawn itself where none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// For how many seconds daemons are harmed, and tasks announced.
    #[arg(long, default_value_t = 180)]
    seconds: u64,
    /// How many tasks.
    #[arg(long, default_value_t = 400)]
    tasks: usize,
    /// How many daemons.
    #[arg(long, default_value_t = 4)]
    daemons: usize,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let game = Game {
        seed: arguments.seed.unwrap_or_else(|| Dice::new().number()),
        daemons: arguments.daemons,
        tasks: arguments.tasks,
        span: Duration::from_secs(arguments.seconds),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(fleet::play(game));
}
