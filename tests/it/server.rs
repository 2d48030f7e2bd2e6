//! The daemon's server: who is let in, what is bounded, and what outlives a reload.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use reelvault::daemon::server::Server;
use reelvault::simulator;
use reelvault::units::ByteSize;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::process::Outside;
use crate::world::Plan;
use crate::world::World;

/// Longer than the server waits for anything.
const PATIENCE: Duration = Duration::from_mins(1);

/// An answer as it came over the wire.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Asserts that this is a problem with a detail and its own status in it.
    pub(crate) fn assert_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert_ne!(problem["detail"].as_str().unwrap_or_default(), "");
        problem
    }
}

/// Sends `request` as it is, and reads until the connection ends.
pub(crate) async fn exchange<S>(mut stream: S, request: &str) -> Answer
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// A daemon over a world of its own, whose configuration ends with `extra`, asked by `ask` with its address.
async fn with_daemon(extra: &str, ask: impl AsyncFnOnce(&World, &str)) {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.extra.push_str(extra);
    let world = World::new(plan).await;
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        let url = world.base_url().await;
        ask(&world, url.strip_prefix("http://").unwrap()).await;
        stop.cancel();
    });
    ran.unwrap();
}

async fn get(address: &str, path: &str, headers: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{headers}\r\n");
    exchange(stream, &request).await
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    with_daemon("", async |_, address| {
        let host = format!("Host: {address}\r\n");
        let healthy = get(address, "/healthz", &host).await;
        assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
        let problem = get(address, "/no/such", &host).await.assert_problem(404);
        assert_eq!(problem["detail"], "there is no /no/such");
        let stream = TcpStream::connect(address).await.unwrap();
        let request = format!("DELETE /healthz HTTP/1.1\r\nConnection: close\r\n{host}\r\n");
        let answer = exchange(stream, &request).await;
        answer.assert_problem(405);
        assert_eq!(answer.header("allow"), Some("GET,HEAD"));
    })
    .await;
}

#[tokio::test]
async fn only_names_of_our_own_are_answered() {
    let extra = "[server]\npublic_url = \"https://archive.example.com\"\n";
    with_daemon(extra, async |_, address| {
        let port = address.split_once(':').unwrap().1;
        let check = async |headers: String, status: u16| {
            let answer = get(address, "/healthz", &headers).await;
            assert_eq!(answer.status, status, "{headers}");
        };
        for host in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "LOCALHOST",
            "archive.example.com",
        ] {
            check(format!("Host: {host}:{port}\r\n"), 200).await;
            check(format!("Host: {host}\r\n"), 200).await;
        }
        for host in [
            "evil.example.com",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
            "10.0.0.1",
        ] {
            check(format!("Host: {host}:{port}\r\n"), 421).await;
        }
        check(String::new(), 400).await;
        check(
            format!("Host: {address}\r\nHost: evil.example.com\r\n"),
            400,
        )
        .await;
        check("Host: a b\r\n".to_owned(), 400).await;
        let host = format!("Host: {address}\r\n");
        let answer = get(address, "http://evil.example.com/healthz", &host).await;
        answer.assert_problem(400);
        // Who comes by our public name comes through a proxy, and there is no token that could let it in.
        let answer = get(address, "/no/such", "Host: archive.example.com\r\n");
        assert_eq!(answer.await.assert_problem(401)["hint"], "set server.token");
    })
    .await;
}

#[tokio::test]
async fn a_token_once_set_is_asked_of_everybody_on_tcp() {
    let extra = "[server]\ntoken = { env = \"SIM_KEY\" }\n";
    with_daemon(extra, async |_, address| {
        let check = async |header: &str, status: u16| {
            let headers = format!("Host: {address}\r\n{header}");
            let answer = get(address, "/no/such", &headers).await;
            assert_eq!(answer.status, status, "{header}");
        };
        check("", 401).await;
        check("Authorization: Bearer sk-canary\r\n", 401).await;
        check("Authorization: Basic sk-canary-provider\r\n", 401).await;
        check("Authorization: Bearer sk-canary-provider\r\n", 404).await;
        check("x-reelvault-token: sk-canary-provider\r\n", 404).await;
        let healthy = get(address, "/healthz", &format!("Host: {address}\r\n")).await;
        assert_eq!(healthy.status, 200);
    })
    .await;
}

#[tokio::test]
async fn heads_have_a_bound_in_bytes_and_in_number() {
    with_daemon("", async |_, address| {
        let long = format!("Host: {address}\r\nX-Long: {}\r\n", "x".repeat(40 << 10));
        assert_eq!(get(address, "/healthz", &long).await.status, 431);
        let many = "x: y\r\n".repeat(120);
        let many = format!("Host: {address}\r\n{many}");
        assert_eq!(get(address, "/healthz", &many).await.status, 431);
    })
    .await;
}

#[tokio::test]
async fn a_head_that_does_not_come_costs_its_sender_the_connection() {
    with_daemon("", async |_, address| {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /healthz HTTP/1.1\r\nHost: ")
            .await
            .unwrap();
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "the connection stays open");
    })
    .await;
}

#[tokio::test]
async fn the_socket_needs_no_token_and_replaces_one_that_died() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reelvault.sock");
    let mut world = World::new(Plan::files_of(ByteSize::mib(1))).await;
    world.config.server.socket.clone_from(&path);
    // What a daemon leaves that was killed: a file that nobody listens to.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        world.base_url().await;
        let stream = UnixStream::connect(&path).await.unwrap();
        let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert_eq!(exchange(stream, request).await.status, 200);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = Server::bind(&world.config.server).await.unwrap_err();
        assert!(second.to_string().contains("another daemon answers there"));
        stop.cancel();
    });
    ran.unwrap();
    assert!(!path.exists(), "the socket is taken away");
}

#[tokio::test]
async fn a_reload_changes_who_is_let_in_and_keeps_the_listener() {
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let daemon = outside.home.start().await;
    let log = daemon.says("listening on 127.0.0.1:").await;
    let (_, rest) = log.split_once("listening on ").unwrap();
    let address = rest.split_whitespace().next().unwrap().to_owned();
    let host = format!("Host: {address}\r\n");
    // A connection that stays open over the reload.
    let mut kept = TcpStream::connect(&address).await.unwrap();
    let request = format!("GET /api/v1/status HTTP/1.1\r\n{host}\r\n");
    kept.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    kept.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");

    let token = "[server]\ntoken = { env = \"SIM_KEY\" }\n";
    outside.home.configure(&outside.config("", token));
    daemon.signal("HUP");
    daemon.says_times(" ready ", 2).await;
    assert_eq!(get(&address, "/api/v1/status", &host).await.status, 401);
    let bearer = format!("{host}Authorization: Bearer sk-canary-provider\r\n");
    assert_eq!(get(&address, "/api/v1/status", &bearer).await.status, 200);
    let last = format!("GET /api/v1/status HTTP/1.1\r\nConnection: close\r\n{host}\r\n");
    kept.write_all(last.as_bytes()).await.unwrap();
    let mut rest = String::new();
    kept.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.contains("HTTP/1.1 401"),
        "also on a connection that stood before: {rest}"
    );

    // A token that cannot be had changes nothing.
    outside
        .home
        .configure(&outside.config("", "[server]\ntoken = { env = \"NOT_SET\" }\n"));
    daemon.signal("HUP");
    daemon.says("not reloaded").await;
    assert_eq!(get(&address, "/api/v1/status", &bearer).await.status, 200);
    daemon.stop().await;
    assert!(
        TcpStream::connect(&address).await.is_err(),
        "nobody listens any more"
    );
}
