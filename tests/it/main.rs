//! The integration tests, in one binary: real sockets and processes on loopback.

mod archive;
mod hostile;
mod provider;
mod systemd;
mod world;
