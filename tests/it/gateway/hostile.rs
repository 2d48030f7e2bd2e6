//! Requests that are meant to lead elsewhere, to be read in two ways, or to cost more than they should.

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::gateway::KEY;
use crate::gateway::SUBMIT;
use crate::gateway::call;
use crate::gateway::read_all;
use crate::gateway::takes_all;
use crate::gateway::upstream::Upstream;
use crate::gateway::with_gateway;
use crate::server::exchange;

/// Sends bytes as they are and reads until the server ends the connection.
async fn raw(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may have had enough before all of it is sent.
    drop(stream.write_all(bytes.as_bytes()).await);
    read_all(stream).await
}

/// Sends bytes as they are and nothing more.
async fn cut(address: &str, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    read_all(stream).await
}

#[tokio::test]
async fn no_path_leads_elsewhere() {
    let upstream = Upstream::new(takes_all).await;
    with_gateway(&upstream, "", "", async |_, address| {
        let key = format!("Authorization: Bearer {KEY}\r\n");
        for path in [
            "/..",
            "/../x",
            "/v1/../../x",
            "/v1/%2e%2e/x",
            "/v1/.%2E/x",
            "/v1/%252e%252e/x",
            "/v1/..;/x",
            "/v1/..;a=b/x",
            "//evil.example/x",
            "/v1//x",
            "/v1%2fx",
            "/v1%5cx",
            "/v1\\x",
            "/v1/%00",
            "/v1/%0d%0aHost:%20evil.example",
            "/v1/%zz",
            "/@evil.example/../x",
            "/http://evil.example/",
        ] {
            let answer = call(address, &format!("GET /gateway/raw{path}"), &key, "").await;
            answer.assert_problem(400);
        }
        for path in [
            "/gateway/none/v1",
            "/gateway/",
            "/gateway",
            "/gateway/raw%2f..%2fsim/v1",
            "/gateway/../gateway/raw/v1",
            "/gateway/fetch/v1",
        ] {
            let answer = call(address, &format!("GET {path}"), &key, "").await;
            answer.assert_problem(404);
        }
        // A target that names a host names ours, or is refused.
        let elsewhere = format!(
            "GET http://evil.example/gateway/raw/v1 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{key}\r\n"
        );
        assert!(raw(address, &elsewhere).await.starts_with("HTTP/1.1 400 "));
        let elsewhere = format!(
            "GET http://evil.example/gateway/raw/v1 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n{key}\r\n"
        );
        assert!(raw(address, &elsewhere).await.starts_with("HTTP/1.1 421 "));
        assert_eq!(upstream.received().len(), 0);
        // What looks odd and is not.
        let answer = call(
            address,
            "GET /gateway/raw/v1/a%20b/..c/d..?e=../%2e%2e//f",
            &key,
            "",
        )
        .await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            upstream.only().line,
            "GET /v1/a%20b/..c/d..?e=../%2e%2e//f HTTP/1.1"
        );
    })
    .await;
}

#[tokio::test]
async fn a_base_url_that_points_inside_is_never_asked() {
    let upstream = Upstream::new(takes_all).await;
    let inside = "[provider.inside]\nkind = \"evolink\"\nbase_url = \"https://127.0.0.1:1\"\n\
        api_key = { env = \"SIM_KEY\" }\ngateway = true\n";
    with_gateway(&upstream, "", inside, async |_, address| {
        let key = format!("Authorization: Bearer {KEY}\r\n");
        let answer = call(address, "GET /gateway/inside/v1/credits", &key, "").await;
        let problem = answer.assert_problem(502);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains("127.0.0.1 is not allowed"), "{detail}");
    })
    .await;
}

/// Shapes that two servers in a row may cut into requests at different places. Whatever is answered, what goes on has one
/// reading, and what stands behind is never taken for a request of ours.
#[tokio::test]
async fn no_request_is_smuggled() {
    let upstream = Upstream::new(takes_all).await;
    with_gateway(&upstream, "", "", async |_, address| {
        let head = format!("POST /gateway/raw/v1/uploads HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\n");
        let hidden = format!("GET /gateway/raw/v1/smuggled HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\n\r\n");
        let refused = [
            ("two lengths", format!("{head}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd")),
            ("lengths in a list", format!("{head}Content-Length: 3, 4\r\n\r\nabcd")),
            ("a signed length", format!("{head}Content-Length: +3\r\n\r\nabc")),
            ("a negative length", format!("{head}Content-Length: -1\r\n\r\nabc")),
            ("a length that is none", format!("{head}Content-Length: 0x3\r\n\r\nabc")),
            ("an unknown coding", format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
            ("chunked and more", format!("{head}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}")),
            ("a space before the colon", format!("{head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}")),
            ("a folded line", format!("{head}X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}")),
            ("a bare return", format!("{head}X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}")),
            ("chunks in HTTP/1.0", format!("{}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}", head.replace("HTTP/1.1", "HTTP/1.0"))),
        ];
        for (what, bytes) in &refused {
            let answer = raw(address, bytes).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "), "{what}: {answer:?}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
        }
        for (what, bytes) in [
            ("a size that is none", format!("{head}Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n{hidden}")),
            ("a size with a bare end", format!("{head}Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n{hidden}")),
            ("a chunk that is too long", format!("{head}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n{hidden}")),
            ("a huge size", format!("{head}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n{hidden}")),
        ] {
            let answer = raw(address, &bytes).await;
            assert!(!answer.contains(" 200 "), "{what}: {answer}");
        }
        for (what, bytes) in [
            ("no last chunk", format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")),
            ("a body that ends early", format!("{head}Content-Length: 9\r\n\r\nabc")),
        ] {
            let answer = cut(address, &bytes).await;
            assert!(!answer.contains(" 200 "), "{what}: {answer}");
        }
        // What was begun upstream before the body broke is never a whole request there.
        assert_eq!(upstream.received().len(), 0, "{:#?}", upstream.received());
        // Both a length and chunks: the chunks count, and the connection ends behind them.
        for both in [
            format!("{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{hidden}"),
            format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n3\r\nabc\r\n0\r\n\r\n{hidden}"),
        ] {
            let before = upstream.received().len();
            let answer = raw(address, &both).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
            let received = upstream.received();
            let [request] = &received[before..] else {
                panic!("{received:#?}")
            };
            assert_eq!(request.body, b"abc");
            assert_eq!(request.header("transfer-encoding"), ["chunked"]);
            assert_eq!(request.header("content-length"), [""; 0]);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_more_than_a_request_is_refused() {
    let upstream = Upstream::new(takes_all).await;
    with_gateway(&upstream, "", "", async |_, address| {
        let key = format!("Authorization: Bearer {KEY}\r\n");
        let upgrade = format!("{key}Upgrade: websocket\r\nSec-WebSocket-Key: a\r\n");
        call(address, "GET /gateway/raw/v1/x", &upgrade, "")
            .await
            .assert_problem(501);
        call(address, "TRACE /gateway/raw/v1/x", &key, "")
            .await
            .assert_problem(405);
        let connect =
            format!("CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n{key}\r\n");
        let answer = raw(address, &connect).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        let huge = format!("{key}X-Huge: {}\r\n", "x".repeat(64 << 10));
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = exchange(
            stream,
            &format!("GET /gateway/raw/v1/x HTTP/1.1\r\nHost: {address}\r\n{huge}\r\n"),
        )
        .await;
        assert_eq!(answer.status, 431);
        let many: Vec<String> = (0..200)
            .map(|number| format!("X-{number}: 1\r\n"))
            .collect();
        let many = many.concat();
        let answer = raw(
            address,
            &format!("GET /gateway/raw/v1/x HTTP/1.1\r\nHost: {address}\r\n{key}{many}\r\n"),
        )
        .await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let page = "Origin: https://evil.example\r\nContent-Type: text/plain\r\n";
        call(address, &format!("POST {SUBMIT}"), page, "{}").await.assert_problem(403);
        assert_eq!(upstream.received().len(), 0);
        // Some clients offer HTTP/2 in the open and do without.
        let h2c = format!("{key}Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
        assert_eq!(
            call(address, "GET /gateway/raw/v1/x", &h2c, "")
                .await
                .status,
            200
        );
        let passed = upstream.only();
        for gone in ["upgrade", "http2-settings", "connection"] {
            assert_eq!(passed.header(gone), [""; 0], "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn answers_that_no_provider_should_give_end_the_call_alone() {
    let upstream = Upstream::new(|request| match request.line.split(' ').nth(1).unwrap() {
        "/v1/x/junk" => b"junk\r\n\r\n".to_vec(),
        "/v1/x/short" => {
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nabc".to_vec()
        }
        "/v1/tasks/t-1" => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{".to_vec(),
        "/v1/tasks/t-2" => {
            let long = " ".repeat(2 << 20);
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{long}",
                long.len()
            )
            .into_bytes()
        }
        "/v1/tasks/t-3" => {
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc".to_vec()
        }
        _ => b"HTTP/1.1 200 OK\r\nReelvault-Archiving: forged\r\nContent-Length: 2\r\n\r\n{}"
            .to_vec(),
    })
    .await;
    let world = with_gateway(&upstream, "", "", async |_, address| {
        let key = format!("Authorization: Bearer {KEY}\r\n");
        let get =
            async |path: &str| call(address, &format!("GET /gateway/raw{path}"), &key, "").await;
        get("/v1/x/junk").await.assert_problem(502);
        let short = format!("GET /gateway/raw/v1/x/short HTTP/1.1\r\nHost: {address}\r\n{key}\r\n");
        let answer = raw(address, &short).await;
        assert!(
            answer.ends_with("\r\n\r\nabc") || answer.contains(" 502 "),
            "{answer}"
        );
        assert_eq!(get("/v1/tasks/t-1").await.body, "{{{");
        assert_eq!(get("/v1/tasks/t-2").await.body.len(), 2 << 20);
        assert_eq!(get("/v1/tasks/t-3").await.body, "abc");
        // A submission that was taken, by all appearances, and names no task.
        let answer = call(address, &format!("POST {SUBMIT}"), &key, "{}").await;
        assert_eq!(answer.body, "{}");
        assert_eq!(answer.header("reelvault-archiving"), Some("missed"));
        assert_eq!(get("/v1/y").await.header("reelvault-archiving"), None);
    })
    .await;
    assert!(world.records().await.is_empty());
}
