//! How answers of origins are told apart, and what a request does with its connection.

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::*;
use crate::http::bulk::Bulk;
use crate::http::client::ClientConfig;
use crate::http::client::Traffic;
use crate::http::client::USER_AGENT;
use crate::http::guard::Guard;
use crate::http::roots::Roots;
use crate::units::Span;

const ETAG: &str = "\"v1\"";

fn answer(status: u16, headers: &[(&str, &str)]) -> Response<Body> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(futures::stream::empty().boxed()).unwrap()
}

fn expected() -> SourceIdentity {
    SourceIdentity {
        etag: Some(ETAG.to_owned()),
        last_modified: None,
        length: Some(100),
    }
}

#[track_caller]
fn check(status: u16, headers: &[(&str, &str)], window: Window, outcome: &str) {
    let pinned = expected();
    let pin = (window.start > 0).then_some(&pinned);
    let got = match read_answer("cdn", answer(status, headers), window, pin) {
        Ok(opened) => format!("{:?}", opened.identity.length),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, outcome);
}

#[test]
fn answers_to_a_whole_file() {
    check(200, &[("content-length", "100")], Window::ALL, "Some(100)");
    check(200, &[], Window::ALL, "None");
    check(200, &[("content-length", "+1")], Window::ALL, "None");
    check(
        404,
        &[],
        Window::ALL,
        "cdn answers 404: the link is dead or not yet there",
    );
    for status in [400, 401, 402, 403, 410, 451] {
        let dead = format!("cdn answers {status}: the link is dead or not yet there");
        check(status, &[], Window::ALL, &dead);
    }
    check(503, &[("retry-after", "7")], Window::ALL, "cdn answers 503");
    check(204, &[], Window::ALL, "cdn answers 204");
}

/// Reads a request and gives `answer` to it.
async fn serve(socket: &mut TcpStream, answer: impl AsRef<[u8]>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket.write_all(answer.as_ref()).await.unwrap();
}

fn origin(listener: &TcpListener) -> Origin {
    let client = Bulk::new(&ClientConfig {
        guard: Guard::private(),
        traffic: Traffic::Files,
        connect_timeout: Span::from_secs(10),
        read_timeout: Span::from_secs(10),
        user_agent: USER_AGENT.to_owned(),
        roots: Roots::load(&[]).unwrap(),
    });
    let url = format!("http://{}/v.mp4", listener.local_addr().unwrap());
    Origin {
        http: Http::new(client.unwrap()),
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
    }
}

#[tokio::test]
async fn a_redirect_leaves_its_connection_to_the_next_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = origin(&listener);
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        for body in [
            "content-length: 0\r\n\r\n",
            "content-length: 5\r\n\r\nfound",
            "transfer-encoding: chunked\r\n\r\n5\r\nfound\r\n0\r\n\r\n",
        ] {
            let moved = format!("HTTP/1.1 302 Found\r\nlocation: /\r\n{body}");
            serve(&mut socket, &moved).await;
        }
        serve(
            &mut socket,
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbytes",
        )
        .await;
    };
    let both = futures::future::join(served, origin.open(Window::ALL, None));
    let within = std::time::Duration::from_secs(5);
    let ((), opened) = tokio::time::timeout(within, both)
        .await
        .expect("one connection");
    assert_eq!(opened.ok().unwrap().identity.length, Some(5));
}

#[tokio::test]
async fn a_range_that_begins_like_a_gzip_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = origin(&listener);
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        for range in [
            "200 OK\r\n",
            "206 Partial Content\r\ncontent-range: bytes 7-8/9\r\n",
        ] {
            let head = format!("HTTP/1.1 {range}content-encoding: gzip\r\ncontent-length: 2");
            let mut answer = format!("{head}\r\netag: {ETAG}\r\n\r\n").into_bytes();
            answer.extend(b"\x1f\x8b");
            serve(&mut socket, &answer).await;
        }
    };
    let asked = async {
        let whole = origin.open(Window::ALL, None).await;
        assert!(matches!(whole, Err(OriginError::Encoded { .. })));
        let tail = Window {
            start: 7,
            end: None,
        };
        let opened = origin.open(tail, None).await.ok().unwrap();
        let frames: Vec<_> = opened.body.map(Result::unwrap).collect().await;
        assert_eq!(frames.concat(), b"\x1f\x8b");
    };
    tokio::join!(served, asked);
}

#[test]
fn what_ends_with_its_connection_is_not_framed_whatever_it_says() {
    let told = [("transfer-encoding", "identity"), ("content-length", "100")];
    let opened = read_answer("cdn", answer(200, &told), Window::ALL, None);
    let opened = opened.ok().unwrap();
    assert_eq!((opened.identity.length, opened.is_framed), (None, false));
}

#[test]
fn codings_that_change_nothing_are_no_codings() {
    let check_coding = |coding: &str, outcome: &str| {
        let headers = [("content-encoding", coding), ("content-length", "100")];
        check(200, &headers, Window::ALL, outcome);
    };
    let labels = [
        "",
        "identity",
        "Identity",
        "none",
        "binary",
        "utf-8",
        "aws-chunked",
        "aws-chunked,identity",
        "UTF-8, ",
    ];
    for label in labels {
        check_coding(label, "Some(100)");
    }
    for coding in [
        "deflate",
        "compress",
        "br",
        "zstd",
        "BR",
        "gzip, br",
        "aws-chunked,br",
    ] {
        let named = coding.rsplit(',').next().unwrap().trim().to_lowercase();
        let outcome = format!("cdn sends content-encoding {named:?} unasked");
        check_coding(coding, &outcome);
    }
}

#[test]
fn redirects_lead_where_their_bytes_say() {
    #[track_caller]
    fn check(location: &[u8], outcome: &str) {
        let from = "https://cdn.example/a/v?sig=secret".parse().unwrap();
        let mut headers = HeaderMap::new();
        let location = header::HeaderValue::from_bytes(location).unwrap();
        headers.insert(header::LOCATION, location);
        let to = next_hop(&from, &headers);
        let to = to.map_or_else(|error| error.to_string(), Into::into);
        assert_eq!(to, outcome);
    }
    check(b"/b", "https://cdn.example/b");
    check(
        "/m\u{fc}de \u{5f71}.mp4".as_bytes(),
        "https://cdn.example/m%C3%BCde%20%E5%BD%B1.mp4",
    );
    check(b"/m\xfcde", "cdn.example redirects nowhere");
    check(
        b"http://b/",
        "cdn.example redirects to something that is not https",
    );
    check(
        b"file:///etc/passwd",
        "cdn.example redirects to something that is not https",
    );
}

#[test]
fn answers_to_a_range() {
    let tail = Window {
        start: 40,
        end: None,
    };
    let middle = Window {
        start: 40,
        end: Some(60),
    };
    check(
        206,
        &[("content-range", "bytes 40-99/100"), ("etag", ETAG)],
        tail,
        "Some(100)",
    );
    check(
        206,
        &[("content-range", "bytes 40-59/100"), ("etag", ETAG)],
        middle,
        "Some(100)",
    );
    // Less than was asked for, but some of it.
    check(
        206,
        &[("content-range", "bytes 40-40/100"), ("etag", ETAG)],
        tail,
        "Some(100)",
    );
    check(
        206,
        &[("content-range", "bytes 40-58/100"), ("etag", ETAG)],
        middle,
        "Some(100)",
    );
    check(
        206,
        &[("content-range", "bytes 40-60/100"), ("etag", ETAG)],
        middle,
        "cdn does not serve ranges",
    );
    check(
        206,
        &[("content-range", "bytes 40-98/100")],
        tail,
        "cdn does not serve ranges",
    );
    check(
        206,
        &[("content-range", "bytes 0-99/100")],
        tail,
        "cdn does not serve ranges",
    );
    check(
        206,
        &[("content-range", "bytes 40-99/*")],
        tail,
        "cdn does not serve ranges",
    );
    check(
        206,
        &[("content-range", "bytes 40-100/100")],
        tail,
        "cdn does not serve ranges",
    );
    check(
        206,
        &[("content-range", "bytes 40--1/100")],
        tail,
        "cdn does not serve ranges",
    );
    check(206, &[], tail, "cdn does not serve ranges");
    check(
        200,
        &[("content-length", "100")],
        tail,
        "cdn does not serve ranges",
    );
    let other = [("content-length", "100"), ("etag", "\"v2\"")];
    check(
        200,
        &other,
        tail,
        "cdn changed the file under us: its ETag differs",
    );
    let other = [("content-range", "bytes 40-99/100"), ("etag", "\"v2\"")];
    check(
        206,
        &other,
        tail,
        "cdn changed the file under us: its ETag differs",
    );
    let longer = [("content-range", "bytes 40-119/120"), ("etag", ETAG)];
    check(
        206,
        &longer,
        tail,
        "cdn changed the file under us: its length was 100 and is 120",
    );
    check(
        416,
        &[],
        tail,
        "cdn changed the file under us: it no longer reaches byte 40",
    );
}
