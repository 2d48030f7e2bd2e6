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

/// Serves one slow file; `etag` names the version by the number of the answer.
struct Backends {
    file: Bytes,
    etag: fn(usize) -> &'static str,
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
        let wanted = wanted.filter(|_| header("if-range").is_none_or(|it| it == etag));
        let (start, end) = wanted.map_or((0, FILE), |(start, last)| {
            let end = last.parse().map_or(FILE, |last: usize| last + 1);
            (start.parse().unwrap(), end.min(FILE))
        });
        let response = Response::builder()
            .header("etag", etag)
            .header("accept-ranges", "bytes")
            .header("content-length", end - start);
        let response = match wanted {
            Some(_) => response
                .status(206)
                .header("content-range", format!("bytes {start}-{}/{FILE}", end - 1)),
            None => response,
        };
        let bytes = self.file.slice(start..end);
        let frames = futures::stream::iter((0..bytes.len()).step_by(FRAME)).then(move |at| {
            let frame = bytes.slice(at..bytes.len().min(at + FRAME));
            async move {
                tokio::time::sleep(PACE).await;
                Ok(frame)
            }
        });
        async move { Ok(response.body(frames.boxed()).unwrap()) }.boxed()
    }
}

fn spare() -> SpareLanes {
    SpareLanes::new(16, Budget::new(ByteSize::mib(64)))
}

/// One try at the whole file: what came of it, and for which ranges was asked.
async fn fetch(
    etag: fn(usize) -> &'static str,
    spare: &SpareLanes,
) -> (Result<(), String>, Vec<String>) {
    let file: Vec<u8> = (0..FILE)
        .map(|at| u8::try_from(at / 1000 % 251).unwrap())
        .collect();
    let file = Bytes::from(file);
    let asked = Arc::default();
    let http = Http::new(Backends {
        file: file.clone(),
        etag,
        asked: Arc::clone(&asked),
    });
    let origin = Origin {
        http,
        url: "https://cdn/video.mp4".parse().unwrap(),
        headers: HeaderMap::new(),
    };
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
