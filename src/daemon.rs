//! The daemon: wires the rooms together, starts the stages, and stops them cleanly.

pub mod supervisor;
pub mod systemd;
pub mod wiring;
