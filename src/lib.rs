//! Reelvault archives AI video results into object stores before their links die, and proves it.
//!
//! Rooms by floor, lowest first; a room imports lower floors only, and `tests/tidy.rs` holds it to that.
//! `ARCHITECTURE.md` has the map, the invariants, and what is deliberately absent.

// Floor 0: ground.
pub mod backoff;
pub mod chance;
pub mod clock;
pub mod secret;
pub mod units;

// Floor 1: words.
pub mod model;

// Floor 2: tools.
pub mod http;
pub mod telemetry;

// Floor 3: ports, and the loop that works them.
pub mod manifest;
pub mod origin;
pub mod provider;
pub mod store;
pub mod work;

// Floor 4: stages.
pub mod archive;
pub mod intake;
pub mod report;
pub mod simulator;
pub mod tend;
pub mod watch;

// Floor 5 and up: configuration, daemon, command line.
pub mod config;
pub mod daemon;

pub mod cli;
