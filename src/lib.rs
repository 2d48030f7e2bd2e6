//! Reelvault archives AI video results into object stores before their links die, and proves it.
//!
//! Rooms by floor, lowest first; a room imports lower floors only, but on the ground they may share each other.
//! `tests/tidy.rs` holds them to that.
//! `ARCHITECTURE.md` has the map, the invariants, and what is deliberately absent.

#![forbid(unsafe_code)]

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

// Floor 3: ports.
pub mod manifest;
pub mod origin;
pub mod provider;
pub mod store;

// Floor 4: the loop that every stage runs in. It drives the manifest.
pub mod work;

// Floor 5: stages, and a simulated outside.
pub mod archive;
pub mod intake;
pub mod report;
pub mod simulator;
pub mod tend;
pub mod watch;

// Floor 6 and up: configuration, daemon, command line.
pub mod config;
pub mod daemon;

pub mod cli;
