//! The simulator's task API: its routes, its key check, and the answers to calls that fail.

mod submit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::FromRequestParts;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

use crate::model::task::TaskId;
use crate::simulator::files;
use crate::simulator::script::ApiFault;
use crate::simulator::script::Call;
use crate::simulator::tasks::answer::ErrorAnswer;
use crate::simulator::tasks::answer::seconds_up;
use crate::simulator::world::Filter;
use crate::simulator::world::World;
use crate::units::Span;

/// No request has a longer body.
const BODY_BYTES_MAX: usize = 1 << 20;

/// The most tasks in a batch, and on a page of the list.
const ROWS_MAX: usize = 50;

/// How many tasks a page of the list has where nothing is asked for.
const ROWS_DEFAULT: usize = 20;

/// What stands before the seconds and the letters of a task ID.
const ID_PREFIX: &str = "task-unified-";

/// A page that nobody should take for a video or an answer.
const HTML_PAGE: &str = "<!DOCTYPE html><html><head><title>Just a moment...</title></head>\
    <body><h1>Checking your browser</h1></body></html>\n";

/// All routes of the simulator.
pub(super) fn router(world: Arc<World>) -> Router {
    let mut router = Router::new()
        .route("/v1/videos/generations", post(submit::video))
        .route("/v1/images/generations", post(submit::image))
        .route("/v1/audios/generations", post(submit::audio))
        .route("/v1/tasks/{id}", get(read))
        .route("/v1/credits", get(credits))
        .route("/files/{task}/{name}", get(files::serve));
    if world.config.has_list {
        router = router.route("/v1/tasks", get(list));
    }
    if world.config.has_batch {
        router = router.route("/v1/tasks/batch", post(batch));
    }
    router
        .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "not_found", "no such route") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "not with this method",
            )
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(world)
}

/// An HTML page with 200.
pub(super) fn html() -> Response {
    Html(HTML_PAGE).into_response()
}

/// A caller that has shown the account's key. Whoever takes this as an argument is closed to all others.
struct Caller;

impl FromRequestParts<Arc<World>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, world: &Arc<World>) -> Result<Self, Refusal> {
        let shown = bearer(&parts.headers);
        match &world.config.api_key {
            Some(key) if shown != Some(key) => Err(Refusal::unauthorized()),
            None if shown.is_none_or(str::is_empty) => Err(Refusal::unauthorized()),
            Some(_) | None => Ok(Caller),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

async fn read(_: Caller, State(world): State<Arc<World>>, Path(id): Path<String>) -> Response {
    world.count(|seen| seen.reads += 1);
    let Some(id) = parse_id(&id) else {
        return Refusal::new(
            StatusCode::BAD_REQUEST,
            "invalid_task_id",
            &format!("{id:?} is not a task ID"),
        )
        .param("task_id")
        .into_response();
    };
    if let Some(fault) = world.strike_api(Call::Read, Some(&id)) {
        return meet(fault).await;
    }
    match world.tell(&id) {
        Some(answer) => Json(answer).into_response(),
        None => Refusal::no_task().into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct BatchBody {
    task_ids: Vec<String>,
}

async fn batch(
    _: Caller,
    State(world): State<Arc<World>>,
    body: Result<Json<BatchBody>, JsonRejection>,
) -> Response {
    world.count(|seen| seen.batches += 1);
    if let Some(fault) = world.strike_api(Call::Batch, None) {
        return meet(fault).await;
    }
    let ids = match body {
        Ok(Json(body)) => body.task_ids,
        Err(rejection) => return Refusal::of_body(&rejection).into_response(),
    };
    if ids.is_empty() || ids.len() > ROWS_MAX {
        let message = format!("{} task IDs are not between 1 and {ROWS_MAX}", ids.len());
        return Refusal::invalid(&message).param("task_ids").into_response();
    }
    let known = ids.iter().filter_map(|id| world.tell(&parse_id(id)?));
    let data: Vec<Value> = known.collect();
    Json(json!({ "data": data })).into_response()
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    status: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    model: Option<String>,
    page: Option<usize>,
    page_size: Option<usize>,
}

async fn list(
    _: Caller,
    State(world): State<Arc<World>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Response {
    world.count(|seen| seen.lists += 1);
    if let Some(fault) = world.strike_api(Call::List, None) {
        return meet(fault).await;
    }
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return Refusal::invalid(&rejection.body_text()).into_response(),
    };
    let page = query.page.unwrap_or(1);
    let page_size = query.page_size.unwrap_or(ROWS_DEFAULT);
    if page == 0 {
        return Refusal::invalid("pages count from 1")
            .param("page")
            .into_response();
    }
    if !(1..=ROWS_MAX).contains(&page_size) {
        let message = format!("{page_size} is not between 1 and {ROWS_MAX}");
        return Refusal::invalid(&message)
            .param("page_size")
            .into_response();
    }
    let filter = Filter {
        status: query.status,
        kind: query.kind,
        model: query.model,
    };
    let (rows, total) = world.rows(&filter, (page - 1).saturating_mul(page_size), page_size);
    Json(json!({ "data": rows, "total": total, "page": page, "page_size": page_size }))
        .into_response()
}

async fn credits(_: Caller, State(world): State<Arc<World>>) -> Response {
    world.count(|seen| seen.credits += 1);
    if let Some(fault) = world.strike_api(Call::Credits, None) {
        return meet(fault).await;
    }
    let (remaining, spent) = world.credits();
    let data = json!({
        "token": { "remaining_credits": remaining, "unlimited_credits": false, "used_credits": spent },
        "user": { "remaining_credits": remaining, "used_credits": spent },
    });
    Json(json!({ "data": data, "message": "", "success": true })).into_response()
}

/// The answer that a fault gives instead of the right one.
async fn meet(fault: ApiFault) -> Response {
    match fault {
        ApiFault::TooMany(wait) => Refusal::too_many(wait),
        ApiFault::Internal => {
            let message = "something broke inside the provider";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
                .into_response()
        }
        ApiFault::Unauthorized => Refusal::unauthorized().into_response(),
        ApiFault::PaymentRequired => Refusal::no_credits("no credits left").into_response(),
        ApiFault::Forbidden => {
            let message = "this key may not do that";
            Refusal::new(StatusCode::FORBIDDEN, "permission_denied", message).into_response()
        }
        ApiFault::NotFound => Refusal::no_task().into_response(),
        ApiFault::Html => html(),
        ApiFault::Hang => std::future::pending().await,
    }
}

/// An ID in the provider's form: the prefix, seconds, a dash, letters and digits.
fn parse_id(text: &str) -> Option<TaskId> {
    let (seconds, letters) = text.strip_prefix(ID_PREFIX)?.split_once('-')?;
    let is_number = !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = !letters.is_empty() && letters.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_number && is_word).then(|| text.parse().ok()).flatten()
}

/// A call that is not answered as it wished.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: ErrorAnswer,
}

impl Refusal {
    fn new(status: StatusCode, code: &str, message: &str) -> Self {
        let kind = match status.as_u16() {
            401 => "authentication_error",
            402 => "insufficient_quota_error",
            403 => "permission_error",
            404 => "not_found_error",
            429 => "rate_limit_error",
            500..=599 => "internal_server_error",
            _ => "invalid_request_error",
        };
        let error = ErrorAnswer {
            code: code.to_owned(),
            message: message.to_owned(),
            kind,
            param: None,
        };
        Self { status, error }
    }

    fn invalid(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_parameters", message)
    }

    fn of_body(rejection: &JsonRejection) -> Self {
        Self::invalid(&rejection.body_text()).status(rejection.status())
    }

    fn unauthorized() -> Self {
        let message = "the API key is missing or not valid";
        Self::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    fn no_credits(message: &str) -> Self {
        Self::new(StatusCode::PAYMENT_REQUIRED, "quota_exceeded", message)
    }

    fn no_task() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "task_not_found",
            "there is no such task",
        )
    }

    /// `Retry-After` has whole seconds, so the wait is rounded up to them.
    fn too_many(wait: Option<Span>) -> Response {
        let message = "too many requests";
        let refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_exceeded",
            message,
        );
        let wait = wait.map(|wait| [(header::RETRY_AFTER, seconds_up(wait).to_string())]);
        match wait {
            Some(wait) => (wait, refusal).into_response(),
            None => refusal.into_response(),
        }
    }

    fn param(mut self, param: &'static str) -> Self {
        self.error.param = Some(param);
        self
    }

    /// The same words under another status, which keeps to "wrong" or "too large".
    fn status(self, status: StatusCode) -> Self {
        let status = if status == StatusCode::PAYLOAD_TOO_LARGE {
            status
        } else {
            self.status
        };
        Self { status, ..self }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(json!({ "error": self.error }))).into_response()
    }
}
