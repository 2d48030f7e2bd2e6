//! The calls that make tasks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::HeaderMap;
use axum::response::IntoResponse;
use axum::response::Response;
use serde::Deserialize;

use crate::simulator::provider::Caller;
use crate::simulator::provider::Refusal;
use crate::simulator::provider::meet;
use crate::simulator::script::Call;
use crate::simulator::source::FileKind;
use crate::simulator::tasks::Submission;
use crate::simulator::tasks::SubmitError;
use crate::simulator::tasks::TaskKind;
use crate::simulator::world::World;

/// A longer `Idempotency-Key` is refused.
const IDEMPOTENCY_KEY_LENGTH_MAX: usize = 255;

/// What the simulator reads of a request for a generation. All else in it is for real models.
#[derive(Debug, Deserialize)]
pub(super) struct Wish {
    model: Option<String>,
    /// Seconds of a video.
    duration: Option<u32>,
    /// How many results the task has.
    n: Option<u32>,
    /// The files' extension: `mp4`, `png`, `jpg`, `mp3`, `wav`.
    format: Option<String>,
    callback_url: Option<String>,
}

pub(super) type Body = Result<Json<Wish>, JsonRejection>;

pub(super) async fn video(
    _: Caller,
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&world, TaskKind::Video, &headers, body).await
}

pub(super) async fn image(
    _: Caller,
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&world, TaskKind::Image, &headers, body).await
}

pub(super) async fn audio(
    _: Caller,
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    submit(&world, TaskKind::Audio, &headers, body).await
}

async fn submit(world: &World, kind: TaskKind, headers: &HeaderMap, body: Body) -> Response {
    world.count(|seen| seen.submits += 1);
    if let Some(fault) = world.strike_api(Call::Submit, None) {
        return meet(fault).await;
    }
    let wish = match body {
        Ok(Json(wish)) => wish,
        Err(rejection) => return Refusal::of_body(&rejection).into_response(),
    };
    match parse(kind, headers, wish) {
        Ok(submission) => answer(world, submission),
        Err(refusal) => refusal.into_response(),
    }
}

fn parse(kind: TaskKind, headers: &HeaderMap, wish: Wish) -> Result<Submission, Refusal> {
    let model = wish.model.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Refusal::invalid("model is required").param("model"))?;
    let usual = Submission::video(&model);
    Ok(Submission {
        kind,
        format: wish
            .format
            .map(|format| parse_format(kind, &format))
            .transpose()?,
        count: wish.n.unwrap_or(usual.count),
        seconds: wish.duration.unwrap_or(usual.seconds),
        callback: wish
            .callback_url
            .map(|url| parse_callback(&url))
            .transpose()?,
        idempotency_key: idempotency_key(headers)?,
        ..usual
    })
}

fn parse_format(kind: TaskKind, text: &str) -> Result<FileKind, Refusal> {
    let refusal =
        || Refusal::invalid(&format!("{text:?} is not a format of {kind} tasks")).param("format");
    let format: FileKind = text.parse().map_err(|_| refusal())?;
    let is_fit = match format {
        FileKind::Mp4 | FileKind::Webm => kind == TaskKind::Video,
        FileKind::Png | FileKind::Jpg => kind == TaskKind::Image,
        FileKind::Mp3 | FileKind::Wav => kind == TaskKind::Audio,
    };
    is_fit.then_some(format).ok_or_else(refusal)
}

fn parse_callback(text: &str) -> Result<url::Url, Refusal> {
    let refusal =
        |_| Refusal::invalid(&format!("{text:?} is not an address")).param("callback_url");
    text.parse().map_err(refusal)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value
        .to_str()
        .ok()
        .filter(|key| (1..=IDEMPOTENCY_KEY_LENGTH_MAX).contains(&key.len()));
    let refusal = || Refusal::invalid("the idempotency key is empty, too long or not ASCII");
    key.map(|key| Some(key.to_owned())).ok_or_else(refusal)
}

fn answer(world: &World, submission: Submission) -> Response {
    let id = match world.submit(submission) {
        Ok(id) => id,
        Err(SubmitError::Full) => {
            return Refusal::no_credits(&SubmitError::Full.to_string()).into_response();
        }
        Err(error) => {
            let refusal = Refusal::invalid(&error.to_string());
            return match error.param() {
                Some(param) => refusal.param(param),
                None => refusal,
            }
            .into_response();
        }
    };
    match world.fresh(&id) {
        Some(answer) => Json(answer).into_response(),
        None => Refusal::no_task().into_response(),
    }
}
