//! What a look means for a task's row: an observation where the provider told something, a settlement where it did not.

use crate::clock::Timestamp;
use crate::manifest::row::ClaimedTask;
use crate::manifest::row::ObjectPlan;
use crate::manifest::row::Observation;
use crate::manifest::row::SeenAsset;
use crate::manifest::row::TaskSettlement;
use crate::model::deadline;
use crate::model::failure::Failure;
use crate::model::failure::Verdict;
use crate::model::task::Progress;
use crate::model::task::Sighting;
use crate::model::task::TaskState;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::units::Span;
use crate::watch::cadence;
use crate::watch::held::HeldTask;
use crate::watch::stage::WatchParts;
use crate::work::settle::Situation;
use crate::work::settle::decide;

/// Answers of "no such task" in a row that are believed.
const MISSES_BELIEVED: u32 = 3;

/// The shortest time over which those answers must be spread: a task may be asked about before the provider lists it.
const MISSES_SPREAD: Span = Span::from_secs(600);

/// The wait after such an answer.
const MISS_PAUSE: Span = Span::from_secs(200);

/// So long a completed task may be without results before that is an error: many providers write them down a little later.
const RESULTS_PATIENCE: Span = Span::from_secs(60);

/// How much longer than its provider a task waits that was refused or told to come later, at first. Whoever is asked after
/// the pause is then another task, and where that one is answered, what was said was about this one alone.
const OWN_WAIT: Span = Span::from_secs(2);

/// The longest: an account that somebody has put right goes on soon, though few tasks are left to try it with.
const OWN_WAIT_MAX: Span = Span::from_secs(600);

/// That wait grows by this with each try, up to this part of the time that is left.
const OWN_WAIT_GROWTH: f64 = 4.0;
const OWN_WAIT_OF_LEFT: f64 = 0.05;

/// A look that told nothing.
#[derive(Debug)]
pub(super) struct Blank {
    /// Why.
    pub(super) failure: Failure,
    /// Whether the provider says that there is no such task.
    pub(super) is_miss: bool,
    /// Whether the look counts as an attempt, though the wait is the provider's.
    pub(super) is_charged: bool,
}

impl WatchParts {
    /// What a sighting means for the task's row.
    pub(super) fn observation(
        &self,
        provider: &Provider,
        held: &HeldTask,
        sighting: Sighting,
    ) -> Observation {
        let task = held.task.as_ref();
        if sighting.is_unknown_status {
            tracing::warn!(task.id = %task.key.id, status = %sighting.status, "unknown status, taken as running");
        }
        let now = self.clock.now();
        let has_results = !sighting.results.is_empty() || sighting.is_without_files;
        let mut state = task.state.after(sighting.progress, has_results);
        let born = sighting
            .created
            .or(task.created_at)
            .unwrap_or(task.learned_at);
        let is_completed = sighting.progress == Progress::Completed;
        // Of a completed task the wait for its results counts from when it can have been completed at the earliest.
        let completed_at = sighting.completed.or(held.last_unfinished_at);
        let since = completed_at.filter(|_| is_completed).unwrap_or(born);
        let known = deadline::Known {
            expires: sighting.expires,
            signature: None,
            completed: sighting.completed,
            created: sighting.created.or(task.created_at),
            last_unfinished: if is_completed {
                held.last_unfinished_at
            } else {
                Some(now)
            },
            learned: task.learned_at,
            ttl: provider.ttl(),
        };
        let lacks_results = state == TaskState::Watching && is_completed;
        let error = (lacks_results && now.since(since) > RESULTS_PATIENCE)
            .then(|| format!("completed, but without results since {since}"));
        if let Some(error) = error.as_ref().filter(|_| !task.has_error) {
            tracing::warn!(task.id = %task.key.id, error, "nothing to archive yet; the task is asked about again");
        }
        // Links would be dead for as long as they live.
        let is_too_late =
            lacks_results && now.since(deadline::deadline(&known).at) > provider.ttl();
        let is_too_old = now.since(born) > self.config.give_up;
        if state == TaskState::Watching && (is_too_late || is_too_old) {
            state = TaskState::Abandoned;
        }
        let assets = assets(&sighting, &known);
        let deadlines = assets.iter().map(|asset| asset.deadline);
        let earliest = deadlines.min_by_key(|deadline| deadline.at);
        let next_look_at =
            (!state.is_final()).then(|| now.plus(self.wait(provider, &sighting, now.since(since))));
        let observation = Observation {
            state,
            deadline: earliest.unwrap_or_else(|| deadline::deadline(&known)),
            next_look_at,
            objects: self.objects(task, &sighting, &assets),
            assets,
            error,
            sighting,
        };
        log_end(task, &observation);
        observation
    }

    /// The wait before the next look at a task of this age.
    fn wait(&self, provider: &Provider, sighting: &Sighting, age: Span) -> Span {
        let is_completed = sighting.progress == Progress::Completed;
        let known = cadence::Known {
            age,
            estimate: sighting.estimate.filter(|_| !is_completed),
            min_interval: provider.min_interval(sighting.kind.as_deref()),
        };
        cadence::next_look(&known, &self.config, self.dice.fraction())
    }

    /// Where the assets of a task go.
    fn objects(
        &self,
        task: &ClaimedTask,
        sighting: &Sighting,
        assets: &[SeenAsset],
    ) -> Vec<ObjectPlan> {
        if assets.is_empty() {
            return Vec::new();
        }
        let model = sighting.model.as_deref().or(task.model.as_deref());
        self.routes.plan(&task.key.provider, model, &task.tags)
    }

    /// What the provider's error says about a task that was asked about.
    pub(super) fn blank(&self, task: &ClaimedTask, error: &ProviderError) -> Blank {
        let (provider, now) = (&task.key.provider, self.clock.now());
        let mut is_charged = false;
        let is_miss = matches!(error, ProviderError::NoSuchTask(_));
        let failure = match error {
            ProviderError::Refused { until, .. } | ProviderError::Limited { until, .. } => {
                is_charged = true;
                let own = own_wait(task.attempts, task.deadline.at.since(now));
                Failure::wait_until(until.plus(own), error.to_string())
            }
            ProviderError::NoSuchTask(_) => {
                let next = now.plus(MISS_PAUSE);
                Failure::wait_until(next, format!("provider {provider} knows no such task"))
            }
            ProviderError::Unavailable { .. } | ProviderError::Garbled { .. } => {
                Failure::retry(error.to_string())
            }
        };
        Blank {
            failure,
            is_miss,
            is_charged,
        }
    }

    /// When tasks are looked at that were to be asked about together with one that nothing was heard of. The more of them
    /// have failed lately, the later.
    pub(super) fn unasked_until(&self, batch: &[HeldTask], error: &ProviderError) -> Timestamp {
        let now = self.clock.now();
        match error {
            ProviderError::Refused { until, .. } | ProviderError::Limited { until, .. } => *until,
            ProviderError::NoSuchTask(_)
            | ProviderError::Unavailable(_)
            | ProviderError::Garbled(_) => {
                let attempts = batch.iter().map(|held| held.task.attempts);
                let situation = Situation {
                    now,
                    attempts: attempts.fold(0, u32::saturating_add),
                    urgent_until: batch.iter().map(|held| held.task.deadline.at).min(),
                };
                let settled = decide(Verdict::Retry, situation, &self.dice);
                settled.due_at.unwrap_or(now)
            }
        }
    }

    /// What a look that told nothing means for the task's row.
    pub(super) fn settlement(&self, task: &ClaimedTask, blank: &Blank) -> TaskSettlement {
        let Blank {
            failure,
            is_miss,
            is_charged,
        } = blank;
        let now = self.clock.now();
        let situation = Situation {
            now,
            attempts: task.attempts,
            urgent_until: Some(task.deadline.at),
        };
        let settled = decide(failure.verdict(), situation, &self.dice);
        let state = self.end(task, *is_miss, now);
        // A completed task was asked for a fresh link: an asset may be waiting for the answer. "No such task" is one.
        let is_awaited = match state {
            TaskState::Watching => true,
            TaskState::Completed => !is_miss,
            TaskState::Failed
            | TaskState::Cancelled
            | TaskState::Vanished
            | TaskState::Abandoned => false,
        };
        TaskSettlement {
            state,
            next_look_at: settled.due_at.filter(|_| is_awaited),
            error: Some(failure.to_string()),
            is_attempt: settled.is_attempt || *is_charged,
            is_miss: *is_miss,
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
        let is_unknown = is_miss && misses >= MISSES_BELIEVED;
        if is_unknown && never_seen && known_for >= MISSES_SPREAD {
            return TaskState::Vanished;
        }
        // Who was not reached, did not let us in, or spoke once of no such task, which a deploy may say of all, has said
        // nothing of this one: its links may live for weeks.
        let since = if is_unknown {
            task.learned_at
        } else {
            task.deadline.at
        };
        if now.since(since) > self.config.give_up {
            TaskState::Abandoned
        } else {
            TaskState::Watching
        }
    }
}

/// How much longer than its provider a task waits after so many failed tries.
fn own_wait(attempts: u32, time_left: Span) -> Span {
    let tries = i32::try_from(attempts.min(30)).unwrap_or(30);
    let longest = time_left
        .times(OWN_WAIT_OF_LEFT)
        .clamp(OWN_WAIT, OWN_WAIT_MAX);
    OWN_WAIT.times(OWN_WAIT_GROWTH.powi(tries)).min(longest)
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

/// Tells the log of a task that has ended.
fn log_end(task: &ClaimedTask, observation: &Observation) {
    let (id, state) = (&task.key.id, observation.state);
    match state {
        TaskState::Watching => {}
        TaskState::Completed if task.state == TaskState::Completed => {}
        TaskState::Completed if observation.assets.is_empty() => {
            tracing::info!(task.id = %id, "completed with no file: nothing to archive");
        }
        TaskState::Completed => {
            let assets = observation.assets.len();
            tracing::info!(task.id = %id, assets, deadline = %observation.deadline.at, "completed");
        }
        TaskState::Failed | TaskState::Cancelled | TaskState::Vanished | TaskState::Abandoned => {
            let said = observation.sighting.error.clone().unwrap_or_default();
            let error = observation.error.as_deref();
            tracing::warn!(task.id = %id, %state, code = said.code, message = said.message, error, "ended");
        }
    }
}
