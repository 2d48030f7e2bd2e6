//! The page: how everything stands, for people with a browser. Each look at it is rendered here, whole, and reads like a
//! page without its script, which only keeps it as it is now.
//!
//! What others chose (task IDs, tags, error texts) is escaped by the templates and never leaves an attribute; the policy
//! in the headers lets no script run but our own file. Nothing comes from another host, but the films themselves.

mod home;
mod task;

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Router;
use axum::extract::Path;
use axum::extract::Query;
use axum::extract::State;
use axum::extract::rejection::PathRejection;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::response::Html;
use axum::response::IntoResponse;
use axum::response::Redirect;
use axum::response::Response;
use axum::routing::get;
use axum::routing::post;
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::problem::Problem;
use crate::manifest::Manifest;
use crate::model::asset::AssetIndex;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::report::api::asked;
use crate::report::api::find;
use crate::report::api::provider_name;
use crate::report::api::task_id;
use crate::report::links::escaped;
use crate::report::overview::Overview;
use crate::report::page::home::Home;
use crate::report::page::task::Shown;
use crate::report::record::Places;
use crate::units::Span;
use crate::work::wake::Wake;

/// Looks at a page that are rendered at once; more are told to come again.
const LOOKS: usize = 8;

/// The overview on a page is this old at most.
const KEPT: Duration = Duration::from_secs(1);

/// A page runs our script and shows our style, and films and pictures from wherever a copy is. Nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' http: https: data:; media-src 'self' http: https:; form-action 'self'; base-uri 'none'; \
    frame-ancestors 'none'";

const STYLE: &str = include_str!("page/style.css");

const SCRIPT: &str = include_str!("page/live.js");

/// Reads what is so now.
pub type Now<T> = Box<dyn Fn() -> Vec<T> + Send + Sync>;

/// A transfer under way.
pub struct Moving {
    /// The task.
    pub task: TaskKey,
    /// The asset.
    pub index: AssetIndex,
    /// Where it goes.
    pub destination: DestinationName,
    /// Its length, where told.
    pub length: Option<u64>,
    /// Bytes read so far.
    pub bytes: u64,
}

/// A provider or a destination, and why it takes nothing now, if so.
pub struct Peer {
    /// Its name in the configuration.
    pub name: String,
    /// What it is, or where.
    pub what: String,
    /// What is wrong with it.
    pub trouble: Option<String>,
}

/// What the page shows.
pub struct Page {
    /// Tasks and their history.
    pub manifest: Manifest,
    /// How everything stands.
    pub overview: Overview,
    /// Where destinations are.
    pub places: Places,
    /// Wall time.
    pub clock: Clock,
    /// `deadline.warn`
    pub warn: Span,
    /// What moves now.
    pub moving: Now<Moving>,
    /// The configured task APIs.
    pub providers: Now<Peer>,
    /// The configured destinations.
    pub destinations: Now<Peer>,
    /// Poked when somebody wants something tried again.
    pub wakes: [Wake; 2],
}

struct Desk {
    page: Page,
    room: Semaphore,
}

/// The routes that browsers ask for.
pub fn router(page: Page) -> Router {
    let desk = Desk {
        page,
        room: Semaphore::new(LOOKS),
    };
    Router::new()
        .route("/", get(home))
        .route("/tasks/{id}", get(show))
        .route("/tasks/{id}/retry", post(retry))
        .route("/page.css", get(async || own_file("text/css", STYLE)))
        .route(
            "/page.js",
            get(async || own_file("text/javascript", SCRIPT)),
        )
        .with_state(Arc::new(desk))
}

/// What the list of tasks is cut down to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    q: String,
    state: String,
    after: Option<i64>,
}

/// Which of several tasks with one ID.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct One {
    provider: Option<String>,
}

async fn home(
    State(desk): State<Arc<Desk>>,
    asked: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(asked) = asked.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let _look = desk.look()?;
    let home = Home::read(&desk.page, &asked).await?;
    Ok(render(StatusCode::OK, &home))
}

async fn show(
    State(desk): State<Arc<Desk>>,
    path: Result<Path<String>, PathRejection>,
    one: Result<Query<One>, QueryRejection>,
) -> Result<Response, Refusal> {
    let _look = desk.look()?;
    let (id, provider) = meant(path, one)?;
    let task = find(&desk.page.manifest, provider.as_ref(), &id).await?;
    let shown = Shown::read(&desk.page, task).await?;
    Ok(render(StatusCode::OK, &shown))
}

/// Makes a task due now, for whoever pressed the button on our own page.
async fn retry(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    one: Result<Query<One>, QueryRejection>,
) -> Result<Redirect, Refusal> {
    if !is_from_own_page(&headers) {
        let what = "only the daemon's own page may ask for this";
        let hint = "programs use POST /api/v1/tasks/{id}/retry";
        return Err(Problem::new(StatusCode::FORBIDDEN, what).hint(hint).into());
    }
    let (id, provider) = meant(path, one)?;
    let key = find(&desk.page.manifest, provider.as_ref(), &id).await?.key;
    let due = desk.page.manifest.retry(Some(&key.provider), &key.id).await;
    due.map_err(|error| Problem::unavailable(format!("nothing can be written: {error}")))?;
    desk.page.wakes.iter().for_each(Wake::poke);
    // The browser asks for the page with GET, so that a reload presses no button.
    Ok(Redirect::to(&address_of(&key)))
}

impl Desk {
    fn look(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        let look = self.room.try_acquire();
        look.map_err(|_| Problem::unavailable(format!("{LOOKS} pages are being made already")))
    }
}

/// Whether a browser says that this very page sends it. A page of another port of this machine is another's as well, and
/// who says nothing of where it comes from is no browser of today.
fn is_from_own_page(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let host = text(header::HOST);
    let origin = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
    let is_own =
        |(_, origin): (&str, &str)| host.is_some_and(|host| host.eq_ignore_ascii_case(origin));
    let site = text(header::HeaderName::from_static("sec-fetch-site"));
    match (origin, site) {
        (Some(origin), None) => is_own(origin),
        // A proxy may have changed `Host`: then the browser's own word holds.
        (_, Some(site)) => site == "same-origin",
        (None, None) => false,
    }
}

fn meant(
    path: Result<Path<String>, PathRejection>,
    one: Result<Query<One>, QueryRejection>,
) -> Result<(TaskId, Option<ProviderName>), Problem> {
    let (id, one) = (task_id(path)?, asked(one)?);
    Ok((id, provider_name(one.provider.as_deref())?))
}

/// The page of a task.
fn address_of(key: &TaskKey) -> String {
    let (id, provider) = (escaped(key.id.as_str()), escaped(key.provider.as_str()));
    format!("/tasks/{id}?provider={provider}")
}

/// The address that leads to the archived copy of an asset.
fn copy_of(key: &TaskKey, index: AssetIndex) -> String {
    let (id, provider) = (escaped(key.id.as_str()), escaped(key.provider.as_str()));
    format!("/api/v1/tasks/{id}/assets/{index}?provider={provider}")
}

/// `in 3 h 5 min`, or `5 min ago`.
fn when(at: Timestamp, now: Timestamp) -> String {
    if at > now {
        format!("in {}", at.since(now))
    } else {
        format!("{} ago", now.since(at))
    }
}

fn render(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, guarded(), Html(text)).into_response(),
        Err(error) => {
            Problem::unavailable(format!("the page cannot be made: {error}")).into_response()
        }
    }
}

fn own_file(kind: &'static str, text: &'static str) -> Response {
    let kind = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (kind, [(header::X_CONTENT_TYPE_OPTIONS, "nosniff")], text).into_response()
}

fn guarded() -> [(header::HeaderName, &'static str); 4] {
    [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not "no-referrer": then browsers say `Origin: null` when the page's own button is pressed.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
    ]
}

/// A problem, shown to people.
struct Refusal(Problem);

#[derive(Template)]
#[template(path = "problem.html")]
struct Sorry<'a> {
    title: &'a str,
    detail: &'a str,
    hint: &'a str,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let status = problem.status();
        let sorry = Sorry {
            title: status.canonical_reason().unwrap_or("Error"),
            detail: problem.detail(),
            hint: problem.advice().unwrap_or_default(),
        };
        render(status, &sorry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_page_presses_buttons() {
        let check = |headers: &[(&'static str, &str)], expected: bool| {
            let mut map = HeaderMap::new();
            map.insert("host", HeaderValue::from_static("127.0.0.1:7437"));
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            assert_eq!(is_from_own_page(&map), expected, "{headers:?}");
        };
        let (site, origin) = ("sec-fetch-site", "origin");
        check(&[], false);
        check(&[(origin, "http://127.0.0.1:7437")], true);
        check(&[(origin, "http://127.0.0.1:3000")], false);
        check(&[(origin, "http://127.0.0.1")], false);
        check(&[(origin, "null")], false);
        check(&[(origin, "https://evil.example.com")], false);
        check(&[(site, "same-origin")], true);
        for other in ["same-site", "cross-site", "none", ""] {
            check(&[(site, other)], false);
            check(&[(site, other), (origin, "http://127.0.0.1:7437")], false);
        }
        check(
            &[
                (site, "same-origin"),
                (origin, "https://archive.example.com"),
            ],
            true,
        );
    }
}
