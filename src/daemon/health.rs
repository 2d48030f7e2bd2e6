//! Whether the daemon lives, and whether it can archive: the two questions of whoever watches over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::get;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::request::Admission;
use crate::intake::gateway::Gateway;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::work::driver::Pulse;

/// A stage that has not turned for this long hangs: each turns about once a second.
const STILL_MAX: Duration = Duration::from_secs(30);

/// A manifest that has not written for this long does not.
const WRITE_TIME: Duration = Duration::from_secs(5);

/// An answer is good for this long: each costs the disk a sync, and anybody may ask.
const KEPT: Duration = Duration::from_secs(1);

/// Tells which destinations take nothing now, and why.
pub(super) type Refusals = Box<dyn Fn() -> Vec<(DestinationName, String)> + Send + Sync>;

/// What health is told from.
pub(super) struct Health {
    manifest: Manifest,
    providers: BTreeMap<ProviderName, Provider>,
    refusals: Refusals,
    gateway: Gateway,
    stop: CancellationToken,
    stages: Mutex<Vec<Stage>>,
    /// Held while the manifest is tried, so that many who ask are one who writes.
    tried: tokio::sync::Mutex<Option<(Instant, Option<Trouble>)>>,
}

/// A stage, and when it was first seen at its latest turn.
struct Stage {
    name: &'static str,
    pulse: Pulse,
    seen: Option<(u64, Instant)>,
}

/// Why the manifest takes nothing, and what to do about it.
type Trouble = (String, &'static str);

/// What is in the way of archiving.
#[derive(Debug, serde::Serialize)]
struct Reason {
    what: String,
    why: String,
    hint: &'static str,
}

impl Health {
    pub(super) fn new(
        manifest: Manifest,
        providers: BTreeMap<ProviderName, Provider>,
        refusals: Refusals,
        gateway: Gateway,
        stop: CancellationToken,
    ) -> Self {
        Self {
            manifest,
            providers,
            refusals,
            gateway,
            stop,
            stages: Mutex::default(),
            tried: tokio::sync::Mutex::default(),
        }
    }

    /// Tells which stages there are.
    pub(super) fn watch_over(&self, pulses: &[(&'static str, Pulse)]) {
        let stage = |(name, pulse): &(&'static str, Pulse)| Stage {
            name,
            pulse: pulse.clone(),
            seen: None,
        };
        *self.stages.lock().unwrap_or_else(PoisonError::into_inner) =
            pulses.iter().map(stage).collect();
    }

    /// Everything that is in the way.
    async fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if let Some((why, hint)) = self.manifest_trouble().await {
            reasons.push(Reason {
                what: "manifest".to_owned(),
                why,
                hint,
            });
        }
        let still = self.still_stages().into_iter().map(|name| Reason {
            what: format!("stage {name}"),
            why: format!("it has not turned for {} s", STILL_MAX.as_secs()),
            hint: "the log says what it waits for; a restart loses nothing",
        });
        reasons.extend(still);
        reasons.extend((self.refusals)().into_iter().map(|(name, why)| Reason {
            what: format!("destination {name}"),
            why,
            hint: "`reelvault check` tries its rights",
        }));
        let waiting = self.gateway.waiting();
        if waiting > 0 {
            reasons.push(Reason {
                what: "gateway".to_owned(),
                why: format!("{waiting} of the tasks that passed could not be learned yet"),
                hint: "they are learned as soon as the manifest can be written",
            });
        }
        for (name, provider) in &self.providers {
            reasons.extend(provider.refusal().map(|why| Reason {
                what: format!("provider {name}"),
                why,
                hint: "`reelvault check` tries its key",
            }));
        }
        reasons
    }

    /// Why the manifest takes nothing, if it does not.
    async fn manifest_trouble(&self) -> Option<Trouble> {
        let mut tried = self.tried.lock().await;
        if let Some((at, trouble)) = tried.as_ref()
            && at.elapsed() < KEPT
        {
            return trouble.clone();
        }
        let trouble = match tokio::time::timeout(WRITE_TIME, self.manifest.try_write()).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some((
                error.to_string(),
                hint(self.manifest.is_shared(), Some(&error)),
            )),
            Err(_) => {
                let why = format!("nothing was written for {} s", WRITE_TIME.as_secs());
                Some((why, hint(self.manifest.is_shared(), None)))
            }
        };
        *tried = Some((Instant::now(), trouble.clone()));
        trouble
    }

    /// Stages that hang. Those that were told to end turn no more, one sooner than the other, and hang no more than a
    /// stop or a reload takes.
    fn still_stages(&self) -> Vec<&'static str> {
        if self.stop.is_cancelled() {
            return Vec::new();
        }
        let mut stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let still = stages
            .iter_mut()
            .filter_map(|it| it.is_still().then_some(it.name));
        still.collect()
    }
}

impl Stage {
    /// Whether it stood still since a look that is long ago. Nothing is known before the first: stages may be built long
    /// before they run.
    fn is_still(&mut self) -> bool {
        let beats = self.pulse.beats();
        match self.seen {
            Some((before, at)) if before == beats => at.elapsed() >= STILL_MAX,
            Some(_) | None => {
                self.seen = Some((beats, Instant::now()));
                false
            }
        }
    }
}

/// What to do about a manifest that takes nothing: a server, or a file.
fn hint(is_shared: bool, error: Option<&ManifestError>) -> &'static str {
    if !is_shared {
        return "is its disk full, or failing?";
    }
    if matches!(error, Some(ManifestError::Standby { .. })) {
        return "manifest.url must name the primary: with several hosts, add ?target_session_attrs=read-write";
    }
    if matches!(error, Some(ManifestError::Full { .. })) {
        return "free some space on the server's disk";
    }
    "does the server run, and does it answer this machine? what waits goes on by itself once it does"
}

/// `/healthz` and `/readyz`.
pub(super) fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new(health))
}

/// Whoever is not let in learns whether, and not why.
async fn ready(
    State(health): State<Arc<Health>>,
    admission: Option<Extension<Admission>>,
) -> Response {
    let reasons = health.reasons().await;
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let is_trusted = admission.is_some_and(|admission| admission.is_trusted());
    let told = if is_trusted { reasons } else { Vec::new() };
    (
        status,
        Json(json!({ "ready": status == StatusCode::OK, "reasons": told })),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stage_is_still_once_it_was_seen_at_the_same_turn_for_long() {
        let pulse = Pulse::default();
        let mut stage = Stage {
            name: "watch",
            pulse: pulse.clone(),
            seen: None,
        };
        tokio::time::advance(STILL_MAX).await;
        assert!(!stage.is_still(), "nobody looked before");
        tokio::time::advance(STILL_MAX).await;
        assert!(stage.is_still());
        pulse.beat();
        assert!(!stage.is_still());
    }

    #[test]
    fn the_hint_fits_what_the_manifest_is_kept_in() {
        let (verb, server) = ("try_write", "postgres://db/x".to_owned());
        let standby = ManifestError::Standby { verb, server };
        let full = ManifestError::Full {
            verb,
            what: "no space left".to_owned(),
        };
        assert!(hint(false, Some(&full)).contains("its disk"));
        assert!(hint(true, Some(&full)).contains("the server's disk"));
        assert!(hint(true, Some(&standby)).contains("the primary"));
        for error in [None, Some(&ManifestError::Closed)] {
            assert!(hint(true, error).contains("does the server run"));
        }
    }
}
