//! What the manifest knows of claims that are held for longer than a look.

use crate::model::lease::Lease;

/// What happened to claims while their holder was silent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldNews {
    /// Those asked about that are no longer the asker's: the lease ended, somebody else claimed it, the task was forgotten.
    pub lost: Vec<Lease>,
    /// All of this machine's on tasks that somebody wants looked at now.
    pub heard: Vec<Lease>,
}
