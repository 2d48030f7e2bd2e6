//! Machines: the daemons that work on one manifest.

use serde::Serialize;

use crate::clock::Timestamp;

/// A daemon, as it announces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its name, which no other has.
    pub name: String,
    /// Drawn at each start.
    pub run: String,
    /// Of the program.
    pub version: String,
}

/// What became of an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It is one of the machines.
    Yes,
    /// Another run has the name, and was last heard of at this instant by the manifest's clock.
    Taken(Timestamp),
}

/// A daemon, for reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachineRecord {
    /// Its name.
    pub name: String,
    /// Of the program.
    pub version: String,
    /// When it started.
    pub started_at: Timestamp,
    /// When it was last heard of.
    pub beat_at: Timestamp,
    /// Whether that is not too long ago.
    pub is_living: bool,
}
