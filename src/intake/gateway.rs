//! The gateway: a provider's own API, served again under `/gateway/{provider}/`.
//!
//! An application changes its base URL and nothing else. What it submits passes through and is learned before it is
//! answered; what it polls for is answered in the provider's words, with links that last once there are any; everything
//! else passes as it is. Archiving never takes generation down: where the manifest cannot be written, submissions pass
//! all the same, and are learned later.
//!
//! ```text
//!   POST submit   caller --body, callback swapped--> provider --answer--> learn --> caller
//!   GET  a task   caller --> the manifest's answer, where all is archived and the caller is known
//!                        --> provider --answer, durable links in it--> caller
//!   else          caller <--------------- as it is ---------------> provider
//! ```

mod body;
mod deferred;
mod headers;
mod held_back;
mod keep_up;
mod look;
mod path;
mod query;
mod splice;
mod submit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::Request;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::response::Response;
use axum::routing::any;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use serde::Deserialize;
use serde::Serialize;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::clock::Clock;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::guard::Guard;
use crate::http::problem::Problem;
use crate::http::request::Admission;
use crate::http::request::TOKEN_HEADER;
use crate::intake::gateway::body::LongAnswers;
use crate::intake::gateway::held_back::HeldBack;
use crate::manifest::Manifest;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetIndex;
use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::units::Span;
use crate::work::wake::Wake;

pub use self::deferred::Deferred;

/// What stands before a provider's name in a path.
const PREFIX: &str = "/gateway/";

/// `[gateway]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose key a call to the provider shows.
    pub key: KeyOf,
    /// How long at most a completed task is told as still running while it is being archived.
    pub hold: Span,
}

/// Whose key a call shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyOf {
    /// The caller's, as it came.
    Caller,
    /// The configured one, whatever came.
    Own,
}

/// A provider whose API is served again.
#[derive(Clone, Debug)]
pub struct Served {
    /// The provider.
    pub provider: Provider,
    /// A client that waits as long as a caller would.
    pub http: Http,
    /// What callbacks of callers may be on.
    pub guard: Guard,
    /// Where the provider is asked to call us; without it our polling finds out.
    pub callback: Option<Url>,
}

/// Makes the links that last of a task's archived assets, or says why that cannot be done now.
pub type Links = Arc<dyn Fn(TaskRecord) -> BoxFuture<'static, LinksMade> + Send + Sync>;

/// The links that last, by asset.
pub type LinksMade = Result<BTreeMap<AssetIndex, String>, String>;

/// What a gateway is made of.
pub struct GatewayParts {
    /// The manifest.
    pub manifest: Manifest,
    /// The providers whose APIs are served again.
    pub providers: BTreeMap<ProviderName, Served>,
    /// How.
    pub config: Config,
    /// Where archived assets can be had.
    pub links: Links,
    /// What takes tasks while the manifest cannot; without it they are left to discovery.
    pub deferred: Option<Deferred>,
    /// How often what happened.
    pub counts: Counts,
    /// Wall time.
    pub clock: Clock,
    /// Pokes `watch`.
    pub watch: Wake,
}

/// How often what happened since the daemon started; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<[AtomicU64; 5]>);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Tasks that were learned before their submission was answered.
    Learned,
    /// Tasks that passed while the manifest could not be written, to be learned later.
    Deferred,
    /// Tasks that passed and were written down nowhere.
    Missed,
    /// Answers out of the manifest, without the provider.
    Kept,
    /// Calls that came to nothing for want of an answer.
    Failed,
}

/// The gateway. A clone is the same.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    parts: GatewayParts,
    /// Submissions whose callers may have gone: they are learned all the same.
    tracker: TaskTracker,
    held_back: HeldBack,
    long_answers: LongAnswers,
}

/// A call that may go on: to whom, where, and for whom.
struct Call {
    name: ProviderName,
    served: Served,
    /// Below the base URL, as it was sent.
    path: String,
    query: Option<String>,
    method: Method,
    /// Those that go on to the provider.
    headers: HeaderMap,
    /// The length of the body, where the caller told it.
    length: Option<u64>,
    /// Whether the caller may see what our own key may see.
    is_ours: bool,
}

/// The routes of the gateway.
pub fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/gateway/{provider}", any(answer))
        .route("/gateway/{provider}/{*path}", any(answer))
        .route("/gateway/{provider}/", any(answer))
        .with_state(gateway)
}

impl Counts {
    /// How often it happened.
    pub fn of(&self, count: Count) -> u64 {
        self.place(count).load(Ordering::Relaxed)
    }

    fn add(&self, count: Count) {
        self.place(count).fetch_add(1, Ordering::Relaxed);
    }

    fn place(&self, count: Count) -> &AtomicU64 {
        let [learned, deferred, missed, kept, failed] = self.0.as_ref();
        match count {
            Count::Learned => learned,
            Count::Deferred => deferred,
            Count::Missed => missed,
            Count::Kept => kept,
            Count::Failed => failed,
        }
    }
}

impl Gateway {
    /// A gateway over these.
    pub fn new(parts: GatewayParts) -> Self {
        Self(Arc::new(Inner {
            parts,
            tracker: TaskTracker::new(),
            held_back: HeldBack::default(),
            long_answers: LongAnswers::default(),
        }))
    }

    /// Whether any API is served again.
    pub fn serves(&self) -> bool {
        !self.0.parts.providers.is_empty()
    }

    /// How many tasks passed that wait to be learned.
    pub fn waiting(&self) -> usize {
        self.parts().deferred.as_ref().map_or(0, Deferred::count)
    }

    fn long_answers(&self) -> &LongAnswers {
        &self.0.long_answers
    }

    fn held_back(&self) -> &HeldBack {
        &self.0.held_back
    }

    fn parts(&self) -> &GatewayParts {
        &self.0.parts
    }

    /// Judges a request; nothing has been sent when this comes back.
    fn judge(&self, request: &Request) -> Result<Call, Problem> {
        let (name, path) = split(request.uri().path());
        let served = name.parse().ok().and_then(|name| {
            let served = self.parts().providers.get(&name)?;
            Some((name, served.clone()))
        });
        let (name, served) = served.ok_or_else(|| {
            Problem::not_found(format!("no provider {name:?} is served again here"))
                .hint("set gateway = true in its [provider.NAME]")
        })?;
        refuse_other_protocols(request)?;
        let query = request.uri().query();
        let base = served.provider.base_url();
        let base = base.ok_or_else(|| Problem::bad_request("the provider has no address"))?;
        let url = path::address(&base, path, query)
            .map_err(|why| Problem::bad_request(why.to_string()))?;
        let is_own_key = served.provider.shows_own_key(request.headers(), &url);
        let admission = request
            .extensions()
            .get()
            .copied()
            .unwrap_or(Admission::Open);
        if !admission.is_trusted() && !is_own_key {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "the key is not the one that is configured",
            )
            .hint(format!(
                "show the key of [provider.{name}], or the daemon's token in `{TOKEN_HEADER}`"
            )));
        }
        let is_ours = is_own_key || self.parts().config.key == KeyOf::Own;
        // A page in a browser of this machine reaches us without a token. It may not spend what it cannot show.
        let is_page = request.headers().contains_key(header::ORIGIN);
        if is_page && !is_own_key && admission == Admission::Local {
            return Err(Problem::new(
                StatusCode::FORBIDDEN,
                "no web page may use the gateway",
            ));
        }
        let length = request.headers().get(header::CONTENT_LENGTH);
        let mut headers = headers::of_request(request.headers());
        headers.remove(TOKEN_HEADER);
        if admission == Admission::Bearer {
            headers.remove(header::AUTHORIZATION);
        }
        Ok(Call {
            path: path.to_owned(),
            query: query.map(str::to_owned),
            method: request.method().clone(),
            headers,
            length: length.and_then(|length| length.to_str().ok()?.parse().ok()),
            is_ours,
            name,
            served,
        })
    }

    /// Sends a call with this body on its way.
    async fn send(
        &self,
        call: &Call,
        body: axum::body::Body,
    ) -> Result<http::Response<crate::http::Body>, Problem> {
        let provider = &call.served.provider;
        let base = provider.base_url();
        let base = base.ok_or_else(|| Problem::bad_request("the provider has no address"))?;
        let url = path::address(&base, &call.path, call.query.as_deref());
        let mut url = url.map_err(|why| Problem::bad_request(why.to_string()))?;
        let mut headers = call.headers.clone();
        if self.parts().config.key == KeyOf::Own {
            provider.put_own_key(&mut headers, &mut url);
        }
        let has_body = !http_body::Body::is_end_stream(&body);
        let bad = || Problem::bad_request("the call cannot be sent on");
        let builder = http::Request::builder()
            .method(call.method.clone())
            .uri(url.as_str());
        let sent = if has_body {
            if let Some(length) = call.length {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            let mut request = builder.body(body::incoming(body)).map_err(|_| bad())?;
            *request.headers_mut() = headers;
            call.served.http.send_streaming(request).await
        } else {
            let mut request = builder.body(bytes::Bytes::new()).map_err(|_| bad())?;
            *request.headers_mut() = headers;
            call.served.http.send(request).await
        };
        sent.map_err(|error| self.no_answer(&call.name, &error))
    }

    /// What a caller is told for want of an answer of the provider's.
    fn no_answer(&self, name: &ProviderName, error: &HttpError) -> Problem {
        self.parts().counts.add(Count::Failed);
        let status = match error {
            HttpError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            HttpError::Forbidden { .. }
            | HttpError::Connect { .. }
            | HttpError::Broken { .. }
            | HttpError::TooLarge(_) => StatusCode::BAD_GATEWAY,
        };
        tracing::warn!(provider = %name, %error, "a call through the gateway came to nothing");
        Problem::new(status, format!("provider {name}: {error}"))
    }
}

async fn answer(State(gateway): State<Gateway>, request: Request) -> Response {
    let call = match gateway.judge(&request) {
        Ok(call) => call,
        Err(problem) => return problem.into_response(),
    };
    let provider = &call.served.provider;
    let is_submission = call.method == Method::POST
        && provider
            .gateway()
            .is_some_and(|gateway| gateway.is_submitted_to(&call.path));
    if is_submission {
        return gateway.submit(call, request.into_body()).await;
    }
    let task = provider.task_in(&call.path, call.query.as_deref());
    match task.filter(|_| call.method == Method::GET) {
        Some(id) => gateway.look(call, id, request.into_body()).await,
        None => match gateway.send(&call, request.into_body()).await {
            Ok(answer) => body::outgoing(answer),
            Err(problem) => problem.into_response(),
        },
    }
}

/// The provider's name, and the path below its base URL.
fn split(path: &str) -> (&str, &str) {
    let rest = path.strip_prefix(PREFIX).unwrap_or_default();
    match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    }
}

/// What is more than one request and one answer is not served.
fn refuse_other_protocols(request: &Request) -> Result<(), Problem> {
    match *request.method() {
        Method::CONNECT | Method::TRACE => {
            let what = format!("{} is not served here", request.method());
            Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, what))
        }
        _ if headers::wants_another_protocol(request.headers()) => {
            let what = "no other protocol is spoken here";
            Err(Problem::new(StatusCode::NOT_IMPLEMENTED, what)
                .hint("send the request without `Upgrade`"))
        }
        _ => Ok(()),
    }
}
