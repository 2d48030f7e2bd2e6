//! Whatever ends the daemon, and whenever: nothing is lost, nothing is twice, nothing stays open.

use std::time::Duration;

use reelvault::chance::Dice;
use reelvault::simulator;
use reelvault::simulator::bucket::Bucket;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::units::ByteSize;
use tokio::net::UnixDatagram;
use tokio::time::Instant;

use crate::process::Outside;

/// How often the daemon is killed in one run.
const KILLS: usize = 10;

/// How many tasks one run has: as many before the first start as while it runs.
const TASKS: usize = 20;

/// What one connection gets of a file in a second: a file takes half a second.
const RATE: ByteSize = ByteSize::mib(24);

/// A daemon is killed at a random moment of this many parts after it is ready, which are two files, so that not even
/// the tenth kill comes when all is done.
const PARTS_MAX: f64 = 6.0;

/// Where in the work on its last part a daemon is killed: sending it, completing, looking, writing it down.
const TAIL_MAX: Duration = Duration::from_millis(250);

/// One of so many daemons is killed before it is ready, which takes it about a tenth of a second.
const STILLBORN: f64 = 0.2;

/// Files of three parts, the last of them short, that come no faster than [`RATE`].
async fn outside(store: &str) -> Outside {
    let config = simulator::Config {
        size: ByteSize::mib(12),
        ..simulator::Config::at_once()
    };
    let outside = Outside::new(config, "videos").await;
    outside.simulator.limit_rate(Some(RATE));
    outside.home.configure(&outside.config(store, ""));
    outside
}

/// Waits for a random moment in a daemon's life.
async fn moment(dice: &Dice, bucket: &Bucket) {
    let tail = TAIL_MAX.mul_f64(dice.fraction());
    if dice.fraction() >= STILLBORN {
        let parts = (dice.fraction() * PARTS_MAX) as u64 + 1;
        let until = bucket.count(Operation::UploadPart) + parts;
        bucket.reached(Operation::UploadPart, until).await;
    }
    tokio::time::sleep(tail).await;
}

async fn kill_ten_times(store: &str) {
    let seed =
        std::env::var("KILL_SEED").map_or_else(|_| Dice::new().number(), |it| it.parse().unwrap());
    eprintln!("KILL_SEED={seed}");
    let dice = Dice::seeded(seed);
    let outside = outside(store).await;
    outside.add(TASKS / 2).await;
    for kill in 1..=KILLS {
        let daemon = outside.home.spawn();
        let (log, ()) = tokio::join!(
            async {
                moment(&dice, &outside.bucket).await;
                daemon.kill().await
            },
            outside.add(TASKS / 2 / KILLS)
        );
        outside.home.hear(&log);
        let archived = outside.bucket.objects().len();
        let open = outside.bucket.open_uploads();
        let parts: Vec<usize> = open.iter().map(|upload| upload.parts.len()).collect();
        eprintln!("kill {kill}: {archived} archived, parts of open uploads {parts:?}");
        assert!(archived < TASKS, "too late to kill");
    }
    let daemon = outside.home.start().await;
    outside.archived(&daemon).await;
    outside.home.hear(&daemon.stop().await);
    outside.assert_all_safe();
}

#[tokio::test]
async fn a_daemon_killed_ten_times_loses_nothing_on_a_store_like_aws() {
    kill_ten_times("quirks = \"aws\"").await;
}

#[tokio::test]
async fn a_daemon_killed_ten_times_loses_nothing_on_any_store() {
    kill_ten_times("").await;
}

/// Kills a daemon when `is_done` holds of the bucket, whose answer to `operation` never reaches it.
async fn kill_before_the_answer(operation: Operation, is_done: impl Fn(&Bucket) -> bool) {
    let outside = outside("").await;
    outside
        .bucket
        .plant(Fault::new(operation, Effect::LoseAnswer));
    outside.add(1).await;
    let daemon = outside.home.start().await;
    outside.bucket.reached(operation, 1).await;
    while !is_done(&outside.bucket) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    outside.home.hear(&daemon.kill().await);
    let daemon = outside.home.start().await;
    outside.archived(&daemon).await;
    outside.home.hear(&daemon.stop().await);
    outside.assert_all_safe();
}

#[tokio::test]
async fn an_upload_that_a_dead_daemon_opened_is_found_and_aborted() {
    let is_done = |bucket: &Bucket| !bucket.open_uploads().is_empty();
    kill_before_the_answer(Operation::CreateMultipartUpload, is_done).await;
}

#[tokio::test]
async fn a_part_that_a_dead_daemon_stored_is_no_harm() {
    let is_done = |bucket: &Bucket| bucket.open_uploads().iter().any(|it| !it.parts.is_empty());
    kill_before_the_answer(Operation::UploadPart, is_done).await;
}

#[tokio::test]
async fn an_object_that_a_dead_daemon_completed_is_found() {
    let is_done = |bucket: &Bucket| !bucket.objects().is_empty();
    kill_before_the_answer(Operation::CompleteMultipartUpload, is_done).await;
}

#[tokio::test]
async fn a_daemon_that_is_told_to_stop_finishes_its_parts_and_sends_none_twice() {
    const COUNT: usize = 6;
    let outside = outside("").await;
    // Slow enough that the signal comes long before the last part of the first file.
    outside.simulator.limit_rate(Some(ByteSize::mib(8)));
    outside.add(COUNT).await;
    let daemon = outside.home.start().await;
    outside.bucket.reached(Operation::UploadPart, 1).await;
    let log = daemon.stop().await;
    assert!(log.contains("stopping"), "{log}");
    assert!(outside.bucket.objects().len() < COUNT, "too late to stop");
    assert!(!outside.bucket.open_uploads().is_empty());

    let daemon = outside.home.start().await;
    outside.archived(&daemon).await;
    outside.home.hear(&daemon.stop().await);
    outside.assert_all_safe();
    let parts = u64::try_from(COUNT * 3).unwrap();
    assert_eq!(outside.bucket.count(Operation::UploadPart), parts);
}

#[tokio::test]
async fn the_manifest_answers_while_a_daemon_runs_and_after() {
    let outside = outside("").await;
    outside.add(2).await;
    let id = outside.simulator.tasks()[0].to_string();
    let state = ["manifest", "get", &id, "--field", "state"];
    let daemon = outside.home.start().await;
    let first = outside.home.done(&state).await;
    assert!(
        ["watching\n", "completed\n", "archived\n"].contains(&first.as_str()),
        "{first}"
    );
    outside.archived(&daemon).await;
    assert_eq!(outside.home.done(&state).await, "archived\n");
    let running = outside.home.run(&["manifest", "get", &id]).await;
    assert_eq!(running.stderr, "");
    daemon.stop().await;
    let stopped = outside.home.run(&["manifest", "get", &id]).await;
    assert_eq!(stopped.stdout, running.stdout);
    insta::assert_snapshot!(stopped.stderr, @"note: no daemon is running; this is the manifest as it was left");
}

#[tokio::test]
async fn a_second_daemon_on_one_manifest_says_whose_it_is() {
    let outside = outside("").await;
    let daemon = outside.home.start().await;
    for arguments in [&["run"][..], &["run", "--once"]] {
        let second = outside.home.run(arguments).await;
        assert_eq!(second.code, 11);
        let pid = format!("process ID {}", daemon.pid());
        assert!(second.stderr.contains(&pid), "{}", second.stderr);
        assert!(second.stderr.contains("hint:  "), "{}", second.stderr);
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_manifest_that_is_taken_away_stops_the_daemon() {
    let outside = outside("").await;
    let (path, aside) = ("manifest.db", "aside.db");
    let [path, aside] = [path, aside].map(|name| outside.home.path().join(name));
    let mut daemon = outside.home.start().await;
    // Another file of the same name is no better than none.
    std::fs::copy(&path, &aside).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    let (status, log) = daemon.ended().await;
    assert_eq!(status.code(), Some(11), "{log}");
    assert!(
        log.contains("manifest.db was removed or replaced while it was open\nhint:  keep the daemon stopped until"),
        "{log}"
    );
}

#[tokio::test]
async fn a_reload_takes_the_new_file_or_keeps_the_old_one_whole() {
    let outside = outside("").await;
    let daemon = outside.home.start().await;

    outside
        .home
        .configure("[transfer]\nconcurrent = \"many\"\n");
    daemon.signal("HUP");
    daemon.says("not reloaded").await;
    daemon.says("many").await;

    // This one can be read, but not be put into force.
    let extra = "[provider.other]\nkind = \"evolink\"\napi_key = { env = \"UNSET\" }\n";
    outside.home.configure(&outside.config("", extra));
    daemon.signal("HUP");
    daemon.says_times("not reloaded", 2).await;
    daemon.says("UNSET").await;

    // Nor this one, of which nothing is in force then, not even its log's level.
    let extra = "[destination.gone.fs]\npath = \"/not/there\"\n";
    let config = outside.config("", extra);
    outside
        .home
        .configure(&config.replace("[log]", "[log]\nlevel = \"debug\""));
    daemon.signal("HUP");
    daemon.says_times("not reloaded", 3).await;
    daemon.says("/not/there").await;

    outside.home.configure(&outside.config("", ""));
    outside.add(1).await;
    outside.archived(&daemon).await;
    assert!(!daemon.log().contains("DEBUG"), "{}", daemon.log());

    let second = outside.home.path().join("second");
    std::fs::create_dir(&second).unwrap();
    let extra = format!("[destination.second.fs]\npath = {second:?}\nfree_min = \"0 B\"\n");
    let config = outside.config("", &extra);
    let config = config.replace(
        "[log]\nformat = \"text\"",
        "[log]\nlevel = \"info,reelvault::archive=warn\"\nformat = \"json\"",
    );
    outside.home.configure(&config);
    daemon.signal("HUP");
    daemon.says("destinations=2").await;
    daemon
        .says("log.format takes effect at the next start only")
        .await;
    outside.add(1).await;
    outside.archived(&daemon).await;
    let id = outside.simulator.tasks()[1].to_string();
    let second = [
        "manifest",
        "get",
        &id,
        "--field",
        "assets.0.objects.1.state",
    ];
    let state = outside.home.done(&second).await;
    assert_eq!(state, "archived\n");
    let log = daemon.stop().await;
    assert!(log.contains("archived destination.name=main"), "{log}");
    assert!(!log.contains("archived destination.name=second"), "{log}");
}

/// What the service manager hears until `work` is done: how long it ever waited for a ping, and each status, told at
/// once.
async fn heard<T>(
    socket: &UnixDatagram,
    mut status: impl FnMut(&str),
    work: impl Future<Output = T>,
) -> (Duration, T) {
    let (mut longest, mut pinged_at) = (Duration::ZERO, Instant::now());
    let mut message = [0; 4096];
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return (longest.max(pinged_at.elapsed()), done),
            length = socket.recv(&mut message) => {
                let told = std::str::from_utf8(&message[..length.unwrap()]).unwrap();
                if told.contains("WATCHDOG=1") {
                    longest = longest.max(pinged_at.elapsed());
                    pinged_at = Instant::now();
                }
                status(told);
            }
        }
    }
}

#[tokio::test]
async fn a_slow_reload_feeds_the_watchdog_and_builds_nothing_twice() {
    const LIMIT: Duration = Duration::from_secs(6);
    let outside = outside("").await;
    let home = &outside.home;
    let second = home.path().join("second");
    std::fs::create_dir(&second).unwrap();
    // The file goes to the bucket alone, where its part is sent as it comes and not once it is whole.
    let extra = format!(
        "lanes = 0\nparts_ahead = 1\n[destination.second.fs]\npath = {second:?}\nfree_min = \"0 B\"\n[[route]]\nto = [\"main\"]\n"
    );
    home.configure(&outside.config("quirks = \"aws\"", &extra));
    // A part takes ten seconds.
    outside
        .simulator
        .limit_rate(Some(ByteSize::bytes(512 << 10)));
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let limit = LIMIT.as_micros().to_string();
    let variables = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", &limit),
    ];
    let (_, daemon) = heard(&socket, |_| {}, home.start_with(&variables)).await;
    outside.add(1).await;
    let begun = outside.bucket.reached(Operation::UploadPart, 1);
    heard(&socket, |_| {}, begun).await;
    let told_at = Instant::now();
    daemon.signal("HUP");
    // What the new stages need was there when they were built, and is asked for once.
    let gone = |told: &str| {
        if told.contains("draining") {
            std::fs::remove_dir_all(&second).ok();
        }
    };
    let (longest, log) = heard(&socket, gone, daemon.says_times(" ready ", 2)).await;
    assert!(
        told_at.elapsed() > LIMIT,
        "{:?}: too quick to tell",
        told_at.elapsed()
    );
    assert!(longest < LIMIT, "{longest:?} without a ping\n{log}");
    assert!(!log.contains("no progress"), "{log}");
    outside.simulator.limit_rate(None);
    heard(&socket, |_| {}, daemon.stop()).await;
}
