//! Readers that go at their own pace, leave, come back, and are given up in the middle.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::HeaderMap;
use http::Request;
use http::Response;
use tokio::time::Instant;

use super::pump::HELD_UP_MAX;
use super::pump::WINDOW_SHARED;
use super::*;
use crate::archive::gauge::Gauge;
use crate::archive::gauge::Moving;
use crate::archive::parts::fill;
use crate::archive::source::SpareLanes;
use crate::http::Body;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::Transport;
use crate::model::asset::AssetIndex;
use crate::model::task::TaskKey;
use crate::origin::open::Origin;
use crate::origin::reading::Patience;
use crate::store::BrokenSource;
use crate::store::PartBody;
use crate::units::ByteRate;
use crate::units::ByteSize;
use crate::units::Span;
use crate::work::budget::Budget;

/// The length of a frame and of the file, and where parts end.
const FRAME: usize = 64 << 10;
const FILE: usize = 20 * FRAME;
const STRIDE: u64 = 1 << 19;

/// An origin with one file, which keeps count of what it was asked for.
struct OneFile {
    file: Bytes,
    frame: usize,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Transport for OneFile {
    fn send(
        &self,
        request: Request<Bytes>,
    ) -> BoxFuture<'static, Result<Response<Body>, HttpError>> {
        let range = request.headers().get("range");
        let range = range.map(|range| range.to_str().unwrap().to_owned());
        let range = range.unwrap_or_default();
        self.asked.lock().unwrap().push(range.clone());
        let total = self.file.len();
        let (start, end) = match range
            .strip_prefix("bytes=")
            .and_then(|it| it.split_once('-'))
        {
            Some((start, last)) => (
                start.parse().unwrap(),
                last.parse().map_or(total, |last: usize| last + 1),
            ),
            None => (0, total),
        };
        let (mut body, frame) = (self.file.slice(start..end), self.frame);
        let frames = std::iter::from_fn(move || {
            let length = body.len().min(frame);
            (length > 0).then(|| Ok(body.split_to(length)))
        });
        let response = Response::builder()
            .header("etag", "\"one\"")
            .header("accept-ranges", "bytes");
        let response = if range.is_empty() {
            response.header("content-length", total)
        } else {
            let range = format!("bytes {start}-{}/{total}", end - 1);
            response.status(206).header("content-range", range)
        };
        let frames: Vec<_> = frames.collect();
        let body = futures::stream::iter(frames).boxed();
        async move { Ok(response.body(body).unwrap()) }.boxed()
    }
}

fn file() -> Bytes {
    let words = (0..FILE / 4).map(|word| u32::try_from(word).unwrap().to_le_bytes());
    words.flatten().collect::<Vec<u8>>().into()
}

fn line() -> Line {
    Gauge::default().enter(Moving {
        task: TaskKey {
            provider: "sim".parse().unwrap(),
            id: "task".parse().unwrap(),
        },
        index: AssetIndex(0),
        destination: "main".parse().unwrap(),
        length: None,
        bytes: 0,
    })
}

/// So many readers, each at the start.
fn readers<const COUNT: usize>(download: &Download) -> [Reader; COUNT] {
    [(); COUNT].map(|()| download.reader(0, None, line()))
}

/// A download of [`file`] from its start, what keeps it going, and what the origin was asked for.
async fn download() -> (Download, Pump, Arc<Mutex<Vec<String>>>) {
    download_in(FRAME).await
}

/// The same in frames of this length.
async fn download_in(frame: usize) -> (Download, Pump, Arc<Mutex<Vec<String>>>) {
    download_under(Bandwidth::new(None), frame).await
}

/// The same under a limit.
async fn download_under(
    bandwidth: Bandwidth,
    frame: usize,
) -> (Download, Pump, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let origin = Origin {
        http: Http::new(OneFile {
            file: file(),
            frame,
            asked: Arc::clone(&asked),
        }),
        url: "https://cdn.test/film.mp4".parse().unwrap(),
        headers: HeaderMap::new(),
    };
    let patience = Patience {
        stall: Span::from_secs(5),
        answer: Span::from_secs(5),
        rate_min: ByteRate::new(1),
    };
    let spare = SpareLanes::new(0, Budget::new(ByteSize::mib(1)), 0);
    let source = Source::open(origin, 0, None, patience, spare);
    let source = source.await.unwrap();
    let progress = Progress::new(true);
    let (download, pump) = Download::new(source, progress, vec![STRIDE], bandwidth);
    (download, pump, asked)
}

/// Does `work` while the pump goes.
async fn while_pumping<T>(pump: Pump, work: impl Future<Output = T>) -> T {
    tokio::select! {
        done = work => done,
        never = pump.run() => match never {},
    }
}

async fn read_to(reader: &Reader, end: u64) -> Result<Vec<u8>, ReadError> {
    let mut read = Vec::new();
    while let Some(frame) = reader.next(end).await? {
        read.extend_from_slice(&frame);
        let at = reader.offset();
        if at == end {
            break;
        }
    }
    Ok(read)
}

#[tokio::test(start_paused = true)]
async fn short_frames_fill_the_window_by_their_number() {
    let (download, pump, _) = download_in(16).await;
    let reader = download.reader(0, None, line());
    let idle = tokio::time::sleep(Duration::from_secs(1));
    while_pumping(pump, idle).await;
    assert_eq!(download.head(), 16 * 512);
    drop(reader);
}

#[tokio::test(start_paused = true)]
async fn short_frames_are_joined_where_they_are_held() {
    for (frame, frames) in [(1_000, 64 * 1024 / 1_000), (FRAME, 1)] {
        let (download, pump, _) = download_in(frame).await;
        let reader = download.reader(0, None, line());
        let end = u64::try_from(frames * frame).unwrap();
        let held = while_pumping(pump, fill(&reader, 0, end)).await.unwrap();
        assert_eq!((held.frames.len(), held.length), (1, end));
        assert_eq!(held.frames[0], file().slice(..frames * frame));
        assert_eq!(held.crc64nvme, Crc64::of(&held.frames[0]));
    }
}

/// A store ends a request that gets no byte for some twenty seconds.
#[tokio::test(start_paused = true)]
async fn a_slow_rate_keeps_none_of_many_waiting_for_long() {
    let bandwidth = Bandwidth::new(Some("64 KiB/s".parse().unwrap()));
    let waits = (0..20).map(|_| async {
        let (download, pump, _) = download_under(bandwidth.clone(), FRAME).await;
        let reader = download.reader(0, None, line());
        let reading = async {
            let (began, mut longest) = (Instant::now(), Duration::ZERO);
            while began.elapsed() < Duration::from_mins(1) {
                let asked = Instant::now();
                reader.next(u64::MAX).await.unwrap().unwrap();
                longest = longest.max(asked.elapsed());
            }
            longest
        };
        while_pumping(pump, reading).await
    });
    let longest = futures::future::join_all(waits).await.into_iter().max();
    assert!(longest < Some(Duration::from_secs(5)), "{longest:?}");
}

#[tokio::test]
async fn all_readers_get_all_bytes_from_one_request() {
    let (download, pump, asked) = download().await;
    let readers = readers::<3>(&download);
    let all = futures::future::join_all(readers.iter().map(|reader| read_to(reader, u64::MAX)));
    for read in while_pumping(pump, all).await {
        assert!(read.unwrap() == file());
    }
    assert_eq!(asked.lock().unwrap().len(), 1);
    let total = u64::try_from(FILE).unwrap();
    assert_eq!(
        download.sum(0, total).await.unwrap(),
        Some(Crc64::of(&file()))
    );
    let ended = download.ended().unwrap();
    let mut whole = Progress::new(true);
    whole.update(&file());
    assert_eq!(ended.sha256(), whole.sha256());
}

#[tokio::test]
async fn parts_are_summed_between_their_ends() {
    let (download, pump, _) = download().await;
    let reader = download.reader(0, None, line());
    while_pumping(pump, read_to(&reader, u64::MAX))
        .await
        .unwrap();
    let file = file();
    for start in [0, STRIDE, 2 * STRIDE] {
        let end = (start + STRIDE).min(u64::try_from(FILE).unwrap());
        let (from, to) = (
            usize::try_from(start).unwrap(),
            usize::try_from(end).unwrap(),
        );
        let sum = download.sum(start, end).await.unwrap();
        assert_eq!(sum, Some(Crc64::of(&file[from..to])));
        assert!(download.progress_at(end).is_some());
    }
    assert_eq!(download.sum(1, STRIDE).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_held_than_the_slowest_reader_may_lack() {
    let (download, pump, _) = download().await;
    let [quick, slow] = readers(&download);
    let race = async {
        let blocked = read_to(&quick, u64::MAX);
        tokio::pin!(blocked);
        // As long as the slow one gets on, the quick one goes at its pace.
        for _ in 0..4 {
            let almost = HELD_UP_MAX.mul_f64(0.9);
            let still = tokio::time::timeout(almost, &mut blocked).await;
            assert!(still.is_err());
            let lead = download.head() - slow.offset();
            assert!((WINDOW_SHARED..=WINDOW_SHARED + 2 * STEP).contains(&lead));
            for _ in 0..WINDOW_SHARED / STEP {
                slow.next(u64::MAX).await.unwrap();
            }
        }
        // Once it is gone, nothing holds the quick one up.
        drop(slow);
        blocked.await.unwrap()
    };
    assert!(while_pumping(pump, race).await == file());
}

/// The length of a frame in the type of offsets.
const STEP: u64 = 64 << 10;

#[tokio::test(start_paused = true)]
async fn who_does_not_move_loses_its_place_to_those_who_wait() {
    let (download, pump, _) = download().await;
    let [goes, stands] = readers(&download);
    let work = async {
        let part = STRIDE * 2;
        let started = tokio::time::Instant::now();
        read_to(&goes, part).await.unwrap();
        assert_eq!(started.elapsed().as_secs(), HELD_UP_MAX.as_secs());
        assert_eq!(stands.next(STRIDE).await, Err(ReadError::Missed));
        // From where the others are, it goes on with them.
        stands.seek(part, None);
        tokio::join!(read_to(&stands, u64::MAX), read_to(&goes, u64::MAX))
    };
    let (stood, went) = while_pumping(pump, work).await;
    let part = usize::try_from(STRIDE * 2).unwrap();
    assert!(stood.unwrap() == file()[part..] && went.unwrap() == file()[part..]);
}

#[tokio::test(start_paused = true)]
async fn a_few_bytes_now_and_then_keep_no_place() {
    let (download, pump, _) = download().await;
    let [goes, crawls] = readers(&download);
    let work = async {
        let crawl = async {
            loop {
                tokio::time::sleep(HELD_UP_MAX / 2).await;
                if crawls.next(u64::MAX).await.is_err() {
                    return;
                }
            }
        };
        let started = tokio::time::Instant::now();
        let (read, ()) = tokio::join!(read_to(&goes, u64::MAX), crawl);
        assert!(started.elapsed() < HELD_UP_MAX * 2);
        read.unwrap()
    };
    assert!(while_pumping(pump, work).await == file());
}

#[tokio::test(start_paused = true)]
async fn two_who_crawl_by_turns_keep_no_places() {
    let (download, pump, _) = download().await;
    let [goes, one, two] = readers(&download);
    let crawl = async |reader: &Reader| {
        while reader.next(u64::MAX).await.is_ok() {
            tokio::time::sleep(HELD_UP_MAX.mul_f64(0.9)).await;
        }
    };
    let work = async {
        let started = Instant::now();
        let crawling = futures::future::join(crawl(&one), crawl(&two));
        let (read, _) = futures::future::join(read_to(&goes, u64::MAX), crawling).await;
        assert!(started.elapsed() < HELD_UP_MAX * 5);
        read.unwrap()
    };
    assert!(while_pumping(pump, work).await == file());
}

#[tokio::test(start_paused = true)]
async fn who_fetches_what_is_gone_holds_up_nobody() {
    let (download, pump, _) = download().await;
    let [goes, behind] = readers(&download);
    let work = async {
        read_to(&goes, STRIDE * 2).await.unwrap();
        let started = Instant::now();
        let fetches = async {
            for part in 1..5 {
                behind.seek(part * STRIDE / 4, None);
                assert!(behind.has_missed(part * STRIDE / 4));
                tokio::time::sleep(HELD_UP_MAX / 2).await;
            }
        };
        let went = async {
            let read = read_to(&goes, u64::MAX).await.unwrap();
            (read, started.elapsed())
        };
        tokio::join!(went, fetches).0
    };
    let (read, took) = while_pumping(pump, work).await;
    let from = usize::try_from(STRIDE * 2).unwrap();
    assert!(read == file()[from..]);
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_loses_a_place_that_nobody_waits_for() {
    let (download, pump, _) = download().await;
    let reader = download.reader(0, None, line());
    let other = download.reader(0, None, line());
    let work = async {
        read_to(&other, STEP).await.unwrap();
        tokio::time::sleep(HELD_UP_MAX * 10).await;
        drop(other);
        read_to(&reader, u64::MAX).await.unwrap()
    };
    assert!(while_pumping(pump, work).await == file());
}

#[tokio::test]
async fn a_request_that_was_given_up_takes_no_bytes_of_the_next() {
    let (download, pump, _) = download().await;
    let reader = download.reader(0, None, line());
    let work = async {
        let (first, mut fed) = reader.feed(0, STRIDE, None);
        let PartBody::Stream { mut frames, .. } = first else {
            panic!("a stream")
        };
        frames.next().await.unwrap().unwrap();
        reader.seek(STRIDE, None);
        assert!(frames.next().await.unwrap().is_err());
        drop(frames);
        assert!(!fed.wait().await);
        let (next, mut fed) = reader.feed(STRIDE, 2 * STRIDE, None);
        let PartBody::Stream { frames, .. } = next else {
            panic!("a stream")
        };
        let frames: Vec<Bytes> = frames.map(Result::unwrap).collect().await;
        assert!(fed.wait().await);
        frames.concat()
    };
    let second = while_pumping(pump, work).await;
    let stride = usize::try_from(STRIDE).unwrap();
    assert!(second == file()[stride..2 * stride]);
    // What nobody took was read all the same, for the digests.
    let first = download.sum(0, STRIDE).await.unwrap();
    assert_eq!(first, Some(Crc64::of(&file()[..stride])));
}

#[tokio::test]
async fn what_is_known_is_not_read_for_one_who_goes_on_behind_it() {
    let (download, pump, asked) = download().await;
    let stride = usize::try_from(STRIDE).unwrap();
    let mut progress = Progress::new(true);
    progress.update(&file()[..stride]);
    let reader = download.reader(STRIDE, Some(progress.save()), line());
    let read = while_pumping(pump, read_to(&reader, u64::MAX)).await;
    assert!(read.unwrap() == file()[stride..]);
    assert_eq!(asked.lock().unwrap()[1], format!("bytes={STRIDE}-"));
    let mut whole = Progress::new(true);
    whole.update(&file());
    assert_eq!(download.ended().unwrap().sha256(), whole.sha256());
}

#[tokio::test]
async fn the_last_frame_passes_only_where_its_check_allows_it() {
    let (download, pump, _) = download().await;
    let reader = download.reader(0, None, line());
    let total = u64::try_from(FILE).unwrap();
    let at_end = download.clone();
    let check = move || match at_end.ended() {
        Some(_) => Err("not whole".to_owned()),
        None => Err("asked too early".to_owned()),
    };
    let (body, _fed) = reader.feed(0, total, Some(Box::new(check)));
    let PartBody::Stream { frames, .. } = body else {
        panic!("a stream")
    };
    let frames = while_pumping(pump, frames.collect::<Vec<_>>()).await;
    let (last, before) = frames.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok) && before.len() >= FILE / FRAME - 1);
    assert_eq!(*last, Err(BrokenSource::new("not whole")));
}
