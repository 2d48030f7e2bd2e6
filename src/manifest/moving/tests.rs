//! Moves there and back, of manifests in which every table has rows: nothing is lost, and nothing half is ever used.

mod breaking;
mod filling;
mod meeting;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use rusqlite::types::Value;
use tokio::sync::Notify;

use self::breaking::break_off;
use self::breaking::is_unfinished;
use self::filling::fill;
use super::*;
use crate::clock::Clock;
use crate::manifest::Access;
use crate::manifest::Manifest;
use crate::manifest::conformance::world::*;
use crate::manifest::postgres::server::Database;
use crate::manifest::postgres::server::Server;
use crate::manifest::row::event::*;
use crate::manifest::row::machine::Arrival;
use crate::manifest::row::*;

/// An empty database.
struct Place {
    config: Config,
    database: Database,
    server: Server,
}

fn place() -> Place {
    let server = Server::shared();
    let database = server.database();
    Place {
        config: Config {
            url: database.url.clone(),
            ..Config::of_tests()
        },
        database,
        server,
    }
}

fn file_in(folder: &tempfile::TempDir, name: &str) -> Config {
    Config {
        url: format!("sqlite:{}", folder.path().join(name).display()),
        ..Config::of_tests()
    }
}

/// Every row of a file as it is, but for leases, and the last IDs that were given.
fn dump(config: &Config) -> Vec<String> {
    let path = Manifest::path(config).unwrap();
    let db = rusqlite::Connection::open(path).unwrap();
    let mut lines = Vec::new();
    for table in TABLES
        .iter()
        .map(|table| table.name)
        .chain(["sqlite_sequence"])
    {
        let mut statement = db
            .prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
            .unwrap();
        let names = statement.column_names().map(str::to_owned);
        let names: Vec<String> = names.collect();
        let mut rows = statement.query([]).unwrap();
        let before = lines.len();
        while let Some(row) = rows.next().unwrap() {
            let mut line = table.to_owned();
            for (place, name) in names.iter().enumerate() {
                let is_lease = ["lease_owner", "lease_expires_at"].contains(&name.as_str());
                let value: Value = row.get(place).unwrap();
                if !is_lease && value != Value::Null {
                    write!(line, " {name}={value:?}").unwrap();
                }
            }
            lines.push(line);
        }
        assert!(lines.len() > before, "{table} is empty: nothing is tested");
    }
    lines
}

/// What people see of a manifest.
async fn seen(config: &Config) -> String {
    let clock = Clock::system();
    let manifest = Manifest::open(config, clock, Access::Reader).await.unwrap();
    let tasks = manifest.tasks(&TaskFilter::default(), 10_000).await;
    let events = manifest.events(&EventFilter::default(), 10_000).await;
    let troubles = manifest.endpoint_troubles().await;
    let tally = manifest.tally().await;
    let seen = format!("{tasks:#?} {events:#?} {troubles:#?} {tally:#?}");
    manifest.close().await;
    seen
}

async fn move_all(from: &Config, to: &Config) -> Moved {
    migrate(from, to, |_| {}).await.unwrap()
}

#[track_caller]
fn assert_same(one: &[String], other: &[String]) {
    let differing = one.iter().zip(other).find(|(one, other)| one != other);
    assert_eq!(differing, None);
    assert_eq!(one.len(), other.len());
}

#[tokio::test]
async fn everything_comes_over_and_back() {
    let world = World::sqlite(false).await;
    fill(&world).await;
    world.manifest.close().await;
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    let before = dump(&world.config);
    let looked = look(&world.config, &there.config).await.unwrap();
    let moved = move_all(&world.config, &there.config).await;
    assert_eq!(looked, moved);
    assert_eq!(seen(&world.config).await, seen(&there.config).await);
    assert_same(&before, &dump(&world.config));

    assert_eq!(look(&there.config, &back).await.unwrap(), moved);
    assert!(!Manifest::path(&back).unwrap().exists(), "only looked");
    assert_eq!(move_all(&there.config, &back).await, moved);
    assert_same(&before, &dump(&back));

    // What was claimed at the source can be claimed in the copies, under a token of its own.
    for config in [&there.config, &back] {
        let time = crate::manifest::postgres::Time::Handed(world.clock.clone());
        let manifest = if config.is_shared() {
            Manifest::open_shared(config, Access::Daemon, time).await
        } else {
            Manifest::open(config, world.clock.clone(), Access::Daemon).await
        };
        let manifest = manifest.unwrap();
        let claimed = manifest.claim_tasks(1, &[]).await.unwrap();
        assert_eq!(
            (claimed[0].key.id.as_str(), claimed[0].lease.token.0),
            ("claimed", 2)
        );
        let learned = manifest.learn(vec![world.task("forgotten")]).await.unwrap();
        assert_eq!(learned, [Learned::New]);
        let records = manifest
            .tasks(&TaskFilter::default(), 10_000)
            .await
            .unwrap();
        let rows: Vec<i64> = records.iter().map(|it| it.row).collect();
        let last = rows.last().unwrap();
        assert!(
            last - rows[rows.len() - 2] > 1,
            "an ID was given again: {rows:?}"
        );
        manifest.close().await;
    }
}

#[tokio::test]
async fn a_manifest_that_began_on_a_server_comes_over_and_back() {
    let world = World::postgres(false).await;
    fill(&world).await;
    world.manifest.close().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, there) = (file_in(&folder, "manifest.db"), place());
    let moved = move_all(&world.config, &file).await;
    assert_eq!(move_all(&file, &there.config).await, moved);
    assert_eq!(seen(&world.config).await, seen(&there.config).await);
    assert_eq!(seen(&world.config).await, seen(&file).await);
}

#[tokio::test]
async fn every_table_is_moved_or_left_out_on_purpose() {
    let moved: BTreeSet<&str> = TABLES.iter().map(|table| table.name).collect();
    let with = |more: &[&'static str]| -> BTreeSet<String> {
        let all = moved.iter().chain(more);
        all.map(|name| (*name).to_owned()).collect()
    };
    let world = World::sqlite(false).await;
    let db = rusqlite::Connection::open(Manifest::path(&world.config).unwrap()).unwrap();
    let mut statement = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")
        .unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    let names: BTreeSet<String> = names.map(Result::unwrap).collect();
    assert_eq!(names, with(&["counts", "sqlite_sequence"]));

    let there = place();
    let manifest = Manifest::open(&there.config, Clock::system(), Access::Writer)
        .await
        .unwrap();
    manifest.close().await;
    let sql = |sql: &str| there.server.sql(&there.database.name, sql);
    let names = sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
    let names: BTreeSet<String> = names.lines().map(str::to_owned).collect();
    assert_eq!(names, with(&["counts", "machines", "reelvault_schema"]));

    for table in &TABLES {
        let name = table.name;
        let mut columns = db
            .prepare(&format!("SELECT name FROM pragma_table_info('{name}')"))
            .unwrap();
        let columns = columns.query_map([], |row| row.get(0)).unwrap();
        let columns: BTreeSet<String> = columns.map(Result::unwrap).collect();
        let there = sql(&format!(
            "SELECT column_name FROM information_schema.columns WHERE table_name = '{name}'"
        ));
        let there: BTreeSet<String> = there.lines().map(str::to_owned).collect();
        assert_eq!(columns, there, "{name}");
    }
}

#[tokio::test]
async fn two_moves_at_once_make_one_copy() {
    let world = World::sqlite(false).await;
    fill(&world).await;
    world.manifest.close().await;
    let other = World::sqlite(false).await;
    other.manifest.close().await;
    let there = place();
    let (one, two) = tokio::join!(
        migrate(&world.config, &there.config, |_| {}),
        migrate(&other.config, &there.config, |_| {})
    );
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    let from = if one.is_ok() { &world } else { &other };
    assert_eq!(seen(&from.config).await, seen(&there.config).await);
}

#[tokio::test]
async fn what_is_in_the_way_is_told() {
    let world = World::sqlite(false).await;
    world.learn("a").await;
    let there = place();
    // A daemon works on the file.
    for is_dry in [true, false] {
        let refused = if is_dry {
            look(&world.config, &there.config).await
        } else {
            migrate(&world.config, &there.config, |_| {}).await
        };
        let is_locked = matches!(
            refused,
            Err(MoveError::Manifest(ManifestError::Locked { .. }))
        );
        assert!(is_locked, "{refused:?}");
    }
    world.manifest.close().await;
    let same = migrate(&world.config, &file_in(&world.folder, "other.db"), |_| {}).await;
    assert!(matches!(same, Err(MoveError::SameKind { .. })), "{same:?}");

    // Another's move was begun there.
    let other = World::sqlite(false).await;
    other.learn("b").await;
    other.manifest.close().await;
    break_off(&other.config, &there.config, |_| true).await;
    let refused = migrate(&world.config, &there.config, |_| {}).await;
    assert!(
        matches!(refused, Err(MoveError::OfAnother { .. })),
        "{refused:?}"
    );
    move_all(&other.config, &there.config).await;
    let refused = migrate(&world.config, &there.config, |_| {}).await;
    assert!(
        matches!(refused, Err(MoveError::Occupied { .. })),
        "{refused:?}"
    );

    // A machine works on the server, until it goes.
    let manifest = Manifest::open(&there.config, Clock::system(), Access::Daemon)
        .await
        .unwrap();
    let arrival = Arrival {
        name: "one".to_owned(),
        run: "1".to_owned(),
        version: "0".to_owned(),
    };
    manifest.arrive(&arrival).await.unwrap();
    let back = file_in(&world.folder, "back.db");
    let refused = migrate(&there.config, &back, |_| {}).await;
    let expected = matches!(&refused, Err(MoveError::Living { names, .. }) if *names == ["one"]);
    assert!(expected, "{refused:?}");
    manifest.leave(&arrival).await.unwrap();
    manifest.close().await;
    move_all(&there.config, &back).await;
    let refused = migrate(&there.config, &back, |_| {}).await;
    assert!(
        matches!(refused, Err(MoveError::Occupied { .. })),
        "{refused:?}"
    );
    // An empty file of that name may have a log beside it that belongs to something else; so may none.
    for left in ["empty.db", "none.db-wal"] {
        std::fs::write(world.folder.path().join(left), "").unwrap();
        let place = file_in(&world.folder, left.trim_end_matches("-wal"));
        let refused = migrate(&there.config, &place, |_| {}).await;
        assert!(
            matches!(refused, Err(MoveError::Occupied { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn nobody_writes_to_a_source_while_it_is_copied() {
    let world = World::postgres(false).await;
    world.learn("a").await;
    world.manifest.close().await;
    let file = file_in(&world.folder, "back.db");
    let writer = Manifest::open(&world.config, Clock::system(), Access::Writer)
        .await
        .unwrap();
    let (began, may_end) = (Arc::new(Notify::new()), Notify::new());
    let stands_still = Notify::new();
    let told = Arc::clone(&began);
    let moving = async {
        let mut moving = Box::pin(migrate(&world.config, &file, move |_| told.notify_one()));
        tokio::select! {
            biased;
            () = began.notified() => {}
            moved = &mut moving => panic!("{moved:?}"),
        }
        // With the tables locked.
        stands_still.notify_one();
        may_end.notified().await;
        moving.await.unwrap()
    };
    let writing = async {
        stands_still.notified().await;
        let learned = writer.learn(vec![world.task("b")]).await;
        assert!(learned.is_err(), "{learned:?}");
        may_end.notify_one();
    };
    tokio::join!(moving, writing);
    writer.learn(vec![world.task("b")]).await.unwrap();
}

#[tokio::test]
async fn a_copy_that_differs_is_found_out_and_not_used() {
    let world = World::postgres(false).await;
    fill(&world).await;
    world.manifest.close().await;
    for (spoil, expected) in [
        (
            "UPDATE tasks SET attempts = attempts + 1 WHERE id = 1",
            ("tasks", 0),
        ),
        (
            "DELETE FROM parts WHERE (object, number) = (SELECT object, number FROM parts ORDER BY 1, 2 LIMIT 1 OFFSET 1)",
            ("parts", 1),
        ),
    ] {
        let file = file_in(&world.folder, "spoilt.db");
        let unfinished = world.folder.path().join("spoilt.db.moving");
        let spoilt = migrate(&world.config, &file, move |step| {
            if let Step::Done {
                table: "pulse",
                is_comparing: false,
                ..
            } = step
            {
                let db = rusqlite::Connection::open(&unfinished).unwrap();
                assert_eq!(db.execute(spoil, []).unwrap(), 1, "{spoil}");
            }
        });
        match spoilt.await {
            Err(MoveError::Differs { table, rows }) => assert_eq!((table, rows), expected),
            other => panic!("{other:?}"),
        }
        assert!(is_unfinished(&file, &world.config).await);
    }
    move_all(&world.config, &file_in(&world.folder, "spoilt.db")).await;
}
