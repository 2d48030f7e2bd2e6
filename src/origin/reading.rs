//! A body as a run of frames that re-opens itself at its offset when it breaks, stalls or trickles.
//!
//! This, `archive::source`, `archive::parts` and `work::settle` are the places that try again by themselves: a transfer
//! in the middle of a part is dearer to give up than a GET. It is bounded: a few tries in a row without progress, and then
//! the failure stands.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::http::Body;
use crate::model::asset::SourceIdentity;
use crate::origin::OriginError;
use crate::origin::open::Opened;
use crate::origin::open::Origin;
use crate::origin::open::Window;
use crate::units::ByteRate;
use crate::units::ByteSize;
use crate::units::Span;

/// Over how long the rate is judged.
const RATE_WINDOW: Duration = Duration::from_secs(30);

/// Re-opens in a row that brought no byte.
const REOPENS_MAX: u32 = 3;

/// Progress that makes up for earlier re-opens: an origin that breaks every few bytes does not go on for ever.
const PROGRESS_MIN: u64 = 1024 * 1024;

/// The wait before the first re-open in a row; each further one waits twice as long.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// How much patience there is with an origin.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long each frame may take, and the headers of an answer to a body that is taken up again.
    pub stall: Span,
    /// How long the headers of the first answer may take: no store waits for its bytes yet.
    pub answer: Span,
    /// A body that comes slower than this over half a minute trickles: a read time-out alone never notices.
    pub rate_min: ByteRate,
}

impl Patience {
    /// How long an answer may take to begin after so many failed tries: twice as long each time, up to four times.
    pub fn answer_within(stall: Span, tries: u32) -> Span {
        stall.times(f64::from(1_u32 << tries.min(2)))
    }

    /// How slow a body may be after so many failed tries: half as fast each time, down to a 64th. One that is always slow
    /// comes through in the end.
    pub fn rate_after(rate_min: ByteRate, tries: u32) -> ByteRate {
        ByteRate::new(rate_min.bytes_a_second() >> tries.min(6))
    }
}

/// A body being read, from some offset to its end.
pub struct Reading {
    origin: Origin,
    identity: SourceIdentity,
    body: Body,
    offset: u64,
    end: Option<u64>,
    window_end: Option<u64>,
    /// Where the answer that is being read ends: before `end`, if the origin gives only so much at a time.
    answer_end: Option<u64>,
    /// Who answered, behind all redirects.
    host: String,
    patience: Patience,
    is_framed: bool,
    has_ranges: Option<bool>,
    reopens: u32,
    reopened_at: u64,
    rate: RateGuard,
}

impl Reading {
    /// Opens `origin` at `window`. With `expected`, only that version of the file.
    pub async fn open(
        origin: Origin,
        window: Window,
        expected: Option<&SourceIdentity>,
        patience: Patience,
    ) -> Result<Self, OriginError> {
        let opened = open_in_time(&origin, window, expected, patience.answer).await?;
        let Opened {
            identity,
            has_ranges,
            is_framed,
            end: answer_end,
            host,
            body,
        } = opened;
        let total = identity.length;
        let end = match (window.end, total) {
            (Some(end), Some(total)) => Some(end.min(total)),
            (Some(end), None) => Some(end),
            (None, total) => total,
        };
        Ok(Self {
            origin,
            identity,
            body,
            offset: window.start,
            end,
            window_end: window.end,
            answer_end,
            host,
            patience,
            is_framed,
            has_ranges,
            reopens: 0,
            reopened_at: window.start,
            rate: RateGuard::new(patience.rate_min),
        })
    }

    /// Opens as [`Reading::open`] does, but bears a few refusals that may pass: of an origin that gives so many
    /// connections at once and has not yet seen that others are gone.
    pub async fn open_patiently(
        origin: Origin,
        window: Window,
        expected: Option<&SourceIdentity>,
        patience: Patience,
    ) -> Result<Self, OriginError> {
        let mut reopens = 0;
        loop {
            match Self::open(origin.clone(), window, expected, patience).await {
                Err(error) if error.is_passing() && reopens < REOPENS_MAX => {
                    tokio::time::sleep(REOPEN_PAUSE * 2_u32.pow(reopens)).await;
                    reopens += 1;
                }
                opened => return opened,
            }
        }
    }

    /// What the origin says of the file.
    pub fn identity(&self) -> &SourceIdentity {
        &self.identity
    }

    /// Whether the middle of this very file can be asked for again.
    pub fn is_resumable(&self) -> bool {
        self.has_ranges == Some(true) && self.is_pinned()
    }

    /// Whether what comes later can be told to be of this very file.
    fn is_pinned(&self) -> bool {
        self.identity.length.is_some() && self.identity.validator().is_some()
    }

    /// Whether a clean end of the body means that it is whole.
    pub fn is_framed(&self) -> bool {
        self.is_framed
    }

    /// The next frame, never empty; `None` once the body has ended where it should.
    pub async fn next(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            if self.end.is_some_and(|end| self.offset >= end) {
                return Ok(None);
            }
            let broke = match self.read().await {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => return Ok(Some(frame)),
                Err(error) => error,
            };
            self.reopen(broke).await?;
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, OriginError> {
        loop {
            // A trickle is noticed between frames, a stall while waiting for one.
            let waited_from = Instant::now();
            if self.answer_end.is_some_and(|end| self.offset >= end) {
                self.ask_for_more().await?;
            }
            let next =
                tokio::time::timeout(self.patience.stall.as_duration(), self.body.next()).await;
            let stalled = |_| OriginError::Stalled {
                host: self.host.clone(),
            };
            let Some(frame) = next.map_err(stalled)? else {
                return self.ended();
            };
            let frame = frame.map_err(|error| OriginError::of_http(&self.host, error))?;
            if frame.is_empty() {
                continue;
            }
            let frame = self.cut(frame);
            let length = u64::try_from(frame.len()).unwrap_or(u64::MAX);
            if self.rate.is_trickle(length, waited_from) {
                return Err(OriginError::Trickle {
                    host: self.host.clone(),
                    rate_min: self.patience.rate_min,
                });
            }
            self.offset += length;
            return Ok(Some(frame));
        }
    }

    /// The stream is over: fine where no length was told, too early otherwise.
    fn ended(&self) -> Result<Option<Bytes>, OriginError> {
        let Some(end) = self.end else { return Ok(None) };
        Err(OriginError::Short {
            host: self.host.clone(),
            got: ByteSize::bytes(self.offset),
            length: ByteSize::bytes(end),
        })
    }

    /// What of `frame` lies before the end.
    fn cut(&self, mut frame: Bytes) -> Bytes {
        if let Some(end) = self.answer_end.or(self.end) {
            frame.truncate(usize::try_from(end - self.offset).unwrap_or(usize::MAX));
        }
        frame
    }

    /// Asks for the rest, after an answer that had less than it was asked for. Many small answers are a trickle.
    async fn ask_for_more(&mut self) -> Result<(), OriginError> {
        if !self.is_resumable() {
            let host = self.host.clone();
            return Err(OriginError::NoRange { host });
        }
        self.open_again().await
    }

    /// Opens the body at the offset.
    async fn open_again(&mut self) -> Result<(), OriginError> {
        let window = Window {
            start: self.offset,
            end: self.window_end,
        };
        let identity = Some(&self.identity);
        let opened = open_in_time(&self.origin, window, identity, self.patience.stall).await?;
        (self.body, self.answer_end, self.host) = (opened.body, opened.end, opened.host);
        Ok(())
    }

    /// Takes the body up again at its offset, or gives `broke` back when that cannot be done.
    async fn reopen(&mut self, broke: OriginError) -> Result<(), OriginError> {
        if self.offset - self.reopened_at >= PROGRESS_MIN {
            self.reopens = 0;
        }
        // An origin that says nothing of ranges may serve them.
        let may_have_ranges = self.has_ranges != Some(false) && self.is_pinned();
        let may_pass = broke.is_passing() && may_have_ranges;
        let mut broke = broke;
        loop {
            if !may_pass || self.reopens >= REOPENS_MAX {
                return Err(broke);
            }
            tokio::time::sleep(REOPEN_PAUSE * 2_u32.pow(self.reopens)).await;
            self.reopens += 1;
            tracing::debug!(offset = self.offset, error = %broke, "taking the body up again");
            match self.open_again().await {
                Ok(()) => {
                    self.reopened_at = self.offset;
                    self.rate = RateGuard::new(self.patience.rate_min);
                    return Ok(());
                }
                Err(error) if error.is_passing() => broke = error,
                Err(OriginError::NoRange { .. }) if self.has_ranges.is_none() => return Err(broke),
                Err(error) => return Err(error),
            }
        }
    }
}

/// Opens, with a bound on how long the headers may take; the transport's own may be longer or none.
async fn open_in_time(
    origin: &Origin,
    window: Window,
    expected: Option<&SourceIdentity>,
    allowed: Span,
) -> Result<Opened, OriginError> {
    let opening = origin.open(window, expected);
    let opened = tokio::time::timeout(allowed.as_duration(), opening).await;
    opened.unwrap_or_else(|_| {
        Err(OriginError::Stalled {
            host: origin.host().to_owned(),
        })
    })
}

/// Judges the rate while the reader waits; time in which nobody asks for a frame does not count.
struct RateGuard {
    rate_min: ByteRate,
    waited: Duration,
    bytes: u64,
}

impl RateGuard {
    fn new(rate_min: ByteRate) -> Self {
        Self {
            rate_min,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    fn is_trickle(&mut self, bytes: u64, waited_from: Instant) -> bool {
        self.waited += waited_from.elapsed();
        self.bytes += bytes;
        if self.waited < RATE_WINDOW {
            return false;
        }
        let least = self.rate_min.bytes_a_second() * RATE_WINDOW.as_secs();
        let is_trickle = self.bytes < least;
        *self = Self::new(self.rate_min);
        is_trickle
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::Mutex;

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use http::Request;
    use http::Response;

    use super::*;
    use crate::http::Http;
    use crate::http::HttpError;
    use crate::http::Transport;

    const PATIENCE: Patience = Patience {
        stall: Span::from_secs(10),
        answer: Span::from_secs(10),
        rate_min: ByteRate::new(64 << 10),
    };

    /// What the fake origin does after some bytes of one answer.
    #[derive(Clone, Copy, Debug)]
    enum Then {
        Ends,
        Breaks,
        Hangs,
    }

    /// Serves one file; each GET is cut as the next line of the script says.
    struct Scripted {
        file: Vec<u8>,
        script: Mutex<Vec<(usize, Then)>>,
        asked: Arc<Mutex<Vec<String>>>,
        etags: Mutex<Vec<&'static str>>,
        /// How much a range has at most; where it is nothing, a range is answered with the whole.
        range_max: usize,
        /// Whether it says nothing of ranges.
        is_silent: bool,
    }

    impl Transport for Scripted {
        fn send(
            &self,
            request: Request<Bytes>,
        ) -> BoxFuture<'static, Result<Response<Body>, HttpError>> {
            let range = request
                .headers()
                .get("range")
                .map(|range| range.to_str().unwrap().to_owned());
            self.asked
                .lock()
                .unwrap()
                .push(range.clone().unwrap_or_default());
            let start: usize = range.map_or(0, |range| {
                range
                    .trim_start_matches("bytes=")
                    .split('-')
                    .next()
                    .unwrap()
                    .parse()
                    .unwrap()
            });
            let mut script = self.script.lock().unwrap();
            let (bytes, then) = if script.is_empty() {
                (usize::MAX, Then::Ends)
            } else {
                script.remove(0)
            };
            let mut etags = self.etags.lock().unwrap();
            let etag = if etags.len() > 1 {
                etags.remove(0)
            } else {
                etags[0]
            };
            let total = self.file.len();
            let end = if start == 0 {
                total
            } else {
                total.min(start.saturating_add(self.range_max))
            };
            let sent =
                Bytes::copy_from_slice(&self.file[start..end.min(start.saturating_add(bytes))]);
            let broken = HttpError::Broken {
                host: "cdn".to_owned(),
                what: "reset".to_owned(),
            };
            let tail = match then {
                Then::Ends => futures::stream::empty().boxed(),
                Then::Breaks => futures::stream::iter([Err(broken)]).boxed(),
                Then::Hangs => futures::stream::pending().boxed(),
            };
            let body = futures::stream::iter([Ok(sent)]).chain(tail).boxed();
            let mut response = Response::builder().header("etag", etag);
            if !self.is_silent {
                response = response.header("accept-ranges", "bytes");
            }
            let response = if start == 0 || self.range_max == 0 {
                response.header("content-length", total)
            } else {
                let range = format!("bytes {start}-{}/{total}", end - 1);
                response.status(206).header("content-range", range)
            };
            async move { Ok(response.body(body).unwrap()) }.boxed()
        }
    }

    async fn check(
        script: &[(usize, Then)],
        etags: &[&'static str],
        outcome: Result<usize, &str>,
    ) -> Vec<String> {
        check_capped(usize::MAX, false, script, etags, outcome).await
    }

    async fn check_capped(
        range_max: usize,
        is_silent: bool,
        script: &[(usize, Then)],
        etags: &[&'static str],
        outcome: Result<usize, &str>,
    ) -> Vec<String> {
        let file: Vec<u8> = (0..100_u8).collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let http = Http::new(Scripted {
            file: file.clone(),
            script: Mutex::new(script.to_vec()),
            asked: Arc::clone(&asked),
            etags: Mutex::new(etags.to_vec()),
            range_max,
            is_silent,
        });
        let url = "https://cdn/video.mp4".parse().unwrap();
        let origin = Origin {
            http,
            url,
            headers: http::HeaderMap::new(),
        };
        let mut reading = Reading::open(origin, Window::ALL, None, PATIENCE)
            .await
            .unwrap();
        let mut read = Vec::new();
        let got = loop {
            match reading.next().await {
                Ok(Some(frame)) => read.extend_from_slice(&frame),
                Ok(None) => break Ok(read.len()),
                Err(error) => break Err(error.to_string()),
            }
        };
        assert_eq!(got, outcome.map_err(str::to_owned), "{script:?}");
        assert_eq!(read, file[..read.len()]);
        asked.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_breaks_stalls_or_ends_early_goes_on_at_its_offset() {
        for then in [Then::Ends, Then::Breaks, Then::Hangs] {
            let asked = check(&[(30, then), (20, then)], &["\"v1\""], Ok(100)).await;
            assert_eq!(asked, ["", "bytes=30-", "bytes=50-"]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_version_is_never_joined_to_the_first() {
        let changed = Err("cdn changed the file under us: its ETag differs");
        check(&[(30, Then::Breaks)], &["\"v1\"", "\"v2\""], changed).await;
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_strong_validator_nothing_is_joined() {
        check(
            &[(30, Then::Breaks)],
            &["W/\"v1\""],
            Err("cdn broke off: reset"),
        )
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_that_always_breaks_is_given_up() {
        let script = vec![(1, Then::Breaks); 50];
        let asked = check(&script, &["\"v1\""], Err("cdn broke off: reset")).await;
        assert_eq!(asked.len(), 1 + usize::try_from(REOPENS_MAX).unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_that_says_nothing_of_ranges_is_asked_for_one() {
        let broken = &[(40, Then::Breaks)][..];
        let asked = check_capped(usize::MAX, true, broken, &["\"a\""], Ok(100)).await;
        assert_eq!(asked, ["", "bytes=40-"]);
        // What broke first is what is told.
        let reset = Err("cdn broke off: reset");
        check_capped(0, true, broken, &["\"a\""], reset).await;
    }

    #[test]
    fn a_body_that_is_always_slow_is_borne_in_the_end() {
        let rate = |tries| Patience::rate_after(PATIENCE.rate_min, tries).bytes_a_second();
        let rates = [0, 1, 2, 6, 99].map(rate);
        assert_eq!(rates, [65_536, 32_768, 16_384, 1_024, 1_024]);
    }

    #[tokio::test(start_paused = true)]
    async fn ranges_that_end_early_are_put_together() {
        let began = tokio::time::Instant::now();
        let asked = check_capped(30, false, &[(30, Then::Ends)], &["\"v1\""], Ok(100)).await;
        assert_eq!(asked, ["", "bytes=30-", "bytes=60-", "bytes=90-"]);
        // Only what broke is waited for.
        assert_eq!(began.elapsed(), REOPEN_PAUSE);
        let broken = [(30, Then::Ends), (10, Then::Breaks)];
        let asked = check_capped(30, false, &broken, &["\"v1\""], Ok(100)).await;
        assert_eq!(asked, ["", "bytes=30-", "bytes=40-", "bytes=70-"]);
        let changed = Err("cdn changed the file under us: its ETag differs");
        let etags = ["\"v1\"", "\"v1\"", "\"v2\""];
        check_capped(30, false, &[(30, Then::Ends)], &etags, changed).await;
    }
}
