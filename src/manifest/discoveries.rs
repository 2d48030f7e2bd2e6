//! The verbs of discovery: one list of tasks a provider, read by one machine at a time.

use super::Manifest;
use super::ManifestError;
use super::engine::change;
use super::engine::lease;
use crate::manifest::row::discovery::ClaimedDiscovery;
use crate::manifest::row::discovery::DiscoverySettlement;
use crate::manifest::row::discovery::Wanted;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;

/// Intake: lists of tasks under lease.
impl Manifest {
    /// Makes the lists known that are to be read. One whose tasks are now wanted from further back begins anew.
    pub async fn want_discoveries(&self, wanted: &[Wanted]) -> Result<(), ManifestError> {
        let wanted = wanted.to_vec();
        change!(self, "want_discoveries", discoveries::want(&wanted))
    }

    /// Claims at most `most` lists that are due, of the providers `among`.
    pub async fn claim_discoveries(
        &self,
        most: usize,
        among: &[ProviderName],
    ) -> Result<Vec<ClaimedDiscovery>, ManifestError> {
        let among = among.to_vec();
        lease!(self, "claim_discoveries", discoveries::claim(most, &among))
    }

    /// Writes how far the reading has come and ends the claim.
    pub async fn settle_discovery(
        &self,
        lease: &Lease,
        settlement: DiscoverySettlement,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        change!(
            self,
            "settle_discovery",
            discoveries::settle(&lease, &settlement)
        )
    }
}
