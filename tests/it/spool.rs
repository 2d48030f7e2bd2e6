//! The spool folder: what is dropped there is learned once, and moved with a reason where it is not.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use reelvault::simulator;
use serde_json::Value;

use crate::process::Outside;

/// How often a folder is looked at: nothing tells of a file but looking.
const LOOK_EVERY: Duration = Duration::from_millis(20);

struct Spooled {
    outside: Outside,
    folder: PathBuf,
}

async fn spooled() -> Spooled {
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let folder = outside.home.path().join("spool");
    fs::create_dir(&folder).unwrap();
    let extra = format!("[spool]\npath = \"{}\"\n", folder.display());
    outside.home.configure(&outside.config("", &extra));
    Spooled { outside, folder }
}

impl Spooled {
    /// Writes a file as one should: under another name, then renamed.
    fn drop_file(&self, name: &str, text: &str) {
        let unfinished = self.folder.join(format!(".{name}"));
        fs::write(&unfinished, text).unwrap();
        fs::rename(unfinished, self.folder.join(name)).unwrap();
    }

    /// Waits for a file that is moved here, and gives what is in it.
    async fn moved(&self, place: &str) -> String {
        let path = self.folder.join(place);
        // A reason is written before its file comes.
        let last = self.folder.join(place.trim_end_matches(".reason.txt"));
        let look = async {
            while !last.exists() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let moved = tokio::time::timeout(Duration::from_secs(30), look).await;
        moved.unwrap_or_else(|_| panic!("{place} never comes: {:?}", self.names()));
        fs::read_to_string(path).unwrap()
    }

    /// What lies in the folder itself.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).unwrap();
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    async fn tasks(&self) -> Vec<(String, Value)> {
        let listed = self.outside.home.run(&["tasks", "--json"]).await.stdout;
        let records = listed.lines().map(|line| {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["learned_via"], "spool");
            (
                record["task_id"].as_str().unwrap().to_owned(),
                record["tags"].clone(),
            )
        });
        records.collect()
    }
}

#[tokio::test]
async fn what_is_dropped_is_learned_and_moved() {
    let spool = spooled().await;
    let ids = spool.outside.submit(1);
    let daemon = spool.outside.home.start().await;
    let line = format!(
        "{{\"task_id\": \"{}\",\n \"tags\": {{\"customer\": \"x\"}}}}",
        ids[0]
    );
    spool.drop_file("one.json", &line);
    spool.drop_file("many.json", r#"["b", {"task_id": "c", "provider": "sim"}]"#);
    spool.drop_file("lines.jsonl", "d\n{\"task_id\":\"e\"}\n");
    for name in ["one.json", "many.json", "lines.jsonl"] {
        spool.moved(&format!("done/{name}")).await;
    }
    let tasks = spool.tasks().await;
    assert_eq!(tasks.len(), 5, "{tasks:?}");
    let first = tasks
        .iter()
        .find(|(id, _)| *id == ids[0].to_string())
        .unwrap();
    assert_eq!(first.1["customer"], "x");
    // The same again is known, and overwrites nothing.
    spool.drop_file("one.json", &line);
    spool.moved("done/one.json.1").await;
    assert_eq!(spool.tasks().await.len(), 5);
    assert_eq!(spool.names(), ["done"]);
    spool.outside.archived(&daemon).await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_good_is_taken_and_the_rest_has_a_reason() {
    let spool = spooled().await;
    let daemon = spool.outside.home.start().await;
    spool.drop_file(
        "mixed",
        "good\n{\"task_id\":\"also-good\"}\n{\"task_id\":7}\nno good\n{\n",
    );
    spool.drop_file("junk", "ftypisom\n\u{0}mdat\n");
    spool.drop_file("empty", "\n");
    spool.drop_file("cut.json", "[{\"task_id\":\"cut\"}, {");
    spool.drop_file("other", r#"{"task_id":"x","provider":"nobody"}"#);
    let reason = spool.moved("failed/mixed.reason.txt").await;
    insta::assert_snapshot!(reason, @r#"
    2 taken, 3 not:
    line 3: invalid type: integer `7`, expected a string
    line 4: "no good" is not a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)
    line 5: EOF while parsing an object
    "#);
    let reason = spool.moved("failed/other.reason.txt").await;
    insta::assert_snapshot!(reason, @r#"
    0 taken, 1 not:
    task 1: no provider "nobody": there is sim
    "#);
    for name in ["mixed", "junk", "empty", "cut.json", "other"] {
        spool.moved(&format!("failed/{name}")).await;
    }
    let reason = spool.moved("failed/junk.reason.txt").await;
    assert_eq!(reason, "0 taken, 1 not:\nnot a text: byte 9 is zero\n");
    daemon.says_times("a file has mistakes", 5).await;
    assert_eq!(spool.names(), ["failed"]);
    let tasks: Vec<String> = spool.tasks().await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(tasks, ["good", "also-good"]);
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_not_finished_or_no_file_is_left_alone() {
    let spool = spooled().await;
    let secret = spool.outside.home.path().join("elsewhere");
    fs::write(&secret, "elsewhere\n").unwrap();
    std::os::unix::fs::symlink(&secret, spool.folder.join("link")).unwrap();
    fs::create_dir(spool.folder.join("folder")).unwrap();
    for name in [".hidden", "a.tmp", "b.part"] {
        fs::write(spool.folder.join(name), "unfinished\n").unwrap();
    }
    let growing = spool.folder.join("growing");
    fs::write(&growing, "first\n").unwrap();
    let daemon = spool.outside.home.start().await;
    // Somebody writes in place, slowly: as long as it grows, nothing of it is taken.
    for number in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let text = fs::read_to_string(&growing).unwrap();
        fs::write(&growing, format!("{text}more{number}\n")).unwrap();
        assert!(spool.tasks().await.is_empty());
    }
    spool.moved("done/growing").await;
    assert_eq!(spool.tasks().await.len(), 7);
    daemon.stop().await;
    assert_eq!(
        spool.names(),
        [".hidden", "a.tmp", "b.part", "done", "folder", "link"]
    );
}

#[tokio::test]
async fn a_daemon_that_died_before_the_move_takes_the_file_once_more() {
    let spool = spooled().await;
    let count = 5_000;
    let lines: Vec<String> = (0..count).map(|number| format!("task{number}")).collect();
    spool.drop_file("big", &lines.join("\n"));
    // Killed as soon as something of it is known, which is before all of it is, or just before the move.
    let daemon = spool.outside.home.start().await;
    while spool.tasks().await.is_empty() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    daemon.kill().await;
    let daemon = spool.outside.home.start().await;
    spool.moved("done/big").await;
    assert_eq!(spool.tasks().await.len(), count);
    daemon.stop().await;
    assert_eq!(spool.names(), ["done"]);
}

#[tokio::test]
async fn once_takes_what_lies_there() {
    let spool = spooled().await;
    let ids = spool.outside.submit(1);
    spool.drop_file("x", &format!("{}\n", ids[0]));
    spool.outside.home.done(&["run", "--once"]).await;
    assert_eq!(spool.names(), ["done"]);
    let status: Value =
        serde_json::from_str(&spool.outside.home.done(&["status", "--json"]).await).unwrap();
    assert_eq!(status["assets"]["archived"], 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told_once_and_harms_nobody() {
    let spool = spooled().await;
    let away = spool.folder.with_extension("away");
    fs::rename(&spool.folder, &away).unwrap();
    let daemon = spool.outside.home.start().await;
    daemon.says("spool: ").await;
    spool.outside.home.done(&["add", "x"]).await;
    fs::rename(&away, &spool.folder).unwrap();
    daemon.says("the folder can be used again").await;
    spool.drop_file("y", "y\n");
    spool.moved("done/y").await;
    // A `done` that is no folder: the file stays, is told of once, and not learned again and again.
    fs::remove_dir_all(spool.folder.join("done")).unwrap();
    fs::write(spool.folder.join("done"), "").unwrap();
    spool.drop_file("z", "z\n");
    let log = daemon.says("cannot be moved").await;
    assert_eq!(log.matches("cannot be moved").count(), 1);
    fs::remove_file(spool.folder.join("done")).unwrap();
    spool.drop_file("z", "z\nagain\n");
    spool.moved("done/z").await;
    let log = daemon.stop().await;
    assert_eq!(log.matches("cannot be moved").count(), 1, "{log}");
}
