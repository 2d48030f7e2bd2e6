//! Bulk import: files of any length, in both forms, of which the good lines are taken and the bad ones told.

use reelvault::simulator;
use serde_json::Value;

use crate::process::Outcome;
use crate::process::Outside;

async fn outside() -> Outside {
    Outside::new(simulator::Config::at_once(), "videos").await
}

/// Writes a file and imports it.
async fn import(outside: &Outside, name: &str, text: &str, more: &[&str]) -> Outcome {
    std::fs::write(outside.home.path().join(name), text).unwrap();
    let arguments: Vec<&str> = ["import", name]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    outside.home.run(&arguments).await
}

async fn tags(outside: &Outside, id: &str) -> Value {
    let tags = ["manifest", "get", id, "--field", "tags"];
    serde_json::from_str(&outside.home.done(&tags).await).unwrap()
}

#[tokio::test]
async fn good_lines_are_taken_and_bad_ones_told_by_their_number() {
    let outside = outside().await;
    let text = "task_id,provider,tags.customer\na,sim,x\nb b,sim,\nc,,\"y, z\"\nd,nobody,\ne,sim\n\"f,sim,x\n";
    let outcome = import(&outside, "tasks.csv", text, &["-t", "batch=7"]).await;
    assert_eq!(outcome.code, 3, "{outcome:?}");
    insta::assert_snapshot!(format!("{}--\n{}", outcome.stdout, outcome.stderr), @r#"
    2 learned, 0 known already, 4 bad
    --
    error: line 3: "b b" is not a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)
    error: line 5: no provider "nobody": there is sim
    error: line 6: 2 values, where the header has 3 columns
    error: line 7: a quote is not closed
    note: no daemon is running; they are archived once one is: `reelvault run`
    "#);
    assert_eq!(
        tags(&outside, "a").await,
        serde_json::json!({"batch": "7", "customer": "x"})
    );
    assert_eq!(
        tags(&outside, "c").await,
        serde_json::json!({"batch": "7", "customer": "y, z"})
    );

    // The same again, from standard input and in the other form, changes nothing.
    let lines = "a\n{\"task_id\":\"c\",\"tags\":{\"customer\":\"other\"}}\n{\"task_id\":\"g\"}\n";
    let again = outside
        .home
        .run_with(&["import", "-", "--json"], lines)
        .await;
    assert_eq!(again.code, 0, "{again:?}");
    let summary: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(
        (&summary["learned"], &summary["known"]),
        (&1.into(), &2.into())
    );
    assert_eq!(tags(&outside, "c").await["customer"], "y, z");
    let csv = outside
        .home
        .run_with(&["import", "-", "--format", "csv"], "id\nh\n")
        .await;
    assert_eq!(csv.stdout, "1 learned, 0 known already, 0 bad\n");
}

#[tokio::test]
async fn a_dry_run_tells_the_same_and_changes_nothing() {
    let outside = outside().await;
    let text = "a\nb b\n{\"task_id\":\"c\"}\n";
    let outcome = import(&outside, "tasks.jsonl", text, &["--dry-run"]).await;
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (3, "2 would be announced, 1 bad\n")
    );
    assert!(
        outcome.stderr.contains("line 2: \"b b\" is not a task ID"),
        "{outcome:?}"
    );
    assert!(
        !outside.home.path().join("manifest.db").exists(),
        "not even a manifest"
    );
    let outcome = import(&outside, "tasks.jsonl", text, &["-n", "--json"]).await;
    let summary: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(summary["is_dry_run"], true);
}

#[tokio::test]
async fn what_cannot_be_imported_at_all_says_why() {
    let outside = outside().await;
    let nothing = import(&outside, "empty.csv", "", &[]).await;
    assert_eq!(nothing.code, 2);
    insta::assert_snapshot!(nothing.stderr, @"
    error: the header: there is none
    hint:  the first line names the columns, such as task_id,provider,tags.customer
    ");
    let columns = import(&outside, "x.csv", "task_id,tag_customer\na,b\n", &[]).await;
    assert_eq!(columns.code, 2);
    assert!(
        columns.stderr.contains("unknown column \"tag_customer\""),
        "{columns:?}"
    );
    let junk = import(&outside, "junk", "a b\n\u{0}\n", &[]).await;
    assert_eq!(
        (junk.code, junk.stdout.as_str()),
        (2, "0 learned, 0 known already, 2 bad\n")
    );
    let missing = outside.home.run(&["import", "nowhere.csv"]).await;
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.starts_with("error: nowhere.csv: "),
        "{missing:?}"
    );
    let folder = outside.home.run(&["import", "."]).await;
    assert_eq!(folder.code, 1, "{folder:?}");
    assert!(folder.stderr.contains("hint:  "), "{folder:?}");
}

#[tokio::test]
async fn a_running_daemon_archives_what_is_imported() {
    let outside = outside().await;
    let ids = outside.submit(3);
    let daemon = outside.home.start().await;
    let lines: Vec<String> = ids.iter().map(|id| format!("{id};sim")).collect();
    let text = format!("task_id;provider\n{}\n", lines.join("\n"));
    let outcome = import(&outside, "tasks.csv", &text, &[]).await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""));
    outside.archived(&daemon).await;
    daemon.stop().await;
    outside.assert_all_safe();
}

#[tokio::test]
async fn many_lines_are_taken_in_batches() {
    const COUNT: usize = 20_000;
    let outside = outside().await;
    let mut text = "task_id,tags.n\n".to_owned();
    for number in 0..COUNT {
        text.push_str(&format!("task{number},{number}\n"));
        if number % 1000 == 0 {
            text.push_str("no good,x\n");
        }
    }
    let outcome = import(&outside, "many.csv", &text, &[]).await;
    assert_eq!(outcome.code, 3);
    assert_eq!(
        outcome.stdout,
        format!("{COUNT} learned, 0 known already, {} bad\n", COUNT / 1000)
    );
    assert!(
        outcome.stderr.contains("error: line 3: "),
        "{}",
        outcome.stderr
    );
    let status: Value =
        serde_json::from_str(&outside.home.run(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(status["tasks"]["watching"], COUNT);
}
