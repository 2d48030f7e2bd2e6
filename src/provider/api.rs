//! The task API itself: asks how its tasks stand, one at a time or in batches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Once;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use serde_json::Value;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::Http;
use crate::http::pace::Pace;
use crate::model::task::Progress;
use crate::model::task::ProviderName;
use crate::model::task::Sighting;
use crate::model::task::TaskError;
use crate::model::task::TaskId;
use crate::provider::Config;
use crate::provider::answer::text;
use crate::provider::call::Answer;
use crate::provider::call::Caller;
use crate::provider::connect::Account;
use crate::provider::connect::ConnectError;
use crate::provider::description::Description;
use crate::provider::description::identity::Names;
use crate::provider::description::many::Batch;
use crate::provider::description::path::escape_segments;
use crate::provider::description::path::escape_word;
use crate::provider::description::results::Call;
use crate::provider::description::results::DownloadAuth;
use crate::provider::error::ProviderError;
use crate::provider::hook::Hook;
use crate::provider::hook::HookError;
use crate::provider::hook::HookSaid;
use crate::provider::rewrite;
use crate::telemetry::metrics::Metrics;
use crate::units::Span;

/// Looks in flight at once where there is no batch; the pace holds besides.
const LOOKS_AT_ONCE: usize = 8;

/// Where there is no batch call it is looked for again after this, as with lists: a proxy or a deploy may have answered.
const NO_BATCH_PAUSE: Span = Span::from_secs(86_400);

/// The task that `check_key` asks for where no free call is described: no provider makes such an ID.
const MADE_UP_TASK: &str = "reelvault-key-check";

/// A configured account at a task API. A clone is the same account, with the same pace.
#[derive(Clone, Debug)]
pub struct Provider(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) caller: Caller,
    hosts: Vec<String>,
    allow_private: bool,
    ttl: Span,
    /// Whether the last answer about a task that is over is wanted whole.
    pub(super) keeps_answers: bool,
    pub(super) hook: Option<Hook>,
    /// After the provider said that it knows no batch call, as long as it is not asked for one.
    no_batch: Pace,
    /// Whether it was said that a page of its list is elsewhere.
    pub(super) leads_away: Once,
}

/// What a look at a task gave.
pub type Look = Result<Sighting, ProviderError>;

impl Provider {
    /// Divides the account's pace among so many machines, of which this is one.
    pub fn share_among(&self, machines: u32) {
        self.0.caller.pace.share_among(machines);
    }

    /// Counts what is asked of this account from now on into `metrics`; the first word counts.
    pub fn report_to(&self, metrics: &Metrics) {
        self.0.caller.metrics.get_or_init(|| metrics.clone());
    }

    /// Reads the description and the key of `[provider.NAME]`, taking variables through `env`; calls nobody.
    pub fn connect(
        name: ProviderName,
        config: &Config,
        default_ttl: Span,
        http: Http,
        clock: Clock,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Provider, ConnectError> {
        let account = Account::read(name, config, env)?;
        let Description {
            results,
            limits,
            webhook,
            ..
        } = &account.description;
        let hook = Hook::read(&account.name, config, webhook.as_ref(), &http, env)?;
        let pace = Pace::new(config.requests.or(limits.requests));
        let ttl = config.output_ttl.or(results.ttl).unwrap_or(default_ttl);
        let hosts = results.hosts.iter().map(ToString::to_string).collect();
        Ok(Self(Arc::new(Inner {
            caller: Caller::new(account, pace, http, clock),
            hosts,
            allow_private: config.allow_private,
            ttl,
            keeps_answers: config.gateway,
            hook,
            no_batch: Pace::new(None),
            leads_away: Once::new(),
        })))
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &ProviderName {
        &self.0.caller.account.name
    }

    /// How long a result link lives after completion.
    pub fn ttl(&self) -> Span {
        self.0.ttl
    }

    /// Whether another look may give a fresh link for an old result.
    pub fn refreshes(&self) -> bool {
        self.description().results.refresh
    }

    /// The shortest time between two looks at one task of `kind`; of a kind not described, the longest of all.
    pub fn min_interval(&self, kind: Option<&str>) -> Span {
        let intervals = &self.description().limits.min_interval;
        let known = kind.and_then(|kind| intervals.get(kind));
        let interval = known.or_else(|| intervals.values().max());
        interval.copied().unwrap_or_default()
    }

    /// How many calls can be made within `span`, one after the other at the account's pace; `None` without a pace.
    pub fn calls_within(&self, span: Span) -> Option<usize> {
        self.0.caller.pace.turns_within(span)
    }

    /// How many tasks one call can ask about, as far as is known: a batch call that is described may turn out not to be
    /// there.
    pub fn batch_max(&self) -> usize {
        let batch = self.description().batch.as_ref();
        let batch = batch.filter(|_| self.has_batch());
        batch.map_or(1, |batch| batch.max.get())
    }

    /// The hosts that result links may be on, `*.example.com` for all below; empty = any.
    pub fn hosts(&self) -> &[String] {
        &self.0.hosts
    }

    /// Whether its API and its result links may be plain http and on private addresses.
    pub fn allow_private(&self) -> bool {
        self.0.allow_private
    }

    /// What a download must send along: nothing, unless the description says that media hosts need the key. Then it
    /// is never to reach a host that [`Provider::hosts`] does not list, by a redirect least of all.
    pub fn download_headers(&self) -> HeaderMap {
        match self.description().results.download_auth {
            DownloadAuth::Same => self.0.caller.account.auth_header(),
            DownloadAuth::None => HeaderMap::new(),
        }
    }

    /// Until when no call is made: the provider said so, or it does not accept the account.
    pub fn paused_until(&self) -> Option<Timestamp> {
        let left = self.0.caller.pace.pause_left()?;
        Some(self.0.caller.clock.now().plus(left))
    }

    /// What the provider answered when it last refused the account, where it has not been accepted since.
    pub fn refusal(&self) -> Option<String> {
        self.0.caller.refusal()
    }

    /// Whether `token` is one of those in the address of its webhooks; none is where they are not taken.
    pub fn is_hook_token(&self, token: &str) -> bool {
        self.0
            .hook
            .as_ref()
            .is_some_and(|hook| hook.is_token(token))
    }

    /// The path of the address to hand to the provider, token included; none where webhooks are not taken.
    pub fn hook_path(&self) -> Option<String> {
        self.0.hook.as_ref()?.path(self.name())
    }

    /// Judges a callback, whose address had a token of ours, and reads which task it is about.
    pub async fn read_hook(&self, headers: &HeaderMap, body: &[u8]) -> Result<HookSaid, HookError> {
        let Some(hook) = &self.0.hook else {
            return Err(HookError::Forged("webhooks are not taken".to_owned()));
        };
        let said = hook.judge(headers, body, self.0.caller.clock.now()).await?;
        if let Some(id) = &said.id {
            self.check_id(id).map_err(HookError::Garbled)?;
        }
        Ok(said)
    }

    /// Whether `id` can be a task of this provider; the error says what its task IDs look like.
    pub fn check_id(&self, id: &TaskId) -> Result<(), String> {
        self.description().id.split(id).map(|_| ())
    }

    /// Asks how one task stands.
    pub async fn look(&self, id: &TaskId) -> Result<Sighting, ProviderError> {
        let caller = &self.0.caller;
        let names = self.description().id.split(id);
        let names = names.map_err(|what| caller.no_such_task(None, what))?;
        let path = self.description().status.path.fill(|name| names.at(name));
        let path = path.map_err(|place| caller.garbled(None, unknown_place(place)))?;
        let answer = caller.call(Method::GET, &path, Bytes::new()).await?;
        let value = caller.good(&answer)?;
        let read = caller.reader().sighting(&value, &names);
        let sighting = read.map_err(|amiss| caller.amiss(answer.status, amiss))?;
        let sighting = match &self.description().results.call {
            Some(call) if sighting.progress == Progress::Completed => {
                // Boxed: most looks find a task that runs on.
                Box::pin(self.call_results(call, &value, &names, sighting)).await?
            }
            Some(_) | None => sighting,
        };
        Ok(self.with_answer(sighting, &answer.body))
    }

    /// Asks for the results of a task that has completed, or learns that it has failed after all.
    async fn call_results(
        &self,
        call: &Call,
        value: &Value,
        names: &Names<'_, '_>,
        mut sighting: Sighting,
    ) -> Result<Sighting, ProviderError> {
        let caller = &self.0.caller;
        let reader = caller.reader();
        let task = reader.task(value);
        let task = task.map_err(|amiss| caller.amiss(StatusCode::OK, amiss))?;
        let told = |name: &str| {
            let value = text(call.values.get(name)?, &task)?;
            escape_word(&value)
        };
        let path = call.path.fill(|name| names.at(name).or_else(|| told(name)));
        let path = path.map_err(|place| caller.garbled(None, unknown_place(place)))?;
        let answer = caller.call(Method::GET, &path, Bytes::new()).await?;
        let words = caller.words(&answer);
        let is_failed = |code: &String| call.failed.contains(code);
        if call.failed_http.contains(&answer.status.as_u16())
            || words.code.as_ref().is_some_and(is_failed)
        {
            sighting.progress = Progress::Failed;
            sighting.completed = None;
            sighting.error = Some(TaskError {
                code: words.code.unwrap_or_default(),
                message: words.message.unwrap_or_default(),
            });
            return Ok(sighting);
        }
        let value = caller.good(&answer)?;
        let links = caller.reader().links(&value, sighting.kind.as_deref());
        let links = links.map_err(|amiss| caller.amiss(answer.status, amiss))?;
        sighting.results = links.into_iter().map(|(link, _)| link).collect();
        sighting.is_without_files = caller.reader().has_no_files(&value, &sighting.results);
        Ok(sighting)
    }

    /// Asks how several tasks stand, in batches where the provider has them. Gives a look for each of `ids`, in their
    /// order; none for those that a batch does not tell of, since a single one of them costs what a whole batch does.
    pub async fn look_many(&self, ids: &[&TaskId]) -> Vec<Option<Look>> {
        let mut looks = Vec::with_capacity(ids.len());
        match &self.description().batch {
            Some(batch) => {
                for some in ids.chunks(batch.max.get()) {
                    looks.extend(self.look_chunk(batch, some).await);
                }
            }
            None => looks.extend(self.look_each(ids).await.into_iter().map(Some)),
        }
        looks
    }

    /// Makes a call that only a valid key can make, and says in a few words what came of it.
    pub async fn check_key(&self) -> Result<String, ProviderError> {
        let caller = &self.0.caller;
        if let Some(check) = &self.description().check {
            let path = check.path.as_str();
            let answer = caller.call(Method::GET, path, Bytes::new()).await?;
            if !is_no_such_call(answer.status) {
                caller.good(&answer)?;
                return Ok(format!("the key is accepted: {path} answered"));
            }
        }
        let Some(made_up) = self.description().id.example(MADE_UP_TASK) else {
            return Ok("the key is not tried: no free call is described".to_owned());
        };
        match self.look(&made_up).await {
            Ok(_) => Ok("the key is accepted: it may read tasks".to_owned()),
            Err(ProviderError::NoSuchTask(_)) => {
                Ok("the key is accepted: a made-up task was not found".to_owned())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn description(&self) -> &Description {
        &self.0.caller.account.description
    }

    /// As many as fit into one batch. Nothing is told of what a batch leaves out or garbles, since only a look at the task
    /// itself proves anything. Where the batch fails, which is not documented everywhere, a single look tells whether it is
    /// the provider that fails.
    async fn look_chunk(&self, batch: &Batch, ids: &[&TaskId]) -> Vec<Option<Look>> {
        if ids.len() < 2 || !self.has_batch() {
            return self.look_each(ids).await.into_iter().map(Some).collect();
        }
        // The one call a minute that a refused account is granted is a single look: only that can end the refusal.
        let seen = if self.0.caller.is_refused() {
            None
        } else {
            match self.look_batch(batch, ids).await {
                Err(error @ ProviderError::Limited { .. }) => {
                    return unasked(ids, &error).map(Some).collect();
                }
                answer => answer.ok(),
            }
        };
        if let Some(seen) = seen {
            return ids.iter().map(|id| seen.get(id).cloned().map(Ok)).collect();
        }
        let (first, rest) = ids.split_at(1);
        let mut looks = self.look_each(first).await;
        let failure = looks.iter().find_map(|look| look.as_ref().err());
        match failure
            .filter(|error| self.keeps_from_asking(error))
            .cloned()
        {
            Some(error) => {
                looks.extend(unasked(rest, &error));
                looks.into_iter().map(Some).collect()
            }
            None => {
                let untold = rest.iter().map(|_| None);
                looks.into_iter().map(Some).chain(untold).collect()
            }
        }
    }

    /// The tasks among `ids` that the batch tells of.
    async fn look_batch<'i>(
        &self,
        batch: &Batch,
        ids: &[&'i TaskId],
    ) -> Result<BTreeMap<&'i TaskId, Sighting>, ProviderError> {
        let mut seen = BTreeMap::new();
        let caller = &self.0.caller;
        let list: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
        let (method, body) = match &batch.ids {
            Some(name) => {
                let body = serde_json::json!({ name.as_str(): list }).to_string();
                (Method::POST, Bytes::from(body))
            }
            None => (Method::GET, Bytes::new()),
        };
        let listed = || {
            list.iter()
                .copied()
                .map(escape_segments)
                .collect::<Vec<_>>()
                .join(",")
        };
        let path = batch.path.fill(|_| Some(listed()));
        let path = path.map_err(|place| caller.garbled(None, unknown_place(place)))?;
        let answer = caller.call(method, &path, body).await?;
        if is_no_such_call(answer.status) && !self.is_of_tasks(&answer) {
            // Several calls may be under way: it is said once.
            if self.has_batch() {
                tracing::info!(provider = %self.name(), status = answer.status.as_u16(), "no batch call is there: tasks are asked about one by one for {NO_BATCH_PAUSE}");
            }
            self.0.no_batch.pause_for(NO_BATCH_PAUSE);
        }
        if !answer.status.is_success() && answer.status != StatusCode::TOO_MANY_REQUESTS {
            // Told to nobody, and no pause either: the single looks that follow decide what is wrong.
            return Err(caller.garbled(Some(answer.status), "no batch".to_owned()));
        }
        let value = caller.good(&answer)?;
        let reader = caller.reader();
        // Where each task stands in the answer, in the same order.
        let mut places = rewrite::places(&answer.body, &batch.tasks).into_iter();
        // A row without its envelope is not what a look would have been answered: those that are over are looked at singly.
        let is_bare = self.0.keeps_answers && self.description().status.task.is_some();
        let see = |task: &Value| {
            let place = places.next();
            let told = reader.id(task);
            let asked = told.and_then(|told| ids.iter().find(|id| id.as_str() == told));
            if let Some(id) = asked
                && let Ok(names) = self.description().id.split(id)
                && let Ok(sighting) = reader.sighting_of(task, &names)
                && !(is_bare && is_over(sighting.progress))
            {
                // Values know no order of members, so that another task may stand at a place of an object.
                let text = place.and_then(|place| answer.body.get(place));
                let is_it = |text: &&[u8]| {
                    serde_json::from_slice(text).is_ok_and(|said: Value| said == *task)
                };
                let sighting = self.with_answer(sighting, text.filter(is_it).unwrap_or_default());
                seen.entry(*id).or_insert(sighting);
            }
        };
        let all = batch.tasks.each(&value, see);
        all.map_err(|error| caller.garbled(Some(answer.status), error.to_string()))?;
        Ok(seen)
    }

    /// Whether the provider has a batch call, as far as it has said.
    fn has_batch(&self) -> bool {
        self.0.no_batch.pause_left().is_none()
    }

    /// Whether an answer says by its code that it knows none of the tasks, not that it has no such call.
    fn is_of_tasks(&self, answer: &Answer) -> bool {
        let code = self.0.caller.words(answer).code;
        let gone = &self.description().status.error.gone;
        code.is_some_and(|code| gone.contains(&code))
    }

    /// The sighting with the answer that it was read from, where the task is over and the answer is wanted.
    fn with_answer(&self, sighting: Sighting, body: &[u8]) -> Sighting {
        let is_over = is_over(sighting.progress);
        let answer = self.keepable(body).filter(|_| is_over && !body.is_empty());
        Sighting { answer, ..sighting }
    }

    /// Whether it is no use to ask about others now. A refusal may be one task's alone: then the provider is not paused.
    fn keeps_from_asking(&self, error: &ProviderError) -> bool {
        match error {
            ProviderError::Unavailable(_) => true,
            ProviderError::Refused { .. } | ProviderError::Limited { .. } => {
                self.0.caller.pace.pause_left().is_some()
            }
            ProviderError::NoSuchTask(_) | ProviderError::Garbled(_) => false,
        }
    }

    /// Asks how each of several tasks stands, one by one. The first goes ahead alone: what keeps us from hearing about it may
    /// keep us from hearing about any, so that the others are not asked, and what it was told is marked as not said to them.
    pub async fn look_each(&self, ids: &[&TaskId]) -> Vec<Look> {
        let Some((first, rest)) = ids.split_first() else {
            return Vec::new();
        };
        let look = self.look(first).await;
        if let Err(error) = &look
            && self.keeps_from_asking(error)
        {
            let rest: Vec<Look> = unasked(rest, error).collect();
            return std::iter::once(look).chain(rest).collect();
        }
        let looks: Vec<OnceLock<Look>> = rest.iter().map(|_| OnceLock::new()).collect();
        // A look is a large future: a few that go from task to task cost less than one made for each.
        let next = AtomicUsize::new(0);
        let walk = async || {
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let (Some(id), Some(seen)) = (rest.get(place), looks.get(place)) else {
                    return;
                };
                let look = self.look(id).await;
                seen.get_or_init(|| look);
            }
        };
        let walks = (0..LOOKS_AT_ONCE.min(rest.len())).map(|_| walk());
        walks.collect::<FuturesUnordered<_>>().collect::<()>().await;
        let looks = looks.into_iter().filter_map(OnceLock::into_inner);
        std::iter::once(look).chain(looks).collect()
    }
}

/// What those are told that are not asked.
fn unasked(ids: &[&TaskId], error: &ProviderError) -> impl Iterator<Item = Look> {
    ids.iter().map(|_| Err(error.clone().repeated()))
}

fn is_over(progress: Progress) -> bool {
    match progress {
        Progress::Pending | Progress::Running => false,
        Progress::Completed | Progress::Failed | Progress::Cancelled => true,
    }
}

fn unknown_place(place: &str) -> String {
    format!("the answer does not tell what {{{place}}} of the next path is")
}

/// Whether the API does not have the call at all.
pub(super) fn is_no_such_call(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::call::tests::caller;

    const TASK: &str = r#"{"id":"a","status":"pending"}"#;
    const OTHER: &str = r#"{"id":"b","status":"pending"}"#;

    fn provider(caller: Caller) -> Provider {
        Provider(Arc::new(Inner {
            caller,
            hosts: Vec::new(),
            allow_private: false,
            ttl: Span::ZERO,
            keeps_answers: false,
            hook: None,
            no_batch: Pace::new(None),
            leads_away: Once::new(),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_call_that_is_not_there_is_looked_for_again_in_a_day() {
        let unknown = r#"{"error":{"code":"task_not_found"}}"#;
        let answers = [
            (404, "", unknown),
            (200, "", TASK),
            (404, "", ""),
            (200, "", TASK),
            (200, "", TASK),
            (200, "", OTHER),
            (404, "", ""),
            (200, "", TASK),
        ];
        let (caller, script) = caller(&answers);
        let provider = provider(caller);
        let ids = ["a", "b"].map(|id| id.parse::<TaskId>().unwrap());
        let ids: Vec<&TaskId> = ids.iter().collect();
        let check = async |has_batch: bool, left: usize| {
            let told = provider.look_many(&ids).await.into_iter().flatten();
            assert_eq!(told.count(), if has_batch { 1 } else { 2 });
            assert_eq!(script.left(), left);
        };
        // None of these tasks is known: the call itself is.
        check(true, 6).await;
        check(true, 4).await;
        assert_eq!(provider.batch_max(), 1);
        check(false, 2).await;
        tokio::time::advance(NO_BATCH_PAUSE.as_duration()).await;
        assert_eq!(provider.batch_max(), 50);
        check(true, 0).await;
    }

    /// A batch call that always fails must not use up the one call a minute that a refused account has.
    #[tokio::test]
    async fn a_refused_account_is_tried_with_a_single_look() {
        let answers = [
            (403, "", ""),
            (403, "", ""),
            (200, "", TASK),
            (200, "", OTHER),
        ];
        let (caller, script) = caller(&answers);
        let provider = provider(caller);
        let ids = ["a", "b"].map(|id| id.parse::<TaskId>().unwrap());
        let ids: Vec<&TaskId> = ids.iter().collect();
        let refused = provider.look_many(&ids).await;
        let is_refused = |error: &ProviderError| matches!(error, ProviderError::Refused { .. });
        assert!(
            refused
                .iter()
                .all(|look| matches!(look, Some(Err(error)) if is_refused(error)))
        );
        assert_eq!(script.left(), 2);
        provider.0.caller.pace.resume();
        let accepted = provider.look_many(&ids).await;
        assert!(matches!(accepted[..], [Some(Ok(_)), None]));
        assert_eq!(script.left(), 1);
    }
}
