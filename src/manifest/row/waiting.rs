//! What waits because something went wrong.

use serde::Serialize;

use crate::model::task::ProviderName;

/// Rows that wait for their next try because of one and the same error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// `tasks` or `assets`.
    pub what: String,
    /// Whose they are.
    pub provider: ProviderName,
    /// How many.
    pub rows: u64,
    /// What the last try of each met.
    pub error: String,
}
