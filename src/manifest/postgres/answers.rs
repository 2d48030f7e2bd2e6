//! The provider's last answers about tasks that are over.

use super::Fault;
use super::Tx;
use super::all;
use super::execute;
use super::reads;
use super::statement::named_params;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::answer::ServedTask;
use crate::model::task::TaskKey;

const KEEP: &str = "-- manifest::observe
    INSERT INTO answers (task, body, at) VALUES (:task, :body, :now)
    -- When the first one came stays: it is when the task was seen to be over.
    ON CONFLICT (task) DO UPDATE SET body = excluded.body";

/// Keeps the answer, in place of an earlier one.
pub(in crate::manifest) async fn keep(tx: &Tx<'_>, task: i64, body: &[u8]) -> Result<(), Fault> {
    let params = named_params! { ":task": task, ":body": body, };
    execute(tx, KEEP, params).await.map(drop)
}

const SERVED: &str = "-- manifest::served_task
    SELECT tasks.id, tasks.callback_url, answers.body, answers.at
    FROM tasks LEFT JOIN answers ON answers.task = tasks.id
    WHERE tasks.id = :id";

/// A task with the answer that was kept.
pub(in crate::manifest) async fn served_task(
    tx: &Tx<'_>,
    key: &TaskKey,
) -> Result<Option<ServedTask>, Fault> {
    let filter = TaskFilter {
        provider: Some(key.provider.clone()),
        id: Some(key.id.clone()),
        ..TaskFilter::default()
    };
    let Some(task) = reads::tasks(tx, &filter, 1).await?.into_iter().next() else {
        return Ok(None);
    };
    let params = named_params! { ":id": task.row };
    let kept = all(tx, SERVED, params, "tasks", |columns| {
        let callback = columns.url_opt("callback_url")?;
        Ok((callback, columns.get("body")?, columns.instant_opt("at")?))
    })
    .await?;
    let (callback, answer, over_since) = kept.into_iter().next().unwrap_or_default();
    Ok(Some(ServedTask {
        task,
        callback,
        answer,
        over_since,
    }))
}
