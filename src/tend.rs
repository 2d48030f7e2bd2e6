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

/// Tries of one orphan after which each further one waits longer than the one before.
const PATIENT_AFTER: u32 = 5;

/// How often an orphan is tried at least: it costs its room and nothing else.
const RARELY: Span = Span::from_secs(6 * 3600);

/// Tries of one orphan after which a bare 404 means that there is no such upload: a store that is there has a code for it.
const GONE_BELIEVED: u32 = 3;

/// How many tries of one orphan are one line in the log.
const SAY_EACH: u32 = 10;

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
        let aborted = store.abort(&orphan.key, &orphan.upload).await;
        let is_believed = orphan.attempts >= GONE_BELIEVED;
        if let Err(error) = aborted
            && !(error.kind == StoreErrorKind::UploadGone && is_believed)
        {
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
        if orphan.attempts.is_multiple_of(SAY_EACH) {
            tracing::warn!(%failure, "an orphaned upload is not aborted yet");
        }
        let now = self.clock.now();
        let situation = Situation {
            now,
            attempts: orphan.attempts,
            urgent_until: None,
        };
        let settled = decide(failure.verdict(), situation, &self.dice);
        let due_at = settled.due_at.unwrap_or(now.plus(BLOCKED_PAUSE));
        let due_at = due_at.max(now.plus(at_least(orphan.attempts)));
        if let Err(error) = self
            .manifest
            .settle_orphan(&orphan.lease, Some(due_at))
            .await
        {
            tracing::error!(%error, "failed to settle; the lease runs out by itself");
        }
    }
}

/// How long an orphan waits at least that was tried so often: what a few tries do not mend is a right that is missing, or
/// a store that aborts nothing.
fn at_least(attempts: u32) -> Span {
    let doublings = attempts.saturating_sub(PATIENT_AFTER).min(16);
    BLOCKED_PAUSE
        .times(f64::from(1_u32 << doublings) - 1.0)
        .min(RARELY)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_orphan_that_is_not_aborted_is_tried_ever_more_rarely() {
        let waits = [
            (0, 0),
            (5, 0),
            (6, 60),
            (7, 180),
            (14, 21_600),
            (10_000, 21_600),
        ];
        for (attempts, seconds) in waits {
            assert_eq!(at_least(attempts), Span::from_secs(seconds), "{attempts}");
        }
    }
}
