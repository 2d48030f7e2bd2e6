//! The verbs of holds: claims on watched tasks that outlast many looks, so that a look without news writes nothing.

use super::Manifest;
use super::ManifestError;
use super::engine::change;
use super::engine::look;
use crate::clock::Timestamp;
use crate::manifest::row::ClaimedTask;
use crate::manifest::row::HeldNews;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;
use crate::units::Span;

/// Watch: tasks that are held.
impl Manifest {
    /// As [`Manifest::claim_tasks`], for `hold` instead of a lease. The rows stay as they are until the claim ends, so
    /// that whoever dies leaves tasks that are due.
    pub async fn hold_tasks(
        &self,
        most: usize,
        except: &[ProviderName],
        hold: Span,
    ) -> Result<Vec<ClaimedTask>, ManifestError> {
        self.claim_due("hold_tasks", most, except, Some(hold)).await
    }

    /// Which of `leases` are lost, and which of all that this machine holds are to be looked at now.
    pub async fn held_news(&self, leases: &[Lease]) -> Result<HeldNews, ManifestError> {
        let leases = leases.to_vec();
        look!(self, "held_news", holds::news(&leases))
    }

    /// Ends claims without anything to write but when to look next; what is lost by now is left alone. A task that was
    /// heard of meanwhile is due now.
    pub async fn let_go(&self, held: &[(Lease, Timestamp)]) -> Result<(), ManifestError> {
        let held = held.to_vec();
        change!(self, "let_go", holds::let_go(&held))
    }
}
