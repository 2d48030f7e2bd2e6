//! The integration tests, in one binary: real sockets and processes on loopback.

#![expect(
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test a panic is how a wrong result is told"
)]

mod archive;
mod cli;
mod hostile;
mod kill;
mod process;
mod provider;
mod restart;
mod store_faults;
mod systemd;
mod world;
