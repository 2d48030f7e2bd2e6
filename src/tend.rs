//! The tend stage: what nobody else comes back for. Orphaned uploads are aborted, and nothing nears its deadline
//! unarchived without somebody being told. Events that everybody has been told of are forgotten in the end.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::AtRisk;
use crate::manifest::row::Claimable;
use crate::manifest::row::ClaimedOrphan;
use crate::model::deadline::Danger;
use crate::model::failure::Failure;
use crate::model::lease::Lease;
use crate::model::object::DestinationName;
use crate::store::Store;
use crate::store::StoreErrorKind;
use crate::units::Span;
use crate::work::driver::Stage;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::Situation;
use crate::work::settle::decide;

/// How long events are kept after everybody was told: for replays, and for streams that go on after a long pause.
const EVENTS_KEPT: Span = Span::from_secs(7 * 24 * 3600);

/// Events that are forgotten at once; the rest goes with the next look.
const EVENTS_PRUNED_MAX: usize = 1000;

/// The tend stage.
pub struct Tend {
    /// Where work is claimed and recorded.
    pub manifest: Manifest,
    /// The destinations.
    pub stores: BTreeMap<DestinationName, Store>,
    /// An alarm is raised this long before a link dies.
    pub warn: Span,
    /// Wall time.
    pub clock: Clock,
    /// For jitter.
    pub dice: Dice,
}

impl Stage for Tend {
    type Work = ClaimedOrphan;

    const NAME: &'static str = "tend";

    const TABLE: Claimable = Claimable::Orphans;

    async fn claim(&self, most: usize) -> Result<Vec<ClaimedOrphan>, ManifestError> {
        self.raise_alarms().await?;
        let before = self.clock.now().minus(EVENTS_KEPT);
        self.manifest
            .prune_events(before, EVENTS_PRUNED_MAX)
            .await?;
        self.manifest.claim_orphans(most).await
    }

    fn leases(orphan: &ClaimedOrphan) -> Vec<Lease> {
        vec![orphan.lease]
    }

    fn span(orphan: &ClaimedOrphan) -> tracing::Span {
        tracing::error_span!("tend", destination.name = %orphan.destination, object.key = %orphan.key)
    }

    async fn step(&self, orphan: &ClaimedOrphan, _stop: &CancellationToken) -> Result<(), Failure> {
        let store = self.stores.get(&orphan.destination).ok_or_else(|| {
            let what = format!("destination {} is no longer configured", orphan.destination);
            Failure::wait_until(self.clock.now().plus(BLOCKED_PAUSE), what)
        })?;
        if let Err(error) = store.abort(&orphan.key, &orphan.upload).await {
            let what = error.to_string();
            return Err(match error.kind {
                StoreErrorKind::Blocked => {
                    Failure::wait_until(self.clock.now().plus(BLOCKED_PAUSE), what)
                }
                StoreErrorKind::Transient
                | StoreErrorKind::Exists
                | StoreErrorKind::Conflict
                | StoreErrorKind::UploadGone
                | StoreErrorKind::Ambiguous
                | StoreErrorKind::Rejected
                | StoreErrorKind::Source => Failure::retry(what),
            });
        }
        tracing::info!("aborted an orphaned upload");
        let settled = self.manifest.settle_orphan(&orphan.lease, None).await;
        settled.map_err(|error| Failure::retry("an abort was not recorded").because(error))
    }

    async fn settle(&self, orphan: &ClaimedOrphan, failure: Failure) {
        tracing::warn!(%failure, "an orphaned upload is not aborted yet");
        let now = self.clock.now();
        let situation = Situation {
            now,
            attempts: orphan.attempts,
            urgent_until: None,
        };
        let settled = decide(failure.verdict(), situation, &self.dice);
        let due_at = settled.due_at.unwrap_or(now.plus(BLOCKED_PAUSE));
        if let Err(error) = self
            .manifest
            .settle_orphan(&orphan.lease, Some(due_at))
            .await
        {
            tracing::error!(%error, "failed to settle; the lease runs out by itself");
        }
    }
}

impl Tend {
    /// Tells, once for each, of what nears its deadline unarchived.
    async fn raise_alarms(&self) -> Result<(), ManifestError> {
        let danger = Danger::within(self.warn, self.clock.now());
        for AtRisk {
            task,
            index,
            deadline,
            error,
        } in self.manifest.raise_alarms(danger).await?
        {
            let left = deadline.at.since(self.clock.now());
            tracing::error!(
                task.id = %task.id,
                asset.index = index.map(|index| index.0),
                deadline = %deadline.at,
                cause = error.as_deref().unwrap_or("not tried yet"),
                "at risk: dies in {left}"
            );
        }
        Ok(())
    }
}
