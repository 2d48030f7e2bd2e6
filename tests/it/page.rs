//! The page and the stream that keeps it as it is now, over real HTTP: what they show, to whom, and what they survive.

use std::collections::BTreeSet;
use std::time::Duration;

use reelvault::model::task::LearnedVia;
use reelvault::model::task::TaskId;
use reelvault::units::ByteSize;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::api::Caller;
use crate::api::with_caller;
use crate::server::Answer;
use crate::world::Plan;
use crate::world::World;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a page costs a reader who is far away, all of it.
const PAGE_BYTES_MAX: usize = 30 << 10;

/// `anybody:sk-canary-provider`
const PASSWORD: &str = "Authorization: Basic YW55Ym9keTpzay1jYW5hcnktcHJvdmlkZXI=\r\n";

async fn world(extra: &str) -> World {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.extra.push_str(extra);
    World::new(plan).await
}

/// Submits and announces so many tasks, and waits for the end of each.
async fn archive(world: &World, caller: &Caller, count: usize) -> Vec<TaskId> {
    let ids = world.submit(count).await;
    for id in &ids {
        assert_eq!(caller.ended(id).await["state"], "archived");
    }
    ids
}

/// A page as a browser gets it, with all that holds of each.
async fn page(caller: &Caller, path: &str, status: u16) -> String {
    let answer = caller.get(path).await;
    assert_eq!(answer.status, status, "{answer:?}");
    check_page(&answer);
    answer.body
}

fn check_page(answer: &Answer) {
    assert_eq!(
        answer.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
    let body = &answer.body;
    assert!(body.starts_with("<!doctype html>"), "{body}");
    assert!(!body.contains("style=") && !body.contains("onclick"));
    assert!(!body.contains("src=\"http") && !body.contains("href=\"http"));
}

#[tokio::test]
async fn a_page_says_what_status_says_and_is_small() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let empty = page(caller, "/", 200).await;
        assert!(empty.contains("nothing is at risk"), "{empty}");
        assert!(empty.contains("No such tasks."));
        let ids = archive(&world, caller, 25).await;
        // What the first look saw is kept for a while.
        let all_told = async {
            loop {
                let told = page(caller, "/", 200).await;
                if told.contains("<b>25</b> <span>archived") {
                    break told;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = tokio::time::timeout(PATIENCE, all_told).await.unwrap();
        assert!(told.contains("<b>OK</b> nothing is at risk"), "{told}");
        for part in ["25 MiB", "s3://videos", ">works<"] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(told.contains(ids[24].as_str()), "the newest come first");
        assert!(!told.contains(ids[0].as_str()));
        let mut bytes = told.len();
        for (path, kind) in [("/page.css", "text/css"), ("/page.js", "text/javascript")] {
            let answer = caller.get(path).await;
            assert_eq!(answer.header("content-type"), Some(kind));
            assert!(told.contains(path));
            bytes += answer.body.len();
        }
        assert!(bytes < PAGE_BYTES_MAX, "{bytes} bytes");
    })
    .await;
}

#[tokio::test]
async fn tasks_are_found_page_by_page_and_by_how_they_begin() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let ids = archive(&world, caller, 45).await;
        let (mut seen, mut path) = (BTreeSet::new(), "/".to_owned());
        for _ in 0..3 {
            let told = page(caller, &path, 200).await;
            let on_it: Vec<&TaskId> = ids.iter().filter(|id| told.contains(id.as_str())).collect();
            assert!(on_it.iter().all(|id| seen.insert((*id).clone())), "twice");
            let Some((_, next)) = told.split_once("rel=\"next\" href=\"") else {
                break;
            };
            path = next.split('"').next().unwrap().replace("&#38;", "&");
        }
        assert_eq!(seen.len(), ids.len());

        let whole = page(caller, &format!("/?q={}&state=archived", ids[3]), 200).await;
        let rows = whole
            .matches("<span class=\"state archived\">archived")
            .count();
        assert_eq!(rows, 1, "{whole}");
        let none = page(caller, "/?q=task-unheard&state=", 200).await;
        assert!(none.contains("No such tasks.") && none.contains("value=\"task-unheard\""));
        let strange = page(caller, "/?q=%00%E2%80%AE%F0%9F%8E%9E", 200).await;
        assert!(strange.contains("No such tasks."));
        let wrong = page(caller, "/?state=%3Cb%3Enew", 400).await;
        assert!(
            wrong.contains("is no state") && !wrong.contains("<b>new"),
            "{wrong}"
        );
        let absent = page(caller, "/tasks/unheard-of", 404).await;
        assert!(absent.contains("no task unheard-of in the manifest"));
        page(caller, "/tasks/a%20b", 400).await;
        page(caller, "/?after=x", 400).await;
    })
    .await;
}

#[tokio::test]
async fn a_task_has_its_film_its_checksums_and_its_history() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let id = archive(&world, caller, 1).await.remove(0);
        let record = caller.ended(&id).await;
        let told = page(caller, &format!("/tasks/{id}?provider=sim"), 200).await;
        let asset = &record["assets"][0];
        for part in [
            asset["sha256"].as_str().unwrap(),
            asset["crc64nvme"].as_str().unwrap(),
            asset["objects"][0]["url"].as_str().unwrap(),
            "proven by checksum",
            ">learned<",
            ">ready<",
            ">archived<",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("Try again now"));
        let (_, source) = told
            .split_once("<video controls preload=\"metadata\" src=\"")
            .unwrap();
        let source = source.split('"').next().unwrap();
        assert_eq!(source, format!("/api/v1/tasks/{id}/assets/0?provider=sim"));
        assert_eq!(caller.get(source).await.status, 302);
        // The link that dies may be signed; the page shows none of that.
        assert!(
            !told.contains("X-Amz-") && !told.contains("Expires="),
            "{told}"
        );
    })
    .await;
}

#[tokio::test]
async fn what_others_chose_is_text_and_nothing_else() {
    let world = world("[poll]\nfirst = \"1h\"\nmax = \"1h\"\n").await;
    let evil = "\"><script>alert(1)<x";
    with_caller(&world, async |caller| {
        let tags = json!({ "<b>note": "'\"><img src=x onerror=alert(2)>" });
        let task = json!({ "task_id": evil, "provider": "sim", "tags": tags });
        let answer = caller.post("/api/v1/tasks", &task).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let id: TaskId = evil.parse().unwrap();
        let escaped = "%22%3E%3Cscript%3Ealert%281%29%3Cx";
        let home = page(caller, "/", 200).await;
        let own = page(caller, &format!("/tasks/{escaped}?provider=sim"), 200).await;
        let searched = format!("/?q={escaped}");
        let found = page(caller, &searched, 200).await;
        for text in [&home, &own, &found] {
            assert!(
                !text.contains("<script>") && !text.contains("<img"),
                "{text}"
            );
            assert!(!text.contains("<b>note"), "{text}");
            assert!(text.contains("&#60;script&#62;alert(1)"), "{text}");
        }
        assert!(home.contains(&format!("href=\"/tasks/{escaped}?provider=sim\"")));
        assert_eq!(world.records().await[0].key.id, id);
    })
    .await;
}

#[tokio::test]
async fn only_the_page_itself_has_a_task_tried_again() {
    let world = world("[poll]\nfirst = \"1h\"\nmax = \"1h\"\n").await;
    with_caller(&world, async |caller| {
        let id: TaskId = "never-submitted".parse().unwrap();
        world.announce(std::slice::from_ref(&id)).await;
        let path = format!("/tasks/{id}/retry?provider=sim");
        let host = caller.address();
        let refused = [
            String::new(),
            "Origin: https://evil.example.com\r\n".to_owned(),
            "Origin: null\r\n".to_owned(),
            "Origin: http://127.0.0.1:1\r\n".to_owned(),
            format!("Origin: http://{host}\r\nSec-Fetch-Site: same-site\r\n"),
            "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        ];
        for headers in refused {
            let answer = caller.ask("POST", &path, &headers, "").await;
            assert_eq!(answer.status, 403, "{headers}{answer:?}");
        }
        assert_eq!(caller.get(&path).await.status, 405);
        let own = format!("Origin: http://{host}\r\nSec-Fetch-Site: same-origin\r\n");
        let answer = caller.ask("POST", &path, &own, "").await;
        assert_eq!(answer.status, 303, "{answer:?}");
        assert_eq!(
            answer.header("location"),
            Some("/tasks/never-submitted?provider=sim")
        );
        let told = page(caller, &format!("/tasks/{id}"), 200).await;
        assert!(told.contains("Try again now"), "{told}");
        let absent = "/tasks/nobody/retry?provider=sim";
        assert_eq!(caller.ask("POST", absent, &own, "").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_browser_gives_the_token_as_a_password_and_may_do_little_with_it() {
    let world = world("[server]\ntoken = { env = \"SIM_KEY\" }\n").await;
    with_caller(&world, async |caller| {
        for path in ["/", "/tasks/a"] {
            let answer = caller.get(path).await;
            answer.assert_problem(401);
            let asked = answer.header("www-authenticate").unwrap();
            assert!(asked.starts_with("Basic realm="), "{asked}");
        }
        let ask = async |method: &str, path: &str, headers: &str, status: u16| {
            let answer = caller.ask(method, path, headers, "{}").await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        };
        ask("GET", "/", PASSWORD, 200).await;
        ask("GET", "/page.js", PASSWORD, 200).await;
        ask("GET", "/api/v1/status", PASSWORD, 200).await;
        ask("GET", "/page.js", "", 401).await;
        for wrong in [
            "Authorization: Basic YW55Ym9keTp3cm9uZw==\r\n",
            "Authorization: Basic c2stY2FuYXJ5LXByb3ZpZGVy\r\n",
            "Authorization: Basic !!!!\r\n",
            "Authorization: Basic //79\r\n",
        ] {
            ask("GET", "/", wrong, 401).await;
        }
        // A browser adds it to whatever a page of anybody's has it send.
        ask("POST", "/api/v1/tasks", PASSWORD, 403).await;
        ask("DELETE", "/api/v1/tasks/a", PASSWORD, 403).await;
        ask("GET", "/gateway/sim/v1/tasks/a", PASSWORD, 403).await;
        ask("POST", "/tasks/a/retry", PASSWORD, 403).await;
        let own = format!("{PASSWORD}Sec-Fetch-Site: same-origin\r\n");
        ask("POST", "/tasks/a/retry", &own, 404).await;
    })
    .await;
}

/// A stream of events, read as it comes.
struct Stream {
    stream: TcpStream,
    text: String,
}

impl Stream {
    async fn open(caller: &Caller, headers: &str) -> Self {
        let mut stream = TcpStream::connect(caller.address()).await.unwrap();
        let host = caller.address();
        let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self {
            stream,
            text: String::new(),
        }
    }

    /// Reads until `part` was told, or to the end.
    async fn until(&mut self, part: &str) -> bool {
        let reading = async {
            let mut piece = [0; 4096];
            while !self.text.contains(part) {
                let read = self.stream.read(&mut piece).await.unwrap();
                if read == 0 {
                    return false;
                }
                self.text += std::str::from_utf8(&piece[..read]).unwrap();
            }
            true
        };
        let found = tokio::time::timeout(PATIENCE, reading).await;
        found.unwrap_or_else(|_| panic!("no {part:?}"))
    }

    /// The events that were told, with the number of each.
    fn events(&self) -> Vec<(i64, Value)> {
        let blocks = self
            .text
            .split("\n\n")
            .filter(|block| block.contains("id: "));
        let read = |block: &str| {
            let line = |name: &str| {
                let found = block.lines().find_map(|line| line.strip_prefix(name));
                found
                    .unwrap_or_else(|| panic!("no {name} in {block}"))
                    .to_owned()
            };
            let data: Value = serde_json::from_str(&line("data: ")).unwrap();
            (line("id: ").parse().unwrap(), data)
        };
        blocks.map(read).collect()
    }
}

#[tokio::test]
async fn a_stream_tells_what_happens_goes_on_where_it_broke_and_ends_with_the_daemon() {
    let world = world("").await;
    let stop = CancellationToken::new();
    let (ran, ()) = tokio::join!(world.daemon(&stop), async {
        let caller = Caller::of(&world).await;
        let mut stream = Stream::open(&caller, "").await;
        assert!(stream.until("text/event-stream").await);
        let id = archive(&world, &caller, 1).await.remove(0);
        assert!(stream.until("\"kind\":\"archived\"").await);
        let events = stream.events();
        let kinds: Vec<_> = events
            .iter()
            .map(|(_, it)| it["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["learned", "ready", "archived"]);
        for (number, event) in &events {
            assert_eq!(event["task_id"], id.as_str());
            assert_eq!(event["event"], *number);
        }

        // Broken after the first, it goes on with the second, and says nothing twice.
        let header = format!("Last-Event-ID: {}\r\n", events[0].0);
        let mut again = Stream::open(&caller, &header).await;
        assert!(again.until("\"kind\":\"archived\"").await);
        archive(&world, &caller, 1).await;
        let third = events[2].0 + 3;
        assert!(again.until(&format!("id: {third}\n")).await);
        let numbers: Vec<i64> = again
            .events()
            .into_iter()
            .map(|(number, _)| number)
            .collect();
        assert_eq!(numbers, (events[1].0..=third).collect::<Vec<_>>());
        let headers = "Last-Event-ID: soon\r\n";
        let answer = caller.ask("GET", "/api/v1/events", headers, "").await;
        answer.assert_problem(400);

        stop.cancel();
        assert!(!again.until("never told").await, "it ends");
    });
    ran.unwrap();
}

#[tokio::test]
async fn streams_have_a_bound() {
    let world = world("").await;
    with_caller(&world, async |caller| {
        let mut open = Vec::new();
        for _ in 0..64 {
            let mut stream = Stream::open(caller, "").await;
            assert!(stream.until("text/event-stream").await);
            open.push(stream);
        }
        caller.get("/api/v1/events").await.assert_problem(503);
        assert_eq!(caller.get("/").await.status, 200, "the page stays open");
    })
    .await;
}

#[tokio::test]
async fn a_risk_and_a_loss_stand_in_front() {
    let world = World::new(Plan::lost()).await;
    with_caller(&world, async |caller| {
        let id = world.submit(1).await.remove(0);
        assert_eq!(caller.ended(&id).await["state"], "lost");
        let told = page(caller, "/", 200).await;
        assert!(told.contains("<b>LOST</b> 1 video"), "{told}");
        let which = page(caller, "/?state=lost", 200).await;
        assert!(which.contains(&format!("/tasks/{id}?")), "{which}");
        let at_risk = page(caller, "/?state=at_risk", 200).await;
        assert!(at_risk.contains("No such tasks."), "{at_risk}");
        let own = page(caller, &format!("/tasks/{id}"), 200).await;
        assert!(
            own.contains("answers 404") && own.contains("Try again now"),
            "{own}"
        );
        assert_eq!(world.records().await[0].learned_via, LearnedVia::Cli);
    })
    .await;
}
