//! Every command by its face: what it prints, how it ends, and what it never says.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::io::BufReader;

use reelvault::simulator;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::tasks::Status;
use serde_json::Value;

use crate::process::Home;
use crate::process::Outcome;
use crate::process::Outside;
use crate::world::FIRST;
use crate::world::sha256;
use crate::world::variables;

/// Every command that there is.
const COMMANDS: &[&str] = &[
    "",
    "run",
    "demo",
    "init",
    "check",
    "check provider",
    "add",
    "import",
    "fetch",
    "tasks",
    "task",
    "task show",
    "task retry",
    "task forget",
    "url",
    "get",
    "status",
    "events",
    "events list",
    "events replay",
    "manifest",
    "manifest get",
    "manifest list",
    "manifest export",
    "manifest verify",
    "manifest rebuild",
    "manifest migrate",
    "config",
    "config show",
    "simulate",
    "completions",
    "man",
];

/// Tasks that are completed already, with small files.
async fn outside() -> Outside {
    let config = simulator::Config {
        api_key: Some("sk-canary-provider".to_owned()),
        ..simulator::Config::at_once()
    };
    Outside::new(config, "videos").await
}

/// A folder without a configuration.
fn nowhere() -> Home {
    Home::new(BTreeMap::new())
}

/// What a user sees of a command, with what differs from run to run blotted out.
fn face(outcome: &Outcome, blots: &[(&str, &str)]) -> String {
    let mut face = format!(
        "{}--\n{}=> {}",
        outcome.stdout, outcome.stderr, outcome.code
    );
    for (text, blot) in blots {
        face = face.replace(text, blot);
    }
    face
}

#[tokio::test]
async fn every_command_has_help() {
    let home = nowhere();
    for command in COMMANDS {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = home.done(&arguments).await;
        assert!(help.contains("Usage: reelvault"), "{help}");
        // Each argument and option says what it is for.
        let undescribed = help
            .lines()
            .filter(|line| line.trim_start().starts_with('-'));
        for line in undescribed {
            assert!(line.contains("  ") && line.trim().contains(' '), "{line}");
        }
    }
    let bare = home.run(&[]).await;
    assert_eq!((bare.code, bare.stdout.as_str()), (2, ""));
}

#[tokio::test]
async fn packages_get_a_page_for_each_command_and_a_script_for_each_shell() {
    let home = Home::new(BTreeMap::new());
    let pages = home.path().join("man1");
    let none = home.run(&["man", "man1"]).await;
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.stderr.contains("DIR is a folder"), "{none:?}");
    std::fs::create_dir(&pages).unwrap();
    let planned = home.done(&["man", "-n", "man1"]).await;
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), 0);
    assert_eq!(home.done(&["man", "man1"]).await, planned);
    let mut written: Vec<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    written.sort();
    let mut wanted: Vec<String> = COMMANDS
        .iter()
        .map(|command| ["reelvault", command].join(" "))
        .map(|command| format!("{}.1", command.trim().replace(' ', "-")))
        .collect();
    wanted.sort();
    assert_eq!(written, wanted);
    let page = std::fs::read_to_string(pages.join("reelvault-manifest-get.1")).unwrap();
    assert!(page.contains("\\fBreelvault manifest get\\fR"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        let script = home.done(&["completions", shell]).await;
        for part in ["at-risk", "migrate"] {
            assert!(script.contains(part), "{shell}: {part}");
        }
    }
    let unknown = home.run(&["completions", "tcsh"]).await;
    assert_eq!(unknown.code, 2, "{unknown:?}");
    assert!(unknown.stderr.contains("fish"), "{unknown:?}");
}

#[tokio::test]
async fn without_a_configuration_nothing_starts() {
    let home = nowhere();
    let commands: &[&[&str]] = &[
        &["run"],
        &["check"],
        &["tasks"],
        &["status"],
        &["add", "x"],
        &["task", "show", "x"],
        &["manifest", "list"],
        &["config", "show"],
    ];
    for command in commands {
        let outcome = home.run(command).await;
        assert_eq!(outcome.code, 78, "{command:?}: {outcome:?}");
        insta::allow_duplicates! {
            insta::assert_snapshot!(outcome.stderr, @"
            error: no configuration: neither reelvault.toml nor /etc/reelvault/reelvault.toml exists
            hint:  `reelvault init` writes one; -c FILE names another
            ");
        }
    }
    home.configure("[transfer\n");
    for command in commands {
        let outcome = home.run(command).await;
        assert_eq!(outcome.code, 78, "{command:?}: {outcome:?}");
        assert!(outcome.stderr.starts_with("error: "), "{outcome:?}");
    }
}

#[tokio::test]
async fn init_writes_once_and_its_file_is_understood() {
    let url = ("REELVAULT__MANIFEST__URL", "sqlite:/nowhere/manifest.db");
    let home = Home::new(BTreeMap::from([(url.0.to_owned(), url.1.to_owned())]));
    let first = home.run(&["init"]).await;
    insta::assert_snapshot!(face(&first, &[]), @"
    wrote reelvault.toml
    --
    next:  put the secrets that it names into the environment or, under systemd, into credentials
           (LoadCredential=NAME:/path in the unit); then `reelvault check` tries everything at once
    => 0
    ");
    let written = std::fs::read_to_string(home.config()).unwrap();
    assert_eq!(home.done(&["init", "-n"]).await, written);
    home.configure("# mine\n");
    let second = home.run(&["init"]).await;
    insta::assert_snapshot!(face(&second, &[]), @"
    --
    error: reelvault.toml exists already and is not overwritten
    hint:  -c FILE names another place, -n only prints
    => 1
    ");
    assert_eq!(std::fs::read_to_string(home.config()).unwrap(), "# mine\n");

    home.configure(&written);
    let shown = home.done(&["config", "show"]).await;
    assert!(shown.contains("EVOLINK_API_KEY"), "{shown}");
    let check = home.run(&["check", "--offline"]).await;
    insta::assert_snapshot!(face(&check, &[]), @"
    ok    configuration     reelvault.toml
    FAIL  manifest          no folder /nowhere to put the manifest in
                            hint: make it, owned by the service user; or set manifest.url
    FAIL  provider.evolink  reelvault.toml:5:22: provider.evolink.api_key.env: environment variable EVOLINK_API_KEY is not set
    FAIL  destination.main  reelvault.toml:10:22: destination.main.r2.access_key.env: environment variable R2_ACCESS_KEY is not set
    FAIL  destination.main  reelvault.toml:11:22: destination.main.r2.secret_key.env: environment variable R2_SECRET_KEY is not set
    --
    => 78
    ");
}

#[tokio::test]
async fn what_is_not_there_is_said_so() {
    let outside = outside().await;
    let home = &outside.home;
    let early = home.run(&["status"]).await;
    let folder = home.path().display().to_string();
    insta::assert_snapshot!(face(&early, &[(&folder, "FOLDER")]), @"
    --
    error: no manifest at FOLDER/manifest.db
    hint:  the daemon makes it at its first start; manifest.url says where
    => 11
    ");

    outside.add(1).await;
    let commands: &[&[&str]] = &[
        &["task", "show", "nope"],
        &["task", "retry", "nope"],
        &["task", "retry", "nope", "-n"],
        &["task", "forget", "nope"],
        &["manifest", "get", "nope"],
    ];
    for command in commands {
        let outcome = home.run(command).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (6, ""));
        assert!(outcome.stderr.contains("no task nope in the manifest"));
    }
    for command in [
        ["task", "show", "a//b"],
        ["manifest", "get", "a b"],
        ["task", "forget", ""],
    ] {
        assert_eq!(home.run(&command).await.code, 2, "{command:?}");
    }
    let fetch = home
        .run(&["fetch", "http://127.0.0.1:1/x", "--to", "nope"])
        .await;
    insta::assert_snapshot!(face(&fetch, &[]), @r#"
    --
    error: no destination "nope"
    hint:  configured are: main
    => 2
    "#);
    let no_link = "only http and https addresses can be fetched";
    for url in ["file:///etc/passwd", "data:,x", "ftp://127.0.0.1/a.mp4"] {
        for dry_run in [&[][..], &["-n"]] {
            let command = [&["fetch", url, "--to", "main"], dry_run].concat();
            let outcome = home.run(&command).await;
            assert_eq!(outcome.code, 2, "{command:?}: {outcome:?}");
            assert!(outcome.stderr.contains(no_link), "{outcome:?}");
        }
    }
    for (arguments, part) in [
        (["tasks", "--state", "gone"], "archived, lost"),
        (["tasks", "--provider", "smi"], "configured are: sim"),
        (["tasks", "--since", "soon"], "2h"),
        (["add", "a/b", "-n"], "task ID"),
        (["add", "x", "--provider=other"], "there is sim"),
        (["add", "x", "--tag=y"], "KEY=VALUE"),
    ] {
        let outcome = home.run(&arguments).await;
        assert_eq!(outcome.code, 2, "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_manifest_that_cannot_be_is_said_so() {
    let outside = outside().await;
    let home = &outside.home;
    let config = outside
        .config("", "")
        .replace("/manifest.db", "/not/there/manifest.db");
    home.configure(&config);
    for command in [
        &["run"][..],
        &["run", "--once"],
        &["add", "x"],
        &["tasks"],
        &["status"],
    ] {
        let outcome = home.run(command).await;
        assert_eq!(outcome.code, 11, "{command:?}: {outcome:?}");
        assert!(
            outcome
                .stderr
                .contains("/not/there to put the manifest in\nhint:  make it"),
            "{outcome:?}"
        );
    }
    let check = home.run(&["check", "--offline"]).await;
    assert_eq!(check.code, 11);
    assert!(check.stdout.contains("hint: make it"), "{check:?}");
}

#[tokio::test]
async fn what_only_a_start_needs_is_checked_too() {
    const KEY: &str = "whsec_MfKQ9r8GKYqTwjUPD8ILPZo2LaLaSwTwxxU6mPpC9Kk=";
    let outside = outside().await;
    let home = &outside.home;
    let extra = "[server]\nlisten = \"127.0.0.1:0\"\nsocket = \"HOME/taken\"\ntoken = { env = \"NO_TOKEN\" }\n\
                 [callback]\nsecret = { file = \"HOME/no-key\" }\n\
                 [[notify]]\nname = \"app\"\nurl = \"https://app.test/\"\nwhen = [\"lost\"]\nsecret = { env = \"NO_KEY\" }\n";
    let extra = extra.replace("HOME", &home.path().display().to_string());
    let config = outside.config("", &extra);
    std::fs::write(home.path().join("taken"), "").unwrap();
    home.configure(&config);
    let check = home.run(&["check", "--offline"]).await;
    assert_eq!(check.code, 78, "{check:?}");
    for what in [
        "server.token.env: environment variable NO_TOKEN is not set",
        "taken is there already, and is no socket",
        "callback.secret.file: secret file",
        "notify[0].secret.env: environment variable NO_KEY is not set",
    ] {
        assert!(check.stdout.contains(what), "{what}\n{}", check.stdout);
    }
    // The daemon tells all of them at once, each with its line.
    let all = home.run(&["run"]).await;
    for key in [
        "server.token.env",
        "callback.secret.file",
        "notify[0].secret.env",
    ] {
        let told = all
            .stderr
            .lines()
            .any(|line| line.contains("reelvault.toml:") && line.contains(key));
        assert!(told, "{key}\n{}", all.stderr);
    }
    // Each by itself keeps the daemon from starting, and no restart would help.
    let mut config = config;
    for (broken, mended) in [
        ("taken\"", "free\""),
        ("token = { env = \"NO_TOKEN\" }\n", ""),
        ("no-key", "key"),
        ("", ""),
    ] {
        let run = home.run(&["run"]).await;
        assert_eq!(run.code, 78, "{broken}: {run:?}");
        assert!(!run.stderr.contains("another daemon"), "{run:?}");
        std::fs::write(home.path().join("key"), KEY).unwrap();
        config = config.replace(broken, mended);
        home.configure(&config);
    }
    let absent = outside.config(
        "",
        "[server]\nlisten = \"192.0.2.1:0\"\ntoken = { file = \"key\" }\n",
    );
    home.configure(&absent);
    let run = home.run(&["run"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(!run.stderr.contains("another daemon"), "{run:?}");
    std::fs::create_dir(home.path().join("folder")).unwrap();
    home.configure(&outside.config("", "").replace("/manifest.db", "/folder"));
    for command in [&["run"][..], &["check", "--offline"], &["tasks"]] {
        let outcome = home.run(command).await;
        assert_eq!(outcome.code, 78, "{outcome:?}");
        let said = outcome.stdout + &outcome.stderr;
        assert!(
            said.contains("is a folder, and a manifest is a file"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn what_may_be_there_later_ends_a_start_in_a_way_that_is_tried_again() {
    let outside = outside().await;
    let home = &outside.home;
    let folder = home.path().join("mount");
    let copy = format!("[destination.copy.fs]\npath = {folder:?}\nfree_min = \"0 B\"\n");
    let token = format!(
        "[server]\ntoken = {{ file = {:?} }}\n",
        home.path().join("token")
    );
    for (extra, code, told) in [
        (copy.clone(), 1, "destination.copy.fs.path"),
        (token, 1, "server.token.file"),
        // A mistake beside it is none that passes.
        (format!("{copy}mode = \"0000\"\n"), 78, "mode"),
    ] {
        home.configure(&outside.config("", &extra));
        let run = home.run(&["run"]).await;
        assert_eq!(run.code, code, "{run:?}");
        assert!(run.stderr.contains(told), "{run:?}");
        assert_eq!(home.run(&["check", "--offline"]).await.code, 78);
    }
    home.configure(&outside.config("", &copy));
    std::fs::create_dir(&folder).unwrap();
    home.start().await.stop().await;
}

#[tokio::test]
async fn check_says_as_much_as_it_can() {
    let outside = outside().await;
    let home = &outside.home;
    outside.add(1).await;
    // What an upgrade finds before the new daemon has started.
    let path = home.path().join("manifest.db");
    let manifest = rusqlite::Connection::open(&path).unwrap();
    let schema: u32 = manifest
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .unwrap();
    manifest
        .pragma_update(None, "user_version", schema - 1)
        .unwrap();
    drop(manifest);
    let check = home.run(&["check", "--offline"]).await;
    assert_eq!(check.code, 0, "{check:?}");
    assert!(check.stdout.contains("warn  manifest "), "{check:?}");
    assert!(check.stdout.contains("when it starts"), "{check:?}");

    // Without the network nobody asks a server.
    let config = outside.config("", "[heartbeat]\nurl = \"https://hc.test/x\"\n");
    let file = format!("sqlite:{}", path.display());
    home.configure(&config.replace(&file, "postgres://reelvault@db.invalid/reelvault"));
    let check = home.run(&["check", "--offline"]).await;
    assert_eq!(check.code, 0, "{check:?}");
    assert!(
        check
            .stdout
            .contains("manifest          configured; not tried"),
        "{check:?}"
    );
    assert!(
        check.stdout.contains("heartbeat         configured"),
        "{check:?}"
    );

    home.configure("[transfer]\nconcurrent = \"many\"\n");
    let check = home.run(&["check", "--json"]).await;
    let told: Value = serde_json::from_str(&check.stdout).unwrap();
    assert_eq!((check.code, &told["grade"]), (78, &"fail".into()));
    assert!(
        told["what"]
            .as_str()
            .unwrap()
            .contains("transfer.concurrent")
    );
}

#[tokio::test]
async fn lines_that_cannot_be_are_named_and_the_rest_is_taken() {
    let outside = outside().await;
    let lines = "good-1\n\n  good-2 \na b\n{\"task_id\": \"good-3\", \"tags\": {\"k\": \"v\"}}\n{\"task_id\": \"a/b\"}\n{\"task\": 1}\n{\"task_id\": \"x\", \"provider\": \"other\"}\n{\n\u{e4}\ngood-1";
    let outcome = outside
        .home
        .run_with(&["add", "-", "--tag", "a=b"], lines)
        .await;
    insta::assert_snapshot!(face(&outcome, &[]), @r#"
    sim good-1: learned
    sim good-2: learned
    sim good-3: learned
    sim good-1: known, watching
    --
    error: line 4: "a b" is not a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)
    error: line 6: a/b is no task ID of this provider: its IDs have no slash
    error: line 7: unknown field `task`, expected one of `task_id`, `provider`, `tags`, `callback_url`
    error: line 8: no provider "other": there is sim
    error: line 9: EOF while parsing an object
    error: line 10: "ä" is not a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)
    note: no daemon is running; they are archived once one is: `reelvault run`
    => 3
    "#);
    let tags = ["manifest", "get", "good-3", "--field", "tags"];
    assert_eq!(
        outside.home.done(&tags).await,
        "{\"a\":\"b\",\"k\":\"v\"}\n"
    );
    let nothing = outside.home.run_with(&["add", "-"], "a b\n").await;
    assert_eq!(nothing.code, 2);
    let empty = outside.home.run_with(&["add", "-"], "\n").await;
    insta::assert_snapshot!(face(&empty, &[]), @"
    --
    note: standard input names no task, so there is nothing to announce
    => 0
    ");
}

#[tokio::test]
async fn waiting_needs_a_daemon_and_ends_as_the_tasks_do() {
    let outside = outside().await;
    let id = outside.submit(1).remove(0);
    let alone = outside.home.run(&["add", "--wait", id.as_str()]).await;
    insta::assert_snapshot!(face(&alone, &[(id.as_str(), "TASK")]), @"
    sim TASK: learned
    --
    error: no daemon is running, so nothing would come of waiting
    hint:  the tasks are announced; start one with `reelvault run`, or `reelvault run --once`
    => 10
    ");
    let daemon = outside.home.start().await;
    let waited = outside.home.run(&["add", id.as_str(), "--wait=30s"]).await;
    assert_eq!(waited.code, 0, "{waited:?}");
    let end = format!("sim {id}: archived\n");
    assert!(waited.stdout.ends_with(&end), "{waited:?}");

    let slow = outside.submit(1).remove(0);
    assert!(outside.simulator.push(&slow, Status::Processing(10)));
    let waited = outside.home.run(&["add", slow.as_str(), "--wait=1s"]).await;
    insta::assert_snapshot!(face(&waited, &[(slow.as_str(), "TASK")]), @"
    sim TASK: learned
    --
    error: 1 of 1 tasks did not end within 1 s
    hint:  `reelvault task show ID` says what each waits for
    => 5
    ");
    daemon.stop().await;
}

#[tokio::test]
async fn status_tells_the_risk_by_its_exit_code() {
    let outside = outside().await;
    let home = &outside.home;
    let config = outside
        .config("", "")
        .replace("requests =", "output_ttl = \"1h\"\nrequests =");
    home.configure(&config);
    outside.add(2).await;
    // The last third of an hour has begun.
    let manifest = rusqlite::Connection::open(home.path().join("manifest.db")).unwrap();
    let late =
        "UPDATE tasks SET learned_at = learned_at - 2700000, deadline_at = deadline_at - 2700000";
    assert_eq!(manifest.execute(late, []).unwrap(), 2);
    drop(manifest);
    let risk = home.run(&["status"]).await;
    let ids = outside.simulator.tasks();
    let shown = home.done(&["task", "show", ids[0].as_str()]).await;
    assert!(
        shown.contains("\nnext look due; looks that bring no news leave no trace here\n"),
        "{shown}"
    );
    let blots = [
        (ids[0].as_str(), "TASK"),
        (ids[1].as_str(), "TASK"),
        (" 59 s", ""),
    ];
    insta::assert_snapshot!(face(&risk, &blots), @"
    RISK 2 videos may be lost, the first in 14 min (TASK)
         hint:  no daemon is running: start it with `reelvault run`
         2 watched, 0 due, 0 archived (0 B), 0 refused, 0 failed upstream
         the next deadline is in 14 min
    --
    note: no daemon is running; this is the manifest as it was left
    => 4
    ");
    let tasks = home.done(&["tasks", "--at-risk"]).await;
    assert_eq!(tasks.matches("  14 min ").count(), 2, "{tasks}");
    let tasks = home.done(&["tasks", "--at-risk", "--json"]).await;
    assert_eq!(tasks.lines().count(), 2);
    let json: Value = serde_json::from_str(&home.run(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(
        (&json["verdict"], &json["at_risk"]),
        (&"at_risk".into(), &2.into())
    );

    assert_eq!(home.run(&["run", "--once"]).await.code, 0);
    let fine = home.run(&["status"]).await;
    insta::assert_snapshot!(fine.stdout, @"
    OK   nothing is at risk
         0 watched, 0 due, 2 archived (128 KiB), 0 refused, 0 failed upstream
    ");
    assert!(home.done(&["tasks", "--at-risk"]).await.is_empty());

    home.configure(&outside.config("", "[poll]\ngive_up = \"1ms\"\n"));
    let slow = outside.submit(1).remove(0);
    assert!(outside.simulator.push(&slow, Status::Processing(10)));
    home.done(&["add", slow.as_str()]).await;
    home.run(&["run", "--once"]).await;
    let given_up = home.run(&["status"]).await.stdout;
    let line = "     1 abandoned: `reelvault task retry` looks at one again\n";
    assert!(given_up.contains(line), "{given_up}");
}

#[tokio::test]
async fn what_was_archived_can_be_read_in_every_form() {
    let outside = outside().await;
    let home = &outside.home;
    outside.add(2).await;
    let once = home.run(&["run", "--once"]).await;
    assert_eq!((once.code, once.stdout.as_str()), (0, ""));
    outside.assert_all_safe();
    let id = outside.simulator.tasks()[0].to_string();

    for lines in [
        &["tasks", "--json"][..],
        &["manifest", "list", "--json"],
        &["manifest", "export"],
    ] {
        let lines = home.done(lines).await;
        assert_eq!(lines.lines().count(), 2);
        for line in lines.lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["format"], "reelvault.manifest.v1");
            assert_eq!(record["state"], "archived");
        }
    }
    let record: Value = serde_json::from_str(&home.done(&["manifest", "get", &id]).await).unwrap();
    let url = record["assets"][0]["objects"][0]["url"].as_str().unwrap();
    let objects = outside.bucket.objects();
    let object = objects
        .iter()
        .find(|object| object.key.contains(&id))
        .unwrap();
    let key = &object.key;
    assert_eq!(url, format!("s3://videos/{key}"));
    for (path, value) in [
        ("state", "archived"),
        ("assets.0.objects.0.url", url),
        ("assets.0.media.duration", "5.0"),
        ("attempts", "1"),
    ] {
        let field = home.done(&["manifest", "get", &id, "--field", path]).await;
        assert_eq!(field, format!("{value}\n"));
    }
    assert_eq!(
        home.run(&["manifest", "get", &id, "--field", "x.y"])
            .await
            .code,
        6
    );

    let csv = home.done(&["manifest", "export", "--format", "csv"]).await;
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3);
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let column = rows[0].iter().position(|name| *name == "url").unwrap();
    assert_eq!(rows[1][column], url);
    let media = rows[1].iter().rev().take(4).rev();
    assert_eq!(
        media.copied().collect::<Vec<_>>(),
        ["5", "16", "16", "avc1.42C029"]
    );

    let list = home.done(&["manifest", "list"]).await;
    assert!(
        list.lines()
            .any(|line| line.contains(&id) && line.ends_with(url)),
        "{list}"
    );
    let tasks = home.run(&["tasks"]).await;
    // How wide a column is depends on how long ago things happened.
    let header: Vec<&str> = tasks
        .stdout
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    insta::assert_snapshot!(header.join(" "), @"TASK PROVIDER STATE MODEL LEARNED DIES IN ASSETS");
    let shown = home.done(&["task", "show", &id]).await;
    let digest = outside.bucket.sha256(key).unwrap();
    for line in [
        "state     archived".to_owned(),
        format!("  sha256  {digest}"),
        "asset 0   video archived, 64 KiB".to_owned(),
    ] {
        assert!(shown.lines().any(|it| it == line), "{shown}");
    }
    assert!(
        shown.contains(&format!("  to      {url} (archived 20")),
        "{shown}"
    );
    let again = home.done(&["task", "retry", &id]).await;
    assert_eq!(again, format!("sim {id}: nothing to try again\n"));
    assert_eq!(
        home.done(&["task", "forget", &id, "-n"]).await,
        format!("sim {id}: would be forgotten\n")
    );
    home.done(&["task", "forget", &id]).await;
    assert_eq!(home.run(&["task", "show", &id]).await.code, 6);
    assert_eq!(outside.bucket.objects().len(), 2);
}

#[tokio::test]
async fn a_key_that_the_provider_refuses_is_told_and_loses_nothing() {
    let outside = Outside::new(
        simulator::Config {
            api_key: Some("another".to_owned()),
            ..simulator::Config::at_once()
        },
        "videos",
    )
    .await;
    let home = &outside.home;
    let check = home.run(&["check"]).await;
    assert_eq!(check.code, 12);
    insta::assert_snapshot!(check.stdout.lines().skip_while(|line| !line.contains("provider.")).collect::<Vec<_>>().join("\n"), @"
    FAIL  provider.sim                             provider sim answered 401 invalid_api_key: the API key is missing or not valid
                                                   hint: check provider.sim.api_key: the provider does not accept this key or account
    ");
    outside.add(1).await;
    let id = outside.simulator.tasks()[0].to_string();
    let daemon = home.start().await;
    let log = daemon.says("401 invalid_api_key").await;
    assert!(log.contains(" ERROR ") || log.contains(" WARN "), "{log}");
    let error =
        "error     provider sim answered 401 invalid_api_key: the API key is missing or not valid";
    let shown = home.prints(&["task", "show", &id], error).await;
    assert!(shown.contains("\nstate     watching\n"), "{shown}");
    home.hear(&daemon.stop().await);
    // No asset is due, and nobody could ask whether one should be.
    let once = home.run(&["run", "--once"]).await;
    assert_eq!(once.code, 3, "{once:?}");
    assert!(!home.said().contains("sk-canary"));
}

#[tokio::test]
async fn a_store_that_refuses_is_told_and_loses_nothing() {
    let outside = outside().await;
    let mut variables = variables(&outside.bucket);
    variables.insert(
        "RIGHT_KEY".to_owned(),
        outside.bucket.secret_key().to_owned(),
    );
    variables.insert("SECRET_KEY".to_owned(), "not-the-secret".to_owned());
    let home = Home::new(variables);
    let config = outside.config("", "").replace(
        &outside.home.path().display().to_string(),
        &home.path().display().to_string(),
    );
    let other = config.replace("bucket = \"videos\"", "bucket = \"nobodys\"");
    let right = other.replace("SECRET_KEY", "RIGHT_KEY");
    for (config, part, hint) in [
        (
            &config,
            "403 SignatureDoesNotMatch",
            "hint: the access key or its secret is wrong",
        ),
        (
            &right,
            "404 NoSuchBucket",
            "hint: create the bucket, or correct its name",
        ),
    ] {
        home.configure(config);
        let check = home.run(&["check"]).await;
        assert_eq!(check.code, 12, "{check:?}");
        assert!(check.stdout.contains(part), "{check:?}");
        assert_eq!(check.stdout.matches(hint).count(), 1, "{check:?}");
    }
    home.configure(&config);
    let id = outside.submit(1).remove(0);
    home.done(&["add", id.as_str()]).await;
    let once = home.run(&["run", "--once"]).await;
    assert_eq!(once.code, 3, "{once:?}");
    let status = home.run(&["status"]).await;
    let waits = "     1 asset of sim waits: destination main answers 403 SignatureDoesNotMatch";
    assert!(status.stdout.contains(waits), "{status:?}");
    assert_eq!(status.code, 0, "{status:?}");
    let json: Value = serde_json::from_str(&home.run(&["status", "--json"]).await.stdout).unwrap();
    assert_eq!(json["waiting"][0]["rows"], 1, "{json}");
    let shown = home.done(&["task", "show", id.as_str()]).await;
    assert!(shown.contains("video due"), "{shown}");
    let error =
        "  error   destination main answers 403 SignatureDoesNotMatch to s3:PutObject on videos";
    assert!(shown.contains(error), "{shown}");
    assert!(
        once.stderr.contains(error.trim_start_matches("  error   ")),
        "{once:?}"
    );
    // The link that waits says how long, and not the task, whose first link may be dead by now.
    let manifest = rusqlite::Connection::open(home.path().join("manifest.db")).unwrap();
    let past = "UPDATE tasks SET deadline_at = deadline_at - 864000000";
    assert_eq!(manifest.execute(past, []).unwrap(), 1);
    drop(manifest);
    let listed = home.done(&["tasks"]).await;
    assert!(!listed.contains(" past "), "{listed}");
    assert!(listed.contains("  23 h"), "{listed}");
    assert!(!home.said().contains("not-the-secret"));
    assert!(outside.bucket.objects().is_empty());
}

#[tokio::test]
async fn a_link_is_fetched_into_a_folder_without_a_daemon() {
    let outside = outside().await;
    let home = &outside.home;
    let folder = home.path().join("kept");
    std::fs::create_dir(&folder).unwrap();
    let extra = format!(
        "[destination.folder.fs]\npath = {folder:?}\nfree_min = \"0 B\"\n[provider.fetch]\nallow_private = true\n"
    );
    home.configure(&outside.config("", &extra));
    let id = outside.submit(1).remove(0);
    let link = format!(
        "{}?X-Amz-Signature=CANARY",
        outside.simulator.links(&id)[0].split('?').next().unwrap()
    );
    let port = outside.simulator.base_url();
    let blots = [(port.as_str(), "ORIGIN"), (id.as_str(), "TASK")];
    let planned = home.run(&["fetch", &link, "--to", "folder", "-n"]).await;
    insta::assert_snapshot!(face(&planned, &blots), @"
    ORIGIN/files/TASK/0.mp4?…: would be archived to folder
    --
    => 0
    ");
    assert_eq!(
        home.run(&["tasks"]).await.code,
        11,
        "a dry run makes no manifest"
    );

    let fetched = home.done(&["fetch", &link, "--to", "folder"]).await;
    let (head, path) = fetched.trim_end().split_once(": archived file://").unwrap();
    assert!(head.starts_with("fetch link-"), "{fetched}");
    let expected = outside.simulator.expected_sha256(&id, FIRST).unwrap();
    assert_eq!(sha256(&std::fs::read(path).unwrap()), expected);
    assert_eq!(
        home.done(&["fetch", &link, "--to", "folder"]).await,
        fetched
    );

    let dead = format!("{port}/files/nothing/0.mp4");
    let failed = home.run(&["fetch", &dead, "--to", "folder"]).await;
    assert_eq!(failed.code, 1, "{failed:?}");
    let link = failed.stdout.split(':').next().unwrap();
    let told = face(
        &failed,
        &[
            (port.trim_start_matches("http://"), "ORIGIN"),
            (link, "LINK"),
        ],
    );
    let told = told.lines().filter(|line| !line.contains(" WARN "));
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"), @"
    LINK: due: 127.0.0.1 answers 404: the link is dead or not yet there
    --
    hint:  what is due stays in the manifest: a daemon, or the same command, tries it again
    => 1
    ");

    // Beside a daemon what is in the way is told at once, not when the waiting is over.
    let daemon = home.start().await;
    let beside = home
        .run(&["fetch", &dead, "--to", "folder", "--wait=2s"])
        .await;
    insta::assert_snapshot!(face(&beside, &[(link, "LINK")]), @"
    --
    LINK: announced; waiting for it
    LINK: due: 127.0.0.1 answers 404: the link is dead or not yet there
    error: 1 of 1 tasks did not end within 2 s
    hint:  `reelvault task show ID` says what each waits for
    => 5
    ");
    daemon.stop().await;
}

#[tokio::test]
async fn no_secret_is_ever_said() {
    let outside = outside().await;
    let home = &outside.home;
    let link = format!(
        "{}/files/gone/0.mp4?X-Amz-Signature=CANARY&X-Amz-Expires=9",
        outside.simulator.base_url()
    );
    let extra = "[provider.fetch]\nallow_private = true\n";
    let config = outside
        .config("", extra)
        .replace("format = \"text\"", "format = \"text\"\nlevel = \"trace\"");
    home.configure(&config);
    outside.add(2).await;
    outside
        .bucket
        .plant(Fault::new(Operation::PutObject, Effect::INTERNAL_ERROR));
    home.run(&["fetch", &link, "--to", "main", "-n"]).await;
    home.run(&["fetch", &link, "--to", "main", "--no-wait"])
        .await;
    let daemon = home.start().await;
    daemon.says_times("archived destination.name", 1).await;
    home.run(&["fetch", &link, "--to", "main", "--wait=1s"])
        .await;
    home.hear(&daemon.stop().await);
    home.run(&["run", "--once"]).await;
    for command in [
        &["check"][..],
        &["config", "show"],
        &["config", "show", "--origin"],
        &["status"],
        &["status", "--json"],
        &["tasks", "--json"],
        &["tasks"],
        &["manifest", "export"],
        &["manifest", "export", "--format", "csv"],
        &["manifest", "list"],
        &["task", "show", &outside.simulator.tasks()[0].to_string()],
    ] {
        home.run(command).await;
    }
    let said = home.said();
    // The runs said enough for a leak to show: the failed link and its tasks are all there.
    assert!(said.contains("/files/gone/0.mp4"));
    for line in said.lines().filter(|line| !line.starts_with("$ ")) {
        for secret in ["sk-canary-provider", outside.bucket.secret_key(), "CANARY"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[tokio::test]
async fn a_reader_who_goes_away_is_no_error() {
    let outside = outside().await;
    outside.add(30).await;
    for arguments in [
        &["tasks", "--json"][..],
        &["tasks"],
        &["status"],
        &["manifest", "export"],
        &["manifest", "export", "--format", "csv"],
        &["manifest", "list"],
        &["config", "show"],
        &["add", "one", "two", "three"],
    ] {
        let mut child = outside.home.command(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap());
        let output = output.await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    // Nobody read what `add` said of the three, and they are known all the same.
    outside.home.done(&["task", "show", "three"]).await;

    // Nor does a daemon mind that nobody reads its log any more.
    let mut child = outside.home.command(&["run"]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    tokio::task::spawn_blocking(move || log.read_line(&mut line).unwrap())
        .await
        .unwrap();
    outside.bucket.reached(Operation::PutObject, 30).await;
    assert!(
        child.try_wait().unwrap().is_none(),
        "the daemon died with its log's reader"
    );
    child.kill().unwrap();
    child.wait().unwrap();
}
