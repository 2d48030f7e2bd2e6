//! Whole rows as the values of `row`, whichever engine read them.

use super::Columns;
use super::EngineRow;
use crate::clock::Timestamp;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::AtRisk;
use crate::manifest::row::ClaimedAsset;
use crate::manifest::row::ClaimedObject;
use crate::manifest::row::ClaimedOrphan;
use crate::manifest::row::ClaimedTask;
use crate::manifest::row::ObjectName;
use crate::manifest::row::ObjectRecord;
use crate::manifest::row::OpenUpload;
use crate::manifest::row::PartRow;
use crate::manifest::row::TaskRecord;
use crate::manifest::row::discovery::ClaimedDiscovery;
use crate::manifest::row::discovery::Discovery;
use crate::manifest::row::discovery::Pass;
use crate::manifest::row::event::ClaimedDelivery;
use crate::manifest::row::event::DeliveryRecord;
use crate::manifest::row::event::EndpointTrouble;
use crate::manifest::row::event::Event;
use crate::manifest::row::waiting::Waiting;
use crate::model::asset::AssetIndex;
use crate::model::asset::MediaType;
use crate::model::event::EndpointName;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::model::task::TaskError;
use crate::units::Span;

/// Claimed rows.
impl<R: EngineRow> Columns<'_, R> {
    /// In which order claimed rows are worked on.
    pub(in crate::manifest) fn urgency(
        &self,
        due: &'static str,
    ) -> Result<(Timestamp, Timestamp, i64), R::Fault> {
        Ok((self.instant("deadline_at")?, self.instant(due)?, self.id))
    }

    /// A task that was just claimed.
    pub(in crate::manifest) fn claimed_task(&self) -> Result<ClaimedTask, R::Fault> {
        Ok(ClaimedTask {
            lease: self.lease()?,
            key: self.task_key()?,
            state: self.word("state")?,
            tags: self.tags()?,
            model: self.get("model")?,
            kind: self.get("kind")?,
            learned_at: self.instant("learned_at")?,
            created_at: self.instant_opt("created_at")?,
            last_unfinished_at: self.instant_opt("last_unfinished_at")?,
            status: self.get("status")?,
            percent: self.number_opt("percent")?,
            has_error: self.get::<Option<String>>("error")?.is_some(),
            deadline: self.deadline()?,
            looks: self.number("looks")?,
            misses: self.number("misses")?,
            attempts: self.number("attempts")?,
            is_asked_for: self.instant("next_look_at")? <= Timestamp::EPOCH,
        })
    }

    /// An asset that was just claimed.
    pub(in crate::manifest) fn claimed_asset(
        &self,
        objects: Vec<ClaimedObject>,
    ) -> Result<ClaimedAsset, R::Fault> {
        Ok(ClaimedAsset {
            lease: self.lease()?,
            task: self.task_key()?,
            tags: self.tags()?,
            model: self.get("model")?,
            created_at: self.instant("created_at")?,
            waits_since: self.instant("waits_since")?,
            index: AssetIndex(self.number("asset_index")?),
            role: self.word("role")?,
            url: self.url("url")?,
            deadline: self.deadline()?,
            attempts: self.number("attempts")?,
            task_deadline_at: self.instant("task_deadline_at")?,
            refresh_asked_at: self.instant_opt("refresh_asked_at")?,
            is_refresh_pending: self.get("is_refresh_pending")?,
            objects,
        })
    }

    /// An object of a claimed asset, with the parts of its open upload.
    pub(in crate::manifest) fn claimed_object(
        &self,
        parts: Vec<PartRow>,
    ) -> Result<ClaimedObject, R::Fault> {
        Ok(ClaimedObject {
            row: self.id,
            destination: self.word("destination")?,
            state: self.word("state")?,
            key_template: self.word("key_template")?,
            name: self.object_name()?,
            upload: self.open_upload(parts)?,
        })
    }

    fn object_name(&self) -> Result<Option<ObjectName>, R::Fault> {
        let Some(key) = self.word_opt("key")? else {
            return Ok(None);
        };
        Ok(Some(ObjectName {
            key,
            nonce: self.get("nonce")?,
            media: MediaType {
                content_type: self.get("content_type")?,
                extension: self.get("extension")?,
            },
            named_at: self.instant("named_at")?,
        }))
    }

    fn open_upload(&self, parts: Vec<PartRow>) -> Result<Option<OpenUpload>, R::Fault> {
        let Some(id) = self.get("upload_id")? else {
            return Ok(None);
        };
        Ok(Some(OpenUpload {
            id: UploadId(id),
            part_size: self.number("part_size")?,
            source: self.source(["upload_etag", "upload_last_modified", "upload_length"])?,
            parts,
        }))
    }

    /// A part that was stored.
    pub(in crate::manifest) fn part(&self) -> Result<PartRow, R::Fault> {
        Ok(PartRow {
            number: PartNumber(self.number("number")?),
            length: self.number("length")?,
            etag: ETag(self.get("etag")?),
            crc64nvme: self.word("crc64nvme")?,
            progress: self.get("progress")?,
        })
    }

    /// An orphan that was just claimed.
    pub(in crate::manifest) fn claimed_orphan(&self) -> Result<ClaimedOrphan, R::Fault> {
        Ok(ClaimedOrphan {
            lease: self.lease()?,
            destination: self.word("destination")?,
            key: self.word("key")?,
            upload: UploadId(self.get("upload_id")?),
            attempts: self.number("attempts")?,
        })
    }

    /// A delivery that was just claimed, with its event.
    pub(in crate::manifest) fn claimed_delivery(&self) -> Result<ClaimedDelivery, R::Fault> {
        let endpoint: EndpointName = self.word("endpoint")?;
        let callback = if endpoint.is_callback() {
            Some(self.url("callback_url")?)
        } else {
            None
        };
        Ok(ClaimedDelivery {
            lease: self.lease()?,
            endpoint,
            callback,
            message_id: self.get("message_id")?,
            event: self.event(self.get("event")?)?,
            begun_at: self.instant("begun_at")?,
            attempts: self.number("attempts")?,
        })
    }

    /// A list that was just claimed.
    pub(in crate::manifest) fn claimed_discovery(&self) -> Result<ClaimedDiscovery, R::Fault> {
        let pass = match self.instant_opt("pass_began_at")? {
            None => None,
            Some(began_at) => Some(Pass {
                began_at,
                round: self.number("pass_round")?,
                place: self.get("pass_place")?,
                pages: self.number("pass_pages")?,
                learned: self.number("pass_learned")?,
            }),
        };
        Ok(ClaimedDiscovery {
            lease: self.lease()?,
            provider: self.word("provider")?,
            since: self.instant_opt("since_at")?,
            discovery: Discovery {
                complete_to: self.instant_opt("complete_to")?,
                pass,
                has_list: self.get("has_list")?,
            },
            attempts: self.number("attempts")?,
        })
    }
}

/// Rows as people see them.
impl<R: EngineRow> Columns<'_, R> {
    /// A task, without its assets.
    pub(in crate::manifest) fn task_record(&self) -> Result<TaskRecord, R::Fault> {
        let code: Option<String> = self.get("task_error_code")?;
        let message: Option<String> = self.get("task_error_message")?;
        let learned_at = self.instant("learned_at")?;
        Ok(TaskRecord {
            row: self.id,
            key: self.task_key()?,
            state: self.word("state")?,
            tags: self.tags()?,
            model: self.get("model")?,
            kind: self.get("kind")?,
            created_at: self.instant_opt("created_at")?,
            completed_at: self.instant_opt("completed_at")?,
            learned_at,
            learned_via: self.word("learned_via")?,
            deadline: self.deadline()?,
            // What is asked for stands before all times.
            next_look_at: self
                .instant_opt("next_look_at")?
                .map(|at| at.max(learned_at)),
            status: self.get("status")?,
            percent: self.number_opt("percent")?,
            estimate: self.number_opt("estimate_ms")?.map(Span::from_millis),
            attempts: self.number("attempts")?,
            error: self.get("error")?,
            task_error: code
                .zip(message)
                .map(|(code, message)| TaskError { code, message }),
            assets: Vec::new(),
        })
    }

    /// An asset.
    pub(in crate::manifest) fn asset_record(
        &self,
        objects: Vec<ObjectRecord>,
    ) -> Result<AssetRecord, R::Fault> {
        Ok(AssetRecord {
            index: AssetIndex(self.number("asset_index")?),
            role: self.word("role")?,
            state: self.word("state")?,
            url: self.url("url")?,
            deadline: self.deadline()?,
            due_at: self.instant_opt("due_at")?,
            attempts: self.number("attempts")?,
            error: self.get("error")?,
            source: self.source(["source_etag", "source_last_modified", "source_length"])?,
            size: self.number_opt("size")?,
            content_type: self.get("content_type")?,
            media: self.media()?,
            sha256: self.word_opt("sha256")?,
            crc64nvme: self.word_opt("crc64nvme")?,
            archived_at: self.instant_opt("archived_at")?,
            objects,
        })
    }

    /// An object, with what is there of it.
    pub(in crate::manifest) fn object_record(&self) -> Result<ObjectRecord, R::Fault> {
        let parts_there = self.number_opt("parts_there")?;
        Ok(ObjectRecord {
            destination: self.word("destination")?,
            state: self.word("state")?,
            key: self.word_opt("key")?,
            nonce: self.get("nonce")?,
            size: self.number_opt("size")?,
            crc64nvme: self.word_opt("crc64nvme")?,
            etag: self.get::<Option<String>>("etag")?.map(ETag),
            version_id: self.get("version_id")?,
            parts: parts_there.map_or_else(|| self.number("parts"), Ok)?,
            bytes_stored: self.number("bytes_there")?,
            verified: self.word_opt("verified")?,
            archived_at: self.instant_opt("archived_at")?,
        })
    }

    /// What is in danger.
    pub(in crate::manifest) fn at_risk(&self) -> Result<AtRisk, R::Fault> {
        Ok(AtRisk {
            task: self.task_key()?,
            index: self.number_opt("asset_index")?.map(AssetIndex),
            deadline: self.deadline()?,
            error: self.get("error")?,
        })
    }

    /// What many wait for.
    pub(in crate::manifest) fn waiting(&self) -> Result<Waiting, R::Fault> {
        Ok(Waiting {
            what: self.get("what")?,
            provider: self.word("provider")?,
            rows: self.number("waiting")?,
            error: self.get("error")?,
        })
    }

    /// An event out of a row that holds its columns and the names of its task.
    pub(in crate::manifest) fn event(&self, number: i64) -> Result<Event, R::Fault> {
        Ok(Event {
            number,
            kind: self.word("kind")?,
            task: self.task_key()?,
            index: self.number_opt("asset_index")?.map(AssetIndex),
            reason: self.get("reason")?,
            at: self.instant("at")?,
        })
    }

    /// A delivery of an event.
    pub(in crate::manifest) fn delivery_record(&self) -> Result<DeliveryRecord, R::Fault> {
        Ok(DeliveryRecord {
            endpoint: self.word("endpoint")?,
            message_id: self.get("message_id")?,
            state: self.word("state")?,
            due_at: self.instant_opt("due_at")?,
            attempts: self.number("attempts")?,
            error: self.get("error")?,
        })
    }

    /// How an endpoint is that does not work.
    pub(in crate::manifest) fn trouble(&self) -> Result<EndpointTrouble, R::Fault> {
        Ok(EndpointTrouble {
            endpoint: self.word("name")?,
            failing_since: self.instant("failing_since")?,
            disabled_at: self.instant_opt("disabled_at")?,
            error: self.get("error")?,
        })
    }
}
