//! One call to a task API: its turn, its exchange, what a bad answer means, and the pause that it asks for.

use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::OnceLock;
use std::sync::PoisonError;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use serde_json::Value;
use url::Url;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::body::collect;
use crate::http::pace::Pace;
use crate::provider::answer::Amiss;
use crate::provider::answer::Reader;
use crate::provider::answer::Words;
use crate::provider::connect::Account;
use crate::provider::error::Meaning;
use crate::provider::error::ProviderError;
use crate::provider::error::Said;
use crate::provider::error::meaning;
use crate::provider::error::pause_unasked;
use crate::provider::error::retry_after;
use crate::provider::json;
use crate::provider::scrub::MESSAGE_CHARS;
use crate::provider::scrub::WORD_CHARS;
use crate::provider::scrub::scrub;
use crate::telemetry::metrics::Metrics;
use crate::units::ByteSize;
use crate::units::Span;

/// An answer about one task takes a few KiB, a batch of 50 a few hundred.
const ANSWER_BYTES_MAX: ByteSize = ByteSize::mib(1);

/// A call takes no longer than this, however slowly its answer drips.
const CALL_TIME_MAX: Span = Span::from_secs(30);

/// After a 401, 402 or 403 one call a minute is made, to see whether somebody has put the account right.
const REFUSED_PAUSE: Span = Span::from_secs(60);

/// An account that was accepted a moment ago is refused only when so many calls in a row are: a provider may refuse a
/// single task, one of another key, and those of the others go on.
const REFUSALS_BELIEVED: u32 = 5;

/// What calls an account's API, at its pace.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) account: Account,
    pub(super) pace: Pace,
    pub(super) clock: Clock,
    pub(super) metrics: OnceLock<Metrics>,
    http: Http,
    trouble: Mutex<Trouble>,
}

/// Why the provider is left alone, or was last.
#[derive(Debug, Default)]
struct Trouble {
    error: Option<ProviderError>,
    /// Until when we were told not to ask so often, whatever came of calls that were under way then.
    limit: Option<(Timestamp, Said)>,
    /// How often we were told that we ask too often and not for how long to stay away, without a good answer between.
    limits_in_a_row: u32,
    /// Whether a good answer came since the account was last refused.
    was_accepted: bool,
    /// How often a call was refused without a good answer between.
    refusals_in_a_row: u32,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Caller {
    /// Calls `account` through `http`.
    pub(super) fn new(account: Account, pace: Pace, http: Http, clock: Clock) -> Self {
        Self {
            account,
            pace,
            clock,
            metrics: OnceLock::new(),
            http,
            trouble: Mutex::default(),
        }
    }

    /// Sends one request when it is its turn and takes the whole answer, good or bad. `body` is JSON, or empty.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, ProviderError> {
        let request = self.request(method, path, body)?;
        if !self.is_first_after_refusal()? {
            let turn = self.pace.turn().await;
            turn.map_err(|paused| self.paused(paused.left))?;
        }
        let exchange = tokio::time::timeout(CALL_TIME_MAX.as_duration(), self.exchange(request));
        let called = match exchange.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error @ HttpError::TooLarge(_))) => Err(self.garbled(None, error.to_string())),
            Ok(Err(error)) => Err(self.unavailable(&error.to_string())),
            Err(_) => Err(self.unavailable(&format!("no whole answer within {CALL_TIME_MAX}"))),
        };
        self.count(&called);
        called
    }

    /// Counts a call that was made, by its status alone: what the body says of single tasks is the manifest's to count.
    fn count(&self, called: &Result<Answer, ProviderError>) {
        let Some(metrics) = self.metrics.get() else {
            return;
        };
        let outcome = match called {
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(answer) => {
                let errors = &self.account.description.status.error;
                let is_timed = answer.headers.contains_key(header::RETRY_AFTER);
                meaning(errors, answer.status, None, is_timed).as_str()
            }
            Err(error) => error.as_str(),
        };
        metrics.provider_request(&self.account.name, outcome);
    }

    /// The JSON of a good answer; of a bad one, what it means, after beginning the pause that it asks for.
    pub(super) fn good(&self, answer: &Answer) -> Result<Value, ProviderError> {
        match json::parse(&answer.body) {
            Ok(value) if answer.status.is_success() => {
                if self.reader().is_error(&value) {
                    return Err(self.bad(answer, self.reader().words(&value)));
                }
                self.is_well();
                Ok(value)
            }
            Ok(value) => Err(self.bad(answer, self.reader().words(&value))),
            Err(why) if answer.status.is_success() => {
                let said = |name| {
                    let value = answer.headers.get(name)?.to_str().ok()?;
                    Some(scrub(value, WORD_CHARS, None))
                };
                let kind = said(header::CONTENT_TYPE);
                let kind = kind.as_deref().unwrap_or("no type");
                let encoding = said(header::CONTENT_ENCODING);
                let encoding = encoding.map(|it| format!(", its encoding: {it}"));
                let encoding = encoding.unwrap_or_default();
                let what = format!("the answer is no JSON: {why}; its type: {kind}{encoding}");
                Err(self.garbled(Some(answer.status), what))
            }
            Err(_) if answer.status.is_redirection() => {
                let words = Words {
                    code: None,
                    message: self.leads_to(answer),
                };
                Err(self.bad(answer, words))
            }
            Err(_) => Err(self.bad(answer, Words::default())),
        }
    }

    /// The code and message of a bad answer, without beginning any pause.
    pub(super) fn words(&self, answer: &Answer) -> Words {
        let value = json::parse(&answer.body);
        value.map_or_else(|_| Words::default(), |value| self.reader().words(&value))
    }

    /// Whether the provider did not accept the account when it last said anything about it.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self.trouble().error, Some(ProviderError::Refused { .. }))
    }

    /// What it said when it did not accept the account, as long as that holds.
    pub(super) fn refusal(&self) -> Option<String> {
        let trouble = self.trouble();
        let error = trouble.error.as_ref();
        error
            .filter(|error| matches!(error, ProviderError::Refused { .. }))
            .map(ToString::to_string)
    }

    /// What reads this account's answers now.
    pub(super) fn reader(&self) -> Reader<'_> {
        Reader {
            description: &self.account.description,
            base_url: self.account.base_url(),
            key: self.account.key.as_ref(),
            now: self.clock.now(),
        }
    }

    /// An answer that makes no sense.
    pub(super) fn garbled(&self, status: Option<StatusCode>, what: String) -> ProviderError {
        let words = Words {
            code: None,
            message: Some(what),
        };
        ProviderError::Garbled(self.said(status, words))
    }

    /// An answer, or a name, that says that there is no such task.
    pub(super) fn no_such_task(&self, status: Option<StatusCode>, what: String) -> ProviderError {
        let words = Words {
            code: None,
            message: Some(what),
        };
        ProviderError::NoSuchTask(self.said(status, words))
    }

    /// What it means that a good answer tells of no task.
    pub(super) fn amiss(&self, status: StatusCode, amiss: Amiss) -> ProviderError {
        match amiss {
            Amiss::Gone(what) => self.no_such_task(Some(status), what),
            Amiss::Senseless(what) => self.garbled(Some(status), what),
        }
    }

    /// After a refusal's pause one call is let through, without waiting for a turn; for all others the pause begins
    /// anew, and ends when that one comes back well.
    fn is_first_after_refusal(&self) -> Result<bool, ProviderError> {
        let trouble = self.trouble();
        if let Some(error) = &trouble.error
            && let Some(left) = self.pace.pause_left()
        {
            return Err(moved_to(error, self.clock.now().plus(left)));
        }
        // Under the same lock, or two callers would both be the first.
        let was_refused = matches!(trouble.error, Some(ProviderError::Refused { .. }));
        if was_refused {
            self.pace.pause_for(REFUSED_PAUSE);
        }
        Ok(was_refused)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<http::Request<Bytes>, ProviderError> {
        let no_address = || self.garbled(None, format!("{path:?} makes no address"));
        let uri = self.account.address(path).ok_or_else(no_address)?;
        let has_body = !body.is_empty();
        let request = http::Request::builder().method(method).uri(uri);
        let mut request = request.body(body).map_err(|_| no_address())?;
        *request.headers_mut() = self.account.headers.clone();
        if let Some((name, value)) = self.account.minted(self.clock.now()) {
            request.headers_mut().insert(name, value);
        }
        if has_body {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, json);
        }
        Ok(request)
    }

    async fn exchange(&self, request: http::Request<Bytes>) -> Result<Answer, HttpError> {
        let (head, body) = self.http.send(request).await?.into_parts();
        let body = match collect(body, ANSWER_BYTES_MAX).await {
            // A status says enough by itself, whatever page comes with it.
            Err(HttpError::TooLarge(_)) if !head.status.is_success() => Bytes::new(),
            collected => collected?,
        };
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    }

    fn bad(&self, answer: &Answer, words: Words) -> ProviderError {
        let now = self.clock.now();
        let asked = answer.headers.get(header::RETRY_AFTER);
        let asked = asked.and_then(|value| retry_after(value.to_str().ok()?, now));
        let errors = &self.account.description.status.error;
        let means = meaning(
            errors,
            answer.status,
            words.code.as_deref(),
            asked.is_some(),
        );
        let said = self.said(Some(answer.status), words);
        match means {
            Meaning::Gone => {
                // Whoever is told that there is no such task has been let in.
                self.is_well();
                ProviderError::NoSuchTask(said)
            }
            Meaning::Refused => {
                let until = now.plus(REFUSED_PAUSE);
                let error = ProviderError::Refused { until, said };
                if self.is_account_refused() {
                    self.pause(REFUSED_PAUSE, error)
                } else {
                    error
                }
            }
            Meaning::Limited => {
                let pause = asked.unwrap_or_else(|| self.unasked_pause());
                let until = now.plus(pause);
                self.trouble().limit = Some((until, said.clone()));
                self.pause(pause, ProviderError::Limited { until, said })
            }
            Meaning::Unavailable => ProviderError::Unavailable(said),
            Meaning::Garbled => ProviderError::Garbled(said),
        }
    }

    /// Where an answer sends us: its host and its path, since what stands behind may be a secret.
    fn leads_to(&self, answer: &Answer) -> Option<String> {
        let location = answer.headers.get(header::LOCATION)?.to_str().ok()?;
        let base = Url::parse(self.account.base_url()).ok()?;
        let url = base.join(location).ok()?;
        let what = format!(
            "it leads to {}{}, and no call follows it there",
            url.host_str()?,
            url.path()
        );
        Some(scrub(&what, MESSAGE_CHARS, self.account.key.as_ref()))
    }

    /// The pause after a limit without `Retry-After`. Calls that were under way when it began do not lengthen it.
    fn unasked_pause(&self) -> Span {
        let mut trouble = self.trouble();
        if let Some(left) = self.pace.pause_left() {
            return left;
        }
        trouble.limits_in_a_row = trouble.limits_in_a_row.saturating_add(1);
        pause_unasked(trouble.limits_in_a_row)
    }

    /// Whether one more refused call tells of the account, and not of what was asked.
    fn is_account_refused(&self) -> bool {
        let mut trouble = self.trouble();
        trouble.refusals_in_a_row = trouble.refusals_in_a_row.saturating_add(1);
        let is_refused = !trouble.was_accepted || trouble.refusals_in_a_row >= REFUSALS_BELIEVED;
        trouble.was_accepted &= !is_refused;
        is_refused
    }

    fn pause(&self, span: Span, error: ProviderError) -> ProviderError {
        let mut trouble = self.trouble();
        self.pace.pause_for(span);
        trouble.error = Some(error.clone());
        error
    }

    /// A good answer came, so the account is accepted. A limit's pause goes on: it ends by itself.
    fn is_well(&self) {
        let mut trouble = self.trouble();
        trouble.limits_in_a_row = 0;
        trouble.refusals_in_a_row = 0;
        trouble.was_accepted = true;
        if let Some(ProviderError::Refused { .. }) = trouble.error {
            self.pace.resume();
            let now = self.clock.now();
            let limit = trouble.limit.take().filter(|(until, _)| *until > now);
            trouble.error = limit.map(|(until, said)| {
                self.pace.pause_for(until.since(now));
                ProviderError::Limited { until, said }
            });
        }
    }

    /// The error that began the pause, which goes on for `left`.
    fn paused(&self, left: Span) -> ProviderError {
        let until = self.clock.now().plus(left);
        match &self.trouble().error {
            Some(error) => moved_to(error, until),
            None => ProviderError::Limited {
                until,
                said: self.said(None, Words::default()),
            }
            .repeated(),
        }
    }

    fn trouble(&self) -> MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self, what: &str) -> ProviderError {
        let words = Words {
            code: None,
            message: Some(scrub(what, MESSAGE_CHARS, self.account.key.as_ref())),
        };
        ProviderError::Unavailable(self.said(None, words))
    }

    fn said(&self, status: Option<StatusCode>, words: Words) -> Said {
        Said {
            provider: self.account.name.clone(),
            status: status.map(|status| status.as_u16()),
            code: words.code,
            message: words.message,
            is_repeated: false,
        }
    }
}

/// `error`, holding until `until`, for a call that is not made.
fn moved_to(error: &ProviderError, until: Timestamp) -> ProviderError {
    match error.clone().repeated() {
        ProviderError::Refused { said, .. } => ProviderError::Refused { until, said },
        ProviderError::Limited { said, .. } => ProviderError::Limited { until, said },
        other @ (ProviderError::NoSuchTask(_)
        | ProviderError::Unavailable(_)
        | ProviderError::Garbled(_)) => other,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use futures::StreamExt as _;
    use futures::future::BoxFuture;

    use crate::http::Body;
    use crate::http::Transport;
    use crate::provider::Config;
    use crate::secret::SecretSource;

    use super::*;

    /// A status, a `Retry-After`, a body.
    type Line = (u16, &'static str, &'static str);

    /// Answers from a list.
    #[derive(Clone, Default)]
    pub(in crate::provider) struct Script(Arc<Mutex<VecDeque<Line>>>);

    impl Transport for Script {
        fn send(
            &self,
            _: http::Request<Bytes>,
        ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>> {
            let (status, after, body) = self.0.lock().unwrap().pop_front().expect("no call more");
            let mut answer = http::Response::builder().status(status);
            if !after.is_empty() {
                answer = answer.header(header::RETRY_AFTER, after);
            }
            let body = futures::stream::iter([Ok(Bytes::from(body))]).boxed();
            Box::pin(async move { Ok(answer.body(body).unwrap()) })
        }
    }

    const NOW: Timestamp = Timestamp::EPOCH;

    pub(in crate::provider) fn caller(answers: &[Line]) -> (Caller, Script) {
        let config = Config {
            kind: Some("evolink".to_owned()),
            api_key: Some(SecretSource::env("KEY")),
            ..Config::default()
        };
        let env = |_: &str| Some("sk-canary".to_owned());
        let account = Account::read("evolink".parse().unwrap(), &config, &env).unwrap();
        let script = Script(Arc::new(Mutex::new(answers.iter().copied().collect())));
        let clock = Clock::new(|| NOW);
        let caller = Caller::new(account, Pace::new(None), Http::new(script.clone()), clock);
        (caller, script)
    }

    impl Script {
        /// How many answers nobody has asked for yet.
        pub(in crate::provider) fn left(&self) -> usize {
            self.0.lock().unwrap().len()
        }
    }

    async fn ask(caller: &Caller) -> Result<Value, ProviderError> {
        let answer = caller.call(Method::GET, "/v1/x", Bytes::new()).await?;
        caller.good(&answer)
    }

    /// Lets the pause end.
    fn later(caller: &Caller) {
        caller.pace.resume();
    }

    /// A pause is measured while it runs.
    #[track_caller]
    fn check_pause(caller: &Caller, whole: Span) {
        let left = caller.pace.pause_left().expect("a pause");
        assert!(
            left <= whole && left > whole.times(0.8),
            "{left} of {whole}"
        );
    }

    #[tokio::test]
    async fn a_refused_account_is_tried_once_a_minute_until_it_is_accepted() {
        let (caller, script) = caller(&[(401, "", ""), (402, "", ""), (200, "", "{}")]);
        for status in [401, 402] {
            let error = ask(&caller).await.unwrap_err();
            assert_eq!(error.said().status, Some(status));
            assert!(matches!(error, ProviderError::Refused { .. }));
            check_pause(&caller, REFUSED_PAUSE);
            let calls_left = script.left();
            let again = ask(&caller).await.unwrap_err();
            assert_eq!(again.said().status, Some(status));
            assert_eq!(script.left(), calls_left);
            later(&caller);
        }
        assert!(caller.is_refused());
        assert_eq!(ask(&caller).await, Ok(serde_json::json!({})));
        assert!(!caller.is_refused());
        assert_eq!(caller.pace.pause_left(), None);
    }

    #[tokio::test]
    async fn what_is_refused_among_good_answers_pauses_nothing() {
        let refused = (403, "", "");
        let mut answers = vec![(200, "", "{}")];
        answers.extend([refused; 4]);
        answers.push((200, "", "{}"));
        answers.extend([refused; 5]);
        answers.extend([refused; 1]);
        let (caller, script) = caller(&answers);
        for _ in 0..answers.len() - 2 {
            assert_eq!(caller.pace.pause_left(), None);
            assert!(!caller.is_refused());
            drop(ask(&caller).await);
        }
        // The fifth in a row.
        assert!(
            ask(&caller)
                .await
                .is_err_and(|error| !error.said().is_repeated)
        );
        check_pause(&caller, REFUSED_PAUSE);
        assert!(caller.is_refused());
        let unasked = ask(&caller).await.unwrap_err();
        assert!(unasked.said().is_repeated);
        assert_eq!(script.left(), 1);
        // Who was refused is believed at once from then on.
        later(&caller);
        assert!(ask(&caller).await.is_err());
        check_pause(&caller, REFUSED_PAUSE);
    }

    #[tokio::test]
    async fn of_many_only_one_tries_a_refused_account() {
        let (caller, _) = caller(&[(401, "", ""), (500, "", "")]);
        ask(&caller).await.unwrap_err();
        later(&caller);
        let (first, second) = futures::join!(ask(&caller), ask(&caller));
        assert!(matches!(first, Err(ProviderError::Unavailable(_))));
        assert!(matches!(second, Err(ProviderError::Refused { .. })));
        // What came back said nothing about the account.
        assert!(caller.is_refused());
        check_pause(&caller, REFUSED_PAUSE);
    }

    #[tokio::test]
    async fn a_limit_pauses_as_long_as_asked_else_longer_each_time() {
        let (caller, _) = caller(&[
            (429, "7", ""),
            (429, "", ""),
            (429, "", ""),
            (503, "86400", ""),
            (200, "", "{}"),
            (429, "soon", ""),
        ]);
        for seconds in [7, 5, 10, 300] {
            let error = ask(&caller).await.unwrap_err();
            let ProviderError::Limited { until, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(until.since(NOW), Span::from_secs(seconds));
            check_pause(&caller, Span::from_secs(seconds));
            later(&caller);
        }
        assert!(ask(&caller).await.is_ok());
        let error = ask(&caller).await.unwrap_err();
        assert!(matches!(error, ProviderError::Limited { .. }));
        check_pause(&caller, Span::from_secs(5));
    }

    #[tokio::test]
    async fn a_late_answer_neither_lengthens_nor_ends_a_limit() {
        let (caller, _) = caller(&[(429, "", ""), (429, "", ""), (200, "", "{}")]);
        let call = || caller.call(Method::GET, "/v1/x", Bytes::new());
        let (first, second, third) = futures::join!(call(), call(), call());
        assert!(caller.good(&first.unwrap()).is_err());
        assert!(caller.good(&second.unwrap()).is_err());
        assert!(caller.good(&third.unwrap()).is_ok());
        check_pause(&caller, Span::from_secs(5));
        assert!(ask(&caller).await.is_err());
    }

    #[tokio::test]
    async fn an_account_that_is_accepted_again_keeps_to_its_limit() {
        let (caller, _) = caller(&[(429, "300", ""), (401, "", ""), (200, "", "{}")]);
        let call = || caller.call(Method::GET, "/v1/x", Bytes::new());
        let (first, second, third) = futures::join!(call(), call(), call());
        assert!(caller.good(&first.unwrap()).is_err());
        assert!(caller.good(&second.unwrap()).is_err());
        assert!(caller.is_refused());
        assert!(caller.good(&third.unwrap()).is_ok());
        assert!(!caller.is_refused());
        check_pause(&caller, Span::from_secs(300));
        let unasked = ask(&caller).await.unwrap_err();
        assert!(matches!(unasked, ProviderError::Limited { .. }));
    }

    #[tokio::test]
    async fn trouble_that_is_not_ours_pauses_nothing() {
        let (caller, _) = caller(&[
            (500, "", ""),
            (502, "", "<html>"),
            (200, "", "<html>"),
            (302, "", ""),
        ]);
        for expected in ["unavailable", "unavailable", "garbled", "garbled"] {
            assert_eq!(ask(&caller).await.unwrap_err().as_str(), expected);
            assert_eq!(caller.pace.pause_left(), None);
        }
    }
}
