//! What the gateway does beside answering: tasks that passed while the manifest could not be written are learned.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::intake;
use crate::intake::Announcement;
use crate::intake::gateway::Gateway;
use crate::intake::gateway::deferred::Deferred;
use crate::intake::gateway::deferred::Passed;
use crate::manifest::ManifestError;
use crate::model::task::LearnedVia;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::units::Span;

/// How often it is tried to learn what waits. What waits is seen by nobody else, so it is not left for long.
const TRY_EVERY: Duration = Duration::from_secs(2);

/// Tasks that are learned in one transaction.
const LEARNED_AT_ONCE: usize = 500;

impl Gateway {
    /// Learns what passed unlearned, now and whenever there is something, until `stop`; then waits for submissions under
    /// way whose callers have gone.
    pub async fn keep_up(self, default_ttl: Span, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.catch_up(default_ttl).await;
            // Both arms are cancel-safe.
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(TRY_EVERY) => {}
            }
        }
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }

    /// Tries once to learn what passed unlearned.
    pub async fn catch_up(&self, default_ttl: Span) {
        if let Some(deferred) = &self.parts().deferred
            && deferred.count() > 0
            && let Err(error) = self.learn_deferred(deferred, default_ttl).await
        {
            let waiting = deferred.count();
            tracing::warn!(waiting, error, "what passed is still not learned");
        }
    }

    async fn learn_deferred(&self, deferred: &Deferred, default_ttl: Span) -> Result<(), String> {
        let batch = deferred.batch().await.map_err(|error| error.to_string())?;
        for some in batch.passed.chunks(LEARNED_AT_ONCE) {
            self.learn_some(some, default_ttl)
                .await
                .map_err(|error| error.to_string())?;
        }
        if batch.unread > 0 {
            tracing::error!(
                lines = batch.unread,
                "what passed cannot be read: those tasks are left to discovery"
            );
        }
        let learned = batch.passed.len();
        let taken_out = deferred.take_out(batch).await;
        taken_out.map_err(|error| error.to_string())?;
        tracing::info!(
            tasks = learned,
            "learned what passed while the manifest could not be written"
        );
        self.parts().watch.poke();
        Ok(())
    }

    async fn learn_some(&self, passed: &[Passed], default_ttl: Span) -> Result<(), ManifestError> {
        let parts = self.parts();
        let ttl = |key: &TaskKey| {
            let served = parts.providers.get(&key.provider);
            served.map_or(default_ttl, |served| served.provider.ttl())
        };
        // One that is learned late does not live longer for that, so each is learned as of when it passed. At once, so
        // that they share their commits.
        let learning = passed.iter().filter_map(|passed| {
            let key = passed.key()?;
            let announced = Announcement {
                ttl: ttl(&key),
                key,
                tags: Tags::new(),
                via: LearnedVia::Gateway,
                callback: passed.callback().cloned(),
            };
            Some(intake::learn(&parts.manifest, vec![announced], passed.at()))
        });
        futures::future::try_join_all(learning).await.map(drop)
    }
}
