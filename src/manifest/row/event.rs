//! Events, their deliveries, and the endpoints that they go to: what the outbox's verbs take and give.

use serde::Serialize;
use url::Url;

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::event::DeliveryState;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::model::lease::Lease;
use crate::model::task::TaskKey;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number, which rises; never used twice.
    pub number: i64,
    /// What happened.
    pub kind: EventKind,
    /// To which task.
    pub task: TaskKey,
    /// To which asset; `None` where it is about the whole task.
    pub index: Option<AssetIndex>,
    /// Why, where there is a reason to tell.
    pub reason: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// An endpoint and what it wants to hear of.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// Its name.
    pub endpoint: EndpointName,
    /// The events that it wants.
    pub kinds: Vec<EventKind>,
}

/// What making deliveries came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FannedOut {
    /// Events that were looked at.
    pub events: usize,
    /// Deliveries that were made of them.
    pub deliveries: usize,
}

/// A delivery under lease.
#[derive(Clone, Debug)]
pub struct ClaimedDelivery {
    /// The claim, on a row of `deliveries`.
    pub lease: Lease,
    /// Whom to tell.
    pub endpoint: EndpointName,
    /// The task's own callback, where that is the endpoint. May be signed: never print it whole.
    pub callback: Option<Url>,
    /// The message's ID, the same at every try.
    pub message_id: String,
    /// What happened.
    pub event: Event,
    /// When its tries began.
    pub begun_at: Timestamp,
    /// Failed tries so far.
    pub attempts: u32,
}

/// How a try that was not taken ends.
#[derive(Clone, Debug)]
pub struct DeliverySettlement {
    /// When to try again; `None` gives it up.
    pub due_at: Option<Timestamp>,
    /// Why, for people.
    pub error: String,
    /// Whether this counts as a failed try.
    pub is_attempt: bool,
    /// Whether it is the endpoint that does not work, rather than this message or ourselves.
    pub is_endpoint_failing: bool,
    /// Until when the endpoint wants to be left alone.
    pub paused_until: Option<Timestamp>,
}

/// How an endpoint is that does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointTrouble {
    /// Its name.
    pub endpoint: EndpointName,
    /// Since when it took nothing.
    pub failing_since: Timestamp,
    /// Since when nothing is sent there any more.
    pub disabled_at: Option<Timestamp>,
    /// What the last try met.
    pub error: String,
}

/// An event with all of its deliveries, for reading.
#[derive(Clone, Debug)]
pub struct EventRecord {
    /// What happened.
    pub event: Event,
    /// To whom it goes.
    pub deliveries: Vec<DeliveryRecord>,
}

/// How far one endpoint has been told, for reading.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryRecord {
    /// Whom.
    pub endpoint: EndpointName,
    /// The message's ID.
    pub message_id: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it is tried next.
    pub due_at: Option<Timestamp>,
    /// Failed tries.
    pub attempts: u32,
    /// Why the last one failed.
    pub error: Option<String>,
}

/// Which events are meant.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Only these numbers; empty = all.
    pub numbers: Vec<i64>,
    /// Only after this number: where a stream or a page goes on.
    pub after: Option<i64>,
    /// Only at or after this instant.
    pub since: Option<Timestamp>,
    /// Only of this kind.
    pub kind: Option<EventKind>,
    /// Only of tasks with this ID.
    pub task: Option<crate::model::task::TaskId>,
}
