//! Tasks that nobody announced: found in the provider's list, however long it is, whatever it does meanwhile.

use std::time::Duration;

use reelvault::model::task::LearnedVia;
use reelvault::model::task::TaskState;
use reelvault::simulator;
use reelvault::simulator::Simulator;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::Call;
use reelvault::simulator::script::Rule;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio_util::sync::CancellationToken;

use crate::gateway::upstream::Upstream;
use crate::gateway::upstream::json;
use crate::process::Outside;
use crate::world::Log;
use crate::world::Plan;
use crate::world::World;
use crate::world::is_final;

/// Rows of a page, as the description of the API asks for.
const PAGE: usize = 50;

const DISCOVER: &str = "discover = true";

fn plan() -> Plan {
    Plan {
        provider: DISCOVER.to_owned(),
        ..Plan::files_of(ByteSize::bytes(64 * 1024))
    }
}

/// Tasks that stay pending, so that all there is to do is to know of them.
fn slow() -> simulator::Config {
    simulator::Config {
        pending: Span::from_secs(36_000),
        ..simulator::Config::at_once()
    }
}

fn submit(simulator: &Simulator, count: usize) {
    for _ in 0..count {
        simulator.submit(Submission::video("seedance-2.0")).unwrap();
    }
}

/// The pages of the list that were asked for, in order.
fn pages(simulator: &Simulator) -> Vec<u32> {
    let page = |target: &str| {
        let query = target.strip_prefix("/v1/tasks?")?;
        query.rsplit_once("page=")?.1.parse().ok()
    };
    let requests = simulator.requests();
    let pages = requests.iter().filter_map(|it| page(&it.target));
    pages.collect()
}

async fn watching(world: &World) -> u64 {
    let tally = world.manifest.tally().await.unwrap();
    tally.tasks_in(TaskState::Watching)
}

#[tokio::test]
async fn tasks_that_nobody_announced_are_archived() {
    let world = World::new(plan()).await;
    submit(&world.simulator, PAGE + 7);
    let all = PAGE + 7;
    let records = world
        .run_until(|records| records.len() == all && records.iter().all(is_final))
        .await;
    world.assert_all_archived(&records);
    assert!(
        records
            .iter()
            .all(|it| it.learned_via == LearnedVia::Discovery)
    );

    // What comes later is found a minute later.
    submit(&world.simulator, 3);
    world.pass(Span::from_secs(120));
    let records = world
        .run_until(|records| records.len() == all + 3 && records.iter().all(is_final))
        .await;
    world.assert_all_archived(&records);
}

#[tokio::test]
async fn what_is_too_old_to_be_alive_is_left_alone_unless_it_is_wanted() {
    let plan = Plan {
        provider: "discover = true\noutput_ttl = \"1h\"".to_owned(),
        ..plan()
    };
    let world = World::new(plan).await;
    submit(&world.simulator, 5);
    world.pass(Span::from_secs(7200));
    let stop = CancellationToken::new();
    tokio::join!(async { world.daemon(&stop).await.unwrap() }, async {
        world.simulator.seen_until(|seen| seen.lists >= 1).await;
        stop.cancel();
    });
    assert!(world.records().await.is_empty());

    let from = "discover = true";
    let world = world
        .reconfigured(from, "discover = true\ndiscover_since = \"2026-01-31\"")
        .await;
    let records = world
        .run_until(|records| records.len() == 5 && records.iter().all(is_final))
        .await;
    world.assert_all_archived(&records);
}

#[tokio::test]
async fn a_daemon_killed_in_a_long_list_goes_on_where_it_was() {
    const PAGES: usize = 24;
    let outside = Outside::new(slow(), "videos").await;
    let config = outside.config("", "");
    let config = config.replace(
        "allow_private = true",
        "allow_private = true\ndiscover = true",
    );
    outside.home.configure(&config);
    submit(&outside.simulator, PAGES * PAGE);
    // Far beyond a step's ten pages the list falls silent, and the daemon is killed while it waits.
    outside
        .simulator
        .plant(Rule::api(ApiFault::Hang).call(Call::List).skip(15));
    let daemon = outside.home.start().await;
    outside.simulator.seen_until(|seen| seen.lists >= 16).await;
    outside.home.hear(&daemon.kill().await);
    let before = pages(&outside.simulator);
    assert_eq!(before, (1..=16).collect::<Vec<u32>>());

    let daemon = outside.home.start().await;
    let all = format!("watching {}", PAGES * PAGE);
    let known = async {
        loop {
            let status = outside.home.done(&["status", "--json"]).await;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            if status["tasks"]["watching"] == PAGES * PAGE {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(Duration::from_mins(1), known)
        .await
        .is_err()
    {
        panic!(
            "not {all}: {}\n{}",
            outside.home.done(&["status"]).await,
            daemon.log()
        );
    }
    let after = pages(&outside.simulator).split_off(before.len());
    assert_eq!(
        after.first(),
        Some(&11),
        "the ten pages of a whole step are not read again"
    );
    daemon.says("the whole list of tasks is read").await;
    outside.home.hear(&daemon.stop().await);
}

#[tokio::test]
async fn a_list_that_moves_while_it_is_read_hides_nothing() {
    let world = World::new(Plan {
        simulator: slow(),
        ..plan()
    })
    .await;
    submit(&world.simulator, 6 * PAGE);
    // Before the fourth page the reader has to wait; meanwhile rows of pages that it has read go, so that as many slip
    // forward from those that it has not, and new tasks come.
    let wait = ApiFault::TooMany(Some(Span::from_secs(2)));
    world
        .simulator
        .plant(Rule::api(wait).call(Call::List).skip(3));
    let newest: Vec<_> = world.simulator.tasks().into_iter().rev().take(60).collect();
    let log = Log::default();
    let _guards = log.listen();
    let stop = CancellationToken::new();
    let move_list = async {
        world.simulator.seen_until(|seen| seen.lists >= 4).await;
        for task in newest.iter().take(40) {
            assert!(world.simulator.unlist(task));
        }
        submit(&world.simulator, 10);
        let all = u64::try_from(6 * PAGE + 10).unwrap();
        let known = async {
            while watching(&world).await < all {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let known = tokio::time::timeout(Duration::from_secs(30), known).await;
        stop.cancel();
        known
    };
    let (ran, known) = tokio::join!(world.daemon(&stop), move_list);
    ran.unwrap();
    let known = known.is_ok();
    assert!(
        known,
        "{} known:\n{}",
        watching(&world).await,
        log.lines().join("\n")
    );
    // A row that slipped was on no page of the first round: the list was read again.
    let rounds = pages(&world.simulator)
        .iter()
        .filter(|page| **page == 1)
        .count();
    assert!(rounds >= 2, "{:?}", pages(&world.simulator));
}

#[tokio::test]
async fn where_there_is_no_list_that_is_said_once_and_the_rest_goes_on() {
    let world = World::new(Plan {
        simulator: simulator::Config {
            has_list: false,
            ..simulator::Config::at_once()
        },
        ..plan()
    })
    .await;
    let log = Log::default();
    let _guards = log.listen();
    world.submit(2).await;
    for _ in 0..2 {
        let records = world.run_to_the_end().await;
        world.assert_all_archived(&records);
    }
    let said = || {
        let lines = log.lines();
        let said = lines
            .iter()
            .filter(|line| line.contains("the API has no list"));
        said.count()
    };
    assert_eq!(said(), 1, "{:#?}", log.lines());
    assert_eq!(pages(&world.simulator), [1]);

    world.pass(Span::from_secs(90_000));
    let stop = CancellationToken::new();
    tokio::join!(async { world.daemon(&stop).await.unwrap() }, async {
        let asked = async {
            while pages(&world.simulator).len() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let asked = tokio::time::timeout(Duration::from_secs(30), asked).await;
        stop.cancel();
        asked.unwrap();
    });
    assert_eq!(said(), 1, "it is no news");
}

#[tokio::test]
async fn a_list_that_ignores_the_page_is_read_a_few_times_and_said_once() {
    let row = |n: usize| format!("{{\"id\":\"t-{n}\",\"status\":\"processing\"}}");
    let rows: Vec<String> = (0..PAGE).map(row).collect();
    let list = format!("{{\"data\":[{}]}}", rows.join(","));
    let upstream = Upstream::new(move |received| {
        let is_list = received.line.contains(" /v1/tasks?");
        json("200 OK", if is_list { &list } else { "{}" })
    })
    .await;
    let mut plan = Plan::files_of(ByteSize::bytes(64 * 1024));
    plan.extra.push_str(&format!(
        "[provider.raw]\nkind = \"evolink\"\nbase_url = \"{}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
         allow_private = true\ndiscover = true\n",
        upstream.url
    ));
    let world = World::new(plan).await;
    let log = Log::default();
    let _guards = log.listen();
    let stop = CancellationToken::new();
    let said = |what: &str| {
        let lines = log.lines();
        lines.iter().filter(|line| line.contains(what)).count()
    };
    tokio::join!(async { world.daemon(&stop).await.unwrap() }, async {
        let read = async {
            while said("the whole list of tasks is read") == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        stop.cancel();
        read.unwrap_or_else(|_| panic!("{:#?}", log.lines()));
    });
    let received = upstream.received();
    let lists = received.iter().filter(|it| it.line.contains(" /v1/tasks?"));
    // Four pages in the round that learns, as many in the one that looks whether rows have moved.
    assert_eq!(lists.count(), 8);
    assert_eq!(said("the list of tasks repeats itself"), 1);
}

#[tokio::test]
async fn trouble_with_the_list_is_waited_out() {
    let world = World::new(plan()).await;
    submit(&world.simulator, 2 * PAGE);
    for fault in [ApiFault::Internal, ApiFault::Html] {
        world
            .simulator
            .plant(Rule::api(fault).call(Call::List).skip(1));
    }
    let records = world
        .run_until(|records| records.len() == 2 * PAGE && records.iter().all(is_final))
        .await;
    world.assert_all_archived(&records);
    // The page that failed is asked for again, and not the one before it.
    assert_eq!(pages(&world.simulator)[..3], [1, 2, 2]);
}

#[tokio::test]
async fn a_page_that_is_refused_where_it_was_is_left_and_the_list_read_anew() {
    let fronts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let read = std::sync::Arc::clone(&fronts);
    let upstream = Upstream::new(move |received| {
        use std::sync::atomic::Ordering::Relaxed;
        if !received.line.contains(" /v1/videos?") {
            return json("200 OK", "{}");
        }
        if received.line.contains("after=t-1") {
            let refused = "{\"error\":{\"code\":\"invalid_cursor\"}}";
            return json("400 Bad Request", refused);
        }
        match read.fetch_add(1, Relaxed) {
            0 => json("200 OK", "{\"data\":[{\"id\":\"t-1\"}]}"),
            _ => json("200 OK", "{\"data\":[{\"id\":\"t-2\"},{\"id\":\"t-1\"}]}"),
        }
    })
    .await;
    let mut plan = Plan::files_of(ByteSize::bytes(64 * 1024));
    plan.extra.push_str(&format!(
        "[provider.raw]\nkind = \"openai\"\nbase_url = \"{}\"\napi_key = {{ env = \"SIM_KEY\" }}\n\
         allow_private = true\ndiscover = true\n",
        upstream.url
    ));
    let world = World::new(plan).await;
    let known = async {
        while world.records().await.len() < 2 {
            world.pass(Span::from_secs(1));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    world.run_during(known).await;
    let received = upstream.received();
    let refused = received.iter().filter(|it| it.line.contains("after=t-1"));
    assert!(refused.count() >= 3, "once may be the server's trouble");
}
