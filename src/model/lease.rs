//! Leases: a time-limited, fenced claim of one worker on one row.

use crate::clock::Timestamp;

/// The term of a claim on a row: one more at each claim, so that a late write by an earlier owner is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken(pub i64);

/// A claim on the row `row`, good until `expires_at` or until the next claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The row in its table.
    pub row: i64,
    /// Compared by every write.
    pub token: LeaseToken,
    /// When others may claim the row.
    pub expires_at: Timestamp,
}
