//! Both clients over real sockets on loopback: what they send, what they refuse, how they name what went wrong.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::net::TcpListener as BlockingListener;
use std::process::Command;
use std::sync::Arc;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

use super::*;
use crate::http::body::collect;
use crate::http::guard::tests::SPELLINGS;

fn config(guard: Guard) -> ClientConfig {
    ClientConfig {
        guard,
        traffic: Traffic::Answers,
        connect_timeout: Span::from_secs(10),
        read_timeout: Span::from_secs(10),
        user_agent: USER_AGENT.to_owned(),
        roots: Roots::load(&[]).unwrap(),
    }
}

/// The client for answers and the one for files.
fn clients(config: &ClientConfig) -> [Http; 2] {
    [
        Http::new(Reqwest::new(config).unwrap()),
        Http::new(Bulk::new(config).unwrap()),
    ]
}

fn private() -> [Http; 2] {
    clients(&config(Guard::private()))
}

fn get(url: &str) -> http::Request<Bytes> {
    http::Request::get(url).body(Bytes::new()).unwrap()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Reads one request's head from `socket`.
async fn read_head(socket: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Sends one request to a server that answers `answer` and then closes, or keeps the connection when `stall`.
async fn exchange(
    client: &Http,
    answer: &[u8],
    stall: bool,
) -> (String, Result<http::Response<Bytes>, HttpError>) {
    let (listener, address) = listen().await;
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = read_head(&mut socket).await;
        socket.write_all(answer).await.unwrap();
        (head, stall.then_some(socket))
    };
    let ask = async {
        let answer = client
            .send(get(&format!("http://{address}/v.mp4?X-Sig=canary")))
            .await?;
        let (parts, body) = answer.into_parts();
        let body = collect(body, ByteSize::mib(1)).await?;
        Ok(http::Response::from_parts(parts, body))
    };
    let ((head, _socket), answer) = tokio::join!(serve, ask);
    (head, answer)
}

async fn error_of(client: &Http, answer: &[u8], stall: bool) -> HttpError {
    let error = exchange(client, answer, stall).await.1.unwrap_err();
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
    error
}

#[tokio::test]
async fn says_who_it_is_and_nothing_more() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nX-Kind: a\r\n\r\nbytes";
    for client in private() {
        let (head, answer) = exchange(&client, answer, false).await;
        let mut lines: Vec<_> = head.trim_end().lines().collect();
        assert_eq!(lines.remove(0), "GET /v.mp4?X-Sig=canary HTTP/1.1");
        lines.retain(|line| !line.starts_with("host: 127.0.0.1:"));
        lines.sort_unstable();
        assert_eq!(lines, ["accept: */*", "user-agent: reelvault/0.1.0"]);
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-kind"], "a");
        assert_eq!(answer.body(), "bytes");
    }
}

#[tokio::test]
async fn sends_method_headers_and_body() {
    for client in private() {
        let (listener, address) = listen().await;
        let request = http::Request::post(format!("http://{address}/v1/tasks/batch"))
            .header("authorization", "Bearer key")
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = read_head(&mut socket).await;
            let mut body = [0; 2];
            socket.read_exact(&mut body).await.unwrap();
            let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            (head, body)
        };
        let ((head, body), answer) = tokio::join!(serve, client.send(request));
        let first = "POST /v1/tasks/batch HTTP/1.1\r\n";
        assert!(head.starts_with(first), "{head}");
        assert!(head.contains("authorization: Bearer key\r\n"), "{head}");
        assert!(head.contains("content-length: 2\r\n"), "{head}");
        assert_eq!(&body, b"{}");
        assert_eq!(answer.unwrap().status(), 204);
    }
}

#[tokio::test]
async fn follows_no_redirect_and_decodes_nothing() {
    let redirect =
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    let gzip =
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x08\x00";
    for client in private() {
        let (_, answer) = exchange(&client, redirect, false).await;
        assert_eq!(answer.unwrap().status(), 302);
        let (_, answer) = exchange(&client, gzip, false).await;
        let answer = answer.unwrap();
        assert_eq!(answer.headers()["content-encoding"], "gzip");
        assert_eq!(&answer.body()[..], b"\x1f\x8b\x08\x00");
    }
}

#[tokio::test]
async fn a_broken_exchange_is_told_from_a_silent_one() {
    let impatient = clients(&ClientConfig {
        read_timeout: Span::from_millis(50),
        ..config(Guard::private())
    });
    let host = || "127.0.0.1".to_owned();
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nbytes";
    let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbytes\r\n";
    for (patient, impatient) in private().into_iter().zip(impatient) {
        for answer in [
            &b""[..],
            b"HTTP/1.1 2",
            short,
            chunks,
            b"not http at all\r\n\r\n",
        ] {
            let error = error_of(&patient, answer, false).await;
            assert!(matches!(error, HttpError::Broken { .. }), "{error:?}");
        }
        for answer in [&b""[..], b"HTTP/1.1 2", short, chunks] {
            let error = error_of(&impatient, answer, true).await;
            assert_eq!(error, HttpError::Timeout { host: host() });
        }
    }
}

#[tokio::test]
async fn no_connection_is_told_apart() {
    let address = listen().await.1;
    for client in private() {
        let refused = client.send(get(&format!("http://{address}/?X-Sig=canary")));
        let Err(HttpError::Connect { host, what }) = refused.await else {
            panic!("nobody listens there");
        };
        assert_eq!(host, "127.0.0.1");
        assert!(what.contains("refused"), "{what}");
    }
}

#[tokio::test]
async fn an_answers_headers_are_bounded() {
    let many = "x: 1\r\n".repeat(HEADERS_MAX + 1);
    let many = format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n");
    let long = "y".repeat(HEADER_BYTES_MAX.as_usize());
    let long = format!("HTTP/1.1 200 OK\r\nx: {long}\r\ncontent-length: 0\r\n\r\n");
    let fine = "y".repeat(HEADER_BYTES_MAX.as_usize() / 2);
    let fine = format!("HTTP/1.1 200 OK\r\nx: {fine}\r\ncontent-length: 0\r\n\r\n");
    for client in private() {
        for answer in [&many, &long] {
            let error = error_of(&client, answer.as_bytes(), false).await;
            assert!(matches!(error, HttpError::Broken { .. }), "{error:?}");
        }
        assert!(exchange(&client, fine.as_bytes(), false).await.1.is_ok());
    }
}

/// Listeners on one port of three loopback addresses.
fn inside_listeners() -> (Vec<BlockingListener>, u16) {
    loop {
        let first = BlockingListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let others = ["127.0.0.2", "::1"].map(|ip| {
            let ip: IpAddr = ip.parse().unwrap();
            BlockingListener::bind((ip, port))
        });
        let [Ok(second), Ok(third)] = others else {
            continue;
        };
        let listeners = vec![first, second, third];
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
        }
        return (listeners, port);
    }
}

fn accepts(listeners: &[BlockingListener]) -> usize {
    listeners
        .iter()
        .filter(|listener| listener.accept().is_ok())
        .count()
}

/// Invariant 10: nothing that a provider or CDN sends makes us call a private address.
#[tokio::test]
async fn no_spelling_reaches_an_inside_listener() {
    let (listeners, port) = inside_listeners();
    let public = clients(&config(Guard::public()));
    let mut sent = 0;
    for spelling in SPELLINGS {
        for scheme in ["https", "http"] {
            // What the `http` crate does not take for a URI cannot even be asked.
            let Ok(uri) = format!("{scheme}://{spelling}:{port}/v.mp4").parse::<http::Uri>() else {
                continue;
            };
            let request = http::Request::get(uri).body(Bytes::new()).unwrap();
            for client in &public {
                let refused = client.send(request.clone()).await.err();
                assert!(
                    matches!(refused, Some(HttpError::Forbidden { .. })),
                    "{spelling}: {refused:?}"
                );
                sent += 1;
            }
        }
    }
    assert!(sent >= 200, "only {sent} requests were tried");
    assert_eq!(accepts(&listeners), 0);
    // The listeners would have seen them: without the guard, each of these arrives.
    for client in private() {
        for host in ["127.0.0.1", "127.0.0.2", "[::1]"] {
            let broken = tokio::select! {
                answer = client.send(get(&format!("http://{host}:{port}/"))) => answer.err(),
                () = arrived(&listeners) => None,
            };
            assert_eq!(broken, None, "{host}");
        }
    }
}

async fn arrived(listeners: &[BlockingListener]) {
    while accepts(listeners) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_name_for_an_inside_address_is_refused_by_the_resolver_as_well() {
    let (listeners, port) = inside_listeners();
    // As if the name had got past the first line: only the resolver is left to refuse it.
    let strict = config(Guard::public());
    let answers = Reqwest {
        guard: Arc::new(Guard::private()),
        ..Reqwest::new(&strict).unwrap()
    };
    let files = Bulk::without_first_line(&strict);
    for client in [Http::new(answers), Http::new(files)] {
        let refused = client
            .send(get(&format!("https://localhost:{port}/")))
            .await
            .err();
        assert!(
            matches!(refused, Some(HttpError::Forbidden { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(accepts(&listeners), 0);
}

/// A TLS server's configuration for `localhost`, and the authority that signed for it, in PEM.
fn tls(protocols: &[&[u8]]) -> (TlsAcceptor, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    server.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    (
        TlsAcceptor::from(Arc::new(server)),
        made.cert.pem().into_bytes(),
    )
}

#[tokio::test]
async fn trusts_further_authorities_only_when_told() {
    let (acceptor, pem) = tls(&[b"http/1.1"]);
    for extra_pem in [pem, Vec::new()] {
        for client in clients(&ClientConfig {
            roots: Roots::load(&extra_pem).unwrap(),
            ..config(Guard::private())
        }) {
            let (listener, address) = listen().await;
            let serve = async {
                let (socket, _) = listener.accept().await.unwrap();
                if let Ok(mut socket) = acceptor.accept(socket).await {
                    read_head(&mut socket).await;
                    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                    socket.write_all(answer).await.unwrap();
                    socket.flush().await.unwrap();
                }
            };
            let url = format!("https://localhost:{}/?X-Sig=canary", address.port());
            let ((), answer) = tokio::join!(serve, client.send(get(&url)));
            if extra_pem.is_empty() {
                let Err(HttpError::Connect { host, what }) = answer else {
                    panic!("an unknown authority was trusted");
                };
                assert_eq!(host, "localhost");
                assert!(what.contains("certificate"), "{what}");
            } else {
                assert_eq!(answer.unwrap().status(), 204);
            }
        }
    }
}

/// Many servers close without the word that TLS has for it.
#[tokio::test]
async fn an_end_without_a_word_ends_only_what_ends_with_its_connection() {
    let (acceptor, pem) = tls(&[b"http/1.1"]);
    let client = Bulk::new(&ClientConfig {
        roots: Roots::load(&pem).unwrap(),
        ..config(Guard::private())
    });
    let client = client.unwrap();
    for (answer, whole) in [
        ("\r\nbytes", Some("bytes")),
        ("\r\n", Some("")),
        ("transfer-encoding: identity\r\n\r\nbytes", Some("bytes")),
        ("content-length: 9\r\n\r\nbytes", None),
        ("transfer-encoding: chunked\r\n\r\n5\r\nbytes\r\n", None),
        // Not even the headers are whole.
        ("content-type: vid", None),
    ] {
        let (listener, address) = listen().await;
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let mut socket = acceptor.accept(socket).await.unwrap();
            read_head(&mut socket).await;
            let answer = format!("HTTP/1.1 200 OK\r\n{answer}");
            socket.write_all(answer.as_bytes()).await.unwrap();
            socket.flush().await.unwrap();
        };
        let asked = async {
            let url = format!("https://localhost:{}/v.mp4", address.port());
            let answer = client.send(get(&url)).await?;
            collect(answer.into_body(), ByteSize::mib(1)).await
        };
        let ((), read) = tokio::join!(serve, asked);
        match whole {
            Some(whole) => assert_eq!(read.unwrap(), whole),
            None => assert!(matches!(read, Err(HttpError::Broken { .. })), "{answer}"),
        }
    }
}

#[tokio::test]
async fn offers_http2_for_all_but_files() {
    let (acceptor, pem) = tls(&[b"h2", b"http/1.1"]);
    for (traffic, spoken) in [
        (Traffic::Answers, &b"h2"[..]),
        (Traffic::Looks, b"h2"),
        (Traffic::Files, b"http/1.1"),
    ] {
        let client = connect(&ClientConfig {
            traffic,
            roots: Roots::load(&pem).unwrap(),
            ..config(Guard::private())
        });
        let client = client.unwrap();
        let (listener, address) = listen().await;
        let serve = async {
            let (socket, _) = listener.accept().await.unwrap();
            let socket = acceptor.accept(socket).await.unwrap();
            assert_eq!(socket.get_ref().1.alpn_protocol(), Some(spoken));
        };
        let url = format!("https://localhost:{}/", address.port());
        let ((), answer) = tokio::join!(serve, client.send(get(&url)));
        assert!(answer.is_err(), "the server hung up");
    }
}

#[test]
fn refuses_roots_that_are_none() {
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for pem in [&b"no PEM"[..], garbage] {
        assert!(Roots::load(pem).is_err(), "{pem:?}");
    }
}

/// Runs itself once more, in a process of its own that finds no certificate authority on the machine.
#[test]
fn works_on_a_machine_without_certificate_authorities() {
    const CHILD: &str = "REELVAULT_TEST_WITHOUT_AUTHORITIES";
    if std::env::var_os(CHILD).is_some() {
        return without_certificate_authorities();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("empty.pem");
    std::fs::write(&file, "").unwrap();
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "http::client::tests::works_on_a_machine_without_certificate_authorities",
        ])
        .env(CHILD, "1")
        .env("SSL_CERT_FILE", &file)
        .env("SSL_CERT_DIR", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

fn without_certificate_authorities() {
    let builder = reqwest::Client::builder().no_proxy();
    assert!(
        builder.build().is_err(),
        "this process does see certificate authorities"
    );
    let compiled_in = Roots::load(&[]).unwrap();
    assert!(compiled_in.iter().count() > 100);
    clients(&config(Guard::public()));
    let (_, pem) = tls(&[]);
    let further = Roots::load(&pem).unwrap();
    assert_eq!(further.iter().count(), compiled_in.iter().count() + 1);
}
