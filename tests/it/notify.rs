//! Who is told what: signed, at least once, under one ID, whatever endpoints do; and the heartbeat's silence.

use std::time::Duration;

use reelvault::clock::Clock;
use reelvault::manifest::row::event::EventFilter;
use reelvault::manifest::row::event::EventRecord;
use reelvault::model::event::DeliveryState;
use reelvault::model::task::TaskId;
use reelvault::simulator;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use serde_json::Value;

use crate::process::Outside;
use crate::receiver::Message;
use crate::receiver::Receiver;
use crate::receiver::Reply;
use crate::world::Log;
use crate::world::NOTIFY_KEY;
use crate::world::OLD_NOTIFY_KEY;
use crate::world::Plan;
use crate::world::World;

/// How often something is looked at that nothing else tells of.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const HOUR: Span = Span::from_secs(3600);

/// An endpoint in the configuration.
fn notify(name: &str, url: &str, when: &[&str]) -> String {
    format!(
        "[[notify]]\nname = \"{name}\"\nurl = \"{url}\"\nwhen = {when:?}\nsecret = {{ env = \"NOTIFY_KEY\" }}\n\
         allow_private = true\n"
    )
}

async fn world(extra: &str) -> World {
    World::new(Plan {
        extra: extra.to_owned(),
        patience: Duration::from_mins(2),
        ..Plan::files_of(ByteSize::bytes(4096))
    })
    .await
}

async fn events(world: &World) -> Vec<EventRecord> {
    let all = EventFilter::default();
    world.manifest.events(&all, 10_000).await.unwrap()
}

/// Waits until the one delivery there is has failed so often, or is final.
async fn failed(world: &World, attempts: u32) {
    loop {
        let events = events(world).await;
        let delivery = events.iter().find_map(|event| event.deliveries.first());
        let is_there = |it: &reelvault::manifest::row::event::DeliveryRecord| {
            it.attempts >= attempts || it.state != DeliveryState::Due
        };
        if delivery.is_some_and(is_there) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Task IDs that the provider never heard of.
fn strangers(count: usize) -> Vec<TaskId> {
    (0..count)
        .map(|number| format!("task-unified-1-stranger{number}").parse().unwrap())
        .collect()
}

#[tokio::test]
async fn each_event_is_told_signed_and_with_the_record() {
    let receiver = Receiver::start().await;
    let all = ["learned", "ready", "archived", "failed", "at_risk", "lost"];
    let mut extra = notify("app", &receiver.url("/hooks?app=1"), &all);
    extra.push_str("secret_old = { env = \"OLD_NOTIFY_KEY\" }\n");
    extra.push_str(&notify(
        "ends",
        &receiver.url("/ends"),
        &["archived", "lost"],
    ));
    let world = world(&extra).await;
    let id = world.submit(1).await[0].to_string();
    let messages = world.run_during(receiver.reached(4)).await;

    let told = |path: &str| -> Vec<String> {
        let mut kinds: Vec<String> = messages
            .iter()
            .filter(|it| it.path == path)
            .map(Message::kind)
            .collect();
        kinds.sort();
        kinds
    };
    assert_eq!(
        told("/hooks?app=1"),
        ["task.archived", "task.learned", "task.ready"]
    );
    assert_eq!(told("/ends"), ["task.archived"]);
    let now = Clock::system();
    let mut ids = Vec::new();
    for message in &messages {
        assert_eq!(message.method, "POST");
        assert_eq!(message.headers["content-type"], "application/json");
        assert!(message.headers["user-agent"].starts_with("reelvault/"));
        message.verify(NOTIFY_KEY, &now).unwrap();
        let by_old = message.verify(OLD_NOTIFY_KEY, &now);
        assert_eq!(by_old.is_ok(), message.path != "/ends");
        let json = message.json();
        assert_eq!(json["data"]["task"]["task_id"], *id);
        assert_eq!(json["data"]["task"]["format"], "reelvault.manifest.v1");
        assert!(json["timestamp"].as_str().unwrap().ends_with('Z'), "{json}");
        assert_eq!(json["data"]["asset"], Value::Null);
        ids.push(message.id().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each message has an ID of its own");
    let archived = messages
        .iter()
        .find(|it| it.kind() == "task.archived")
        .unwrap();
    let record = &archived.json()["data"]["task"];
    assert_eq!(record["state"], "archived");
    assert!(record["assets"][0]["objects"][0]["url"].is_string());
    assert!(!String::from_utf8_lossy(&archived.body).contains("Signature"));
}

#[tokio::test]
async fn whatever_an_endpoint_does_it_is_told_in_the_end_under_one_id() {
    let (receiver, other) = (Receiver::start().await, Receiver::start().await);
    let away = format!("location: {}\r\n", other.url("/"));
    let huge = [b"HTTP/1.1 500 X\r\n\r\n".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let replies = [
        Reply::Close,
        Reply::status(500, ""),
        Reply::Bytes(b"\x16\x03\x01 this is no HTTP\r\n\r\n".to_vec()),
        Reply::status(307, &away),
        Reply::Bytes(huge),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nx: ".repeat(100_000)),
        Reply::status(404, ""),
    ];
    let count = replies.len();
    receiver.plant(replies);
    let world = world(&notify("app", &receiver.url("/"), &["learned"])).await;
    world.announce(&strangers(1)).await;
    let messages = world.run_during(async {
        for attempt in 1..=count {
            receiver.reached(attempt).await;
            failed(&world, u32::try_from(attempt).unwrap()).await;
            let trouble = world.manifest.endpoint_troubles().await.unwrap();
            assert_eq!(trouble.len(), 1, "{attempt}: {trouble:?}");
            assert_eq!(trouble[0].disabled_at, None);
            // Longer than any back-off, and all of them together shorter than the patience.
            world.pass(HOUR.times(16.0));
        }
        let messages = receiver.reached(count + 1).await;
        while events(&world).await[0].deliveries[0].state != DeliveryState::Sent {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        messages
    });
    let messages = messages.await;
    for message in &messages {
        assert_eq!(message.id(), messages[0].id());
        assert_eq!(message.json()["timestamp"], messages[0].json()["timestamp"]);
    }
    assert!(other.messages().is_empty(), "redirects are not followed");
    assert!(world.manifest.endpoint_troubles().await.unwrap().is_empty());
    assert_eq!(receiver.messages().len(), count + 1, "and then no more");
}

#[tokio::test]
async fn a_slow_endpoint_holds_up_no_other_and_is_not_crowded() {
    const COUNT: usize = 100;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.answer(Reply::Hang);
    let mut extra = notify("slow", &slow.url("/"), &["learned"]);
    extra.push_str(&notify("quick", &quick.url("/"), &["learned"]));
    let world = world(&extra).await;
    world.announce(&strangers(COUNT)).await;
    let started = tokio::time::Instant::now();
    world.run_during(quick.reached(COUNT)).await;
    let taken = started.elapsed();
    // Neither while it runs nor when it stops.
    assert!(
        taken < Duration::from_secs(14),
        "a time-out was waited for: {taken:?}"
    );
    let left = events(&world)
        .await
        .into_iter()
        .flat_map(|it| it.deliveries);
    let left = left.filter(|it| it.endpoint.as_str() == "slow");
    for delivery in left {
        assert_eq!((delivery.state, delivery.attempts), (DeliveryState::Due, 0));
    }
    assert!(!slow.messages().is_empty());
    assert!(slow.open_max() <= 8, "{} at once", slow.open_max());
}

#[tokio::test]
async fn a_manifest_that_does_not_answer_is_no_attempt_at_an_endpoint() {
    let receiver = Receiver::start().await;
    let world = world(&notify("app", &receiver.url("/"), &["learned"])).await;
    world.announce(&strangers(1)).await;
    // Records cannot be read, and all else can.
    let path = world.folder().join("manifest.db");
    let database = rusqlite::Connection::open(path).unwrap();
    let rename = |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        database.execute_batch(&sql).unwrap();
    };
    rename("objects", "elsewhere");
    world
        .run_during(async {
            let said = loop {
                let events = events(&world).await;
                let deliveries = events.iter().flat_map(|it| &it.deliveries);
                let said = deliveries.filter_map(|it| Some((it.attempts, it.error.clone()?)));
                if let Some(said) = said.into_iter().next() {
                    break said;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            };
            assert!(said.1.contains("no record to send"), "{said:?}");
            assert_eq!(said.0, 0, "{said:?}");
            rename("elsewhere", "objects");
            world.pass(Span::from_secs(6));
            receiver.reached(1).await;
        })
        .await;
    assert!(world.manifest.endpoint_troubles().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_asks_for_a_pause_gets_it() {
    let receiver = Receiver::start().await;
    receiver.plant([Reply::status(429, "retry-after: 7200\r\n")]);
    let world = world(&notify("app", &receiver.url("/"), &["learned"])).await;
    let ids = strangers(2);
    world.announce(&ids[..1]).await;
    world
        .run_during(async {
            receiver.reached(1).await;
            while world.manifest.endpoint_troubles().await.unwrap().is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            // Nothing else is sent there either.
            world.announce(&ids[1..]).await;
            while events(&world)
                .await
                .iter()
                .map(|it| it.deliveries.len())
                .sum::<usize>()
                < 2
            {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            world.pass(HOUR);
            let before = world.manifest.commits();
            while world.manifest.commits() < before + 3 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            assert_eq!(receiver.messages().len(), 1);
            world.pass(HOUR);
            receiver.reached(3).await;
        })
        .await;
}

#[tokio::test]
async fn five_days_without_success_disable_an_endpoint_with_an_alarm() {
    let receiver = Receiver::start().await;
    receiver.answer(Reply::status(500, ""));
    let log = Log::default();
    let _guard = log.listen();
    let world = world(&notify("app", &receiver.url("/"), &["learned"])).await;
    let ids = strangers(2);
    world.announce(&ids[..1]).await;
    let disabled = async || {
        let troubles = world.manifest.endpoint_troubles().await.unwrap();
        troubles.into_iter().find(|it| it.disabled_at.is_some())
    };
    world
        .run_during(async {
            let mut attempts = 0;
            while disabled().await.is_none() {
                // Given up first and disabled after that: no time passes in between.
                let events = events(&world).await;
                let mut deliveries = events.iter().flat_map(|it| &it.deliveries);
                if deliveries.any(|it| it.state == DeliveryState::GivenUp) {
                    tokio::time::sleep(LOOK_EVERY).await;
                    continue;
                }
                attempts += 1;
                failed(&world, attempts).await;
                world.pass(HOUR.times(25.0));
                assert!(attempts < 8, "still enabled after {attempts} days");
            }
            assert!(attempts >= 5, "disabled after {attempts} tries");
        })
        .await;
    let trouble = disabled().await.unwrap();
    let failing_for = trouble.disabled_at.unwrap().since(trouble.failing_since);
    assert!(failing_for >= HOUR.times(120.0), "{failing_for}");
    let alarm = log
        .lines()
        .into_iter()
        .find(|it| it.contains("the endpoint is disabled"));
    let alarm = alarm.unwrap();
    assert!(
        alarm.contains("ERROR") && alarm.contains("endpoint.name=app"),
        "{alarm}"
    );

    // What happens now is kept for a replay, and not sent.
    let before = receiver.messages().len();
    world.announce(&ids[1..]).await;
    world
        .run_during(async {
            loop {
                let events = events(&world).await;
                let deliveries = events.iter().flat_map(|it| &it.deliveries);
                let states: Vec<DeliveryState> = deliveries.map(|it| it.state).collect();
                if states == [DeliveryState::GivenUp; 2] {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        })
        .await;
    assert_eq!(receiver.messages().len(), before);
}

#[tokio::test]
async fn gone_disables_at_once_and_a_reload_and_a_replay_bring_it_back() {
    let receiver = Receiver::start().await;
    receiver.plant([Reply::status(410, "")]);
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let extra = notify("app", &receiver.url("/"), &["learned"]);
    outside.home.configure(&outside.config("", &extra));
    let daemon = outside.home.start().await;
    outside.home.done(&["add", "stranger"]).await;
    daemon.says("the endpoint is disabled").await;
    let dry = ["events", "replay", "-n", "--since", "1h"];
    let told = outside.home.run(&dry).await;
    assert_eq!((told.code, told.stdout.as_str()), (6, ""), "{told:?}");
    let status = outside.home.run(&["status"]).await.stdout;
    assert!(status.contains("MUTE app is disabled for "), "{status}");
    assert!(status.contains("answered 410"), "{status}");
    let listed = outside.home.done(&["events", "list"]).await;
    assert!(listed.contains("app (given up)"), "{listed}");

    daemon.signal("HUP");
    daemon.says("the endpoint is enabled again").await;
    daemon.says_times(" ready ", 2).await;
    outside
        .home
        .done(&["events", "replay", "--since", "1h"])
        .await;
    let messages = receiver.reached(2).await;
    assert_eq!(messages[1].id(), messages[0].id());
    outside
        .home
        .prints(&["events", "list", "--json"], "\"state\":\"sent\"")
        .await;
    let status = outside.home.run(&["status"]).await.stdout;
    assert!(!status.contains("MUTE"), "{status}");

    // One by its number, and none that there is not.
    let listed = outside.home.done(&["events", "list", "--json"]).await;
    let first: Value = serde_json::from_str(listed.lines().next().unwrap()).unwrap();
    let number = first["event"].to_string();
    assert_eq!(
        outside.home.done(&["events", "replay", &number]).await,
        "1 events: told again\n"
    );
    receiver.reached(3).await;
    assert_eq!(outside.home.run(&["events", "replay", "999"]).await.code, 6);
    let some = outside
        .home
        .run(&["events", "replay", &number, "999"])
        .await;
    assert_eq!(
        (some.code, some.stdout.as_str(), some.stderr.as_str()),
        (3, "1 events: told again\n", "error: no event 999\n")
    );
    let dry = ["events", "replay", "-n", "-e", "app", &number, "999"];
    let some = outside.home.run(&dry).await;
    assert_eq!(
        (some.code, some.stderr.as_str()),
        (3, "error: no event 999\n")
    );
    assert_eq!(some.stdout.lines().count(), 2, "{some:?}");
    let dry = [
        "events",
        "replay",
        "-n",
        "-e",
        "callback:nobody.test",
        &number,
    ];
    assert_eq!(outside.home.run(&dry).await.code, 6);
    let dry = ["events", "replay", "-n", "999"];
    assert_eq!(outside.home.run(&dry).await.code, 6);
    let nobody = ["events", "replay", "-e", "ap", &number];
    let nobody = outside.home.run(&nobody).await;
    assert_eq!(
        (nobody.code, nobody.stderr.as_str()),
        (6, "error: no endpoint \"ap\": there is app\n")
    );
    daemon.stop().await;
}

#[tokio::test]
async fn killed_between_the_message_and_its_row_it_is_sent_again_under_the_same_id() {
    let receiver = Receiver::start().await;
    // The daemon is killed while it waits for the answer, as it might before it writes it down.
    receiver.plant([Reply::Hang, Reply::Hang]);
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let extra = notify("app", &receiver.url("/"), &["learned"]);
    outside.home.configure(&outside.config("", &extra));
    outside.home.done(&["add", "stranger"]).await;
    for kill in 1..=2 {
        let daemon = outside.home.start().await;
        receiver.reached(kill).await;
        daemon.kill().await;
    }
    let daemon = outside.home.start().await;
    let messages = receiver.reached(3).await;
    outside
        .home
        .prints(&["events", "list", "--json"], "\"state\":\"sent\"")
        .await;
    daemon.stop().await;
    for message in &messages {
        assert_eq!(message.id(), messages[0].id());
        message.verify(NOTIFY_KEY, &Clock::system()).unwrap();
    }
    assert_eq!(receiver.messages().len(), 3);
}

#[tokio::test]
async fn a_reload_takes_endpoints_up_and_away() {
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let extra = notify("old", &old.url("/"), &["learned"]);
    outside.home.configure(&outside.config("", &extra));
    let daemon = outside.home.start().await;
    outside.home.done(&["add", "first"]).await;
    old.reached(1).await;
    let extra = notify("new", &new.url("/"), &["learned"]);
    outside.home.configure(&outside.config("", &extra));
    daemon.signal("HUP");
    daemon.says_times(" ready ", 2).await;
    outside.home.done(&["add", "second"]).await;
    let messages = new.reached(1).await;
    assert_eq!(messages[0].json()["data"]["task"]["task_id"], "second");
    daemon.stop().await;
    assert_eq!((old.messages().len(), new.messages().len()), (1, 1));
}

#[tokio::test]
async fn a_callback_is_called_once_its_task_is_archived() {
    let receiver = Receiver::start().await;
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let extra = "[callback]\nsecret = { env = \"NOTIFY_KEY\" }\nallow_private = true\n";
    outside.home.configure(&outside.config("", extra));
    let id = outside.submit(1)[0].to_string();
    let url = receiver.url("/done?key=secret-of-the-caller");
    let line = format!("{{\"task_id\":\"{id}\",\"callback_url\":\"{url}\"}}\n");
    assert_eq!(outside.home.run_with(&["add", "-"], &line).await.code, 0);
    let daemon = outside.home.start().await;
    let messages = receiver.reached(1).await;
    let listed = outside
        .home
        .prints(&["events", "list", "--json"], "\"state\":\"sent\"")
        .await;
    let log = daemon.stop().await;
    assert_eq!(messages[0].path, "/done?key=secret-of-the-caller");
    assert_eq!(messages[0].kind(), "task.archived");
    assert_eq!(messages[0].json()["data"]["task"]["state"], "archived");
    messages[0].verify(NOTIFY_KEY, &Clock::system()).unwrap();
    assert_eq!(receiver.messages().len(), 1);
    for said in [listed, log, outside.home.said()] {
        let said = said.replace(&line, "");
        assert!(!said.contains("secret-of-the-caller"), "{said}");
    }
}

#[tokio::test]
async fn nobody_makes_us_call_an_inside_address() {
    let receiver = Receiver::start().await;
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let port = receiver.url("").rsplit(':').next().unwrap().to_owned();
    let extra = format!(
        "[[notify]]\nwhen = [\"learned\"]\nurl = \"https://127.0.0.1:{port}/\"\nsecret = {{ env = \"NOTIFY_KEY\" }}\n"
    );
    outside.home.configure(&outside.config("", &extra));
    let ids = outside.submit(2);
    let urls = [
        receiver.url("/"),
        format!("https://[::ffff:127.0.0.1]:{port}/"),
    ];
    for (id, url) in ids.iter().zip(urls) {
        let line = format!("{{\"task_id\":\"{id}\",\"callback_url\":\"{url}\"}}\n");
        assert_eq!(outside.home.run_with(&["add", "-"], &line).await.code, 0);
    }
    let daemon = outside.home.start().await;
    daemon.says_times("is not allowed", 4).await;
    daemon.stop().await;
    assert!(receiver.messages().is_empty());
    assert_eq!(receiver.open_max(), 0, "not even connected");
    let bad = outside.home.run_with(
        &["add", "-"],
        "{\"task_id\":\"x\",\"callback_url\":\"file:///etc/passwd\"}\n",
    );
    assert_eq!(bad.await.code, 2);
}

#[tokio::test]
async fn the_heartbeat_beats_while_all_is_well_and_is_silent_otherwise() {
    let receiver = Receiver::start().await;
    let beat = format!(
        "[heartbeat]\nurl = \"{}\"\nevery = \"1s\"\nallow_private = true\n[deadline]\nwarn = \"6h\"\n",
        receiver.url("/ping/secret")
    );
    let log = Log::default();
    let _guard = log.listen();
    let world = world(&beat).await;
    world
        .run_during(async {
            let beats = receiver.reached(3).await;
            assert!(
                beats
                    .iter()
                    .all(|it| it.method == "GET" && it.path == "/ping/secret")
            );
            // A task that does not finish comes within `deadline.warn` of its end.
            world.announce(&strangers(1)).await;
            world.pass(HOUR.times(19.0));
            while !log.lines().iter().any(|it| it.contains("no heartbeat")) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let silent_at = receiver.messages().len();
            // Someone decides that it is no matter: the beat is back.
            let id = &strangers(1)[0];
            let before = world.manifest.commits();
            while world.manifest.commits() < before + 2 {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            assert_eq!(receiver.messages().len(), silent_at);
            assert!(
                world
                    .manifest
                    .forget(&"sim".parse().unwrap(), id)
                    .await
                    .unwrap()
            );
            receiver.reached(silent_at + 1).await;
        })
        .await;
    let lines = log.lines();
    assert!(lines.iter().any(|it| it.contains("at risk")), "{lines:?}");
    assert!(
        !lines.iter().any(|it| it.contains("/ping/secret")),
        "{lines:?}"
    );
}
