//! A world for tests: the simulated provider and CDN, an S3 endpoint, and a daemon of its own over both.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reelvault::archive::gauge::Gauge;
use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::config::Config;
use reelvault::daemon::server::Server;
use reelvault::daemon::supervisor::Supervisor;
use reelvault::daemon::systemd::Systemd;
use reelvault::daemon::wiring;
use reelvault::daemon::wiring::Peers;
use reelvault::daemon::wiring::Seams;
use reelvault::http::client;
use reelvault::http::roots::Roots;
use reelvault::intake;
use reelvault::intake::Announcement;
use reelvault::manifest::Access;
use reelvault::manifest::Manifest;
use reelvault::manifest::ManifestError;
use reelvault::manifest::row::AssetRecord;
use reelvault::manifest::row::ObjectPlan;
use reelvault::manifest::row::TaskFilter;
use reelvault::manifest::row::TaskRecord;
use reelvault::model::asset::AssetIndex;
use reelvault::model::asset::AssetState;
use reelvault::model::digest::Sha256Digest;
use reelvault::model::digest::Sha256Digester;
use reelvault::model::object::ObjectState;
use reelvault::model::task::LearnedVia;
use reelvault::model::task::Tags;
use reelvault::model::task::TaskId;
use reelvault::model::task::TaskKey;
use reelvault::report::links::Links;
use reelvault::simulator;
use reelvault::simulator::Simulator;
use reelvault::simulator::bucket;
use reelvault::simulator::bucket::Bucket;
use reelvault::simulator::tasks::Submission;
use reelvault::store::Store;
use reelvault::units::ByteSize;
use reelvault::units::Span;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long anything may take before a test is hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// The smallest part that S3 takes, which keeps the tests' files small.
pub(crate) const PART: u64 = 5 << 20;

/// A key that signs messages, and the one before it.
pub(crate) const NOTIFY_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const OLD_NOTIFY_KEY: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// A listener of each daemon's own, and no socket: many run at once.
pub(crate) const OWN_DOOR: [(&str, &str); 2] = [
    ("REELVAULT__SERVER__LISTEN", "127.0.0.1:0"),
    ("REELVAULT__SERVER__SOCKET", ""),
];

/// How a world is to be.
pub(crate) struct Plan {
    /// The simulated provider.
    pub(crate) simulator: simulator::Config,
    /// The S3 endpoint.
    pub(crate) bucket: bucket::Config,
    /// TOML inside `[provider.sim]`.
    pub(crate) provider: String,
    /// TOML after the provider and the destination: `[transfer]`, `[deadline]`, ...; `@folder` is [`World::folder`].
    pub(crate) extra: String,
    /// TOML inside `[destination.main.s3]`.
    pub(crate) store: String,
    /// A second S3 endpoint, which is destination `other`, and TOML inside `[destination.other.s3]`.
    pub(crate) other: Option<(bucket::Config, String)>,
    /// Certificates (PEM) that the daemon trusts besides the machine's.
    pub(crate) roots: Vec<u8>,
    /// How long the daemon may take before the test is hung.
    pub(crate) patience: Duration,
}

impl Plan {
    /// Links that are dead by the time that anybody asks for them, and a provider that has no other.
    pub(crate) fn lost() -> Self {
        let mut plan = Self::files_of(ByteSize::mib(1));
        "output_ttl = \"1s\"".clone_into(&mut plan.provider);
        plan.simulator.life = Span::ZERO;
        plan.simulator.dead_status = 404;
        plan
    }

    /// Tasks that complete at once with files of `size`, an S3 that is like AWS's, parts of [`PART`].
    pub(crate) fn files_of(size: ByteSize) -> Self {
        Self {
            simulator: simulator::Config {
                size,
                ..simulator::Config::at_once()
            },
            bucket: bucket::Config::new("videos"),
            provider: String::new(),
            extra: "[transfer]\npart_size = \"5 MiB\"\n".to_owned(),
            store: String::new(),
            other: None,
            roots: Vec::new(),
            patience: PATIENCE,
        }
    }
}

/// Everything but the daemon, and what it takes to start one.
pub(crate) struct World {
    pub(crate) simulator: Arc<Simulator>,
    pub(crate) bucket: Arc<Bucket>,
    /// The bucket of destination `other`.
    pub(crate) other: Option<Arc<Bucket>>,
    pub(crate) config: Config,
    text: String,
    pub(crate) manifest: Manifest,
    plan: Arc<Plan>,
    seams: Seams,
    /// By how many milliseconds the daemon's wall clock is ahead.
    ahead: Arc<AtomicU64>,
    /// Where the daemon listens that was started last.
    listening: watch::Sender<Option<SocketAddr>>,
    hooks_listening: watch::Sender<Option<SocketAddr>>,
    folder: TempDir,
}

impl World {
    /// Starts the outside and opens the manifest.
    pub(crate) async fn new(plan: Plan) -> Self {
        let simulator = simulator::start(plan.simulator.clone(), Clock::system(), Dice::new())
            .await
            .unwrap();
        let bucket = Arc::new(bucket::start(plan.bucket.clone()).await.unwrap());
        let other = match &plan.other {
            Some((config, _)) => Some(Arc::new(bucket::start(config.clone()).await.unwrap())),
            None => None,
        };
        Self::over(Arc::new(simulator), bucket, other, Arc::new(plan)).await
    }

    /// Another daemon's world: the same outside, and a manifest that knows nothing yet.
    pub(crate) async fn beside(&self) -> Self {
        let (simulator, bucket) = (Arc::clone(&self.simulator), Arc::clone(&self.bucket));
        Self::over(
            simulator,
            bucket,
            self.other.clone(),
            Arc::clone(&self.plan),
        )
        .await
    }

    /// The same world after its daemon's process is gone: the manifest is opened anew.
    pub(crate) async fn reopened(self) -> Self {
        drop(self.manifest);
        let manifest = open(&self.config, self.seams.clock.clone()).await;
        Self { manifest, ..self }
    }

    /// Lets time pass on the wall clock of daemons to come: what was due later by as much is due.
    pub(crate) fn pass(&self, span: Span) {
        let millis = u64::try_from(span.as_millis_i64()).unwrap();
        self.ahead.fetch_add(millis, Ordering::Relaxed);
    }

    /// The same world with `from` in its configuration replaced, as an operator does before a start.
    pub(crate) async fn reconfigured(self, from: &str, to: &str) -> Self {
        let world = self.reopened().await;
        assert!(world.text.contains(from), "{}", world.text);
        let text = world.text.replace(from, to);
        let config = parse(&text);
        Self {
            config,
            text,
            ..world
        }
    }

    async fn over(
        simulator: Arc<Simulator>,
        bucket: Arc<Bucket>,
        other: Option<Arc<Bucket>>,
        plan: Arc<Plan>,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = config_text(&simulator.base_url(), &bucket, folder.path(), &plan);
        if let Some((bucket, (_, store))) = other.as_ref().zip(plan.other.as_ref()) {
            text.push_str(&destination_text("other", bucket, store));
        }
        let config = parse(&text);
        let ahead = Arc::new(AtomicU64::new(0));
        let clock = clock(&ahead);
        let seams = seams(&bucket, &plan.roots, clock.clone());
        let manifest = open(&config, clock).await;
        Self {
            simulator,
            bucket,
            other,
            config,
            text,
            manifest,
            plan,
            seams,
            ahead,
            listening: watch::channel(None).0,
            hooks_listening: watch::channel(None).0,
            folder,
        }
    }

    /// The address of the daemon's listener for webhooks alone, once there is one.
    pub(crate) async fn hooks_address(&self) -> String {
        let mut listening = self.hooks_listening.subscribe();
        let address = listening.wait_for(Option::is_some).await.unwrap();
        address.unwrap().to_string()
    }

    /// The address of the daemon's server, once there is one.
    pub(crate) async fn base_url(&self) -> String {
        let mut listening = self.listening.subscribe();
        let address = listening.wait_for(Option::is_some).await.unwrap();
        format!("http://{}", address.unwrap())
    }

    /// How copies are reached, for a daemon at this address.
    pub(crate) async fn links(&self, address: Option<SocketAddr>) -> Links {
        let mut stores = BTreeMap::new();
        for (name, settings) in &self.config.destination {
            let store = wiring::connect::store(name, settings, &self.seams)
                .await
                .unwrap();
            stores.insert(name.clone(), store);
        }
        wiring::face::links(&self.config, &stores, address, &self.seams).unwrap()
    }

    /// The folder of the manifest, which a test may put its own things into.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Submits `count` tasks and announces them.
    pub(crate) async fn submit(&self, count: usize) -> Vec<TaskId> {
        let ids: Vec<TaskId> = (0..count)
            .map(|_| {
                self.simulator
                    .submit(Submission::video("seedance-2.0"))
                    .unwrap()
            })
            .collect();
        self.announce(&ids).await;
        ids
    }

    /// Announces tasks.
    pub(crate) async fn announce(&self, ids: &[TaskId]) {
        let announced = ids.iter().map(|id| Announcement {
            key: TaskKey {
                provider: "sim".parse().unwrap(),
                id: id.clone(),
            },
            tags: Tags::new(),
            via: LearnedVia::Cli,
            ttl: Span::from_secs(86_400),
            callback: None,
        });
        intake::learn(&self.manifest, announced.collect(), Clock::system().now())
            .await
            .unwrap();
    }

    /// Learns links that no task stands behind; the daemon may not fetch them from private addresses.
    pub(crate) async fn learn_links(&self, links: &[String]) {
        for link in links {
            let url = link.parse().unwrap();
            let objects = vec![ObjectPlan {
                destination: "main".parse().unwrap(),
                key_template: self.config.key.clone(),
            }];
            let (ttl, now) = (Span::from_secs(86_400), Clock::system().now());
            intake::learn_link(&self.manifest, url, Tags::new(), objects, ttl, now)
                .await
                .unwrap();
        }
    }

    /// Runs a daemon until `is_done` holds of the manifest, then stops it like SIGTERM does.
    pub(crate) async fn run_until(
        &self,
        is_done: impl Fn(&[TaskRecord]) -> bool,
    ) -> Vec<TaskRecord> {
        self.run_while(async |records| !is_done(records)).await
    }

    /// Runs a daemon until every asset and task is final and no upload waits to be aborted.
    pub(crate) async fn run_to_the_end(&self) -> Vec<TaskRecord> {
        let has_work = async |records: &[TaskRecord]| {
            !records.iter().all(is_final) || self.has_orphans().await
        };
        self.run_while(has_work).await
    }

    /// Runs a daemon until no upload waits to be aborted.
    pub(crate) async fn run_until_clean(&self) {
        self.run_while(async |_| self.has_orphans().await).await;
    }

    async fn has_orphans(&self) -> bool {
        self.manifest.tally().await.unwrap().orphans > 0
    }

    async fn run_while(&self, has_work: impl AsyncFn(&[TaskRecord]) -> bool) -> Vec<TaskRecord> {
        let stop = CancellationToken::new();
        let (ran, records) = tokio::join!(self.daemon(&stop), async {
            let records = tokio::time::timeout(self.plan.patience, self.wait_while(has_work)).await;
            stop.cancel();
            records
        });
        ran.unwrap();
        match records {
            Ok(records) => records,
            Err(late) => panic!("not done, {late}:\n{}", brief(&self.records().await)),
        }
    }

    /// Runs a daemon while `work` is done, then stops it like SIGTERM does.
    pub(crate) async fn run_during<T>(&self, work: impl Future<Output = T>) -> T {
        let stop = CancellationToken::new();
        let (ran, done) = tokio::join!(self.daemon(&stop), async {
            let done = tokio::time::timeout(self.plan.patience, work).await;
            stop.cancel();
            done
        });
        ran.unwrap();
        match done {
            Ok(done) => done,
            Err(late) => panic!("not done, {late}:\n{}", brief(&self.records().await)),
        }
    }

    /// A daemon, until it is stopped; dropping it is as sudden as a crash, except for the manifest's writer.
    pub(crate) async fn daemon(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let gauge = Gauge::default();
        let reload = || Ok(self.config.clone());
        let server = Server::bind(&self.config.server).await.unwrap();
        self.hooks_listening.send_replace(server.hooks_address());
        self.listening.send_replace(server.address());
        let supervisor = Supervisor {
            manifest: &self.manifest,
            gauge: &gauge,
            seams: &self.seams,
            reload: &reload,
            level: None,
            server,
            systemd: Systemd::new(),
            stop: stop.clone(),
        };
        let peers = Peers::connect(&self.config, &self.seams).await?;
        supervisor.run(self.config.clone(), peers).await
    }

    /// The manifest as it is.
    pub(crate) async fn records(&self) -> Vec<TaskRecord> {
        self.manifest
            .tasks(&TaskFilter::default(), 1000)
            .await
            .unwrap()
    }

    /// Asserts what every run must end with: each asset archived byte for byte, once, and no upload left open.
    pub(crate) fn assert_all_archived(&self, records: &[TaskRecord]) {
        for record in records {
            assert!(!record.assets.is_empty(), "{record:#?}");
            for asset in &record.assets {
                self.assert_archived(record, asset);
            }
        }
        let assets: usize = records.iter().map(|record| record.assets.len()).sum();
        for bucket in self.buckets() {
            assert_eq!(bucket.objects().len(), assets, "one object an asset");
            let open = bucket.open_uploads();
            assert!(open.is_empty(), "{open:?}");
        }
    }

    /// Asserts that no store holds anything, finished or not.
    pub(crate) fn assert_nothing_stored(&self) {
        for bucket in self.buckets() {
            assert_eq!(bucket.objects(), []);
            assert_eq!(bucket.open_uploads(), []);
        }
    }

    fn buckets(&self) -> impl Iterator<Item = &Arc<Bucket>> {
        std::iter::once(&self.bucket).chain(&self.other)
    }

    fn assert_archived(&self, record: &TaskRecord, asset: &AssetRecord) {
        assert_eq!(asset.state, AssetState::Archived, "{asset:#?}");
        let expected = self
            .simulator
            .expected_sha256(&record.key.id, asset.index)
            .unwrap();
        assert_eq!(
            asset.sha256,
            Some(expected),
            "{:?}: the manifest's digest is not the origin's",
            record.model
        );
        for object in &asset.objects {
            assert_eq!(object.state, ObjectState::Archived);
            let key = object.key.as_ref().unwrap();
            let bucket = match (&self.other, object.destination.as_str()) {
                (Some(other), "other") => other,
                (Some(_) | None, _) => &self.bucket,
            };
            assert_eq!(
                bucket.sha256(key.as_str()),
                Some(expected),
                "the object is not the origin's file"
            );
        }
    }

    async fn wait_while(&self, has_work: impl AsyncFn(&[TaskRecord]) -> bool) -> Vec<TaskRecord> {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            let records = self.records().await;
            if !has_work(&records).await {
                return records;
            }
        }
    }
}

/// What is logged on this thread, which is where a test's daemon runs.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Keeps what is logged from now on, until the guards go.
    pub(crate) fn listen(&self) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || log.clone())
            .finish();
        // With one dispatcher alone, a thread without any would switch off for all threads what it logs first.
        let other = tracing::Dispatch::new(tracing_subscriber::fmt().finish());
        (tracing::subscriber::set_default(subscriber), other)
    }

    /// The lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where each task and asset stands, a line each.
pub(crate) fn brief(records: &[TaskRecord]) -> String {
    let mut lines = Vec::new();
    for record in records {
        let (model, state) = (record.model.as_deref().unwrap_or("?"), record.state);
        lines.push(format!("{model}: {state}, {:?}", record.error));
        for asset in &record.assets {
            let (index, attempts) = (asset.index, asset.attempts);
            let (state, error) = (asset.state, &asset.error);
            lines.push(format!(
                "  {index}: {state}, {attempts} attempts, {error:?}"
            ));
        }
    }
    lines.join("\n")
}

/// Whether nothing more will happen to a task by itself.
pub(crate) fn is_final(record: &TaskRecord) -> bool {
    record.state.is_final() && record.assets.iter().all(|asset| asset.state.is_final())
}

/// A configuration over the simulated outside, with its manifest in `folder`.
pub(crate) fn config_text(base_url: &str, bucket: &Bucket, folder: &Path, plan: &Plan) -> String {
    let Plan {
        provider, extra, ..
    } = plan;
    let destination = destination_text("main", bucket, &plan.store);
    let extra = extra.replace("@folder", &folder.display().to_string());
    format!(
        r#"
[manifest]
url = "sqlite:{folder}/manifest.db"
[provider.sim]
kind = "evolink"
base_url = "{base_url}"
api_key = {{ env = "SIM_KEY" }}
requests = "1000/s"
allow_private = true
{provider}
{destination}
{extra}
"#,
        folder = folder.display(),
    )
}

/// A destination of this name over an endpoint, with `store` at its end.
pub(crate) fn destination_text(name: &str, bucket: &Bucket, store: &str) -> String {
    format!(
        r#"
[destination.{name}.s3]
bucket = "{bucket}"
endpoint = "{endpoint}"
region = "us-east-1"
credentials = "static"
access_key = {{ env = "ACCESS_KEY" }}
secret_key = {{ env = "SECRET_KEY" }}
{store}
"#,
        bucket = bucket.name(),
        endpoint = bucket.endpoint(),
    )
}

/// The variables that [`config_text`] names.
pub(crate) fn variables(bucket: &Bucket) -> BTreeMap<String, String> {
    let pairs = [
        ("SIM_KEY", "sk-canary-provider"),
        ("TOKEN", "canary-token-of-the-api"),
        ("HOOK_SECRET", "canary-hook-secret"),
        ("CALLBACK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("ACCESS_KEY", bucket.access_key()),
        ("SECRET_KEY", bucket.secret_key()),
        ("NOTIFY_KEY", NOTIFY_KEY),
        ("OLD_NOTIFY_KEY", OLD_NOTIFY_KEY),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The SHA-256 of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Sha256Digest {
    let mut digest = Sha256Digester::new();
    digest.update(bytes);
    digest.value()
}

/// The first asset of a task.
pub(crate) const FIRST: AssetIndex = AssetIndex(0);

/// Opens the manifest, once the tasks of a daemon that was dropped have let go of it: unlike a process, they end late.
async fn open(config: &Config, clock: Clock) -> Manifest {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let opened = async {
        loop {
            ticks.tick().await;
            match Manifest::open(&config.manifest, clock.clone(), Access::Daemon).await {
                Err(ManifestError::Locked { .. }) => {}
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.unwrap()
}

fn parse(text: &str) -> Config {
    let variables = OWN_DOOR.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let parsed = Config::parse(text, "test.toml", variables.to_vec());
    parsed.unwrap().config
}

fn clock(ahead: &Arc<AtomicU64>) -> Clock {
    let (system, ahead) = (Clock::system(), Arc::clone(ahead));
    Clock::new(move || {
        let ahead = Span::from_millis(ahead.load(Ordering::Relaxed));
        system.now().plus(ahead)
    })
}

fn seams(bucket: &Bucket, roots: &[u8], clock: Clock) -> Seams {
    let variables = variables(bucket);
    let roots = Roots::load(roots).unwrap();
    Seams {
        clock,
        dice: Dice::new(),
        env: Arc::new(move |name| variables.get(name).cloned()),
        http: Arc::new(|client| Ok(client::connect(&client)?)),
        s3_http: Store::http_client(Span::from_secs(5), &roots).unwrap(),
        roots,
    }
}
