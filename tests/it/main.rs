//! The integration tests, in one binary: real sockets and processes on loopback.

mod archive;
mod cli;
mod kill;
mod process;
mod provider;
mod systemd;
mod world;
