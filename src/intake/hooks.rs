//! Webhooks: a provider says that a task has news, and the truth is read over its API.
//!
//! A callback is a hint. Of its body the task's ID is taken and nothing else, so whoever forges one makes us look once
//! at the provider. What is known is due now; what is not known is learned, at a bounded rate. The answer goes out once
//! that is durable: a provider that was told 200 does not ask again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::post;
use serde::Deserialize;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::http::pace::Allowance;
use crate::http::problem::Problem;
use crate::http::request;
use crate::intake;
use crate::intake::Announcement;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Heard;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;
use crate::provider::HookError;
use crate::provider::Provider;
use crate::telemetry::metrics::Metrics;
use crate::units::ByteSize;
use crate::units::Rate;
use crate::units::or_blank;
use crate::work::wake::Wake;

/// Webhooks that are read or written down at once; more are told to come again.
const ROOM: usize = 64;

/// A body must be there after this: providers send theirs in one piece.
const BODY_TIME: Duration = Duration::from_secs(5);

/// The manifest must have written it down after this, or the provider is told to come again. Most wait 3 to 10 s.
const WRITE_TIME: Duration = Duration::from_secs(3);

/// `[server.hooks]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A TCP listener for webhooks alone, or none: then they come to the same port as all else.
    #[serde(with = "or_blank")]
    pub listen: Option<SocketAddr>,
    /// Larger bodies are refused.
    pub body_max: ByteSize,
    /// Webhooks of tasks that nobody announced are believed this often, each with one look at the provider.
    pub rate: Rate,
}

/// What webhooks need.
pub struct Hooks {
    /// Where they are written down.
    pub manifest: Manifest,
    /// Whose they may be.
    pub providers: BTreeMap<ProviderName, Provider>,
    /// `[server.hooks]`
    pub config: Config,
    /// Wall time.
    pub clock: Clock,
    /// Tells `watch` of what is due.
    pub watch: Wake,
    /// Where they are counted.
    pub metrics: Metrics,
}

struct Door {
    hooks: Hooks,
    room: Semaphore,
    strangers: Allowance,
}

/// The routes under `/hooks/`.
pub fn router(hooks: Hooks) -> Router {
    let door = Door {
        room: Semaphore::new(ROOM),
        strangers: Allowance::new(hooks.config.rate),
        hooks,
    };
    Router::new()
        .route("/hooks/{provider}/{token}", post(receive))
        .with_state(Arc::new(door))
}

async fn receive(
    State(door): State<Arc<Door>>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let metrics = &door.hooks.metrics;
    let Some(provider) = path.ok().and_then(|Path(path)| door.provider_at(&path)) else {
        metrics.hook_received(None, "no_such_address");
        // One answer for all that is wrong with an address, or it would tell which names exist.
        return Err(Problem::not_found("there is no such address for webhooks"));
    };
    let outcome = door.take(provider, &headers, body).await;
    metrics.hook_received(Some(provider.name()), word(&outcome));
    // A flood is counted and not told line by line: it would drown whatever else the log has to say.
    let told = outcome.as_ref().err();
    let told = told.filter(|problem| problem.status() != StatusCode::TOO_MANY_REQUESTS);
    if let Some(problem) = told {
        let (status, what) = (problem.status().as_u16(), problem.detail());
        tracing::warn!(provider.name = %provider.name(), status, what, "webhook not taken");
    }
    outcome
}

impl Door {
    /// Whose address it is, if its token is right.
    fn provider_at(&self, (name, token): &(String, String)) -> Option<&Provider> {
        let provider = self.hooks.providers.get(&name.parse().ok()?)?;
        provider.is_hook_token(token).then_some(provider)
    }

    /// Takes a callback whose address is right.
    async fn take(
        &self,
        provider: &Provider,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Response, Problem> {
        let Ok(_room) = self.room.try_acquire() else {
            return Err(too_many("too many webhooks at once"));
        };
        let body = request::collect(body, self.hooks.config.body_max, BODY_TIME).await?;
        let said = provider.read_hook(headers, &body).await;
        let said = said.map_err(|error| match &error {
            HookError::Forged(_) => Problem::new(StatusCode::UNAUTHORIZED, error.to_string()),
            HookError::Garbled(_) => Problem::bad_request(error.to_string()),
            HookError::NoKeys(_) => Problem::unavailable(error.to_string()),
        })?;
        if let Some(id) = said.id {
            let key = TaskKey {
                provider: provider.name().clone(),
                id,
            };
            self.write_down(key, provider).await?;
        }
        // Exactly 200: some providers take no other for yes.
        Ok(Json(said.echo.unwrap_or_else(|| json!({}))).into_response())
    }

    /// Has it written down, durably and within the time that a provider waits.
    async fn write_down(&self, key: TaskKey, provider: &Provider) -> Result<(), Problem> {
        let written = tokio::time::timeout(WRITE_TIME, self.hear(key, provider));
        match written.await {
            Ok(Ok(is_welcome)) if is_welcome => Ok(()),
            Ok(Ok(_)) => Err(too_many("too many tasks that nobody announced")),
            Ok(Err(error)) => Err(Problem::unavailable(format!(
                "it could not be written down: {error}"
            ))),
            Err(_) => Err(Problem::unavailable("it could not be written down in time")),
        }
    }

    /// Whether it was written down, which is refused only for too many unknown tasks.
    async fn hear(&self, key: TaskKey, provider: &Provider) -> Result<bool, ManifestError> {
        let manifest = &self.hooks.manifest;
        let id = key.id.clone();
        let became = match manifest.hear(&key).await? {
            Heard::Due => "due",
            Heard::Ended(TaskState::Vanished | TaskState::Abandoned) => {
                if !self.strangers.take() {
                    return Ok(false);
                }
                manifest.revive(&key).await?;
                "watched again"
            }
            Heard::Ended(
                TaskState::Watching
                | TaskState::Completed
                | TaskState::Failed
                | TaskState::Cancelled,
            ) => return Ok(true),
            Heard::Unknown => {
                if !self.strangers.take() {
                    return Ok(false);
                }
                let announced = Announcement {
                    key,
                    tags: Tags::new(),
                    via: LearnedVia::Webhook,
                    ttl: provider.ttl(),
                    callback: None,
                };
                intake::learn(manifest, vec![announced], self.hooks.clock.now()).await?;
                "learned"
            }
        };
        self.hooks.watch.poke();
        tracing::debug!(task.id = %id, became, "webhook");
        Ok(true)
    }
}

/// What came of a webhook, in one word for metrics.
fn word(outcome: &Result<Response, Problem>) -> &'static str {
    match outcome.as_ref().map_err(Problem::status) {
        Ok(_) => "taken",
        Err(StatusCode::UNAUTHORIZED) => "forged",
        Err(StatusCode::BAD_REQUEST) => "garbled",
        Err(StatusCode::PAYLOAD_TOO_LARGE) => "too_large",
        Err(StatusCode::REQUEST_TIMEOUT) => "too_slow",
        Err(StatusCode::TOO_MANY_REQUESTS) => "too_many",
        Err(_) => "not_written",
    }
}

fn too_many(what: &str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, what).retry_after(1)
}
