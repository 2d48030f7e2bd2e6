//! Rows of discovery: how far the reading of a provider's list has come.

use crate::clock::Timestamp;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;

/// A provider whose list is to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose.
    pub provider: ProviderName,
    /// From when on its tasks are wanted, however old their links; `None` = as far back as links can live.
    pub since: Option<Timestamp>,
}

/// One reading of a list from its front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// When its first round began: what was made later may be on no page of it.
    pub began_at: Timestamp,
    /// 1, and one more each time that the list is read again because it may have moved.
    pub round: u32,
    /// Where the next page is; `None` = the front.
    pub place: Option<String>,
    /// Pages read in this round.
    pub pages: u32,
    /// Tasks learned in this round that were there when the pass began.
    pub learned: u32,
}

/// How far the reading of a list has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Everything made before this is known; `None` until a pass has come to its end.
    pub complete_to: Option<Timestamp>,
    /// The pass under way.
    pub pass: Option<Pass>,
    /// Whether the API has a list, as far as is known.
    pub has_list: bool,
}

/// A list under lease.
#[derive(Clone, Debug)]
pub struct ClaimedDiscovery {
    /// The claim, on a row of `discoveries`.
    pub lease: Lease,
    /// Whose list.
    pub provider: ProviderName,
    /// From when on tasks are wanted, however old their links.
    pub since: Option<Timestamp>,
    /// How far it has come.
    pub discovery: Discovery,
    /// Failed steps in a row.
    pub attempts: u32,
}

/// What a step on a list came to.
#[derive(Clone, Debug)]
pub struct DiscoverySettlement {
    /// How far it has come.
    pub discovery: Discovery,
    /// When the next step is due.
    pub due_at: Timestamp,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether the step counts as a failed one.
    pub is_attempt: bool,
}
