//! Looks at tasks: answered in the provider's words, with links that last where there are any.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body as Outgoing;
use axum::response::IntoResponse as _;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use tokio::time::Instant;
use url::Url;

use crate::http::problem::Problem;
use crate::intake::gateway::Call;
use crate::intake::gateway::Count;
use crate::intake::gateway::Gateway;
use crate::intake::gateway::Served;
use crate::intake::gateway::body;
use crate::intake::gateway::body::Taken;
use crate::intake::gateway::headers;
use crate::intake::gateway::submit;
use crate::intake::gateway::submit::Archiving;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::TaskRecord;
use crate::manifest::row::answer::ServedTask;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetState;
use crate::model::failure::Failure;
use crate::model::links::owners;
use crate::model::task::Progress;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;
use crate::provider::Passing;
use crate::work::settle::MANIFEST_PAUSE;

/// The manifest has this long to say what it knows, and to take what was seen.
const PATIENCE: Duration = Duration::from_secs(2);

/// A caller whose submission was answered with its results waits this long for links that last: most are archived by
/// then, and the most impatient of the clients that do this give an answer half a minute.
const DONE_AT_ONCE_PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked for them.
const DONE_AT_ONCE_LOOK: Duration = Duration::from_millis(250);

impl Gateway {
    /// Answers a look at a task.
    pub(super) async fn look(&self, mut call: Call, id: TaskId, body: Outgoing) -> Response {
        let key = TaskKey {
            provider: call.name.clone(),
            id,
        };
        let known = match self.known(&key).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(task.id = %key.id, error, "a look passes without what the manifest knows");
                return match self.send(&call, body).await {
                    Ok(answer) => body::outgoing(answer),
                    Err(problem) => problem.into_response(),
                };
            }
        };
        if let Some(kept) = self
            .kept(
                &call,
                known.as_ref().filter(|known| is_archived(&known.task)),
            )
            .await
        {
            return kept;
        }
        call.headers.insert(
            header::ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
        // "Not modified" would be about the provider's answer, not about ours.
        call.headers.remove(header::IF_NONE_MATCH);
        call.headers.remove(header::IF_MODIFIED_SINCE);
        match self.ask(&call, &key, known.as_ref(), body).await {
            Ok(response) => response,
            // What is final is known without the provider.
            Err(problem) => match self.kept(&call, known.as_ref()).await {
                Some(kept) => kept,
                None => problem.into_response(),
            },
        }
    }

    async fn ask(
        &self,
        call: &Call,
        key: &TaskKey,
        known: Option<&ServedTask>,
        body: Outgoing,
    ) -> Result<Response, Problem> {
        let answer = self.send(call, body).await?;
        if !headers::is_in_the_open(answer.headers()) {
            return Ok(body::outgoing(answer));
        }
        let (head, body) = answer.into_parts();
        let taken = self.long_answers().take(body).await;
        let (body, _turn) = match taken.map_err(|error| self.no_answer(&call.name, &error))? {
            Taken::Whole(body, turn) => (body, turn),
            Taken::Long(body) => {
                tracing::warn!(task.id = %key.id, "an answer is too long to be read: it passes with links that die");
                return Ok(body::outgoing(http::Response::from_parts(head, body)));
            }
        };
        let passing = call.served.provider.passing(&key.id, head.status, &body);
        let own = known.and_then(|known| known.callback.as_ref());
        let shown = match passing {
            Passing::Task {
                progress,
                results,
                is_without_files,
            } => {
                let is_taken = self.take_hint(call, key, known, progress).await;
                // Who gets a text waits for no link.
                let is_awaited = progress == Progress::Completed && !is_without_files;
                let holds = is_taken && is_awaited && self.holds(key, known);
                self.shown(call, known, progress, &results, &body, holds)
                    .await
            }
            Passing::Gone | Passing::Trouble => {
                if let Some(kept) = self.kept(call, known).await {
                    return Ok(kept);
                }
                submit::without_ours(&call.served, &body, own)
            }
            Passing::Other => submit::without_ours(&call.served, &body, own),
        };
        Ok(body::answered(head, &body, shown))
    }

    /// The answer to a submission as the caller sees it. One that has the results already, since the caller had the
    /// provider wait, waits for links that last. If that takes longer it passes with its own: such a caller does not ask
    /// again, and takes a task that still runs for one that failed.
    pub(super) async fn shown_at_once(
        &self,
        call: &Call,
        key: &TaskKey,
        own: Option<&Url>,
        passing: Passing,
        body: &[u8],
    ) -> Bytes {
        let (done, results) = match passing {
            Passing::Task {
                progress: done @ Progress::Completed,
                results,
                is_without_files: false,
            } => (done, results),
            Passing::Task { .. } | Passing::Gone | Passing::Trouble | Passing::Other => {
                return submit::without_ours(&call.served, body, own);
            }
        };
        let until = Instant::now() + DONE_AT_ONCE_PATIENCE;
        loop {
            let known = self.known(key).await.ok().flatten();
            if !self.holds(key, known.as_ref()) || Instant::now() >= until {
                let known = known.as_ref();
                return self.shown(call, known, done, &results, body, false).await;
            }
            tokio::time::sleep(DONE_AT_ONCE_LOOK).await;
        }
    }

    /// What is known of a task, or why that is not to be had.
    async fn known(&self, key: &TaskKey) -> Result<Option<ServedTask>, String> {
        let reading = self.parts().manifest.served_task(key);
        match tokio::time::timeout(PATIENCE, reading).await {
            Ok(read) => read.map_err(|error| error.to_string()),
            Err(_) => Err("the manifest does not answer".to_owned()),
        }
    }

    /// What was seen in passing is a hint, never believed: our own look finds out. Whether it was taken.
    async fn take_hint(
        &self,
        call: &Call,
        key: &TaskKey,
        known: Option<&ServedTask>,
        progress: Progress,
    ) -> bool {
        let is_over = match progress {
            Progress::Pending | Progress::Running => false,
            Progress::Completed | Progress::Failed | Progress::Cancelled => true,
        };
        let Some(known) = known else {
            let provider = &call.served.provider;
            let archiving = self.remember(provider, key.clone(), None).await;
            return archiving == Archiving::Learned;
        };
        let was_given_up = match known.task.state {
            TaskState::Watching if is_over => false,
            TaskState::Vanished | TaskState::Abandoned => true,
            TaskState::Watching
            | TaskState::Completed
            | TaskState::Failed
            | TaskState::Cancelled => return true,
        };
        let manifest = &self.parts().manifest;
        let taking = async {
            let taken = if was_given_up {
                manifest.revive(key).await.map(drop)
            } else {
                manifest.hear(key).await.map(drop)
            };
            taken.map_err(|error| error.to_string())
        };
        let error = match tokio::time::timeout(PATIENCE, taking).await {
            Ok(Ok(())) => {
                self.parts().watch.poke();
                return true;
            }
            Ok(Err(error)) => error,
            Err(_) => "the manifest does not answer".to_owned(),
        };
        tracing::warn!(task.id = %key.id, error, "a hint was not taken");
        false
    }

    /// Whether a completed task is told as running for now. Not where that could be for long: a look of our own that
    /// failed, an asset that is given up, the end of the time that is configured. As long as no look of our own has found it
    /// completed, that time is counted from the first answer that told us so.
    fn holds(&self, key: &TaskKey, known: Option<&ServedTask>) -> bool {
        let (hold, now) = (self.parts().config.hold, self.parts().clock.now());
        let is_within = || self.held_back().is_within(key, now, hold);
        let Some(known) = known else {
            return is_within();
        };
        let task = &known.task;
        let is_due = |asset: &AssetRecord| asset.state == AssetState::Due;
        match task.state {
            TaskState::Watching => task.error.is_none() && is_within(),
            TaskState::Completed => {
                let since = known.over_since.or(task.completed_at);
                let since = since.unwrap_or(task.learned_at);
                task.assets.iter().any(is_due) && now.since(since) < hold
            }
            TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Vanished
            | TaskState::Abandoned => false,
        }
    }

    /// The provider's answer as the caller sees it.
    async fn shown(
        &self,
        call: &Call,
        known: Option<&ServedTask>,
        progress: Progress,
        results: &[Url],
        body: &[u8],
        holds: bool,
    ) -> Bytes {
        let provider = &call.served.provider;
        let own = known.and_then(|known| known.callback.as_ref());
        let body = submit::without_ours(&call.served, body, own);
        let Some(known) = known.filter(|_| progress == Progress::Completed) else {
            let is_held = holds && progress == Progress::Completed;
            return if is_held {
                provider.held_back(&body).into()
            } else {
                body
            };
        };
        if holds {
            return provider.held_back(&body).into();
        }
        match self
            .with_links(&call.served, &known.task, results, &body)
            .await
        {
            Ok(linked) => linked.into(),
            Err(error) => {
                tracing::warn!(task.id = %known.task.key.id, error, "no links that last can be made now");
                body
            }
        }
    }

    async fn with_links(
        &self,
        served: &Served,
        task: &TaskRecord,
        results: &[Url],
        body: &[u8],
    ) -> Result<Vec<u8>, String> {
        let has_any = task
            .assets
            .iter()
            .any(|asset| asset.state == AssetState::Archived);
        if !has_any {
            return Ok(body.to_vec());
        }
        let links = (self.parts().links)(task.clone()).await?;
        let assets = assets_of(results, &task.assets);
        let mut link = |url: &Url| links.get(assets.get(url)?).cloned();
        Ok(served.provider.relink(body, &mut link))
    }

    /// What the caller of a task's callback is told, in its provider's words; nothing where they were not kept.
    pub async fn told(&self, task: TaskRecord) -> Result<Option<Bytes>, Failure> {
        let Some(served) = self.parts().providers.get(&task.key.provider) else {
            return Ok(None);
        };
        let known = self.parts().manifest.served_task(&task.key).await;
        let known = known.map_err(|error| {
            let soon = self.parts().clock.now().plus(MANIFEST_PAUSE);
            Failure::wait_until(soon, "no answer to send").because(error)
        })?;
        let Some(known) = known else { return Ok(None) };
        let Some(answer) = known.answer.clone() else {
            return Ok(None);
        };
        let passing = served
            .provider
            .passing(&task.key.id, StatusCode::OK, &answer);
        let Passing::Task { results, .. } = passing else {
            return Ok(None);
        };
        let own = known.callback.as_ref();
        let body = submit::without_ours(served, &answer, own);
        let linked = self.with_links(served, &known.task, &results, &body).await;
        let linked = linked.map_err(|error| Failure::retry("no links to send").because(error))?;
        Ok(Some(linked.into()))
    }

    /// The answer that the provider once gave about a final task, for whoever may see what our own key may see.
    async fn kept(&self, call: &Call, known: Option<&ServedTask>) -> Option<Response> {
        let known = known.filter(|known| call.is_ours && known.task.state.is_final())?;
        let answer = known.answer.as_ref()?;
        let provider = &call.served.provider;
        let passing = provider.passing(&known.task.key.id, StatusCode::OK, answer);
        let Passing::Task {
            progress, results, ..
        } = passing
        else {
            return None;
        };
        let shown = self
            .shown(
                call,
                Some(known),
                progress,
                &results,
                answer,
                self.holds(&known.task.key, Some(known)),
            )
            .await;
        self.parts().counts.add(Count::Kept);
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(headers::ARCHIVING, HeaderValue::from_static("kept"));
        Some((headers, shown).into_response())
    }
}

/// Whether every asset of a completed task is safe.
fn is_archived(task: &TaskRecord) -> bool {
    task.state == TaskState::Completed
        && !task.assets.is_empty()
        && task
            .assets
            .iter()
            .all(|asset| asset.state == AssetState::Archived)
}

/// Which asset each link of an answer belongs to. Where there are as many links as assets, each is that at its place.
fn assets_of(results: &[Url], assets: &[AssetRecord]) -> BTreeMap<Url, AssetIndex> {
    let known: Vec<_> = assets.iter().map(|it| (it.index, &it.url)).collect();
    let owners = owners(results, &known, |_| results.len() == assets.len());
    let owned = results.iter().zip(owners);
    let owned = owned.filter_map(|(url, owner)| {
        let (at, _) = owner?;
        Some((url.clone(), known.get(at)?.0))
    });
    // Of a link that is told twice the first owner counts.
    owned.rev().collect()
}
