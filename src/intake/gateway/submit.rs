//! Submissions: the callback is swapped on the way, and the new task is learned before the caller hears of it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body as Outgoing;
use axum::response::IntoResponse as _;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::stream;
use http::HeaderValue;
use http::header;
use url::Url;

use crate::http::Body;
use crate::http::HttpError;
use crate::http::guard::Guard;
use crate::http::problem::Problem;
use crate::intake;
use crate::intake::Announcement;
use crate::intake::gateway::Call;
use crate::intake::gateway::Count;
use crate::intake::gateway::Gateway;
use crate::intake::gateway::Served;
use crate::intake::gateway::body;
use crate::intake::gateway::body::Taken;
use crate::intake::gateway::deferred::Passed;
use crate::intake::gateway::headers;
use crate::intake::gateway::query;
use crate::intake::gateway::splice::Splice;
use crate::model::task::LearnedVia;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::provider::Provider;
use crate::provider::description::gateway::CallbackField;
use crate::units::ByteSize;

/// A body that is an object shows it within this.
const PEEK_BYTES_MAX: ByteSize = ByteSize::bytes(4096);

/// A callback address may be this long.
const CALLBACK_LENGTH_MAX: usize = 2048;

/// The manifest has this long to learn a task; a caller that waits longer may take its submission for lost.
const LEARN_PATIENCE: Duration = Duration::from_secs(2);

/// Where the callers' own callbacks are put while the body passes.
type Own = Arc<Mutex<Option<Url>>>;

/// What became of a task that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Archiving {
    /// The manifest knows it.
    Learned,
    /// It is written down, and learned once the manifest can be written.
    Deferred,
    /// It is written down nowhere: what lists the provider's tasks may find it.
    Missed,
}

impl Archiving {
    /// The answer with what became of its task.
    fn told_in(self, mut answer: Response) -> Response {
        let word = HeaderValue::from_static(match self {
            Archiving::Learned => "learned",
            Archiving::Deferred => "deferred",
            Archiving::Missed => "missed",
        });
        answer.headers_mut().insert(headers::ARCHIVING, word);
        answer
    }
}

impl Gateway {
    /// Lets a submission pass. Once it has begun it is seen to its end, whether the caller waits for it or not: a task
    /// that the provider has taken is learned.
    pub(super) async fn submit(&self, call: Call, body: Outgoing) -> Response {
        let gateway = self.clone();
        let passing = async move { gateway.pass_submission(call, body).await };
        match self.0.tracker.spawn(passing).await {
            Ok(Ok(response)) => response,
            Ok(Err(problem)) => problem.into_response(),
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Problem::unavailable("the daemon is stopping").into_response(),
            },
        }
    }

    async fn pass_submission(&self, mut call: Call, body: Outgoing) -> Result<Response, Problem> {
        let own = Own::default();
        let body = swap_callback(&mut call, body, &own).await;
        let body = body.map_err(|error| self.no_answer(&call.name, &error))?;
        // We must read the answer, which no encoding may hide.
        call.headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        let answer = self.send(&call, body).await?;
        let is_taken = answer.status().is_success();
        let unread = |answer: http::Response<Body>, why: &str| {
            let passed = body::outgoing(answer);
            if is_taken {
                self.missed(&call, why).told_in(passed)
            } else {
                passed
            }
        };
        if !headers::is_in_the_open(answer.headers()) {
            return Ok(unread(answer, "its answer is encoded"));
        }
        let (head, body) = answer.into_parts();
        let taken = self.long_answers().take(body).await;
        let (body, _turn) = match taken.map_err(|error| self.no_answer(&call.name, &error))? {
            Taken::Whole(body, turn) => (body, turn),
            Taken::Long(body) => {
                let answer = http::Response::from_parts(head, body);
                return Ok(unread(answer, "its answer is too long"));
            }
        };
        let own = own.lock().unwrap_or_else(PoisonError::into_inner).take();
        if !is_taken {
            let shown = without_ours(&call.served, &body, own.as_ref());
            return Ok(body::answered(head, &body, shown));
        }
        let provider = &call.served.provider;
        let submitted = provider.submitted(head.status, &body).map(|(id, passing)| {
            let provider = call.name.clone();
            (TaskKey { provider, id }, passing)
        });
        let archiving = match &submitted {
            Some((key, _)) => self.remember(provider, key.clone(), own.clone()).await,
            None => self.missed(&call, "its answer names no task"),
        };
        let own = own.as_ref();
        let shown = match submitted.filter(|_| archiving == Archiving::Learned) {
            Some((key, passing)) => {
                let shown = self.shown_at_once(&call, &key, own, passing, &body);
                shown.await
            }
            None => without_ours(&call.served, &body, own),
        };
        Ok(archiving.told_in(body::answered(head, &body, shown)))
    }

    /// Writes a task down, in the manifest or, where that is not to be had, beside it.
    pub(super) async fn remember(
        &self,
        provider: &Provider,
        key: TaskKey,
        callback: Option<Url>,
    ) -> Archiving {
        let parts = self.parts();
        let now = parts.clock.now();
        let announced = Announcement {
            key: key.clone(),
            tags: Tags::new(),
            via: LearnedVia::Gateway,
            ttl: provider.ttl(),
            callback: callback.clone(),
        };
        let learning = intake::learn(&parts.manifest, vec![announced], now);
        let error = match tokio::time::timeout(LEARN_PATIENCE, learning).await {
            Ok(Ok(_)) => {
                parts.counts.add(Count::Learned);
                parts.watch.poke();
                return Archiving::Learned;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the manifest does not answer".to_owned(),
        };
        let Some(deferred) = &parts.deferred else {
            parts.counts.add(Count::Missed);
            tracing::error!(task.id = %key.id, error, "a task passed that was written down nowhere");
            return Archiving::Missed;
        };
        let passed = Passed::new(&key, callback, now);
        match deferred.add(passed).await {
            Ok(()) => {
                parts.counts.add(Count::Deferred);
                tracing::warn!(task.id = %key.id, error, "a task passed that is learned once the manifest can be written");
                Archiving::Deferred
            }
            Err(deferring) => {
                parts.counts.add(Count::Missed);
                tracing::error!(task.id = %key.id, error, %deferring, "a task passed that was written down nowhere");
                Archiving::Missed
            }
        }
    }

    fn missed(&self, call: &Call, why: &str) -> Archiving {
        self.parts().counts.add(Count::Missed);
        tracing::error!(provider = %call.name, path = call.path, "a submission passed and its task is not known: {why}");
        Archiving::Missed
    }
}

/// Puts our callback in and takes the caller's out, where the API has callbacks and the call can be changed.
async fn swap_callback(call: &mut Call, body: Outgoing, own: &Own) -> Result<Outgoing, HttpError> {
    let gateway = call.served.provider.gateway();
    match gateway.and_then(|gateway| gateway.callback.clone()) {
        Some(CallbackField::Query(name)) => {
            swap_in_query(call, &name, own);
            Ok(body)
        }
        Some(CallbackField::Field(name)) if headers::may_change_body(&call.headers) => {
            swap_in_body(call, body, &name, own).await
        }
        Some(CallbackField::Field(_)) | None => Ok(body),
    }
}

fn swap_in_query(call: &mut Call, name: &str, own: &Own) {
    let ours = call.served.callback.as_ref();
    let (query, taken) = query::swap(call.query.as_deref(), name, ours);
    let urls: Vec<Option<Url>> = taken
        .iter()
        .map(|said| callback(said, &call.served.guard))
        .collect();
    // What is no address that we may call stays for the provider to judge.
    if urls.iter().all(Option::is_some) {
        *own.lock().unwrap_or_else(PoisonError::into_inner) =
            urls.into_iter().flatten().next_back();
        call.query = query;
    }
}

async fn swap_in_body(
    call: &mut Call,
    body: Outgoing,
    name: &str,
    own: &Own,
) -> Result<Outgoing, HttpError> {
    let is_enough = |begun: &[u8]| Splice::is_object(begun).is_some();
    let (begun, body) = body::peek(body::incoming(body), PEEK_BYTES_MAX, is_enough).await?;
    if begun.is_empty() {
        return Ok(Outgoing::empty());
    }
    if Splice::is_object(&begun) != Some(true) {
        return Ok(Outgoing::from_stream(body));
    }
    let (own, guard) = (Arc::clone(own), call.served.guard.clone());
    let is_taken_out = move |said: &[u8]| match serde_json::from_slice::<Option<String>>(said) {
        Ok(Some(said)) => {
            let url = callback(&said, &guard);
            let is_one = url.is_some();
            if is_one {
                // Of doubles the last counts, as with most readers of JSON.
                *own.lock().unwrap_or_else(PoisonError::into_inner) = url;
            }
            is_one
        }
        Ok(None) => true,
        Err(_) => false,
    };
    let ours = call.served.callback.as_ref().map(Url::as_str);
    let splice = Splice::new(name, ours, Box::new(is_taken_out));
    let growth = u64::try_from(splice.growth()).expect("a length in memory fits");
    call.length = call.length.map(|length| length.saturating_add(growth));
    Ok(Outgoing::from_stream(spliced(body, splice)))
}

/// The body through the splice.
fn spliced(body: Body, splice: Splice) -> Body {
    let state = Some((body, splice));
    stream::try_unfold(state, |state| async move {
        let Some((mut body, mut splice)) = state else {
            return Ok(None);
        };
        loop {
            let (out, state) = match body.try_next().await? {
                Some(frame) => (splice.push(&frame), Some((body, splice))),
                None => (splice.finish(), None),
            };
            match state {
                // All of it is held: nothing to send yet.
                Some(left) if out.is_empty() => (body, splice) = left,
                state => return Ok(Some((Bytes::from(out), state))),
            }
        }
    })
    .boxed()
}

/// The address that a caller wants to be called at, if it is one that we may call.
fn callback(said: &str, guard: &Guard) -> Option<Url> {
    let url: Url = said
        .parse()
        .ok()
        .filter(|_| said.len() <= CALLBACK_LENGTH_MAX)?;
    guard.check(&url).is_ok().then_some(url)
}

/// An answer in which our callback stands as the caller's own, since it holds what only we and the provider know.
pub(super) fn without_ours(served: &Served, body: &[u8], own: Option<&Url>) -> Bytes {
    let ours = served.callback.as_ref();
    served.provider.without_callback(body, ours, own).into()
}
