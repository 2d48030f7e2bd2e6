//! A fleet whose daemons are killed and frozen at random: whatever becomes of each, everything is archived once.
//!
//! Two programs play it: a test for half a minute, and `make chaos` (`benches/fleet`) for as long as it is told to.

use std::time::Duration;

use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::config::Config;
use reelvault::manifest::Access;
use reelvault::manifest::Manifest;
use reelvault::manifest::row::TaskFilter;
use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetState;
use reelvault::model::task::TaskId;
use reelvault::model::task::TaskState;
use reelvault::simulator;
use reelvault::simulator::bucket;
use reelvault::simulator::bucket::Bodies;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Operation;
use reelvault::simulator::script::ApiFault;
use reelvault::simulator::script::Ending;
use reelvault::simulator::script::Fault;
use reelvault::simulator::script::FileFault;
use reelvault::simulator::script::Rule;
use reelvault::simulator::tasks::Status;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tokio::time::Instant;

use crate::postgres::server::Database;
use crate::postgres::server::Server;
use crate::process::Daemon;
use crate::process::Home;
use crate::process::Outside;
use crate::world::variables;

/// The shortest lease that the configuration takes.
pub(crate) const LEASE: Duration = Duration::from_secs(10);

/// What one connection gets of a file in a second. A file comes over one and takes four, so that whoever is harmed is
/// in the midst of some.
const RATE: ByteSize = ByteSize::mib(3);

/// What daemons are told besides: much at once, over one connection each, and no patience.
const TRANSFER: &str =
    "concurrent = 8\nlanes = 0\nstall_timeout = \"2s\"\n[poll]\nfirst = \"1s\"\n";

/// One of so many daemons is harmed while it starts, perhaps.
const STILLBORN: f64 = 0.2;

/// A file of three parts, and one that goes in one request.
const SIZES: [ByteSize; 2] = [ByteSize::mib(12), ByteSize::mib(1)];

/// What the store may keep: half of 400 tasks are large.
const BODIES_MAX: ByteSize = ByteSize::mib(4096);

/// How often tasks are announced and faults are planted.
const TURN: Duration = Duration::from_secs(1);

/// Once nobody is harmed any more: leases to run out, names to be free again, back-offs of a minute at most, twice.
const SETTLED_WITHIN: Duration = Duration::from_mins(3);

/// What a server is asked by hand, by whom the audit must see.
const TRESPASS: &str = "UPDATE tasks SET lease_owner = 'nobody', lease_expires_at = 1
    WHERE id = (SELECT MIN(id) FROM tasks)";

/// What is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Game {
    /// What chance is drawn from.
    pub(crate) seed: u64,
    /// How many daemons there are.
    pub(crate) daemons: usize,
    /// How many tasks there are.
    pub(crate) tasks: usize,
    /// For how long daemons are killed and frozen, and tasks announced.
    pub(crate) span: Duration,
}

/// What befell one daemon or all of them.
#[derive(Clone, Copy, Debug, Default)]
struct Fate {
    kills: u32,
    /// Frozen for longer than a lease.
    freezes: u32,
    /// Frozen for less.
    naps: u32,
    /// Steps that were told that somebody else has their work.
    leases_lost: usize,
}

#[tokio::test]
async fn daemons_that_are_killed_and_frozen_archive_everything_once() {
    let seed =
        std::env::var("FLEET_SEED").map_or_else(|_| Dice::new().number(), |it| it.parse().unwrap());
    let game = Game {
        seed,
        daemons: 3,
        tasks: 40,
        span: Duration::from_secs(20),
    };
    play(game).await;
}

/// The configuration of one machine on a database.
pub(crate) fn machine(outside: &Outside, url: &str, name: &str, more: &str) -> String {
    let config = outside.config("", "");
    on_server(&config, outside, url, name, more)
}

/// A configuration with its manifest on a server.
fn on_server(config: &str, outside: &Outside, url: &str, name: &str, more: &str) -> String {
    let sqlite = format!("sqlite:{}/manifest.db", outside.home.path().display());
    let lease = LEASE.as_secs();
    let shared = format!("{url}\"\nmachine = \"{name}\"\nlease = \"{lease} s\"\n{more}#");
    config.replace(&sqlite, &shared)
}

/// Plays a game to its end and panics where anything is lost, twice, or not its owner's.
pub(crate) async fn play(game: Game) {
    println!("FLEET_SEED={}: {game:?}", game.seed);
    let dice = Dice::seeded(game.seed);
    let field = Field::new(game, &dice).await;
    let until = Instant::now() + game.span;
    let harassed = (0..game.daemons).map(|number| {
        let dice = Dice::seeded(dice.number());
        field.harass(number, until, dice)
    });
    let (ended, ()) = tokio::join!(
        futures::future::join_all(harassed),
        field.announce(until, Dice::seeded(dice.number()))
    );
    let (daemons, fates): (Vec<Daemon>, Vec<Fate>) = ended.into_iter().unzip();
    let left_alone = Instant::now();
    field.settle(&daemons).await;
    let took = left_alone.elapsed();
    let fate = field.stop(daemons, fates).await;
    field.check(fate, took).await;
}

/// Everything but the daemons.
struct Field {
    game: Game,
    outside: Outside,
    homes: Vec<Home>,
    manifest: Manifest,
    database: Database,
    server: Server,
    /// What stands in `[destination.main.s3]`.
    store: &'static str,
}

impl Field {
    async fn new(game: Game, dice: &Dice) -> Self {
        let simulator = simulator::Config {
            size: SIZES[0],
            pending: Span::from_millis(500),
            running: Span::from_secs(2),
            seed: dice.number(),
            ..simulator::Config::default()
        };
        let bucket = bucket::Config {
            bodies: Bodies::Kept(BODIES_MAX),
            ..bucket::Config::new("videos")
        };
        let outside = Outside::with(simulator, bucket).await;
        outside.simulator.limit_rate(Some(RATE));
        let server = Server::shared();
        let database = server.database();
        let config = machine(&outside, &database.url, "desk", "");
        outside.home.configure(&config);
        let config = Config::parse(&config, "desk.toml", Vec::new()).unwrap();
        let manifest = Manifest::open(&config.config.manifest, Clock::system(), Access::Writer);
        let manifest = manifest.await.unwrap();
        server.sql(&database.name, include_str!("fleet/audit.sql"));
        let home = |_| Home::new(variables(&outside.bucket));
        // Bodies are passed through to the one kind of store, and filled for the other.
        let store = pick(dice, &["", "quirks = \"aws\""]);
        Self {
            game,
            homes: (0..game.daemons).map(home).collect(),
            outside,
            manifest,
            database,
            server,
            store,
        }
    }

    /// Starts a daemon under the name of its place, for the server in a session of this life's own.
    fn spawn(&self, number: usize, life: usize) -> Daemon {
        let config = self.outside.config(self.store, TRANSFER);
        let config = config.replace("concurrent = 3\n", "");
        let url = format!("{}&application_name=m{number}-{life}", self.database.url);
        let config = on_server(&config, &self.outside, &url, &format!("m{number}"), "");
        self.homes[number].configure(&config);
        self.homes[number].spawn()
    }

    /// Kills and freezes the daemon of one place until the time has come, and leaves it running.
    async fn harass(&self, number: usize, until: Instant, dice: Dice) -> (Daemon, Fate) {
        let (mut fate, mut life) = (Fate::default(), 0);
        let mut daemon = self.spawn(number, life);
        loop {
            if dice.fraction() > STILLBORN {
                daemon.says(" ready ").await;
            }
            tokio::time::sleep(between(&dice, 1.0, 10.0)).await;
            assert!(
                daemon.is_running(),
                "m{number} ended by itself:\n{}",
                daemon.log()
            );
            if Instant::now() >= until {
                return (daemon, fate);
            }
            let lease = LEASE.as_secs_f64();
            match dice.fraction() {
                ..0.45 => {
                    fate.kills += 1;
                    let log = daemon.kill().await;
                    fate.leases_lost += leases_lost(&log);
                    self.homes[number].hear(&log);
                    tokio::time::sleep(between(&dice, 0.0, 3.0)).await;
                    life += 1;
                    daemon = self.spawn(number, life);
                }
                0.45..0.8 => {
                    fate.freezes += 1;
                    freeze(&daemon, between(&dice, 1.1 * lease, 2.0 * lease)).await;
                }
                _ => {
                    fate.naps += 1;
                    freeze(&daemon, between(&dice, 0.1, 0.8 * lease)).await;
                }
            }
        }
    }

    /// Submits and announces the tasks little by little, and lets things go wrong outside.
    async fn announce(&self, until: Instant, dice: Dice) {
        let turns = (self.game.span.as_secs_f64() / TURN.as_secs_f64()).max(1.0);
        let mut ticks = tokio::time::interval(TURN);
        let (mut turn, mut announced) = (0.0, 0);
        // One alone: after a second dead link of the same file the provider is asked again minutes later.
        let dead = Rule::file(FileFault::Dead(403));
        self.outside.simulator.plant(dead);
        while announced < self.game.tasks {
            ticks.tick().await;
            turn += 1.0;
            // The last come in time to be under way when a daemon ends.
            let share = if Instant::now() >= until {
                1.0
            } else {
                turn / (0.9 * turns)
            };
            let wanted = (self.game.tasks as f64 * share.min(1.0)) as usize;
            self.plant(&dice);
            let ids: Vec<TaskId> = (announced..wanted).map(|_| self.submit(&dice)).collect();
            announced = announced.max(wanted);
            if !ids.is_empty() {
                let ids = ids.iter().map(TaskId::as_str);
                let arguments: Vec<&str> = ["add"].into_iter().chain(ids).collect();
                self.outside.home.done(&arguments).await;
            }
        }
    }

    fn submit(&self, dice: &Dice) -> TaskId {
        let endings = [
            Ending::Fails("content_policy".to_owned()),
            Ending::Cancelled,
        ];
        if dice.fraction() < 0.05 {
            let ending = pick(dice, &endings);
            self.outside
                .simulator
                .plant(Rule::new(Fault::Ending(ending)));
        }
        let submission = Submission {
            size: Some(if dice.fraction() < 0.5 {
                SIZES[0]
            } else {
                SIZES[1]
            }),
            ..Submission::video("seedance-2.0")
        };
        self.outside.simulator.submit(submission).unwrap()
    }

    /// Something at the origin, at the API and at the store, each of which a later try gets over.
    fn plant(&self, dice: &Dice) {
        let file = [
            FileFault::Stall(None),
            FileFault::Unavailable,
            FileFault::Truncate(None),
            FileFault::Short(None),
            FileFault::Reset(None),
            FileFault::NoLength,
            FileFault::Html,
        ];
        let api = [
            ApiFault::TooMany(Some(Span::from_secs(1))),
            ApiFault::Internal,
            ApiFault::Html,
        ];
        let store = [
            (Operation::UploadPart, Effect::SLOW_DOWN),
            (Operation::UploadPart, Effect::LoseAnswer),
            (Operation::UploadPart, Effect::Break(1 << 20)),
            (Operation::PutObject, Effect::LoseAnswer),
            (Operation::PutObject, Effect::INTERNAL_ERROR),
            (Operation::CreateMultipartUpload, Effect::LoseAnswer),
            (Operation::CreateMultipartUpload, Effect::INTERNAL_ERROR),
            (Operation::CompleteMultipartUpload, Effect::LoseAnswer),
            (Operation::CompleteMultipartUpload, Effect::ErrorIn200),
            (
                Operation::CompleteMultipartUpload,
                Effect::DoneButAnswer(500, "InternalError"),
            ),
            (
                Operation::CompleteMultipartUpload,
                Effect::Delay(Span::from_secs(2)),
            ),
            (Operation::HeadObject, Effect::SLOW_DOWN),
            (Operation::AbortMultipartUpload, Effect::INTERNAL_ERROR),
        ];
        let simulator = &self.outside.simulator;
        if dice.fraction() < 0.3 {
            simulator.plant(Rule::file(pick(dice, &file)));
        }
        if dice.fraction() < 0.1 {
            simulator.plant(Rule::api(pick(dice, &api)));
        }
        if dice.fraction() < 0.4 {
            let (operation, effect) = pick(dice, &store);
            let bucket = &self.outside.bucket;
            bucket.plant(bucket::Fault::new(operation, effect));
        }
    }

    /// Waits until nothing is left to do, with all daemons alive.
    async fn settle(&self, daemons: &[Daemon]) {
        let look = async {
            loop {
                // A server on a machine that is too busy may be asked in vain.
                if let Ok(tally) = self.manifest.tally().await {
                    let watched = tally.tasks_in(TaskState::Watching);
                    let known: u64 = tally.tasks.iter().map(|(_, count)| count).sum();
                    let left = watched + tally.assets_in(AssetState::Due) + tally.orphans;
                    if left == 0 && known == self.game.tasks as u64 {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        if tokio::time::timeout(SETTLED_WITHIN, look).await.is_err() {
            daemons
                .iter()
                .for_each(|daemon| println!("{}", daemon.log()));
            let records = self.records().await;
            let left = records
                .iter()
                .filter(|record| !crate::world::is_final(record));
            let left: Vec<TaskRecord> = left.cloned().collect();
            panic!(
                "not done in time:\n{}\n{:?}",
                crate::world::brief(&left),
                self.outside.bucket.open_uploads()
            );
        }
        let names: Vec<String> = (0..daemons.len())
            .map(|number| format!("m{number}"))
            .collect();
        let all = format!("{} machines: {}", names.len(), names.join(", "));
        self.outside.home.prints(&["status"], &all).await;
    }

    /// Stops the daemons like systemd does, and tells what befell all of them.
    async fn stop(&self, daemons: Vec<Daemon>, fates: Vec<Fate>) -> Fate {
        let mut all = Fate::default();
        for ((daemon, fate), home) in daemons.into_iter().zip(fates).zip(&self.homes) {
            let log = daemon.stop().await;
            home.hear(&log);
            all.kills += fate.kills;
            all.freezes += fate.freezes;
            all.naps += fate.naps;
            all.leases_lost += fate.leases_lost + leases_lost(&log);
        }
        let status = self.outside.home.run(&["status"]).await;
        assert!(!status.stdout.contains("machines:"), "{}", status.stdout);
        all
    }

    async fn records(&self) -> Vec<TaskRecord> {
        let most = self.game.tasks + 1;
        self.manifest
            .tasks(&TaskFilter::default(), most)
            .await
            .unwrap()
    }

    async fn check(&self, fate: Fate, took: Duration) {
        let records = self.records().await;
        assert_eq!(records.len(), self.game.tasks);
        let mut archived = 0;
        for record in &records {
            match self.outside.simulator.status(&record.key.id) {
                Some(Status::Completed) => {
                    self.check_archived(record);
                    archived += 1;
                }
                Some(Status::Failed(_)) => assert_eq!(record.state, TaskState::Failed),
                Some(Status::Cancelled) => assert_eq!(record.state, TaskState::Cancelled),
                Some(Status::Pending | Status::Processing(_)) | None => {
                    panic!("not over: {record:#?}")
                }
            }
        }
        let objects = self.outside.bucket.objects();
        assert_eq!(objects.len(), archived, "one object an asset");
        if let Some(open) = self.outside.bucket.open_uploads().first() {
            let mut parts = open.key.split('/');
            let id = parts.find(|part| part.starts_with("task-")).unwrap();
            panic!("{open:?}\n{}", self.story(id));
        }

        let ask = |sql: &str| self.server.sql(&self.database.name, sql);
        let wrong = ask("SELECT what FROM audit_wrong");
        assert_eq!(wrong, "", "writes by others than the owner");
        let taken_over = ask("SELECT COUNT(*) FROM audit_claims WHERE is_taken_over");
        let claims = ask("SELECT COUNT(*) FROM audit_claims");
        let faults = self.outside.simulator.seen().faults;
        println!(
            "FLEET_SEED={}: {} kills, {} freezes beyond the lease, {} within; {} claims, {} of them of what another \
             had left; {} steps told that their lease was lost; {faults} faults outside and {} requests to the store \
             for {archived} objects, each written once; {} tasks ended without one; 0 stale writes, 0 open uploads; \
             done {:.0} s after the last harm",
            self.game.seed,
            fate.kills,
            fate.freezes,
            fate.naps,
            claims.trim(),
            taken_over.trim(),
            fate.leases_lost,
            self.requests(),
            records.len() - archived,
            took.as_secs_f64()
        );
        ask(TRESPASS);
        let seen = ask("SELECT COUNT(*) FROM audit_wrong");
        assert_eq!(seen.trim(), "1", "the audit sees whoever is not the owner");
    }

    /// What all daemons said of a task.
    fn story(&self, id: &str) -> String {
        let mut lines = Vec::new();
        for (number, home) in self.homes.iter().enumerate() {
            let said = home.said();
            let about = said.lines().filter(|line| line.contains(id));
            lines.extend(about.map(|line| format!("{line} (m{number})")));
        }
        lines.sort();
        lines.join("\n")
    }

    fn check_archived(&self, record: &TaskRecord) {
        let [asset] = record.assets.as_slice() else {
            panic!("{record:#?}");
        };
        assert_eq!(asset.state, AssetState::Archived, "{record:#?}");
        let key = asset.objects[0].key.as_ref().unwrap().as_str();
        let bucket = &self.outside.bucket;
        assert_eq!(bucket.writes(key), 1, "{key}");
        let served = self
            .outside
            .simulator
            .expected_sha256(&record.key.id, asset.index);
        assert_eq!(asset.sha256, served, "{record:#?}");
        assert_eq!(bucket.sha256(key), served, "{key}");
    }

    fn requests(&self) -> u64 {
        let all = [
            Operation::HeadObject,
            Operation::PutObject,
            Operation::CreateMultipartUpload,
            Operation::UploadPart,
            Operation::ListParts,
            Operation::CompleteMultipartUpload,
            Operation::AbortMultipartUpload,
            Operation::ListMultipartUploads,
        ];
        all.iter().map(|one| self.outside.bucket.count(*one)).sum()
    }
}

async fn freeze(daemon: &Daemon, span: Duration) {
    daemon.signal("STOP");
    tokio::time::sleep(span).await;
    daemon.signal("CONT");
}

fn leases_lost(log: &str) -> usize {
    log.matches("the lease was lost").count()
}

fn between(dice: &Dice, least: f64, most: f64) -> Duration {
    Duration::from_secs_f64(least + (most - least) * dice.fraction())
}

fn pick<T: Clone>(dice: &Dice, among: &[T]) -> T {
    let place = (dice.fraction() * among.len() as f64) as usize;
    among[place].clone()
}
