//! What is particular to Postgres: every statement prepared, the schema's words, several machines at once.

use super::Kind;
use super::Postgres;
use super::claims;
use super::migrate;
use super::server::Server;
use super::statement::Named;
use super::statement::Param;
use crate::manifest::Access;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::conformance::conformance;
use crate::manifest::conformance::statements;
use crate::manifest::conformance::world::World;
use crate::manifest::conformance::world::key;
use crate::manifest::conformance::world::proof;
use crate::manifest::engine::Engine;
use crate::manifest::machines::GONE_AFTER;
use crate::manifest::postgres::Time;
use crate::manifest::row::machine::Arrival;
use crate::manifest::row::machine::Arrived;
use crate::manifest::row::*;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::deadline::DeadlineSource;
use crate::model::event::DeliveryState;
use crate::model::event::EventKind;
use crate::model::object::ObjectState;
use crate::model::object::Verified;
use crate::model::task::LearnedVia;
use crate::model::task::TaskState;
use crate::units::Span;

mod prepared {
    use super::*;
    conformance!(World::postgres(false));
}

mod behind_a_pooler {
    use super::*;
    conformance!(World::postgres(true));
}

fn postgres(manifest: &Manifest) -> &Postgres {
    match &manifest.engine {
        Engine::Postgres(engine) => engine,
        Engine::Sqlite(_) => panic!("a world on Postgres"),
    }
}

/// A second machine on the same database, with the same clock.
async fn beside(world: &World) -> Manifest {
    let time = Time::Handed(world.clock.clone());
    Manifest::open_shared(&world.config, Access::Daemon, time)
        .await
        .unwrap()
}

#[tokio::test]
async fn every_statement_is_prepared() {
    let world = World::postgres(false).await;
    let mut all = statements::of("postgres");
    for table in Claimable::ALL {
        all.push(claims::renewal(table).to_owned());
        all.push(claims::next_due_of(table).to_owned());
        all.push(claims::pull_in_of(table).to_owned());
        all.push(claims::release_of(table).to_owned());
    }
    assert!(all.len() > 80, "found {} statements only", all.len());
    let handed = postgres(&world.manifest);
    let of_server = Manifest::open_shared(&world.config, Access::Daemon, Time::Server).await;
    let of_server = of_server.unwrap();
    for engine in [handed, postgres(&of_server)] {
        let client = engine.pool.get().await.unwrap();
        for sql in &all {
            let names = statements::names(sql).into_iter();
            let params: Vec<Named> = names
                .map(|name| (&*String::leak(name), Param::Null))
                .collect();
            let bound = engine.bind(sql, &params).unwrap();
            if let Err(error) = client.prepare(&bound.text).await {
                panic!("{error:?} in {}", bound.text);
            }
        }
    }
}

#[tokio::test]
async fn the_schema_names_every_state_and_no_other() {
    let schema = migrate::MIGRATIONS.concat();
    let check = |table: &str, column: &str, words: Vec<&str>| {
        let from = schema.find(&format!("CREATE TABLE {table} (")).unwrap();
        let sql = &schema[from..];
        let sql = &sql[..sql.find("\n);").unwrap()];
        let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        let expected = format!("CHECK ({column} IN ({}))", words.join(", "));
        assert!(sql.contains(&expected), "{table} lacks {expected}");
    };
    macro_rules! words {
        ($states:ty) => {
            <$states>::ALL.iter().map(|state| state.as_str()).collect()
        };
    }
    check("tasks", "state", words!(TaskState));
    check("tasks", "learned_via", words!(LearnedVia));
    check("tasks", "deadline_from", words!(DeadlineSource));
    check("assets", "state", words!(AssetState));
    check("assets", "role", words!(AssetRole));
    check("assets", "deadline_from", words!(DeadlineSource));
    check("objects", "state", words!(ObjectState));
    check("objects", "verified", words!(Verified));
    check("events", "kind", words!(EventKind));
    check("deliveries", "state", words!(DeliveryState));
}

#[tokio::test]
async fn an_older_server_is_told() {
    for (version, is_refused) in [(130_011, true), (140_000, false), (180_001, false)] {
        let checked = migrate::check_server(version);
        assert_eq!(checked.is_err(), is_refused, "{version}: {checked:?}");
    }
}

#[tokio::test]
async fn an_encoding_without_all_characters_is_refused() {
    let server = Server::shared();
    for (encoding, is_refused) in [("LATIN1", true), ("SQL_ASCII", false)] {
        let database = server.database_in(encoding);
        let config = Config {
            url: database.url.clone(),
            ..Config::of_tests()
        };
        for access in [Access::Daemon, Access::Writer, Access::Reader] {
            let opened = Manifest::open_shared(&config, access, Time::Server).await;
            if !is_refused {
                let manifest = opened.unwrap();
                let learned = manifest.hear(&key("a")).await;
                assert!(access == Access::Reader || learned.is_ok(), "{learned:?}");
                manifest.close().await;
                continue;
            }
            assert!(
                matches!(&opened, Err(ManifestError::Encoding { found, .. }) if found == encoding),
                "{access:?}: {opened:?}"
            );
        }
        let made = "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'";
        let is_empty = server.sql(&database.name, made) == "0\n";
        assert_eq!(is_empty, is_refused);
    }
}

#[tokio::test]
async fn every_table_of_a_manifest_is_looked_for_in_anothers_database() {
    let schema = migrate::MIGRATIONS.concat();
    let made = schema.split("CREATE TABLE ").skip(1);
    let mut made: Vec<&str> = made
        .filter_map(|rest| rest.split([' ', '(']).next())
        .collect();
    let mut known = migrate::tables();
    made.sort_unstable();
    known.sort_unstable();
    assert_eq!(made, known);
}

#[tokio::test]
async fn another_programs_tables_are_in_the_way_only_by_their_names() {
    let server = Server::shared();
    let database = server.database();
    let config = Config {
        url: database.url.clone(),
        ..Config::of_tests()
    };
    let open = || Manifest::open_shared(&config, Access::Daemon, Time::Server);
    let name = &database.name;
    server.sql(name, "CREATE TABLE customers (id INTEGER); CREATE VIEW pulse AS SELECT 1 AS id; CREATE TABLE events (id INTEGER)");
    let refused = open().await;
    assert!(
        matches!(&refused, Err(ManifestError::InTheWay { names, .. }) if names == "events, pulse"),
        "{refused:?}"
    );
    // A schema of its own is enough, and so is one without such names.
    server.sql(
        name,
        "CREATE SCHEMA other; ALTER TABLE events SET SCHEMA other; DROP VIEW pulse",
    );
    let manifest = open().await.unwrap();
    manifest.close().await;
    let again = open().await.unwrap();
    again.close().await;
}

#[tokio::test]
async fn what_keeps_a_daemon_from_writing_is_seen_without_writing() {
    let server = Server::shared();
    let world = World::postgres(false).await;
    let database = world
        .config
        .url
        .split(['/', '?'])
        .nth(3)
        .unwrap()
        .to_owned();
    let role = format!("{database}_reader");
    let as_role = Config {
        url: world.config.url.replace("reelvault@", &format!("{role}@")),
        ..world.config.clone()
    };
    let check = async |config: &Config| Manifest::check_writable(config).await;
    check(&world.config).await.unwrap();
    let grant =
        format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}");
    server.sql(&database, &grant);
    let denied = check(&as_role).await;
    assert!(
        matches!(&denied, Err(ManifestError::Denied { what, .. }) if what.contains("tasks")),
        "{denied:?}"
    );
    let empty = server.database();
    let nothing = Config {
        url: empty.url.clone(),
        ..world.config.clone()
    };
    check(&nothing).await.unwrap();
    let nothing = Config {
        url: empty.url.replace("reelvault@", &format!("{role}@")),
        ..world.config.clone()
    };
    server.sql(&empty.name, "REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let denied = check(&nothing).await;
    assert!(
        matches!(&denied, Err(ManifestError::Denied { what, .. }) if what.contains("no tables")),
        "{denied:?}"
    );
    let drop_role = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    server.sql(&database, &drop_role);
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    server.sql("postgres", &read_only);
    let standby = check(&world.config).await;
    assert!(
        matches!(standby, Err(ManifestError::Standby { .. })),
        "{standby:?}"
    );
}

#[tokio::test]
async fn words_with_zero_bytes_are_written_without_them() {
    for pooler in [false, true] {
        let world = World::postgres(pooler).await;
        world.learn("a").await;
        let claimed = world.claim_task().await;
        let settlement = TaskSettlement {
            state: TaskState::Watching,
            next_look_at: Some(world.after(1)),
            error: Some("no\0good".to_owned()),
            is_attempt: true,
            is_miss: false,
        };
        let settled = world.manifest.settle_task(&claimed.lease, settlement);
        settled.await.unwrap();
        let error = world.record("a").await.error;
        assert_eq!(error.as_deref(), Some("no\u{fffd}good"));
    }
}

#[tokio::test]
async fn many_machines_claim_each_row_once() {
    const TASKS: usize = 300;
    let world = World::postgres(false).await;
    let names = (0..TASKS).map(|number| world.task(&format!("t{number}")));
    world.manifest.learn(names.collect()).await.unwrap();
    let mut machines = Vec::new();
    for _ in 0..4 {
        machines.push(beside(&world).await);
    }
    let claim_all = async |manifest: &Manifest| {
        let mut ids = Vec::new();
        loop {
            let claimed = manifest.claim_tasks(7, &[]).await.unwrap();
            if claimed.is_empty() {
                return ids;
            }
            assert!(claimed.iter().all(|task| task.lease.token.0 == 1));
            ids.extend(claimed.into_iter().map(|task| task.lease.row));
        }
    };
    let claimed = futures::future::join_all(machines.iter().map(claim_all)).await;
    let mut ids = claimed.concat();
    ids.sort_unstable();
    let unique = ids.len();
    ids.dedup();
    assert_eq!((ids.len(), unique), (TASKS, TASKS));
}

#[tokio::test]
async fn the_last_two_assets_of_a_task_archived_at_once_tell_that_it_is_archived_once() {
    for round in 0..8 {
        let world = World::postgres(false).await;
        let other = beside(&world).await;
        world.complete("pair", &["a", "b"]).await;
        let assets = world.manifest.claim_assets(2).await.unwrap();
        for (place, asset) in assets.iter().enumerate() {
            for object in 0..2 {
                world
                    .name(asset, object, &format!("{round}/{place}/{object}"))
                    .await;
            }
        }
        let archive = async |manifest: &Manifest, asset: &ClaimedAsset| {
            for object in &asset.objects {
                let proof = proof();
                let proven = manifest.mark_archived(&asset.lease, object.row, &proof);
                proven.await.unwrap();
            }
        };
        tokio::join!(
            archive(&world.manifest, &assets[0]),
            archive(&other, &assets[1])
        );
        let filter = event::EventFilter {
            kind: Some(EventKind::Archived),
            ..event::EventFilter::default()
        };
        let told = world.manifest.events(&filter, 10).await.unwrap();
        assert_eq!(told.len(), 1);
    }
}

#[tokio::test]
async fn two_machines_that_learn_the_same_in_other_orders_both_end() {
    let world = World::postgres(false).await;
    let other = beside(&world).await;
    for round in 0..10 {
        let task = |number: usize| world.task(&format!("{round}-{number}"));
        let forth: Vec<NewTask> = (0..50).map(task).collect();
        let back: Vec<NewTask> = (0..50).rev().map(task).collect();
        let (one, two) = tokio::join!(world.manifest.learn(forth), other.learn(back));
        let outcomes = [one.unwrap(), two.unwrap()].concat();
        let new = outcomes.iter().filter(|it| **it == Learned::New).count();
        assert_eq!(new, 50);
    }
}

#[tokio::test]
async fn a_verb_that_is_cut_off_leaves_nothing_behind() {
    let world = World::postgres(false).await;
    let config = Config {
        connections: 2,
        ..world.config.clone()
    };
    let time = Time::Handed(world.clock.clone());
    let manifest = Manifest::open_shared(&config, Access::Daemon, time)
        .await
        .unwrap();
    for _ in 0..8 {
        let engine = postgres(&manifest);
        let held = engine.hold(Kind::Write).await.unwrap();
        let learned = super::tasks::learn(&held.tx(), &[world.task("half")]).await;
        assert_eq!(learned.unwrap(), [Learned::New]);
        drop(held);
    }
    let learned = manifest.learn(vec![world.task("half")]).await.unwrap();
    assert_eq!(learned, [Learned::New], "it was undone");
}

#[tokio::test]
async fn counts_of_sessions_that_are_gone_are_put_together() {
    let server = Server::shared();
    let world = World::postgres(false).await;
    world.learn("a").await;
    let gone = "INSERT INTO counts (kind, state, session, rows) SELECT 'tasks', 'watching', -n, 1
        FROM generate_series(1, 600) AS n";
    let database = world.config.url.split(['/', '?']).nth(3).unwrap();
    server.sql(database, gone);
    let watching = async || {
        let tally = world.manifest.tally().await.unwrap();
        tally.tasks_in(TaskState::Watching)
    };
    assert_eq!(watching().await, 601);
    for _ in 0..2 {
        world.manifest.free_held(&[]).await.unwrap();
        world.learn(&watching().await.to_string()).await;
    }
    assert_eq!(watching().await, 603);
    let left = server.sql(database, "SELECT COUNT(*) FROM counts");
    assert!(left.trim().parse::<u32>().unwrap() < 10, "{left}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_used_again() {
    let server = Server::own();
    let database = server.database();
    let config = Config {
        url: database.url.clone(),
        notify: true,
        ..Config::of_tests()
    };
    let open = || Manifest::open_shared(&config, Access::Daemon, Time::Server);
    let (manifest, other) = (open().await.unwrap(), open().await.unwrap());
    let mut heard = manifest.heard();
    server.stop();
    let away = manifest.tally().await;
    assert!(matches!(away, Err(ManifestError::Away { .. })), "{away:?}");
    let away = open().await;
    assert!(matches!(away, Err(ManifestError::Away { .. })), "{away:?}");
    server.start();
    manifest.tally().await.unwrap();
    assert_eq!(
        server.sql(&database.name, "SELECT COUNT(*) FROM tasks"),
        "0\n"
    );
    // The listener is back by itself, and hears what another machine makes.
    heard.changed().await.unwrap();
    heard.mark_unchanged();
    let hear = async {
        let link = key("nobody");
        loop {
            other.hear(&link).await.unwrap();
            let waited = std::time::Duration::from_millis(100);
            if tokio::time::timeout(waited, heard.changed()).await.is_ok() {
                return;
            }
        }
    };
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, hear).await.unwrap();
}

/// Says that a machine is there, and sees to those that are not.
async fn beats(manifest: &Manifest, arrival: &Arrival) {
    let gone = manifest.beat(arrival).await.unwrap();
    manifest.free_held(&gone.unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_machine_that_held_very_much_arrives_again() {
    let world = World::postgres(false).await;
    let arrival = |run: &str| Arrival {
        name: "here".to_owned(),
        run: run.to_owned(),
        version: "1".to_owned(),
    };
    world.manifest.arrive(&arrival("1")).await.unwrap();
    world.learn("a").await;
    let client = postgres(&world.manifest).pool.get().await.unwrap();
    // More than one statement should write.
    let held = "INSERT INTO tasks (provider, task_id, state, tags, learned_at, learned_via, deadline_at, deadline_from,
            next_look_at, lease_owner, lease_expires_at)
        SELECT provider, 'b' || number, state, tags, learned_at, learned_via, deadline_at, deadline_from,
            next_look_at, 'here/1', 9000000000000
        FROM tasks, generate_series(1, 20100) AS number";
    client.batch_execute(held).await.unwrap();
    client.batch_execute("ANALYZE tasks").await.unwrap();
    let held = async || {
        let count = "SELECT COUNT(*) FROM tasks WHERE lease_expires_at IS NOT NULL";
        client.query_one(count, &[]).await.unwrap().get::<_, i64>(0)
    };
    // It came back after it had been missed.
    let gone = ["here".to_owned()];
    world.manifest.free_held(&gone).await.unwrap();
    assert_eq!(held().await, 20_100);
    // A beat of another does a part of it, an arrival all.
    world.advance(16);
    world.manifest.free_held(&gone).await.unwrap();
    assert_eq!(held().await, 10_100);
    world.manifest.arrive(&arrival("1")).await.unwrap();
    assert_eq!(held().await, 0);
}

#[tokio::test]
async fn a_url_with_options_keeps_the_bounds() {
    let world = World::postgres(false).await;
    let shown = async |options: &str, name: &str| {
        let join = if world.config.url.contains('?') {
            '&'
        } else {
            '?'
        };
        let config = Config {
            url: format!("{}{join}options={options}", world.config.url),
            ..world.config.clone()
        };
        let manifest = Manifest::open_shared(&config, Access::Daemon, Time::Server).await;
        let manifest = manifest.unwrap();
        let client = postgres(&manifest).pool.get().await.unwrap();
        let row = client.query_one(&format!("SHOW {name}"), &[]).await;
        row.unwrap().get::<_, String>(0)
    };
    let path = "-csearch_path%3Dpublic";
    assert_eq!(shown(path, "search_path").await, "public");
    assert_eq!(shown(path, "statement_timeout").await, "8s");
    assert_eq!(
        shown("-cstatement_timeout%3D3s", "statement_timeout").await,
        "3s"
    );
}

#[tokio::test]
async fn what_a_machine_held_that_is_gone_or_starts_anew_is_free() {
    let world = World::postgres(false).await;
    let time = Time::Handed(world.clock.clone());
    let config = Config {
        machine: "other".to_owned(),
        ..world.config.clone()
    };
    let other = Manifest::open_shared(&config, Access::Daemon, time).await;
    let other = other.unwrap();
    let arrival = |name: &str, run: &str| Arrival {
        name: name.to_owned(),
        run: run.to_owned(),
        version: "1".to_owned(),
    };
    let (here, there) = (arrival("here", "1"), arrival("other", "1"));
    for (manifest, arrival) in [(&world.manifest, &here), (&other, &there)] {
        assert_eq!(manifest.arrive(arrival).await.unwrap(), Arrived::Yes);
    }
    let hold = Span::from_secs(600);
    let held = async |manifest: &Manifest| {
        let held = manifest.hold_tasks(10, &[], hold).await.unwrap();
        held.into_iter().map(|task| task.lease).next()
    };
    world.learn("a").await;
    let lease = held(&other).await.unwrap();

    // While it is heard of, what it holds is its own.
    world.advance(GONE_AFTER.as_duration().as_secs());
    beats(&other, &there).await;
    beats(&world.manifest, &here).await;
    assert_eq!(held(&world.manifest).await, None);
    // Once it is not, the others see to that; not whoever was out of touch for as long.
    world.advance(GONE_AFTER.as_duration().as_secs() + 1);
    beats(&world.manifest, &here).await;
    assert_eq!(held(&world.manifest).await, None);
    world.advance(3);
    beats(&world.manifest, &here).await;
    let taken = held(&world.manifest).await.unwrap();
    assert!(taken.token > lease.token);
    let late = other.observe(&lease, world.running()).await;
    assert!(matches!(late, Err(ManifestError::Stale { .. })), "{late:?}");

    // The one that lives starts anew under its name: what it held before is free, and nobody else's.
    world.learn("b").await;
    beats(&other, &there).await;
    let kept = held(&other).await.unwrap();
    assert_eq!(world.manifest.arrive(&here).await.unwrap(), Arrived::Yes);
    let again = held(&world.manifest).await.unwrap();
    assert_eq!(again.row, taken.row);
    assert!(again.token > taken.token);
    other.observe(&kept, world.running()).await.unwrap();
}
