//! The verbs of the outbox: events that people may hear of, and their way to the endpoints that want them.

use super::Manifest;
use super::ManifestError;
use super::sqlite;
use crate::clock::Timestamp;
use crate::manifest::row::event::ClaimedDelivery;
use crate::manifest::row::event::DeliverySettlement;
use crate::manifest::row::event::EndpointTrouble;
use crate::manifest::row::event::EventFilter;
use crate::manifest::row::event::EventRecord;
use crate::manifest::row::event::FannedOut;
use crate::manifest::row::event::Subscriber;
use crate::model::event::EndpointName;
use crate::model::lease::Lease;

/// Report: deliveries under lease.
impl Manifest {
    /// Whether there are events that no deliveries were made of yet.
    pub async fn has_unfanned(&self) -> Result<bool, ManifestError> {
        self.sqlite
            .read("has_unfanned", sqlite::deliveries::has_unfanned)
            .await
    }

    /// Makes the deliveries of at most `most` events that have none yet: one for each subscriber that wants its kind,
    /// and one for the task's own callback where it ended. `nonce` is one that no other call has.
    pub async fn fan_out(
        &self,
        subscribers: &[Subscriber],
        nonce: String,
        most: usize,
    ) -> Result<FannedOut, ManifestError> {
        let subscribers = subscribers.to_vec();
        self.sqlite
            .write("fan_out", move |tx| {
                sqlite::deliveries::fan_out(tx, &subscribers, &nonce, most)
            })
            .await
    }

    /// Claims at most `most` deliveries that are due, and of each endpoint no more than make `at_once` with those under
    /// way, so that one that is slow holds up no other; of one that fails a single one.
    pub async fn claim_deliveries(
        &self,
        most: usize,
        at_once: usize,
    ) -> Result<Vec<ClaimedDelivery>, ManifestError> {
        self.sqlite
            .write("claim_deliveries", move |tx| {
                sqlite::deliveries::claim(tx, most, at_once)
            })
            .await
    }

    /// Writes that an endpoint took its message, which ends the claim. Gives the trouble that is over with it.
    pub async fn mark_sent(&self, lease: &Lease) -> Result<Option<EndpointTrouble>, ManifestError> {
        let lease = *lease;
        self.sqlite
            .write("mark_sent", move |tx| {
                sqlite::deliveries::mark_sent(tx, &lease)
            })
            .await
    }

    /// Ends the claim on a delivery that was not taken. Gives the trouble that its endpoint is in.
    pub async fn settle_delivery(
        &self,
        lease: &Lease,
        settlement: DeliverySettlement,
    ) -> Result<Option<EndpointTrouble>, ManifestError> {
        let lease = *lease;
        self.sqlite
            .write("settle_delivery", move |tx| {
                sqlite::deliveries::settle(tx, &lease, &settlement)
            })
            .await
    }

    /// Sends nothing to an endpoint any more and gives up what is due there. Whether it was not disabled before.
    pub async fn disable_endpoint(
        &self,
        endpoint: &EndpointName,
        error: &str,
    ) -> Result<bool, ManifestError> {
        let (endpoint, error) = (endpoint.clone(), error.to_owned());
        self.sqlite
            .write("disable_endpoint", move |tx| {
                sqlite::deliveries::disable(tx, &endpoint, &error)
            })
            .await
    }

    /// Enables every endpoint that is disabled. Gives the trouble that each was in.
    pub async fn enable_endpoints(&self) -> Result<Vec<EndpointTrouble>, ManifestError> {
        self.sqlite
            .write("enable_endpoints", sqlite::deliveries::enable)
            .await
    }

    /// Every endpoint that does not work.
    pub async fn endpoint_troubles(&self) -> Result<Vec<EndpointTrouble>, ManifestError> {
        self.sqlite
            .read("endpoint_troubles", sqlite::deliveries::troubles)
            .await
    }
}

/// Events, for people and streams.
impl Manifest {
    /// At most `most` events that pass the filter, in the order of their numbers, with their deliveries.
    pub async fn events(
        &self,
        filter: &EventFilter,
        most: usize,
    ) -> Result<Vec<EventRecord>, ManifestError> {
        let filter = filter.clone();
        self.sqlite
            .read("events", move |db| {
                sqlite::events::events(db, &filter, most)
            })
            .await
    }

    /// Tells of these events again under the same message IDs, and for the first time those endpoints that want them
    /// by now; with an endpoint, only that one again. Tells how many events.
    pub async fn replay(
        &self,
        filter: &EventFilter,
        endpoint: Option<&EndpointName>,
    ) -> Result<u64, ManifestError> {
        let (filter, endpoint) = (filter.clone(), endpoint.cloned());
        self.sqlite
            .write("replay", move |tx| {
                sqlite::events::replay(tx, &filter, endpoint.as_ref())
            })
            .await
    }

    /// Ends well as long as the manifest can be written: a full disk shows here before it is needed.
    pub async fn prove_writable(&self) -> Result<(), ManifestError> {
        self.sqlite
            .write("prove_writable", sqlite::events::prove_writable)
            .await
    }

    /// Deletes at most `most` events from before `before` with nothing left to deliver. Tells how many.
    pub async fn prune_events(
        &self,
        before: Timestamp,
        most: usize,
    ) -> Result<usize, ManifestError> {
        self.sqlite
            .write("prune_events", move |tx| {
                sqlite::events::prune(tx, before, most)
            })
            .await
    }
}
