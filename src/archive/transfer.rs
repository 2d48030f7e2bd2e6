//! One asset: what each of its objects needs, and one download for all of them that need bytes.
//!
//! ```text
//! objects --look--> proven already                                   -> row
//!             |---> all parts there                                  -> finish, prove -> row
//!             `---> wants bytes --slot--> GET --.-> delivery: parts -> finish, prove -> row
//!                                               `-> delivery: ...
//! ```
//! Each object has its own outcome: one that fails keeps none from being archived.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join;
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use crate::archive::Config;
use crate::archive::bandwidth::Bandwidth;
use crate::archive::delivery::Delivery;
use crate::archive::delivery::Need;
use crate::archive::delivery::Way;
use crate::archive::download::Download;
use crate::archive::download::Facts;
use crate::archive::download::ReadError;
use crate::archive::gauge::Gauge;
use crate::archive::gauge::Line;
use crate::archive::gauge::Moving;
use crate::archive::length;
use crate::archive::parts::Held;
use crate::archive::parts::hold_all;
use crate::archive::parts::missed;
use crate::archive::progress::Progress;
use crate::archive::slots::Slot;
use crate::archive::slots::Slots;
use crate::archive::source::Source;
use crate::archive::source::SpareLanes;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::http::pace;
use crate::manifest::Manifest;
use crate::manifest::row::ClaimedAsset;
use crate::manifest::row::ClaimedObject;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::failure::Failure;
use crate::model::failure::Verdict;
use crate::model::object::PartNumber;
use crate::origin::OriginError;
use crate::origin::open::Origin;
use crate::origin::open::Window;
use crate::origin::reading::Patience;
use crate::origin::reading::Reading;
use crate::telemetry::metrics::Metrics;
use crate::units::ByteSize;
use crate::work::budget::Budget;
use crate::work::settle::BLOCKED_PAUSE;

/// Over how long it is judged whether a transfer is slow.
const SLOW_JUDGED_OVER: Duration = Duration::from_secs(5);

/// A transfer that moves fewer bytes a second makes room for others: ten of them would not fill any line.
const SLOW_RATE: u64 = 1 << 20;

/// Everything that one asset's way needs.
pub(crate) struct Transfer<'a> {
    /// The asset under lease.
    pub(crate) asset: &'a ClaimedAsset,
    /// Where it comes from.
    pub(crate) origin: Origin,
    /// Where it is recorded.
    pub(crate) manifest: &'a Manifest,
    /// `[transfer]`
    pub(crate) config: &'a Config,
    /// What the parts of all transfers may hold.
    pub(crate) budget: &'a Budget,
    /// Connections beyond one a download.
    pub(crate) spare: &'a SpareLanes,
    /// Whose bytes move now.
    pub(crate) slots: &'a Slots,
    /// The limit on all downloads.
    pub(crate) bandwidth: &'a Bandwidth,
    /// What moves now.
    pub(crate) gauge: &'a Gauge,
    /// What is counted.
    pub(crate) metrics: &'a Metrics,
    /// Wall time.
    pub(crate) clock: &'a Clock,
    /// For nonces and jitter.
    pub(crate) dice: &'a Dice,
    /// Asks the transfer to end at the next part.
    pub(crate) stop: &'a CancellationToken,
    /// Whether the asset nears its deadline.
    pub(crate) is_urgent: bool,
    /// Whether an upload got further than any try before has brought it.
    pub(crate) has_gained: AtomicBool,
}

impl Transfer<'_> {
    /// Takes each object as far as it goes: to its proof, if nothing fails. Some were `refused` before they began. The
    /// failure is the one that decides what becomes of the asset.
    pub(crate) async fn run(
        &self,
        deliveries: Vec<Delivery<'_>>,
        refused: Vec<Failure>,
    ) -> Result<(), Failure> {
        let look = self.slots.look().await;
        let mut outcomes: Vec<_> = refused.into_iter().map(Err).collect();
        // Others may have found a destination shut while this one waited for its turn.
        let mut admitted = Vec::new();
        for delivery in &deliveries {
            match delivery.admit() {
                Ok(()) => admitted.push(delivery),
                Err(shut) => outcomes.push(Err(shut)),
            }
        }
        let looking = async {
            let looked = join_all(admitted.iter().map(|delivery| delivery.look())).await;
            // An origin that takes its time keeps nobody from looking.
            drop(look);
            looked
        };
        let (looked, early) = match self.early_slot(&admitted) {
            Some(slot) => {
                let (looked, opened) = join(looking, self.open_at(0, None)).await;
                (looked, Some((slot, opened)))
            }
            None => (looking.await, None),
        };
        let (mut wanting, mut completing) = (Vec::new(), Vec::new());
        for (delivery, looked) in admitted.into_iter().zip(looked) {
            match looked {
                Ok(Need::Nothing(proof)) => outcomes.push(delivery.mark(&proof).await),
                Ok(Need::Completion(whole)) => completing.push(delivery.complete(whole)),
                Ok(need) => wanting.push((delivery, need)),
                Err(failure) => outcomes.push(Err(failure)),
            }
        }
        // A store that takes its time to complete keeps no other from its bytes.
        let (completed, brought) =
            join(join_all(completing), Box::pin(self.bring(wanting, early))).await;
        outcomes.extend(completed.into_iter().chain(brought));
        worst(outcomes)
    }

    /// Brings the bytes to all who want some, in the slot and with the body that are there already, or in one of its own.
    async fn bring(
        &self,
        wanting: Vec<(&Delivery<'_>, Need)>,
        early: Option<(Slot, Result<Source, OriginError>)>,
    ) -> Vec<Result<(), Failure>> {
        if wanting.is_empty() {
            return Vec::new();
        }
        let (slot, opened) = match early {
            Some((slot, opened)) => (slot, Some(opened)),
            None => (self.slots.take(self.is_urgent).await, None),
        };
        if self.stop.is_cancelled() {
            return vec![Err(Failure::drained())];
        }
        // Others may have found a destination shut meanwhile.
        let (mut admitted, mut outcomes) = (Vec::new(), Vec::new());
        for (delivery, need) in wanting {
            match delivery.admit() {
                Ok(()) => admitted.push((delivery, need)),
                Err(shut) => outcomes.push(Err(shut)),
            }
        }
        if !admitted.is_empty() {
            outcomes.extend(self.download(admitted, Arc::new(slot), opened).await);
        }
        outcomes
    }

    /// A slot that nobody else waits for, where it is plain that the body will be wanted from its first byte.
    fn early_slot(&self, deliveries: &[&Delivery<'_>]) -> Option<Slot> {
        let is_new = deliveries
            .iter()
            .all(|delivery| delivery.object.name.is_none());
        if deliveries.is_empty() || !is_new {
            return None;
        }
        self.slots.take(self.is_urgent).now_or_never()
    }

    /// Feeds all who want bytes from one download, which may have been opened already.
    async fn download(
        &self,
        mut wanting: Vec<(&Delivery<'_>, Need)>,
        slot: Arc<Slot>,
        opened: Option<Result<Source, OriginError>>,
    ) -> Vec<Result<(), Failure>> {
        let opened = match opened {
            Some(opened) => opened.map(|source| (source, self.nothing_read())),
            None => self.open(&mut wanting).await,
        };
        let opened = match opened {
            Ok((mut source, progress)) if source.offset() == 0 => {
                source.head().await.map(|head| (source, progress, head))
            }
            opened => opened.map(|(source, progress)| (source, progress, Vec::new())),
        };
        let (source, progress, head) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let failing = wanting.into_iter();
                let failing =
                    failing.map(|(delivery, need)| delivery.without_origin(need, error.clone()));
                return join_all(failing).await;
            }
        };
        let facts = source.facts();
        let strides = wanting
            .iter()
            .map(|(delivery, need)| delivery.stride(need, &facts))
            .collect();
        let (download, pump) = Download::new(source, progress, strides, self.bandwidth.clone());
        let ways: Vec<Way<'_>> = wanting
            .iter()
            .map(|(delivery, need)| {
                let (offset, progress) = need.start();
                let line = self.enter(delivery, facts.identity.length, offset);
                Way {
                    reader: download.reader(offset, progress, line),
                    download: download.clone(),
                    head: &head,
                    _slot: Arc::clone(&slot),
                }
            })
            .collect();
        let pace = Arc::downgrade(&slot);
        drop(slot);
        let deliveries = wanting
            .into_iter()
            .zip(ways)
            .map(|((delivery, need), way)| delivery.deliver(need, way));
        // All arms are polled by reference or run to their end: nothing is lost between two turns.
        tokio::select! {
            biased;
            outcomes = join_all(deliveries) => outcomes,
            never = pump.run() => match never {},
            never = make_room_when_slow(&download, &pace) => match never {},
        }
    }

    /// Opens the origin where the first of those who want bytes goes on. Who resumes another version than the one
    /// that is there now begins again.
    async fn open(
        &self,
        wanting: &mut Vec<(&Delivery<'_>, Need)>,
    ) -> Result<(Source, Progress), OriginError> {
        let first = wanting
            .iter()
            .filter_map(|(_, need)| need.resumption())
            .min_by_key(|resume| resume.missing.offset)
            .filter(|_| wanting.iter().all(|(_, need)| need.resumption().is_some()));
        if let Some(resume) = first
            && let Some(progress) = Progress::load(&resume.progress)
        {
            let offset = resume.missing.offset;
            match self.open_at(offset, Some(&resume.source.clone())).await {
                Ok(source) => {
                    begin_others_again(wanting, &source.facts().identity).await;
                    if wanting.iter().all(|(_, need)| need.resumption().is_some()) {
                        tracing::info!(offset = %ByteSize::bytes(offset), "resuming");
                        return Ok((source, progress));
                    }
                }
                Err(OriginError::Changed { .. } | OriginError::NoRange { .. }) => {
                    for (delivery, need) in wanting.iter_mut() {
                        delivery.begin_again(need).await;
                    }
                }
                // It may be the range that is not understood. Who resumes joins a download from the first byte, too.
                Err(error) if error.may_be_of_range() => {}
                Err(error) => return Err(error),
            }
        }
        let source = self.open_at(0, None).await?;
        begin_others_again(wanting, &source.facts().identity).await;
        Ok((source, self.nothing_read()))
    }

    fn nothing_read(&self) -> Progress {
        Progress::new(self.config.verify.sha256)
    }

    async fn open_at(
        &self,
        offset: u64,
        expected: Option<&SourceIdentity>,
    ) -> Result<Source, OriginError> {
        Source::open(
            self.origin.clone(),
            offset,
            expected,
            self.patience(),
            self.spare.clone(),
        )
        .await
    }

    /// The whole of a file of which the first reading told `facts`, into memory that was taken from the budget.
    pub(crate) async fn fetch_whole(&self, facts: &Facts) -> Result<Held, Failure> {
        let of_origin = |error| self.of_origin(&error);
        let (origin, identity) = (self.origin.clone(), Some(&facts.identity));
        let reading = Reading::open_patiently(origin, Window::ALL, identity, self.patience());
        let reading = reading.await.map_err(of_origin)?;
        hold_all(reading, self.bandwidth).await.map_err(of_origin)
    }

    /// Length and checksum of a second reading of the whole body.
    pub(crate) async fn read_again(&self) -> Result<(u64, Crc64), Failure> {
        let of_origin = |error| self.of_origin(&error);
        let reading = Reading::open(self.origin.clone(), Window::ALL, None, self.patience());
        let mut reading = reading.await.map_err(of_origin)?;
        let (mut read, mut crc) = (0, Crc64Digester::new());
        while let Some(frame) = reading.next().await.map_err(of_origin)? {
            self.bandwidth.pass(length(&frame)).await;
            crc.update(&frame);
            read += length(&frame);
            self.check_size(read)?;
        }
        Ok((read, crc.value()))
    }

    pub(crate) fn patience(&self) -> Patience {
        let stall = self.config.stall_timeout;
        Patience {
            stall,
            answer: Patience::answer_within(stall, self.asset.attempts),
            rate_min: Patience::rate_after(self.config.rate_min, self.asset.attempts),
        }
    }

    fn enter(&self, delivery: &Delivery<'_>, length: Option<u64>, bytes: u64) -> Line {
        self.gauge.enter(Moving {
            task: self.asset.task.clone(),
            index: self.asset.index,
            destination: delivery.object.destination.clone(),
            length,
            bytes,
        })
    }

    /// Takes note of a part that was recorded. One that is stored anew, since a try began again, is no gain.
    pub(crate) fn note_part(&self, object: &ClaimedObject, number: PartNumber) {
        let before = object.upload.iter().flat_map(|upload| &upload.parts);
        if before.map(|part| part.number).max() < Some(number) {
            self.has_gained.store(true, Ordering::Relaxed);
        }
    }

    /// A body that cannot be what was asked for: an origin's bad moment before the deadline, its last word after.
    pub(crate) fn refuse_late(&self, what: String) -> Failure {
        if self.clock.now() < self.asset.deadline.at {
            Failure::retry(what)
        } else {
            Failure::dead(what)
        }
    }

    /// Refuses what is over the limit.
    pub(crate) fn check_size(&self, length: u64) -> Result<(), Failure> {
        let size_max = self.config.size_max;
        if length <= size_max.as_u64() {
            return Ok(());
        }
        let length = ByteSize::bytes(length);
        Err(Failure::dead(format!(
            "the body is {length} or more, transfer.size_max is {size_max}"
        )))
    }

    /// What it means for the asset that bytes of its download were not to be had.
    pub(crate) fn of_read(&self, error: ReadError) -> Failure {
        match error {
            ReadError::Origin(error) => self.of_origin(&error),
            ReadError::Missed => missed(),
        }
    }

    /// What an origin's error means for the asset.
    pub(crate) fn of_origin(&self, error: &OriginError) -> Failure {
        match error {
            OriginError::Gone { .. } => Failure::gone(error.to_string()),
            OriginError::Status { retry_after, .. } => {
                let now = self.clock.now();
                match retry_after.as_deref().and_then(|it| come_again(it, now)) {
                    Some(until) => Failure::retry_after(until, error.to_string()),
                    None => Failure::retry(error.to_string()),
                }
            }
            OriginError::Changed { .. }
            | OriginError::NoRange { .. }
            | OriginError::Redirect { .. }
            | OriginError::Encoded { .. }
            | OriginError::Short { .. }
            | OriginError::Trickle { .. }
            | OriginError::Stalled { .. }
            | OriginError::Http(_) => Failure::retry(error.to_string()),
        }
    }
}

/// Until when a `Retry-After` of an origin is heeded.
fn come_again(retry_after: &str, now: Timestamp) -> Option<Timestamp> {
    let asked = pace::retry_after(retry_after, now)?;
    Some(now.plus(asked.min(BLOCKED_PAUSE)))
}

/// Who resumes another version of the file than the one that is there now begins again.
async fn begin_others_again(wanting: &mut [(&Delivery<'_>, Need)], now: &SourceIdentity) {
    for (delivery, need) in wanting {
        let is_other = need.resumption().is_some_and(|resume| {
            resume.source.validator() != now.validator() || resume.source.length != now.length
        });
        if is_other {
            delivery.begin_again(need).await;
        }
    }
}

/// Watches how a download moves; one that is slow goes on in a slot of its own kind.
async fn make_room_when_slow(download: &Download, slot: &std::sync::Weak<Slot>) -> Infallible {
    let mut before = download.head();
    loop {
        tokio::time::sleep(SLOW_JUDGED_OVER).await;
        let head = download.head();
        let is_slow = head.saturating_sub(before) < SLOW_RATE * SLOW_JUDGED_OVER.as_secs();
        before = head;
        if is_slow
            && let Some(slot) = slot.upgrade()
            && slot.make_room()
        {
            break;
        }
    }
    std::future::pending().await
}

/// The failure that decides for all: one that goes on beats one that ends. A link that is dead is not forgotten over it.
fn worst(outcomes: Vec<Result<(), Failure>>) -> Result<(), Failure> {
    let rank = |failure: &Failure| match failure.verdict() {
        Verdict::Drained => 4,
        Verdict::Retry | Verdict::RetryAfter(_) => 3,
        Verdict::Gone | Verdict::Wrong => 2,
        Verdict::WaitUntil(_) => 1,
        Verdict::Dead => 0,
    };
    let failures: Vec<Failure> = outcomes.into_iter().filter_map(Result::err).collect();
    let has_dead_link = failures.iter().any(Failure::has_dead_link);
    match failures.into_iter().max_by_key(rank) {
        Some(worst) if has_dead_link => Err(worst.with_dead_link()),
        Some(worst) => Err(worst),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Span;

    #[test]
    fn an_origin_is_heeded_in_seconds_and_in_dates_for_a_minute() {
        let now = Timestamp::parse("2026-11-24T14:00:00Z").unwrap();
        let check = |value: &str, seconds: Option<u64>| {
            let until = seconds.map(|seconds| now.plus(Span::from_secs(seconds)));
            assert_eq!(come_again(value, now), until, "{value}");
        };
        check("7", Some(7));
        check("0", Some(0));
        check("86400", Some(60));
        check("99999999999999999999", Some(60));
        check("Tue, 24 Nov 2026 14:00:30 GMT", Some(30));
        check("Wed, 25 Nov 2026 14:00:00 GMT", Some(60));
        check("Wed, 21 Oct 2015 07:28:00 GMT", Some(0));
        check("soon", None);
    }
}
