//! Notifications: events go to configured endpoints and to the callbacks of tasks, each a signed POST under a lease.
//!
//! ```text
//!   transition --event--> fan out: one delivery an endpoint --claim--> render, sign, POST --2xx--> sent
//!                                                  ^---- back-off ---------'
//! ```
//!
//! A message is sent at least once, under the same ID at every try; its body shows the task as it is then. Dead after
//! the POST and before the row, it is sent again. This room and no other renders it, since the body is the record of
//! this very room, and rooms of one floor are strangers.

mod endpoint;
mod message;
mod post;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::endpoint::Endpoint;
pub use self::endpoint::EndpointError;
pub use self::endpoint::Signer;
use self::post::Answer;
use self::post::post;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::http::Http;
use crate::http::standard_webhooks;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::manifest::row::event::ClaimedDelivery;
use crate::manifest::row::event::DeliverySettlement;
use crate::manifest::row::event::EndpointTrouble;
use crate::manifest::row::event::Event;
use crate::manifest::row::event::Subscriber;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::model::failure::Failure;
use crate::model::failure::Verdict;
use crate::model::lease::Lease;
use crate::report::record::Places;
use crate::secret::SecretSource;
use crate::units::Span;
use crate::work::driver::Stage;
use crate::work::settle::ENDPOINT_PATIENCE;
use crate::work::settle::MANIFEST_PAUSE;
use crate::work::settle::MessageSituation;
use crate::work::settle::decide_message;
use crate::work::settle::write_patiently;

/// Messages under way at once to one endpoint: a receiver is an application, not a store.
const AT_ONCE: usize = 8;

/// Events whose deliveries are made in one transaction.
const FAN_OUT_MAX: usize = 500;

/// Such transactions between two claims: a burst of learned tasks does not keep messages waiting.
const FAN_OUTS_MAX: usize = 4;

/// The wait before what cannot be sent for a reason of our own is looked at again: an endpoint that the configuration
/// no longer has may be back after the next reload.
const OWN_PAUSE: Span = Span::from_secs(600);

/// How long a stopping daemon waits for answers: a reload waits for it as well, and all stages with it.
const STOP_WITHIN: Span = Span::from_secs(2);

/// `[[notify]]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name; made from the URL where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<EndpointName>,
    /// What it wants to hear of.
    pub when: Vec<EventKind>,
    /// Where to.
    pub url: Url,
    /// The key that signs.
    pub secret: SecretSource,
    /// The key before that one, which signs as well while it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_old: Option<SecretSource>,
    /// Whether it may be plain http and on a private address.
    #[serde(default)]
    pub allow_private: bool,
}

/// `[callback]`: how the callbacks of tasks are called, which their announcers gave.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CallbackConfig {
    /// The key that signs; without it they are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSource>,
    /// The key before that one, which signs as well while it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_old: Option<SecretSource>,
    /// Whether they may be plain http and on private addresses.
    #[serde(default)]
    pub allow_private: bool,
}

/// Makes the body of a task's callback in a form that its caller knows; `None` leaves it to the record.
pub type CallbackBody = Arc<
    dyn Fn(Event, TaskRecord) -> BoxFuture<'static, Result<Option<Bytes>, Failure>> + Send + Sync,
>;

/// How the callbacks of tasks are called.
#[derive(Clone)]
pub struct Callbacks {
    /// What signs them.
    pub signer: Signer,
    /// The guarded client.
    pub http: Http,
    /// What makes their bodies, where the record will not do.
    pub body: Option<CallbackBody>,
}

/// The notify stage.
pub struct Notify {
    /// Where deliveries are made, claimed and recorded.
    pub manifest: Manifest,
    /// The configured endpoints.
    pub endpoints: BTreeMap<EndpointName, Endpoint>,
    /// The callbacks of tasks.
    pub callbacks: Callbacks,
    /// Where each destination is, for records.
    pub places: Places,
    /// Wall time.
    pub clock: Clock,
    /// For jitter and message IDs.
    pub dice: Dice,
}

impl Stage for Notify {
    type Work = ClaimedDelivery;

    const NAME: &'static str = "notify";

    const TABLE: Claimable = Claimable::Deliveries;

    async fn claim(&self, most: usize) -> Result<Vec<ClaimedDelivery>, ManifestError> {
        // Reads wait for nobody, while a write waits for a sync of others: most looks find nothing to write.
        if self.manifest.has_unfanned().await? {
            self.fan_out().await?;
        }
        let due = self.manifest.next_due(Claimable::Deliveries).await?;
        // What is due on a server is due by its clock, which ours may be behind.
        let is_later = |due| due > self.clock.now() && !self.manifest.is_shared();
        if due.is_none_or(is_later) {
            return Ok(Vec::new());
        }
        self.manifest.claim_deliveries(most, AT_ONCE).await
    }

    fn leases(delivery: &ClaimedDelivery) -> Vec<Lease> {
        vec![delivery.lease]
    }

    fn span(delivery: &ClaimedDelivery) -> tracing::Span {
        let event = &delivery.event;
        tracing::error_span!(
            "notify",
            endpoint.name = %delivery.endpoint,
            event.kind = %event.kind,
            task.id = %event.task.id,
        )
    }

    async fn step(
        &self,
        delivery: &ClaimedDelivery,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let (url, signer, http) = self.target(delivery)?;
        let body = self.body(delivery).await?;
        let now = self.clock.now();
        let mut headers = standard_webhooks::sign(signer.keys(), &delivery.message_id, now, &body);
        if signer.keys().is_empty() {
            headers.remove(standard_webhooks::SIGNATURE);
        }
        let answer = tokio::select! {
            answer = post(http, url, headers, body, now) => answer,
            // It may have been taken; if so the receiver can tell by its ID.
            () = soon_after(stop) => return Err(Failure::drained()),
        };
        match answer {
            Answer::Taken => self.taken(delivery).await,
            Answer::Gone => {
                let failure = Failure::dead("answered 410: it wants nothing any more");
                self.not_taken(delivery, &failure).await;
            }
            Answer::Busy { until, what } => {
                let failure = Failure::wait_until(until, what);
                self.not_taken(delivery, &failure).await;
            }
            Answer::Failed(what) => self.not_taken(delivery, &Failure::retry(what)).await,
        }
        Ok(())
    }

    /// Only for reasons of our own: what an endpoint answers is settled in the step.
    async fn settle(&self, delivery: &ClaimedDelivery, failure: Failure) {
        self.write(delivery, &failure, false).await;
    }
}

/// Ends a moment after the daemon was told to stop: most answers come within it.
async fn soon_after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(STOP_WITHIN.as_duration()).await;
}

impl Notify {
    async fn fan_out(&self) -> Result<(), ManifestError> {
        let subscribers: Vec<Subscriber> = self
            .endpoints
            .iter()
            .map(|(name, endpoint)| Subscriber {
                endpoint: name.clone(),
                kinds: endpoint.kinds().to_vec(),
            })
            .collect();
        for _ in 0..FAN_OUTS_MAX {
            let nonce = self.dice.nonce();
            let fanned = self
                .manifest
                .fan_out(&subscribers, nonce, FAN_OUT_MAX)
                .await?;
            if fanned.events < FAN_OUT_MAX {
                break;
            }
        }
        Ok(())
    }

    fn target<'a>(
        &'a self,
        delivery: &'a ClaimedDelivery,
    ) -> Result<(&'a Url, &'a Signer, &'a Http), Failure> {
        if let Some(url) = &delivery.callback {
            return Ok((url, &self.callbacks.signer, &self.callbacks.http));
        }
        let endpoint = self.endpoints.get(&delivery.endpoint).ok_or_else(|| {
            let what = format!("endpoint {} is no longer configured", delivery.endpoint);
            Failure::wait_until(self.clock.now().plus(OWN_PAUSE), what)
        })?;
        Ok((endpoint.url(), endpoint.signer(), endpoint.http()))
    }

    /// The body, made when it is sent: what the task is by then is worth more than what it was.
    async fn body(&self, delivery: &ClaimedDelivery) -> Result<Bytes, Failure> {
        let event = &delivery.event;
        let filter = TaskFilter {
            provider: Some(event.task.provider.clone()),
            id: Some(event.task.id.clone()),
            ..TaskFilter::default()
        };
        let found = self.manifest.tasks(&filter, 1).await;
        let found = found.map_err(|error| {
            let soon = self.clock.now().plus(MANIFEST_PAUSE);
            Failure::wait_until(soon, "no record to send").because(error)
        })?;
        let task = found.into_iter().next();
        // Its deliveries went with it, so nothing will come of this failure.
        let task = task.ok_or_else(|| Failure::dead("the task was forgotten"))?;
        if delivery.callback.is_some()
            && let Some(body) = &self.callbacks.body
            && let Some(body) = body(event.clone(), task.clone()).await?
        {
            return Ok(body);
        }
        Ok(message::body(event, task, &self.places))
    }

    async fn taken(&self, delivery: &ClaimedDelivery) {
        let written = write_patiently(&self.dice, || self.manifest.mark_sent(&delivery.lease));
        match written.await {
            Ok(None) => {}
            Ok(Some(trouble)) => {
                let failed_for = self.clock.now().since(trouble.failing_since);
                tracing::info!("the endpoint takes messages again, after {failed_for}");
            }
            Err(error) => {
                tracing::error!(%error, "a message was taken, but not recorded: it is sent again under the same ID");
            }
        }
    }

    async fn not_taken(&self, delivery: &ClaimedDelivery, failure: &Failure) {
        let Some(trouble) = self.write(delivery, failure, true).await else {
            return;
        };
        let failing_for = self.clock.now().since(trouble.failing_since);
        let is_over = failure.verdict() == Verdict::Dead || failing_for >= ENDPOINT_PATIENCE;
        let is_enabled = trouble.disabled_at.is_none() && !delivery.endpoint.is_callback();
        if is_over && is_enabled {
            self.disable(&delivery.endpoint, failing_for, &failure.to_string())
                .await;
        }
    }

    async fn disable(&self, endpoint: &EndpointName, failing_for: Span, why: &str) {
        match self.manifest.disable_endpoint(endpoint, why).await {
            Ok(true) => tracing::error!(
                cause = why,
                "the endpoint is disabled after {failing_for} without success: \
                 mend it, reload the configuration, then `reelvault events replay`"
            ),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "failed to disable an endpoint"),
        }
    }

    /// Writes that a message was not sent.
    async fn write(
        &self,
        delivery: &ClaimedDelivery,
        failure: &Failure,
        is_endpoint_failing: bool,
    ) -> Option<EndpointTrouble> {
        let situation = MessageSituation {
            now: self.clock.now(),
            attempts: delivery.attempts,
            begun_at: delivery.begun_at,
        };
        let settled = decide_message(failure.verdict(), situation, &self.dice);
        match settled.due_at {
            Some(_) if failure.verdict() == Verdict::Drained => {}
            Some(due) => tracing::warn!(%failure, next = %due, "a message was not taken"),
            None => tracing::error!(%failure, "a message is given up"),
        }
        let paused_until = match failure.verdict() {
            Verdict::WaitUntil(until) if is_endpoint_failing => Some(until),
            Verdict::WaitUntil(_)
            | Verdict::Retry
            | Verdict::RetryAfter(_)
            | Verdict::Gone
            | Verdict::Wrong
            | Verdict::Dead
            | Verdict::Drained => None,
        };
        let settlement = DeliverySettlement {
            due_at: settled.due_at,
            error: failure.to_string(),
            is_attempt: settled.is_attempt,
            is_endpoint_failing,
            paused_until,
        };
        let written = write_patiently(&self.dice, || {
            self.manifest
                .settle_delivery(&delivery.lease, settlement.clone())
        });
        match written.await {
            Ok(trouble) => trouble,
            Err(error) => {
                tracing::error!(%error, "failed to settle; the lease runs out by itself");
                None
            }
        }
    }
}
