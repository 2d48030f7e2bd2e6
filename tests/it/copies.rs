//! Archived copies as people get at them: `url`, `get`, `manifest verify` and `rebuild`, over good copies and spoilt ones.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use reelvault::model::asset::AssetIndex;
use reelvault::simulator;
use reelvault::simulator::bucket;
use reelvault::simulator::bucket::Bucket;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::bucket::Quirks;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use serde_json::Value;

use crate::process::Home;
use crate::process::Outcome;
use crate::process::Outside;
use crate::world::FIRST;
use crate::world::sha256;

/// So many tasks, archived in a bucket and, as the second of their copies, in a folder.
async fn archived(count: usize, quirks: Quirks) -> (Outside, Vec<String>) {
    archived_of(simulator::Config::at_once(), count, quirks).await
}

async fn archived_of(
    config: simulator::Config,
    count: usize,
    quirks: Quirks,
) -> (Outside, Vec<String>) {
    let bucket = bucket::Config {
        quirks,
        ..bucket::Config::new("videos")
    };
    let outside = Outside::with(config, bucket).await;
    let folder = outside.home.path().join("kept");
    fs::create_dir(&folder).unwrap();
    let extra = format!(
        "[destination.folder.fs]\npath = \"{}\"\nfree_min = \"0 B\"\n[[route]]\nto = [\"main\", \"folder\"]\n",
        folder.display()
    );
    outside.home.configure(&outside.config("", &extra));
    outside.add(count).await;
    let once = outside.home.run(&["run", "--once"]).await;
    assert_eq!(once.code, 0, "{once:?}");
    let ids = outside.simulator.tasks();
    (outside, ids.iter().map(ToString::to_string).collect())
}

/// The key of a task's object in the bucket.
fn key(bucket: &Bucket, id: &str) -> String {
    let objects = bucket.objects();
    let object = objects.iter().find(|object| object.key.contains(id));
    object.unwrap().key.clone()
}

/// The files in the program's folder that are none of its own.
fn got(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names
        .filter(|name| name.contains("film") || name.contains("partial"))
        .collect();
    names.sort();
    names
}

/// That a command ended so, and said so.
#[track_caller]
fn check(outcome: &Outcome, code: i32, part: &str) {
    assert_eq!(outcome.code, code, "{outcome:?}");
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    assert!(said.contains(part), "no {part:?} in {outcome:?}");
    let is_error = code != 0 && outcome.stdout.is_empty();
    assert_eq!(
        is_error,
        outcome.stderr.contains("\nhint:  "),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn links_lead_to_the_copies() {
    let (outside, ids) = archived(1, Quirks::aws()).await;
    let (home, id) = (&outside.home, ids[0].as_str());
    let key = key(&outside.bucket, id);
    let link = home.done(&["url", id]).await;
    let signed = format!("{}/videos/{key}?", outside.bucket.endpoint());
    assert!(link.starts_with(&signed) && link.contains("X-Amz-Signature="));
    assert_eq!(link.lines().count(), 1);
    let place = home.done(&["url", id, "--destination", "folder"]).await;
    let path = place.trim_end().strip_prefix("file://").unwrap();
    let expected = outside
        .simulator
        .expected_sha256(&id.parse().unwrap(), FIRST);
    assert_eq!(Some(sha256(&fs::read(path).unwrap())), expected);
    let document = home.done(&["url", id, "--asset", "0", "--json"]).await;
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(
        (&document["task_id"], &document["asset"]),
        (&id.into(), &0.into())
    );
    assert!(document["url"].as_str().unwrap().starts_with(&signed));

    let text = fs::read_to_string(home.config()).unwrap();
    let public =
        "[destination.main]\npublic_url = \"https://videos.test/all/\"\n[destination.main.s3]";
    home.configure(&text.replace("[destination.main.s3]", public));
    let link = home.done(&["url", id]).await;
    assert_eq!(link, format!("https://videos.test/all/{key}\n"));

    check(
        &home.run(&["url", "nope"]).await,
        6,
        "no task nope in the manifest",
    );
    check(
        &home.run(&["url", id, "--asset", "7"]).await,
        6,
        "it has assets 0 (video, archived)",
    );
    let other = home.run(&["url", id, "--destination", "nope"]).await;
    check(&other, 2, "configured are: folder, main");
    home.done(&["add", "not-yet"]).await;
    check(
        &home.run(&["url", "not-yet"]).await,
        6,
        "no archived copy of not-yet",
    );
    check(
        &home.run(&["get", "not-yet", "-o", "-"]).await,
        6,
        "no archived copy of not-yet",
    );
    let lacking = text.replace("env = \"SECRET_KEY\"", "env = \"NO_SUCH\"");
    home.configure(&lacking);
    let unsigned = home.run(&["url", id, "--destination", "main"]).await;
    assert_eq!(unsigned.code, 78, "{unsigned:?}");
    assert!(
        unsigned.stderr.contains("NO_SUCH is not set"),
        "{unsigned:?}"
    );
    assert_eq!(home.done(&["url", id]).await, place, "the other copy does");
    let verified = home.run(&["manifest", "verify"]).await;
    check(&verified, 3, "NO_SUCH is not set");
}

#[tokio::test]
async fn a_copy_is_got_whole_or_not_at_all() {
    let (outside, ids) = archived(1, Quirks::aws()).await;
    let (home, id) = (&outside.home, ids[0].as_str());
    let expected = outside
        .simulator
        .expected_sha256(&id.parse().unwrap(), FIRST);
    let film = || Some(sha256(&fs::read(home.path().join("film.mp4")).unwrap()));
    let get = async |more: &[&str]| {
        home.run(&[&["get", id, "-o", "film.mp4"], more].concat())
            .await
    };
    let done = get(&[]).await;
    check(&done, 0, "film.mp4: 64 KiB from s3://videos/");
    assert_eq!((done.stdout.as_str(), film()), ("", expected));
    check(
        &get(&[]).await,
        1,
        "film.mp4 exists already and is not overwritten\nhint:  --force",
    );
    fs::write(home.path().join("film.mp4"), "mine").unwrap();
    check(
        &get(&["--force", "--destination", "folder"]).await,
        0,
        "from file://",
    );
    assert_eq!(film(), expected);

    let put = async |path: &str| home.run(&["get", id, "-o", path]).await;
    check(&put("kept").await, 1, "kept is a folder");
    check(&put("/dev/full").await, 1, "/dev/full is no plain file");
    check(
        &put("no/such/film").await,
        1,
        "no folder to put no/such/film in",
    );

    // One that fails has another copy stand in for it, unless only that one was wanted.
    fs::remove_file(home.path().join("film.mp4")).unwrap();
    let main = async || get(&["--destination", "main"]).await;
    let key = key(&outside.bucket, id);
    let bucket = &outside.bucket;
    let plant = |effect| bucket.plant(Fault::new(Operation::GetObject, effect));
    plant(Effect::ACCESS_DENIED);
    check(&main().await, 12, "403 AccessDenied to s3:GetObject");
    plant(Effect::INTERNAL_ERROR);
    check(&main().await, 1, "500 InternalError to s3:GetObject");
    plant(Effect::LoseAnswer);
    check(&main().await, 1, "fails at s3:GetObject");
    bucket.damage(&key);
    check(&main().await, 13, "its checksum is");
    bucket.replace(&key, "not it".into()).await;
    check(&main().await, 13, "it holds 6 B of 65536 B");
    bucket.replace(&key, vec![0; 65537].into()).await;
    check(&main().await, 13, "it goes on after 65536 bytes");
    bucket.remove(&key);
    check(
        &main().await,
        13,
        "nothing is there, though it was archived",
    );
    assert_eq!(got(home.path()), Vec::<String>::new());
    let done = get(&[]).await;
    check(&done, 0, "trying the next copy");
    assert_eq!(
        (film(), got(home.path())),
        (expected, vec!["film.mp4".to_owned()])
    );

    let path = home.done(&["url", id, "--destination", "folder"]).await;
    fs::remove_file(path.trim_end().strip_prefix("file://").unwrap()).unwrap();
    check(
        &get(&["--force"]).await,
        13,
        "nothing is there, though it was archived",
    );
    assert_eq!(film(), expected, "what stood there stays");
}

#[tokio::test]
async fn of_several_assets_each_has_its_link_and_one_is_got() {
    let outside = Outside::new(simulator::Config::at_once(), "videos").await;
    let home = &outside.home;
    let several = Submission {
        count: 3,
        ..Submission::video("seedance-2.0")
    };
    let id = outside.simulator.submit(several).unwrap();
    home.done(&["add", id.as_str()]).await;
    let put = Fault::new(Operation::PutObject, Effect::ACCESS_DENIED);
    outside.bucket.plant(put.on_key("01.").times(1000));
    assert_eq!(home.run(&["run", "--once"]).await.code, 3);
    let links = home.run(&["url", id.as_str()]).await;
    assert_eq!(
        (links.code, links.stdout.lines().count()),
        (3, 2),
        "{links:?}"
    );
    assert!(links.stderr.contains("note: asset 1 is due"), "{links:?}");
    let some = home.run(&["get", id.as_str(), "-o", "film.mp4"]).await;
    let hint = "say which with --asset; it has assets 0 (video, archived), 1 (video, due), 2 (video, archived)";
    check(&some, 2, hint);
    let due = home
        .run(&["get", id.as_str(), "-o", "-", "--asset", "1"])
        .await;
    check(&due, 6, "no archived copy");
    let got = ["get", id.as_str(), "-o", "film.mp4", "--asset", "2"];
    check(
        &home.run(&got).await,
        0,
        "CRC64NVME and SHA-256 as archived",
    );
    let film = fs::read(home.path().join("film.mp4")).unwrap();
    let expected = outside.simulator.expected_sha256(&id, AssetIndex(2));
    assert_eq!(Some(sha256(&film)), expected);
    check(
        &home.run(&["manifest", "verify"]).await,
        0,
        "2 of 2 archived copies: 2 good",
    );
}

#[tokio::test]
async fn stdout_gets_the_bytes_and_an_error_behind_wrong_ones() {
    let (outside, ids) = archived(1, Quirks::aws()).await;
    let (home, id) = (&outside.home, ids[0].clone());
    let get = async |stdout: Stdio, destination: &str| {
        let mut command = home.command(&["get", &id, "-o", "-", "--destination", destination]);
        command.stdout(stdout);
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = ran.await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        (output.status.code(), sha256(&output.stdout), said)
    };
    let expected = outside
        .simulator
        .expected_sha256(&id.parse().unwrap(), FIRST)
        .unwrap();
    for destination in ["main", "folder"] {
        let (code, digest, said) = get(Stdio::piped(), destination).await;
        assert_eq!((code, digest), (Some(0), expected), "{said}");
    }
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let (code, _, said) = get(full.into(), "main").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("stdout: No space left"), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (code, _, said) = get(writer.into(), "main").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("stdout: Broken pipe") && said.contains("\nhint:  "),
        "{said}"
    );
    outside.bucket.damage(&key(&outside.bucket, &id));
    let (code, _, said) = get(Stdio::piped(), "main").await;
    assert_eq!(code, Some(13), "{said}");
    assert!(
        said.contains("what went to stdout is not what was archived"),
        "{said}"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_midst_leaves_no_half_file() {
    let large = simulator::Config {
        size: ByteSize::mib(2),
        ..simulator::Config::at_once()
    };
    let (outside, ids) = archived_of(large, 1, Quirks::aws()).await;
    let (home, id) = (&outside.home, ids[0].as_str());
    // One byte more is told than comes.
    let broken = Effect::TellLength(ByteSize::mib(2).as_u64() + 1);
    let get = async |more: &[&str]| {
        let fault = Fault::new(Operation::GetObject, broken.clone());
        outside.bucket.plant(fault);
        home.run(&[&["get", id], more].concat()).await
    };
    let main = get(&["-o", "film.mp4", "--destination", "main"]).await;
    check(&main, 1, "the body broke");
    assert_eq!(got(home.path()), Vec::<String>::new());
    check(&get(&["-o", "film.mp4"]).await, 0, "the body broke");
    let expected = outside
        .simulator
        .expected_sha256(&id.parse().unwrap(), FIRST);
    let film = fs::read(home.path().join("film.mp4")).unwrap();
    assert_eq!(Some(sha256(&film)), expected, "the other copy stood in");
    // Behind half of one copy no other may come. `run` wants text on stdout, so it goes into a file.
    let half = fs::File::create(home.path().join("half")).unwrap();
    outside
        .bucket
        .plant(Fault::new(Operation::GetObject, broken.clone()));
    let mut command = home.command(&["get", id, "-o", "-"]);
    command.stdout(half);
    let ran = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = ran.await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let half = fs::metadata(home.path().join("half")).unwrap().len();
    assert!(half > 0 && half <= ByteSize::mib(2).as_u64(), "{half}");
}

#[tokio::test]
async fn verify_finds_what_is_missing_and_what_differs() {
    let (outside, ids) = archived(6, Quirks::aws()).await;
    let (home, bucket) = (&outside.home, &outside.bucket);
    let daemon = home.start().await;
    let all = home.run(&["manifest", "verify"]).await;
    check(
        &all,
        0,
        "12 of 12 archived copies: 12 good, 0 missing, 0 differ, 0 refused, 0 unasked",
    );
    let deep = home
        .done(&["manifest", "verify", "--deep", "--provider", "sim"])
        .await;
    assert!(deep.contains("12 good"), "{deep}");
    let sample = home.done(&["manifest", "verify", "--sample", "5"]).await;
    assert!(
        sample.starts_with("5 of 12 archived copies: 5 good"),
        "{sample}"
    );
    let none = home
        .done(&["manifest", "verify", "--provider", "other"])
        .await;
    assert!(none.starts_with("0 of 0"), "{none}");

    let keys: Vec<String> = ids.iter().map(|id| key(bucket, id)).collect();
    bucket.remove(&keys[0]);
    bucket.damage(&keys[1]);
    bucket.replace(&keys[2], "other".into()).await;
    // Somebody put the same bytes back, without our metadata.
    let same = bucket.bytes(&keys[3]).unwrap();
    bucket.replace(&keys[3], same.into()).await;
    let path = home
        .done(&["url", &ids[4], "--destination", "folder"])
        .await;
    fs::write(path.trim_end().strip_prefix("file://").unwrap(), "cut").unwrap();
    for command in [
        &["manifest", "verify"][..],
        &["manifest", "verify", "--deep"],
    ] {
        let found = home.run(command).await;
        check(
            &found,
            13,
            "12 of 12 archived copies: 8 good, 1 missing, 3 differ, 0 refused, 0 unasked",
        );
        for line in [
            format!(
                "missing  s3://videos/{} (sim {}, asset 0): nothing is there",
                keys[0], ids[0]
            ),
            format!(
                "differs  s3://videos/{} (sim {}, asset 0): its checksum is ",
                keys[1], ids[1]
            ),
            format!(
                "differs  s3://videos/{} (sim {}, asset 0): it holds 5 B of 65536 B",
                keys[2], ids[2]
            ),
            format!(
                "differs  {} (sim {}, asset 0): it holds 3 B of 65536 B",
                path.trim_end(),
                ids[4]
            ),
        ] {
            assert!(found.stdout.contains(&line), "{line}\n{}", found.stdout);
        }
    }
    let json = home
        .run(&["manifest", "verify", "--json", "--destination", "folder"])
        .await;
    assert_eq!(json.code, 13, "{json:?}");
    let lines: Vec<Value> = json
        .stdout
        .lines()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_eq!(
        (lines.len(), &lines[0]["verdict"], &lines[0]["task_id"]),
        (2, &"differs".into(), &ids[4].as_str().into())
    );
    assert_eq!(
        (&lines[1]["good"], &lines[1]["differs"]),
        (&5.into(), &1.into())
    );
    assert_eq!(bucket.objects().len(), 5, "nothing was put back");
    daemon.stop().await;
}

#[tokio::test]
async fn verify_tells_refusals_and_silence_from_differences() {
    let (outside, ids) = archived(150, Quirks::aws()).await;
    let (home, bucket) = (&outside.home, &outside.bucket);
    let verify = async |more: &[&str]| home.run(&[&["manifest", "verify"], more].concat()).await;
    bucket.plant(Fault::new(Operation::HeadObject, Effect::SLOW_DOWN).times(2));
    check(&verify(&[]).await, 0, "300 good");
    // A moment in which all that are looked at fail is no reason to give the rest up.
    bucket.plant(Fault::new(Operation::HeadObject, Effect::ACCESS_DENIED).times(20));
    check(
        &verify(&[]).await,
        12,
        "280 good, 0 missing, 0 differ, 20 refused, 0 unasked",
    );
    let one = key(bucket, &ids[0]);
    bucket.plant(
        Fault::new(Operation::GetObject, Effect::LoseAnswer)
            .on_key(&one)
            .times(9),
    );
    check(
        &verify(&["--deep"]).await,
        3,
        "299 good, 0 missing, 0 differ, 0 refused, 1 unasked",
    );
    bucket.plant(Fault::new(Operation::HeadObject, Effect::ACCESS_DENIED).times(1000));
    let refused = verify(&[]).await;
    check(&refused, 12, "answers 403");
    // Nobody who refuses everything is asked for ever.
    assert!(
        refused.stdout.contains("it failed 128 times in a row"),
        "{refused:?}"
    );
    assert_eq!(
        refused.stdout.matches("unasked  ").count(),
        1,
        "{refused:?}"
    );
    bucket.heal();
    let folder = fs::read_to_string(home.config()).unwrap();
    home.configure(
        &folder
            .replace("[destination.folder.fs]", "[destination.moved.fs]")
            .replace("\"folder\"", "\"moved\""),
    );
    check(
        &verify(&[]).await,
        3,
        "150 good, 0 missing, 0 differ, 0 refused, 150 unasked",
    );
    bucket.remove(&one);
    check(&verify(&[]).await, 13, "149 good, 1 missing");
}

#[tokio::test]
async fn where_a_store_tells_no_checksum_the_nonce_tells_or_the_bytes() {
    let (outside, ids) = archived(4, Quirks::r2()).await;
    let (home, bucket) = (&outside.home, &outside.bucket);
    let verify = async |more: &[&str]| {
        home.run(&[&["manifest", "verify", "--destination", "main"], more].concat())
            .await
    };
    let reads = bucket.count(Operation::GetObject);
    check(&verify(&[]).await, 0, "4 good");
    assert_eq!(bucket.count(Operation::GetObject), reads);
    let keys: Vec<String> = ids.iter().map(|id| key(bucket, id)).collect();
    let same = bucket.bytes(&keys[0]).unwrap();
    bucket.replace(&keys[0], same.into()).await;
    bucket.replace(&keys[1], vec![0; 65536].into()).await;
    bucket.damage(&keys[2]);
    // Bytes that went bad under the same name show only to those who read them.
    check(&verify(&[]).await, 13, "3 good, 0 missing, 1 differ");
    check(
        &verify(&["--deep"]).await,
        13,
        "2 good, 0 missing, 2 differ",
    );
}

/// The records of everything, without what no object knows.
async fn records(home: &Home) -> Vec<Value> {
    let text = home.done(&["manifest", "export"]).await;
    let mut records: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .map(|record: Value| {
            let assets = record["assets"].as_array().unwrap().iter();
            let assets = assets.map(|asset| {
                let objects = asset["objects"].as_array().unwrap().iter();
                let main = objects.filter(|it| it["destination"] == "main");
                let objects = main.map(|it| {
                    ["state", "key", "size", "crc64nvme", "etag", "parts", "url"]
                        .map(|part| &it[part])
                });
                serde_json::json!([
                    asset["index"],
                    asset["role"],
                    asset["state"],
                    asset["size"],
                    asset["content_type"],
                    objects.collect::<Vec<_>>()
                ])
            });
            serde_json::json!([
                record["task_id"],
                record["state"],
                assets.collect::<Vec<_>>()
            ])
        })
        .collect();
    records.sort_by_key(ToString::to_string);
    records
}

#[tokio::test]
async fn a_manifest_that_was_lost_is_rebuilt_from_its_bucket() {
    let quirks = Quirks {
        page_entries_max: 2,
        ..Quirks::aws()
    };
    let (outside, ids) = archived(3, quirks).await;
    let home = &outside.home;
    outside
        .bucket
        .replace("somebody/else.mp4", "theirs".into())
        .await;
    let before = records(home).await;
    let rebuild = ["manifest", "rebuild", "--from", "main"];
    let again = home.run(&rebuild).await;
    check(
        &again,
        0,
        "4 objects: 0 written down, 3 known, 0 open, 0 second, 1 not ours, 0 unread",
    );

    for name in ["manifest.db", "manifest.db-wal", "manifest.db-shm"] {
        fs::remove_file(home.path().join(name)).ok();
    }
    let dry = home.run(&[&rebuild[..], &["-n"]].concat()).await;
    check(&dry, 0, "4 objects: 3 ours, 1 not ours, 0 unread");
    assert!(!home.path().join("manifest.db").exists());

    // One that cannot be asked about now is told, and written down by the next run.
    let key = key(&outside.bucket, &ids[1]);
    let refused = Fault::new(Operation::HeadObject, Effect::ACCESS_DENIED);
    outside.bucket.plant(refused.on_key(&key));
    let most = home.run(&[&rebuild[..], &["--json"]].concat()).await;
    assert_eq!(most.code, 3, "{most:?}");
    let lines: Vec<Value> = most
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["verdict"], "unread");
    assert_eq!(
        (&lines[1]["written"], &lines[1]["unread"]),
        (&2.into(), &1.into())
    );
    let rest = home.run(&rebuild).await;
    check(&rest, 0, "1 written down, 2 known");
    assert_eq!(records(home).await, before);

    // What was rebuilt is as good as what was archived.
    check(
        &home.run(&["manifest", "verify"]).await,
        0,
        "3 of 3 archived copies: 3 good",
    );
    check(
        &home.run(&["get", &ids[0], "-o", "film.mp4"]).await,
        0,
        "as archived",
    );
    home.done(&["add", &ids[0]]).await;
    assert_eq!(home.run(&["run", "--once"]).await.code, 0);
    assert_eq!(records(home).await, before);

    let folder = home.run(&["manifest", "rebuild", "--from", "folder"]).await;
    check(&folder, 2, "whose files do not say whose they are");
    let listed = Fault::new(Operation::ListObjects, Effect::ACCESS_DENIED);
    outside.bucket.plant(listed);
    check(
        &home.run(&rebuild).await,
        12,
        "403 AccessDenied to s3:ListObjectsV2",
    );
}

#[tokio::test]
async fn what_a_store_tells_no_checksum_of_is_read_for_the_rebuilt_manifest() {
    let quirks = Quirks {
        computes_crc64: false,
        ..Quirks::aws()
    };
    let (outside, ids) = archived(1, quirks).await;
    let home = &outside.home;
    let digest = ["manifest", "get", &ids[0], "--field", "assets.0.sha256"];
    let before = (records(home).await, home.done(&digest).await);
    for name in ["manifest.db", "manifest.db-wal", "manifest.db-shm"] {
        fs::remove_file(home.path().join(name)).ok();
    }
    let rebuilt = home.run(&["manifest", "rebuild", "--from", "main"]).await;
    check(&rebuilt, 0, "1 objects: 1 written down");
    assert_eq!((records(home).await, home.done(&digest).await), before);
    let verified = [
        "manifest",
        "get",
        &ids[0],
        "--field",
        "assets.0.objects.0.verified",
    ];
    assert_eq!(home.done(&verified).await, "read\n");
}
