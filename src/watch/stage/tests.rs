//! What is written and what is held, over a scripted task API, with a clock that the tests own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::claiming::PAST_BACKLOG;
use super::*;
use crate::clock::Timestamp;
use crate::http::Body;
use crate::http::Http;
use crate::http::HttpError;
use crate::http::Transport;
use crate::http::body::full;
use crate::manifest;
use crate::manifest::Access;
use crate::manifest::row::Heard;
use crate::manifest::row::Learned;
use crate::manifest::row::NewTask;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::deadline::Deadline;
use crate::model::deadline::DeadlineSource;
use crate::model::object::DestinationName;
use crate::model::task::LearnedVia;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;
use crate::provider;
use crate::secret::SecretSource;
use crate::telemetry::metrics::Metrics;
use crate::watch::RouteConfig;
use crate::watch::held::BELIEVED_LEASES;
use crate::watch::held::HOLD_LEASES;
use crate::work::driver::Driver;
use crate::work::driver::Surroundings;

/// When all of this happens.
const BEGIN: Timestamp = Timestamp::EPOCH;

const LEASE: Span = Span::from_secs(60);

/// Between two looks: both of `poll.first` and `poll.max`.
const INTERVAL: Duration = Duration::from_mins(1);

/// What the task API says of each task, and who was asked about.
#[derive(Clone, Default)]
struct Api(Arc<Said>);

#[derive(Default)]
struct Said {
    /// Whether it takes batch calls.
    has_batch: AtomicBool,
    /// Whether its answers come only when told to.
    is_slow: AtomicBool,
    may_answer: Notify,
    /// Calls about tasks that it does not know.
    misses: AtomicUsize,
    answers: Mutex<BTreeMap<String, (u16, String)>>,
    asked: Mutex<Vec<String>>,
    was_asked: Notify,
}

impl Api {
    fn says(&self, id: &str, status: u16, more: &str) {
        let body = format!(r#"{{"id":"{id}",{more}}}"#);
        let mut answers = self.0.answers.lock().unwrap();
        answers.insert(id.to_owned(), (status, body));
    }

    fn runs(&self, id: &str, percent: u8) {
        let running = format!(r#""status":"processing","progress":{percent}"#);
        self.says(id, 200, &running);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.asked.lock().unwrap())
    }

    fn note(&self, id: String) {
        self.0.asked.lock().unwrap().push(id);
        self.0.was_asked.notify_one();
    }

    /// The answer to a batch call, where it takes such: rows of those of the tasks that it knows.
    fn many(&self, body: &[u8]) -> Option<String> {
        if !self.0.has_batch.load(Ordering::Relaxed) {
            return None;
        }
        let asked: serde_json::Value = serde_json::from_slice(body).unwrap();
        let ids = asked["task_ids"].as_array().unwrap().iter();
        let answers = self.0.answers.lock().unwrap();
        let mut rows = Vec::new();
        for id in ids.filter_map(serde_json::Value::as_str) {
            if let Some((200, row)) = answers.get(id) {
                rows.push(row.clone());
                self.note(id.to_owned());
            }
        }
        Some(format!(r#"{{"data":[{}]}}"#, rows.join(",")))
    }
}

impl Transport for Api {
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<Body>, HttpError>> {
        let path = request.uri().path();
        let id = path.rsplit('/').next().unwrap_or_default().to_owned();
        let answer = if id == "batch" {
            self.many(request.body()).map(|body| (200, body))
        } else {
            let answer = self.0.answers.lock().unwrap().get(&id).cloned();
            if answer.is_some() {
                self.note(id);
            } else {
                self.0.misses.fetch_add(1, Ordering::Relaxed);
            }
            answer
        };
        let (status, body) = answer.unwrap_or((404, "{}".to_owned()));
        let answer = http::Response::builder().status(status).body(full(body));
        let api = self.clone();
        let answer = async move {
            if api.0.is_slow.load(Ordering::Relaxed) {
                api.0.may_answer.notified().await;
            }
            Ok(answer.unwrap())
        };
        answer.boxed()
    }
}

struct World {
    folder: TempDir,
    clock: Clock,
    manifest: Manifest,
    api: Api,
}

impl World {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let start = Instant::now();
        let clock = Clock::new(move || BEGIN.plus(Span::from(start.elapsed())));
        let manifest = Self::open(&folder, &clock);
        Self {
            folder,
            clock,
            manifest,
            api: Api::default(),
        }
    }

    fn open(folder: &TempDir, clock: &Clock) -> Manifest {
        let config = manifest::Config {
            url: format!("sqlite:{}/manifest.db", folder.path().display()),
            lease: LEASE,
            ..manifest::Config::of_tests()
        };
        Manifest::open_inline(&config, clock, Access::Daemon).unwrap()
    }

    /// What a daemon that died and started anew has.
    async fn restart(&mut self) {
        self.manifest.close().await;
        self.manifest = Self::open(&self.folder, &self.clock);
    }

    fn provider(&self, name: &str, requests: Option<&str>) -> (ProviderName, Provider) {
        self.provider_of("evolink", name, requests)
    }

    fn provider_of(
        &self,
        kind: &str,
        name: &str,
        requests: Option<&str>,
    ) -> (ProviderName, Provider) {
        let config = provider::Config {
            kind: Some(kind.to_owned()),
            api_key: Some(SecretSource::env("KEY")),
            requests: requests.map(|rate| rate.parse().unwrap()),
            ..provider::Config::default()
        };
        let name: ProviderName = name.parse().unwrap();
        let provider = Provider::connect(
            name.clone(),
            &config,
            Span::from_secs(86_400),
            Http::new(self.api.clone()),
            self.clock.clone(),
            &|_| Some("key".to_owned()),
        );
        (name, provider.unwrap())
    }

    fn stage(&self) -> Watch {
        self.stage_of([self.provider("house", None)])
    }

    fn stage_of<const N: usize>(&self, providers: [(ProviderName, Provider); N]) -> Watch {
        let destination = |name: &str| name.parse::<DestinationName>().unwrap();
        let route = RouteConfig {
            name: String::new(),
            provider: None,
            model: None,
            tag: Some(BTreeMap::from([("region".to_owned(), "eu".to_owned())])),
            to: vec![destination("eu")],
            key: None,
        };
        let all = ["main", "eu"].into_iter().map(destination);
        let routes = Routes::new(&[route], all, &"{task_id}/{index}".parse().unwrap());
        Watch::new(WatchParts {
            manifest: self.manifest.clone(),
            providers: BTreeMap::from(providers),
            routes: routes.unwrap(),
            config: Config {
                first: Span::from(INTERVAL),
                max: Span::from(INTERVAL),
                jitter: 0.0,
                give_up: Span::from_secs(259_200),
            },
            lease: LEASE,
            clock: self.clock.clone(),
            dice: Dice::seeded(1),
            archive: Wake::new(),
        })
    }

    fn task(&self, id: &str) -> NewTask {
        NewTask {
            key: key(id),
            tags: Tags::new(),
            via: LearnedVia::Cli,
            next_look_at: self.clock.now(),
            deadline: Deadline {
                at: self.clock.now().plus(Span::from_secs(86_400)),
                from: DeadlineSource::Learned,
            },
            callback: None,
        }
    }

    async fn learn(&self, id: &str) {
        let learned = self.manifest.learn(vec![self.task(id)]).await.unwrap();
        assert_eq!(learned, [Learned::New]);
        self.api.runs(id, 10);
    }

    async fn record(&self, id: &str) -> TaskRecord {
        let filter = TaskFilter {
            id: Some(key(id).id),
            ..TaskFilter::default()
        };
        self.manifest.tasks(&filter, 1).await.unwrap().remove(0)
    }

    /// A number that changes with each commit that wrote anything, as `SQLite` tells another connection.
    fn writes(&self) -> Writes {
        let path = self.folder.path().join("manifest.db");
        Writes(rusqlite::Connection::open(path).unwrap())
    }

    /// Turns of the stage until nothing is due: whom it asks about.
    async fn turn(&self, stage: &Watch) -> Vec<String> {
        loop {
            let batches = stage.claim(16).await.unwrap();
            if batches.is_empty() {
                return self.api.asked();
            }
            for batch in batches {
                stage.step(&batch, &CancellationToken::new()).await.unwrap();
            }
        }
    }

    /// What a driver needs.
    fn around(&self, stop: &CancellationToken) -> Surroundings {
        Surroundings {
            manifest: self.manifest.clone(),
            clock: self.clock.clone(),
            dice: Dice::seeded(1),
            lease: LEASE,
            metrics: Metrics::new(),
            stop: stop.clone(),
            halt: CancellationToken::new(),
        }
    }

    /// The stage at work, until told to stop.
    fn run(&self, stage: Watch, stop: &CancellationToken) -> JoinSet<()> {
        let around = self.around(stop);
        let room = stage.room();
        let mut running = JoinSet::new();
        let driver = Driver::new(stage, room, Wake::new(), around);
        running.spawn(async move { driver.run().await.unwrap() });
        running
    }

    /// A stage that holds the task `a`, whose next look is an interval away.
    async fn holding(&self) -> Watch {
        self.learn("a").await;
        let stage = self.stage();
        for _ in 0..2 {
            assert_eq!(self.turn(&stage).await, ["a"]);
            pass(INTERVAL).await;
        }
        assert_eq!(self.turn(&stage).await, ["a"]);
        assert_eq!(stage.held.count(), 1);
        stage
    }
}

struct Writes(rusqlite::Connection);

impl Writes {
    fn version(&self) -> i64 {
        let version = self
            .0
            .query_row("PRAGMA data_version", [], |row| row.get(0));
        version.unwrap()
    }
}

fn key(id: &str) -> TaskKey {
    TaskKey {
        provider: "house".parse().unwrap(),
        id: id.parse().unwrap(),
    }
}

async fn pass(span: Duration) {
    tokio::time::advance(span).await;
}

#[tokio::test(start_paused = true)]
async fn a_look_without_news_writes_nothing() {
    let world = World::new();
    let stage = world.holding().await;
    let writes = world.writes();
    let (version, record) = (writes.version(), world.record("a").await);
    for percent in [10, 15, 19] {
        world.api.runs("a", percent);
        pass(INTERVAL).await;
        assert_eq!(world.turn(&stage).await, ["a"]);
    }
    assert_eq!(writes.version(), version);
    let (now, before) = (world.record("a").await, record);
    assert_eq!(format!("{now:?}"), format!("{before:?}"));
    assert_eq!(world.turn(&stage).await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn news_is_written_at_once_and_the_task_is_held_again() {
    let world = World::new();
    let stage = world.holding().await;
    let running = |more: &str| format!(r#""status":"processing",{more}"#);
    for (said, shown) in [
        (running(r#""progress":20"#), "processing Some(20) None"),
        (running(r#""progress":40"#), "processing Some(40) None"),
        (r#""status":"queued""#.to_owned(), "queued Some(40) None"),
        (running(r#""progress":40"#), "processing Some(40) None"),
        (running(r#""model":"m""#), "processing Some(40) Some(\"m\")"),
    ] {
        world.api.says("a", 200, &said);
        pass(INTERVAL).await;
        assert_eq!(world.turn(&stage).await, ["a"]);
        let record = world.record("a").await;
        let status = record.status.unwrap_or_default();
        assert_eq!(
            format!("{status} {:?} {:?}", record.percent, record.model),
            shown
        );
        assert_eq!(stage.held.count(), 0, "{said}");
        pass(INTERVAL).await;
        assert_eq!(world.turn(&stage).await, ["a"]);
        assert_eq!(stage.held.count(), 1, "{said}");
    }
    let done = r#""status":"completed","results":["https://cdn.test/a.mp4"]"#;
    world.api.says("a", 200, done);
    pass(INTERVAL).await;
    world.turn(&stage).await;
    let record = world.record("a").await;
    assert_eq!(record.state, TaskState::Completed);
    assert_eq!(record.assets[0].state, AssetState::Due);
    // The deadline counts from the last look, which was not written.
    let seen = world.clock.now().minus(Span::from(INTERVAL));
    assert_eq!(
        record.assets[0].deadline.at,
        seen.plus(Span::from_secs(86_400))
    );
    assert_eq!(stage.held.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_is_written_and_ends_the_hold() {
    let world = World::new();
    let stage = world.holding().await;
    world.api.says("a", 500, "\"x\":1");
    pass(INTERVAL).await;
    world.turn(&stage).await;
    let record = world.record("a").await;
    assert!(record.error.is_some(), "{record:?}");
    assert_eq!(stage.held.count(), 0);
    // The next good answer clears it.
    world.api.runs("a", 10);
    pass(INTERVAL).await;
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert_eq!(world.record("a").await.error, None);
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_a_held_task_brings_a_look_at_once() {
    let world = World::new();
    let stage = world.holding().await;
    let nobody = Vec::<String>::new();
    let manifest = &world.manifest;
    assert_eq!(manifest.hear(&key("a")).await.unwrap(), Heard::Due);
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert_eq!(world.turn(&stage).await, nobody);
    assert_eq!(manifest.retry(None, &key("a").id).await.unwrap(), 1);
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert_eq!(world.turn(&stage).await, nobody);
    assert_eq!(stage.held.count(), 1);

    // Also when it comes in the middle of a look that has no news.
    pass(INTERVAL).await;
    let batches = stage.claim(16).await.unwrap();
    manifest.hear(&key("a")).await.unwrap();
    let stop = CancellationToken::new();
    stage.step(&batches[0], &stop).await.unwrap();
    assert_eq!(world.api.asked(), ["a"]);
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert_eq!(world.turn(&stage).await, nobody);
}

#[tokio::test(start_paused = true)]
async fn a_held_task_goes_by_the_tags_that_it_has_now() {
    let world = World::new();
    let stage = world.holding().await;
    let tagged = NewTask {
        tags: Tags::from([("region".to_owned(), "eu".to_owned())]),
        ..world.task("a")
    };
    world.manifest.learn(vec![tagged]).await.unwrap();
    assert_eq!(world.turn(&stage).await, ["a"]);
    let done = r#""status":"completed","results":["https://cdn.test/a.mp4"]"#;
    world.api.says("a", 200, done);
    pass(INTERVAL).await;
    world.turn(&stage).await;
    let objects = &world.record("a").await.assets[0].objects;
    let places: Vec<_> = objects.iter().map(|it| it.destination.as_str()).collect();
    assert_eq!(places, ["eu"]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_task_is_soon_not_asked_about_any_more() {
    let world = World::new();
    let stage = world.holding().await;
    let TaskKey { provider, id } = key("a");
    assert!(world.manifest.forget(&provider, &id).await.unwrap());
    let mut looks = 0;
    pass(INTERVAL).await;
    while world.turn(&stage).await == ["a"] {
        looks += 1;
        assert!(looks < BELIEVED_LEASES, "{looks}");
        pass(INTERVAL).await;
    }
    assert_eq!(stage.held.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn killed_in_a_hold_the_next_daemon_looks_at_once() {
    let mut world = World::new();
    let stage = world.holding().await;
    drop(stage);
    world.restart().await;
    let stage = world.stage();
    assert_eq!(world.turn(&stage).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_back_is_anybodys_when_its_time_comes() {
    let world = World::new();
    let stage = world.holding().await;
    let due = world.clock.now().plus(Span::from(INTERVAL));
    pass(INTERVAL / 2).await;
    stage.give_back().await;
    assert_eq!(world.record("a").await.next_look_at, Some(due));
    let other = world.stage();
    assert_eq!(world.turn(&other).await, Vec::<String>::new());
    pass(INTERVAL / 2).await;
    assert_eq!(world.turn(&other).await, ["a"]);
    // Who has given back keeps nothing any more, though it may be in the middle of a look.
    other.give_back().await;
    pass(INTERVAL).await;
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert_eq!(stage.held.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_not_lost_when_its_task_is_given_back() {
    let world = World::new();
    let stage = world.holding().await;
    world.manifest.hear(&key("a")).await.unwrap();
    stage.give_back().await;
    assert_eq!(world.turn(&world.stage()).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_before_its_time_and_no_look_is_late_for_it() {
    let world = World::new();
    let stage = world.holding().await;
    let writes = world.writes();
    let (mut version, mut written) = (writes.version(), 0);
    let other = world.stage();
    let minutes = 4 * HOLD_LEASES;
    for minute in 0..minutes {
        pass(INTERVAL).await;
        assert_eq!(world.turn(&stage).await, ["a"], "minute {minute}");
        written += u32::from(writes.version() != version);
        version = writes.version();
        // At no time can anybody else have it who looks right behind.
        assert_eq!(world.turn(&other).await, Vec::<String>::new());
    }
    // The look that ends one and the claim that begins the next.
    assert!(
        (2..=10).contains(&written),
        "{written} of {minutes} looks wrote"
    );
}

#[tokio::test(start_paused = true)]
async fn another_machine_takes_over_after_the_hold_and_a_late_owner_changes_nothing() {
    let world = World::new();
    let frozen = world.holding().await;
    let other = world.stage();
    pass(INTERVAL).await;
    // Frozen in the middle of a look, and of another that has just been claimed.
    let batches = frozen.claim(16).await.unwrap();
    assert_eq!(world.turn(&other).await, Vec::<String>::new());
    pass(LEASE.as_duration() * HOLD_LEASES).await;
    assert_eq!(world.turn(&other).await, ["a"]);
    pass(INTERVAL).await;
    assert_eq!(world.turn(&other).await, ["a"]);
    let writes = world.writes();
    let version = writes.version();
    let stop = CancellationToken::new();
    frozen.step(&batches[0], &stop).await.unwrap();
    world.api.runs("a", 90);
    pass(INTERVAL / 2).await;
    world.api.asked();
    assert_eq!(world.turn(&frozen).await, Vec::<String>::new());
    assert_eq!(writes.version(), version);
    assert_eq!(frozen.held.count(), 0);
    assert_eq!(other.held.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn held_tasks_of_a_machine_that_slept_past_its_holds_are_let_go() {
    let world = World::new();
    let stage = world.holding().await;
    // Nobody else was there: it is still ours, and claimed anew.
    pass(LEASE.as_duration() * HOLD_LEASES * 2).await;
    assert_eq!(world.turn(&stage).await, ["a"]);
    pass(INTERVAL).await;
    assert_eq!(world.turn(&stage).await, ["a"]);
    // Somebody else was: it is theirs.
    pass(LEASE.as_duration() * HOLD_LEASES * 2).await;
    let other = world.stage();
    assert_eq!(world.turn(&other).await, ["a"]);
    assert_eq!(world.turn(&stage).await, Vec::<String>::new());
    assert_eq!(stage.held.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_pauses_is_not_asked_and_its_tasks_stay_held() {
    let world = World::new();
    let stage = world.holding().await;
    pass(INTERVAL / 2).await;
    // So many in a row that it is the account, which was accepted a moment ago.
    let others = ["b", "c", "d", "e", "f"];
    for id in others {
        world.learn(id).await;
        world.api.says(id, 403, "\"x\":1");
    }
    assert_eq!(world.turn(&stage).await.len(), others.len());
    pass(INTERVAL / 2).await;
    assert_eq!(stage.pauses().len(), 1);
    assert_eq!(world.turn(&stage).await, Vec::<String>::new());
    assert_eq!(stage.held.count(), 1);
    others.iter().for_each(|id| world.api.runs(id, 10));
    pass(INTERVAL).await;
    // First who was never refused.
    let asked = world.turn(&stage).await;
    assert_eq!((asked.len(), asked[0].as_str()), (6, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_refused_stops_no_other() {
    for status in [401, 402, 403, 429] {
        let world = World::new();
        let stage = world.stage();
        for id in ["a", "b", "c"] {
            world.learn(id).await;
        }
        let refuse = || world.api.says("a", status, "\"x\":1");
        refuse();
        // Nothing is known of the account: it is left alone, and the others are told nothing.
        assert_eq!(world.turn(&stage).await, ["a"], "{status}");
        let record = world.record("a").await;
        assert!(
            record
                .error
                .is_some_and(|error| error.contains(&status.to_string()))
        );
        assert_eq!(record.attempts, 1);
        for id in ["b", "c"] {
            let record = world.record(id).await;
            assert_eq!((record.error, record.attempts), (None, 0), "{status}");
        }
        // The next who is asked is another, and then all go on.
        let mut asked = Vec::new();
        for _ in 0..10 {
            pass(INTERVAL).await;
            asked.extend(world.turn(&stage).await);
        }
        assert_eq!(asked[0], "b", "{status}");
        let looks = |id: &str| asked.iter().filter(|asked| *asked == id).count();
        assert!(looks("b") >= 8 && looks("c") >= 8, "{status}: {asked:?}");
        assert!((2..=6).contains(&looks("a")), "{status}: {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sighting_that_cannot_be_written_keeps_no_other_from_it() {
    let world = World::new();
    world.api.0.has_batch.store(true, Ordering::Relaxed);
    for id in ["a", "b", "c"] {
        world.learn(id).await;
    }
    let stage = world.stage();
    world.api.runs("a", 50);
    // What the engine does not take, whoever writes it.
    let unfit = "CREATE TRIGGER unfit BEFORE UPDATE ON tasks WHEN NEW.status = 'queued'
        BEGIN SELECT RAISE(ABORT, 'no such word'); END";
    world.writes().0.execute_batch(unfit).unwrap();
    world.api.says("b", 200, r#""status":"queued""#);
    let done = r#""status":"completed","results":["https://cdn.test/c.mp4"]"#;
    world.api.says("c", 200, done);
    let batches = stage.claim(16).await.unwrap();
    assert_eq!(batches.len(), 1, "{batches:?}");
    let begun = Instant::now();
    let stop = CancellationToken::new();
    stage.step(&batches[0], &stop).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "it was waited for");
    assert_eq!(world.record("a").await.percent, Some(50));
    assert_eq!(world.record("c").await.state, TaskState::Completed);
    let record = world.record("b").await;
    assert_eq!((record.state, record.status), (TaskState::Watching, None));
    // It is not forgotten, and written once it can be.
    let mended = world.writes().0.execute_batch("DROP TRIGGER unfit");
    mended.unwrap();
    world.api.asked();
    pass(INTERVAL).await;
    assert!(world.turn(&stage).await.contains(&"b".to_owned()));
    let status = world.record("b").await.status;
    assert_eq!(status.as_deref(), Some("queued"));
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_told_of_nobody_who_was_not_asked() {
    let world = World::new();
    let stage = world.stage();
    for id in ["a", "b"] {
        world.learn(id).await;
    }
    world.api.says("a", 500, "\"x\":1");
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert!(world.record("a").await.error.is_some());
    let record = world.record("b").await;
    assert_eq!((record.error, record.attempts), (None, 0));
    // The one that failed comes after those of which nothing bad is known.
    pass(Duration::from_secs(2)).await;
    assert_eq!(world.turn(&stage).await, ["b", "a"]);
    assert_eq!(world.record("b").await.error, None);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_has_more_than_it_can_be_asked_holds_up_no_other() {
    let world = World::new();
    let stage = world.stage_of([
        world.provider("house", Some("1/min")),
        world.provider("other", None),
    ]);
    let learn = async |provider: &str, id: &str| {
        let key = TaskKey {
            provider: provider.parse().unwrap(),
            id: id.parse().unwrap(),
        };
        world.api.runs(id, 10);
        let task = NewTask {
            key,
            ..world.task(id)
        };
        world.manifest.learn(vec![task]).await.unwrap();
    };
    for number in 0..2_000 {
        learn("house", &format!("h{number}")).await;
    }
    let count = |batches: &[Batch], provider: &str| {
        let its = batches
            .iter()
            .filter(|batch| batch.provider.as_str() == provider);
        its.map(|batch| batch.tasks.len()).sum::<usize>()
    };
    // What can be asked soon is claimed, no more; what comes later is claimed beside it, while nobody has been asked yet.
    let first = stage.claim(99).await.unwrap();
    assert_eq!(count(&first, "house"), 50);
    learn("other", "o1").await;
    pass(PAST_BACKLOG.as_duration()).await;
    let second = stage.claim(99).await.unwrap();
    assert_eq!((count(&second, "house"), count(&second, "other")), (0, 1));
    // A place that is free again is used again, and also then nobody else is forgotten.
    drop(first);
    learn("other", "o2").await;
    pass(PAST_BACKLOG.as_duration()).await;
    let third = stage.claim(99).await.unwrap();
    assert_eq!((count(&third, "house"), count(&third, "other")), (50, 1));
    assert!(!stage.has_more());
    drop(third);
    assert!(stage.has_more());
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_goes_before_a_backlog() {
    let world = World::new();
    let stage = world.stage_of([world.provider("house", Some("1/min"))]);
    pass(Duration::from_secs(1)).await;
    for number in 0..2_000 {
        world.learn(&format!("h{number}")).await;
    }
    pass(Duration::from_secs(1)).await;
    world.learn("late").await;
    let claimed = async || {
        let batches = stage.claim(99).await.unwrap();
        batches
            .iter()
            .any(|batch| batch.tasks.iter().any(|held| held.task.key == key("late")))
    };
    assert!(!claimed().await);
    world.manifest.hear(&key("late")).await.unwrap();
    assert_eq!(
        world.record("late").await.next_look_at,
        Some(world.clock.now())
    );
    assert!(claimed().await);
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_pauses_is_looked_past_now_and_then() {
    let world = World::new();
    let house = world.provider("house", None);
    let other = world.provider("other", None);
    let stage = world.stage_of([house, other]);
    world.learn("a").await;
    world.api.says("a", 401, "\"x\":1");
    world.turn(&stage).await;
    assert_eq!(stage.pauses().len(), 1);
    pass(PAST_BACKLOG.as_duration()).await;
    let others = async |id: &str| {
        world.api.runs(id, 10);
        let mut task = world.task(id);
        task.key.provider = "other".parse().unwrap();
        world.manifest.learn(vec![task]).await.unwrap();
        world.turn(&stage).await
    };
    assert_eq!(others("o1").await, ["o1"]);
    // All that is due of who pauses may be read for it.
    assert_eq!(others("o2").await, Vec::<String>::new());
    pass(PAST_BACKLOG.as_duration()).await;
    assert_eq!(others("o3").await, ["o2", "o3"]);
}

/// A stage with room for fifty tasks of the house, and sixty tasks that somebody waits for, in front of a backlog.
async fn crowded(world: &World) -> Watch {
    let stage = world.stage_of([
        world.provider("house", Some("1/min")),
        world.provider("other", None),
    ]);
    pass(Duration::from_secs(1)).await;
    for number in 0..500 {
        let mut task = world.task(&format!("h{number}"));
        task.deadline.at = world.clock.now();
        world.manifest.learn(vec![task]).await.unwrap();
    }
    for number in 0..60 {
        let task = NewTask {
            next_look_at: Timestamp::EPOCH,
            ..world.task(&format!("asked{number}"))
        };
        world.manifest.learn(vec![task]).await.unwrap();
    }
    stage
}

fn asked_for(batches: &[Batch]) -> usize {
    let tasks = batches.iter().flat_map(|batch| &batch.tasks);
    let ids = tasks.map(|held| held.task.key.id.as_str());
    ids.filter(|id| id.starts_with("asked")).count()
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_and_finds_no_room_comes_first_again() {
    let world = World::new();
    let stage = crowded(&world).await;
    let first = stage.claim(99).await.unwrap();
    assert_eq!(asked_for(&first), 50);
    drop(first);
    pass(PAST_BACKLOG.as_duration()).await;
    let second = stage.claim(99).await.unwrap();
    assert_eq!(asked_for(&second), 10);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_given_back_is_not_forgotten() {
    let world = World::new();
    let stage = crowded(&world).await;
    let unfit = "CREATE TRIGGER unfit BEFORE UPDATE ON tasks
        WHEN OLD.lease_expires_at IS NOT NULL AND NEW.lease_expires_at IS NULL
        BEGIN SELECT RAISE(ABORT, 'not now'); END";
    world.writes().0.execute_batch(unfit).unwrap();
    let first = stage.claim(99).await.unwrap();
    let count = |batches: &[Batch]| batches.iter().map(|it| it.tasks.len()).sum::<usize>();
    assert_eq!(count(&first), 50);
    assert_eq!(stage.held.count(), 510);
}

#[tokio::test(start_paused = true)]
async fn of_two_claims_the_later_one_is_kept() {
    let world = World::new();
    world.learn("a").await;
    let stage = world.stage();
    let old = stage.claim(16).await.unwrap();
    pass(LEASE.times(f64::from(HOLD_LEASES) + 1.0).as_duration()).await;
    let new = stage.claim(16).await.unwrap();
    let token = |held: &HeldTask| held.task.lease.token;
    assert!(token(&new[0].tasks[0]) > token(&old[0].tasks[0]));
    let now = Instant::now();
    stage.held.put_back(new[0].tasks.clone(), now + INTERVAL);
    stage.held.put_back(old[0].tasks.clone(), now);
    let kept = stage.held.close();
    assert_eq!(kept.len(), 1);
    assert_eq!(token(&kept[0].0), token(&new[0].tasks[0]));
    assert_eq!(kept[0].1, now + INTERVAL);
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_about_alone_waits_for_the_next_look_too() {
    let world = World::new();
    world.api.0.has_batch.store(true, Ordering::Relaxed);
    let stage = world.stage();
    world.learn("a").await;
    world
        .manifest
        .learn(vec![world.task("gone")])
        .await
        .unwrap();
    let unfit = "CREATE TRIGGER unfit BEFORE UPDATE ON tasks WHEN NEW.misses > OLD.misses
        BEGIN SELECT RAISE(ABORT, 'no such number'); END";
    world.writes().0.execute_batch(unfit).unwrap();
    let misses = || world.api.0.misses.load(Ordering::Relaxed);
    for looks in 1..4 {
        // What cannot be written is no reason to ask as fast as may be.
        for _ in 0..5 {
            let stop = CancellationToken::new();
            for batch in stage.claim(16).await.unwrap() {
                stage.step(&batch, &stop).await.unwrap();
            }
        }
        assert_eq!(misses(), looks);
        assert!(!stage.has_more());
        pass(INTERVAL).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_claim_spoils_no_other_of_its_batch() {
    let world = World::new();
    world.api.0.has_batch.store(true, Ordering::Relaxed);
    world.api.0.is_slow.store(true, Ordering::Relaxed);
    for id in ["a", "b"] {
        world.learn(id).await;
    }
    let mut stage = world.stage();
    stage.held.hold_at_most(0);
    let stop = CancellationToken::new();
    let mut running = world.run(stage, &stop);
    world.api.0.was_asked.notified().await;
    let lost = key("b");
    world
        .manifest
        .forget(&lost.provider, &lost.id)
        .await
        .unwrap();
    // The driver has found out.
    tokio::time::sleep(LEASE.times(0.4).as_duration()).await;
    world.api.0.is_slow.store(false, Ordering::Relaxed);
    world.api.0.may_answer.notify_waiters();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.record("a").await.percent, Some(10));
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
}

/// Many that the provider does not know and who are nearer to their deadlines, and one that somebody announces: before they
/// have been asked about, while they are, and when they are due again.
async fn the_unknown_hold_up_nobody(has_batch: bool) {
    let world = World::new();
    world.api.0.has_batch.store(has_batch, Ordering::Relaxed);
    let stage = world.stage_of([world.provider("house", Some("5/s"))]);
    let deadline = |seconds| Deadline {
        at: world.clock.now().plus(Span::from_secs(seconds)),
        from: DeadlineSource::Created,
    };
    pass(Duration::from_secs(1)).await;
    let unknown = |number: u32| NewTask {
        deadline: deadline(3_600),
        ..world.task(&format!("u{number}"))
    };
    let unknown: Vec<NewTask> = (0..800).map(unknown).collect();
    world.manifest.learn(unknown).await.unwrap();
    let stop = CancellationToken::new();
    let mut running = world.run(stage, &stop);
    let mut slowest = Duration::ZERO;
    for number in 0..12_u32 {
        let id = format!("new{number}");
        world.api.runs(&id, 10);
        let announced = NewTask {
            next_look_at: Timestamp::EPOCH,
            ..world.task(&id)
        };
        let begun = Instant::now();
        world.manifest.learn(vec![announced]).await.unwrap();
        while !world.api.0.asked.lock().unwrap().contains(&id) {
            world.api.0.was_asked.notified().await;
            assert!(begun.elapsed() < Duration::from_mins(5), "{id}");
        }
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_secs(77)).await;
    }
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
    // Who was seen is looked at again at its time.
    world.api.asked();
    let begun = Instant::now();
    while !world.api.asked().contains(&"new0".to_owned()) {
        world.api.0.was_asked.notified().await;
    }
    assert!(begun.elapsed() < INTERVAL + Duration::from_secs(10));
    // All the same those are asked about as fast as may be, and end.
    tokio::time::sleep(Duration::from_mins(15)).await;
    let looks = world.api.0.misses.load(Ordering::Relaxed);
    let vanished = TaskFilter {
        state: Some(TaskState::Vanished),
        ..TaskFilter::default()
    };
    let vanished = world.manifest.tasks(&vanished, 9_999).await.unwrap().len();
    assert_eq!(vanished, 800, "{looks} looks");
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn thousands_that_a_list_lacks_hold_up_nobody() {
    the_unknown_hold_up_nobody(true).await;
}

#[tokio::test(start_paused = true)]
async fn thousands_that_are_unknown_hold_up_nobody_where_each_is_a_call() {
    the_unknown_hold_up_nobody(false).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_list_lacks_is_asked_about_alone_and_in_its_line() {
    let world = World::new();
    world.api.0.has_batch.store(true, Ordering::Relaxed);
    let stage = world.stage();
    for id in ["a", "b", "gone"] {
        world.manifest.learn(vec![world.task(id)]).await.unwrap();
    }
    world.api.runs("a", 10);
    world.api.runs("b", 10);
    let batches = stage.claim(16).await.unwrap();
    let stop = CancellationToken::new();
    stage.step(&batches[0], &stop).await.unwrap();
    assert_eq!(world.api.asked(), ["a", "b"]);
    assert_eq!(world.api.0.misses.load(Ordering::Relaxed), 0);
    assert_eq!(world.record("gone").await.error, None);
    drop(batches);
    let alone = stage.claim(16).await.unwrap();
    let ids: Vec<&str> = alone[0]
        .tasks
        .iter()
        .map(|it| it.task.key.id.as_str())
        .collect();
    assert_eq!((ids, alone[0].is_alone), (vec!["gone"], true));
    stage.step(&alone[0], &stop).await.unwrap();
    assert_eq!(world.api.0.misses.load(Ordering::Relaxed), 1);
    assert!(world.record("gone").await.error.is_some());
    drop(alone);
    // Due again it waits in its line at once.
    pass(Duration::from_secs(200)).await;
    let batches = stage.claim(16).await.unwrap();
    let is_alone = |batch: &Batch| {
        let mut ids = batch.tasks.iter().map(|it| it.task.key.id.as_str());
        ids.any(|id| id == "gone") && batch.is_alone
    };
    assert!(batches.iter().any(is_alone));
    drop(batches);
}

#[tokio::test(start_paused = true)]
async fn completed_without_results_is_told_asked_about_more_seldom_and_ends() {
    let world = World::new();
    world.learn("a").await;
    let stage = world.stage();
    world
        .api
        .says("a", 200, r#""status":"completed","results":[]"#);
    world.turn(&stage).await;
    assert_eq!(world.record("a").await.error, None);
    pass(INTERVAL * 2).await;
    world.turn(&stage).await;
    let record = world.record("a").await;
    let error = record.error.unwrap();
    assert!(
        error.starts_with("completed, but without results since"),
        "{error}"
    );
    assert_eq!(record.state, TaskState::Watching);
    // The same again is no news.
    let writes = world.writes();
    pass(INTERVAL * 2).await;
    world.turn(&stage).await;
    let version = writes.version();
    pass(INTERVAL * 2).await;
    assert_eq!(world.turn(&stage).await, ["a"]);
    assert_eq!(writes.version(), version);
    // Links live for a day after the completion; after as long again nothing is expected.
    pass(Duration::from_hours(47)).await;
    world.turn(&stage).await;
    assert_eq!(world.record("a").await.state, TaskState::Watching);
    pass(Duration::from_hours(2)).await;
    world.turn(&stage).await;
    let record = world.record("a").await;
    assert_eq!(record.state, TaskState::Abandoned);
    assert_eq!(record.error.as_ref(), Some(&error));
    assert_eq!(record.next_look_at, None);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_asked_ends_no_task_before_its_links_are_long_dead() {
    const DAY: Duration = Duration::from_hours(24);
    for status in [401, 429, 500] {
        let world = World::new();
        let mut task = world.task("a");
        task.deadline.at = world.clock.now().plus(Span::from(30 * DAY));
        world.manifest.learn(vec![task]).await.unwrap();
        let stage = world.stage();
        world.api.says("a", status, r#""x":1"#);
        let mut states = Vec::new();
        // Long after `poll.give_up`; when its links must be taken as dead; and so long after that.
        for wait in [20 * DAY, 12 * DAY, 5 * DAY] {
            pass(wait).await;
            world.turn(&stage).await;
            states.push(world.record("a").await.state);
        }
        let watching = TaskState::Watching;
        assert_eq!(
            states,
            [watching, watching, TaskState::Abandoned],
            "{status}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_was_seen_ends_when_it_is_unknown_thrice_in_a_row() {
    let world = World::new();
    world.learn("a").await;
    let stage = world.stage();
    world.api.runs("a", 10);
    world.turn(&stage).await;
    world.api.says("a", 404, r#""x":1"#);
    // Longer than `poll.give_up`, and not so much longer than its links live.
    pass(Duration::from_hours(84)).await;
    for state in [
        TaskState::Watching,
        TaskState::Watching,
        TaskState::Abandoned,
    ] {
        world.turn(&stage).await;
        assert_eq!(world.record("a").await.state, state);
        pass(Duration::from_hours(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_no_file_ends_its_task_without_an_alarm() {
    let world = World::new();
    world.learn("a").await;
    let stage = world.stage_of([world.provider_of("replicate", "house", None)]);
    let done = r#""status":"succeeded","output":["Hello"," world"]"#;
    world.api.says("a", 200, done);
    world.turn(&stage).await;
    let record = world.record("a").await;
    assert_eq!(record.state, TaskState::Completed);
    assert_eq!((record.error, record.next_look_at), (None, None));
    assert!(record.assets.is_empty());
    // Nothing at all may still become a file.
    world.learn("b").await;
    let done = r#""status":"succeeded","output":[]"#;
    world.api.says("b", 200, done);
    world.turn(&stage).await;
    assert_eq!(world.record("b").await.state, TaskState::Watching);
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_written_at_each_look() {
    let world = World::new();
    world.learn("a").await;
    let mut stage = world.stage();
    stage.held.hold_at_most(0);
    let writes = world.writes();
    let mut version = writes.version();
    for _ in 0..4 {
        assert_eq!(world.turn(&stage).await, ["a"]);
        assert_ne!(writes.version(), version);
        version = writes.version();
        assert_eq!(stage.held.count(), 0);
        pass(INTERVAL).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_driver_looks_in_time_and_gives_back_when_it_stops() {
    let world = World::new();
    world.learn("a").await;
    let stop = CancellationToken::new();
    let around = world.around(&stop);
    let mut running = JoinSet::new();
    running.spawn(Driver::new(world.stage(), 16, Wake::new(), around).run());
    let begun = Instant::now();
    for look in 0..5_u32 {
        world.api.0.was_asked.notified().await;
        let late = begun.elapsed().saturating_sub(INTERVAL * look);
        assert!(
            late < Duration::from_secs(1) * (look + 1),
            "look {look}: {late:?} late"
        );
        assert_eq!(world.api.asked(), ["a"]);
    }
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    let next = world.record("a").await.next_look_at.unwrap();
    assert!(next > world.clock.now(), "{next}");
    pass(INTERVAL + REST.as_duration()).await;
    assert_eq!(world.turn(&world.stage()).await, ["a"]);
}

/// A stage that nothing is due of, once the manifest has refused so many claims.
struct Refused(AtomicU32);

impl Stage for Refused {
    type Work = ();

    const NAME: &'static str = "refused";

    const TABLE: Claimable = Claimable::Tasks;

    async fn claim(&self, _: usize) -> Result<Vec<()>, ManifestError> {
        let more = |left: u32| left.checked_sub(1);
        match self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
        {
            Ok(_) => Err(ManifestError::Away {
                verb: "claim",
                server: "db.test".to_owned(),
                what: "refused".to_owned(),
            }),
            Err(_) => Ok(Vec::new()),
        }
    }

    fn leases((): &()) -> Vec<Lease> {
        Vec::new()
    }

    fn span((): &()) -> tracing::Span {
        tracing::Span::none()
    }

    async fn step(&self, (): &(), _: &CancellationToken) -> Result<(), Failure> {
        Ok(())
    }

    async fn settle(&self, (): &(), _: Failure) {}
}

#[tokio::test(start_paused = true)]
async fn nothing_is_known_to_be_due_while_nothing_can_be_claimed() {
    let world = World::new();
    for (refused, is_finished) in [(0, true), (3, true), (99, false)] {
        let around = world.around(&CancellationToken::new());
        let mut driver = Driver::new(Refused(refused.into()), 1, Wake::new(), around);
        let outcome = driver.run_until_idle().await;
        assert_eq!(outcome.is_ok(), is_finished, "{outcome:?}");
    }
}
