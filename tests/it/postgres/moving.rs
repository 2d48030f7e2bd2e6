//! A user moves the manifest: from a file to a server while uploads are open, and back.

use std::io::Read as _;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use reelvault::simulator::bucket::Operation;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::beside;
use super::check;
use super::file;
use super::machine;
use super::migrate;
use super::outside;
use super::server::Database;
use super::server::Server;
use crate::process::Home;
use crate::process::Outcome;
use crate::world::variables;

/// So many that a move takes a while.
const MANY: usize = 8_000;

#[tokio::test]
async fn a_daemon_goes_on_where_the_manifest_was_moved_to() {
    let (server, outside) = (Server::shared(), outside().await);
    let (home, database) = (&outside.home, server.database());
    let from = file(home, "manifest.db");
    let on_file = outside.config("", "");
    outside.add(6).await;
    let daemon = home.start().await;
    outside.bucket.reached(Operation::UploadPart, 2).await;
    let there = migrate(&from, &database.url);
    let refused = home.run(&there).await;
    assert_eq!(refused.code, 11, "{refused:?}");
    check(&refused.stderr, "is in use by the daemon");
    check(&refused.stderr, "hint:  stop it first");
    home.hear(&daemon.kill().await);
    let open = outside.bucket.open_uploads().len();
    assert!(open > 0, "too late to kill");

    let looked = home.done(&[&there[..], &["--dry-run"]].concat()).await;
    check(&looked, "nothing was moved");
    let before = home.done(&["manifest", "export"]).await;
    let moved = home.done(&there).await;
    check(&moved, "compared row by row");
    check(&moved, "parts");
    let again = home.run(&there).await;
    assert_eq!(again.code, 11, "{again:?}");
    check(&again.stderr, "there is a manifest at postgres://");
    home.configure(&machine(&outside, &database.url, "one", ""));
    assert_eq!(home.done(&["manifest", "export"]).await, before);

    let daemon = home.start().await;
    daemon.says("resuming").await;
    let second = beside(&outside, &database, "two");
    let two = second.start().await;
    outside.archived(&daemon).await;
    let back = file(home, "back.db");
    let home_again = migrate(&database.url, &back);
    let refused = home.run(&home_again).await;
    assert_eq!(refused.code, 11, "{refused:?}");
    check(&refused.stderr, "2 machines of postgres://");
    check(&refused.stderr, "still work on it: one, two");
    for daemon in [daemon, two] {
        home.hear(&daemon.stop().await);
    }
    outside.assert_all_safe();

    let before = home.done(&["manifest", "export"]).await;
    home.done(&home_again).await;
    home.configure(&on_file.replace(&from, &back));
    assert_eq!(home.done(&["manifest", "export"]).await, before);
    outside.add(2).await;
    let daemon = home.start().await;
    outside.archived(&daemon).await;
    home.hear(&daemon.stop().await);
    outside.assert_all_safe();
}

/// Runs a move and kills it as soon as something of it can be seen.
async fn kill_midway(home: &Home, arguments: &[&str], is_seen: impl AsyncFnMut() -> bool) {
    let mut child = home.command(arguments).spawn().unwrap();
    until(&mut child, is_seen).await;
    kill(child);
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "too late to kill");
}

/// Waits until the server knows that a move was killed, and lets go of the lock that it had.
fn let_go(server: &Server, database: &Database) {
    let lock = "SET lock_timeout = '1min'; SELECT pg_advisory_xact_lock(7453291001)";
    server.sql(&database.name, lock);
}

/// Waits for something that can only be looked for, while a move is under way.
async fn until(child: &mut Child, mut is_seen: impl AsyncFnMut() -> bool) {
    let seen = async {
        while !is_seen().await {
            if child.try_wait().unwrap().is_some() {
                let mut said = String::new();
                let stderr = child.stderr.as_mut().unwrap();
                stderr.read_to_string(&mut said).unwrap();
                panic!("the move ended unseen: {said}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_mins(1), seen).await;
    seen.expect("the move is not seen to get that far");
}

/// How many rows the copy had according to a move that went on with it.
fn rows_found(outcome: &Outcome) -> usize {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    check(&outcome.stdout, "compared row by row");
    let (_, rest) = outcome.stderr.split_once("going on at ").unwrap();
    let (rows, rest) = rest.split_once(" of ").unwrap();
    check(rest, &format!("{} rows", 2 * MANY + 1));
    rows.parse().unwrap()
}

/// A number out of a file that others write.
fn number(path: &Path, sql: &str) -> Option<usize> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let db = rusqlite::Connection::open_with_flags(path, flags).ok()?;
    let read = |row: &rusqlite::Row<'_>| row.get(0);
    let number: Option<i64> = db.query_row(sql, [], read).ok();
    number.map(|number| usize::try_from(number).unwrap())
}

/// Learns many tasks: as many rows of tasks, as many of events, and one of pulse, which is copied last.
async fn fill(home: &Home) {
    let ids: Vec<String> = (0..MANY).map(|number| format!("task-{number}")).collect();
    std::fs::write(home.path().join("ids"), ids.join("\n")).unwrap();
    home.done(&["import", "ids"]).await;
    let db = rusqlite::Connection::open(home.path().join("manifest.db")).unwrap();
    db.execute("INSERT INTO pulse (id, at) VALUES (1, 1)", [])
        .unwrap();
}

/// How many marks of an unfinished move the database has: one, or none.
const IS_MARKED: &str = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'reelvault_moving'";

async fn refused_as_unfinished(home: &Home) {
    for command in [&["run"][..], &["status"], &["add", "task-1"]] {
        let refused = home.run(command).await;
        assert_eq!(refused.code, 11, "{refused:?}");
        check(&refused.stderr, "is not finished");
        check(&refused.stderr, "hint:  run `reelvault manifest migrate");
    }
}

#[tokio::test]
async fn a_move_that_is_killed_is_taken_by_no_daemon_and_goes_on() {
    let (server, outside) = (Server::shared(), outside().await);
    let (home, database) = (&outside.home, server.database());
    let from = file(home, "manifest.db");
    fill(home).await;
    let there = migrate(&from, &database.url);
    let sql = |query: &str| server.sql(&database.name, query);
    kill_midway(home, &there, async || sql(IS_MARKED) == "1\n").await;
    let_go(&server, &database);
    home.configure(&machine(&outside, &database.url, "one", ""));
    refused_as_unfinished(home).await;

    // Killed while events are copied, and then while all of it is compared. What comes last is locked, first against
    // rows and then against looks, so that no move gets to its end unseen.
    let mut talking = JoinSet::new();
    let (one, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    talking.spawn(connection);
    let (two, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    talking.spawn(connection);
    let against_rows = "BEGIN; LOCK TABLE pulse IN SHARE MODE";
    one.batch_execute(against_rows).await.unwrap();
    let copied = "SELECT COUNT(*) FROM events";
    kill_midway(home, &there, async || sql(copied) != "0\n").await;
    let_go(&server, &database);
    let versions = || sql("SELECT id, xmin FROM tasks ORDER BY id");
    let written = versions();
    assert_eq!(written.lines().count(), MANY);
    let mut child = home.command(&there).spawn().unwrap();
    let waits = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until(&mut child, async || sql(waits) == "1\n").await;
    let against_looks = two.batch_execute("BEGIN; LOCK TABLE pulse IN ACCESS EXCLUSIVE MODE");
    let let_rows_in = async {
        until(&mut child, async || sql(waits) == "2\n").await;
        one.batch_execute("COMMIT").await.unwrap();
    };
    let (locked, ()) = tokio::join!(against_looks, let_rows_in);
    locked.unwrap();
    until(&mut child, async || sql(waits) == "1\n").await;
    kill(child);
    two.batch_execute("ROLLBACK").await.unwrap();
    let_go(&server, &database);
    refused_as_unfinished(home).await;
    assert_eq!(rows_found(&home.run(&there).await), 2 * MANY + 1);
    assert_eq!(versions(), written, "copied again");

    let back = home.path().join("back.db");
    let to = file(home, "back.db");
    let home_again = migrate(&database.url, &to);
    let unfinished = home.path().join("back.db.moving");
    kill_midway(home, &home_again, async || unfinished.exists()).await;
    let copied = "SELECT COUNT(*) FROM tasks";
    let some = async || number(&unfinished, copied).is_some_and(|rows| rows > 0);
    kill_midway(home, &home_again, some).await;
    assert!(!back.exists());
    home.configure(&outside.config("", "").replace(&from, &to));
    refused_as_unfinished(home).await;
    let looked = home.done(&[&home_again[..], &["--dry-run"]].concat()).await;
    check(&looked, "nothing was moved");
    let found = number(&unfinished, copied).unwrap();
    assert!(rows_found(&home.run(&home_again).await) >= found);
    let tasks = home.done(&["status", "--json"]).await;
    check(&tasks, &format!("\"watching\":{MANY}"));
}

#[tokio::test]
async fn what_was_added_after_a_kill_comes_over_and_what_was_changed_begins_anew() {
    let (server, outside) = (Server::shared(), outside().await);
    let (home, database) = (&outside.home, server.database());
    let from = file(home, "manifest.db");
    fill(home).await;
    let there = migrate(&from, &database.url);
    let copied = || server.sql(&database.name, "SELECT COUNT(*) FROM tasks");
    let is_marked = || {
        let marks = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'reelvault_moving'";
        server.sql(&database.name, marks) == "1\n"
    };
    kill_midway(home, &there, async || is_marked() && copied() != "0\n").await;
    let_go(&server, &database);
    home.done(&["add", "late-1"]).await;
    kill_midway(home, &there, async || copied() == format!("{}\n", MANY + 1)).await;
    let_go(&server, &database);
    let db = rusqlite::Connection::open(home.path().join("manifest.db")).unwrap();
    let change = "UPDATE tasks SET percent = 17 WHERE task_id = 'task-4711'";
    assert_eq!(db.execute(change, []).unwrap(), 1);
    drop(db);
    let before = home.done(&["manifest", "export"]).await;
    let moved = home.run(&there).await;
    assert_eq!(moved.code, 0, "{moved:?}");
    check(&moved.stderr, "going on at ");
    check(
        &moved.stderr,
        "table tasks is not what the source has by now",
    );
    home.configure(&machine(&outside, &database.url, "one", ""));
    assert_eq!(home.done(&["manifest", "export"]).await, before);
    check(
        &home.done(&["status", "--json"]).await,
        &format!("\"watching\":{}", MANY + 1),
    );
}

#[tokio::test]
async fn a_server_that_dies_under_a_move_costs_no_more_than_its_last_pages() {
    let (server, outside) = (Server::own(), outside().await);
    let (home, database) = (&outside.home, server.database());
    let from = file(home, "manifest.db");
    fill(home).await;
    let there = migrate(&from, &database.url);
    let sql = |query: &str| server.sql(&database.name, query);
    let mut child = home.command(&there).spawn().unwrap();
    until(&mut child, async || {
        sql(IS_MARKED) == "1\n" && sql("SELECT COUNT(*) FROM events") != "0\n"
    })
    .await;
    // What it has by now is on its disk.
    sql("CHECKPOINT");
    let found: usize = sql("SELECT COUNT(*) FROM tasks").trim().parse().unwrap();
    server.stop();
    assert_eq!(child.wait().unwrap().code(), Some(11), "too late to stop");
    server.start();
    assert!(rows_found(&home.run(&there).await) > found);
    home.configure(&machine(&outside, &database.url, "one", ""));
    check(
        &home.done(&["status", "--json"]).await,
        &format!("\"watching\":{MANY}"),
    );
}

#[tokio::test]
async fn what_cannot_be_moved_is_told_with_what_to_do() {
    let home = Home::new(variables(&outside().await.bucket));
    let outside = outside().await;
    home.configure(&outside.config("", ""));
    let refused = async |from: &str, to: &str, code: i32, what: &str| {
        let outcome = home.run(&migrate(from, to)).await;
        assert_eq!(outcome.code, code, "{outcome:?}");
        check(&outcome.stderr, what);
        assert!(!outcome.stderr.contains("sk-canary"), "{outcome:?}");
    };
    let server = "postgres://me@/x?host=/nonexistent";
    refused("sqlite:a.db", "sqlite:b.db", 2, "are of one kind").await;
    refused("sqlite:none.db", server, 11, "no manifest at").await;
    refused(server, "sqlite:b.db", 11, "cannot reach").await;
    refused("mysql://x", "sqlite:b.db", 2, "is no manifest URL").await;
    let with_password = "postgres://me:sk-canary-provider@db/x";
    refused(with_password, "sqlite:b.db", 2, "has a password in it").await;
}
