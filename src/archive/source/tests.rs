//! Backends behind one name that tell of one file differently, while several connections fetch it.

use std::sync::Arc;
use std::sync::Mutex;

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::Request;
use http::Response;

use super::*;
use crate::archive::bandwidth::Bandwidth;
use crate::http::Body;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::Transport;
use crate::units::ByteRate;
use crate::units::Span;
use crate::work::budget::Budget;

const FILE: usize = 8 << 20;

/// What one connection gives at a time, and how long that takes.
const FRAME: usize = 32 << 10;
const PACE: Duration = Duration::from_millis(10);

const PATIENCE: Patience = Patience {
    stall: Span::from_secs(10),
    answer: Span::from_secs(10),
    rate_min: ByteRate::new(1 << 10),
};

/// Serves one slow file; `etag` names the version by the number of the answer, or does not where it is empty.
struct Backends {
    file: Bytes,
    etag: fn(usize) -> &'static str,
    /// What all connections get together, where that is less than one gets alone.
    together: Bandwidth,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Transport for Backends {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Body>, HttpError>> {
        let header = |name| {
            let value = request.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let range = header("range").unwrap_or_default();
        let number = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(range.clone());
            asked.len()
        };
        let etag = (self.etag)(number);
        let wanted = range
            .strip_prefix("bytes=")
            .and_then(|it| it.split_once('-'));
        let is_this = |wanted: String| wanted == etag || etag.is_empty();
        let wanted = wanted.filter(|_| header("if-range").is_none_or(is_this));
        let (start, end) = wanted.map_or((0, FILE), |(start, last)| {
            let end = last.parse().map_or(FILE, |last: usize| last + 1);
            (start.parse().unwrap(), end.min(FILE))
        });
        let mut response = Response::builder();
        if !etag.is_empty() {
            response = response.header("etag", etag);
        }
        let response = response
            .header("last-modified", "Tue, 24 Nov 2026 14:00:00 GMT")
            .header("accept-ranges", "bytes")
            .header("content-length", end - start);
        let response = match wanted {
            Some(_) => response
                .status(206)
                .header("content-range", format!("bytes {start}-{}/{FILE}", end - 1)),
            None => response,
        };
        let (bytes, together) = (self.file.slice(start..end), self.together.clone());
        let frames = futures::stream::iter((0..bytes.len()).step_by(FRAME)).then(move |at| {
            let frame = bytes.slice(at..bytes.len().min(at + FRAME));
            let together = together.clone();
            async move {
                tokio::time::sleep(PACE).await;
                together.pass(length(&frame)).await;
                Ok(frame)
            }
        });
        async move { Ok(response.body(frames.boxed()).unwrap()) }.boxed()
    }
}

fn spare() -> SpareLanes {
    SpareLanes::new(16, Budget::new(ByteSize::mib(64)), 0)
}

/// An origin with that file, the file, and for which ranges it was asked.
fn origin(
    etag: fn(usize) -> &'static str,
    together: Bandwidth,
) -> (Origin, Bytes, Arc<Mutex<Vec<String>>>) {
    let file: Vec<u8> = (0..FILE)
        .map(|at| u8::try_from(at / 1000 % 251).unwrap())
        .collect();
    let (file, asked) = (Bytes::from(file), Arc::default());
    let http = Http::new(Backends {
        file: file.clone(),
        etag,
        together,
        asked: Arc::clone(&asked),
    });
    let origin = Origin {
        http,
        url: "https://cdn/video.mp4".parse().unwrap(),
        headers: HeaderMap::new(),
    };
    (origin, file, asked)
}

/// Reads on until a frame begins at `offset` or later, and says whether lanes were tried meanwhile.
async fn read_to(source: &mut Source, offset: usize) -> bool {
    let mut had_lanes = false;
    while source.offset() < u64::try_from(offset).unwrap() {
        source.next(u64::MAX).await.unwrap().unwrap();
        had_lanes |= matches!(source.stream, Stream::Several(_));
    }
    had_lanes
}

/// One try at the whole file: what came of it, and for which ranges was asked.
async fn fetch(
    etag: fn(usize) -> &'static str,
    spare: &SpareLanes,
) -> (Result<(), String>, Vec<String>) {
    let (origin, file, asked) = origin(etag, Bandwidth::new(None));
    let source = Source::open(origin, 0, None, PATIENCE, spare.clone()).await;
    let mut source = source.unwrap();
    let mut read = Vec::new();
    let outcome = loop {
        match source.next(u64::MAX).await {
            Ok(Some(frame)) => read.extend_from_slice(&frame),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.to_string()),
        }
    };
    assert!(file.starts_with(&read), "other bytes");
    assert!(outcome.is_err() || read.len() == FILE, "cut off");
    let asked = asked.lock().unwrap().clone();
    (outcome, asked)
}

#[tokio::test(start_paused = true)]
async fn lanes_that_find_another_version_leave_the_first_connection_to_go_on() {
    let in_turn = |answer: usize| if answer % 2 == 1 { "\"a\"" } else { "\"b\"" };
    let second = |answer: usize| if answer == 3 { "\"b\"" } else { "\"a\"" };
    for etag in [in_turn, second] {
        let spare = spare();
        let (outcome, asked) = fetch(etag, &spare).await;
        assert_eq!(outcome, Ok(()));
        assert!(asked.len() > 2, "lanes were tried: {asked:?}");
        // The next file of that host is not tried so again.
        assert_eq!(fetch(etag, &spare).await, (Ok(()), vec![String::new()]));
    }
}

#[tokio::test(start_paused = true)]
async fn another_version_found_late_ends_the_try_and_the_next_has_one_connection() {
    let late = |answer: usize| if answer > 20 { "\"b\"" } else { "\"a\"" };
    let spare = spare();
    let (outcome, asked) = fetch(late, &spare).await;
    let changed = "cdn changed the file under us: its ETag differs";
    assert_eq!(outcome, Err(changed.to_owned()), "{asked:?}");
    assert_eq!(fetch(late, &spare).await, (Ok(()), vec![String::new()]));
}

#[tokio::test(start_paused = true)]
async fn distrust_passes_and_is_bounded() {
    let spare = spare();
    spare.distrust("cdn");
    assert!(!spare.trusts("cdn") && spare.trusts("other"));
    for other in 0..1_000 {
        spare.distrust(&other.to_string());
    }
    assert!(spare.trusts("cdn") && !spare.trusts("999"));
    tokio::time::advance(Duration::from_hours(1)).await;
    assert!(spare.trusts("999"));
}

#[tokio::test(start_paused = true)]
async fn lanes_that_do_not_pay_are_given_back_with_their_memory() {
    let budget = Budget::new(ByteSize::mib(64));
    let spare = SpareLanes::new(16, budget.clone(), 0);
    let rate = u64::try_from(FRAME).unwrap() * 100;
    let together = Bandwidth::new(Some(ByteRate::new(rate)));
    let (origin, ..) = origin(|_| "\"a\"", together);
    let source = Source::open(origin, 0, None, PATIENCE, spare.clone()).await;
    let mut source = source.unwrap();
    assert!(read_to(&mut source, FILE * 3 / 4).await, "lanes were tried");
    let lanes: Vec<_> = std::iter::from_fn(|| spare.take()).collect();
    assert_eq!((lanes.len(), budget.free()), (16, ByteSize::mib(64)));
    read_to(&mut source, FILE).await;
}

#[tokio::test(start_paused = true)]
async fn stripes_leave_to_parts_what_is_theirs() {
    let kept = ByteSize::mib(2).as_u64();
    for (memory, has_lanes) in [(kept + (1 << 19), false), (kept + (1 << 20), true)] {
        let budget = Budget::new(ByteSize::bytes(memory));
        let spare = SpareLanes::new(16, budget.clone(), kept);
        let (origin, ..) = origin(|_| "\"a\"", Bandwidth::new(None));
        let source = Source::open(origin, 0, None, PATIENCE, spare).await;
        let mut source = source.unwrap();
        assert_eq!(read_to(&mut source, FILE / 2).await, has_lanes);
        // Whoever fills a part waits for its memory before it reads on: till then all lanes fill what they may.
        tokio::time::sleep(Duration::from_secs(5)).await;
        let part = tokio::time::timeout(Duration::from_secs(1), budget.take(kept)).await;
        assert!(part.is_ok(), "{} of {memory} are free", budget.free());
        drop(part);
        read_to(&mut source, FILE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_up_is_the_version_that_was_asked_for() {
    let first_only = |answer: usize| if answer == 1 { "\"a\"" } else { "" };
    let (origin, ..) = origin(first_only, Bandwidth::new(None));
    let open = |offset, expected: Option<SourceIdentity>| {
        let origin = origin.clone();
        async move {
            let source = Source::open(origin, offset, expected.as_ref(), PATIENCE, spare());
            source.await.unwrap().facts()
        }
    };
    let begun = open(0, None).await.identity;
    // The answer names its date alone.
    let resumed = open(1 << 20, Some(begun.clone())).await;
    assert_eq!(resumed.identity, begun);
    assert!(resumed.is_resumable);
}
