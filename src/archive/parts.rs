//! A body on its way into an open upload: cut into parts, each passed through frame by frame as it comes, or filled
//! first where the store or the origin demands it; each recorded in the manifest once the store has it.
//!
//! ```text
//!        reader (in order)                              a request of its own, by range
//!           |  frames                                      |
//!   part n-1 |  part n (being fed)   |  part n+1 ...     part m, which failed or was missed
//!      |           |                                       |
//!   put_part    put_part   at most `parts_at_once` requests in flight
//! ```
//! A part that is fetched again is compared with what was read the first time.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::future::Future;

use bytes::Bytes;
use bytes::BytesMut;
use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::delivery::Delivery;
use crate::archive::delivery::Way;
use crate::archive::download::Download;
use crate::archive::download::ReadError;
use crate::archive::download::Reader;
use crate::archive::length;
use crate::archive::plan;
use crate::archive::plan::Slot;
use crate::archive::progress::Progress;
use crate::manifest::row::ObjectName;
use crate::manifest::row::PartRow;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::failure::Failure;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::origin::OriginError;
use crate::origin::reading::Reading;
use crate::store::StoreErrorKind;
use crate::store::WrittenPart;
use crate::work::budget::Share;

mod sender;

use sender::Sender;
pub(crate) use sender::is_long_silence;

/// A shorter frame takes about as much memory besides its bytes.
const SHORT_FRAME: usize = 4096;

/// As many bytes of short frames become one.
const JOINED_FRAME: usize = 64 * 1024;

/// Where a stream of parts goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The object's name.
    pub(crate) name: ObjectName,
    /// The open upload.
    pub(crate) upload: UploadId,
    /// The length of every part but the last.
    pub(crate) part_size: u64,
}

/// Bytes held in memory, in the frames that they came in, unless those were short.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// The frames.
    pub(crate) frames: Vec<Bytes>,
    /// Their length together.
    pub(crate) length: u64,
    /// Their checksum.
    pub(crate) crc64nvme: Crc64,
}

/// Bytes on their way into memory.
#[derive(Default)]
struct Holding {
    held: Held,
    crc: Crc64Digester,
    /// Short frames, copied together: as they came, each would keep a buffer of its own.
    short: BytesMut,
}

impl Holding {
    fn push(&mut self, frame: Bytes) {
        self.crc.update(&frame);
        self.held.length += length(&frame);
        if frame.len() < SHORT_FRAME {
            self.short.extend_from_slice(&frame);
            if self.short.len() < JOINED_FRAME {
                return;
            }
            self.join();
        } else {
            self.join();
            self.held.frames.push(frame);
        }
    }

    fn join(&mut self) {
        if !self.short.is_empty() {
            self.held.frames.push(self.short.split().freeze());
        }
    }

    fn finish(mut self) -> Held {
        self.join();
        self.held.crc64nvme = self.crc.value();
        self.held
    }
}

/// Parts on their way.
pub(crate) struct Parts<'a> {
    delivery: &'a Delivery<'a>,
    download: Download,
    reader: Reader,
    sender: Sender<'a>,
    is_passed_through: bool,
    stored: BTreeMap<PartNumber, PartRow>,
    /// Stored, in flight, or put down to be fetched again.
    taken: BTreeSet<PartNumber>,
    /// Everything before this offset is taken.
    taken_to: u64,
    in_flight: FuturesUnordered<BoxFuture<'a, Landed>>,
    failed: VecDeque<Slot>,
    /// Whether the store took a part of this upload in this try, and whether it refused one for good.
    has_stored: bool,
    was_rejected: bool,
}

/// How a request for one part ended; a part that the store has is recorded.
struct Landed {
    slot: Slot,
    outcome: Result<Result<PartRow, Failure>, sender::Trouble>,
}

/// A part that the store has.
struct Sent {
    written: WrittenPart,
    /// The checksum of what was sent, where it was not read from the download.
    crc64nvme: Option<Crc64>,
}

/// The first part that is missing in a body of `total` bytes, of which those that are `stored` are told in their order;
/// `None` when all are.
pub(crate) fn first_missing(stored: &[PartRow], total: u64, part_size: u64) -> Option<Slot> {
    let in_a_row = stored.iter().zip(1..);
    let in_a_row = in_a_row.take_while(|(row, number)| row.number.0 == *number);
    let offset = part_size.checked_mul(u64::try_from(in_a_row.count()).ok()?)?;
    plan::slot_at(offset, total, part_size)
}

/// What is known of the body up to `slot`, where it was kept; the start of the body needs nothing kept.
pub(crate) fn progress_before(stored: &[PartRow], slot: Slot, has_sha256: bool) -> Option<Vec<u8>> {
    if slot.offset == 0 {
        return Some(Progress::new(has_sha256).save());
    }
    let before = stored.iter().find(|row| row.number.0 + 1 == slot.number.0);
    let progress = before?.progress.clone()?;
    Progress::load(&progress).map(|_| progress)
}

impl<'a> Parts<'a> {
    /// Parts for `target`, of which `stored` are there already.
    pub(crate) fn new(
        delivery: &'a Delivery<'a>,
        way: &Way<'_>,
        target: Target,
        stored: Vec<PartRow>,
    ) -> Self {
        let is_passed_through = delivery.passes_through(way.download.facts());
        Self {
            delivery,
            download: way.download.clone(),
            reader: way.reader.clone(),
            sender: Sender::new(delivery, target, &way.download),
            is_passed_through,
            taken: stored.iter().map(|part| part.number).collect(),
            stored: stored.into_iter().map(|part| (part.number, part)).collect(),
            taken_to: 0,
            in_flight: FuturesUnordered::new(),
            failed: VecDeque::new(),
            has_stored: false,
            was_rejected: false,
        }
    }

    /// Stores every missing part of a body with `total` bytes, and gives back all parts, by number.
    pub(crate) async fn store_all(mut self, total: u64) -> Result<Vec<PartRow>, Failure> {
        let outcome = self.cut(total).await;
        self.end(outcome).await
    }

    /// Stores a body whose length nobody told, beginning with `first`, which is one full part held under `share`.
    pub(crate) async fn store_until_end(
        mut self,
        first: Held,
        share: Share,
    ) -> Result<Vec<PartRow>, Failure> {
        let outcome = self.cut_until_end(first, share).await;
        self.end(outcome).await
    }

    /// What is in flight lands whatever happened, so that no finished part is lost.
    async fn end(mut self, outcome: Result<(), Failure>) -> Result<Vec<PartRow>, Failure> {
        let mut outcome = outcome;
        while let Some(landed) = self.in_flight.next().await {
            outcome = outcome.and(self.land(landed));
        }
        if self.was_rejected && !self.has_stored {
            // It may be the upload: one that was opened before a checksum was configured takes no part with one.
            self.delivery.retire().await?;
        }
        outcome?;
        if let Some(slot) = self.failed.front() {
            let what = format!("part {} was not taken", slot.number);
            return Err(Failure::retry(what));
        }
        Ok(self.stored.into_values().collect())
    }

    async fn cut(&mut self, total: u64) -> Result<(), Failure> {
        loop {
            self.check_stop()?;
            self.land_what_landed()?;
            if self.in_flight.len() >= self.delivery.parts_at_once() {
                self.land_next().await?;
            } else if let Some(slot) = self.failed.pop_front() {
                self.fetch_again(slot).await?;
            } else if let Some(slot) = self.next_slot(total) {
                self.write(slot).await?;
            } else if !self.land_next().await? {
                return Ok(());
            }
        }
    }

    async fn cut_until_end(&mut self, first: Held, share: Share) -> Result<(), Failure> {
        let part_size = self.sender.part_size();
        let (mut held, mut share, mut offset) = (first, share, 0);
        while held.length > 0 {
            let end = offset + held.length;
            self.delivery.transfer.check_size(end)?;
            let is_last = held.length < part_size;
            let number = plan::number_at(offset, part_size);
            let number =
                number.ok_or_else(|| Failure::dead("the body goes on after 10,000 parts"))?;
            let slot = Slot {
                number,
                offset,
                length: held.length,
            };
            self.send_held(slot, held, share);
            if is_last {
                break;
            }
            while self.in_flight.len() >= self.delivery.parts_at_once() {
                self.land_next().await?;
            }
            self.check_stop()?;
            share = self.landing(self.delivery.hold(part_size)).await??;
            held = self.fill(end, end + part_size).await?.ok_or_else(missed)?;
            offset = end;
        }
        Ok(())
    }

    fn check_stop(&self) -> Result<(), Failure> {
        if self.delivery.transfer.stop.is_cancelled() {
            Err(Failure::drained())
        } else {
            Ok(())
        }
    }

    /// The next part that nobody has taken up yet.
    fn next_slot(&mut self, total: u64) -> Option<Slot> {
        loop {
            let slot = plan::slot_at(self.taken_to, total, self.sender.part_size())?;
            if !self.taken.contains(&slot.number) {
                return Some(slot);
            }
            self.taken_to = slot.end();
        }
    }

    /// Writes a part from the download, if its bytes are still there.
    async fn write(&mut self, slot: Slot) -> Result<(), Failure> {
        self.taken.insert(slot.number);
        if !self.reader.stands_at(slot.offset) {
            let before = slot.number.0.checked_sub(1).map(PartNumber);
            let before = before.and_then(|before| self.stored.get(&before));
            let progress = before.and_then(|row| row.progress.clone());
            self.reader.seek(slot.offset, progress);
        }
        // Others may be far behind: no request is opened, and nothing held, before there is something to send.
        let download = self.download.clone();
        self.landing(download.reached(slot.offset)).await?;
        let is_read = if self.reader.has_missed(slot.offset) {
            self.failed.push_back(slot);
            false
        } else if self.is_passed_through {
            self.pass_through(slot).await?
        } else {
            let share = self.landing(self.delivery.hold(slot.length)).await??;
            match self.fill(slot.offset, slot.end()).await? {
                Some(held) => {
                    self.send_held(slot, held, share);
                    true
                }
                None => {
                    self.failed.push_back(slot);
                    false
                }
            }
        };
        if !is_read {
            // Passed over: it is fetched again on its own, while the download goes on for the digests and the others.
            self.reader.seek(slot.end(), None);
        }
        Ok(())
    }

    /// Feeds the frames of one part to its request as they come. Whether the request took all of them.
    async fn pass_through(&mut self, slot: Slot) -> Result<bool, Failure> {
        let pass = self.landing(self.delivery.gate.pass()).await?;
        let (body, mut fed) = self.reader.feed(slot.offset, slot.end(), None);
        let sender = self.sender.clone();
        self.start(slot, async move {
            Ok(Sent {
                written: sender.put(slot, body, pass).await?,
                crc64nvme: None,
            })
        });
        let is_read = loop {
            // Both arms are cancel-safe, and what is in flight goes on meanwhile.
            tokio::select! {
                biased;
                is_read = fed.wait() => break is_read,
                Some(landed) = self.in_flight.next() => {
                    let is_own = landed.slot == slot;
                    self.land(landed)?;
                    if is_own {
                        break false;
                    }
                }
            }
        };
        match self.download.failure() {
            Some(error) if !is_read => Err(self.delivery.transfer.of_origin(&error)),
            Some(_) | None => Ok(is_read),
        }
    }

    /// Reads the bytes between two offsets into memory that was taken from the budget; `None` when they were missed.
    async fn fill(&mut self, start: u64, end: u64) -> Result<Option<Held>, Failure> {
        let reader = self.reader.clone();
        match self.landing(fill(&reader, start, end)).await? {
            Ok(held) => Ok(Some(held)),
            Err(ReadError::Missed) => Ok(None),
            Err(error) => Err(self.delivery.transfer.of_read(error)),
        }
    }

    /// Sends a part that is held in memory, as often as it takes within the limit.
    fn send_held(&mut self, slot: Slot, held: Held, share: Share) {
        self.taken.insert(slot.number);
        let sender = self.sender.clone();
        self.start(slot, async move {
            let written = sender.put_held(slot, &held).await;
            drop(share);
            Ok(Sent {
                written: written?,
                crc64nvme: None,
            })
        });
    }

    /// Fetches a part by a request of its own, and sends it.
    async fn fetch_again(&mut self, slot: Slot) -> Result<(), Failure> {
        let sender = self.sender.clone();
        if self.is_passed_through {
            self.start(slot, async move { sender.fetch_and_pass(slot).await });
        } else {
            let share = self.landing(self.delivery.hold(slot.length)).await??;
            self.start(slot, async move {
                let sent = sender.fetch_and_hold(slot).await;
                drop(share);
                sent
            });
        }
        Ok(())
    }

    /// Takes up a request; what the store then has is recorded at once.
    fn start(
        &self,
        slot: Slot,
        sent: impl Future<Output = Result<Sent, sender::Trouble>> + Send + 'a,
    ) {
        let (delivery, download) = (self.delivery, self.download.clone());
        let landed = async move {
            let outcome = match sent.await {
                Ok(sent) => Ok(record(delivery, &download, slot, sent).await),
                Err(trouble) => Err(trouble),
            };
            Landed { slot, outcome }
        };
        self.in_flight.push(landed.boxed());
    }

    /// Waits for something else, while what is in flight goes on.
    async fn landing<T>(&mut self, wait: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(wait);
        loop {
            // Polled by reference, and the next of those in flight is cancel-safe.
            tokio::select! {
                biased;
                done = &mut wait => return Ok(done),
                Some(landed) = self.in_flight.next() => self.land(landed)?,
            }
        }
    }

    fn land_what_landed(&mut self) -> Result<(), Failure> {
        while let Some(Some(landed)) = self.in_flight.next().now_or_never() {
            self.land(landed)?;
        }
        Ok(())
    }

    /// Waits for one request to end; `false` when none is in flight.
    async fn land_next(&mut self) -> Result<bool, Failure> {
        match self.in_flight.next().await {
            Some(landed) => self.land(landed).map(|()| true),
            None => Ok(false),
        }
    }

    /// Takes note of a part that the store has; one that failed in passing is put down to be fetched again.
    fn land(&mut self, landed: Landed) -> Result<(), Failure> {
        let Landed { slot, outcome } = landed;
        let error = match outcome {
            Ok(recorded) => {
                self.stored.insert(slot.number, recorded?);
                self.has_stored = true;
                return Ok(());
            }
            Err(sender::Trouble::Origin(error)) => {
                return Err(self.delivery.transfer.of_origin(&error));
            }
            Err(sender::Trouble::Store(error)) => error,
        };
        self.was_rejected |= error.kind == StoreErrorKind::Rejected;
        match error.kind {
            StoreErrorKind::Transient | StoreErrorKind::Ambiguous | StoreErrorKind::Source
                if self.is_passed_through && !self.sender.has_tried_enough(slot) =>
            {
                tracing::debug!(part = %slot.number, %error, "a part failed");
                self.failed.push_back(slot);
                Ok(())
            }
            StoreErrorKind::Transient
            | StoreErrorKind::Ambiguous
            | StoreErrorKind::Source
            | StoreErrorKind::Blocked
            | StoreErrorKind::Exists
            | StoreErrorKind::Conflict
            | StoreErrorKind::UploadGone
            | StoreErrorKind::Rejected => Err(self.delivery.meaning(&error)),
        }
    }
}

/// Writes down a part that the store has.
async fn record(
    delivery: &Delivery<'_>,
    download: &Download,
    slot: Slot,
    sent: Sent,
) -> Result<PartRow, Failure> {
    let known = download.sum(slot.offset, slot.end()).await;
    let known = known.map_err(|error| delivery.transfer.of_origin(&error))?;
    // A download that went on elsewhere never read this part; the request that did was pinned to the same file.
    let crc64nvme = known.or(sent.crc64nvme);
    let crc64nvme = crc64nvme.ok_or_else(|| Failure::retry("a part was not read in one go"))?;
    if sent.crc64nvme.is_some_and(|sent| sent != crc64nvme) {
        let what = "the origin sent other bytes for a part than before";
        return Err(Failure::retry(what));
    }
    let row = PartRow {
        number: slot.number,
        length: slot.length,
        etag: sent.written.etag,
        crc64nvme,
        progress: download.progress_at(slot.end()),
    };
    delivery.record_part(&row).await?;
    Ok(row)
}

/// Reads the bytes between two offsets, or as many as there are, into memory that was taken from the budget.
pub(crate) async fn fill(reader: &Reader, start: u64, end: u64) -> Result<Held, ReadError> {
    let mut holding = Holding::default();
    while start + holding.held.length < end {
        let Some(frame) = reader.next(end).await? else {
            break;
        };
        holding.push(frame);
    }
    Ok(holding.finish())
}

/// Reads a request of one's own to its end, into memory that was taken from the budget.
pub(crate) async fn hold_all(
    mut reading: Reading,
    bandwidth: &Bandwidth,
) -> Result<Held, OriginError> {
    let mut holding = Holding::default();
    while let Some(frame) = reading.next().await? {
        bandwidth.pass(length(&frame)).await;
        holding.push(frame);
    }
    Ok(holding.finish())
}

/// A destination that waited while the others went on, with a body that cannot be fetched in pieces.
pub(crate) fn missed() -> Failure {
    Failure::retry("the other destinations went ahead; this one is tried on its own")
}
