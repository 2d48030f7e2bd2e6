//! A user moves the manifest: from a file to a server while uploads are open, and back.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use reelvault::simulator::bucket::Operation;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::beside;
use super::check;
use super::machine;
use super::outside;
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
    let file = format!("sqlite:{}/manifest.db", home.path().display());
    let on_file = outside.config("", "");
    outside.add(6).await;
    let daemon = home.start().await;
    outside.bucket.reached(Operation::UploadPart, 2).await;
    let there = [
        "manifest",
        "migrate",
        "--from",
        &file,
        "--to",
        &database.url,
    ];
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
    let back = format!("sqlite:{}/back.db", home.path().display());
    let home_again = [
        "manifest",
        "migrate",
        "--from",
        &database.url,
        "--to",
        &back,
    ];
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
    home.configure(&on_file.replace(&file, &back));
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
    until(is_seen).await;
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "too late to kill");
}

/// Waits for something that can only be looked for.
async fn until(mut is_seen: impl AsyncFnMut() -> bool) {
    let seen = async {
        while !is_seen().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, seen).await.unwrap();
}

/// Runs a move that was killed. The server may not know yet that nobody is there any more.
async fn again(home: &Home, arguments: &[&str]) -> Outcome {
    loop {
        let outcome = home.run(arguments).await;
        if !outcome.stderr.contains("somebody else is just making") {
            return outcome;
        }
    }
}

/// How many rows the copy had according to a move that went on with it.
fn rows_found(outcome: &Outcome) -> usize {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    check(&outcome.stdout, "compared row by row");
    let (_, rest) = outcome.stderr.split_once("going on at ").unwrap();
    let (rows, rest) = rest.split_once(" of ").unwrap();
    check(rest, &format!("{} rows", 2 * MANY));
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

/// Learns many tasks: as many rows of tasks, and as many of events.
async fn fill(home: &Home) {
    let ids: Vec<String> = (0..MANY).map(|number| format!("task-{number}")).collect();
    std::fs::write(home.path().join("ids"), ids.join("\n")).unwrap();
    home.done(&["import", "ids"]).await;
}

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
    let file = format!("sqlite:{}/manifest.db", home.path().display());
    fill(home).await;
    let there = [
        "manifest",
        "migrate",
        "--from",
        &file,
        "--to",
        &database.url,
    ];
    let sql = |query: &str| server.sql(&database.name, query);
    let is_marked = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'reelvault_moving'";
    kill_midway(home, &there, async || sql(is_marked) == "1\n").await;
    home.configure(&machine(&outside, &database.url, "one", ""));
    refused_as_unfinished(home).await;

    // Killed while events are copied, and then while all of it is compared.
    let copied = "SELECT COUNT(*) FROM events";
    kill_midway(home, &there, async || sql(copied) != "0\n").await;
    let versions = || sql("SELECT id, xmin FROM tasks ORDER BY id");
    let written = versions();
    assert_eq!(written.lines().count(), MANY);
    let (client, connection) = tokio_postgres::connect(&database.url, NoTls).await.unwrap();
    let mut talking = JoinSet::new();
    talking.spawn(connection);
    let mut is_locked = false;
    let waits = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    // The last table to be compared is locked once all that there is to copy was copied.
    kill_midway(home, &there, async || {
        if !is_locked && sql(copied) == format!("{MANY}\n") {
            let lock = "BEGIN; LOCK TABLE pulse IN ACCESS EXCLUSIVE MODE";
            client.batch_execute(lock).await.unwrap();
            is_locked = true;
        }
        is_locked && sql(waits) == "1\n"
    })
    .await;
    client.batch_execute("ROLLBACK").await.unwrap();
    refused_as_unfinished(home).await;
    assert_eq!(rows_found(&again(home, &there).await), 2 * MANY);
    assert_eq!(versions(), written, "copied again");

    let back = home.path().join("back.db");
    let to = format!("sqlite:{}", back.display());
    let home_again = ["manifest", "migrate", "--from", &database.url, "--to", &to];
    let unfinished = home.path().join("back.db.moving");
    kill_midway(home, &home_again, async || unfinished.exists()).await;
    let copied = "SELECT COUNT(*) FROM tasks";
    let some = async || number(&unfinished, copied).is_some_and(|rows| rows > 0);
    kill_midway(home, &home_again, some).await;
    assert!(!back.exists());
    home.configure(&outside.config("", "").replace(&file, &to));
    refused_as_unfinished(home).await;
    let looked = home.done(&[&home_again[..], &["--dry-run"]].concat()).await;
    check(&looked, "nothing was moved");
    let found = number(&unfinished, copied).unwrap();
    let copy = std::fs::metadata(&unfinished).unwrap().ino();
    assert!(rows_found(&again(home, &home_again).await) >= found);
    assert_eq!(std::fs::metadata(&back).unwrap().ino(), copy, "begun anew");
    let tasks = home.done(&["status", "--json"]).await;
    check(&tasks, &format!("\"watching\":{MANY}"));
}

#[tokio::test]
async fn what_was_added_after_a_kill_comes_over_and_what_was_changed_begins_anew() {
    let (server, outside) = (Server::shared(), outside().await);
    let (home, database) = (&outside.home, server.database());
    let file = format!("sqlite:{}/manifest.db", home.path().display());
    fill(home).await;
    let there = [
        "manifest",
        "migrate",
        "--from",
        &file,
        "--to",
        &database.url,
    ];
    let copied = || server.sql(&database.name, "SELECT COUNT(*) FROM tasks");
    let is_marked = || {
        let marks = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'reelvault_moving'";
        server.sql(&database.name, marks) == "1\n"
    };
    kill_midway(home, &there, async || is_marked() && copied() != "0\n").await;
    home.done(&["add", "late-1"]).await;
    kill_midway(home, &there, async || copied() == format!("{}\n", MANY + 1)).await;
    let db = rusqlite::Connection::open(home.path().join("manifest.db")).unwrap();
    let change = "UPDATE tasks SET percent = 17 WHERE task_id = 'task-4711'";
    assert_eq!(db.execute(change, []).unwrap(), 1);
    drop(db);
    let before = home.done(&["manifest", "export"]).await;
    let moved = again(home, &there).await;
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
    let file = format!("sqlite:{}/manifest.db", home.path().display());
    fill(home).await;
    let there = [
        "manifest",
        "migrate",
        "--from",
        &file,
        "--to",
        &database.url,
    ];
    let sql = |query: &str| server.sql(&database.name, query);
    let is_marked = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'reelvault_moving'";
    let mut child = home.command(&there).spawn().unwrap();
    until(async || sql(is_marked) == "1\n" && sql("SELECT COUNT(*) FROM events") != "0\n").await;
    // What it has by now is on its disk.
    sql("CHECKPOINT");
    let found: usize = sql("SELECT COUNT(*) FROM tasks").trim().parse().unwrap();
    server.stop();
    assert_eq!(child.wait().unwrap().code(), Some(11), "too late to stop");
    server.start();
    assert!(rows_found(&again(home, &there).await) > found);
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
        let arguments = ["manifest", "migrate", "--from", from, "--to", to];
        let outcome = home.run(&arguments).await;
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
