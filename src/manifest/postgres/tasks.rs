//! Verbs on tasks: learn, observe, settle, and what people ask for.

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
use super::statement::named_params;
use super::uploads;
use super::value;
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
pub(in crate::manifest) async fn learn(
    tx: &Tx<'_>,
    tasks: &[NewTask],
) -> Result<Vec<Learned>, Fault> {
    // Differs from SQLite, where one transaction is written at a time: in one order, so that two machines that learn the
    // same do not wait for each other.
    let mut order: Vec<(usize, &NewTask)> = tasks.iter().enumerate().collect();
    order.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
    let mut outcomes = Vec::with_capacity(tasks.len());
    for (place, task) in order {
        let newcomer = Newcomer {
            key: &task.key,
            state: TaskState::Watching,
            tags: &task.tags,
            via: task.via,
            deadline: task.deadline,
            next_look_at: Some(task.next_look_at.as_unix_millis()),
            callback: task.callback.as_ref(),
        };
        if insert(tx, &newcomer).await? {
            outcomes.push((place, Learned::New));
            continue;
        }
        let (row, state) = merge(tx, &task.key, &task.tags).await?;
        if let Some(callback) = &task.callback {
            call_back_too(tx, row, callback).await?;
        }
        outcomes.push((place, Learned::Known(state)));
    }
    outcomes.sort_by_key(|(place, _)| *place);
    Ok(outcomes.into_iter().map(|(_, learned)| learned).collect())
}

/// Writes a link as a completed task with one asset. The link of a known one may be a fresh one for its asset.
pub(in crate::manifest) async fn learn_link(tx: &Tx<'_>, link: &NewLink) -> Result<Learned, Fault> {
    let newcomer = Newcomer {
        key: &link.key,
        state: TaskState::Completed,
        tags: &link.tags,
        via: LearnedVia::Fetch,
        deadline: link.asset.deadline,
        next_look_at: None,
        callback: None,
    };
    let is_new = insert(tx, &newcomer).await?;
    let (row, state) = merge(tx, &link.key, &link.tags).await?;
    if is_new {
        events::append(tx, Happening::to_task(EventKind::Ready, row)).await?;
    }
    assets::write_links(tx, row, std::slice::from_ref(&link.asset), &link.objects).await?;
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
    ON CONFLICT (task_id, provider) DO NOTHING
    RETURNING id";

/// Whether the task was not known, which is an event.
async fn insert(tx: &Tx<'_>, task: &Newcomer<'_>) -> Result<bool, Fault> {
    let params = named_params! {
        ":provider": task.key.provider.as_str(), ":task_id": task.key.id.as_str(),
        ":state": task.state.as_str(), ":tags": written(task.tags),
        ":via": task.via.as_str(),
        ":deadline_at": task.deadline.at.as_unix_millis(),
        ":deadline_from": task.deadline.from.as_str(), ":next_look_at": task.next_look_at,
        ":callback": task.callback.map(Url::as_str),
    };
    let row: Option<i64> = value(tx, INSERT, params).await?;
    if let Some(row) = row {
        events::append(tx, Happening::to_task(EventKind::Learned, row)).await?;
    }
    Ok(row.is_some())
}

const FIND: &str = "-- manifest::learn
    SELECT id, state, tags FROM tasks WHERE task_id = :task_id AND provider = :provider FOR NO KEY UPDATE";

const SET_TAGS: &str = "-- manifest::learn
    UPDATE tasks
    SET tags = :tags,
        -- Whoever holds it goes by the tags that it had: it is to be claimed anew.
        heard_at = CASE WHEN lease_expires_at IS NULL THEN NULL ELSE :now END
    WHERE id = :id";

/// Adds the tags that the task lacks; tells its row and state.
async fn merge(tx: &Tx<'_>, key: &TaskKey, tags: &Tags) -> Result<(i64, TaskState), Fault> {
    let params = named_params! { ":task_id": key.id.as_str(), ":provider": key.provider.as_str() };
    let found = all(tx, FIND, params, "tasks", |columns| {
        Ok((columns.id, columns.word("state")?, columns.tags()?))
    })
    .await?;
    let (row, state, mut known) = found
        .into_iter()
        .next()
        // Others write here too: it may have been forgotten between the two statements.
        .ok_or_else(|| Fault::of_ours(format!("task {} was deleted meanwhile", key.id)))?;
    let before = known.len();
    for (name, tag) in tags {
        known.entry(name.clone()).or_insert_with(|| tag.clone());
    }
    if known.len() > before {
        execute(
            tx,
            SET_TAGS,
            named_params! { ":tags": written(&known), ":id": row },
        )
        .await?;
    }
    Ok((row, state))
}

const ADD_CALLBACK: &str = "-- manifest::learn
    UPDATE tasks SET callback_url = :callback WHERE id = :id AND callback_url IS NULL";

/// Gives a known task the callback that it lacks. What it was to be called for and has happened already is told anew.
async fn call_back_too(tx: &Tx<'_>, row: i64, callback: &Url) -> Result<(), Fault> {
    let params = named_params! { ":callback": callback.as_str(), ":id": row };
    if execute(tx, ADD_CALLBACK, params).await? == 1 {
        events::tell_ends_again(tx, row).await?;
    }
    Ok(())
}

const STATE: &str = "-- manifest::observe
    SELECT id, state FROM tasks WHERE id = :id FOR NO KEY UPDATE";

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
            WHEN heard_at IS NOT NULL AND :next_look_at::bigint > :now THEN 0
            ELSE :next_look_at::bigint
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
pub(in crate::manifest) async fn observe(
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
        ":is_unfinished": is_unfinished, ":deadline_at": observation.deadline.at.as_unix_millis(),
        ":deadline_from": observation.deadline.from.as_str(),
        ":next_look_at": millis(observation.next_look_at),
        ":error": observation.error, ":error_code": sighting.error.as_ref().map(|error| error.code.as_str()),
        ":error_message": sighting.error.as_ref().map(|error| error.message.as_str()),
        ":id": lease.row, ":token": lease.token.0,
    };
    if observation.is_plain() {
        let rows = execute(tx, OBSERVE, params).await?;
        return touched(rows, Claimable::Tasks, lease).map(|()| Observed::default());
    }
    let before = state_of(tx, lease.row).await?;
    touched(execute(tx, OBSERVE, params).await?, Claimable::Tasks, lease)?;
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
    )
    .await?;
    // Nothing is left to do, and no asset will tell: whoever waits for the end is told now.
    let is_end = observation.state == TaskState::Completed && observation.assets.is_empty();
    if is_end && before.is_some_and(|before| before != observation.state) {
        events::append(tx, Happening::to_task(EventKind::Archived, lease.row)).await?;
    }
    if let Some(answer) = &sighting.answer
        && observation.state.is_final()
    {
        answers::keep(tx, lease.row, answer).await?;
    }
    assets::write_links(tx, lease.row, &observation.assets, &observation.objects).await
}

/// Writes what many looks found, each by itself: a claim that is lost spoils no other.
pub(in crate::manifest) async fn observe_all(
    tx: &Tx<'_>,
    observed: &[(Lease, Observation)],
) -> Result<Vec<Result<Observed, ManifestError>>, Fault> {
    let mut outcomes = Vec::with_capacity(observed.len());
    for (lease, observation) in observed {
        // One statement leaves nothing half done.
        let is_plain = observation.is_plain();
        if !is_plain {
            tx.batch("SAVEPOINT one").await?;
        }
        let outcome = observe(tx, lease, observation).await;
        if !is_plain {
            let end = if outcome.is_ok() {
                "RELEASE SAVEPOINT one"
            } else {
                "ROLLBACK TO SAVEPOINT one"
            };
            tx.batch(end).await?;
        }
        outcomes.push(match outcome {
            Ok(observed) => Ok(observed),
            Err(Fault::Known(error)) => Err(error),
            Err(fault) => return Err(fault),
        });
    }
    Ok(outcomes)
}

/// The state of a claimed task before a write to it; a row that is gone has none, and the write will say so.
async fn state_of(tx: &Tx<'_>, row: i64) -> Result<Option<TaskState>, Fault> {
    let params = named_params! { ":id": row };
    let found = all(tx, STATE, params, "tasks", |columns| columns.word("state")).await?;
    Ok(found.into_iter().next())
}

/// Appends what people may hear of when a task goes from one state to another.
async fn append_change(
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
    events::append(tx, happening).await
}

const SETTLE: &str = "-- manifest::settle_task
    UPDATE tasks
    SET state = :state,
        next_look_at = :next_look_at,
        heard_at = NULL,
        error = :error,
        attempts = attempts + CASE WHEN :is_attempt THEN 1 ELSE 0 END,
        misses = misses + CASE WHEN :is_miss THEN 1 ELSE 0 END,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Ends a claim on a task that was not seen.
pub(in crate::manifest) async fn settle(
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
    let before = state_of(tx, lease.row).await?;
    touched(execute(tx, SETTLE, params).await?, Claimable::Tasks, lease)?;
    let reason = settlement.error.as_deref();
    append_change(tx, lease.row, before, settlement.state, reason).await
}

const RETRY_ASSETS: &str = "-- manifest::retry
    UPDATE assets
    SET state = 'due', due_at = :now, attempts = 0, refresh_asked_at = NULL
    WHERE state IN ('due', 'lost', 'refused') AND task IN (
        SELECT id FROM tasks
        WHERE task_id = :task_id AND (:provider::text IS NULL OR provider = :provider)
    )";

const RETRY_TASKS: &str = "-- manifest::retry
    UPDATE tasks
    SET state = 'watching', attempts = 0, misses = 0,
        -- As in `hear`: somebody waits for what this look finds, and whoever holds it is to look now.
        next_look_at = CASE WHEN lease_expires_at IS NULL THEN 0 ELSE next_look_at END,
        heard_at = CASE WHEN lease_expires_at IS NULL THEN NULL ELSE :now END
    -- Failed and cancelled stay: the provider has nothing to archive.
    WHERE state IN ('watching', 'vanished', 'abandoned')
        AND task_id = :task_id AND (:provider::text IS NULL OR provider = :provider)";

/// Makes everything of a task due now that is not archived; tells how many rows.
pub(in crate::manifest) async fn retry(
    tx: &Tx<'_>,
    provider: Option<&ProviderName>,
    id: &TaskId,
) -> Result<u64, Fault> {
    let provider = provider.map(ProviderName::as_str);
    let params = named_params! { ":task_id": id.as_str(), ":provider": provider };
    // Tasks are locked before assets, as everywhere.
    let rows =
        execute(tx, RETRY_TASKS, &params).await? + execute(tx, RETRY_ASSETS, &params).await?;
    Ok(u64::try_from(rows).expect("rows fit in memory"))
}

const ASSETS_OF: &str = "-- manifest::forget
    SELECT assets.id FROM assets JOIN tasks ON tasks.id = assets.task
    WHERE tasks.task_id = :task_id AND tasks.provider = :provider";

const FORGET: &str = "-- manifest::forget
    DELETE FROM tasks WHERE task_id = :task_id AND provider = :provider";

/// Deletes a task with everything that hangs on it; its open uploads are to be aborted.
pub(in crate::manifest) async fn forget(
    tx: &Tx<'_>,
    provider: &ProviderName,
    id: &TaskId,
) -> Result<bool, Fault> {
    let params = named_params! { ":task_id": id.as_str(), ":provider": provider.as_str() };
    for asset in all(tx, ASSETS_OF, &params, "assets", |columns| Ok(columns.id)).await? {
        uploads::retire_all(tx, asset).await?;
    }
    Ok(execute(tx, FORGET, params).await? > 0)
}

fn written(tags: &Tags) -> String {
    serde_json::to_string(tags).expect("tags are strings")
}
