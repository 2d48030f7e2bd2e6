//! Verbs on multipart uploads: their parts while they are open, and their end as orphans.

use super::Fault;
use super::Tx;
use super::all;
use super::claims::hold_asset;
use super::claims::touched;
use super::execute;
use super::objects::one_object;
use super::statement::named_params;
use super::stored;
use super::value;
use crate::clock::Timestamp;
use crate::manifest::row::Claimable;
use crate::manifest::row::NewUpload;
use crate::manifest::row::PartRow;
use crate::model::lease::Lease;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;

const UPLOAD: &str = "-- manifest::begin_upload
    SELECT upload_id FROM objects WHERE id = :object";

const BEGIN: &str = "-- manifest::begin_upload
    UPDATE objects
    SET state = 'uploading',
        upload_id = :upload_id,
        part_size = :part_size,
        upload_etag = :etag,
        upload_last_modified = :last_modified,
        upload_length = :length
    WHERE id = :object AND asset = :asset AND state <> 'archived' AND key IS NOT NULL";

/// Writes down an upload that the store has opened. One that was open before becomes an orphan.
pub(in crate::manifest) async fn begin(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
    upload: &NewUpload,
) -> Result<(), Fault> {
    hold_asset(tx, lease).await?;
    let before: Option<String> = value(tx, UPLOAD, named_params! { ":object": object })
        .await?
        .flatten();
    // The same again is no other upload, and must not be aborted.
    if before.is_some_and(|before| before != upload.id.0) {
        retire_one(tx, object).await?;
    }
    let params = named_params! {
        ":upload_id": upload.id.0, ":part_size": stored(upload.part_size),
        ":etag": upload.source.etag, ":last_modified": upload.source.last_modified,
        ":length": upload.source.length.map(stored), ":object": object, ":asset": lease.row,
    };
    one_object(execute(tx, BEGIN, params).await?, object)
}

const RECORD_PART: &str = "-- manifest::record_part
    INSERT INTO parts (object, number, length, etag, crc64nvme, progress)
    SELECT id, :number::bigint, :length::bigint, :etag::text, :crc64nvme::text, :progress::bytea FROM objects
    WHERE id = :object AND asset = :asset AND upload_id IS NOT NULL
    ON CONFLICT (object, number) DO UPDATE
    SET length = excluded.length,
        etag = excluded.etag,
        crc64nvme = excluded.crc64nvme,
        progress = excluded.progress";

/// Writes down a part that the store acknowledged.
pub(in crate::manifest) async fn record_part(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
    part: &PartRow,
) -> Result<(), Fault> {
    hold_asset(tx, lease).await?;
    let params = named_params! {
        ":number": part.number.0, ":length": stored(part.length), ":etag": part.etag.0,
        ":crc64nvme": part.crc64nvme.to_string(), ":progress": part.progress,
        ":object": object, ":asset": lease.row,
    };
    one_object(execute(tx, RECORD_PART, params).await?, object)
}

const RETAIN_PARTS: &str = "-- manifest::retain_parts
    DELETE FROM parts
    WHERE object = (SELECT id FROM objects WHERE id = :object AND asset = :asset)
        AND number <> ALL(:numbers)";

/// Drops the rows of parts that the store does not have.
pub(in crate::manifest) async fn retain_parts(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
    numbers: &[PartNumber],
) -> Result<(), Fault> {
    hold_asset(tx, lease).await?;
    let numbers: Vec<i64> = numbers.iter().map(|number| i64::from(number.0)).collect();
    let params = named_params! { ":object": object, ":asset": lease.row, ":numbers": numbers };
    execute(tx, RETAIN_PARTS, params).await.map(|_| ())
}

/// Gives up an object's open upload, which is to be aborted.
pub(in crate::manifest) async fn retire(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
) -> Result<(), Fault> {
    hold_asset(tx, lease).await?;
    if is_of(tx, object, lease.row).await? {
        retire_one(tx, object).await
    } else {
        one_object(0, object)
    }
}

const ORPHAN: &str = "-- manifest::orphan_uploads
    INSERT INTO orphans (destination, key, upload_id, due_at)
    SELECT destination, key, :upload_id::text, :now FROM objects
    WHERE id = :object AND asset = :asset AND key IS NOT NULL
        -- The upload that is being worked on is none.
        AND upload_id IS DISTINCT FROM :upload_id
    ON CONFLICT (destination, key, upload_id) DO NOTHING";

/// Takes down uploads that were found open under an object's key and that no row has.
pub(in crate::manifest) async fn orphan(
    tx: &Tx<'_>,
    lease: &Lease,
    object: i64,
    uploads: &[UploadId],
) -> Result<(), Fault> {
    hold_asset(tx, lease).await?;
    for upload in uploads {
        let params = named_params! {
            ":upload_id": upload.0, ":object": object, ":asset": lease.row,
        };
        execute(tx, ORPHAN, params).await?;
    }
    Ok(())
}

const OBJECTS_OF: &str = "-- manifest::retire_upload
    SELECT id FROM objects WHERE asset = :asset";

/// Gives up every open upload of an asset.
pub(super) async fn retire_all(tx: &Tx<'_>, asset: i64) -> Result<(), Fault> {
    let params = named_params! { ":asset": asset };
    for object in all(tx, OBJECTS_OF, params, "objects", |columns| Ok(columns.id)).await? {
        retire_one(tx, object).await?;
    }
    Ok(())
}

const MAKE_ORPHAN: &str = "-- manifest::retire_upload
    INSERT INTO orphans (destination, key, upload_id, due_at)
    SELECT destination, key, upload_id, :now FROM objects
    WHERE id = :object AND upload_id IS NOT NULL
    ON CONFLICT (destination, key, upload_id) DO NOTHING";

const FORGET_PARTS: &str = "-- manifest::retire_upload
    DELETE FROM parts WHERE object = :object";

const CLEAR_UPLOAD: &str = "-- manifest::retire_upload
    UPDATE objects
    SET state = 'due',
        upload_id = NULL,
        part_size = NULL,
        upload_etag = NULL,
        upload_last_modified = NULL,
        upload_length = NULL
    WHERE id = :object AND state = 'uploading'";

/// Gives up one object's open upload, if it has one.
pub(super) async fn retire_one(tx: &Tx<'_>, object: i64) -> Result<(), Fault> {
    let params = named_params! { ":object": object, };
    execute(tx, MAKE_ORPHAN, params).await?;
    execute(tx, FORGET_PARTS, named_params! { ":object": object }).await?;
    execute(tx, CLEAR_UPLOAD, named_params! { ":object": object }).await?;
    Ok(())
}

const FORGET_ORPHAN: &str = "-- manifest::settle_orphan
    DELETE FROM orphans
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

const KEEP_ORPHAN: &str = "-- manifest::settle_orphan
    UPDATE orphans
    SET due_at = :due_at, attempts = attempts + 1, lease_owner = NULL, lease_expires_at = NULL
    WHERE id = :id AND lease_token = :token AND lease_expires_at IS NOT NULL";

/// Ends a claim on an orphan: it is aborted, or tried again at `due_at`.
pub(in crate::manifest) async fn settle_orphan(
    tx: &Tx<'_>,
    lease: &Lease,
    due_at: Option<Timestamp>,
) -> Result<(), Fault> {
    let rows = match due_at {
        None => {
            let params = named_params! { ":id": lease.row, ":token": lease.token.0 };
            execute(tx, FORGET_ORPHAN, params).await?
        }
        Some(due_at) => {
            let params = named_params! {
                ":due_at": due_at.as_unix_millis(), ":id": lease.row, ":token": lease.token.0,
            };
            execute(tx, KEEP_ORPHAN, params).await?
        }
    };
    touched(rows, Claimable::Orphans, lease)
}

async fn is_of(tx: &Tx<'_>, object: i64, asset: i64) -> Result<bool, Fault> {
    let objects = all(
        tx,
        OBJECTS_OF,
        named_params! { ":asset": asset },
        "objects",
        |columns| Ok(columns.id),
    )
    .await?;
    Ok(objects.contains(&object))
}
