//! What is particular to `SQLite`: files, locks, the schema's text.

mod group_commit;

use std::io::BufRead as _;
use std::io::BufReader;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use futures::future::join_all;
use rusqlite::Connection;

use super::Sqlite;
use super::execute;
use crate::clock::Clock;
use crate::manifest::Access;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::conformance::conformance;
use crate::manifest::conformance::statements;
use crate::manifest::conformance::world::World;
use crate::manifest::conformance::world::key;
use crate::manifest::conformance::world::media;
use crate::manifest::conformance::world::proof;
use crate::manifest::database_path;
use crate::manifest::engine::Engine;
use crate::manifest::migrate;
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

mod threaded {
    use super::*;
    conformance!(World::sqlite(false));
}

mod inline {
    use super::*;
    conformance!(World::sqlite(true));
}

#[tokio::test]
async fn every_statement_is_prepared() {
    let world = World::sqlite(true).await;
    let connection = Connection::open(path(&world.config)).unwrap();
    let all = statements::of("sqlite");
    assert!(all.len() > 80, "found {} statements only", all.len());
    for sql in all {
        if let Err(error) = connection.prepare(&sql) {
            panic!("{error} in {sql}");
        }
    }
}

fn path(config: &Config) -> PathBuf {
    database_path(&config.url).unwrap()
}

/// A second connection, as whoever meddles with the file has it.
fn meddle(world: &World, sql: &str) {
    Connection::open(path(&world.config))
        .unwrap()
        .execute_batch(sql)
        .unwrap();
}

fn sqlite(world: &World) -> &Sqlite {
    match &world.manifest.engine {
        Engine::Sqlite(engine) => engine,
        Engine::Postgres(_) => panic!("a world on SQLite"),
    }
}

async fn open(world: &World, access: Access) -> Result<Manifest, ManifestError> {
    Manifest::open(&world.config, world.clock.clone(), access).await
}

#[tokio::test]
async fn the_schema_names_every_state_and_no_other() {
    let world = World::sqlite(true).await;
    let connection = Connection::open(path(&world.config)).unwrap();
    let check = |table: &str, column: &str, words: Vec<&str>| {
        let sql = "SELECT sql FROM sqlite_master WHERE name = ?1";
        let sql: String = connection
            .query_row(sql, [table], |row| row.get(0))
            .unwrap();
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
    let lax = "SELECT COUNT(*) FROM pragma_table_list
        WHERE schema = 'main' AND type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%'";
    let lax: i64 = connection.query_row(lax, [], |row| row.get(0)).unwrap();
    assert_eq!(lax, 0, "every table is STRICT");
}

#[tokio::test]
async fn a_manifest_of_schema_2_tells_of_what_happens_from_now_on() {
    let world = World::sqlite_of_schema(2, include_str!("fixtures/schema_1.sql"));
    let events = async || {
        let all = event::EventFilter::default();
        world.manifest.events(&all, 100).await.unwrap()
    };
    assert!(events().await.is_empty(), "nobody was told, nobody will be");
    let task = world.manifest.claim_tasks(10, &[]).await.unwrap().remove(0);
    let seen = world.completed(&["x"]);
    world.manifest.observe(&task.lease, seen).await.unwrap();
    let events = events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].event.kind, EventKind::Ready);
}

#[tokio::test]
async fn a_manifest_of_schema_1_is_brought_up_with_all_of_its_rows() {
    let world = World::sqlite_of_schema(1, include_str!("fixtures/schema_1.sql"));
    let copy = migrate::backup_path(&path(&world.config), 1);
    let kept = Connection::open(copy).unwrap();
    let schema = kept.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0));
    assert_eq!(schema.unwrap(), 1, "as it was, beside it");

    assert_eq!(world.record("running").await.percent, Some(40));
    let error = world.record("failed").await.task_error.unwrap();
    assert_eq!(error.message, "not this");
    let done = world.record("done").await;
    let states: Vec<_> = done.assets.iter().map(|asset| asset.state).collect();
    assert_eq!(
        states,
        [AssetState::Archived, AssetState::Due, AssetState::Lost]
    );
    for asset in &done.assets {
        assert!(asset.media.is_empty(), "nobody looked: {asset:?}");
    }
    assert_eq!(done.assets[0].size, Some(18_312_004));
    assert_eq!(done.assets[0].sha256, proof().sha256);
    let tally = world.manifest.tally().await.unwrap();
    assert_eq!(tally.orphans, 1);
    assert_eq!(tally.assets_in(AssetState::Archived), 1);
    assert_eq!(tally.bytes_archived, 18_312_004);
    assert_eq!(tally.tasks_in(TaskState::Watching), 1, "{tally:?}");

    // What was under way goes on, and says more of itself in the end.
    let asset = world.claim_asset().await;
    let upload = asset.objects[0].upload.as_ref().unwrap();
    assert_eq!((upload.id.0.as_str(), upload.parts.len()), ("upload-2", 2));
    let object = asset.objects[0].row;
    let proof = proof();
    let done = world.manifest.mark_archived(&asset.lease, object, &proof);
    assert!(done.await.unwrap());
    assert_eq!(world.record("done").await.assets[1].media, media());
    world.manifest.close().await;
}

#[tokio::test]
async fn a_second_daemon_learns_whose_the_manifest_is() {
    let world = World::sqlite(false).await;
    assert!(Manifest::is_daemon_running(&world.config).await);
    let second = open(&world, Access::Daemon).await;
    let Err(ManifestError::Locked { pid, .. }) = second else {
        panic!("{second:?}");
    };
    assert_eq!(pid, std::process::id().to_string());

    // A command may write while the daemon runs, and each sees what the other wrote.
    let command = open(&world, Access::Writer).await.unwrap();
    assert_eq!(
        command.learn(vec![world.task("a")]).await.unwrap(),
        [Learned::New]
    );
    assert_eq!(world.claim_task().await.key, key("a"));
    command.close().await;

    world.manifest.close().await;
    assert!(!Manifest::is_daemon_running(&world.config).await);
    let closed = world.manifest.learn(vec![world.task("b")]).await;
    assert!(matches!(closed, Err(ManifestError::Closed)), "{closed:?}");
    assert!(matches!(
        world.manifest.tally().await,
        Err(ManifestError::Closed)
    ));
    world.manifest.close().await;
    open(&world, Access::Daemon).await.unwrap().close().await;
}

#[tokio::test]
async fn a_daemon_ends_the_leases_of_its_dead_predecessor() {
    let world = World::sqlite(false).await;
    world.complete("a", &["a"]).await;
    let dead = world.claim_asset().await;
    world.manifest.close().await;
    let command = open(&world, Access::Writer).await.unwrap();
    assert!(
        command.claim_assets(10).await.unwrap().is_empty(),
        "only a daemon may end them"
    );
    command.close().await;
    let daemon = open(&world, Access::Daemon).await.unwrap();
    let claimed = daemon.claim_assets(10).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert!(claimed[0].lease.token > dead.lease.token);
    daemon.close().await;
}

#[tokio::test]
async fn a_reader_makes_nothing_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = |name: &str| Config {
        url: format!("sqlite:{}", folder.path().join(name).display()),
        ..Config::of_tests()
    };
    let read = async |name| Manifest::open(&config(name), Clock::system(), Access::Reader).await;
    let missing = read("none.db").await;
    assert!(
        matches!(missing, Err(ManifestError::Missing { .. })),
        "{missing:?}"
    );
    std::fs::write(folder.path().join("empty.db"), b"").unwrap();
    let empty = read("empty.db").await;
    assert!(
        matches!(empty, Err(ManifestError::Missing { .. })),
        "{empty:?}"
    );
    std::fs::write(
        folder.path().join("text.db"),
        "no database at all ".repeat(100),
    )
    .unwrap();
    let text = read("text.db").await;
    assert!(
        matches!(text, Err(ManifestError::Broken { .. })),
        "{text:?}"
    );
    let mut names: Vec<_> = folder
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["empty.db", "text.db"]);

    let nowhere = Manifest::open(&config("no/such.db"), Clock::system(), Access::Daemon).await;
    assert!(
        matches!(nowhere, Err(ManifestError::Folder { .. })),
        "{nowhere:?}"
    );
    for url in ["mysql://db/x", "sqlite:", "sqlite::memory:", "manifest.db"] {
        let config = Config {
            url: url.into(),
            ..Config::of_tests()
        };
        let bad = Manifest::open(&config, Clock::system(), Access::Daemon).await;
        assert!(
            matches!(bad, Err(ManifestError::Url { .. })),
            "{url} {bad:?}"
        );
    }

    let world = World::sqlite(false).await;
    world.learn("a").await;
    let reader = open(&world, Access::Reader).await.unwrap();
    assert_eq!(
        reader.tally().await.unwrap().tasks_in(TaskState::Watching),
        1
    );
    let refused = reader.learn(vec![world.task("b")]).await;
    assert!(
        matches!(refused, Err(ManifestError::ReadOnly { .. })),
        "{refused:?}"
    );
    // Also when nobody writes any more and the log is gone.
    world.manifest.close().await;
    let late = open(&world, Access::Reader).await.unwrap();
    assert_eq!(late.tally().await.unwrap().tasks_in(TaskState::Watching), 1);
}

#[tokio::test]
async fn newer_and_foreign_databases_are_left_alone() {
    let world = World::sqlite(false).await;
    world.manifest.close().await;
    meddle(&world, "PRAGMA user_version = 99");
    for access in [Access::Daemon, Access::Writer, Access::Reader] {
        let newer = open(&world, access).await;
        let Err(ManifestError::Newer { found: 99, known }) = newer else {
            panic!("{newer:?}");
        };
        assert_eq!(known, migrate::newest(migrate::MIGRATIONS));
    }
    let folder = tempfile::tempdir().unwrap();
    let theirs = folder.path().join("mail.db");
    Connection::open(&theirs)
        .unwrap()
        .execute_batch("CREATE TABLE mail (id INTEGER)")
        .unwrap();
    let before = std::fs::read(&theirs).unwrap();
    let url = format!("sqlite:{}", theirs.display());
    let config = Config {
        url,
        ..Config::of_tests()
    };
    let foreign = Manifest::open(&config, Clock::system(), Access::Writer).await;
    assert!(
        matches!(foreign, Err(ManifestError::Foreign { .. })),
        "{foreign:?}"
    );
    assert_eq!(std::fs::read(&theirs).unwrap(), before);
}

#[tokio::test]
async fn the_copy_of_an_unfinished_move_is_refused_by_any_name() {
    let world = World::sqlite(false).await;
    world.manifest.close().await;
    meddle(
        &world,
        "CREATE TABLE reelvault_moving (source TEXT NOT NULL) STRICT; INSERT INTO reelvault_moving VALUES ('there')",
    );
    for access in [Access::Daemon, Access::Writer, Access::Reader] {
        let marked = open(&world, access).await;
        let Err(ManifestError::Unfinished { from, .. }) = marked else {
            panic!("{marked:?}");
        };
        assert_eq!(from, "there");
    }
    let source = super::moving::File::source(path(&world.config)).await;
    assert!(matches!(
        source.err(),
        Some(ManifestError::Unfinished { .. })
    ));
}

#[tokio::test]
async fn what_is_no_database_is_named() {
    let world = World::sqlite(false).await;
    world.manifest.close().await;
    let path = path(&world.config);
    std::fs::write(
        &path,
        "no database, but longer than the head of one ".repeat(9),
    )
    .unwrap();
    for access in [Access::Daemon, Access::Writer, Access::Reader] {
        let told = open(&world, access).await.unwrap_err().to_string();
        let expected = format!("{}: file is not a database", path.display());
        assert!(told.contains(&expected), "{told}");
    }
}

/// Only root can give files away; who runs this as somebody else checks nothing.
#[tokio::test]
async fn what_root_makes_belongs_to_the_owner_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    if std::os::unix::fs::chown(folder.path(), Some(4242), Some(4243)).is_err() {
        return;
    }
    let config = Config {
        url: format!("sqlite:{}", folder.path().join("manifest.db").display()),
        ..Config::of_tests()
    };
    let manifest = Manifest::open(&config, Clock::system(), Access::Daemon).await;
    manifest.unwrap().try_write().await.unwrap();
    let mut count = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        assert_eq!((found.uid(), found.gid()), (4242, 4243), "{entry:?}");
        count += 1;
    }
    assert_eq!(
        count, 4,
        "the database, its log, what readers share, the lock"
    );
}

#[tokio::test]
async fn the_manifest_is_nobody_elses_to_read() {
    let world = World::sqlite(false).await;
    world.learn("a").await;
    for name in ["manifest.db", "manifest.db-wal", "manifest.db-shm"] {
        let mode = world
            .folder
            .path()
            .join(name)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_value_that_we_cannot_have_written_is_named() {
    let world = World::sqlite(false).await;
    world.complete("a", &["a?signature=canary"]).await;
    for (meddling, table, column) in [
        ("UPDATE tasks SET provider = 'No Name'", "tasks", "provider"),
        (
            "UPDATE tasks SET provider = 'house', tags = '[]'",
            "tasks",
            "tags",
        ),
        (
            "UPDATE tasks SET tags = '{}', learned_at = -1",
            "tasks",
            "learned_at",
        ),
        (
            "UPDATE tasks SET learned_at = 1, looks = -1; UPDATE assets SET attempts = -1",
            "assets",
            "attempts",
        ),
        (
            "UPDATE assets SET attempts = 0, url = 'cdn?signature=canary'",
            "assets",
            "url",
        ),
        (
            "UPDATE objects SET key_template = '{task_id}'",
            "objects",
            "key_template",
        ),
    ] {
        meddle(&world, meddling);
        let filter = TaskFilter::default();
        let error = if table == "objects" {
            meddle(&world, "UPDATE assets SET url = 'https://cdn.test/a'");
            world.manifest.claim_assets(1).await.unwrap_err()
        } else {
            world.manifest.tasks(&filter, 10).await.unwrap_err()
        };
        let is_named = matches!(
            &error,
            ManifestError::Inconsistent { table: t, column: c, row: 1, .. } if (*t, *c) == (table, column)
        );
        assert!(is_named, "{meddling}: {error:?}");
        assert!(
            !format!("{error:?} {error}").contains("canary"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn claims_and_look_ups_find_their_indexes() {
    let world = World::sqlite(true).await;
    let connection = Connection::open(path(&world.config)).unwrap();
    let plan = |sql: &str| -> String {
        let mut statement = connection
            .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
            .unwrap();
        // Parameters stay unbound: a plan does not depend on them.
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            steps.push(row.get::<_, String>("detail").unwrap());
        }
        steps.join("\n")
    };
    for (sql, indexes) in [
        (super::claims::CLAIM_TASKS, ["tasks_due", "tasks_leased"]),
        (super::holds::HEARD, ["tasks_heard", "USING"]),
        (super::claims::CLAIM_ASSETS, ["assets_due", "assets_leased"]),
        (
            super::claims::CLAIM_ASSETS,
            ["assets_state (state=? AND deadline_at<?)", "SEARCH"],
        ),
        (
            super::claims::CLAIM_ORPHANS,
            ["orphans_due", "orphans_leased"],
        ),
        (
            super::deliveries::WAITING,
            ["deliveries_endpoint", "deliveries_leased"],
        ),
        (
            super::deliveries::CLAIM,
            ["deliveries_endpoint (endpoint=? AND due_at<?)", "SEARCH"],
        ),
        (
            super::deliveries::CLAIM_LEFT,
            ["deliveries_leased (lease_expires_at<", "SEARCH"],
        ),
        (
            super::deliveries::UNFANNED,
            ["events_unfanned", "SEARCH tasks"],
        ),
        (super::events::PRUNE, ["events_at (at<?)", "deliveries"]),
        (
            super::alarms::AT_RISK,
            [
                "tasks_state (state=? AND deadline_at<?)",
                "assets_state (state=? AND deadline_at<?)",
            ],
        ),
        (
            super::waiting::WAITING,
            ["tasks_state (state=?)", "assets_state (state=?)"],
        ),
        (
            super::alarms::REARM_TASKS,
            ["tasks_warned (deadline_at>?)", "SEARCH"],
        ),
        (
            super::reads::TALLY_DEADLINE,
            ["tasks_state (state=?)", "assets_state (state=?)"],
        ),
    ] {
        let plan = plan(sql);
        assert!(
            indexes.iter().all(|index| plan.contains(index)),
            "{sql}\n{plan}"
        );
        let is_scan = |step: &str| {
            let scanned = step.strip_prefix("SCAN ");
            scanned
                .is_some_and(|table| ["tasks", "assets", "orphans", "deliveries"].contains(&table))
        };
        assert!(!plan.lines().any(is_scan), "{sql}\n{plan}");
    }
    for (table, index) in [
        (Claimable::Tasks, "tasks_due (next_look_at>?)"),
        (Claimable::Assets, "assets_due (due_at>?)"),
        (Claimable::Orphans, "orphans_due (due_at>?)"),
        (Claimable::Deliveries, "deliveries_due (due_at>?)"),
    ] {
        let plan = plan(super::claims::pull_in_of(table));
        assert!(plan.contains(index), "{plan}");
    }
    let plan = plan("SELECT * FROM tasks WHERE TRUE AND task_id = ? ORDER BY id LIMIT ?");
    assert!(plan.contains("SEARCH tasks USING INDEX"), "{plan}");
}

#[tokio::test]
async fn dropped_without_closing_everything_acknowledged_is_there() {
    let world = World::sqlite(false).await;
    let learns = (0..50).map(|number| {
        world
            .manifest
            .learn(vec![world.task(&format!("t{number}"))])
    });
    assert!(
        join_all(learns)
            .await
            .into_iter()
            .all(|learned| learned.is_ok())
    );
    // What is on the disk at this moment, with nobody having been told to finish anything.
    let copy = tempfile::tempdir().unwrap();
    for name in ["manifest.db", "manifest.db-wal"] {
        std::fs::copy(world.folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let url = format!("sqlite:{}", copy.path().join("manifest.db").display());
    let config = Config {
        url,
        ..world.config.clone()
    };
    let after = Manifest::open(&config, world.clock.clone(), Access::Daemon)
        .await
        .unwrap();
    assert_eq!(
        after.tally().await.unwrap().tasks_in(TaskState::Watching),
        50
    );
    after.close().await;
}

/// The manifest that the child below writes until it is killed.
const CHILD_URL: &str = "REELVAULT_TEST_KILLED_CHILD_URL";

#[tokio::test]
async fn killed_at_any_moment_everything_acknowledged_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("manifest.db").display());
    let config = Config {
        url: url.clone(),
        ..Config::of_tests()
    };
    let mut known: i64 = 0;
    for round in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "manifest::sqlite::tests::child_that_is_killed",
                "--nocapture",
            ])
            .env(CHILD_URL, &url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let mut acknowledged: i64 = 0;
        while acknowledged < 40 * (round + 1) {
            let line = lines.next().expect("it writes until it is killed");
            acknowledged += i64::from(line.contains("acknowledged"));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        acknowledged +=
            i64::try_from(lines.filter(|line| line.contains("acknowledged")).count()).unwrap();

        let reader = Manifest::open(&config, Clock::system(), Access::Reader)
            .await
            .unwrap();
        let tally = reader.tally().await.unwrap();
        let there = i64::try_from(tally.tasks_in(TaskState::Watching)).unwrap();
        assert!(
            there >= known + acknowledged,
            "{there} < {known} + {acknowledged}"
        );
        known = there;
    }
    let check = "PRAGMA integrity_check";
    let connection = Connection::open(database_path(&url).unwrap()).unwrap();
    let says: String = connection.query_row(check, [], |row| row.get(0)).unwrap();
    assert_eq!(says, "ok");
}

/// Not a test by itself: the process that the test above kills.
#[tokio::test]
async fn child_that_is_killed() {
    let Ok(url) = std::env::var(CHILD_URL) else {
        return;
    };
    let world = World::sqlite(true).await;
    let config = Config {
        url,
        ..Config::of_tests()
    };
    let manifest = Manifest::open(&config, Clock::system(), Access::Daemon)
        .await
        .unwrap();
    for number in 0.. {
        let ids = (0..4).map(|lane| format!("p{}-{number}-{lane}", std::process::id()));
        let learns = ids.map(async |id| {
            manifest.learn(vec![world.task(&id)]).await.unwrap();
            println!("\nacknowledged {id}");
        });
        join_all(learns).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_file_is_opened_by_many_at_once() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            url: format!("sqlite:{}/manifest.db", folder.path().display()),
            ..Config::of_tests()
        };
        let opening = (0..8).map(|_| Manifest::open(&config, Clock::system(), Access::Writer));
        for opened in join_all(opening).await {
            opened.unwrap().close().await;
        }
    }
}
