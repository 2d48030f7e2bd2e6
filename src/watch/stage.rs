//! The stage itself: claims due tasks, asks their provider in one call where it can, and writes what it said.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::ClaimedTask;
use crate::manifest::row::Observation;
use crate::manifest::row::SeenAsset;
use crate::manifest::row::TaskSettlement;
use crate::model::deadline;
use crate::model::failure::Failure;
use crate::model::lease::Lease;
use crate::model::task::Progress;
use crate::model::task::ProviderName;
use crate::model::task::Sighting;
use crate::model::task::TaskId;
use crate::model::task::TaskState;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::units::Span;
use crate::watch::Config;
use crate::watch::cadence;
use crate::watch::route::Routes;
use crate::work::driver::Stage;
use crate::work::settle::Situation;
use crate::work::settle::decide;
use crate::work::settle::write_patiently;
use crate::work::wake::Wake;

/// Looks that come due within this are claimed, asked and written together: no look has to be that punctual, and each
/// claim and each commit costs as much for one task as for hundreds.
const REST: Span = Span::from_millis(250);

/// Tasks asked about in one step: what the batch calls of providers take.
const BATCH_MAX: usize = 50;

/// Answers of "no such task" in a row that are believed, for a task that was never seen.
const MISSES_BELIEVED: u32 = 3;

/// The shortest time over which those answers must be spread: a task may be asked about before the provider lists it.
const MISSES_SPREAD: Span = Span::from_secs(600);

/// The wait after such an answer.
const MISS_PAUSE: Span = Span::from_secs(200);

/// The watch stage.
pub struct Watch {
    /// Where work is claimed and recorded.
    pub manifest: Manifest,
    /// The task APIs.
    pub providers: BTreeMap<ProviderName, Provider>,
    /// Where assets go.
    pub routes: Routes,
    /// `[poll]`
    pub config: Config,
    /// Wall time.
    pub clock: Clock,
    /// For jitter.
    pub dice: Dice,
    /// Tells `archive` of new assets.
    pub archive: Wake,
}

/// Tasks of one provider, asked about together.
#[derive(Debug)]
pub struct Batch {
    provider: ProviderName,
    tasks: Vec<ClaimedTask>,
}

impl Stage for Watch {
    type Work = Batch;

    const NAME: &'static str = "watch";

    const TABLE: Claimable = Claimable::Tasks;

    const REST: Span = REST;

    async fn claim(&self, most: usize) -> Result<Vec<Batch>, ManifestError> {
        let now = self.clock.now();
        let is_paused =
            |provider: &&Provider| provider.paused_until().is_some_and(|until| until > now);
        let paused: Vec<ProviderName> = self
            .providers
            .values()
            .filter(is_paused)
            .map(|provider| provider.name().clone())
            .collect();
        let tasks = self
            .manifest
            .claim_tasks(most.saturating_mul(BATCH_MAX), &paused)
            .await?;
        Ok(batches(tasks))
    }

    fn leases(batch: &Batch) -> Vec<Lease> {
        batch.tasks.iter().map(|task| task.lease).collect()
    }

    fn span(batch: &Batch) -> tracing::Span {
        tracing::error_span!("watch", provider.name = %batch.provider)
    }

    async fn step(&self, batch: &Batch, stop: &CancellationToken) -> Result<(), Failure> {
        let Some(provider) = self.providers.get(&batch.provider) else {
            // Claims pass over it from now on, and another machine may have it.
            let what = format!("provider {} is not configured here", batch.provider);
            return Err(Failure::wait_until(self.clock.now(), what));
        };
        let ids: Vec<TaskId> = batch.tasks.iter().map(|task| task.key.id.clone()).collect();
        let answers = tokio::select! {
            () = stop.cancelled() => return Err(Failure::drained()),
            answers = provider.look_many(&ids) => answers,
        };
        let mut seen = Vec::with_capacity(batch.tasks.len());
        let mut unseen = Vec::new();
        for (task, (_, answer)) in batch.tasks.iter().zip(answers) {
            match answer {
                Ok(sighting) => seen.push((task.lease, self.read(provider, task, sighting))),
                Err(error) => unseen.push((task, error)),
            }
        }
        self.observe(batch, seen).await;
        for (task, error) in unseen {
            self.settle_error(task, &error).await;
        }
        Ok(())
    }

    async fn settle(&self, batch: &Batch, failure: Failure) {
        for task in &batch.tasks {
            self.settle_failure(task, &failure, false).await;
        }
    }
}

impl Watch {
    /// Writes all that a call told in one transaction.
    async fn observe(&self, batch: &Batch, seen: Vec<(Lease, Observation)>) {
        if seen.is_empty() {
            return;
        }
        let written = write_patiently(&self.dice, || self.manifest.observe_all(&seen));
        let outcomes = match written.await {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let tasks = seen.len();
                tracing::error!(tasks, %error, "failed to write sightings; the leases run out by themselves");
                return;
            }
        };
        if seen
            .iter()
            .any(|(_, observation)| !observation.assets.is_empty())
        {
            self.archive.poke();
        }
        for ((lease, _), outcome) in seen.iter().zip(outcomes) {
            if let Err(error) = outcome {
                let task = batch.tasks.iter().find(|task| task.lease == *lease);
                let id = task.map(|task| task.key.id.as_str());
                tracing::error!(task.id = id, %error, "failed to write a sighting");
            }
        }
    }

    /// What a sighting means for the task's row.
    fn read(&self, provider: &Provider, task: &ClaimedTask, sighting: Sighting) -> Observation {
        if sighting.is_unknown_status {
            tracing::warn!(task.id = %task.key.id, status = %sighting.status, "unknown status, taken as running");
        }
        let now = self.clock.now();
        let mut state = task
            .state
            .after(sighting.progress, !sighting.results.is_empty());
        let born = sighting
            .created
            .or(task.created_at)
            .unwrap_or(task.learned_at);
        if state == TaskState::Watching && now.since(born) > self.config.give_up {
            state = TaskState::Abandoned;
        }
        let is_completed = sighting.progress == Progress::Completed;
        let wait = cadence::next_look(
            &cadence::Known {
                age: now.since(born),
                estimate: sighting.estimate,
                min_interval: provider.min_interval(sighting.kind.as_deref()),
                is_completed,
            },
            &self.config,
            self.dice.fraction(),
        );
        let known = deadline::Known {
            expires: sighting.expires,
            signature: None,
            completed: sighting.completed,
            created: sighting.created.or(task.created_at),
            last_unfinished: if is_completed {
                task.last_unfinished_at
            } else {
                Some(now)
            },
            learned: task.learned_at,
            ttl: provider.ttl(),
        };
        let assets = assets(&sighting, &known);
        let earliest = assets
            .iter()
            .map(|asset| asset.deadline)
            .min_by_key(|deadline| deadline.at);
        let objects = if assets.is_empty() {
            Vec::new()
        } else {
            let model = sighting.model.as_deref().or(task.model.as_deref());
            self.routes.plan(&task.key.provider, model, &task.tags)
        };
        let observation = Observation {
            state,
            deadline: earliest.unwrap_or_else(|| deadline::deadline(&known)),
            next_look_at: (!state.is_final()).then(|| now.plus(wait)),
            assets,
            objects,
            sighting,
        };
        Self::log_end(task, &observation);
        observation
    }

    fn log_end(task: &ClaimedTask, observation: &Observation) {
        let (id, state) = (&task.key.id, observation.state);
        match state {
            TaskState::Watching => {}
            TaskState::Completed if task.state == TaskState::Completed => {}
            TaskState::Completed => {
                let assets = observation.assets.len();
                tracing::info!(task.id = %id, assets, deadline = %observation.deadline.at, "completed");
            }
            TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Vanished
            | TaskState::Abandoned => {
                let error = observation.sighting.error.clone().unwrap_or_default();
                tracing::warn!(task.id = %id, %state, code = error.code, message = error.message, "ended");
            }
        }
    }

    async fn settle_error(&self, task: &ClaimedTask, error: &ProviderError) {
        let failure = match error {
            ProviderError::Refused { until, .. } | ProviderError::Limited { until, .. } => {
                Failure::wait_until(*until, error.to_string())
            }
            ProviderError::NoSuchTask(_) => {
                let next = self.clock.now().plus(MISS_PAUSE);
                Failure::wait_until(
                    next,
                    format!("provider {} knows no such task", task.key.provider),
                )
            }
            ProviderError::Unavailable { .. } | ProviderError::Garbled { .. } => {
                Failure::retry(error.to_string())
            }
        };
        self.settle_failure(
            task,
            &failure,
            matches!(error, ProviderError::NoSuchTask(_)),
        )
        .await;
    }

    async fn settle_failure(&self, task: &ClaimedTask, failure: &Failure, is_miss: bool) {
        let now = self.clock.now();
        let situation = Situation {
            now,
            attempts: task.attempts,
            urgent_until: Some(task.deadline.at),
        };
        let settled = decide(failure.verdict(), situation, &self.dice);
        let state = self.end(task, is_miss, now);
        // A completed task was asked for a fresh link: an asset may be waiting for the answer. "No such task" is one.
        let is_awaited = match state {
            TaskState::Watching => true,
            TaskState::Completed => !is_miss,
            TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Vanished
            | TaskState::Abandoned => false,
        };
        let next_look_at = settled.due_at.filter(|_| is_awaited);
        tracing::warn!(task.id = %task.key.id, %failure, %state, "no answer about a task");
        let settlement = TaskSettlement {
            state,
            next_look_at,
            error: Some(failure.to_string()),
            is_attempt: settled.is_attempt,
            is_miss,
        };
        let written = write_patiently(&self.dice, || {
            self.manifest.settle_task(&task.lease, settlement.clone())
        });
        if let Err(error) = written.await {
            tracing::error!(task.id = %task.key.id, %error, "failed to settle; the lease runs out by itself");
        }
    }

    /// The state after a look without a sighting.
    fn end(&self, task: &ClaimedTask, is_miss: bool, now: Timestamp) -> TaskState {
        let known_for = now.since(task.learned_at);
        let never_seen = task.looks == 0;
        let misses = task.misses.saturating_add(1);
        let is_ours = self.providers.contains_key(&task.key.provider);
        if task.state != TaskState::Watching || !is_ours {
            return task.state;
        }
        if is_miss && never_seen && misses >= MISSES_BELIEVED && known_for >= MISSES_SPREAD {
            return TaskState::Vanished;
        }
        if known_for > self.config.give_up {
            TaskState::Abandoned
        } else {
            TaskState::Watching
        }
    }
}

/// The results of a completed task, each with its deadline; until then whatever looks like a result is none.
fn assets(sighting: &Sighting, known: &deadline::Known) -> Vec<SeenAsset> {
    let is_completed = sighting.progress == Progress::Completed;
    let results = sighting.results.iter().filter(|_| is_completed);
    results
        .map(|link| {
            let known = deadline::Known {
                signature: link.expires,
                ..*known
            };
            SeenAsset {
                link: link.clone(),
                deadline: deadline::deadline(&known),
            }
        })
        .collect()
}

/// Groups claimed tasks by provider, each group no larger than a batch, the most urgent first.
fn batches(tasks: Vec<ClaimedTask>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for task in tasks {
        let fits = |batch: &&mut Batch| {
            batch.provider == task.key.provider && batch.tasks.len() < BATCH_MAX
        };
        match batches.iter_mut().find(fits) {
            Some(batch) => batch.tasks.push(task),
            None => batches.push(Batch {
                provider: task.key.provider.clone(),
                tasks: vec![task],
            }),
        }
    }
    batches
}
