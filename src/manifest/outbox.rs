//! The verbs of the outbox: events that people may hear of, and their way to the endpoints that want them.

use super::Manifest;
use super::ManifestError;
use super::ROWS_AT_ONCE;
use super::engine::change;
use super::engine::lease;
use super::engine::look;
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
        look!(self, "has_unfanned", deliveries::has_unfanned())
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
        change!(
            self,
            "fan_out",
            deliveries::fan_out(&subscribers, &nonce, most)
        )
    }

    /// Claims at most `most` deliveries that are due, and of each endpoint no more than make `at_once` with those under
    /// way, so that one that is slow holds up no other; of one that fails a single one.
    pub async fn claim_deliveries(
        &self,
        most: usize,
        at_once: usize,
    ) -> Result<Vec<ClaimedDelivery>, ManifestError> {
        lease!(self, "claim_deliveries", deliveries::claim(most, at_once))
    }

    /// Writes that an endpoint took its message, which ends the claim. Gives the trouble that is over with it.
    pub async fn mark_sent(&self, lease: &Lease) -> Result<Option<EndpointTrouble>, ManifestError> {
        let lease = *lease;
        change!(self, "mark_sent", deliveries::mark_sent(&lease))
    }

    /// Ends the claim on a delivery that was not taken. Gives the trouble that its endpoint is in.
    pub async fn settle_delivery(
        &self,
        lease: &Lease,
        settlement: DeliverySettlement,
    ) -> Result<Option<EndpointTrouble>, ManifestError> {
        let lease = *lease;
        change!(
            self,
            "settle_delivery",
            deliveries::settle(&lease, &settlement)
        )
    }

    /// Sends nothing to an endpoint any more and gives up what is due there. Whether it was not disabled before.
    pub async fn disable_endpoint(
        &self,
        endpoint: &EndpointName,
        error: &str,
    ) -> Result<bool, ManifestError> {
        let mut was_enabled = false;
        loop {
            let (endpoint, error) = (endpoint.clone(), error.to_owned());
            let (is_new, given_up) = change!(
                self,
                "disable_endpoint",
                deliveries::disable(&endpoint, &error)
            )?;
            was_enabled |= is_new;
            if given_up < ROWS_AT_ONCE {
                return Ok(was_enabled);
            }
        }
    }

    /// Enables every endpoint that is disabled. Gives the trouble that each was in.
    pub async fn enable_endpoints(&self) -> Result<Vec<EndpointTrouble>, ManifestError> {
        change!(self, "enable_endpoints", deliveries::enable())
    }

    /// Every endpoint that does not work.
    pub async fn endpoint_troubles(&self) -> Result<Vec<EndpointTrouble>, ManifestError> {
        look!(self, "endpoint_troubles", deliveries::troubles())
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
        look!(self, "events", events::events(&filter, most))
    }

    /// Tells of these events again under the same message IDs, and for the first time those subscribers that want them
    /// by now; with `only`, nobody but that endpoint. `nonce` is one that no other call has. Tells of how many events.
    pub async fn replay(
        &self,
        filter: &EventFilter,
        subscribers: &[Subscriber],
        only: Option<&EndpointName>,
        nonce: String,
    ) -> Result<u64, ManifestError> {
        let (filter, only) = (filter.clone(), only.cloned());
        let wanted = |it: &&Subscriber| only.as_ref().is_none_or(|only| it.endpoint == *only);
        let subscribers: Vec<Subscriber> = subscribers.iter().filter(wanted).cloned().collect();
        change!(
            self,
            "replay",
            events::replay(&filter, &subscribers, only.as_ref(), &nonce)
        )
    }

    /// Ends well as long as the manifest can be written: a full disk shows here before it is needed.
    pub async fn prove_writable(&self) -> Result<(), ManifestError> {
        change!(self, "prove_writable", events::prove_writable())
    }

    /// Deletes at most `most` events from before `before` with nothing left to deliver. Tells how many.
    pub async fn prune_events(
        &self,
        before: Timestamp,
        most: usize,
    ) -> Result<usize, ManifestError> {
        change!(self, "prune_events", events::prune(before, most))
    }
}
