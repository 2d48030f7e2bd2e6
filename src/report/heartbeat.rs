//! The heartbeat: an address of a watching service that is called while all is well. Silence is the alarm.
//!
//! Whoever watches it learns of what no daemon can tell by itself: that it does not run, or that nobody hears it.

use serde::Deserialize;
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::clock::Clock;
use crate::http::Http;
use crate::http::body::collect;
use crate::manifest::Manifest;
use crate::model::asset::AssetState;
use crate::model::deadline::Danger;
use crate::units::ByteSize;
use crate::units::Span;
use crate::units::or_blank;
use crate::work::driver::Pulse;

/// What is read of an answer, so that its connection can be used again.
const ANSWER_BYTES_MAX: ByteSize = ByteSize::bytes(64 << 10);

/// How long the service may take to answer.
const ANSWER_WITHIN: Span = Span::from_secs(15);

/// A loop turns about once a second; one that did not for so long hangs.
const STUCK_AFTER: Span = Span::from_secs(30);

/// `[heartbeat]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is called, or nothing.
    #[serde(with = "or_blank")]
    pub url: Option<Url>,
    /// How often.
    pub every: Span,
    /// Whether it may be plain http and on a private address.
    #[serde(default)]
    pub allow_private: bool,
}

/// Calls the address as long as all is well.
pub struct Heartbeat {
    /// The address. What it is called with is most likely secret.
    pub url: Url,
    /// How often.
    pub every: Span,
    /// How long before its deadline an unarchived asset is at risk.
    pub warn: Span,
    /// What is asked how things stand.
    pub manifest: Manifest,
    /// The guarded client.
    pub http: Http,
    /// The loops that must have moved since the last call.
    pub pulses: Vec<(&'static str, Pulse)>,
    /// Wall time.
    pub clock: Clock,
}

impl Heartbeat {
    /// Calls now and then every so often, until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut moving = Moving::new(self.pulses.clone());
        let mut told: Option<String> = None;
        while !stop.is_cancelled() {
            let stuck = moving.stuck();
            // Both arms are cancel-safe: a token, and a call that nobody misses.
            let trouble = tokio::select! {
                () = stop.cancelled() => return,
                beat = self.beat(stuck) => beat.err(),
            };
            match &trouble {
                Some(why) if told != trouble => tracing::warn!("no heartbeat: {why}"),
                None if told.is_some() => tracing::info!("the heartbeat is back"),
                Some(_) | None => {}
            }
            told = trouble;
            // Both arms are cancel-safe: a token and a timer.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.every.as_duration()) => {}
            }
        }
    }

    /// Calls once if all is well, without a look at the loops: what `run --once` ends with.
    pub async fn beat_once(&self) {
        if let Err(why) = self.beat(None).await {
            tracing::warn!("no heartbeat: {why}");
        }
    }

    /// One call, or why there is none.
    async fn beat(&self, stuck: Option<&'static str>) -> Result<(), String> {
        if let Some(name) = stuck {
            return Err(format!("{name} does not move"));
        }
        self.judge().await?;
        let call = async {
            let request = http::Request::get(self.url.as_str()).body(bytes::Bytes::new());
            let request = request.map_err(|error| error.to_string())?;
            let answer = self.http.send(request).await;
            let answer = answer.map_err(|error| error.to_string())?;
            let status = answer.status();
            collect(answer.into_body(), ANSWER_BYTES_MAX).await.ok();
            if status.is_success() {
                Ok(())
            } else {
                let host = self.url.host_str().unwrap_or_default();
                Err(format!("{host} answered {}", status.as_u16()))
            }
        };
        let called = tokio::time::timeout(ANSWER_WITHIN.as_duration(), call).await;
        called.unwrap_or_else(|_| Err(format!("no answer within {ANSWER_WITHIN}")))
    }

    /// Whether something is lost or will be, and whether we could write down that it is not.
    async fn judge(&self) -> Result<(), String> {
        let silent = |error: crate::manifest::ManifestError| format!("the manifest: {error}");
        self.manifest.prove_writable().await.map_err(silent)?;
        let lost = self.manifest.tally().await.map_err(silent)?;
        let lost = lost.assets_in(AssetState::Lost);
        if lost > 0 {
            return Err(format!("{lost} lost"));
        }
        let danger = Danger::within(self.warn, self.clock.now());
        let at_risk = self.manifest.at_risk(danger, 1).await.map_err(silent)?;
        match at_risk.first() {
            Some(risk) => Err(format!("{} is at risk", risk.task.id)),
            None => Ok(()),
        }
    }
}

/// Tells which loop does not turn.
struct Moving {
    pulses: Vec<(&'static str, Pulse)>,
    seen: Vec<u64>,
    seen_at: Instant,
}

impl Moving {
    fn new(pulses: Vec<(&'static str, Pulse)>) -> Self {
        Self {
            seen: beats(&pulses),
            seen_at: Instant::now(),
            pulses,
        }
    }

    /// A loop that has not turned for [`STUCK_AFTER`] and longer; asked again, it is named until it turns.
    fn stuck(&mut self) -> Option<&'static str> {
        if self.seen_at.elapsed() < STUCK_AFTER.as_duration() {
            return None;
        }
        let now = beats(&self.pulses);
        let mut pairs = self.pulses.iter().zip(self.seen.iter().zip(&now));
        let stuck = pairs.find(|(_, (before, now))| before == now);
        let stuck = stuck.map(|((name, _), _)| *name);
        if stuck.is_none() {
            self.seen = now;
            self.seen_at = Instant::now();
        }
        stuck
    }
}

fn beats(pulses: &[(&'static str, Pulse)]) -> Vec<u64> {
    pulses.iter().map(|(_, pulse)| pulse.beats()).collect()
}

impl std::fmt::Debug for Heartbeat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "Heartbeat({host}, every {})", self.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_named_until_it_turns() {
        let (calm, busy) = (Pulse::default(), Pulse::default());
        let mut moving = Moving::new(vec![("calm", calm.clone()), ("busy", busy.clone())]);
        let pass = async || tokio::time::advance(STUCK_AFTER.as_duration()).await;
        assert_eq!(moving.stuck(), None, "too early to tell");
        pass().await;
        calm.beat();
        busy.beat();
        assert_eq!(moving.stuck(), None);
        busy.beat();
        assert_eq!(moving.stuck(), None, "too early to tell");
        pass().await;
        for _ in 0..3 {
            busy.beat();
            assert_eq!(moving.stuck(), Some("calm"));
        }
        calm.beat();
        assert_eq!(moving.stuck(), None);
    }
}
