//! A body on its way into an open upload: cut into parts, each passed through frame by frame as it comes, or filled
//! first where the store or the origin demands it; each recorded in the manifest once the store has it.
//!
//! ```text
//!            cursor (digests in order)
//!               |  frames
//!   part n-1 |  part n (being fed)   |  part n+1 ...
//!      |           |
//!   put_part    put_part         at most `at_once` requests in flight
//! ```
//! A part that fails is fetched again by range and compared with what was read the first time.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::task::JoinSet;

use crate::archive::cursor::Again;
use crate::archive::cursor::Cursor;
use crate::archive::cursor::Held;
use crate::archive::cursor::length;
use crate::archive::plan;
use crate::archive::plan::Slot;
use crate::archive::progress::Progress;
use crate::archive::transfer::Transfer;
use crate::backoff;
use crate::chance::Dice;
use crate::manifest::row::ObjectName;
use crate::manifest::row::PartRow;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::failure::Failure;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::origin::OriginError;
use crate::store::BrokenSource;
use crate::store::PartBody;
use crate::store::PartSlot;
use crate::store::Store;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::work::budget::Share;

/// Tries of one part before the whole transfer is put off; its other parts stay stored.
const PART_TRIES: u32 = 4;

/// Frames on their way between origin and store: one being sent, one being read.
const FRAMES_AHEAD: usize = 1;

/// Where a stream of parts goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The object's name.
    pub name: ObjectName,
    /// The open upload.
    pub upload: UploadId,
    /// The length of every part but the last.
    pub part_size: u64,
}

/// Parts on their way.
pub struct Parts<'a> {
    transfer: &'a Transfer<'a>,
    target: Target,
    is_passed_through: bool,
    stored: BTreeMap<PartNumber, PartRow>,
    read: BTreeMap<PartNumber, ReadPart>,
    in_flight: JoinSet<Landed>,
    failed: Vec<Slot>,
}

/// A part whose bytes went by.
struct ReadPart {
    crc64nvme: Crc64,
    progress: Vec<u8>,
}

/// How a request for one part ended.
struct Landed {
    slot: Slot,
    outcome: Result<ETag, StoreError>,
}

impl<'a> Parts<'a> {
    /// Parts for `target`, of which `stored` are there already.
    pub fn new(
        transfer: &'a Transfer<'a>,
        target: Target,
        stored: Vec<PartRow>,
        is_passed_through: bool,
    ) -> Self {
        Self {
            transfer,
            target,
            is_passed_through,
            stored: stored.into_iter().map(|part| (part.number, part)).collect(),
            read: BTreeMap::new(),
            in_flight: JoinSet::new(),
            failed: Vec::new(),
        }
    }

    /// The first part that is missing in a body of `total` bytes; `None` when all are stored.
    pub fn first_missing(&self, total: u64) -> Option<Slot> {
        plan::slots(total, self.target.part_size)
            .find(|slot| !self.stored.contains_key(&slot.number))
    }

    /// What is known of the body up to `slot`, where it was kept; the start of the body needs nothing kept.
    pub fn progress_before(&self, slot: Slot) -> Option<Progress> {
        let Some(before) = slot.number.0.checked_sub(1).filter(|before| *before > 0) else {
            return Some(Progress::new(self.transfer.config.verify.sha256));
        };
        let before = PartNumber(before);
        let stored = self
            .stored
            .get(&before)
            .and_then(|part| part.progress.as_deref());
        let read = self.read.get(&before).map(|part| part.progress.as_slice());
        Progress::load(stored.or(read)?)
    }

    /// Stores every missing part of a body with `total` bytes, and gives back all parts, by number.
    pub async fn store_all(
        mut self,
        cursor: &mut Cursor,
        total: u64,
    ) -> Result<Vec<PartRow>, Failure> {
        let again = cursor.again();
        let outcome = self.cut(cursor, total).await;
        self.end(&again, outcome).await
    }

    /// Stores a body whose length nobody told, beginning with `first`, which is one full part held under `share`.
    pub async fn store_until_end(
        mut self,
        cursor: &mut Cursor,
        first: Held,
        share: Share,
    ) -> Result<Vec<PartRow>, Failure> {
        let again = cursor.again();
        let outcome = self.cut_until_end(cursor, first, share).await;
        self.end(&again, outcome).await
    }

    /// What is in flight lands whatever happened, so that no finished part is lost.
    async fn end(
        mut self,
        again: &Again,
        outcome: Result<(), Failure>,
    ) -> Result<Vec<PartRow>, Failure> {
        let mut outcome = outcome;
        while let Some(landed) = self.in_flight.join_next().await {
            let recorded = self.land(landed).await;
            outcome = outcome.and(recorded);
        }
        outcome?;
        self.redo_failed(again).await?;
        Ok(self.stored.into_values().collect())
    }

    async fn cut(&mut self, cursor: &mut Cursor, total: u64) -> Result<(), Failure> {
        while let Some(slot) = self.next_slot(total) {
            self.wait_for_room(&cursor.again()).await?;
            let progress = self.progress_before(slot);
            let progress = progress.ok_or_else(|| {
                Failure::retry("the digests kept with the parts are not readable")
            })?;
            let sought = cursor.seek(slot.offset, progress).await;
            sought.map_err(|error| self.transfer.of_origin(&error))?;
            if self.is_passed_through {
                self.pass_through(cursor, slot).await?;
            } else {
                let share = self.transfer.hold(slot.length).await?;
                let held = self.transfer.fill(cursor, slot.length).await?;
                self.send_held(cursor, slot, held, share);
            }
        }
        Ok(())
    }

    async fn cut_until_end(
        &mut self,
        cursor: &mut Cursor,
        first: Held,
        share: Share,
    ) -> Result<(), Failure> {
        let part_size = self.target.part_size;
        let (mut held, mut share) = (first, share);
        while held.length > 0 {
            self.transfer.check_size(cursor.offset())?;
            let is_last = held.length < part_size;
            let offset = cursor.offset() - held.length;
            let number = plan::number_at(offset, part_size);
            let number =
                number.ok_or_else(|| Failure::dead("the body goes on after 10,000 parts"))?;
            self.send_held(
                cursor,
                Slot {
                    number,
                    offset,
                    length: held.length,
                },
                held,
                share,
            );
            if is_last {
                break;
            }
            self.wait_for_room(&cursor.again()).await?;
            share = self.transfer.hold(part_size).await?;
            held = self.transfer.fill(cursor, part_size).await?;
        }
        Ok(())
    }

    /// The next part that is neither stored nor read.
    fn next_slot(&self, total: u64) -> Option<Slot> {
        let is_missing = |slot: &Slot| {
            !self.stored.contains_key(&slot.number) && !self.read.contains_key(&slot.number)
        };
        plan::slots(total, self.target.part_size).find(is_missing)
    }

    /// Waits until one more request may be in flight; what failed meanwhile comes first.
    async fn wait_for_room(&mut self, again: &Again) -> Result<(), Failure> {
        if self.transfer.stop.is_cancelled() {
            return Err(Failure::drained());
        }
        while let Some(landed) = self.in_flight.try_join_next() {
            self.land(landed).await?;
        }
        while self.in_flight.len() >= self.transfer.parts_at_once() {
            let landed = self.in_flight.join_next().await;
            self.land(landed.expect("parts are in flight")).await?;
        }
        self.redo_failed(again).await
    }

    /// Records a part that the store has; one that failed in passing is put down to be done again.
    async fn land(&mut self, landed: Result<Landed, JoinError>) -> Result<(), Failure> {
        let Landed { slot, outcome } = match landed {
            Ok(landed) => landed,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => return Ok(()),
        };
        match outcome {
            Ok(etag) => self.record(slot, etag).await,
            Err(error) => match error.kind {
                StoreErrorKind::Transient | StoreErrorKind::Ambiguous | StoreErrorKind::Source => {
                    tracing::debug!(part = %slot.number, %error, "a part failed");
                    self.failed.push(slot);
                    Ok(())
                }
                StoreErrorKind::Blocked
                | StoreErrorKind::Exists
                | StoreErrorKind::Conflict
                | StoreErrorKind::UploadGone
                | StoreErrorKind::Rejected => Err(self.transfer.of_store(&error)),
            },
        }
    }

    async fn record(&mut self, slot: Slot, etag: ETag) -> Result<(), Failure> {
        // A part that was aborted while being fed was never read to its end, and is not recorded.
        let Some(read) = self.read.get(&slot.number) else {
            return Ok(());
        };
        let row = PartRow {
            number: slot.number,
            length: slot.length,
            etag,
            crc64nvme: read.crc64nvme,
            progress: Some(read.progress.clone()),
        };
        self.transfer.record_part(&row).await?;
        self.stored.insert(slot.number, row);
        Ok(())
    }

    /// Feeds the frames of one part to its request as they come. When the request gives up, the frames still pass
    /// the digests, and the part is fetched again later.
    async fn pass_through(&mut self, cursor: &mut Cursor, slot: Slot) -> Result<(), Failure> {
        let (feed, body) = pipe(slot.length);
        self.spawn_put(slot, body);
        let mut crc = Crc64Digester::new();
        let mut left = slot.length;
        while left > 0 {
            let frame = match cursor.next(left).await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(Failure::retry("the body ended before its length")),
                Err(error) => {
                    // Told to the store's request, so that it ends now and not at its time-out.
                    feed.send(Err(BrokenSource::new(error.to_string())))
                        .await
                        .ok();
                    return Err(self.transfer.of_origin(&error));
                }
            };
            crc.update(&frame);
            left -= length(&frame);
            // An error says that the request is over; its outcome lands like any other.
            feed.send(Ok(frame)).await.ok();
        }
        self.note_read(cursor, slot, crc.value());
        Ok(())
    }

    fn spawn_put(&mut self, slot: Slot, body: PartBody) {
        let (store, target) = (self.transfer.store.clone(), self.target.clone());
        self.in_flight.spawn(async move {
            let outcome = put(&store, &target, slot, body).await;
            Landed { slot, outcome }
        });
    }

    /// Sends a part that is held in memory, as often as it takes within the limit.
    fn send_held(&mut self, cursor: &Cursor, slot: Slot, held: Held, share: Share) {
        self.note_read(cursor, slot, held.crc64nvme);
        let (store, target) = (self.transfer.store.clone(), self.target.clone());
        let dice = self.transfer.dice.clone();
        self.in_flight.spawn(async move {
            let outcome = put_held(&store, &target, slot, held, &dice).await;
            drop(share);
            Landed { slot, outcome }
        });
    }

    fn note_read(&mut self, cursor: &Cursor, slot: Slot, crc64nvme: Crc64) {
        let progress = cursor.progress().save();
        self.read.insert(
            slot.number,
            ReadPart {
                crc64nvme,
                progress,
            },
        );
    }

    /// Fetches the parts that failed again, each on its own and from the start.
    async fn redo_failed(&mut self, again: &Again) -> Result<(), Failure> {
        while let Some(slot) = self.failed.pop() {
            let mut tries = 1;
            loop {
                match self.redo(again, slot).await? {
                    Ok(etag) => break self.record(slot, etag).await?,
                    Err(error) if is_passing(&error) && tries < PART_TRIES => {
                        tries += 1;
                        let pause = backoff::delay(tries, None, self.transfer.dice);
                        tokio::time::sleep(pause.as_duration()).await;
                    }
                    Err(error) => return Err(self.transfer.of_store(&error)),
                }
            }
        }
        Ok(())
    }

    async fn redo(&self, again: &Again, slot: Slot) -> Result<Result<ETag, StoreError>, Failure> {
        let of_origin = |error| self.transfer.of_origin(&error);
        let expected = self.read.get(&slot.number).map(|read| read.crc64nvme);
        if self.is_passed_through {
            let opened = again.open(slot.offset, slot.offset + slot.length).await;
            let mut reading = opened.map_err(of_origin)?;
            let (feed, body) = pipe(slot.length);
            let put = put(self.transfer.store, &self.target, slot, body);
            let fed = async move {
                let mut crc = Crc64Digester::new();
                while let Some(frame) = reading.next().await? {
                    crc.update(&frame);
                    if feed.send(Ok(frame)).await.is_err() {
                        return Ok(None);
                    }
                }
                Ok::<_, OriginError>(Some(crc.value()))
            };
            let (outcome, fed) = tokio::join!(put, fed);
            let fed = fed.map_err(of_origin)?;
            if fed.is_some() && fed != expected {
                return Err(Failure::retry(
                    "the origin sent other bytes for a part than before",
                ));
            }
            return Ok(outcome);
        }
        // A held part has had its tries; what is left is another attempt at the whole, which resumes here.
        Err(Failure::retry(format!(
            "part {} was not taken in {PART_TRIES} tries",
            slot.number
        )))
    }
}

/// A request body of exactly `length` bytes, and the end that feeds it.
pub(crate) fn pipe(length: u64) -> (mpsc::Sender<Result<Bytes, BrokenSource>>, PartBody) {
    let (feed, mut frames) = mpsc::channel(FRAMES_AHEAD);
    let frames = futures::stream::poll_fn(move |context| frames.poll_recv(context)).boxed();
    (feed, PartBody::Stream { length, frames })
}

async fn put(
    store: &Store,
    target: &Target,
    slot: Slot,
    body: PartBody,
) -> Result<ETag, StoreError> {
    let place = PartSlot {
        number: slot.number,
        offset: slot.offset,
    };
    store
        .put_part(&target.name.key, &target.upload, place, body)
        .await
}

async fn put_held(
    store: &Store,
    target: &Target,
    slot: Slot,
    held: Held,
    dice: &Dice,
) -> Result<ETag, StoreError> {
    let mut tries = 1;
    loop {
        let body = PartBody::Filled {
            frames: held.frames.clone(),
            crc64nvme: held.crc64nvme,
        };
        match put(store, target, slot, body).await {
            Err(error) if is_passing(&error) && tries < PART_TRIES => {
                tries += 1;
                tokio::time::sleep(backoff::delay(tries, None, dice).as_duration()).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether the same request may succeed when it is sent again.
fn is_passing(error: &StoreError) -> bool {
    match error.kind {
        StoreErrorKind::Transient | StoreErrorKind::Ambiguous => true,
        StoreErrorKind::Blocked
        | StoreErrorKind::Exists
        | StoreErrorKind::Conflict
        | StoreErrorKind::UploadGone
        | StoreErrorKind::Rejected
        | StoreErrorKind::Source => false,
    }
}
