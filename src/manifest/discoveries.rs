//! The verbs of discovery: one list of tasks a provider, read by one machine at a time.

use super::Manifest;
use super::ManifestError;
use super::sqlite;
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
        self.sqlite
            .write("want_discoveries", move |tx| {
                sqlite::discoveries::want(tx, &wanted)
            })
            .await
    }

    /// Claims at most `most` lists that are due, of the providers `among`.
    pub async fn claim_discoveries(
        &self,
        most: usize,
        among: &[ProviderName],
    ) -> Result<Vec<ClaimedDiscovery>, ManifestError> {
        let among = among.to_vec();
        self.sqlite
            .write("claim_discoveries", move |tx| {
                sqlite::discoveries::claim(tx, most, &among)
            })
            .await
    }

    /// Writes how far the reading has come and ends the claim.
    pub async fn settle_discovery(
        &self,
        lease: &Lease,
        settlement: DiscoverySettlement,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        self.sqlite
            .write("settle_discovery", move |tx| {
                sqlite::discoveries::settle(tx, &lease, &settlement)
            })
            .await
    }
}
