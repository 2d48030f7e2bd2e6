//! The HTTP API's doors: announce tasks and links, try again, forget.

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
use axum::routing::delete;
use axum::routing::post;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use url::Url;

use crate::clock::Clock;
use crate::http::problem::Problem;
use crate::http::request;
use crate::intake;
use crate::intake::Announcement;
use crate::intake::line::Accounts;
use crate::intake::line::Line;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::meant::NotOne;
use crate::manifest::row::Learned;
use crate::manifest::row::ObjectPlan;
use crate::model::object::DestinationName;
use crate::model::task::LearnedVia;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::units::ByteSize;
use crate::units::Span;
use crate::work::wake::Wake;

/// Tasks announced at once: one transaction.
pub const TASKS_MAX: usize = 1000;

/// A thousand tasks with all their tags.
const BODY_MAX: ByteSize = ByteSize::mib(4);

/// A body must be there after this.
const BODY_TIME: Duration = Duration::from_secs(30);

/// Tags of one task: they stand in each of its records.
pub const TAGS_MAX: usize = 64;

/// The longest name of a tag, in characters.
pub const TAG_NAME_MAX: usize = 64;

/// The longest value of a tag, in characters.
pub const TAG_VALUE_MAX: usize = 256;

/// A longer link is none.
pub const URL_BYTES_MAX: usize = 8 << 10;

/// What the doors need.
pub struct Doors {
    /// Where everything is written down.
    pub manifest: Manifest,
    /// Whose tasks can be announced.
    pub accounts: Accounts,
    /// Where bare links go: every destination, under the key of the root.
    pub objects: Vec<ObjectPlan>,
    /// How long bare links live.
    pub ttl: Span,
    /// Wall time.
    pub clock: Clock,
    /// Tells `watch` of new tasks.
    pub watch: Wake,
    /// Tells `archive` of new links.
    pub archive: Wake,
}

/// The routes under `/api/v1/` that change something.
pub fn router(doors: Doors) -> Router {
    Router::new()
        .route("/api/v1/tasks", post(announce))
        .route("/api/v1/tasks/{id}", delete(forget))
        .route("/api/v1/tasks/{id}/retry", post(retry))
        .route("/api/v1/fetch", post(fetch))
        .with_state(Arc::new(doors))
}

/// A task as it is announced.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Announced {
    task_id: String,
    provider: Option<String>,
    #[serde(default)]
    tags: Tags,
    callback_url: Option<Url>,
}

/// A link as it is announced.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    url: String,
    to: Option<Vec<String>>,
    #[serde(default)]
    tags: Tags,
}

/// What became of one announced task.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<String>,
    /// `learned`, `known` or `refused`.
    #[serde(rename = "outcome")]
    word: &'static str,
    /// Of the task, where it was known.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// What is answered where it is the only one.
    #[serde(skip)]
    status: StatusCode,
}

/// Why something is not taken.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    what: String,
}

impl From<String> for Refused {
    /// It makes no sense.
    fn from(what: String) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            what,
        }
    }
}

/// It names something that is not there.
fn absent(what: String) -> Refused {
    Refused {
        status: StatusCode::NOT_FOUND,
        what,
    }
}

/// One task among those of several providers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct One {
    provider: Option<String>,
}

/// Announces one task or many. What is wrong with one keeps no other from being learned.
async fn announce(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let value: Value = read(&headers, body).await?;
    let (items, is_list) = match value {
        Value::Array(items) => (items, true),
        item @ (Value::Object(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)) => (vec![item], false),
    };
    if items.len() > TASKS_MAX {
        let what = format!("{} tasks at once, and {TASKS_MAX} are taken", items.len());
        return Err(unprocessable(what).hint("send them in pieces"));
    }
    if items.is_empty() {
        return Err(Problem::bad_request("no task in it"));
    }
    let read: Vec<Result<Announcement, Outcome>> = items
        .into_iter()
        .map(|item| doors.announcement(item))
        .collect();
    let good = read
        .iter()
        .filter_map(|it| it.as_ref().ok().cloned())
        .collect();
    let learned = intake::learn(&doors.manifest, good, doors.clock.now()).await;
    let mut learned = learned.map_err(|error| unwritten(&error))?.into_iter();
    doors.watch.poke();
    let outcomes: Vec<Outcome> = read
        .into_iter()
        .map(|item| match item {
            Ok(announced) => {
                let learned = learned.next().expect("one for each that was announced");
                Outcome::of(&announced.key, learned)
            }
            Err(refused) => refused,
        })
        .collect();
    if is_list {
        Ok(told(&outcomes))
    } else {
        let outcome = outcomes.into_iter().next().expect("one came");
        match outcome.word {
            "refused" => {
                let detail = outcome.detail.unwrap_or_default();
                Err(Problem::new(outcome.status, detail))
            }
            "learned" => Ok((StatusCode::CREATED, Json(outcome)).into_response()),
            _ => Ok(Json(outcome).into_response()),
        }
    }
}

/// The answer to a list: 207 says that it has to be looked at.
fn told(outcomes: &[Outcome]) -> Response {
    let count = |word| outcomes.iter().filter(|it| it.word == word).count();
    let refused = count("refused");
    let status = if refused == 0 {
        StatusCode::OK
    } else {
        StatusCode::MULTI_STATUS
    };
    let body = json!({
        "learned": count("learned"), "known": count("known"), "refused": refused,
        "tasks": outcomes,
    });
    (status, Json(body)).into_response()
}

/// Announces a link that no task stands behind.
async fn fetch(
    State(doors): State<Arc<Doors>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let value: Value = read(&headers, body).await?;
    let link = Link::deserialize(value).map_err(|error| unprocessable(error.to_string()))?;
    check_tags(&link.tags).map_err(unprocessable)?;
    if link.url.len() > URL_BYTES_MAX {
        return Err(unprocessable(format!(
            "the url is longer than {URL_BYTES_MAX} bytes"
        )));
    }
    let url: Url = link
        .url
        .parse()
        .map_err(|error| unprocessable(format!("the url is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(unprocessable(
            "the url is neither http nor https".to_owned(),
        ));
    }
    let objects = doors.plan(link.to.as_deref());
    let objects = objects.map_err(|refused| Problem::new(refused.status, refused.what))?;
    let now = doors.clock.now();
    let learned =
        intake::learn_link(&doors.manifest, url, link.tags, objects, doors.ttl, now).await;
    let (key, learned) = learned.map_err(|error| unwritten(&error))?;
    doors.archive.poke();
    let status = match learned {
        Learned::New => StatusCode::CREATED,
        Learned::Known(_) => StatusCode::OK,
    };
    Ok((status, Json(Outcome::of(&key, learned))).into_response())
}

/// Makes everything of a task due now that is not archived.
async fn retry(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<One>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let key = doors.meant(path, query).await?;
    let due = doors.manifest.retry(Some(&key.provider), &key.id).await;
    let due = due.map_err(|error| unwritten(&error))?;
    doors.watch.poke();
    doors.archive.poke();
    Ok(Json(
        json!({ "provider": key.provider, "task_id": key.id, "due": due }),
    ))
}

/// Forgets a task; archived objects stay where they are.
async fn forget(
    State(doors): State<Arc<Doors>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<One>, QueryRejection>,
) -> Result<StatusCode, Problem> {
    let key = doors.meant(path, query).await?;
    let was_known = doors.manifest.forget(&key.provider, &key.id).await;
    if was_known.map_err(|error| unwritten(&error))? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(unknown(&key.id))
    }
}

impl Doors {
    /// Reads one announced task, or says what is wrong with it.
    fn announcement(&self, item: Value) -> Result<Announcement, Outcome> {
        let named = |name: &str| item.get(name).and_then(Value::as_str).map(str::to_owned);
        let (provider, task_id) = (named("provider"), named("task_id"));
        self.read_task(item).map_err(|refused| Outcome {
            provider,
            task_id,
            word: "refused",
            state: None,
            detail: Some(refused.what),
            status: refused.status,
        })
    }

    fn read_task(&self, item: Value) -> Result<Announcement, Refused> {
        let task = Announced::deserialize(item).map_err(said)?;
        let task_id: TaskId = task.task_id.parse().map_err(said)?;
        check_tags(&task.tags)?;
        let provider = task.provider.map(|name| name.parse::<ProviderName>());
        let provider = provider.transpose().map_err(said)?;
        if let Some(provider) = &provider {
            self.accounts.check(provider).map_err(absent)?;
        }
        let line = Line {
            task_id,
            provider,
            tags: task.tags,
            callback_url: task.callback_url,
        };
        Ok(self.accounts.announce(line, None, LearnedVia::Api)?)
    }

    /// Where a link goes: to the destinations that are named, or to all.
    fn plan(&self, to: Option<&[String]>) -> Result<Vec<ObjectPlan>, Refused> {
        let configured = || {
            let names = self
                .objects
                .iter()
                .map(|object| object.destination.as_str());
            format!("configured are: {}", names.collect::<Vec<_>>().join(", "))
        };
        let Some(to) = to else {
            return if self.objects.is_empty() {
                Err(absent("no destination is configured".to_owned()))
            } else {
                Ok(self.objects.clone())
            };
        };
        let mut objects: Vec<ObjectPlan> = Vec::new();
        for name in to {
            let name: DestinationName = name.parse().map_err(said)?;
            if objects.iter().any(|object| object.destination == name) {
                return Err(format!("destination {:?} twice", name.as_str()).into());
            }
            let object = self
                .objects
                .iter()
                .find(|object| object.destination == name);
            let object = object.ok_or_else(|| {
                absent(format!(
                    "no destination {:?}; {}",
                    name.as_str(),
                    configured()
                ))
            })?;
            objects.push(object.clone());
        }
        if objects.is_empty() {
            return Err(format!("`to` names no destination; {}", configured()).into());
        }
        Ok(objects)
    }

    /// The one known task that is meant.
    async fn meant(
        &self,
        path: Result<Path<String>, PathRejection>,
        query: Result<Query<One>, QueryRejection>,
    ) -> Result<TaskKey, Problem> {
        let Path(id) = path.map_err(|_| Problem::bad_request("the path is no UTF-8"))?;
        let id: TaskId = id
            .parse()
            .map_err(|error| Problem::bad_request(said(error)))?;
        let Query(one) = query.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        let provider = one.provider.map(|name| name.parse::<ProviderName>());
        let provider = provider.transpose();
        let provider = provider.map_err(|error| Problem::bad_request(said(error)))?;
        match self.manifest.the_task(provider.as_ref(), &id).await {
            Ok(task) => Ok(task.key),
            Err(NotOne::Unknown(id)) => Err(unknown(&id)),
            Err(several @ NotOne::Several { .. }) => {
                Err(Problem::new(StatusCode::CONFLICT, several.to_string())
                    .hint("say which with `provider`"))
            }
            Err(NotOne::Manifest(error)) => Err(unwritten(&error)),
        }
    }
}

impl Outcome {
    fn of(key: &TaskKey, learned: Learned) -> Self {
        let (word, state) = match learned {
            Learned::New => ("learned", None),
            Learned::Known(state) => ("known", Some(state.as_str())),
        };
        Self {
            provider: Some(key.provider.to_string()),
            task_id: Some(key.id.to_string()),
            word,
            state,
            detail: None,
            status: StatusCode::OK,
        }
    }
}

/// The JSON of a request. Only what says that it is JSON is read: a page of another site can make its reader send
/// anything else without asking us first.
async fn read(headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        let what = format!("a body of type {kind:?} is not read");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, what)
            .hint("send JSON, with `Content-Type: application/json`"));
    }
    let body = request::collect(body, BODY_MAX, BODY_TIME).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is no JSON: {error}")))
}

fn check_tags(tags: &Tags) -> Result<(), String> {
    if tags.len() > TAGS_MAX {
        return Err(format!("{} tags, and {TAGS_MAX} are taken", tags.len()));
    }
    for (name, value) in tags {
        if name.is_empty() || name.chars().count() > TAG_NAME_MAX {
            return Err(format!("a tag's name has 1 to {TAG_NAME_MAX} characters"));
        }
        if value.chars().count() > TAG_VALUE_MAX {
            return Err(format!(
                "tag {name:?} has more than {TAG_VALUE_MAX} characters"
            ));
        }
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn said(error: impl ToString) -> String {
    error.to_string()
}

fn unprocessable(what: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, what)
}

fn unknown(id: &TaskId) -> Problem {
    Problem::not_found(format!("no task {id} in the manifest"))
}

fn unwritten(error: &ManifestError) -> Problem {
    Problem::unavailable(format!("the manifest does not take it: {error}"))
}
