//! Whatever ends the daemon, and whenever: nothing is lost, nothing is twice, nothing stays open.

use std::time::Duration;

use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::model::asset::AssetIndex;
use reelvault::model::task::TaskId;
use reelvault::simulator;
use reelvault::simulator::Simulator;
use reelvault::simulator::bucket;
use reelvault::simulator::bucket::Bucket;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;

use crate::process::Daemon;
use crate::process::Home;
use crate::world::config_text;
use crate::world::variables;

/// How often the daemon is killed in one run.
const KILLS: usize = 10;

/// How many tasks one run has: as many before the first start as while it runs.
const TASKS: usize = 20;

/// Three parts, the last of them short.
const SIZE: ByteSize = ByteSize::mib(12);

/// What one connection gets of a file in a second: no file is done before the longest life of a daemon is over, so that
/// each kill, also the last, comes before the end.
const RATE: ByteSize = ByteSize::mib(12);

/// No daemon that is to be killed lives longer.
const LIFE_MAX: Duration = Duration::from_secs(1);

/// The outside, and a folder for the program.
struct Outside {
    simulator: Simulator,
    bucket: Bucket,
    home: Home,
}

impl Outside {
    async fn new(store: &str, extra: &str) -> Self {
        let config = simulator::Config {
            size: SIZE,
            ..simulator::Config::at_once()
        };
        let simulator = simulator::start(config, Clock::system(), Dice::new());
        let simulator = simulator.await.unwrap();
        simulator.limit_rate(Some(RATE));
        let bucket = bucket::start(bucket::Config::new("videos")).await.unwrap();
        let home = Home::new(variables(&bucket));
        let outside = Self {
            simulator,
            bucket,
            home,
        };
        outside.home.configure(&outside.config(store, extra));
        outside
    }

    fn config(&self, store: &str, extra: &str) -> String {
        let common =
            "[log]\nformat = \"text\"\n[transfer]\npart_size = \"5 MiB\"\nconcurrent = 3\n";
        config_text(
            &self.simulator.base_url(),
            &self.bucket,
            self.home.path(),
            store,
            &format!("{common}{extra}"),
        )
    }

    fn submit(&self, count: usize) -> Vec<TaskId> {
        let submit = || self.simulator.submit(Submission::video("seedance-2.0"));
        (0..count).map(|_| submit().unwrap()).collect()
    }

    /// Submits tasks and announces them as a user does.
    async fn add(&self, count: usize) {
        let ids = self.submit(count);
        let ids = ids.iter().map(TaskId::as_str);
        let arguments: Vec<&str> = ["add"].into_iter().chain(ids).collect();
        let said = self.home.done(&arguments).await;
        assert_eq!(said.matches(": learned\n").count(), count, "{said}");
    }

    /// Waits until the manifest says that everything is archived and no upload is left to abort.
    async fn archived(&self, daemon: &Daemon) {
        let archived = serde_json::json!(self.simulator.tasks().len());
        let look = async {
            loop {
                let status = self.home.done(&["status", "--json"]).await;
                let status: serde_json::Value = serde_json::from_str(&status).unwrap();
                if status["assets"]["archived"] == archived && status["orphans"] == 0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), look)
            .await
            .is_err()
        {
            panic!(
                "not archived in time: {}\n{:?}\n{}",
                self.home.done(&["tasks"]).await,
                self.bucket.open_uploads(),
                daemon.log(),
            );
        }
    }

    /// What every run must end with: each file byte for byte, once, and no upload left open.
    fn assert_all_safe(&self) {
        let objects = self.bucket.objects();
        let ids = self.simulator.tasks();
        assert_eq!(objects.len(), ids.len(), "one object an asset");
        for id in ids {
            let named = |object: &&bucket::StoredObject| object.key.contains(id.as_str());
            let object = objects.iter().find(named);
            let object = object.unwrap_or_else(|| panic!("no object of {id}"));
            assert_eq!(
                self.bucket.sha256(&object.key),
                self.simulator.expected_sha256(&id, AssetIndex(0)),
                "{id}"
            );
        }
        assert_eq!(self.bucket.open_uploads(), Vec::new());
    }
}

async fn kill_ten_times(store: &str) {
    let seed =
        std::env::var("KILL_SEED").map_or_else(|_| Dice::new().number(), |it| it.parse().unwrap());
    eprintln!("KILL_SEED={seed}");
    let dice = Dice::seeded(seed);
    let outside = Outside::new(store, "").await;
    let each = TASKS / 2 / KILLS;
    outside.add(TASKS / 2).await;
    for _ in 0..KILLS {
        // Some deaths come before the daemon is ready, which takes it about a tenth of a second.
        let moment = LIFE_MAX.mul_f64(dice.fraction());
        let daemon = outside.home.spawn();
        let (log, ()) = tokio::join!(
            async {
                tokio::time::sleep(moment).await;
                daemon.kill().await
            },
            outside.add(each)
        );
        eprintln!("killed after {moment:?}: {:?}", outside.bucket.open_uploads());
        outside.home.hear(&log);
        assert!(outside.bucket.objects().len() < TASKS, "too late to kill");
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
