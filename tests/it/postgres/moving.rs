//! A user moves the manifest: from a file to a server while uploads are open, and back.

use std::time::Duration;

use reelvault::simulator::bucket::Operation;

use super::beside;
use super::check;
use super::machine;
use super::outside;
use super::server::Server;
use crate::process::Home;
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

/// Runs a move and kills it as soon as its mark can be seen.
async fn kill_midway(home: &Home, arguments: &[&str], is_marked: impl Fn() -> bool) {
    let mut child = home.command(arguments).spawn().unwrap();
    let marked = async {
        while !is_marked() {
            assert!(child.try_wait().unwrap().is_none(), "ended without a mark");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, marked).await.unwrap();
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "too late to kill");
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
async fn a_move_that_is_killed_leaves_what_no_daemon_takes() {
    let (server, outside) = (Server::shared(), outside().await);
    let (home, database) = (&outside.home, server.database());
    let file = format!("sqlite:{}/manifest.db", home.path().display());
    let ids: Vec<String> = (0..MANY).map(|number| format!("task-{number}")).collect();
    std::fs::write(home.path().join("ids"), ids.join("\n")).unwrap();
    home.done(&["import", "ids"]).await;
    let there = [
        "manifest",
        "migrate",
        "--from",
        &file,
        "--to",
        &database.url,
    ];
    let marks = "SELECT COUNT(*) FROM pg_tables WHERE tablename = 'reelvault_moving'";
    kill_midway(home, &there, || server.sql(&database.name, marks) == "1\n").await;
    home.configure(&machine(&outside, &database.url, "one", ""));
    refused_as_unfinished(home).await;
    // The server may not know yet that nobody is there any more.
    let ended = home.prints(&there, "compared row by row").await;
    check(&ended, &MANY.to_string());

    let back = home.path().join("back.db");
    let to = format!("sqlite:{}", back.display());
    let home_again = ["manifest", "migrate", "--from", &database.url, "--to", &to];
    let unfinished = home.path().join("back.db.moving");
    kill_midway(home, &home_again, || unfinished.exists()).await;
    assert!(!back.exists());
    home.configure(&outside.config("", "").replace(&file, &to));
    refused_as_unfinished(home).await;
    home.prints(&home_again, "compared row by row").await;
    let tasks = home.done(&["status", "--json"]).await;
    check(&tasks, &format!("\"watching\":{MANY}"));
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
