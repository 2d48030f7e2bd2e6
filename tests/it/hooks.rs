//! Webhooks over the real server: what a provider may send, what anybody may send, and what becomes of it.

use std::time::Duration;

use reelvault::http::standard_webhooks;
use reelvault::http::standard_webhooks::SigningKey;
use reelvault::manifest::row::TaskRecord;
use reelvault::model::task::LearnedVia;
use reelvault::model::task::TaskId;
use reelvault::model::task::TaskState;
use reelvault::secret::Secret;
use reelvault::simulator;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Caller;
use crate::api::with_caller;
use crate::metrics::scrape;
use crate::process::Outside;
use crate::server::Answer;
use crate::world::Log;
use crate::world::Plan;
use crate::world::World;

/// What the variable of the simulated provider's key holds: long enough for a token.
const TOKEN: &str = "sk-canary-provider";

const PATIENCE: Duration = Duration::from_secs(30);

/// A world whose provider calls back.
async fn world(provider: &str, extra: &str) -> World {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.provider = format!("webhook = true\nhook_secret = {{ env = \"SIM_KEY\" }}\n{provider}");
    plan.extra.push_str(extra);
    World::new(plan).await
}

fn path() -> String {
    format!("/hooks/sim/{TOKEN}")
}

async fn hook(caller: &Caller, body: &str) -> Answer {
    caller
        .ask("POST", &path(), "Content-Type: application/json\r\n", body)
        .await
}

fn submit(world: &World) -> TaskId {
    world
        .simulator
        .submit(Submission::video("seedance-2.0"))
        .unwrap()
}

fn body(id: &TaskId) -> String {
    json!({ "id": id, "status": "completed", "results": ["http://10.0.0.1/evil.mp4"] }).to_string()
}

async fn settled(world: &World, is_done: impl Fn(&[TaskRecord]) -> bool) -> Vec<TaskRecord> {
    let looking = async {
        loop {
            let records = world.records().await;
            if is_done(&records) {
                return records;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

#[tokio::test]
async fn a_webhook_of_an_unknown_task_is_a_hint_and_the_api_is_the_truth() {
    let world = world("", "").await;
    let id = submit(&world);
    with_caller(&world, async |caller| {
        let answer = hook(caller, &body(&id)).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
        let records = settled(&world, |all| all.iter().all(crate::world::is_final)).await;
        assert_eq!(records[0].learned_via, LearnedVia::Webhook);
        // The link in the body went nowhere: the one that the provider's API gave was archived.
        assert!(!records[0].assets[0].url.as_str().contains("10.0.0.1"));
        // Again and again, out of order, of a task that has ended: always yes, and nothing changes.
        for _ in 0..3 {
            assert_eq!(
                hook(
                    caller,
                    &json!({ "id": id, "status": "processing" }).to_string()
                )
                .await
                .status,
                200
            );
        }
        assert_eq!(world.records().await.len(), 1);
    })
    .await;
    world.assert_all_archived(&world.records().await);
}

#[tokio::test]
async fn a_webhook_makes_a_known_task_due_now() {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.provider = "webhook = true\nhook_secret = { env = \"SIM_KEY\" }\n".to_owned();
    plan.extra
        .push_str("[poll]\nfirst = \"20m\"\nmax = \"20m\"\n");
    plan.simulator.running = Span::from_millis(500);
    let world = World::new(plan).await;
    let id = submit(&world);
    world.announce(std::slice::from_ref(&id)).await;
    with_caller(&world, async |caller| {
        // The first look sees it unfinished, and the next would be in 20 minutes.
        settled(&world, |all| all.iter().all(|it| it.status.is_some())).await;
        assert_eq!(world.records().await[0].state, TaskState::Watching);
        let told = async {
            while world.records().await[0].state == TaskState::Watching {
                assert_eq!(hook(caller, &body(&id)).await.status, 200);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
        assert_eq!(world.records().await[0].state, TaskState::Completed);
    })
    .await;
}

#[tokio::test]
async fn what_was_given_up_is_watched_again_when_its_provider_speaks_of_it() {
    let world = world("", "").await;
    let id = submit(&world);
    world.announce(std::slice::from_ref(&id)).await;
    let claimed = world.manifest.claim_tasks(1, &[]).await.unwrap();
    let given_up = reelvault::manifest::row::TaskSettlement {
        state: TaskState::Abandoned,
        next_look_at: None,
        error: None,
        is_attempt: false,
        is_miss: false,
    };
    world
        .manifest
        .settle_task(&claimed[0].lease, given_up)
        .await
        .unwrap();
    with_caller(&world, async |caller| {
        assert_eq!(hook(caller, &body(&id)).await.status, 200);
        settled(&world, |all| {
            all.iter().all(|it| it.state == TaskState::Completed)
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_address_is_no_address() {
    let world = world("", "").await;
    with_caller(&world, async |caller| {
        let bodies: Vec<String> = {
            let mut bodies = Vec::new();
            for path in [
                "/hooks/sim/wrong",
                "/hooks/sim/",
                "/hooks/sim",
                "/hooks/",
                "/hooks/nobody/sk-canary-provider",
                "/hooks/Sim/sk-canary-provider",
                "/hooks/fetch/sk-canary-provider",
                "/hooks/sim/sk-canary-provide",
                "/hooks/sim/sk-canary-providerx",
                "/hooks/sim/%ff",
                "/hooks/../hooks/sim/sk-canary-provider",
                "/hooks/sim/sk-canary-provider/",
                "/hooks//sk-canary-provider",
            ] {
                let answer = caller.ask("POST", path, "", "{\"id\":\"a\"}").await;
                answer.assert_problem(404);
                bodies.push(answer.body);
            }
            bodies
        };
        assert_eq!(
            bodies[0], bodies[4],
            "nobody learns which providers there are"
        );
        caller.get(&path()).await.assert_problem(405);
        assert_eq!(world.records().await.len(), 0);
        // However many names are tried, they are one series.
        let told = scrape(caller).await;
        let nowhere = [("provider", "none"), ("outcome", "no_such_address")];
        assert!(told.value("reelvault_hooks_received_total", &nowhere) >= 5.0);
        assert!(told.sum("reelvault_hooks_received_total") <= 13.0);
    })
    .await;
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_told_so() {
    let world = world("", "[server.hooks]\nbody_max = \"8 KiB\"\n").await;
    with_caller(&world, async |caller| {
        for malformed in [
            "",
            "{",
            "[]",
            "null",
            "{\"id\":{}}",
            "{\"id\":\"a/b\"}",
            "id=a",
            "\u{0}",
        ] {
            hook(caller, malformed).await.assert_problem(400);
        }
        let long = json!({ "id": "a", "x": "y".repeat(9 << 10) }).to_string();
        hook(caller, &long).await.assert_problem(413);
        let chunked = "Transfer-Encoding: chunked\r\n";
        let mut stream = TcpStream::connect(caller.address()).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\n{chunked}\r\n",
            path(),
            caller.address()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // An endless body is ended at the bound, not at our memory's.
        let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
        let mut sent = 0;
        while sent < 64 << 20 && stream.write_all(chunk.as_bytes()).await.is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 64 << 20, "an endless body is read for ever");
        assert_eq!(world.records().await.len(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_slow_body_costs_its_sender_the_request() {
    let world = world("", "").await;
    with_caller(&world, async |caller| {
        let mut stream = TcpStream::connect(caller.address()).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 100\r\n\r\n{{",
            path(),
            caller.address()
        );
        let begun = Instant::now();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    })
    .await;
}

#[tokio::test]
async fn a_flood_is_told_to_come_again_and_the_api_stays_open() {
    let world = world("", "").await;
    with_caller(&world, async |caller| {
        // So many that hold their bodies back fill the room.
        let mut held = Vec::new();
        for _ in 0..64 {
            let mut stream = TcpStream::connect(caller.address()).await.unwrap();
            let head = format!(
                "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\n{{",
                path(),
                caller.address()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            held.push(stream);
        }
        let refused = async {
            loop {
                let answer = hook(caller, "{\"id\":\"a\"}").await;
                if answer.status == 429 {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let refused = tokio::time::timeout(PATIENCE, refused).await.unwrap();
        refused.assert_problem(429);
        assert_eq!(refused.header("retry-after"), Some("1"));
        // Those without the token do not even get that far.
        caller
            .ask("POST", "/hooks/sim/wrong", "", "{}")
            .await
            .assert_problem(404);
        assert_eq!(caller.get("/api/v1/status").await.status, 200);
        drop(held);
    })
    .await;
}

#[tokio::test]
async fn strangers_are_believed_at_a_bounded_rate_and_acquaintances_always() {
    let world = world("", "[server.hooks]\nrate = \"2/s\"\n").await;
    let known: TaskId = "known".parse().unwrap();
    world.announce(std::slice::from_ref(&known)).await;
    let log = Log::default();
    let _guards = log.listen();
    with_caller(&world, async |caller| {
        let mut refused = 0;
        for n in 0..20 {
            let answer = hook(
                caller,
                &json!({ "id": format!("stranger-{n}") }).to_string(),
            )
            .await;
            refused += usize::from(answer.status == 429);
            assert!(matches!(answer.status, 200 | 429), "{answer:?}");
            assert_eq!(hook(caller, "{\"id\":\"known\"}").await.status, 200);
        }
        assert!(refused >= 10, "{refused}");
        // What came of a flood is for the metrics to say; what is wrong with one webhook, for the log.
        hook(caller, "{}").await.assert_problem(400);
        let told = scrape(caller).await;
        let too_many = [("provider", "sim"), ("outcome", "too_many")];
        let counted = told.value("reelvault_hooks_received_total", &too_many);
        assert_eq!(counted.to_string(), refused.to_string());
        let lines = log.lines();
        let told = lines
            .iter()
            .filter(|line| line.contains("webhook not taken"));
        assert_eq!(told.count(), 1, "{lines:#?}");
        assert_eq!(world.records().await.len(), 21 - refused);
    })
    .await;
}

#[tokio::test]
async fn a_manifest_that_is_down_is_503() {
    let world = world("", "").await;
    let stop = CancellationToken::new();
    let (_, ()) = tokio::join!(world.daemon(&stop), async {
        let caller = Caller::of(&world).await;
        assert_eq!(hook(&caller, "{\"id\":\"a\"}").await.status, 200);
        world.manifest.close().await;
        let answer = hook(&caller, "{\"id\":\"b\"}").await;
        answer.assert_problem(503);
        assert!(answer.header("retry-after").is_some());
        assert_eq!(caller.get("/readyz").await.status, 503);
        stop.cancel();
    });
}

#[tokio::test]
async fn forged_and_replayed_webhooks_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let description = folder.path().join("house.toml");
    let text = include_str!("../../src/provider/builtin/evolink.toml").replace(
        "id = \"/id\"\n\n[limits]",
        "id = \"/id\"\nverify = { scheme = \"standard\" }\n\n[limits]",
    );
    assert!(text.contains("standard"));
    std::fs::write(&description, text).unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
    let provider = format!("hook_key = {{ file = {key:?} }}\n");
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.provider = format!("webhook = true\nhook_secret = {{ env = \"SIM_KEY\" }}\n{provider}");
    let world = World::new(plan).await;
    let kind = "kind = \"evolink\"";
    let world = world
        .reconfigured(kind, &format!("description = {description:?}"))
        .await;
    let id = submit(&world);
    with_caller(&world, async |caller| {
        let key = |text: &str| SigningKey::read(&Secret::new(text)).unwrap();
        let (good, bad) = (
            key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            key("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
        );
        let send = async |key: &SigningKey, ago: u64, signed: &str, sent: &str| {
            let at = reelvault::clock::Clock::system().now();
            let at = at.minus(Span::from_secs(ago));
            let signed =
                standard_webhooks::sign(std::slice::from_ref(key), "msg_1", at, signed.as_bytes());
            let mut headers = String::new();
            for (name, value) in &signed {
                headers += &format!("{name}: {}\r\n", value.to_str().unwrap());
            }
            caller.ask("POST", &path(), &headers, sent).await
        };
        let body = body(&id);
        hook(caller, &body).await.assert_problem(401);
        send(&bad, 0, &body, &body).await.assert_problem(401);
        send(&good, 0, "{\"id\":\"other\"}", &body)
            .await
            .assert_problem(401);
        send(&good, 600, &body, &body).await.assert_problem(401);
        assert_eq!(world.records().await.len(), 0);
        assert_eq!(send(&good, 10, &body, &body).await.status, 200);
        assert_eq!(world.records().await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_listener_for_webhooks_alone_serves_nothing_else() {
    let world = world("", "[server.hooks]\nlisten = \"127.0.0.1:0\"\n").await;
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        world.base_url().await;
        let caller = Caller::at(&world.hooks_address().await);
        // Whatever name the outside has for it.
        assert_eq!(hook(&caller, "{\"id\":\"a\"}").await.status, 200);
        for path in [
            "/api/v1/status",
            "/readyz",
            "/openapi.json",
            "/metrics",
            "/",
            "/gateway/sim/v1/tasks/a",
        ] {
            caller.get(path).await.assert_problem(404);
        }
        stop.cancel();
    });
    ran.unwrap();
}

#[tokio::test]
async fn check_prints_the_address_to_hand_to_the_provider() {
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let hook = "allow_private = true\nwebhook = true\nhook_secret = { env = \"SIM_KEY\" }";
    let public = "[server]\npublic_url = \"https://archive.example.com\"\n";
    for (extra, base) in [
        (public, "https://archive.example.com"),
        ("", "http://127.0.0.1:7437"),
    ] {
        let text = outside
            .config("", extra)
            .replacen("allow_private = true", hook, 1);
        outside.home.configure(&text);
        let said = outside.home.run(&["check", "--offline"]).await.stdout;
        let address = format!("give it {base}{}", path());
        assert!(said.contains(&address), "{said}");
        assert_eq!(
            said.contains("set server.public_url"),
            extra.is_empty(),
            "{said}"
        );
    }
}
