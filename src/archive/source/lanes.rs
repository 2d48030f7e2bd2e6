//! Several connections to one file: each fetches a stripe at a time, and the stripes are given out in their order.
//!
//! ```text
//!   first  ----------->|            the connection that was there, up to the first stripe
//!   lane               [stripe 1)       [stripe 4)
//!   lane                   [stripe 2)       [stripe 5)
//!   lane                       [stripe 3)       [stripe 6)
//!          given out so far ^            held, within the byte budget ^
//! ```
//! Stripes are small, so that little is held although the digests want the body in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::archive::length;
use crate::model::asset::SourceIdentity;
use crate::origin::OriginError;
use crate::origin::open::Origin;
use crate::origin::open::Window;
use crate::origin::reading::Patience;
use crate::origin::reading::Reading;
use crate::units::ByteSize;
use crate::work::budget::Budget;
use crate::work::budget::Share;

/// A stripe is never shorter: each costs a request.
const STRIPE_MIN: u64 = 128 << 10;

/// A stripe is never longer: what is ahead is held in memory.
const STRIPE_MAX: u64 = 4 << 20;

/// Lanes want memory for as many of the shortest as they begin with, and as many ahead.
const STRIPES_LEAST: u64 = 8 * STRIPE_MIN;

/// A stripe takes this many times as long as asking for it, so that asking costs little of a lane's time.
const STRIPE_TO_ASKING: u128 = 8;

/// A frame that is given out is no longer: a store asks for the next one in time, and little is on its way at once.
const FRAME_MAX: usize = 64 << 10;

/// How long the first range may take to come before the connection that works goes on alone.
const OPENED_WITHIN: Duration = Duration::from_secs(3);

/// How many stripes wait to be given out, besides those under way: lanes that are quicker than the first need not stop.
const STRIPES_AHEAD: usize = 4;

/// For how long a host whose answers differed gets one connection a file: a file that truly changed was a chance, and
/// backends that tell of one file differently are mended some day.
const DISTRUSTED_FOR: Duration = Duration::from_hours(1);

/// How many such hosts are kept in mind; the one that was found first makes room.
const DISTRUSTED_MAX: usize = 64;

/// What all downloads of the process share: the connections that they may have beyond one each, and the memory for
/// what those bring too early.
#[derive(Clone, Debug)]
pub(crate) struct SpareLanes {
    free: Arc<Semaphore>,
    most: u32,
    budget: Budget,
    /// What all stripes together may take of that.
    stripes: Budget,
    /// Hosts whose answers differed, and when that was seen last.
    distrusted: Arc<Mutex<VecDeque<(String, Instant)>>>,
}

impl SpareLanes {
    /// Up to `most` connections, whose stripes are held under `budget` and leave `kept` bytes of it to parts. Who waits
    /// for a part's memory reads nothing meanwhile, so that stripes that had taken it would never give it back.
    pub(crate) fn new(most: u32, budget: Budget, kept: u64) -> Self {
        let stripes = budget.whole().as_u64().saturating_sub(kept);
        let most = if stripes < STRIPES_LEAST { 0 } else { most };
        let permits = usize::try_from(most).unwrap_or(usize::MAX);
        Self {
            free: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            most,
            budget,
            stripes: Budget::new(ByteSize::bytes(stripes)),
            distrusted: Arc::default(),
        }
    }

    /// How many a single download may have.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// Whether there are some that nobody uses.
    pub(super) fn has_some(&self) -> bool {
        self.free.available_permits() > 0
    }

    /// Remembers that `host` answered for two versions of a file at once, as backends behind one name may: it gets no
    /// more lanes for a while. The note is about the host, since its other files would fare the same, and in memory,
    /// since forgetting costs one more try.
    pub(super) fn distrust(&self, host: &str) {
        let mut distrusted = self.distrusted();
        distrusted.retain(|(known, _)| known != host);
        distrusted.push_back((host.to_owned(), Instant::now()));
        if distrusted.len() > DISTRUSTED_MAX {
            distrusted.pop_front();
        }
    }

    /// Whether all answers of `host` can be taken to be of one version.
    pub(super) fn trusts(&self, host: &str) -> bool {
        let is_it =
            |(known, since): &(String, Instant)| known == host && since.elapsed() < DISTRUSTED_FOR;
        !self.distrusted().iter().any(is_it)
    }

    fn distrusted(&self) -> MutexGuard<'_, VecDeque<(String, Instant)>> {
        self.distrusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory for a stripe, if there is some that nobody waits for.
    fn hold(&self, bytes: u64) -> Option<(Share, Share)> {
        let of_stripes = self.stripes.try_take(bytes)?;
        Some((of_stripes, self.budget.try_take(bytes)?))
    }

    /// One of them, if there is one.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }
}

/// Several connections to one file.
pub(super) struct Lanes {
    fetch: Fetch,
    spare: SpareLanes,
    /// For the lane whose stripe is given out: no more downloads have lanes than there are spare ones.
    _base: OwnedSemaphorePermit,
    first: Option<Reading>,
    /// What `first` has given beyond the start of the first stripe; of use only if that stripe never comes.
    surplus: Option<Bytes>,
    stripes: VecDeque<Arc<Stripe>>,
    /// The last one that was given out whole: its frames may still be on their way, so its share is kept.
    spent: Option<Arc<Stripe>>,
    /// Where the next frame begins.
    offset: u64,
    /// Where the next stripe begins.
    next_at: u64,
    total: u64,
    width: u32,
    stripe_bytes: u64,
    /// What one connection gives, in bytes a second.
    lane_rate: u64,
    tasks: JoinSet<()>,
}

/// What it takes to fetch a stripe.
#[derive(Clone)]
struct Fetch {
    origin: Origin,
    identity: SourceIdentity,
    patience: Patience,
    /// The shortest time that headers have taken, in microseconds: on a connection that was there already.
    asking_us: Arc<AtomicU64>,
    /// Whether a stripe failed: no more are asked for, or an origin that is asked too much would be asked more.
    has_failed: Arc<AtomicBool>,
}

/// A stretch of the file on its way.
struct Stripe {
    start: u64,
    end: u64,
    arriving: Mutex<Arriving>,
    news: Notify,
    _shares: (Share, Share),
}

#[derive(Default)]
struct Arriving {
    bytes: BytesMut,
    given: u64,
    is_open: bool,
    outcome: Option<Result<(), OriginError>>,
}

impl Lanes {
    /// No connection yet. `base` is the one that this download has to itself.
    pub(super) fn new(
        origin: &Origin,
        identity: &SourceIdentity,
        patience: Patience,
        spare: &SpareLanes,
        base: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            fetch: Fetch {
                origin: origin.clone(),
                identity: identity.clone(),
                patience,
                asking_us: Arc::new(AtomicU64::new(u64::MAX)),
                has_failed: Arc::default(),
            },
            spare: spare.clone(),
            _base: base,
            first: None,
            surplus: None,
            stripes: VecDeque::new(),
            spent: None,
            offset: 0,
            next_at: 0,
            total: identity.length.unwrap_or_default(),
            width: 0,
            stripe_bytes: STRIPE_MIN,
            lane_rate: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Begins behind `first`, which stands at `offset` and has given `rate` bytes a second.
    pub(super) fn begin(&mut self, first: Reading, offset: u64, width: u32, rate: u64) {
        self.first = Some(first);
        self.offset = offset;
        self.width = width;
        self.lane_rate = rate;
        // The first connection goes on while the others come up.
        self.next_at = offset + STRIPE_MIN;
        self.refill();
    }

    /// How many connections there are meant to be.
    pub(super) fn width(&self) -> u32 {
        self.width
    }

    /// More or fewer connections from now on; with none, [`Lanes::next`] gives out what is under way and ends.
    pub(super) fn set_width(&mut self, width: u32) {
        self.width = width;
        self.refill();
    }

    /// Whether the connection that was there before the lanes still is.
    pub(super) fn has_first(&self) -> bool {
        self.first.is_some()
    }

    /// Hangs up, and gives back the connection that was there before the lanes, where it still is, with what it has
    /// given already.
    pub(super) fn give_up(&mut self) -> Option<(Reading, Option<Bytes>)> {
        self.tasks.abort_all();
        self.stripes.clear();
        let surplus = self.surplus.take();
        self.first.take().map(|first| (first, surplus))
    }

    /// Whether the whole file was given out.
    pub(super) fn is_through(&self) -> bool {
        self.offset >= self.total
    }

    /// The next frame of at most `most` bytes; `None` where no stripe is under way: at the end, with no connection
    /// wanted any more, or without memory for one. Cancel-safe.
    pub(super) async fn next(&mut self, most: u64) -> Result<Option<Bytes>, OriginError> {
        loop {
            self.refill();
            let Some(stripe) = self.stripes.front().cloned() else {
                return Ok(None);
            };
            if let Some(first) = &mut self.first {
                if self.offset < stripe.start {
                    let frame = match self.surplus.take() {
                        Some(surplus) => Some(surplus),
                        None => first.next().await?,
                    };
                    let Some(mut frame) = frame else {
                        return Ok(None);
                    };
                    let to_stripe = stripe.start - self.offset;
                    let to_stripe = usize::try_from(to_stripe).unwrap_or(usize::MAX);
                    if frame.len() > to_stripe {
                        self.surplus = Some(frame.split_off(to_stripe));
                    }
                    self.offset += length(&frame);
                    return Ok(Some(frame));
                }
                // Only a range that really came is worth giving up the connection that works, and only where no lane
                // has found another version.
                if let Some(changed) = self.stripes.iter().find_map(|stripe| stripe.changed()) {
                    return Err(changed);
                }
                let opened = tokio::time::timeout(OPENED_WITHIN, stripe.opened()).await;
                opened.unwrap_or_else(|_| {
                    let host = self.fetch.origin.host().to_owned();
                    Err(OriginError::Stalled { host })
                })?;
                (self.first, self.surplus) = (None, None);
            }
            // Both arms are cancel-safe; a lane that ends is sent for the next stripe at once.
            let taken = tokio::select! {
                taken = stripe.take(most) => taken?,
                Some(ended) = self.tasks.join_next() => {
                    crash_with(ended);
                    continue;
                }
            };
            let Some(frame) = taken else {
                self.spent = self.stripes.pop_front();
                self.adjust_stripes();
                continue;
            };
            self.offset += length(&frame);
            return Ok(Some(frame));
        }
    }

    /// Sends lanes for the next stripes, as far as the number of lanes and the byte budget allow.
    fn refill(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            crash_with(ended);
        }
        let width = usize::try_from(self.width).unwrap_or(1);
        while !self.fetch.has_failed.load(Ordering::Relaxed)
            && self.tasks.len() < width
            && self.stripes.len() < width + STRIPES_AHEAD
            && self.next_at < self.total
        {
            let (start, end) = (
                self.next_at,
                self.total.min(self.next_at + self.stripe_bytes),
            );
            let is_needed = self.stripes.is_empty() && self.first.is_none();
            let lane = if is_needed { None } else { self.spare.take() };
            let shares = self.spare.hold(end - start);
            let Some(shares) = shares.filter(|_| is_needed || lane.is_some()) else {
                return;
            };
            let stripe = Arc::new(Stripe {
                start,
                end,
                arriving: Mutex::default(),
                news: Notify::new(),
                _shares: shares,
            });
            self.stripes.push_back(Arc::clone(&stripe));
            self.next_at = end;
            let fetch = self.fetch.clone();
            self.tasks.spawn(async move {
                fetch.run(&stripe).await;
                drop(lane);
            });
        }
    }

    /// Makes stripes long where asking takes long.
    fn adjust_stripes(&mut self) {
        let asking_us = self.fetch.asking_us.load(Ordering::Relaxed);
        let wanted = u128::from(self.lane_rate) * u128::from(asking_us) / 1_000_000;
        let wanted = wanted.saturating_mul(STRIPE_TO_ASKING);
        let wanted = u64::try_from(wanted).unwrap_or(u64::MAX);
        self.stripe_bytes = wanted.clamp(STRIPE_MIN, STRIPE_MAX);
    }
}

/// A lane that panicked takes the transfer with it.
fn crash_with(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl Fetch {
    async fn open(&self, window: Window) -> Result<Reading, OriginError> {
        Reading::open(
            self.origin.clone(),
            window,
            Some(&self.identity),
            self.patience,
        )
        .await
    }

    async fn run(self, stripe: &Stripe) {
        let outcome = self.fill(stripe).await;
        if outcome.is_err() {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        stripe.arriving().outcome = Some(outcome);
        stripe.news.notify_one();
    }

    async fn fill(&self, stripe: &Stripe) -> Result<(), OriginError> {
        let asked_at = Instant::now();
        let window = Window {
            start: stripe.start,
            end: Some(stripe.end),
        };
        let mut reading = self.open(window).await?;
        let took = u64::try_from(asked_at.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.asking_us.fetch_min(took, Ordering::Relaxed);
        {
            let mut arriving = stripe.arriving();
            arriving.is_open = true;
            let bytes = usize::try_from(stripe.end - stripe.start).unwrap_or_default();
            arriving.bytes = BytesMut::with_capacity(bytes);
        }
        stripe.news.notify_one();
        while let Some(frame) = reading.next().await? {
            // Copied, so that what is held is exactly what was taken from the budget.
            stripe.arriving().bytes.extend_from_slice(&frame);
            stripe.news.notify_one();
        }
        Ok(())
    }
}

impl Stripe {
    /// Waits for the headers. Cancel-safe.
    async fn opened(&self) -> Result<(), OriginError> {
        self.wait(|arriving| match &arriving.outcome {
            _ if arriving.is_open => Some(Ok(())),
            Some(outcome) => Some(outcome.clone()),
            None => None,
        })
        .await
    }

    /// The error, where another version answered.
    fn changed(&self) -> Option<OriginError> {
        match &self.arriving().outcome {
            Some(Err(error @ OriginError::Changed { .. })) => Some(error.clone()),
            Some(Ok(()) | Err(_)) | None => None,
        }
    }

    /// The next bytes; `None` when all were taken. Cancel-safe.
    async fn take(&self, most: u64) -> Result<Option<Bytes>, OriginError> {
        let all = self.end - self.start;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.wait(|arriving| {
            if arriving.given == all {
                return Some(Ok(None));
            }
            if !arriving.bytes.is_empty() {
                let taken = arriving.bytes.len().min(most).min(FRAME_MAX);
                let frame = arriving.bytes.split_to(taken).freeze();
                arriving.given += length(&frame);
                return Some(Ok(Some(frame)));
            }
            match &arriving.outcome {
                Some(Err(error)) => Some(Err(error.clone())),
                // A reading ends early only in an error.
                Some(Ok(())) => Some(Ok(None)),
                None => None,
            }
        })
        .await
    }

    async fn wait<T>(&self, mut look: impl FnMut(&mut Arriving) -> Option<T>) -> T {
        loop {
            // One reader waits, and a permit is kept for it: nothing is missed in between.
            let found = look(&mut self.arriving());
            if let Some(found) = found {
                return found;
            }
            self.news.notified().await;
        }
    }

    fn arriving(&self) -> MutexGuard<'_, Arriving> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
