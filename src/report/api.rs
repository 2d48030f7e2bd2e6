//! The HTTP API's views: tasks, records, status, and the way to an archived copy.

mod copy;

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
use axum::http::StatusCode;
use axum::http::header;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::problem::Problem;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::meant::NotOne;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::deadline::Danger;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::report::links::Links;
use crate::report::record::Places;
use crate::report::record::Record;
use crate::report::record::is_over;
use crate::report::status::Status;
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

/// Where requests are answered.
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
        .route("/api/v1/tasks/{id}/assets/{index}", get(copy::fetch_asset))
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
    let found = manifest.the_task(provider, id).await;
    found.map_err(|error| match error {
        NotOne::Unknown(_) => {
            Problem::not_found(error.to_string()).hint("POST /api/v1/tasks announces one")
        }
        NotOne::Several { .. } => {
            Problem::new(StatusCode::CONFLICT, error.to_string()).hint("say which with `provider`")
        }
        NotOne::Manifest(error) => unreadable(&error),
    })
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
            filter.at_risk = match at_risk.as_str() {
                "true" => Some(Danger::within(warn, now)),
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

pub(super) fn asked<T>(query: Asked<T>) -> Result<T, Problem> {
    match query {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Problem::bad_request(rejection.body_text())
            .hint("GET /openapi.json tells the parameters")),
    }
}

pub(super) fn task_id(path: Result<Path<String>, PathRejection>) -> Result<TaskId, Problem> {
    let Path(id) = path.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
    parse_id(&id)
}

fn parse_id(id: &str) -> Result<TaskId, Problem> {
    let parsed = id.parse::<TaskId>();
    parsed.map_err(|error| Problem::bad_request(error.to_string()))
}

pub(super) fn provider_name(named: Option<&str>) -> Result<Option<ProviderName>, Problem> {
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
