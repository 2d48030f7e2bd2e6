//! The verb that writes found objects down.

use super::Fault;
use super::Tx;
use super::all;
use super::execute;
use super::statement::named_params;
use super::stored;
use super::value;
use crate::manifest::row::rebuild::FoundObject;
use crate::manifest::row::rebuild::Rebuilt;
use crate::model::asset::AssetState;
use crate::model::object::ObjectState;
use crate::model::task::TaskState;

const HOLDER: &str = "-- manifest::rebuild
    SELECT id, state FROM objects WHERE destination = :destination AND key = :key";

const ADD_TASK: &str = "-- manifest::rebuild
    INSERT INTO tasks (
        provider, task_id, state, tags, learned_at, learned_via, completed_at, deadline_at, deadline_from
    )
    -- When its links died is not known any more, and does not matter.
    VALUES (
        :provider, :task_id, 'completed', '{}', :now, 'cli', :archived_at, :archived_at, 'learned'
    )
    ON CONFLICT (task_id, provider) DO NOTHING";

const FIND_TASK: &str = "-- manifest::rebuild
    SELECT id, state FROM tasks WHERE task_id = :task_id AND provider = :provider FOR NO KEY UPDATE";

const FIND_ASSET: &str = "-- manifest::rebuild
    SELECT id, state FROM assets WHERE task = :task AND asset_index = :asset_index";

const ADD_ASSET: &str = "-- manifest::rebuild
    INSERT INTO assets (
        task, asset_index, role, state, url, deadline_at, deadline_from, size, content_type, sha256, crc64nvme,
        archived_at
    )
    VALUES (
        :task, :asset_index, :role, 'archived', :url, :archived_at, 'learned', :size, :content_type, :sha256,
        :crc64nvme, :archived_at
    )
    RETURNING id";

const ADD_OBJECT: &str = "-- manifest::rebuild
    INSERT INTO objects (
        asset, position, destination, state, key_template, key, nonce, content_type, extension, named_at, etag,
        version_id, parts, size, crc64nvme, verified, archived_at
    )
    VALUES (
        :asset, (SELECT COUNT(*) FROM objects WHERE asset = :asset), :destination, 'archived', :key_template, :key,
        :nonce, :content_type, :extension, :archived_at, :etag, :version_id, :parts, :size, :crc64nvme, :verified,
        :archived_at
    )
    ON CONFLICT (asset, destination) DO NOTHING";

/// Writes down what is not known.
pub(in crate::manifest) async fn rebuild(
    tx: &Tx<'_>,
    found: &[FoundObject],
) -> Result<Vec<Rebuilt>, Fault> {
    let mut outcomes = Vec::with_capacity(found.len());
    for object in found {
        outcomes.push(rebuild_one(tx, object).await?);
    }
    Ok(outcomes)
}

async fn rebuild_one(tx: &Tx<'_>, found: &FoundObject) -> Result<Rebuilt, Fault> {
    let params = named_params! {
        ":destination": found.destination.as_str(), ":key": found.key.as_str(),
    };
    let holder = all(tx, HOLDER, params, "objects", |columns| {
        columns.word::<ObjectState>("state")
    })
    .await?;
    match holder.first() {
        Some(ObjectState::Archived) => return Ok(Rebuilt::Known),
        Some(ObjectState::Due | ObjectState::Uploading) => return Ok(Rebuilt::Open),
        None => {}
    }
    let Some(task) = completed_task(tx, found).await? else {
        return Ok(Rebuilt::Open);
    };
    let params = named_params! { ":task": task, ":asset_index": found.index.0 };
    let known = all(tx, FIND_ASSET, params, "assets", |columns| {
        Ok((columns.id, columns.word::<AssetState>("state")?))
    })
    .await?;
    let asset = match known.first() {
        Some((asset, AssetState::Archived)) => *asset,
        Some((_, AssetState::Due | AssetState::Lost | AssetState::Refused)) => {
            return Ok(Rebuilt::Open);
        }
        None => add_asset(tx, task, found).await?,
    };
    let params = named_params! {
        ":asset": asset, ":destination": found.destination.as_str(),
        ":key_template": found.key_template.as_str(), ":key": found.key.as_str(), ":nonce": found.nonce,
        ":content_type": found.media.content_type, ":extension": found.media.extension,
        ":etag": found.etag.as_ref().map(|etag| etag.0.as_str()), ":version_id": found.version_id,
        ":parts": found.parts, ":size": stored(found.size), ":crc64nvme": found.crc64nvme.to_string(),
        ":verified": found.verified.as_str(), ":archived_at": found.archived_at.as_unix_millis(),
    };
    let is_new = execute(tx, ADD_OBJECT, params).await? == 1;
    Ok(if is_new {
        Rebuilt::New
    } else {
        Rebuilt::Second
    })
}

/// The row of the object's task, made where it is not known; none where the task is not completed.
async fn completed_task(tx: &Tx<'_>, found: &FoundObject) -> Result<Option<i64>, Fault> {
    let params = named_params! {
        ":provider": found.task.provider.as_str(), ":task_id": found.task.id.as_str(),
        ":archived_at": found.archived_at.as_unix_millis(),
    };
    execute(tx, ADD_TASK, params).await?;
    let params = named_params! {
        ":provider": found.task.provider.as_str(), ":task_id": found.task.id.as_str(),
    };
    let tasks = all(tx, FIND_TASK, params, "tasks", |columns| {
        Ok((columns.id, columns.word::<TaskState>("state")?))
    })
    .await?;
    let completed = tasks
        .first()
        .filter(|(_, state)| *state == TaskState::Completed);
    Ok(completed.map(|(row, _)| *row))
}

async fn add_asset(tx: &Tx<'_>, task: i64, found: &FoundObject) -> Result<i64, Fault> {
    let params = named_params! {
        ":task": task, ":asset_index": found.index.0, ":role": found.role.as_str(),
        ":url": found.url.as_str(), ":archived_at": found.archived_at.as_unix_millis(),
        ":size": stored(found.size), ":content_type": found.media.content_type,
        ":sha256": found.sha256.map(|digest| digest.to_string()),
        ":crc64nvme": found.crc64nvme.to_string(),
    };
    let row: Option<i64> = value(tx, ADD_ASSET, params).await?;
    Ok(row.expect("an insertion returns its row"))
}
