//! The integration tests, in one binary: real sockets and processes on loopback.

#![expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::format_push_string,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test a panic is how a wrong result is told"
)]

mod api;
mod archive;
mod cli;
mod copies;
mod descriptions;
mod destinations;
mod discovery;
mod faults;
mod fleet;
mod gateway;
mod hooks;
mod hostile;
mod import;
mod kill;
mod metrics;
mod notify;
mod origin_failures;
mod page;
mod postgres;
mod process;
mod provider;
mod receiver;
mod restart;
mod server;
mod spool;
mod store_failures;
mod store_faults;
mod systemd;
mod world;
