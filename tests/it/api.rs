//! The HTTP API over the real server: announcing, looking, waiting, links, health, and what its document promises.

use std::collections::BTreeSet;
use std::time::Duration;

use reelvault::daemon::openapi;
use reelvault::model::asset::AssetIndex;
use reelvault::model::task::TaskId;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::Rule;
use reelvault::units::ByteSize;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::server::Answer;
use crate::server::exchange;
use crate::world::FIRST;
use crate::world::Plan;
use crate::world::World;
use crate::world::sha256;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A caller of one daemon.
pub(crate) struct Caller {
    address: String,
}

impl Caller {
    pub(crate) async fn of(world: &World) -> Self {
        let url = world.base_url().await;
        Self {
            address: url.trim_start_matches("http://").to_owned(),
        }
    }

    /// A caller of whoever listens at this address.
    pub(crate) fn at(address: &str) -> Self {
        Self {
            address: address.to_owned(),
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.ask("POST", path, "Content-Type: application/json\r\n", &body)
            .await
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        let (host, length) = (&self.address, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        exchange(stream, &request).await
    }

    /// The record of a task once it has ended.
    pub(crate) async fn ended(&self, id: &TaskId) -> Value {
        let answer = self.get(&format!("/api/v1/tasks/{id}?wait=30s")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// A daemon over `world`, called by `call`.
pub(crate) async fn with_caller(world: &World, call: impl AsyncFnOnce(&Caller)) {
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        let caller = Caller::of(world).await;
        call(&caller).await;
        stop.cancel();
    });
    ran.unwrap();
}

async fn world(extra: &str) -> World {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.extra.push_str(extra);
    World::new(plan).await
}

fn submit(world: &World, count: usize) -> Vec<TaskId> {
    let submission = || reelvault::simulator::tasks::Submission::video("seedance-2.0");
    (0..count)
        .map(|_| world.simulator.submit(submission()).unwrap())
        .collect()
}

#[tokio::test]
async fn an_announced_task_is_archived_and_its_address_leads_to_the_bytes() {
    let extra = "[links]\nkind = \"daemon\"\n[[route]]\nto = [\"main\"]\n\
                 key = \"{tag.customer|none}/{task_id}/{index}.{ext}\"\n";
    let world = world(extra).await;
    let id = submit(&world, 1).remove(0);
    with_caller(&world, async |caller| {
        let task = json!({ "task_id": id, "provider": "sim", "tags": { "customer": "acme" } });
        let answer = caller.post("/api/v1/tasks", &task).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(
            answer.json(),
            json!({ "provider": "sim", "task_id": id, "outcome": "learned" })
        );
        let record = caller.ended(&id).await;
        assert_eq!(record["state"], "archived", "{record}");
        assert_eq!(record["learned_via"], "api");
        assert_eq!(record["tags"], json!({ "customer": "acme" }));
        let key = record["assets"][0]["objects"][0]["key"].as_str().unwrap();
        assert!(key.starts_with("acme/"), "{key}");

        let answer = caller.get(&format!("/api/v1/tasks/{id}/assets/0")).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let location = answer.header("location").unwrap();
        // As a program without any key gets it.
        let (host, path) = location
            .trim_start_matches("http://")
            .split_once('/')
            .unwrap();
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let bytes = raw_body(host, &request).await;
        let expected = record["assets"][0]["sha256"].as_str().unwrap();
        assert_eq!(sha256(&bytes).to_string(), expected);

        let again = caller.post("/api/v1/tasks", &task).await;
        assert_eq!(again.status, 200);
        assert_eq!(again.json()["outcome"], "known");
        assert_eq!(again.json()["state"], "completed");
        let manifest = caller.get(&format!("/api/v1/manifest/{id}")).await.json();
        assert_eq!(
            manifest,
            caller.get(&format!("/api/v1/tasks/{id}")).await.json()
        );
        let status = caller.get("/api/v1/status").await.json();
        assert_eq!(status["assets"]["archived"], 1);
        assert_eq!(status["is_daemon_running"], true);
    })
    .await;
    world.assert_all_archived(&world.records().await);
}

/// The body of an answer with a length.
async fn raw_body(host: &str, request: &str) -> Vec<u8> {
    use tokio::io::AsyncReadExt as _;
    use tokio::io::AsyncWriteExt as _;
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let head_end = answer.windows(4).position(|it| it == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..head_end]).into_owned();
    assert!(head.starts_with("HTTP/1.1 20"), "{head}");
    answer.split_off(head_end + 4)
}

#[tokio::test]
async fn a_thousand_tasks_are_announced_at_once_and_listed_in_pages() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let task = |n: usize| json!({ "task_id": format!("t-{n}"), "provider": "sim" });
        let tasks: Vec<Value> = (0..1000).map(task).collect();
        let answer = caller.post("/api/v1/tasks", &json!(tasks)).await;
        assert_eq!(answer.status, 200);
        let told = answer.json();
        assert_eq!(
            (told["learned"].as_u64(), told["known"].as_u64()),
            (Some(1000), Some(0))
        );
        let again = caller.post("/api/v1/tasks", &json!(tasks)).await.json();
        assert_eq!(
            (again["learned"].as_u64(), again["known"].as_u64()),
            (Some(0), Some(1000))
        );
        let over: Vec<Value> = (0..1001).map(task).collect();
        caller
            .post("/api/v1/tasks", &json!(over))
            .await
            .assert_problem(422);

        let mut seen = BTreeSet::new();
        let mut after = String::new();
        loop {
            let page = caller
                .get(&format!("/api/v1/tasks?limit=300{after}"))
                .await
                .json();
            for task in page["tasks"].as_array().unwrap() {
                assert!(seen.insert(task["task_id"].as_str().unwrap().to_owned()));
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        assert_eq!(seen.len(), 1000);
        let lines = caller
            .get("/api/v1/manifest?provider=sim&state=watching")
            .await;
        assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
        let lines = dechunked(&lines.body);
        assert_eq!(lines.lines().count(), 1000);
        for line in lines.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["format"], "reelvault.manifest.v1");
        }
        let none = caller.get("/api/v1/manifest?state=archived").await;
        assert_eq!((none.status, dechunked(&none.body).as_str()), (200, ""));
    })
    .await;
}

/// A body without its chunks.
fn dechunked(body: &str) -> String {
    let (mut rest, mut text) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
        if size == 0 {
            break;
        }
    }
    text
}

#[tokio::test]
async fn what_is_wrong_with_one_of_many_keeps_no_other_from_being_learned() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let long = "x".repeat(2000);
        let tasks = json!([
            { "task_id": "good" },
            { "task_id": "a/b" },
            { "task_id": "good-2", "provider": "nobody" },
            { "task_id": 7 },
            { "id": "other name" },
            "text",
            null,
            { "task_id": "x", "tags": { "a": long } },
            { "task_id": "y", "tags": { "a": 1 } },
            { "task_id": "z", "surprise": true },
            { "task_id": "w", "callback_url": "file:///etc/passwd" },
            { "task_id": "good" },
            { "task_id": "good-3", "provider": "sim", "tags": { "a": "b" } },
            { "task_id": "good-4", "callback_url": "https://app.example.com/done" },
        ]);
        let answer = caller.post("/api/v1/tasks", &tasks).await;
        assert_eq!(answer.status, 207, "{answer:?}");
        let told = answer.json();
        let outcomes: Vec<&str> = told["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["outcome"].as_str().unwrap())
            .collect();
        let mut expected = vec!["refused"; 14];
        expected[0] = "learned";
        expected[11..].copy_from_slice(&["known", "learned", "learned"]);
        assert_eq!(outcomes, expected);
        assert_eq!(told["tasks"][1]["task_id"], "a/b");
        assert!(
            told["tasks"][2]["detail"]
                .as_str()
                .unwrap()
                .contains("there is sim")
        );
        assert_eq!(world.records().await.len(), 3);
        for (task, words) in [
            (json!({ "task_id": "a b" }), "not a task ID"),
            (json!({ "task_id": "a/b" }), "no task ID of this provider"),
            (
                json!({ "task_id": "a", "provider": "Nobody" }),
                "provider name",
            ),
            (json!(17), "invalid type"),
        ] {
            let problem = caller
                .post("/api/v1/tasks", &task)
                .await
                .assert_problem(422);
            assert!(
                problem["detail"].as_str().unwrap().contains(words),
                "{problem}"
            );
        }
        caller
            .post("/api/v1/tasks", &json!([]))
            .await
            .assert_problem(400);
    })
    .await;
}

#[tokio::test]
async fn requests_that_make_no_sense_are_told_so() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let json = "Content-Type: application/json\r\n";
        caller
            .ask("POST", "/api/v1/tasks", json, "{")
            .await
            .assert_problem(400);
        caller
            .ask("POST", "/api/v1/tasks", json, "")
            .await
            .assert_problem(400);
        caller
            .ask("POST", "/api/v1/tasks", "", "{}")
            .await
            .assert_problem(415);
        let form = "Content-Type: text/plain\r\n";
        caller
            .ask("POST", "/api/v1/tasks", form, "{}")
            .await
            .assert_problem(415);
        let large = format!("\"{}\"", "x".repeat(5 << 20));
        caller
            .ask("POST", "/api/v1/tasks", json, &large)
            .await
            .assert_problem(413);
        caller
            .ask("PUT", "/api/v1/tasks", json, "{}")
            .await
            .assert_problem(405);
        for path in [
            "/api/v1/tasks?limit=0",
            "/api/v1/tasks?limit=501",
            "/api/v1/tasks?limit=x",
            "/api/v1/tasks?after=-1",
            "/api/v1/tasks?state=odd",
            "/api/v1/tasks?since=soon",
            "/api/v1/tasks?at_risk=yes",
            "/api/v1/tasks?colour=red",
            "/api/v1/tasks?provider=A",
            "/api/v1/tasks/a?wait=61s",
            "/api/v1/tasks/a?wait=x",
            "/api/v1/tasks/%ff",
            "/api/v1/tasks/a%2F%2Fb",
            "/api/v1/tasks/%2e%2e",
            "/api/v1/tasks/a%2F%2e%2e",
            "/api/v1/manifest?limit=1",
            "/api/v1/manifest/a?wait=1s",
            "/api/v1/tasks/a/assets/x",
            "/api/v1/status?x=1",
        ] {
            let problem = caller.get(path).await.assert_problem(400);
            assert_ne!(problem["detail"], "", "{path}");
        }
        for path in [
            "/api/v1/tasks/a",
            "/api/v1/tasks/a%2Fb",
            "/api/v1/manifest/a",
            "/api/v1/tasks/a/assets/0",
            "/api/v1",
        ] {
            caller.get(path).await.assert_problem(404);
        }
        caller
            .ask("DELETE", "/api/v1/tasks/a", "", "")
            .await
            .assert_problem(404);
        caller
            .ask("POST", "/api/v1/tasks/a/retry", "", "")
            .await
            .assert_problem(404);
        // A page of another site may make its reader send this without asking us.
        let origin = "Origin: https://evil.example.com\r\n";
        caller
            .ask("POST", "/api/v1/tasks/a/retry", origin, "")
            .await
            .assert_problem(403);
        let own = format!("Origin: http://{}\r\n", caller.address);
        caller
            .ask("POST", "/api/v1/tasks/a/retry", &own, "")
            .await
            .assert_problem(404);
    })
    .await;
}

#[tokio::test]
async fn whoever_waits_hears_of_the_end_at_once() {
    let world = world("").await;
    world
        .bucket
        .plant(Fault::new(Operation::PutObject, Effect::SLOW_DOWN).times(1));
    let id = submit(&world, 1).remove(0);
    with_caller(&world, async |caller| {
        caller
            .post("/api/v1/tasks", &json!({ "task_id": id }))
            .await;
        let record = caller.ended(&id).await;
        assert_eq!(record["state"], "archived");
        // What has ended already is not waited for, and what does not end is told as it is.
        let asked_at = Instant::now();
        caller.ended(&id).await;
        assert!(asked_at.elapsed() < PATIENCE / 2);
        caller
            .post("/api/v1/tasks", &json!({ "task_id": "never" }))
            .await;
        let answer = caller.get("/api/v1/tasks/never?wait=1s").await;
        assert_eq!(answer.json()["state"], "watching");
    })
    .await;
}

#[tokio::test]
async fn so_many_wait_and_no_more_and_a_stop_sends_all_home() {
    let world = world("").await;
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        let caller = Caller::of(&world).await;
        caller
            .post("/api/v1/tasks", &json!({ "task_id": "never" }))
            .await;
        let waiting = (0..257).map(|_| caller.get("/api/v1/tasks/never?wait=60s"));
        let mut answers = waiting.collect::<futures::stream::FuturesUnordered<_>>();
        let first = futures::StreamExt::next(&mut answers).await.unwrap();
        first.assert_problem(503);
        assert!(first.header("retry-after").is_some());
        stop.cancel();
        let rest: Vec<Answer> = futures::StreamExt::collect(answers).await;
        assert_eq!(rest.len(), 256);
        assert!(rest.iter().all(|answer| answer.status == 200));
    });
    ran.unwrap();
}

#[tokio::test]
async fn a_link_is_fetched_tried_again_and_forgotten() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let link = json!({ "url": "http://127.0.0.1:9/a.mp4?sig=secret", "to": ["main"], "tags": { "a": "b" } });
        let answer = caller.post("/api/v1/fetch", &link).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id = answer.json()["task_id"].as_str().unwrap().to_owned();
        assert_eq!(caller.post("/api/v1/fetch", &link).await.status, 200);
        // The guard keeps us from private addresses, whoever asks.
        let looked = async {
            loop {
                let record = caller.get(&format!("/api/v1/tasks/{id}")).await;
                if record.json()["error"].is_string() {
                    break record;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let record = tokio::time::timeout(PATIENCE, looked).await.unwrap();
        let error = record.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains("127.0.0.1 is not allowed"), "{error}");
        assert!(!record.body.contains("secret"));
        caller.get(&format!("/api/v1/tasks/{id}/assets/0")).await.assert_problem(409);
        caller.get(&format!("/api/v1/tasks/{id}/assets/1")).await.assert_problem(404);
        let retried = caller.ask("POST", &format!("/api/v1/tasks/{id}/retry"), "", "").await;
        assert_eq!(retried.json(), json!({ "provider": "fetch", "task_id": id, "due": 1 }));
        let path = format!("/api/v1/tasks/{id}?provider=fetch");
        let forgotten = caller.ask("DELETE", &path, "", "").await;
        assert_eq!(forgotten.status, 204);
        caller.get(&format!("/api/v1/tasks/{id}")).await.assert_problem(404);
        let nowhere = json!({ "url": "https://a/b", "to": ["nowhere"] });
        let problem = caller.post("/api/v1/fetch", &nowhere).await.assert_problem(404);
        assert!(problem["detail"].as_str().unwrap().contains("configured are: main"));
        for (link, words) in [
            (json!({ "url": "file:///etc/passwd" }), "neither http nor https"),
            (json!({ "url": "no url" }), "the url is none"),
            (json!({ "url": "https://a/b", "to": [] }), "names no destination"),
            (json!({ "url": "https://a/b", "to": ["main", "main"] }), "twice"),
            (json!({ "url": "https://a/b", "more": 1 }), "unknown field"),
            (json!([]), "invalid"),
        ] {
            let problem = caller.post("/api/v1/fetch", &link).await.assert_problem(422);
            assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_is_read_by_range_and_a_sealed_link_needs_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let extra = format!(
        "[[route]]\nto = [\"disk\"]\n[destination.disk.fs]\npath = {:?}\n[server]\ntoken = {{ env = \"SIM_KEY\" }}\n",
        folder.path()
    );
    let world = world(&extra).await;
    let id = submit(&world, 1).remove(0);
    world.announce(std::slice::from_ref(&id)).await;
    with_caller(&world, async |caller| {
        let token = "Authorization: Bearer sk-canary-provider\r\n";
        let path = format!("/api/v1/tasks/{id}?wait=30s");
        let record = caller.ask("GET", &path, token, "").await.json();
        assert_eq!(record["state"], "archived", "{record}");
        let path = format!("/api/v1/tasks/{id}/assets/0");
        let fetch = async |path: &str, headers: &str| {
            let host = &caller.address;
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
            );
            raw_body(host, &request).await
        };
        let whole = fetch(&path, token).await;
        assert_eq!(
            sha256(&whole).to_string(),
            record["assets"][0]["sha256"].as_str().unwrap()
        );
        let part = fetch(&path, &format!("{token}Range: bytes=1000-4999\r\n")).await;
        assert_eq!(part, whole[1000..5000]);
        let tail = fetch(&path, &format!("{token}Range: bytes=-7\r\n")).await;
        assert_eq!(tail, whole[whole.len() - 7..]);
        let tag = format!("{:?}", sha256(&whole).to_string());
        for (tags, status) in [
            (tag.clone(), 304),
            (format!("\"a,b\", W/{tag}"), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 206),
        ] {
            let headers = format!("{token}If-None-Match: {tags}\r\nRange: bytes=0-0\r\n");
            let request = format!(
                "HEAD {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}\r\n",
                caller.address
            );
            let stream = TcpStream::connect(&caller.address).await.unwrap();
            let answer = exchange(stream, &request).await;
            assert_eq!(answer.status, status, "{tags}");
            assert_eq!(answer.header("etag"), Some(tag.as_str()));
        }
        for (version, length) in [(tag.as_str(), 4), ("\"other\"", whole.len())] {
            let headers = format!("{token}If-Range: {version}\r\nRange: bytes=1-4\r\n");
            assert_eq!(fetch(&path, &headers).await.len(), length, "{version}");
        }
        let beyond = format!("{token}Range: bytes={}-\r\n", whole.len());
        let answer = caller.ask("GET", &path, &beyond, "").await;
        answer.assert_problem(416);
        assert_eq!(
            answer.header("content-range"),
            Some(format!("bytes */{}", whole.len()).as_str())
        );

        caller.get(&path).await.assert_problem(401);
        caller
            .get(&format!("{path}?sig=0123456789abcdef0123456789abcdef"))
            .await
            .assert_problem(403);
        caller
            .get("/api/v1/tasks/unknown/assets/0?sig=0")
            .await
            .assert_problem(403);
    })
    .await;
}

#[tokio::test]
async fn a_durable_link_is_what_the_configuration_says() {
    let public = "[links]\nkind = \"public\"\n";
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.extra.push_str(public);
    let world = World::new(plan).await;
    world.submit(1).await;
    let record = world.run_to_the_end().await.remove(0);
    let (task, asset) = (record.key, &record.assets[0]);
    let key = asset.objects[0].key.as_ref().unwrap().to_string();
    let address = Some("127.0.0.1:7437".parse().unwrap());
    let link = async |world: &World, address| {
        let links = world.links(address).await;
        links
            .durable(&task, asset)
            .await
            .unwrap()
            .map(|link| link.to_string())
    };
    let own = format!(
        "http://127.0.0.1:7437/api/v1/tasks/{}/assets/0?provider=sim",
        task.id
    );
    assert_eq!(link(&world, address).await, Some(own.clone()));
    let signed = link(&world, None).await.unwrap();
    assert!(signed.contains("X-Amz-Signature="), "{signed}");

    let main = "[destination.main.s3]";
    let public_main =
        format!("[destination.main]\npublic_url = \"https://videos.example.com/a/\"\n{main}");
    let world = world.reconfigured(main, &public_main).await;
    let expected = format!("https://videos.example.com/a/{key}");
    assert_eq!(link(&world, address).await, Some(expected));
    let world = world
        .reconfigured("kind = \"public\"", "kind = \"daemon\"")
        .await;
    assert_eq!(link(&world, address).await, Some(own));
    let world = world
        .reconfigured(
            "kind = \"daemon\"",
            "kind = \"presigned\"\npresigned = \"90s\"",
        )
        .await;
    let signed = link(&world, address).await.unwrap();
    assert!(signed.contains("X-Amz-Expires=90"), "{signed}");

    // What a token guards is reached by a proof instead, which is good for this one asset.
    let token = "kind = \"daemon\"\n[server]\ntoken = { env = \"SIM_KEY\" }\n";
    let world = world
        .reconfigured("kind = \"presigned\"\npresigned = \"90s\"\n", token)
        .await;
    let sealed = link(&world, address).await.unwrap();
    let (_, sig) = sealed.split_once("&sig=").unwrap();
    let links = world.links(address).await;
    assert!(links.is_sealed(&task, FIRST, sig));
    assert!(!links.is_sealed(&task, AssetIndex(1), sig));
    assert!(!links.is_sealed(&task, FIRST, ""));
    with_caller(&world, async |caller| {
        let path = sealed.trim_start_matches("http://127.0.0.1:7437");
        let answer = caller.get(path).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        let other = path.replace("/assets/0", "/assets/1");
        caller.get(&other).await.assert_problem(403);
    })
    .await;
}

#[tokio::test]
async fn readiness_names_whoever_refuses_us() {
    let world = world("").await;
    let no_bucket = Effect::Answer(404, "NoSuchBucket");
    let fault = Fault::new(Operation::PutObject, no_bucket).times(9);
    world.bucket.plant(fault);
    world.simulator.plant(Rule::api(ApiFault::Unauthorized));
    let ids = submit(&world, 2);
    with_caller(&world, async |caller| {
        let ready = caller.get("/readyz").await;
        assert_eq!(ready.json(), json!({ "ready": true, "reasons": [] }));
        let unready = async |what: &str| {
            loop {
                let answer = caller.get("/readyz").await;
                if answer.status == 503 && answer.body.contains(what) {
                    break answer.json();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        caller
            .post("/api/v1/tasks", &json!({ "task_id": ids[0] }))
            .await;
        let told = tokio::time::timeout(PATIENCE, unready("provider sim"))
            .await
            .unwrap();
        assert_eq!(told["ready"], false);
        assert!(
            told["reasons"][0]["why"].as_str().unwrap().contains("401"),
            "{told}"
        );
    })
    .await;
    // The account is right again, and the store is not.
    with_caller(&world, async |caller| {
        caller
            .ask("POST", &format!("/api/v1/tasks/{}/retry", ids[0]), "", "")
            .await;
        let unready = async {
            loop {
                let answer = caller.get("/readyz").await;
                if answer.body.contains("destination main") {
                    break answer.json();
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, unready).await.unwrap();
        assert!(told.to_string().contains("NoSuchBucket"), "{told}");
    })
    .await;
}

#[tokio::test]
async fn the_document_knows_every_route_and_its_examples_are_taken() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let document = caller.get("/openapi.json").await.json();
        assert_eq!(document, openapi::document());
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                // A stream has no end that could be waited for.
                if method == "parameters" || path == "/api/v1/events" {
                    continue;
                }
                // Whatever the path stands for is not there, but the path itself is.
                let filled = path
                    .replace("{id}", "unheard-of")
                    .replace("{index}", "0")
                    .replace("{provider}", "sim")
                    .replace("{token}", "t");
                let (upper, examples) = (method.to_uppercase(), examples(operation));
                for example in &examples {
                    let json = "Content-Type: application/json\r\n";
                    let answer = caller
                        .ask(&upper, &filled, json, &example.to_string())
                        .await;
                    let status = answer.status.to_string();
                    let known = operation["responses"].get(&status);
                    assert!(known.is_some(), "{method} {path}: {answer:?}");
                    let is_announced = path.starts_with("/api") && answer.status >= 400;
                    // The examples name a provider that is not configured here.
                    assert!(
                        !is_announced || answer.body.contains("no provider"),
                        "{answer:?}"
                    );
                }
                if examples.is_empty() {
                    let answer = caller.ask(&upper, &filled, "", "").await;
                    assert_ne!(answer.status, 405, "{method} {path}");
                    assert!(
                        !answer.body.contains("there is no /"),
                        "{method} {path}: {answer:?}"
                    );
                    let known = operation["responses"].get(answer.status.to_string());
                    assert!(known.is_some(), "{method} {path}: {answer:?}");
                }
            }
        }
    })
    .await;
}

fn examples(operation: &Value) -> Vec<Value> {
    let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
    let named = examples.as_object().into_iter().flatten();
    named.map(|(_, example)| example["value"].clone()).collect()
}

#[test]
fn every_route_in_the_code_is_in_the_document() {
    let sources = [
        include_str!("../../src/intake/api.rs"),
        include_str!("../../src/intake/hooks.rs"),
        include_str!("../../src/report/api.rs"),
        include_str!("../../src/report/events.rs"),
        include_str!("../../src/daemon/health.rs"),
        include_str!("../../src/daemon/metrics.rs"),
        include_str!("../../src/daemon/routes.rs"),
    ];
    let document = openapi::document();
    let mut routes = 0;
    for source in sources {
        for piece in source.split(".route(").skip(1) {
            let mut words = piece.split('"');
            let path = words.nth(1).unwrap();
            let method = words.next().unwrap().trim_start_matches([',', ' ', '\n']);
            let method = method.split('(').next().unwrap();
            assert!(
                document["paths"][path][method].is_object(),
                "{method} {path}"
            );
            routes += 1;
        }
    }
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|item| item.as_object().unwrap().keys());
    assert_eq!(
        routes,
        operations.filter(|key| *key != "parameters").count()
    );
}
