//! Verbs on tasks: learn, observe, settle, and what people ask for.

use rusqlite::named_params;
use url::Url;

use super::Fault;
use super::Tx;
use super::all;
use super::answers;
use super::assets;
use super::claims::touched;
use super::events;
use super::events::Happening;
use super::execute;
use super::uploads;
use super::writer::in_savepoint;
use crate::clock::Timestamp;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::Learned;
use crate::manifest::row::NewLink;
use crate::manifest::row::NewTask;
use crate::manifest::row::Observation;
use crate::manifest::row::Observed;
use crate::manifest::row::TaskSettlement;
use crate::model::deadline::Deadline;
use crate::model::event::EventKind;
use crate::model::lease::Lease;
use crate::model::task::LearnedVia;
use crate::model::task::Progress;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;
use crate::units::Span;

/// Writes the tasks that are not known and adds to the others the tags that they lack.
pub(in crate::manifest) fn learn(tx: &Tx<'_>, tasks: &[NewTask]) -> Result<Vec<Learned>, Fault> {
    let learn_one = |task: &NewTask| {
        let newcomer = Newcomer {
            key: &task.key,
            state: TaskState::Watching,
            tags: &task.tags,
            via: task.via,
            deadline: task.deadline,
            next_look_at: Some(task.next_look_at.as_unix_millis()),
            callback: task.callback.as_ref(),
        };
        if insert(tx, &newcomer)? {
            return Ok(Learned::New);
        }
        let (row, state) = merge(tx, &task.key, &task.tags)?;
        if let Some(callback) = &task.callback {
            call_back_too(tx, row, callback)?;
        }
        Ok(Learned::Known(state))
    };
    tasks.iter().map(learn_one).collect()
}

/// Writes a link as a completed task with one asset. The link of a known one may be a fresh one for its asset.
pub(in crate::manifest) fn learn_link(tx: &Tx<'_>, link: &NewLink) -> Result<Learned, Fault> {
    let newcomer = Newcomer {
        key: &link.key,
        state: TaskState::Completed,
        tags: &link.tags,
        via: LearnedVia::Fetch,
        deadline: link.asset.deadline,
        next_look_at: None,
        callback: None,
    };
    let is_new = insert(tx, &newcomer)?;
    let (row, state) = merge(tx, &link.key, &link.tags)?;
    if is_new {
        events::append(tx, Happening::to_task(EventKind::Ready, row))?;
    }
    assets::write_links(tx, row, std::slice::from_ref(&link.asset), &link.objects)?;
    Ok(if is_new {
        Learned::New
    } else {
        Learned::Known(state)
    })
}

struct Newcomer<'a> {
    key: &'a TaskKey,
    state: TaskState,
    tags: &'a Tags,
    via: LearnedVia,
    deadline: Deadline,
    next_look_at: Option<i64>,
    callback: Option<&'a Url>,
}

const INSERT: &str = "-- manifest::learn
    INSERT INTO tasks (
        provider, task_id, state, tags, learned_at, learned_via, deadline_at, deadline_from, next_look_at,
        callback_url
    )
    VALUES (
        :provider, :task_id, :state, :tags, :now, :via, :deadline_at, :deadline_from, :next_look_at,
        :callback
    )
    ON CONFLICT (task_id, provider) DO NOTHING";

/// Whether the task was not known, which is an event.
fn insert(tx: &Tx<'_>, task: &Newcomer<'_>) -> Result<bool, Fault> {
    let params = named_params! {
        ":provider": task.key.provider.as_str(), ":task_id": task.key.id.as_str(),
        ":state": task.state.as_str(), ":tags": written(task.tags),
        ":now": tx.now.as_unix_millis(), ":via": task.via.as_str(),
        ":deadline_at": task.deadline.at.as_unix_millis(),
        ":deadline_from": task.deadline.from.as_str(), ":next_look_at": task.next_look_at,
        ":callback": task.callback.map(Url::as_str),
    };
    let is_new = execute(tx.db, INSERT, params)? == 1;
    if is_new {
        let row = tx.db.last_insert_rowid();
        events::append(tx, Happening::to_task(EventKind::Learned, row))?;
    }
    Ok(is_new)
}

const FIND: &str = "-- manifest::learn
    SELECT id, state, tags FROM tasks WHERE task_id = :task_id AND provider = :provider";

const SET_TAGS: &str = "-- manifest::learn
    UPDATE tasks
    SET tags = :tags,
        -- Whoever holds it goes by the tags that it had: it is to be claimed anew.
        heard_at = CASE WHEN lease_expires_at IS NULL THEN NULL ELSE :now END
    WHERE id = :id";

/// Adds the tags that the task lacks; tells its row and state.
fn merge(tx: &Tx<'_>, key: &TaskKey, tags: &Tags) -> Result<(i64, TaskState), Fault> {
    let params = named_params! { ":task_id": key.id.as_str(), ":provider": key.provider.as_str() };
    let found = all(tx.db, FIND, params, "tasks", |columns| {
        Ok((columns.id, columns.word("state")?, columns.tags()?))
    })?;
    let (row, state, mut known) = found.into_iter().next().expect("inserted or in conflict");
    let before = known.len();
    for (name, tag) in tags {
        known.entry(name.clone()).or_insert_with(|| tag.clone());
    }
    if known.len() > before {
        execute(
            tx.db,
            SET_TAGS,
            named_params! {
                ":tags": written(&known), ":now": tx.now.as_unix_millis(), ":id": row,
            },
        )?;
    }
    Ok((row, state))
}

const ADD_CALLBACK: &str = "-- manifest::learn
    UPDATE tasks SET callback_url = :callback WHERE id = :id AND callback_url IS NULL";

/// Gives a known task the callback that it lacks. What it was to be called for and has happened already is told anew.
fn call_back_too(tx: &Tx<'_>, row: i64, callback: &Url) -> Result<(), Fault> {
    let params = named_params! { ":callback": callback.as_str(), ":id": row };
    if execute(tx.db, ADD_CALLBACK, params)? == 1 {
        events::tell_ends_again(tx, row)?;
    }
    Ok(())
}

const STATE: &str = "-- manifest::observe
    SELECT id, state FROM tasks WHERE id = :id";

const OBSERVE: &str = "-- manifest::observe
    UPDATE tasks
    SET state = :state,
        status = :status,
        percent = COALESCE(:percent, percent),
        estimate_ms = :estimate_ms,
        model = COALESCE(:model, model),
        kind = COALESCE(:kind, kind),
        -- The first that was said stays: keys are made of it.
        created_at = COALESCE(created_at, :created_at),
        completed_at = COALESCE(:completed_at, completed_at),
        last_unfinished_at = CASE WHEN :is_unfinished THEN :now ELSE last_unfinished_at END,
        -- A fresh link moves its asset's deadline. That of the task stays what its first links were to live.
        deadline_at = CASE WHEN state = 'completed' THEN deadline_at ELSE :deadline_at END,
        deadline_from = CASE WHEN state = 'completed' THEN deadline_from ELSE :deadline_from END,
        -- What was heard of it meanwhile may be newer than what was seen.
        next_look_at = CASE
            WHEN heard_at IS NOT NULL AND :next_look_at > :now THEN 0
            ELSE :next_look_at
        END,
        heard_at = NULL,
        looks = looks + 1,
        misses = 0,
        attempts = 0,
        error = :error,
        task_error_code = :error_code,
        task_error_message = :error_message,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Writes what a look found and ends the claim.
pub(in crate::manifest) fn observe(
    tx: &Tx<'_>,
    lease: &Lease,
    observation: &Observation,
) -> Result<Observed, Fault> {
    let sighting = &observation.sighting;
    let is_unfinished = match sighting.progress {
        Progress::Pending | Progress::Running => true,
        Progress::Completed | Progress::Failed | Progress::Cancelled => false,
    };
    let millis = |at: Option<Timestamp>| at.map(Timestamp::as_unix_millis);
    let params = named_params! {
        ":state": observation.state.as_str(), ":status": sighting.status,
        ":percent": sighting.percent.map(|percent| percent.min(100)),
        ":estimate_ms": sighting.estimate.map(Span::as_millis_i64),
        ":model": sighting.model, ":kind": sighting.kind,
        ":created_at": millis(sighting.created), ":completed_at": millis(sighting.completed),
        ":is_unfinished": is_unfinished, ":now": tx.now.as_unix_millis(),
        ":deadline_at": observation.deadline.at.as_unix_millis(),
        ":deadline_from": observation.deadline.from.as_str(),
        ":next_look_at": millis(observation.next_look_at),
        ":error": observation.error, ":error_code": sighting.error.as_ref().map(|error| error.code.as_str()),
        ":error_message": sighting.error.as_ref().map(|error| error.message.as_str()),
        ":id": lease.row, ":token": lease.token.0,
    };
    if observation.is_plain() {
        return touched(execute(tx.db, OBSERVE, params)?, Claimable::Tasks, lease)
            .map(|()| Observed::default());
    }
    let before = state_of(tx, lease.row)?;
    touched(execute(tx.db, OBSERVE, params)?, Claimable::Tasks, lease)?;
    let reason = sighting.error.as_ref().map(|error| {
        let said = [error.code.as_str(), error.message.as_str()];
        let said: Vec<&str> = said.into_iter().filter(|said| !said.is_empty()).collect();
        said.join(": ")
    });
    let reason = reason.as_ref().or(observation.error.as_ref());
    append_change(
        tx,
        lease.row,
        before,
        observation.state,
        reason.map(String::as_str),
    )?;
    // Nothing is left to do, and no asset will tell: whoever waits for the end is told now.
    let is_end = observation.state == TaskState::Completed && observation.assets.is_empty();
    if is_end && before.is_some_and(|before| before != observation.state) {
        events::append(tx, Happening::to_task(EventKind::Archived, lease.row))?;
    }
    if let Some(answer) = &sighting.answer
        && observation.state.is_final()
    {
        answers::keep(tx, lease.row, answer)?;
    }
    assets::write_links(tx, lease.row, &observation.assets, &observation.objects)
}

/// Writes what many looks found, each by itself: a claim that is lost spoils no other.
pub(in crate::manifest) fn observe_all(
    tx: &Tx<'_>,
    observed: &[(Lease, Observation)],
) -> Result<Vec<Result<Observed, ManifestError>>, Fault> {
    let observe_one = |(lease, observation): &(Lease, Observation)| {
        // One statement leaves nothing half done.
        let outcome = if observation.is_plain() {
            observe(tx, lease, observation)
        } else {
            in_savepoint(tx, |tx| observe(tx, lease, observation))
        };
        match outcome {
            Ok(observed) => Ok(Ok(observed)),
            Err(Fault::Known(error)) => Ok(Err(error)),
            Err(fault @ Fault::Engine(_)) => Err(fault),
        }
    };
    observed.iter().map(observe_one).collect()
}

/// The state of a claimed task before a write to it; a row that is gone has none, and the write will say so.
fn state_of(tx: &Tx<'_>, row: i64) -> Result<Option<TaskState>, Fault> {
    let params = named_params! { ":id": row };
    let found = all(tx.db, STATE, params, "tasks", |columns| {
        columns.word("state")
    })?;
    Ok(found.into_iter().next())
}

/// Appends what people may hear of when a task goes from one state to another.
fn append_change(
    tx: &Tx<'_>,
    row: i64,
    before: Option<TaskState>,
    after: TaskState,
    reason: Option<&str>,
) -> Result<(), Fault> {
    if before == Some(after) {
        return Ok(());
    }
    let kind = match after {
        TaskState::Watching => return Ok(()),
        TaskState::Completed => EventKind::Ready,
        TaskState::Failed | TaskState::Cancelled | TaskState::Vanished | TaskState::Abandoned => {
            EventKind::Failed
        }
    };
    let reason = match (kind, reason) {
        (EventKind::Failed, Some(reason)) if !reason.is_empty() => {
            Some(format!("{after}: {reason}"))
        }
        (EventKind::Failed, _) => Some(after.to_string()),
        (_, _) => None,
    };
    let happening = Happening {
        reason: reason.as_deref(),
        ..Happening::to_task(kind, row)
    };
    events::append(tx, happening)
}

const SETTLE: &str = "-- manifest::settle_task
    UPDATE tasks
    SET state = :state,
        next_look_at = :next_look_at,
        heard_at = NULL,
        error = :error,
        attempts = attempts + :is_attempt,
        misses = misses + :is_miss,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Ends a claim on a task that was not seen.
pub(in crate::manifest) fn settle(
    tx: &Tx<'_>,
    lease: &Lease,
    settlement: &TaskSettlement,
) -> Result<(), Fault> {
    let params = named_params! {
        ":state": settlement.state.as_str(),
        ":next_look_at": settlement.next_look_at.map(Timestamp::as_unix_millis),
        ":error": settlement.error, ":is_attempt": settlement.is_attempt,
        ":is_miss": settlement.is_miss, ":id": lease.row, ":token": lease.token.0,
    };
    let before = state_of(tx, lease.row)?;
    touched(execute(tx.db, SETTLE, params)?, Claimable::Tasks, lease)?;
    let reason = settlement.error.as_deref();
    append_change(tx, lease.row, before, settlement.state, reason)
}

const RETRY_ASSETS: &str = "-- manifest::retry
    UPDATE assets
    SET state = 'due', due_at = :now, attempts = 0, refresh_asked_at = NULL
    WHERE state IN ('due', 'lost', 'refused') AND task IN (
        SELECT id FROM tasks
        WHERE task_id = :task_id AND (:provider IS NULL OR provider = :provider)
    )";

const RETRY_TASKS: &str = "-- manifest::retry
    UPDATE tasks
    SET state = 'watching', attempts = 0, misses = 0,
        -- As in `hear`: somebody waits for what this look finds, and whoever holds it is to look now.
        next_look_at = CASE WHEN lease_expires_at IS NULL THEN 0 ELSE next_look_at END,
        heard_at = CASE WHEN lease_expires_at IS NULL THEN NULL ELSE :now END
    -- Failed and cancelled stay: the provider has nothing to archive.
    WHERE state IN ('watching', 'vanished', 'abandoned')
        AND task_id = :task_id AND (:provider IS NULL OR provider = :provider)";

/// Makes everything of a task due now that is not archived; tells how many rows.
pub(in crate::manifest) fn retry(
    tx: &Tx<'_>,
    provider: Option<&ProviderName>,
    id: &TaskId,
) -> Result<u64, Fault> {
    let provider = provider.map(ProviderName::as_str);
    let params = named_params! {
        ":now": tx.now.as_unix_millis(), ":task_id": id.as_str(), ":provider": provider,
    };
    let rows = execute(tx.db, RETRY_ASSETS, params)? + execute(tx.db, RETRY_TASKS, params)?;
    Ok(u64::try_from(rows).expect("rows fit in memory"))
}

const ASSETS_OF: &str = "-- manifest::forget
    SELECT assets.id FROM assets JOIN tasks ON tasks.id = assets.task
    WHERE tasks.task_id = :task_id AND tasks.provider = :provider";

const FORGET: &str = "-- manifest::forget
    DELETE FROM tasks WHERE task_id = :task_id AND provider = :provider";

/// Deletes a task with everything that hangs on it; its open uploads are to be aborted.
pub(in crate::manifest) fn forget(
    tx: &Tx<'_>,
    provider: &ProviderName,
    id: &TaskId,
) -> Result<bool, Fault> {
    let params = named_params! { ":task_id": id.as_str(), ":provider": provider.as_str() };
    for asset in all(tx.db, ASSETS_OF, params, "assets", |columns| Ok(columns.id))? {
        uploads::retire_all(tx, asset)?;
    }
    Ok(execute(tx.db, FORGET, params)? > 0)
}

fn written(tags: &Tags) -> String {
    serde_json::to_string(tags).expect("tags are strings")
}
