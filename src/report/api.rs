//! The HTTP API's views: tasks, records, status, and the way to an archived copy.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures::TryStreamExt as _;
use futures::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::problem::Problem;
use crate::http::request::Admission;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::report::links;
use crate::report::links::Links;
use crate::report::range::Wanted;
use crate::report::range::wanted;
use crate::report::record::Places;
use crate::report::record::Record;
use crate::report::record::is_over;
use crate::report::status::Status;
use crate::store::Store;
use crate::units::Span;

/// Tasks on a page, unless asked otherwise.
const PAGE: usize = 100;

/// Tasks on the largest page.
const PAGE_MAX: usize = 500;

/// Tasks read at once for a stream of all: what it holds in memory.
const STREAM_PAGE: usize = 200;

/// The longest that an answer is held back.
const WAIT_MAX: Span = Span::from_secs(60);

/// Answers held back at once. Each looks at its task when something was written.
const WAITERS: usize = 256;

/// Who waits looks again after this even if nothing was written here: another process may have.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// And no more often than this, however much is written.
const LOOK_GAP: Duration = Duration::from_millis(50);

/// What views need.
pub struct Views {
    /// What is seen.
    pub manifest: Manifest,
    /// Where destinations are.
    pub places: Places,
    /// How copies are reached.
    pub links: Arc<Links>,
    /// Wall time.
    pub clock: Clock,
    /// `deadline.warn`
    pub warn: Span,
    /// Sends those home who wait, when the daemon stops.
    pub stop: CancellationToken,
}

struct Desk {
    views: Views,
    waiters: Semaphore,
}

/// The routes under `/api/v1/` that change nothing.
pub fn router(views: Views) -> Router {
    let desk = Desk {
        views,
        waiters: Semaphore::new(WAITERS),
    };
    Router::new()
        .route("/api/v1/tasks", get(list))
        .route("/api/v1/tasks/{id}", get(show))
        .route("/api/v1/tasks/{id}/assets/{index}", get(fetch_asset))
        .route("/api/v1/manifest", get(export))
        .route("/api/v1/manifest/{id}", get(record))
        .route("/api/v1/status", get(status))
        .with_state(Arc::new(desk))
}

/// Which tasks: the flags of `reelvault tasks`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Which {
    provider: Option<String>,
    state: Option<String>,
    since: Option<String>,
    at_risk: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

/// One task among those of several providers, and how long its end may be waited for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct One {
    provider: Option<String>,
    wait: Option<String>,
}

/// One asset of a task.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OneAsset {
    provider: Option<String>,
    sig: Option<String>,
}

type Asked<T> = Result<Query<T>, QueryRejection>;

async fn list(
    State(desk): State<Arc<Desk>>,
    query: Asked<Which>,
) -> Result<Json<serde_json::Value>, Problem> {
    let which = asked(query)?;
    let limit = match &which.limit {
        None => PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=PAGE_MAX).contains(limit))
            .ok_or_else(|| wrong("limit", text, &format!("write 1 to {PAGE_MAX}")))?,
    };
    let filter = which.filter(desk.views.clock.now(), desk.views.warn)?;
    // One more tells whether there is another page.
    let mut tasks = desk
        .views
        .manifest
        .tasks(&filter, limit + 1)
        .await
        .map_err(|error| unreadable(&error))?;
    let has_more = tasks.len() > limit;
    tasks.truncate(limit);
    let next = tasks
        .last()
        .filter(|_| has_more)
        .map(|task| task.row.to_string());
    let records: Vec<Record> = tasks.into_iter().map(|task| desk.record(task)).collect();
    Ok(Json(json!({ "tasks": records, "next": next })))
}

async fn show(
    State(desk): State<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    query: Asked<One>,
) -> Result<Json<Record>, Problem> {
    let (id, one) = (task_id(path)?, asked(query)?);
    let provider = provider_name(one.provider.as_deref())?;
    let task = match &one.wait {
        None => desk.find(provider.as_ref(), &id).await?,
        Some(text) => {
            let wait = text.parse::<Span>().ok().filter(|wait| *wait <= WAIT_MAX);
            let wait = wait.ok_or_else(|| {
                wrong(
                    "wait",
                    text,
                    &format!("write a length of time up to {WAIT_MAX}, such as 30s"),
                )
            })?;
            desk.wait(provider.as_ref(), &id, wait).await?
        }
    };
    Ok(Json(desk.record(task)))
}

async fn record(
    State(desk): State<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    query: Asked<One>,
) -> Result<Json<Record>, Problem> {
    let (id, one) = (task_id(path)?, asked(query)?);
    if let Some(wait) = &one.wait {
        return Err(wrong("wait", wait, "GET /api/v1/tasks/{id} waits"));
    }
    let provider = provider_name(one.provider.as_deref())?;
    let task = desk.find(provider.as_ref(), &id).await?;
    Ok(Json(desk.record(task)))
}

/// All records as JSON lines, a page of them in memory at a time.
async fn export(State(desk): State<Arc<Desk>>, query: Asked<Which>) -> Result<Response, Problem> {
    let which = asked(query)?;
    if let Some(limit) = &which.limit {
        return Err(wrong(
            "limit",
            limit,
            "all records come; GET /api/v1/tasks has pages",
        ));
    }
    let filter = which.filter(desk.views.clock.now(), desk.views.warn)?;
    // The first page is read before the answer begins, so that a manifest that cannot be read is a problem.
    let first = desk
        .views
        .manifest
        .tasks(&filter, STREAM_PAGE)
        .await
        .map_err(|error| unreadable(&error))?;
    let pages = stream::try_unfold(Some((filter, first)), move |state| {
        let desk = Arc::clone(&desk);
        async move {
            let Some((mut filter, page)) = state else {
                return Ok(None);
            };
            let next = match page.last() {
                Some(last) if page.len() == STREAM_PAGE => {
                    filter.after_row = Some(last.row);
                    let page = desk.views.manifest.tasks(&filter, STREAM_PAGE).await?;
                    Some((filter, page))
                }
                Some(_) | None => None,
            };
            Ok::<_, ManifestError>(Some((desk.lines(page), next)))
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(pages)).into_response())
}

async fn status(
    State(desk): State<Arc<Desk>>,
    query: Asked<Nothing>,
) -> Result<Json<Status>, Problem> {
    asked(query)?;
    let (now, warn) = (desk.views.clock.now(), desk.views.warn);
    let status = Status::read(&desk.views.manifest, now, warn, true).await;
    status.map(Json).map_err(|error| unreadable(&error))
}

/// No parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Sends whoever asks to the archived copy, or reads it where only we can.
async fn fetch_asset(
    State(desk): State<Arc<Desk>>,
    admission: Option<axum::Extension<Admission>>,
    path: Result<Path<(String, String)>, PathRejection>,
    query: Asked<OneAsset>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path((id, index)) = path.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
    let (id, one) = (parse_id(&id)?, asked(query)?);
    let provider = provider_name(one.provider.as_deref())?;
    let index: u32 = index
        .parse()
        .map_err(|_| Problem::bad_request(format!("{index:?} is no number of an asset")))?;
    let task = desk.find(provider.as_ref(), &id).await;
    if !admission.is_some_and(|admission| admission.is_trusted()) {
        // Whoever has no right to ask does not learn either which tasks there are.
        let denied = || {
            Problem::new(StatusCode::FORBIDDEN, "the link's `sig` does not fit")
                .hint("use the link as it was given, or send the daemon's token")
        };
        let task = task.as_ref().map_err(|_| denied())?;
        let index = crate::model::asset::AssetIndex(index);
        let is_sealed = |sig: &str| desk.views.links.is_sealed(&task.key, index, sig);
        if !one.sig.as_deref().is_some_and(is_sealed) {
            return Err(denied());
        }
    }
    let task = task?;
    let asset = task.assets.iter().find(|asset| asset.index.0 == index);
    let asset = asset.ok_or_else(|| Problem::not_found(format!("{id} has no asset {index}")))?;
    match asset.state {
        AssetState::Archived => {}
        AssetState::Due => {
            let what = format!("asset {index} of {id} is not archived yet");
            return Err(Problem::new(StatusCode::CONFLICT, what)
                .hint("GET /api/v1/tasks/{id}?wait=60s waits for it"));
        }
        AssetState::Lost | AssetState::Refused => {
            let what = format!("asset {index} of {id} is {}", asset.state);
            return Err(Problem::new(StatusCode::GONE, what));
        }
    }
    let found = desk.views.links.bytes(asset).await;
    let found = found.map_err(|error| Problem::unavailable(error.to_string()))?;
    match found {
        Some(links::Bytes::Elsewhere(url)) => Ok((
            StatusCode::FOUND,
            [
                (header::LOCATION, url.as_str()),
                (header::CACHE_CONTROL, "no-store"),
            ],
        )
            .into_response()),
        Some(links::Bytes::Here(store, key)) => read_here(&store, &key, asset, &headers).await,
        None => Err(Problem::not_found(format!(
            "no destination that is configured has asset {index} of {id}"
        ))),
    }
}

/// The file, or the range of it that is asked for.
async fn read_here(
    store: &Store,
    key: &crate::model::key::ObjectKey,
    asset: &AssetRecord,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let length = asset.size.unwrap_or_default();
    let asked = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok());
    let (status, range) = match wanted(asked, length) {
        Wanted::Whole => (StatusCode::OK, 0..length),
        Wanted::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Wanted::Nothing => {
            let whole = header::HeaderValue::from_str(&format!("bytes */{length}"));
            let problem = Problem::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                format!("the file has {length} bytes"),
            );
            return Err(match whole {
                Ok(whole) => problem.header(header::CONTENT_RANGE, whole),
                Err(_) => problem,
            });
        }
    };
    let frames = store.read_from(key, range.start).await;
    let frames = frames.map_err(|error| Problem::unavailable(error.to_string()))?;
    let left = range.end - range.start;
    // A file that is shorter by now ends before its length is reached, and the connection with it.
    let body = frames.try_filter_map({
        let mut left = left;
        move |frame: Bytes| {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(frame.len());
            left -= u64::try_from(take).unwrap_or(left);
            let frame = (take > 0).then(|| frame.slice(..take));
            async move { Ok(frame) }
        }
    });
    let mut response = Response::builder()
        .status(status)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, left)
        .header(
            header::CONTENT_TYPE,
            asset
                .content_type
                .as_deref()
                .unwrap_or("application/octet-stream"),
        )
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        // Whatever it is that somebody made: opened in a browser, it is no page of ours.
        .header(header::CONTENT_SECURITY_POLICY, "sandbox");
    if status == StatusCode::PARTIAL_CONTENT {
        let part = format!("bytes {}-{}/{length}", range.start, range.end - 1);
        response = response.header(header::CONTENT_RANGE, part);
    }
    if let Some(sha256) = asset.sha256 {
        response = response.header(header::ETAG, format!("\"{sha256}\""));
    }
    let body = Body::from_stream(body);
    response
        .body(body)
        .map_err(|error| Problem::unavailable(error.to_string()))
}

impl Desk {
    fn record(&self, task: TaskRecord) -> Record {
        Record::new(task, &self.views.places)
    }

    /// The one task that is meant.
    async fn find(
        &self,
        provider: Option<&ProviderName>,
        id: &TaskId,
    ) -> Result<TaskRecord, Problem> {
        find(&self.views.manifest, provider, id).await
    }

    /// The task once it has ended, or as it is after `wait`.
    async fn wait(
        &self,
        provider: Option<&ProviderName>,
        id: &TaskId,
        wait: Span,
    ) -> Result<TaskRecord, Problem> {
        let Ok(_waiter) = self.waiters.try_acquire() else {
            return Err(Problem::unavailable(format!(
                "{WAITERS} requests wait already"
            )));
        };
        let over_at = Instant::now() + wait.as_duration();
        let mut changes = self.views.manifest.changes();
        loop {
            // Before the look, so that what is written meanwhile is a change.
            changes.mark_unchanged();
            let task = self.find(provider, id).await?;
            if is_over(&task) || Instant::now() >= over_at || self.views.stop.is_cancelled() {
                return Ok(task);
            }
            let looked_at = Instant::now();
            // Every arm is cancel-safe: a watch, a timer, a token.
            tokio::select! {
                _ = changes.changed() => {
                    tokio::time::sleep_until((looked_at + LOOK_GAP).min(over_at)).await;
                }
                () = tokio::time::sleep_until((looked_at + LOOK_EVERY).min(over_at)) => {}
                () = self.views.stop.cancelled() => {}
            }
        }
    }

    /// Records as JSON lines.
    fn lines(&self, page: Vec<TaskRecord>) -> Bytes {
        let mut lines = Vec::new();
        for task in page {
            serde_json::to_writer(&mut lines, &self.record(task))
                .expect("a record is written to memory");
            lines.push(b'\n');
        }
        lines.into()
    }
}

/// The one task that is meant by its ID, and by its provider where several have it.
pub async fn find(
    manifest: &Manifest,
    provider: Option<&ProviderName>,
    id: &TaskId,
) -> Result<TaskRecord, Problem> {
    let filter = TaskFilter {
        provider: provider.cloned(),
        id: Some(id.clone()),
        ..TaskFilter::default()
    };
    let mut found = manifest
        .tasks(&filter, 2)
        .await
        .map_err(|error| unreadable(&error))?;
    match (found.pop(), found.pop()) {
        (Some(task), None) => Ok(task),
        (Some(one), Some(other)) => {
            let (one, other) = (one.key.provider, other.key.provider);
            let what = format!("{id} is a task of {other} and of {one}");
            Err(Problem::new(StatusCode::CONFLICT, what).hint("say which with `provider`"))
        }
        (None, _) => Err(Problem::not_found(format!("no task {id} in the manifest"))
            .hint("POST /api/v1/tasks announces one")),
    }
}

impl Which {
    fn filter(&self, now: Timestamp, warn: Span) -> Result<TaskFilter, Problem> {
        let mut filter = TaskFilter {
            provider: provider_name(self.provider.as_deref())?,
            ..TaskFilter::default()
        };
        if let Some(word) = &self.state {
            let known = filter.set_state(word);
            known.map_err(|words| wrong("state", word, &words))?;
        }
        if let Some(since) = &self.since {
            let span = since.parse::<Span>().ok().map(|span| now.minus(span));
            let instant = span.or_else(|| Timestamp::parse(since));
            filter.since = Some(instant.ok_or_else(|| {
                wrong("since", since, "write it like 2h or 2026-11-23T16:00:00Z")
            })?);
        }
        if let Some(at_risk) = &self.at_risk {
            filter.at_risk_before = match at_risk.as_str() {
                "true" => Some(now.plus(warn)),
                "false" => None,
                _ => return Err(wrong("at_risk", at_risk, "write true or false")),
            };
        }
        if let Some(after) = &self.after {
            let row = after.parse::<i64>().ok().filter(|row| *row >= 0);
            let row = row.ok_or_else(|| wrong("after", after, "write `next` of the page before"));
            filter.after_row = Some(row?);
        }
        Ok(filter)
    }
}

fn asked<T>(query: Asked<T>) -> Result<T, Problem> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Problem::bad_request(rejection.body_text())
            .hint("GET /openapi.json tells the parameters")),
    }
}

fn task_id(path: Result<Path<String>, PathRejection>) -> Result<TaskId, Problem> {
    let Path(id) = path.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
    parse_id(&id)
}

fn parse_id(id: &str) -> Result<TaskId, Problem> {
    let parsed = id.parse::<TaskId>();
    parsed.map_err(|error| Problem::bad_request(error.to_string()))
}

fn provider_name(named: Option<&str>) -> Result<Option<ProviderName>, Problem> {
    let parsed = named.map(|name| {
        name.parse::<ProviderName>()
            .map_err(|error| Problem::bad_request(error.to_string()))
    });
    parsed.transpose()
}

fn wrong(parameter: &str, value: &str, hint: &str) -> Problem {
    Problem::bad_request(format!("{parameter}={value:?} makes no sense here")).hint(hint)
}

fn unreadable(error: &ManifestError) -> Problem {
    Problem::unavailable(format!("the manifest cannot be read: {error}"))
}
