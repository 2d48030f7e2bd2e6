//! `/metrics` over the real server: what it says after real work, of a manifest that hangs, and of a fleet.

mod exposition;
mod shipped;

use std::collections::BTreeSet;
use std::time::Duration;

use reelvault::model::task::TaskId;
use reelvault::telemetry::metrics::CONTENT_TYPE;
use reelvault::telemetry::metrics::names;
use reelvault::telemetry::metrics::names::Kind;
use reelvault::units::ByteSize;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::NoTls;

use self::exposition::Exposition;
use crate::api::Caller;
use crate::api::with_caller;
use crate::postgres::fleet;
use crate::postgres::server::Server;
use crate::world::Plan;
use crate::world::World;

/// Labels that name what somebody configured or what the code knows, and so have few values.
const LABELS: [&str; 9] = [
    "destination",
    "le",
    "machine",
    "operation",
    "outcome",
    "provider",
    "stage",
    "state",
    "version",
];

pub(crate) async fn scrape(caller: &Caller) -> Exposition {
    let answer = caller.get("/metrics").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(CONTENT_TYPE));
    Exposition::read(&answer.body)
}

/// Announces so many tasks and waits until each has ended.
async fn archive(world: &World, caller: &Caller, count: usize) -> Vec<TaskId> {
    let submission = || reelvault::simulator::tasks::Submission::video("seedance-2.0");
    let submit = || world.simulator.submit(submission()).unwrap();
    let ids: Vec<TaskId> = (0..count).map(|_| submit()).collect();
    let tasks: Vec<_> = ids.iter().map(|id| json!({ "task_id": id })).collect();
    let answer = caller.post("/api/v1/tasks", &json!(tasks)).await;
    assert!(answer.status < 300, "{answer:?}");
    for id in &ids {
        assert_eq!(caller.ended(id).await["state"], "archived");
    }
    ids
}

#[tokio::test]
async fn what_was_archived_is_counted_and_no_task_is_named() {
    let world = World::new(Plan::files_of(ByteSize::mib(1))).await;
    with_caller(&world, async |caller| {
        let ids = archive(&world, caller, 3).await;
        let answer = caller.get("/metrics").await;
        let told = Exposition::read(&answer.body);
        let main = ("destination", "main");
        let sim = ("provider", "sim");
        for (name, labels, value) in [
            ("assets", &[("state", "archived")] as &[_], 3.0),
            ("assets", &[("state", "lost")], 0.0),
            ("tasks", &[("state", "completed")], 3.0),
            ("archive_delay_seconds_count", &[sim], 3.0),
            ("deadline_margin_seconds_count", &[sim], 3.0),
            ("archived_bytes_total", &[main], 3.0 * 1024.0 * 1024.0),
            ("assets_lost_total", &[sim], 0.0),
            ("transfers_active", &[main], 0.0),
            ("buffer_bytes", &[], 0.0),
            ("uploads_orphaned", &[], 0.0),
            ("deadline_next_seconds", &[], f64::INFINITY),
            ("backlog_bytes", &[], 0.0),
            ("backlog_drain_seconds", &[], 0.0),
            ("manifest_answers", &[], 1.0),
            ("destination_closed", &[main], 0.0),
            ("provider_refused", &[sim], 0.0),
        ] {
            told.assert(&format!("reelvault_{name}"), labels, value);
        }
        let looks = told.value(
            "reelvault_provider_requests_total",
            &[sim, ("outcome", "ok")],
        );
        assert!(looks >= 1.0);
        let put = [main, ("operation", "put"), ("outcome", "ok")];
        told.assert("reelvault_destination_requests_total", &put, 3.0);
        let turns = told.value("reelvault_stage_turns_total", &[("stage", "archive")]);
        assert!(turns >= 1.0);
        let margin = told.value("reelvault_deadline_margin_seconds_sum", &[sim]);
        assert!(margin > 3.0 * 3600.0, "a day each, and not {margin}");

        let names: BTreeSet<String> = told.labels().into_iter().map(|(name, _)| name).collect();
        assert!(names.iter().all(|name| LABELS.contains(&name.as_str())));
        for id in ids {
            assert!(!answer.body.contains(id.as_str()));
        }
        // Ten times the tasks make no more series.
        let before = told.count();
        archive(&world, caller, 30).await;
        let after = scrape(caller).await;
        after.assert("reelvault_archive_delay_seconds_count", &[sim], 33.0);
        assert!(after.count() <= before + 4, "{before}, {}", after.count());
    })
    .await;
}

#[tokio::test]
async fn two_daemons_in_one_process_share_nothing() {
    let (one, other) = tokio::join!(
        World::new(Plan::files_of(ByteSize::mib(1))),
        World::new(Plan::files_of(ByteSize::mib(1)))
    );
    with_caller(&one, async |first| {
        archive(&one, first, 1).await;
        with_caller(&other, async |second| {
            let name = "reelvault_archived_bytes_total";
            assert!(scrape(first).await.sum(name) > 0.0);
            let told = scrape(second).await;
            assert!(told.sum(name) == 0.0);
            told.assert("reelvault_assets", &[("state", "archived")], 0.0);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_lost_asset_is_a_step_of_a_counter() {
    let world = World::new(Plan::lost()).await;
    with_caller(&world, async |caller| {
        world.submit(1).await;
        let id = world.simulator.tasks().remove(0);
        assert_eq!(caller.ended(&id).await["state"], "lost");
        let told = scrape(caller).await;
        told.assert("reelvault_assets_lost_total", &[("provider", "sim")], 1.0);
        assert!(told.sum("reelvault_archived_bytes_total") == 0.0);
    })
    .await;
}

#[tokio::test]
async fn the_token_is_asked_for_as_everywhere() {
    let mut plan = Plan::files_of(ByteSize::mib(1));
    plan.extra
        .push_str("[server]\ntoken = { env = \"SIM_KEY\" }\n");
    let world = World::new(plan).await;
    with_caller(&world, async |caller| {
        caller.get("/metrics").await.assert_problem(401);
        let bearer = "Authorization: Bearer sk-canary-provider\r\n";
        let answer = caller.ask("GET", "/metrics", bearer, "").await;
        assert_eq!(answer.status, 200);
        Exposition::read(&answer.body);
    })
    .await;
}

#[tokio::test]
async fn a_manifest_that_hangs_costs_a_scrape_two_seconds_and_is_told() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    let daemon = outside.home.start().await;
    let log = daemon.says("listening on ").await;
    let (_, rest) = log.split_once("listening on ").unwrap();
    let caller = Caller::at(rest.split_whitespace().next().unwrap());

    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let mut talking = JoinSet::new();
    talking.spawn(connection);
    let lock = "BEGIN; LOCK TABLE tasks IN ACCESS EXCLUSIVE MODE";
    client.batch_execute(lock).await.unwrap();
    let begun = Instant::now();
    let told = scrape(&caller).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "not in its time");
    told.assert("reelvault_manifest_answers", &[], 0.0);
    told.assert("reelvault_manifest_age_seconds", &[], f64::INFINITY);
    assert!(
        told.find("reelvault_tasks", &[("state", "watching")])
            .is_none()
    );
    let page = caller.get("/").await;
    assert_eq!(page.status, 200);
    assert!(
        page.body.contains("the manifest does not answer"),
        "{page:?}"
    );
    client.batch_execute("ROLLBACK").await.unwrap();

    let answers = async {
        loop {
            let told = scrape(&caller).await;
            if told.value("reelvault_manifest_answers", &[]) > 0.0 {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let told = tokio::time::timeout(Duration::from_mins(1), answers);
    let told = told.await.expect("it answers again");
    assert!(told.value("reelvault_manifest_age_seconds", &[]) < 60.0);
    let page = caller.get("/").await.body;
    assert!(
        page.contains("<td>one<td>") && page.contains(">living<"),
        "{page}"
    );
    told.assert("reelvault_machines", &[("state", "living")], 1.0);
    told.assert("reelvault_machine_living", &[("machine", "one")], 1.0);
    outside.home.hear(&daemon.stop().await);
}

#[test]
fn every_metric_is_in_the_documentation_and_nothing_else() {
    let table = include_str!("../../config/metrics.md");
    let told: Vec<(String, String, String)> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(". |"))
        .map(|line| {
            let (name, rest) = line.split_once("` | ").unwrap();
            let cells: Vec<&str> = rest.splitn(3, " | ").collect();
            (name.to_owned(), cells[0].to_owned(), cells[2].to_owned())
        })
        .collect();
    let kind = |kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let declared: Vec<(String, String, String)> = names::ALL
        .iter()
        .map(|it| (it.in_full(), kind(it.kind).to_owned(), it.help.to_owned()))
        .collect();
    assert_eq!(told, declared);
}
