//! The gateway: what passes, what is learned on the way, what callers get to see, and what is refused.

mod hostile;
mod python;
pub(crate) mod upstream;

use std::time::Duration;

use reelvault::manifest::row::TaskRecord;
use reelvault::model::task::LearnedVia;
use reelvault::model::task::TaskKey;
use reelvault::model::task::TaskState;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::api::Caller;
use crate::gateway::upstream::Received;
use crate::gateway::upstream::Upstream;
use crate::gateway::upstream::json;
use crate::metrics::scrape;
use crate::server::Answer;
use crate::server::exchange;
use crate::world::Plan;
use crate::world::World;

/// The key that is configured.
const KEY: &str = "sk-canary-provider";

/// The path of a submission.
const SUBMIT: &str = "/gateway/raw/v1/videos/generations";

/// An address of ours in configurations, and what the provider is to call there.
const PUBLIC: &str =
    "[callback]\nallow_private = true\n[server]\npublic_url = \"https://archive.example.com/in\"\n";
const OURS: &str = "https://archive.example.com/in/hooks/raw/canary-hook-secret";

/// Callbacks of callers may be on this machine.
const CALLS: &str = "[callback]\nallow_private = true\n";

/// The answer of an API that takes everything for a submission of task `t-1`.
fn takes_all(_: &Received) -> Vec<u8> {
    json(
        "200 OK",
        "{\"id\": \"t-1\",  \"status\":\"pending\",\"cost\":1.50e0}",
    )
}

/// A daemon whose provider `raw` is `upstream`, with `provider` in its table and `extra` behind, asked by `ask`.
async fn with_gateway(
    upstream: &Upstream,
    provider: &str,
    extra: &str,
    ask: impl AsyncFnOnce(&World, &str),
) -> World {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.provider.push_str("gateway = true\n");
    plan.extra.push_str(&format!(
        "{extra}\n[provider.raw]\nkind = \"evolink\"\nbase_url = \"{}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
         allow_private = true\ngateway = true\n{provider}\n",
        upstream.url
    ));
    let world = World::new(plan).await;
    with_daemon(&world, ask).await;
    world
}

/// A daemon over a world, asked by `ask` with its address.
async fn with_daemon(world: &World, ask: impl AsyncFnOnce(&World, &str)) {
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        let url = world.base_url().await;
        ask(world, url.strip_prefix("http://").unwrap()).await;
        stop.cancel();
    });
    ran.unwrap();
}

/// One request and its answer; `headers` are lines with their ends.
async fn call(address: &str, line: &str, headers: &str, body: &str) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let length = if body.is_empty() {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    let request = format!(
        "{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{length}{headers}\r\n{body}"
    );
    exchange(stream, &request).await
}

/// A submission with the configured key.
async fn submit(address: &str, body: &str) -> Answer {
    let headers = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
    call(address, &format!("POST {SUBMIT}"), &headers, body).await
}

/// A look at a task with the configured key.
async fn look(address: &str, provider: &str, id: &str) -> Answer {
    let headers = format!("Authorization: Bearer {KEY}\r\n");
    call(
        address,
        &format!("GET /gateway/{provider}/v1/tasks/{id}"),
        &headers,
        "",
    )
    .await
}

fn key(id: &str) -> TaskKey {
    TaskKey {
        provider: "raw".parse().unwrap(),
        id: id.parse().unwrap(),
    }
}

#[tokio::test]
async fn a_submission_passes_unchanged_and_is_known_before_it_is_answered() {
    let upstream = Upstream::new(takes_all).await;
    let body = "{\n \"model\" : \"m\", \"n\":1.0E+2,\"n\":2 , \"prompt\":\"\\u00fc\\/ü\"}\n";
    with_gateway(&upstream, "", "", async |world, address| {
        let headers = format!(
            "Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\nUser-Agent: python-requests/2.34\r\n\
             Accept-Encoding: gzip\r\nIdempotency-Key: i-1\r\nX-Reelvault-Token: canary-token\r\nKeep-Alive: 7\r\n"
        );
        let answer = call(address, &format!("POST {SUBMIT}?a=%7e&b"), &headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.body, "{\"id\": \"t-1\",  \"status\":\"pending\",\"cost\":1.50e0}");
        assert_eq!(answer.header("reelvault-archiving"), Some("learned"));
        let known = world.manifest.served_task(&key("t-1")).await.unwrap().unwrap();
        assert_eq!(known.task.learned_via, LearnedVia::Gateway);
        assert_eq!(known.callback, None);
        // The first request is the submission; looks of the daemon's own follow.
        let passed = upstream.received().into_iter().next().unwrap();
        assert_eq!(passed.line, "POST /v1/videos/generations?a=%7e&b HTTP/1.1");
        assert_eq!(passed.body, body.as_bytes());
        assert_eq!(passed.header("content-length"), [body.len().to_string()]);
        assert_eq!(passed.header("authorization"), [format!("Bearer {KEY}")]);
        assert_eq!(passed.header("user-agent"), ["python-requests/2.34"]);
        assert_eq!(passed.header("idempotency-key"), ["i-1"]);
        assert_eq!(passed.header("host"), [upstream.url.strip_prefix("http://").unwrap()]);
        assert_eq!(passed.header("accept-encoding"), ["identity"]);
        for gone in ["x-reelvault-token", "keep-alive", "connection"] {
            assert_eq!(passed.header(gone), [""; 0], "{gone}");
        }
    })
    .await;
}

#[tokio::test]
async fn our_callback_goes_in_and_the_callers_own_is_kept() {
    let upstream = Upstream::new(|request| {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
        json(
            "201 Created",
            &format!(
                "{{\"id\":\"t-1\",\"status\":\"pending\",\"echo\":{}}}",
                body["callback_url"]
            ),
        )
    })
    .await;
    let own = "http://127.0.0.1:9/own?k=1";
    let body = format!("{{\"model\":\"m\",\"callback_url\": \"{own}\", \"n\":1}}");
    let provider = "webhook = true\nhook_secret = { env = \"HOOK_SECRET\" }\n";
    with_gateway(&upstream, provider, PUBLIC, async |world, address| {
        let answer = submit(address, &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let passed = upstream.received().into_iter().next().unwrap();
        let kept = format!(
            "{{\"callback_url\":\"{OURS}\",\"model\":\"m\"{}, \"n\":1}}",
            " ".repeat(own.len() + 19)
        );
        assert_eq!(String::from_utf8(passed.body).unwrap(), kept);
        // The address holds a secret of ours: who submitted sees what they sent.
        assert_eq!(answer.json()["echo"], own);
        assert!(!answer.body.contains("canary-hook-secret"), "{answer:?}");
        let known = world
            .manifest
            .served_task(&key("t-1"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(known.callback.unwrap().as_str(), own);
    })
    .await;
}

#[tokio::test]
async fn without_an_address_of_ours_the_callers_own_is_kept_all_the_same() {
    let upstream = Upstream::new(takes_all).await;
    with_gateway(&upstream, "", CALLS, async |world, address| {
        let answer = submit(
            address,
            "{\"callback_url\":\"http://127.0.0.1:9/own\",\"model\":\"m\"}",
        )
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let passed = upstream.received().into_iter().next().unwrap();
        let body = String::from_utf8(passed.body).unwrap();
        assert_eq!(body, format!("{{{} \"model\":\"m\"}}", " ".repeat(39)));
        let known = world
            .manifest
            .served_task(&key("t-1"))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(known.callback.unwrap().as_str(), "http://127.0.0.1:9/own");
    })
    .await;
}

#[tokio::test]
async fn what_the_provider_refuses_is_the_callers_to_see_and_learned_by_nobody() {
    let upstream = Upstream::new(|_| {
        json(
            "400 Bad Request",
            "{\"error\":{\"code\":\"invalid\"},\"id\":\"t-1\"}",
        )
    })
    .await;
    let world = with_gateway(&upstream, "", "", async |_, address| {
        let answer = submit(address, "{\"callback_url\":7}").await;
        assert_eq!(answer.status, 400);
        assert_eq!(
            answer.body,
            "{\"error\":{\"code\":\"invalid\"},\"id\":\"t-1\"}"
        );
        assert_eq!(answer.header("reelvault-archiving"), None);
        let passed = upstream.only();
        assert_eq!(
            passed.body, b"{\"callback_url\":7}",
            "what is no address stays"
        );
    })
    .await;
    assert!(world.records().await.is_empty());
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_says_that_its_task_is_missed() {
    let encoded = |_: &Received| {
        "HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nxyz".into()
    };
    let long = |_: &Received| {
        let pad = "a".repeat(1024 * 1024);
        json("200 OK", &format!("{{\"id\":\"t-1\",\"pad\":\"{pad}\"}}"))
    };
    let upstreams = [Upstream::new(encoded).await, Upstream::new(long).await];
    for upstream in upstreams {
        let world = with_gateway(&upstream, "", "", async |_, address| {
            let headers = format!("Authorization: Bearer {KEY}\r\n");
            let answer = call(address, &format!("POST {SUBMIT}"), &headers, "{}").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("reelvault-archiving"), Some("missed"));
        })
        .await;
        assert!(world.records().await.is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_repeats_a_picture_names_its_task_all_the_same() {
    let upstream = Upstream::new(|_| {
        let picture = "a".repeat(512 * 1024);
        json(
            "200 OK",
            &format!("{{\"id\":\"t-1\",\"status\":\"pending\",\"input\":\"{picture}\"}}"),
        )
    })
    .await;
    with_gateway(&upstream, "", "", async |world, address| {
        let answer = submit(address, "{}").await;
        assert_eq!(answer.header("reelvault-archiving"), Some("learned"));
        assert!(answer.body.len() > 512 * 1024);
        assert_eq!(world.records().await[0].key, key("t-1"));
    })
    .await;
}

#[tokio::test]
async fn a_submission_whose_caller_has_gone_is_learned_all_the_same() {
    let upstream = Upstream::new(takes_all).await;
    let world = with_gateway(&upstream, "", "", async |_, address| {
        let gate = upstream.hold();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "POST {SUBMIT} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        upstream.has_received(1).await;
        drop(stream);
        gate.notify_one();
        // The next is the daemon's own look at what it has learned.
        upstream.has_received(2).await;
        gate.notify_waiters();
    })
    .await;
    let known: Vec<TaskRecord> = world.records().await;
    assert_eq!(known.len(), 1, "{known:#?}");
}

#[tokio::test]
async fn bodies_stream_both_ways_with_their_lengths() {
    const LENGTH: usize = 24 << 20;
    let upstream = Upstream::new(|request| {
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            request.body.len()
        )
        .into_bytes();
        answer.extend_from_slice(&request.body);
        answer
    })
    .await;
    with_gateway(&upstream, "", CALLS, async |_, address| {
        let picture = "A".repeat(LENGTH);
        let body =
            format!("{{\"image\":\"{picture}\",\"callback_url\":\"http://127.0.0.1:9/own\"}}");
        for path in ["/gateway/raw/v1/uploads", SUBMIT] {
            let headers = format!("Authorization: Bearer {KEY}\r\n");
            let answer = call(address, &format!("POST {path}"), &headers, &body).await;
            assert_eq!(answer.status, 200);
            assert_eq!(
                answer.header("content-length"),
                Some(body.len().to_string().as_str())
            );
            assert_eq!(answer.body.len(), body.len());
        }
        let received = upstream.received();
        assert_eq!(
            received[0].body,
            body.as_bytes(),
            "what is no submission passes untouched"
        );
        assert_eq!(received[1].body.len(), body.len());
        assert_eq!(
            received[1].header("content-length"),
            [body.len().to_string()]
        );
        assert!(
            received[1].body.ends_with(b" }"),
            "the callback is taken out at the very end, too"
        );
    })
    .await;
}

#[tokio::test]
async fn everything_else_passes_as_it_is() {
    let upstream = Upstream::new(|request| {
        if request.line.starts_with("GET /v1/moved") {
            b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/x?y=1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
              Connection: x-hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n"
                .to_vec()
        } else {
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\nETag: \"e\"\r\n\
              Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
                .to_vec()
        }
    })
    .await;
    with_gateway(&upstream, "", "", async |_, address| {
        let headers = format!(
            "Authorization: Bearer {KEY}\r\nAccept-Encoding: gzip\r\nIf-None-Match: \"e\"\r\n"
        );
        let moved = call(address, "GET /gateway/raw/v1/moved", &headers, "").await;
        assert_eq!(moved.status, 302, "a redirect is the caller's to follow");
        assert_eq!(
            moved.header("location"),
            Some("https://elsewhere.example/x?y=1")
        );
        assert_eq!(
            moved.head.matches("set-cookie: ").count(),
            2,
            "{}",
            moved.head
        );
        assert_eq!(moved.header("x-hop"), None);
        let events = call(address, "GET /gateway/raw/v1/tasks?page=2", &headers, "").await;
        assert_eq!(events.status, 200);
        assert_eq!(events.header("content-encoding"), Some("gzip"));
        assert_eq!(events.header("etag"), Some("\"e\""));
        assert!(events.body.contains("abc"));
        let deleted = call(address, "DELETE /gateway/raw/v1/tasks/t-1", &headers, "").await;
        assert_eq!(deleted.status, 200);
        let received = upstream.received();
        assert_eq!(received[0].header("accept-encoding"), ["gzip"]);
        assert_eq!(received[0].header("if-none-match"), ["\"e\""]);
        assert_eq!(received[1].line, "GET /v1/tasks?page=2 HTTP/1.1");
        assert_eq!(received[2].line, "DELETE /v1/tasks/t-1 HTTP/1.1");
    })
    .await;
}

#[tokio::test]
async fn only_who_may_use_the_account_passes() {
    let upstream = Upstream::new(takes_all).await;
    let extra = "[server]\ntoken = { env = \"TOKEN\" }\n";
    let provider = "headers = { \"X-Team\" = \"render\" }\n";
    with_gateway(&upstream, provider, extra, async |_, address| {
        let with =
            async |headers: &str| call(address, "GET /gateway/raw/v1/credits", headers, "").await;
        for headers in [
            "",
            "Authorization: Bearer sk-other\r\n",
            "Authorization: sk-canary-provider\r\n",
        ] {
            with(headers).await.assert_problem(401);
        }
        assert_eq!(upstream.received().len(), 0);
        // The key of the account is proof enough: nothing but the base URL has to change.
        assert_eq!(
            with(&format!("Authorization: bearer {KEY}\r\n"))
                .await
                .status,
            200
        );
        // With the daemon's token any key may be shown, and the token is shown to nobody.
        let other =
            "Authorization: Bearer sk-other\r\nX-Reelvault-Token: canary-token-of-the-api\r\n";
        assert_eq!(with(other).await.status, 200);
        assert_eq!(
            with("Authorization: Bearer canary-token-of-the-api\r\n")
                .await
                .status,
            200
        );
        let received = upstream.received();
        assert_eq!(received[1].header("authorization"), ["Bearer sk-other"]);
        assert_eq!(received[2].header("authorization"), [""; 0]);
        for request in received {
            assert!(!request.head.contains("canary-token"), "{request:?}");
            assert_eq!(
                request.header("x-team"),
                [""; 0],
                "what is configured is for our own calls"
            );
        }
    })
    .await;
    let upstream = Upstream::new(takes_all).await;
    let extra = "[server]\ntoken = { env = \"TOKEN\" }\n[gateway]\nkey = \"own\"\n";
    with_gateway(&upstream, provider, extra, async |_, address| {
        let bearer = "Authorization: Bearer canary-token-of-the-api\r\n";
        let answer = call(address, "GET /gateway/raw/v1/credits", bearer, "").await;
        assert_eq!(answer.status, 200);
        assert!(!format!("{answer:?}").contains(KEY));
        let passed = upstream.only();
        assert_eq!(passed.header("authorization"), [format!("Bearer {KEY}")]);
        assert_eq!(passed.header("x-team"), ["render"]);
    })
    .await;
}

#[tokio::test]
async fn what_the_provider_forgets_is_told_from_the_manifest() {
    let is_forgotten = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let forgets = std::sync::Arc::clone(&is_forgotten);
    let said = "{\"id\":\"t-1\", \"status\":\"failed\",\"error\":{\"code\":\"c\",\"message\":\"no sk-canary-provider\"}}";
    let upstream = Upstream::new(move |_| {
        if forgets.load(std::sync::atomic::Ordering::Relaxed) {
            json(
                "404 Not Found",
                "{\"error\":{\"code\":\"task_not_found\",\"message\":\"gone\"}}",
            )
        } else {
            json("200 OK", said)
        }
    })
    .await;
    with_gateway(&upstream, "", "", async |world, address| {
        // Nobody announced it: who looks at it makes it known.
        let answer = look(address, "raw", "t-1").await;
        assert_eq!(answer.body, said);
        let is_known = async || {
            let known = world.manifest.served_task(&key("t-1")).await.unwrap();
            known.filter(|known| known.task.state == TaskState::Failed)
        };
        let known = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                if let Some(known) = is_known().await {
                    return known;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let known = known.await.unwrap();
        let kept = said.replace(KEY, "***");
        assert_eq!(String::from_utf8(known.answer.unwrap()).unwrap(), kept);
        is_forgotten.store(true, std::sync::atomic::Ordering::Relaxed);
        let answer = look(address, "raw", "t-1").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, kept.as_str()));
        assert_eq!(answer.header("reelvault-archiving"), Some("kept"));
        // Another account has no part in it.
        let other = "Authorization: Bearer sk-other\r\n";
        let answer = call(address, "GET /gateway/raw/v1/tasks/t-1", other, "").await;
        assert_eq!(answer.status, 404, "{answer:?}");
    })
    .await;
}

/// Lets nobody write to the manifest while this lives.
fn lock(world: &World) -> rusqlite::Connection {
    let path = world.folder().join("manifest.db");
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

#[tokio::test]
async fn a_manifest_that_is_down_takes_no_submission_down_with_it() {
    let upstream = Upstream::new(takes_all).await;
    let body = "{\"callback_url\":\"http://127.0.0.1:9/own\"}";
    let world = with_gateway(&upstream, "", CALLS, async |world, address| {
        let locked = lock(world);
        let answer = submit(address, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("reelvault-archiving"), Some("deferred"));
        let readiness = call(address, "GET /readyz", "", "").await;
        assert_eq!(readiness.status, 503, "{readiness:?}");
        assert!(
            readiness.body.contains("1 of the tasks that passed"),
            "{readiness:?}"
        );
        let told = scrape(&Caller::at(address)).await;
        told.assert("reelvault_gateway_unlearned", &[], 1.0);
        drop(locked);
        wait_for_task(world).await;
        let deferred = [("outcome", "deferred")];
        let told = scrape(&Caller::at(address)).await;
        told.assert("reelvault_gateway_submissions_total", &deferred, 1.0);
    })
    .await;
    let known = world
        .manifest
        .served_task(&key("t-1"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(known.task.learned_via, LearnedVia::Gateway);
    assert_eq!(known.callback.unwrap().as_str(), "http://127.0.0.1:9/own");
}

#[tokio::test]
async fn a_manifest_that_cannot_be_written_keeps_no_look_waiting() {
    let is_done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let done = std::sync::Arc::clone(&is_done);
    let upstream = Upstream::new(move |_| {
        let is_done = done.load(std::sync::atomic::Ordering::Relaxed);
        let status = if is_done { "failed" } else { "pending" };
        json(
            "200 OK",
            &format!("{{\"id\":\"t-1\",\"status\":\"{status}\"}}"),
        )
    })
    .await;
    with_gateway(&upstream, "", "", async |world, address| {
        look(address, "raw", "t-1").await;
        wait_for_task(world).await;
        let _locked = lock(world);
        is_done.store(true, std::sync::atomic::Ordering::Relaxed);
        let looking = look(address, "raw", "t-1");
        let answer = tokio::time::timeout(Duration::from_secs(5), looking).await;
        let answer = answer.expect("the look waits for who writes");
        assert_eq!(answer.json()["status"], "failed");
    })
    .await;
}

#[tokio::test]
async fn what_passed_while_the_manifest_was_down_is_learned_by_the_next_daemon() {
    let upstream = Upstream::new(takes_all).await;
    let mut locked = None;
    let world = with_gateway(&upstream, "", "", async |world, address| {
        locked = Some(lock(world));
        let answer = submit(address, "{}").await;
        assert_eq!(
            answer.header("reelvault-archiving"),
            Some("deferred"),
            "{answer:?}"
        );
    })
    .await;
    drop(locked);
    assert!(world.records().await.is_empty());
    with_daemon(&world, async |world, _| wait_for_task(world).await).await;
    assert_eq!(world.records().await[0].key, key("t-1"));
}

#[tokio::test]
async fn the_callers_callback_is_called_after_archiving_with_links_that_last() {
    let receiver = Upstream::new(|_| json("200 OK", "{}")).await;
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.simulator.running = Span::from_millis(200);
    plan.provider.push_str("gateway = true\n");
    plan.extra
        .push_str("[callback]\nallow_private = true\nsecret = { env = \"CALLBACK_SECRET\" }\n");
    let world = World::new(plan).await;
    with_daemon(&world, async |world, address| {
        let headers = format!("Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n");
        let own = format!("{}/own?job=7", receiver.url);
        let wish = format!("{{\"callback_url\":\"{own}\",\"model\":\"m\"}}");
        let path = "POST /gateway/sim/v1/videos/generations";
        let answer = call(address, path, &headers, &wish).await;
        assert_eq!(
            answer.header("reelvault-archiving"),
            Some("learned"),
            "{answer:?}"
        );
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        receiver.has_received(1).await;
        let told = receiver.only();
        assert_eq!(told.line, "POST /own?job=7 HTTP/1.1");
        for signed in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            assert_eq!(told.header(signed).len(), 1, "{signed}: {told:?}");
        }
        let body: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(body["id"], id);
        assert_eq!(
            body["object"], "video.generation.task",
            "the provider's own form"
        );
        assert_eq!(body["status"], "completed");
        let link = body["results"][0].as_str().unwrap();
        let task = id.parse().unwrap();
        assert!(
            !world.simulator.links(&task).contains(&link.to_owned()),
            "{link}"
        );
        let looked = look(address, "sim", &id).await;
        assert_eq!(looked.json()["results"][0], link);
    })
    .await;
    // Nobody was called by the provider itself: its callback would have come before anything was archived.
    assert_eq!(world.simulator.seen().callbacks_sent, 0);
}

/// A completed task whose file cannot be had for now.
async fn unfetchable() -> Upstream {
    Upstream::new(|request| {
        if request.line.contains("/v1/tasks/") {
            let said = "{\"id\":\"t-1\",\"status\":\"completed\",\"progress\":100,\"results\":[\"http://127.0.0.1:9/a.mp4\"]}";
            json("200 OK", said)
        } else {
            json("503 Service Unavailable", "{}")
        }
    })
    .await
}

#[tokio::test]
async fn what_is_completed_is_held_until_it_is_archived_and_no_longer_than_configured() {
    let upstream = unfetchable().await;
    with_gateway(
        &upstream,
        "",
        "[gateway]\nhold = \"1h\"\n",
        async |world, address| {
            for _ in 0..3 {
                let answer = look(address, "raw", "t-1").await;
                let held =
                    "{\"id\":\"t-1\",\"status\":\"processing\",\"progress\":99,\"results\":[]}";
                assert_eq!((answer.status, answer.body.as_str()), (200, held));
                wait_for_task(world).await;
            }
        },
    )
    .await;
    let upstream = unfetchable().await;
    with_gateway(
        &upstream,
        "",
        "[gateway]\nhold = \"0s\"\n",
        async |_, address| {
            let answer = look(address, "raw", "t-1").await;
            assert_eq!(answer.json()["status"], "completed");
            assert_eq!(answer.json()["results"][0], "http://127.0.0.1:9/a.mp4");
        },
    )
    .await;
}

/// A picture of one pixel.
const PIXEL: &[u8] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

/// An API that answers a submission with the result, which can be had where `is_there`.
async fn done_at_once(is_there: bool) -> Upstream {
    Upstream::new(move |request| {
        if !request.line.contains("/pixel.gif") {
            let host = request.header("host")[0];
            let said = "{\"id\":\"t-1\",\"status\":\"completed\",\"progress\":100,\"results\":[\"http://HOST/pixel.gif\"]}";
            return json("200 OK", &said.replace("HOST", host));
        }
        if !is_there {
            return json("503 Service Unavailable", "{}");
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", PIXEL.len());
        [head.as_bytes(), PIXEL].concat()
    })
    .await
}

#[tokio::test]
async fn a_submission_that_is_answered_with_its_result_waits_for_links_that_last() {
    let check = async |is_there, hold: &str, is_ours| {
        let upstream = done_at_once(is_there).await;
        let extra = format!("[gateway]\nhold = {hold:?}\n");
        with_gateway(&upstream, "", &extra, async |_, address| {
            let answer = submit(address, "{}").await;
            let archiving = answer.header("reelvault-archiving");
            assert_eq!(archiving, Some("learned"), "{answer:?}");
            let said = answer.json();
            assert_eq!(said["status"], "completed", "{answer:?}");
            let link = said["results"][0].as_str().unwrap();
            assert_eq!(!link.starts_with(&upstream.url), is_ours, "{answer:?}");
        })
        .await;
    };
    check(true, "1m", true).await;
    check(false, "1s", false).await;
    check(false, "1h", false).await;
}

async fn wait_for_task(world: &World) {
    let waiting = async {
        while world.records().await.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap();
}

/// The body of an answer that is read in pieces, for callers that read slowly.
pub(crate) async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_mins(1), stream.read_to_end(&mut answer)).await;
    // A connection that is cut off may end in an error; what came before counts.
    drop(read.unwrap());
    String::from_utf8_lossy(&answer).into_owned()
}
