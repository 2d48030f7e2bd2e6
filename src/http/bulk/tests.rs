//! What the transport for large bodies does with its connections; what both transports do is in the client's tests.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

use super::*;
use crate::http::body::collect;
use crate::http::client::Traffic;
use crate::http::client::USER_AGENT;
use crate::http::roots::Roots;
use crate::units::ByteSize;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nbytes";

fn client(read_timeout: Span) -> Bulk {
    Bulk::new(&ClientConfig {
        guard: Guard::private(),
        traffic: Traffic::Files,
        connect_timeout: Span::from_secs(10),
        read_timeout,
        user_agent: USER_AGENT.to_owned(),
        roots: Roots::load(&[]).unwrap(),
    })
    .unwrap()
}

fn get(listener: &TcpListener) -> http::Request<Bytes> {
    let url = format!("http://{}/v.mp4", listener.local_addr().unwrap());
    http::Request::get(url).body(Bytes::new()).unwrap()
}

async fn whole(client: &Bulk, request: http::Request<Bytes>) -> Result<Bytes, HttpError> {
    let answer = client.send(request).await?;
    collect(answer.into_body(), ByteSize::mib(64)).await
}

async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Reads a request from `socket` and answers it.
async fn serve(socket: &mut TcpStream) {
    read_head(socket).await;
    socket.write_all(ANSWER).await.unwrap();
}

#[tokio::test]
async fn a_connection_whose_body_was_read_is_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            serve(&mut socket).await;
        }
    };
    let asked = async {
        for _ in 0..3 {
            assert_eq!(whole(&client, get(&listener)).await.unwrap(), "bytes");
        }
    };
    tokio::join!(served, asked);
}

#[tokio::test]
async fn so_is_one_whose_reader_knew_when_to_stop() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        for _ in 0..2 {
            serve(&mut socket).await;
        }
    };
    let asked = async {
        for _ in 0..2 {
            let mut body = client.send(get(&listener)).await.unwrap().into_body();
            assert_eq!(body.next().await.unwrap().unwrap(), "bytes");
        }
    };
    tokio::join!(served, asked);
}

#[tokio::test]
async fn one_whose_body_was_given_up_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let served = async {
        let (mut first, _) = listener.accept().await.unwrap();
        serve(&mut first).await;
        assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0);
        let (mut second, _) = listener.accept().await.unwrap();
        serve(&mut second).await;
    };
    let asked = async {
        drop(client.send(get(&listener)).await.unwrap());
        assert_eq!(whole(&client, get(&listener)).await.unwrap(), "bytes");
    };
    tokio::join!(served, asked);
}

#[tokio::test]
async fn a_peer_that_hung_up_meanwhile_costs_no_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    // One hangs up while nobody looks, the other only once it has read the request.
    for reads_again in [false, true] {
        let served = async {
            let (mut first, _) = listener.accept().await.unwrap();
            serve(&mut first).await;
            if reads_again {
                read_head(&mut first).await;
            }
            drop(first);
            let (mut second, _) = listener.accept().await.unwrap();
            serve(&mut second).await;
        };
        let asked = async {
            assert_eq!(whole(&client, get(&listener)).await.unwrap(), "bytes");
            assert_eq!(whole(&client, get(&listener)).await.unwrap(), "bytes");
        };
        tokio::join!(served, asked);
        client
            .0
            .lines
            .0
            .shelf
            .take(&get(&listener).uri().to_string().parse().unwrap());
    }
}

#[tokio::test]
async fn what_writes_is_never_sent_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let served = async {
        let (mut first, _) = listener.accept().await.unwrap();
        serve(&mut first).await;
        read_head(&mut first).await;
    };
    let asked = async {
        whole(&client, get(&listener)).await.unwrap();
        let mut post = get(&listener);
        *post.method_mut() = Method::POST;
        assert!(matches!(
            whole(&client, post).await,
            Err(HttpError::Broken { .. })
        ));
    };
    tokio::join!(served, asked);
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_its_next_request_for_a_while_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        serve(&mut socket).await;
        // Nobody asks again: the client hangs up by itself.
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
    };
    let (body, ()) = tokio::join!(whole(&client, get(&listener)), served);
    assert_eq!(body.unwrap(), "bytes");
}

#[tokio::test]
async fn silence_counts_only_while_somebody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_millis(200));
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nbytes";
        socket.write_all(head).await.unwrap();
        socket
    };
    let asked = async { client.send(get(&listener)).await.unwrap().into_body() };
    let (mut socket, mut body) = tokio::join!(served, asked);
    assert_eq!(body.next().await.unwrap().unwrap(), "bytes");
    // A reader that is held up by a destination for longer than an origin may be silent.
    tokio::time::sleep(Duration::from_millis(400)).await;
    socket.write_all(b"by").await.unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "by");
    let silence = body.next().await.unwrap();
    assert!(
        matches!(silence, Err(HttpError::Timeout { .. })),
        "{silence:?}"
    );
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn frames_are_bounded_whatever_the_peer_sends_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let sent = vec![7_u8; 8 << 20];
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", sent.len());
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&sent).await.unwrap();
    };
    let asked = async {
        let mut body = client.send(get(&listener)).await.unwrap().into_body();
        let mut total = 0;
        while let Some(frame) = body.next().await {
            let frame = frame.unwrap();
            assert!(frame.len() <= 128 << 10, "{}", frame.len());
            total += frame.len();
        }
        total
    };
    assert_eq!(tokio::join!(served, asked).1, sent.len());
}

#[tokio::test]
async fn credentials_of_a_url_are_sent_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let address = listener.local_addr().unwrap();
    let request = http::Request::get(format!("http://us%65r:pass@{address}/v.mp4"));
    let served = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = read_head(&mut socket).await;
        socket.write_all(ANSWER).await.unwrap();
        head
    };
    let asked = whole(&client, request.body(Bytes::new()).unwrap());
    let (head, body) = tokio::join!(served, asked);
    assert_eq!(body.unwrap(), "bytes");
    assert!(
        head.contains("authorization: Basic dXNlcjpwYXNz\r\n"),
        "{head}"
    );
    assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
}

/// Whom the last request went to is remembered, and must never stand for another.
#[tokio::test]
async fn each_request_goes_to_whom_it_names_as_it_names_them() {
    let (one, other) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let client = client(Span::from_secs(10));
    for (listener, credentials, target) in [
        (&one, "", "/a?b=1"),
        (&other, "", "/a?b=1"),
        (&one, "Ann:x@", "?b=1"),
        (&one, "ann:x@", "/%2e%2e/b"),
        (&one, "", ""),
    ] {
        let address = listener.local_addr().unwrap();
        let url = format!("http://{credentials}{address}{target}");
        let served = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = read_head(&mut socket).await;
            let closing = "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
            socket.write_all(closing.as_bytes()).await.unwrap();
            head
        };
        let request = http::Request::get(&url).body(Bytes::new()).unwrap();
        let (head, answer) = tokio::join!(served, client.send(request));
        assert_eq!(answer.unwrap().status(), 204, "{url}");
        let slash = if target.starts_with('/') { "" } else { "/" };
        assert!(
            head.starts_with(&format!("GET {slash}{target} HTTP/1.1\r\n")),
            "{head}"
        );
        assert!(head.contains(&format!("host: {address}\r\n")), "{head}");
        let pair = credentials.strip_suffix('@').map(base64::encode);
        let told = pair.map(|pair| format!("authorization: Basic {pair}\r\n"));
        assert_eq!(head.contains("authorization"), told.is_some(), "{head}");
        assert!(head.contains(&told.unwrap_or_default()), "{head}");
    }
}

/// What a request's body is made of may be a share of a transfer, which must not hang on to a peer that is dead.
#[tokio::test]
async fn a_request_that_is_given_up_takes_its_body_with_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    let witness = std::sync::Arc::new(());
    let held = std::sync::Arc::clone(&witness);
    let frames = futures::stream::unfold((held, 1), |(held, left)| async move {
        if left == 0 {
            std::future::pending::<()>().await;
        }
        let frame = http_body::Frame::data(Bytes::from_static(b"first"));
        Some((Ok(frame), (held, left - 1)))
    });
    let body: Payload = http_body_util::BodyExt::boxed(http_body_util::StreamBody::new(frames));
    let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let request = http::Request::put("/").header(header::HOST, "store");
    let sending = client
        .0
        .lines
        .send(&url, Box::new(request.body(body).unwrap()), None);
    let begun = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_head(&mut socket).await;
        socket
    };
    let mut socket = tokio::select! {
        _ = sending => panic!("it is never answered"),
        socket = begun => socket,
    };
    assert_eq!(std::sync::Arc::strong_count(&witness), 1);
    // And its connection, so that the peer knows.
    let mut rest = Vec::new();
    let read = socket.read_to_end(&mut rest).await;
    assert!(read.is_err() || rest.len() < 64, "{rest:?}");
}

#[tokio::test]
async fn a_header_line_that_makes_no_sense_costs_no_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(Span::from_secs(10));
    for line in [
        "no colon at all",
        "a name: with a space",
        "x-space : before the colon",
        "content-disposition: attachment; filename=\"a cat\r\n on two lines.mp4\"",
        "x-bell: \u{7}",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{line}\r\ncontent-length: 5\r\n\r\nbytes");
        let served = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_head(&mut socket).await;
            socket.write_all(answer.as_bytes()).await.unwrap();
        };
        let (read, ()) = tokio::join!(whole(&client, get(&listener)), served);
        assert_eq!(read.unwrap(), "bytes", "{line:?}");
    }
}
