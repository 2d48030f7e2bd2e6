//! The origin: films with ranges and tags, and a task API that says where they are and remembers when it said so.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use anyhow::Result;
use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use http_body_util::Limited;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use reelvault::clock::Clock;
use reelvault::clock::Timestamp;
use reelvault::units::Span;
use serde_json::Value;
use serde_json::json;

use crate::content::Film;
use crate::serve;
use crate::serve::Answer;
use crate::serve::Body;
use crate::serve::Listen;
use crate::sink::RESET;

/// A batch names fifty tasks at most.
const BATCH_BYTES_MAX: usize = 64 << 10;

/// Long enough ago that nobody waits for a task to finish, not so long that its links are dead.
const AGE: Span = Span::from_secs(600);

/// Says when each task was first said to be completed, in milliseconds since the unix epoch.
pub(crate) const ANSWERED: &str = "/-/answered";

struct Origin {
    clock: Clock,
    answered: Mutex<HashMap<String, Timestamp>>,
}

/// What of a film a request asks for.
enum Asked {
    Whole,
    Part(Range<u64>),
    Nothing,
}

pub(crate) fn run(listen: &Listen) -> Result<()> {
    let origin = Origin {
        clock: Clock::system(),
        answered: Mutex::default(),
    };
    serve::run(listen, origin)
}

impl Answer for Origin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if let Some(film) = Film::at(path) {
            return film_answer(film, request.method(), request.headers());
        }
        match path {
            ANSWERED => return self.report(),
            RESET => {
                self.answered().clear();
                return status(StatusCode::OK);
            }
            _ => {}
        }
        self.api(request)
            .await
            .unwrap_or_else(|| status(StatusCode::NOT_FOUND))
    }
}

impl Origin {
    /// The task API below `/case/{scheme}/{films}/{bytes}`: so many tasks, all of them completed.
    async fn api(&self, request: Request<Incoming>) -> Option<Response<Body>> {
        let (head, body) = request.into_parts();
        let host = head.headers.get(header::HOST)?.to_str().ok()?;
        let (scheme, rest) = head.uri.path().strip_prefix("/case/")?.split_once('/')?;
        let (films, rest) = rest.split_once('/')?;
        let (bytes, rest) = rest.split_once('/')?;
        let (films, bytes) = (films.parse::<u64>().ok()?, bytes.parse().ok()?);
        let base = format!("{scheme}://{host}");
        let answer = match rest {
            "v1/tasks" => {
                let all = (0..films).map(|number| self.task(Film { number, bytes }, &base));
                page_of(
                    &all.collect::<Vec<_>>(),
                    head.uri.query().unwrap_or_default(),
                )
            }
            "v1/tasks/batch" => {
                let body = Limited::new(body, BATCH_BYTES_MAX).collect().await.ok()?;
                let asked: Value = serde_json::from_slice(&body.to_bytes()).ok()?;
                let ids = asked
                    .get("task_ids")?
                    .as_array()?
                    .iter()
                    .filter_map(Value::as_str);
                let found = ids
                    .filter_map(Film::of_task)
                    .map(|film| self.task(film, &base));
                json!({ "data": found.collect::<Vec<_>>() })
            }
            "v1/credits" => json!({ "credits": 1 }),
            one => self.task(Film::of_task(one.strip_prefix("v1/tasks/")?)?, &base),
        };
        Some(json_answer(&answer))
    }

    /// When each task was first said to be completed.
    fn report(&self) -> Response<Body> {
        let answered = self.answered();
        let times = answered
            .iter()
            .map(|(id, at)| (id.clone(), at.as_unix_millis().into()));
        json_answer(&Value::Object(times.collect()))
    }

    fn answered(&self) -> MutexGuard<'_, HashMap<String, Timestamp>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn task(&self, film: Film, base: &str) -> Value {
        let now = self.clock.now();
        self.answered().entry(film.task_id()).or_insert(now);
        json!({
            "created": now.minus(AGE).as_unix_millis() / 1_000,
            "id": film.task_id(),
            "model": "bench",
            "object": "video.generation.task",
            "progress": 100,
            "results": [format!("{base}{}", film.path())],
            "status": "completed",
            "task_info": { "can_cancel": false, "video_duration": 5 },
            "type": "video",
        })
    }
}

/// One page of a list, as its query asks for it; links are in single answers only.
fn page_of(tasks: &[Value], query: &str) -> Value {
    let asked = |name: &str, default: usize| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.find(|(key, _)| *key == name);
        found
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(default)
    };
    let (page, page_size) = (asked("page", 1).max(1), asked("page_size", 20).clamp(1, 50));
    let mut rows: Vec<_> = tasks
        .iter()
        .skip((page - 1) * page_size)
        .take(page_size)
        .cloned()
        .collect();
    for row in rows.iter_mut().filter_map(Value::as_object_mut) {
        row.remove("results");
        row.insert("has_results".to_owned(), true.into());
    }
    json!({ "data": rows, "total": tasks.len(), "page": page, "page_size": page_size })
}

fn film_answer(film: Film, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let current = headers
        .get(header::IF_RANGE)
        .is_none_or(|tag| tag == film.etag().as_str());
    let asked = headers.get(header::RANGE).filter(|_| current);
    let asked = asked.and_then(|asked| asked.to_str().ok());
    let asked = asked.map_or(Asked::Whole, |asked| Asked::of(asked, film.bytes));
    let mut response = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "video/mp4")
        .header(header::ETAG, film.etag());
    let range = match asked {
        Asked::Whole => 0..film.bytes,
        Asked::Part(range) => {
            let content = format!("bytes {}-{}/{}", range.start, range.end - 1, film.bytes);
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, content);
            range
        }
        Asked::Nothing => {
            response = response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{}", film.bytes));
            0..0
        }
    };
    let response = response.header(header::CONTENT_LENGTH, range.end - range.start);
    let body = if method == Method::HEAD {
        Full::default().boxed()
    } else {
        let frames = film.frames(range).map(|frame| Ok(Frame::data(frame)));
        StreamBody::new(futures::stream::iter(frames)).boxed()
    };
    response
        .body(body)
        .expect("all headers are digits and letters")
}

impl Asked {
    /// Reads `bytes=first-`, `bytes=first-last` or `bytes=-count`. Anything else, several ranges in one request
    /// among it, is not understood, and the film comes whole, as HTTP has it.
    fn of(asked: &str, bytes: u64) -> Self {
        match range_of(asked, bytes) {
            None => Asked::Whole,
            Some(range) if range.is_empty() => Asked::Nothing,
            Some(range) => Asked::Part(range),
        }
    }
}

fn range_of(asked: &str, bytes: u64) -> Option<Range<u64>> {
    let (first, last) = asked.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        return Some(bytes.saturating_sub(last.parse().ok()?)..bytes);
    }
    let end = if last.is_empty() {
        bytes
    } else {
        last.parse::<u64>().ok()?.checked_add(1)?
    };
    Some(first.parse().ok()?..end.min(bytes))
}

fn json_answer(value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(value.to_string()).boxed());
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}
