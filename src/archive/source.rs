//! Where a download comes from: one connection, or several to an origin that gives a single one little; in order always.
//!
//! A body begins on one connection. Where that keeps us waiting, is slow and has long to go, the rest is fetched in
//! stripes by several at once, each pinned to the version of the file that was begun. More are added while that pays.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::future::poll_fn;
use tokio::time::Instant;

use crate::archive::download::Facts;
use crate::archive::length;
use crate::archive::source::lanes::Lanes;
use crate::model::asset::SourceIdentity;
use crate::origin::OriginError;
use crate::origin::inspect::SNIFF_BYTES;
use crate::origin::open::Origin;
use crate::origin::open::Window;
use crate::origin::reading::Patience;
use crate::origin::reading::Reading;
use crate::units::ByteSize;

pub(crate) use lanes::SpareLanes;

mod lanes;
#[cfg(test)]
mod tests;

/// Over how long one judgement is formed: some round trips, and not so long that a film is over by then.
const JUDGED_OVER: Duration = Duration::from_millis(100);

/// A connection that gives more than this, in bytes a second, is not what holds a transfer up.
const SLOW_LANE: u64 = 64 << 20;

/// Further connections do not pay where the rest comes sooner than this by itself.
const WORTH_IT: Duration = Duration::from_millis(400);

/// How much more further connections must bring, in percent of what there was, or they are given up again.
const GAIN_MIN_PERCENT: u64 = 120;

/// By how much the number of connections grows at a time.
const GROWTH: u32 = 4;

/// A body being read in order from some offset on.
pub(crate) struct Source {
    origin: Origin,
    patience: Patience,
    spare: SpareLanes,
    facts: Facts,
    stream: Stream,
    /// Read already, and to be given out next.
    ahead: VecDeque<Bytes>,
    offset: u64,
    lanes_max: u32,
    judge: Judge,
}

enum Stream {
    Single(Box<Reading>),
    Several(Box<Lanes>),
}

impl Source {
    /// Opens `origin` at `offset`; an offset other than zero wants the version of the file that `expected` names.
    /// Where one connection is slow, it takes of the `spare` ones.
    pub(crate) async fn open(
        origin: Origin,
        offset: u64,
        expected: Option<&SourceIdentity>,
        patience: Patience,
        spare: SpareLanes,
    ) -> Result<Self, OriginError> {
        let reading = Reading::open(origin.clone(), from(offset), expected, patience).await?;
        let facts = Facts {
            // An answer to who asked for one version is of that version, however little of it is told again.
            identity: expected.unwrap_or(reading.identity()).clone(),
            is_resumable: reading.is_resumable(),
            is_framed: reading.is_framed(),
        };
        let may_widen = facts.is_resumable && spare.trusts(origin.host());
        Ok(Self {
            origin,
            patience,
            lanes_max: if may_widen { spare.most() } else { 1 },
            spare,
            stream: Stream::Single(Box::new(reading)),
            ahead: VecDeque::new(),
            offset,
            facts,
            judge: Judge::new(),
        })
    }

    /// What the headers said.
    pub(crate) fn facts(&self) -> Facts {
        self.facts.clone()
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The first bytes, as many as sniffing wants; they are given out again by [`Source::next`].
    pub(crate) async fn head(&mut self) -> Result<Vec<u8>, OriginError> {
        let mut head = Vec::with_capacity(SNIFF_BYTES);
        let mut frames = VecDeque::new();
        while head.len() < SNIFF_BYTES {
            let Some(frame) = self.read(u64::MAX).await? else {
                break;
            };
            let wanted = frame.len().min(SNIFF_BYTES - head.len());
            head.extend_from_slice(frame.get(..wanted).unwrap_or_default());
            frames.push_back(frame);
        }
        self.ahead = frames;
        Ok(head)
    }

    /// The next frame, cut to at most `most` bytes; `None` at the end of the body. Cancel-safe.
    pub(crate) async fn next(&mut self, most: u64) -> Result<Option<Bytes>, OriginError> {
        let (read, waited) = waiting(self.read(most)).await;
        let Some(mut frame) = read? else {
            return self.ended();
        };
        self.cut(&mut frame, most);
        self.judge.note(length(&frame), waited);
        self.offset += length(&frame);
        self.adapt();
        Ok(Some(frame))
    }

    /// The end, which is where the length said, or nothing that could be believed.
    fn ended(&self) -> Result<Option<Bytes>, OriginError> {
        match self.facts.identity.length {
            Some(total) if total != self.offset => Err(OriginError::Short {
                host: self.origin.host().to_owned(),
                got: ByteSize::bytes(self.offset),
                length: ByteSize::bytes(total),
            }),
            Some(_) | None => Ok(None),
        }
    }

    /// Goes to `offset` on a connection of its own.
    pub(crate) async fn seek(&mut self, offset: u64) -> Result<(), OriginError> {
        let identity = Some(&self.facts.identity);
        let reading = Reading::open(self.origin.clone(), from(offset), identity, self.patience);
        self.stream = Stream::Single(Box::new(reading.await?));
        self.ahead.clear();
        self.offset = offset;
        self.judge = Judge::new();
        Ok(())
    }

    /// Keeps what of `frame` is beyond `most` for the next call.
    fn cut(&mut self, frame: &mut Bytes, most: u64) {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if frame.len() > most {
            self.ahead.push_front(frame.split_off(most));
        }
    }

    /// Where reading itself stands: what is kept ahead has been read already.
    fn read_to(&self) -> u64 {
        self.offset + self.ahead.iter().map(length).sum::<u64>()
    }

    async fn read(&mut self, most: u64) -> Result<Option<Bytes>, OriginError> {
        loop {
            if let Some(frame) = self.ahead.pop_front() {
                return Ok(Some(frame));
            }
            let lanes = match &mut self.stream {
                Stream::Single(reading) => return reading.next().await,
                Stream::Several(lanes) => lanes,
            };
            match lanes.next(most).await {
                Ok(Some(frame)) => return Ok(Some(frame)),
                Ok(None) if lanes.is_through() => return Ok(None),
                // They did not pay, or there is no memory for what they bring too early.
                Ok(None) => self.alone_again().await?,
                Err(error @ OriginError::Changed { .. }) => {
                    self.lanes_max = 1;
                    self.spare.distrust(self.origin.host());
                    // Whoever answers next may have either version: only the first connection is sure to go on.
                    if !lanes.has_first() {
                        return Err(error);
                    }
                    tracing::info!(%error, "one connection to this origin");
                    self.alone_again().await?;
                }
                Err(error) => {
                    tracing::debug!(%error, "fewer connections to this origin");
                    self.lanes_max = lanes.width() / 2;
                    self.alone_again().await?;
                }
            }
        }
    }

    /// Back to one connection.
    async fn alone_again(&mut self) -> Result<(), OriginError> {
        let first = match &mut self.stream {
            Stream::Several(lanes) => lanes.give_up(),
            Stream::Single(_) => return Ok(()),
        };
        let reading = match first {
            Some((reading, surplus)) => {
                self.ahead.extend(surplus);
                reading
            }
            None => {
                let identity = Some(&self.facts.identity);
                let window = from(self.read_to());
                let origin = self.origin.clone();
                Reading::open_patiently(origin, window, identity, self.patience).await?
            }
        };
        self.stream = Stream::Single(Box::new(reading));
        self.judge = Judge::new();
        Ok(())
    }

    /// More connections, or fewer, by what the last moments showed.
    fn adapt(&mut self) {
        let Some(total) = self.facts.identity.length else {
            return;
        };
        let Some(seen) = self.judge.verdict() else {
            return;
        };
        let read_to = self.read_to();
        let left = total.saturating_sub(read_to);
        if matches!(self.stream, Stream::Single(_)) {
            let is_worth_it = seen.is_slow() && seen.time_for(left) > WORTH_IT;
            if self.lanes_max > 1
                && is_worth_it
                && let Some(base) = self.spare.take()
                && self.spare.has_some()
            {
                let width = GROWTH.min(self.lanes_max);
                let next = Stream::Several(Box::new(Lanes::new(
                    &self.origin,
                    &self.facts.identity,
                    self.patience,
                    &self.spare,
                    base,
                )));
                let Stream::Single(first) = std::mem::replace(&mut self.stream, next) else {
                    return;
                };
                if let Stream::Several(lanes) = &mut self.stream {
                    lanes.begin(*first, read_to, width, seen.rate);
                }
                self.judge.expect_more_than(seen.rate);
            }
            return;
        }
        let Stream::Several(lanes) = &mut self.stream else {
            return;
        };
        if self.judge.is_settling() {
            return;
        }
        match self.judge.gain(seen.rate) {
            // It was not the number of connections that held it up.
            Some(gain) if gain < GAIN_MIN_PERCENT && lanes.width() > 1 => {
                self.lanes_max = lanes.width() / GROWTH;
                // A single lane is better served by one request for all that is left.
                lanes.set_width(if self.lanes_max > 1 {
                    self.lanes_max
                } else {
                    0
                });
            }
            Some(_) | None
                if seen.is_starved && lanes.width() < self.lanes_max && self.spare.has_some() =>
            {
                self.judge.expect_more_than(seen.rate);
                let wider = lanes.width().saturating_mul(GROWTH);
                lanes.set_width(wider.min(self.lanes_max));
            }
            Some(_) | None => {}
        }
    }
}

fn from(offset: u64) -> Window {
    Window {
        start: offset,
        end: None,
    }
}

/// Does `work`, and measures for how long there was nothing to do: what reading itself takes says nothing of an origin.
async fn waiting<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let mut work = pin!(work);
    let mut waited = Duration::ZERO;
    let mut idle_since: Option<Instant> = None;
    let done = poll_fn(|cx| {
        if let Some(since) = idle_since.take() {
            waited += since.elapsed();
        }
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            idle_since = Some(Instant::now());
        }
        polled
    });
    let done = done.await;
    (done, waited)
}

/// Judges by rate and waiting whether the origin is what holds a transfer up.
struct Judge {
    since: Instant,
    bytes: u64,
    waited: Duration,
    /// The rate before the last change, which takes effect during the first period after it.
    before: Option<(u64, u32)>,
}

/// What a period showed.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Bytes a second.
    rate: u64,
    /// Whether most of the time nothing was there to be sent on.
    is_starved: bool,
}

impl Seen {
    fn is_slow(self) -> bool {
        self.is_starved && self.rate < SLOW_LANE
    }

    fn time_for(self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1_000) / self.rate.max(1))
    }
}

impl Judge {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
            waited: Duration::ZERO,
            before: None,
        }
    }

    fn note(&mut self, bytes: u64, waited: Duration) {
        self.bytes += bytes;
        self.waited += waited;
    }

    /// What the period showed, once it is over; begins the next one.
    fn verdict(&mut self) -> Option<Seen> {
        let elapsed = self.since.elapsed();
        if elapsed < JUDGED_OVER {
            return None;
        }
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let seen = Seen {
            rate: self.bytes.saturating_mul(1_000) / millis.max(1),
            is_starved: self.waited * 2 > elapsed,
        };
        self.since = Instant::now();
        self.bytes = 0;
        self.waited = Duration::ZERO;
        Some(seen)
    }

    /// From the second period on, the rate is compared with this one.
    fn expect_more_than(&mut self, rate: u64) {
        self.before = Some((rate, 0));
    }

    /// Whether the last change has not had a whole period to show yet. Counts the periods.
    fn is_settling(&mut self) -> bool {
        let Some((_, periods)) = &mut self.before else {
            return false;
        };
        *periods += 1;
        *periods < 2
    }

    /// This rate in percent of that before the last change, once after each change.
    fn gain(&mut self, rate: u64) -> Option<u64> {
        let (before, _) = self.before.take()?;
        Some(rate.saturating_mul(100) / before.max(1))
    }
}
