//! Verbs on objects: the name before the store hears of it, and the proof after.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::hold_asset;
use super::events;
use super::execute;
use super::statement::named_params;
use super::stored;
use super::uploads;
use super::value;
use crate::manifest::ManifestError;
use crate::manifest::row::ObjectName;
use crate::manifest::row::Proof;
use crate::model::asset::Codec;
use crate::model::lease::Lease;
use crate::model::object::DestinationName;
use crate::units::Span;

const DESTINATION: &str = "-- manifest::name_object
    SELECT id, destination FROM objects
    WHERE id = :object AND asset = :asset AND state <> 'archived'";

const KEY: &str = "-- manifest::name_object
    SELECT key FROM objects WHERE id = :object";

const WHO_HAS_KEY: &str = "-- manifest::name_object
    SELECT id FROM objects WHERE destination = :destination AND key = :key";

const NAME: &str = "-- manifest::name_object
    UPDATE objects
    SET key = :key,
        nonce = :nonce,
        content_type = :content_type,
        extension = :extension,
        named_at = :named_at
    WHERE id = :object";

/// Fixes an object's name. An upload that is open under another key becomes an orphan under that key.
pub(in crate::manifest) async fn name(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
    name: &ObjectName,
) -> Result<(), Fault> {
    hold_asset(tx, lease).await?;
    let params = named_params! { ":object": object, ":asset": lease.row };
    let destination = all(tx, DESTINATION, params, "objects", |columns| {
        columns.word::<DestinationName>("destination")
    })
    .await?;
    let destination = destination
        .into_iter()
        .next()
        .ok_or_else(|| no_object(object))?;
    let params = named_params! { ":destination": destination.as_str(), ":key": name.key.as_str() };
    let holder: Option<i64> = value(tx, WHO_HAS_KEY, params).await?;
    if holder.is_some_and(|holder| holder != object) {
        return Err(Fault::Known(ManifestError::KeyTaken {
            destination,
            key: name.key.clone(),
        }));
    }
    let before: Option<String> = value(tx, KEY, named_params! { ":object": object })
        .await?
        .flatten();
    if before.is_some_and(|before| before != name.key.as_str()) {
        uploads::retire_one(tx, object).await?;
    }
    let params = named_params! {
        ":key": name.key.as_str(), ":nonce": name.nonce, ":content_type": name.media.content_type,
        ":extension": name.media.extension, ":named_at": name.named_at.as_unix_millis(),
        ":object": object,
    };
    let named = execute(tx, NAME, params).await;
    // Differs from SQLite: another machine may have taken the key since it was looked for.
    if named.as_ref().is_err_and(Fault::is_duplicate) {
        return Err(Fault::Known(ManifestError::KeyTaken {
            destination,
            key: name.key.clone(),
        }));
    }
    one_object(named?, object)
}

const PROVE_OBJECT: &str = "-- manifest::mark_archived
    UPDATE objects
    SET state = 'archived',
        etag = :etag,
        version_id = :version_id,
        parts = :parts,
        size = :size,
        crc64nvme = :crc64nvme,
        verified = :verified,
        archived_at = :now,
        upload_id = NULL,
        part_size = NULL,
        upload_etag = NULL,
        upload_last_modified = NULL,
        upload_length = NULL
    WHERE id = :object AND asset = :asset AND key IS NOT NULL";

const FORGET_PARTS: &str = "-- manifest::mark_archived
    DELETE FROM parts WHERE object = :object";

const KEEP_BODY: &str = "-- manifest::mark_archived
    UPDATE assets
    SET size = :size,
        content_type = (SELECT content_type FROM objects WHERE id = :object),
        duration_ms = :duration_ms,
        width = :width,
        height = :height,
        codec = :codec,
        sha256 = :sha256,
        crc64nvme = :crc64nvme,
        source_etag = :etag,
        source_last_modified = :last_modified,
        source_length = :length
    WHERE id = :asset";

const PROVE_ASSET: &str = "-- manifest::mark_archived
    UPDATE assets
    SET state = 'archived',
        archived_at = :now,
        due_at = NULL,
        error = NULL,
        refresh_asked_at = NULL,
        lease_owner = NULL,
        lease_expires_at = NULL
    WHERE id = :asset
        AND NOT EXISTS (SELECT * FROM objects WHERE asset = :asset AND state <> 'archived')";

/// Writes down a verified object; whether the whole asset is archived with it, which ends the claim.
pub(in crate::manifest) async fn mark_archived(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
    proof: &Proof,
) -> Result<bool, Fault> {
    hold_asset(tx, lease).await?;
    let asset = lease.row;
    let crc64nvme = proof.crc64nvme.to_string();
    let params = named_params! {
        ":etag": proof.etag.as_ref().map(|etag| etag.0.as_str()), ":version_id": proof.version_id,
        ":parts": proof.parts, ":size": stored(proof.size), ":crc64nvme": crc64nvme,
        ":verified": proof.verified.as_str(), ":object": object, ":asset": asset,
    };
    one_object(execute(tx, PROVE_OBJECT, params).await?, object)?;
    execute(tx, FORGET_PARTS, named_params! { ":object": object }).await?;
    let params = named_params! {
        ":size": stored(proof.size), ":object": object,
        ":duration_ms": proof.media.duration.map(Span::as_millis_i64), ":width": proof.media.width,
        ":height": proof.media.height, ":codec": proof.media.codec.as_ref().map(Codec::as_str),
        ":sha256": proof.sha256.map(|digest| digest.to_string()), ":crc64nvme": crc64nvme,
        ":etag": proof.source.etag, ":last_modified": proof.source.last_modified,
        ":length": proof.source.length.map(stored), ":asset": asset,
    };
    execute(tx, KEEP_BODY, params).await?;
    let params = named_params! { ":asset": asset };
    let is_archived = execute(tx, PROVE_ASSET, params).await? == 1;
    if is_archived {
        events::append_if_all_archived(tx, asset).await?;
    }
    Ok(is_archived)
}

/// Checks that a write touched its object: it is the claimed asset's, and in a state that allows the write.
pub(super) fn one_object(rows: usize, object: i64) -> Result<(), Fault> {
    (rows == 1).then_some(()).ok_or_else(|| no_object(object))
}

fn no_object(object: i64) -> Fault {
    Fault::of_ours(format!(
        "object {object} is not the asset's, or not in a state for this"
    ))
}
