//! Result files as a downloader sees them.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::model::asset::AssetIndex;
use crate::model::digest::Sha256Digester;
use crate::model::task::TaskId;
use crate::simulator::Config;
use crate::simulator::Simulator;
use crate::simulator::probe::Came;
use crate::simulator::probe::Hands;
use crate::simulator::probe::client;
use crate::simulator::probe::get;
use crate::simulator::probe::get_range;
use crate::simulator::probe::send;
use crate::simulator::probe::start;
use crate::simulator::script::AtOnce;
use crate::simulator::script::FileFault;
use crate::simulator::script::Manner;
use crate::simulator::script::Rule;
use crate::simulator::source::FileKind;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Submission;
use crate::simulator::tasks::TaskKind;
use crate::units::ByteSize;
use crate::units::Span;

const FIRST: AssetIndex = AssetIndex(0);

/// A simulator with one completed task of one file.
struct Stage {
    simulator: Simulator,
    hands: Hands,
    task: TaskId,
    /// The link to its file, as it was at first.
    link: String,
    /// The file's bytes, as they were at first.
    file: Vec<u8>,
}

impl Stage {
    async fn new(faults: &str) -> Self {
        Self::with(Config {
            script: faults.parse().unwrap(),
            ..Config::at_once()
        })
        .await
    }

    async fn with(config: Config) -> Self {
        let hands = Hands::new();
        let simulator = start(config, &hands).await;
        let task = simulator.submit(Submission::video("m")).unwrap();
        let source = simulator.expected(&task, FIRST).unwrap();
        Self {
            link: simulator.links(&task).remove(0),
            file: source.bytes(0..source.length()).to_vec(),
            simulator,
            hands,
            task,
        }
    }

    /// After a fault the same link gives the whole file again.
    async fn check_recovered(&self) {
        let came = get(&self.link).await;
        assert_eq!(came.status, 200);
        assert!(came.is_whole && came.body == self.file);
    }
}

#[tokio::test]
async fn a_link_gives_the_file_and_all_that_its_headers_promise() {
    for (kind, format) in [
        (TaskKind::Video, FileKind::Mp4),
        (TaskKind::Video, FileKind::Webm),
        (TaskKind::Image, FileKind::Png),
        (TaskKind::Image, FileKind::Jpg),
        (TaskKind::Audio, FileKind::Mp3),
        (TaskKind::Audio, FileKind::Wav),
    ] {
        let simulator = start(Config::at_once(), &Hands::new()).await;
        let task = simulator.submit(Submission {
            kind,
            format: Some(format),
            count: 2,
            size: Some(ByteSize::bytes(700_001)),
            ..Submission::video("m")
        });
        let task = task.unwrap();
        let mut etags = Vec::new();
        for (at, link) in (0..).zip(simulator.links(&task)) {
            assert!(link.ends_with(&format!("/files/{task}/{at}.{format}")));
            let came = get(&link).await;
            assert_eq!(came.status, 200);
            let mut digester = Sha256Digester::new();
            digester.update(&came.body);
            let sha256 = simulator.expected_sha256(&task, AssetIndex(at));
            assert_eq!(sha256, Some(digester.value()));
            assert_eq!(
                simulator.expected_length(&task, AssetIndex(at)),
                Some(700_001)
            );
            assert_eq!(came.header("content-length"), Some("700001"));
            assert_eq!(came.header("content-type"), Some(format.content_type()));
            assert_eq!(came.header("accept-ranges"), Some("bytes"));
            assert_eq!(
                came.header("last-modified"),
                Some("Mon, 30 Mar 2026 07:56:45 GMT")
            );
            let kind = infer::get(&came.body).unwrap();
            assert_eq!(kind.mime_type().replace("x-", ""), format.content_type());
            etags.push(came.header("etag").unwrap().to_owned());

            let head = send(client().head(&link)).await.unwrap();
            assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
            for name in ["content-length", "etag", "content-type"] {
                assert_eq!(head.header(name), came.header(name));
            }
        }
        assert_ne!(etags[0], etags[1]);
        let seen = simulator.seen();
        assert_eq!(
            (seen.file_gets, seen.file_heads, seen.file_bytes),
            (2, 2, 2 * 700_001)
        );
    }
}

#[tokio::test]
async fn ranges_are_slices_of_the_whole() {
    let stage = Stage::new("").await;
    let length = stage.file.len();
    for (range, start, end) in [
        ("bytes=0-0", 0, 1),
        ("bytes=100-1099", 100, 1100),
        ("bytes=65000-", 65_000, length),
        ("bytes=-7", length - 7, length),
        ("bytes=0-99999999", 0, length),
    ] {
        let came = get_range(&stage.link, range).await;
        assert_eq!(came.status, 206, "{range}");
        assert!(came.body == stage.file[start..end], "{range}");
        let content_range = format!("bytes {start}-{}/{length}", end - 1);
        assert_eq!(came.header("content-range"), Some(content_range.as_str()));
        assert_eq!(
            came.header("content-length"),
            Some((end - start).to_string().as_str())
        );
    }
    let came = get_range(&stage.link, "bytes=65536-").await;
    assert_eq!(
        (came.status.as_u16(), came.header("content-range")),
        (416, Some("bytes */65536"))
    );
    let requests = stage.simulator.requests();
    assert_eq!(requests[1].range.as_deref(), Some("bytes=100-1099"));
    assert!(!requests[1].has_authorization);
}

#[tokio::test]
async fn if_range_gives_the_rest_of_the_same_version_or_the_whole_of_another() {
    let stage = Stage::new("").await;
    let first = get(&stage.link).await;
    let ask = |version: String| {
        let request = client().get(&stage.link).header("range", "bytes=10-19");
        send(request.header("if-range", version))
    };
    for name in ["etag", "last-modified"] {
        let came = ask(first.header(name).unwrap().to_owned()).await.unwrap();
        assert_eq!(came.status, 206);
        assert!(came.body == stage.file[10..20]);
    }
    let came = ask("\"another\"".to_owned()).await.unwrap();
    assert_eq!(came.status, 200);
    assert!(came.body == stage.file);
}

#[tokio::test]
async fn a_link_dies_at_the_end_of_its_life_and_not_before() {
    for dead_status in [403, 404, 410] {
        let life = Span::from_secs(3600);
        let stage = Stage::with(Config {
            life,
            dead_status,
            ..Config::at_once()
        })
        .await;
        stage.hands.pass(Span::from_millis(3_599_999));
        assert_eq!(get(&stage.link).await.status, 200);
        stage.hands.pass(Span::from_millis(1));
        assert_eq!(get(&stage.link).await.status, dead_status);
        assert_eq!(
            send(client().head(&stage.link)).await.unwrap().status,
            dead_status
        );
    }
}

#[tokio::test]
async fn only_files_of_completed_tasks_are_there() {
    let stage = Stage::new("").await;
    for wrong in [
        stage.link.replace("0.mp4", "1.mp4"),
        stage.link.replace("0.mp4", "0.png"),
        stage.link.replace("0.mp4", "x"),
        stage.link.replace("task-", "tusk-"),
        format!("{}?link=1", stage.link),
    ] {
        assert_eq!(get(&wrong).await.status, 404, "{wrong}");
    }
    stage.simulator.push(&stage.task, Status::Processing(99));
    assert_eq!(get(&stage.link).await.status, 404);
}

#[tokio::test]
async fn default_agents_of_python_are_turned_away() {
    let stage = Stage::new("").await;
    let request = client()
        .get(&stage.link)
        .header("user-agent", "Python-urllib/3.13");
    assert_eq!(send(request).await.unwrap().status, 403);
}

/// What a cut body looks like: how many bytes came, and whether the client could tell that it was cut.
async fn check_cut(word: &str, length: Option<&str>, expected: usize, is_whole: bool) -> Came {
    let stage = Stage::new(word).await;
    let came = get(&stage.link).await;
    assert_eq!(came.status, 200, "{word}");
    assert_eq!(came.header("content-length"), length, "{word}");
    assert_eq!(came.is_whole, is_whole, "{word}");
    assert_eq!(came.body.len(), expected, "{word}");
    assert!(came.body == stage.file[..expected], "{word}");
    stage.check_recovered().await;
    came
}

#[tokio::test]
async fn cut_bodies() {
    check_cut("truncate", Some("65536"), 32_768, false).await;
    check_cut("truncate@1000", Some("65536"), 1000, false).await;
    check_cut("truncate@0", Some("65536"), 0, false).await;
    let short = check_cut("short@1000", None, 1000, true).await;
    assert_eq!(short.header("transfer-encoding"), None);
    let chunks = check_cut("short-chunks@1000", None, 1000, true).await;
    assert_eq!(chunks.header("transfer-encoding"), Some("chunked"));
    check_cut("cut-chunks@1000", None, 1000, false).await;
    check_cut("crop@1000", Some("1000"), 1000, true).await;
    check_cut("no-length", None, 65_536, true).await;
}

#[tokio::test]
async fn long_bodies_are_cut_at_the_very_byte() {
    let config = Config {
        size: ByteSize::mib(6),
        script: "truncate@5MiB".parse().unwrap(),
        ..Config::at_once()
    };
    let stage = Stage::with(config).await;
    let came = get(&stage.link).await;
    assert!(!came.is_whole);
    assert!(came.body == stage.file[..5 << 20], "{}", came.body.len());
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let stage = Stage::new("reset@1000").await;
    let mut stream = TcpStream::connect(stage.simulator.address()).await.unwrap();
    let path = stage
        .link
        .strip_prefix(&stage.simulator.base_url())
        .unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let error = stream.read_to_end(&mut answer).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    stage.check_recovered().await;
}

#[tokio::test]
async fn a_stall_sends_its_bytes_and_then_nothing() {
    let stage = Stage::new("").await;
    stage
        .simulator
        .plant(Rule::file(FileFault::Stall(Some(ByteSize::bytes(3000)))).task(&stage.task));
    let mut answer = client().get(&stage.link).send().await.unwrap();
    let mut got = Vec::new();
    while got.len() < 3000 {
        got.extend_from_slice(&answer.chunk().await.unwrap().unwrap());
    }
    assert!(got == stage.file[..3000]);
    let silence = tokio::time::timeout(Duration::from_millis(100), answer.chunk()).await;
    assert!(silence.is_err());
    // The silent connection ends with the simulator.
    stage.simulator.shutdown().await;
    assert!(answer.chunk().await.is_err());
}

#[tokio::test]
async fn a_hang_sends_not_even_headers() {
    let stage = Stage::new("hang").await;
    let request = client().get(&stage.link).timeout(Duration::from_millis(50));
    assert!(send(request).await.is_err_and(|error| error.is_timeout()));
    stage.check_recovered().await;
}

#[tokio::test]
async fn bodies_that_are_no_video() {
    let stage = Stage::new("503,html,empty").await;
    assert_eq!(get(&stage.link).await.status, 503);
    let came = get(&stage.link).await;
    assert_eq!(
        (came.status.as_u16(), came.header("content-type")),
        (200, Some("text/html; charset=utf-8"))
    );
    let came = get(&stage.link).await;
    assert_eq!(
        (came.status.as_u16(), came.body.len(), came.is_whole),
        (200, 0, true)
    );
    stage.check_recovered().await;
}

#[tokio::test]
async fn ranges_that_go_wrong() {
    let stage = Stage::new("no-range,wrong-range").await;
    stage.check_recovered().await;
    let came = get_range(&stage.link, "bytes=10-19").await;
    assert_eq!(
        (came.status.as_u16(), came.header("content-range")),
        (200, None)
    );
    assert!(came.body == stage.file);
    let came = get_range(&stage.link, "bytes=10-19").await;
    assert_eq!(
        (came.status.as_u16(), came.header("content-range")),
        (206, Some("bytes 11-20/65536"))
    );
    assert!(came.body == stage.file[11..21]);
}

#[tokio::test]
async fn a_file_changes_midway() {
    let stage = Stage::new("change@1000").await;
    let before = get(&stage.link).await;
    assert!(!before.is_whole && before.body == stage.file[..1000]);
    let request = client().get(&stage.link).header("range", "bytes=1000-");
    let after = send(request.header("if-range", before.header("etag").unwrap()))
        .await
        .unwrap();
    assert_eq!(after.status, 200, "another version is sent whole");
    assert_ne!(after.header("etag"), before.header("etag"));
    let source = stage.simulator.expected(&stage.task, FIRST).unwrap();
    assert!(after.body == source.bytes(0..source.length()) && after.body != stage.file);
}

#[tokio::test]
async fn a_link_dies_early_and_the_task_has_a_fresh_one() {
    for (word, status) in [("dead", 403), ("dead@404", 404), ("dead@410", 410)] {
        let stage = Stage::new(word).await;
        assert_eq!(get(&stage.link).await.status, status);
        assert_eq!(get(&stage.link).await.status, status, "it stays dead");
        let fresh = stage.simulator.links(&stage.task).remove(0);
        assert_ne!(fresh, stage.link);
        let came = get(&fresh).await;
        assert!(came.status == 200 && came.body == stage.file);
    }
}

#[tokio::test]
async fn gzip_unasked_is_a_real_stream() {
    let config = Config {
        size: ByteSize::bytes(200_000),
        script: "gzip".parse().unwrap(),
        ..Config::at_once()
    };
    let stage = Stage::with(config).await;
    let came = get(&stage.link).await;
    assert_eq!(came.header("content-encoding"), Some("gzip"));
    let mut rest = came
        .body
        .strip_prefix(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
        .unwrap();
    let mut file = Vec::new();
    loop {
        let length = usize::from(u16::from_le_bytes([rest[1], rest[2]]));
        assert_eq!(
            u16::from_le_bytes([rest[1], rest[2]]),
            !u16::from_le_bytes([rest[3], rest[4]])
        );
        file.extend_from_slice(&rest[5..5 + length]);
        let is_last = rest[0] == 1;
        rest = &rest[5 + length..];
        if is_last {
            break;
        }
    }
    assert!(file == stage.file);
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32IsoHdlc, &file);
    let expected = [
        u32::try_from(crc).unwrap().to_le_bytes(),
        200_000_u32.to_le_bytes(),
    ]
    .concat();
    assert_eq!(rest, expected);
}

#[tokio::test]
async fn redirects_end_at_the_file_or_elsewhere() {
    let stage = Stage::new("redirect@2,redirect-to@http://10.0.0.1/secret").await;
    let mut link = stage.link.clone();
    for _ in 0..2 {
        let came = get(&link).await;
        assert_eq!(came.status, 302);
        link = format!(
            "{}{}",
            stage.simulator.base_url(),
            came.header("location").unwrap()
        );
    }
    let came = get(&link).await;
    assert!(came.status == 200 && came.body == stage.file);
    let came = get(&stage.link).await;
    assert_eq!(came.header("location"), Some("http://10.0.0.1/secret"));
}

#[tokio::test]
async fn an_endless_body_goes_on_past_the_file() {
    let stage = Stage::new("endless").await;
    let mut answer = client().get(&stage.link).send().await.unwrap();
    assert_eq!(answer.content_length(), None);
    let mut got = 0;
    while got < 3 << 20 {
        got += answer.chunk().await.unwrap().unwrap().len();
    }
}

#[tokio::test]
async fn rates_and_trickles_take_their_time() {
    let stage = Stage::new("slow=320KiB/s,trickle@10ms").await;
    let started = tokio::time::Instant::now();
    let came = get_range(&stage.link, "bytes=0-9").await;
    assert!(came.body == stage.file[..10]);
    assert!(started.elapsed() >= Duration::from_millis(90));

    let started = tokio::time::Instant::now();
    stage.check_recovered().await;
    // 64 KiB take 200 ms, of which the last of 20 pieces a second need not be waited for.
    assert!(started.elapsed() >= Duration::from_millis(150));
    stage.simulator.limit_rate(None);
    let seen = stage.simulator.seen();
    assert_eq!((seen.faults, seen.file_bytes), (1, 65_546));
}

#[tokio::test]
async fn a_rate_holds_for_a_connection_whatever_it_is_asked() {
    let stage = Stage::new("slow=320KiB/s").await;
    let one = client();
    let started = tokio::time::Instant::now();
    for _ in 0..5 {
        // One piece: alone on its connection it would leave at once.
        let request = one.get(&stage.link).header("range", "bytes=0-16383");
        assert_eq!(send(request).await.unwrap().body.len(), 16_384);
    }
    assert!(started.elapsed() >= Duration::from_millis(195));
}

#[tokio::test]
async fn a_slow_file_slows_no_other() {
    let stage = Stage::new("").await;
    let slow = Rule::manner(Manner::Paced(ByteSize::bytes(320 << 10)));
    stage.simulator.plant(slow.task(&stage.task));
    let fast = stage.simulator.submit(Submission::video("m")).unwrap();
    let fast = stage.simulator.links(&fast).remove(0);
    let started = tokio::time::Instant::now();
    tokio::select! {
        came = get(&fast) => assert!(came.is_whole),
        _ = get(&stage.link) => panic!("the slow file is not slow"),
    }
    stage.check_recovered().await;
    assert!(started.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn versions_are_told_as_the_manners_say() {
    let ask = async |words: &str, version: &str| {
        let stage = Stage::new(words).await;
        let came = get(&stage.link).await;
        let request = client().get(&stage.link).header("range", "bytes=10-19");
        let version = came.header(version).unwrap_or("\"x\"").to_owned();
        let part = send(request.header("if-range", version)).await.unwrap();
        (came, part.status.as_u16())
    };
    let (came, part) = ask("weak-etag=all", "etag").await;
    assert!(came.header("etag").unwrap().starts_with("W/\""));
    assert_eq!(part, 200, "a weak one proves nothing");
    let (came, part) = ask("no-etag=all", "last-modified").await;
    assert_eq!((came.header("etag"), part), (None, 206));
    let (came, part) = ask("no-version=all", "etag").await;
    let told = (came.header("etag"), came.header("last-modified"));
    assert_eq!((told, part), ((None, None), 200));
}

#[tokio::test]
async fn ranges_are_told_as_the_manners_say() {
    let ask = async |words: &str, range: Option<&str>| {
        let stage = Stage::new(words).await;
        let mut request = client().get(&stage.link);
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let came = send(request).await.unwrap();
        let told = came.header("content-range").map(str::to_owned);
        let units = came.header("accept-ranges").map(str::to_owned);
        (came.status.as_u16(), told, units.unwrap(), came.body.len())
    };
    let some = Some("bytes=10-19");
    let of = |text: &str| Some(text.to_owned());
    let bytes = || "bytes".to_owned();
    assert_eq!(
        ask("no-ranges=all", some).await,
        (200, None, "none".to_owned(), 65_536)
    );
    assert_eq!(
        ask("no-total", some).await,
        (206, of("bytes 10-19/*"), bytes(), 10)
    );
    assert_eq!(
        ask("lying-total@1KiB", some).await,
        (206, of("bytes 10-19/66560"), bytes(), 10)
    );
    assert_eq!(
        ask("part-unasked", None).await,
        (206, of("bytes 0-65535/65536"), bytes(), 65_536)
    );
    assert_eq!(
        ask("part-unasked,no-total", None).await,
        (206, of("bytes 0-65535/*"), bytes(), 65_536)
    );
}

#[tokio::test]
async fn no_more_files_are_sent_at_once_than_the_bound_allows() {
    let stage = Stage::new("stall=2@1000,at-once=2@429").await;
    let open = || async {
        let mut answer = client().get(&stage.link).send().await.unwrap();
        let first = answer.chunk().await.unwrap();
        assert!(first.is_some());
        answer
    };
    let (one, other) = (open().await, open().await);
    assert_eq!(get(&stage.link).await.status, 429);
    let seen = stage.simulator.seen_file(&stage.task, FIRST);
    assert_eq!((seen.gets, seen.refused, seen.at_once_max), (3, 1, 2));
    assert_eq!(stage.simulator.files_at_once_max(), 2);
    drop((one, other));
    stage.simulator.limit_at_once(Some(AtOnce {
        most: 3,
        status: 503,
    }));
    stage.check_recovered().await;
    let seen = stage.simulator.seen_file(&stage.task, FIRST);
    assert_eq!((seen.gets, seen.bytes), (4, 67_536));
}
