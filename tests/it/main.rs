//! The integration tests, in one binary: real sockets and processes on loopback.

mod archive;
mod hostile;
mod provider;
mod restart;
mod store_faults;
mod systemd;
mod world;
