//! `reelvault demo`: a simulated provider and CDN, an S3 endpoint and the real daemon, all on loopback.

mod screen;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::archive::gauge::Gauge;
use crate::chance::Dice;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::cli::table::Table;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::server::Server;
use crate::daemon::supervisor::Supervisor;
use crate::daemon::systemd::Systemd;
use crate::daemon::wiring::Seams;
use crate::http::Http;
use crate::http::body::collect;
use crate::http::client;
use crate::http::client::ClientConfig;
use crate::http::client::Traffic;
use crate::http::client::USER_AGENT;
use crate::http::guard::Guard;
use crate::http::roots::Roots;
use crate::intake;
use crate::intake::Announcement;
use crate::manifest::Access;
use crate::manifest::Manifest;
use crate::manifest::row::AssetRecord;
use crate::manifest::row::TaskRecord;
use crate::model::task::LearnedVia;
use crate::model::task::Tags;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::provider::description;
use crate::report::record;
use crate::report::record::Places;
use crate::report::record::Record;
use crate::simulator;
use crate::simulator::Simulator;
use crate::simulator::bucket;
use crate::simulator::bucket::Bucket;
use crate::simulator::bucket::Effect;
use crate::simulator::bucket::Fault;
use crate::simulator::bucket::Operation;
use crate::simulator::script::Script;
use crate::units::ByteSize;
use crate::units::Span;

/// A demo that takes longer has failed.
const PATIENCE: Duration = Duration::from_mins(3);

/// What goes wrong with `--faults`, besides a 503 from the store.
const FAULTS: &str = "stall=1,503=1,truncate=1,short=1,fail=1,cancel=1";

/// How large the demo's videos are: three parts of the smallest size that S3 takes.
const SIZE: ByteSize = ByteSize::mib(12);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many videos
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    tasks: u16,
    /// Let things go wrong: a stalled link, 503s, a truncated body, one that ends early, a failed and a cancelled task
    #[arg(long)]
    faults: bool,
    /// Keep everything running when done, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// Everything that the demo starts.
struct Stage {
    simulator: Simulator,
    bucket: Bucket,
    folder: Folder,
    config: Config,
    manifest: Manifest,
    gauge: Gauge,
}

/// A folder that goes away with the demo.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // A demo that cannot clean up has still shown what it had to.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) async fn demo(arguments: &Arguments) -> Result<Exit, Complaint> {
    let stage = set_up(arguments).await?;
    talk!("provider  {} (simulated)", stage.simulator.base_url());
    talk!(
        "store     {}/{}",
        stage.bucket.endpoint(),
        stage.bucket.name()
    );
    talk!("manifest  {}", stage.config.manifest.url);
    let server = Server::bind(&stage.config.server).await;
    let server = server.map_err(|error| Complaint::failed(error.to_string()))?;
    if let Some(address) = server.address() {
        talk!("page      http://{address}/ (the API is there too)");
    }
    talk!("");

    let seams = seams(&stage.bucket, &stage.config)?;
    let peers = open::peers(&stage.config, &seams).await?;
    let stop = CancellationToken::new();
    let reload = || Ok(stage.config.clone());
    let supervisor = Supervisor {
        manifest: &stage.manifest,
        gauge: &stage.gauge,
        seams: &seams,
        reload: &reload,
        level: None,
        server,
        systemd: Systemd::new(),
        stop: stop.clone(),
    };
    let ended_early = CancellationToken::new();
    let (ran, shown) = tokio::join!(
        async {
            let ran = supervisor.run(stage.config.clone(), peers).await;
            ended_early.cancel();
            ran
        },
        async {
            let shown = tokio::select! {
                shown = tokio::time::timeout(PATIENCE, show(&stage, arguments)) => shown,
                () = ended_early.cancelled() => return None,
            };
            if arguments.stay && shown.is_ok() {
                let folder = stage.folder.0.display();
                talk!("staying until Ctrl-C; in another terminal, for example:");
                talk!("  reelvault -c {folder}/reelvault.toml manifest list");
                ended_early.cancelled().await;
            }
            stop.cancel();
            Some(shown)
        }
    );
    ran?;
    let exit = match shown {
        None => Exit::Interrupted,
        Some(Ok(exit)) => exit?,
        Some(Err(_)) => return Err(Complaint::failed("the demo did not end in time")),
    };
    stage.manifest.close().await;
    stage.simulator.shutdown().await;
    stage.bucket.shutdown().await;
    drop(stage.folder);
    Ok(exit)
}

async fn set_up(arguments: &Arguments) -> anyhow::Result<Stage> {
    let clock = Clock::system();
    let dice = Dice::new();
    let script: Script = if arguments.faults {
        FAULTS.parse()?
    } else {
        Script::default()
    };
    let simulator = simulator::Config {
        size: SIZE,
        pending: Span::from_millis(500),
        running: Span::from_secs(2),
        script,
        ..simulator::Config::default()
    };
    let simulator = simulator::start(simulator, clock.clone(), dice.clone()).await;
    let simulator = simulator.context("the simulator cannot listen on loopback")?;
    let bucket = bucket::start(bucket::Config::new("acme-video")).await;
    let bucket = bucket.context("the S3 endpoint cannot listen on loopback")?;
    if arguments.faults {
        bucket.plant(Fault::new(Operation::UploadPart, Effect::SLOW_DOWN).times(2));
    }
    let path = std::env::temp_dir().join(format!("reelvault-demo-{}", dice.nonce()));
    std::fs::create_dir(&path).with_context(|| format!("no folder {}", path.display()))?;
    let folder = Folder(path);
    let config = config(&simulator, &bucket, &folder)?;
    let manifest = Manifest::open(&config.manifest, clock, Access::Daemon).await?;
    Ok(Stage {
        simulator,
        bucket,
        folder,
        config,
        manifest,
        gauge: Gauge::default(),
    })
}

/// What a user would write, but for waits that fit a demo.
fn config(simulator: &Simulator, bucket: &Bucket, folder: &Folder) -> anyhow::Result<Config> {
    let folder = folder.0.display();
    let description = format!("{folder}/impatient.toml");
    std::fs::write(&description, impatient())?;
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        socket = "{folder}/reelvault.sock"
        [manifest]
        url = "sqlite:{folder}/manifest.db"
        [provider.evolink]
        description = "{description}"
        base_url = "{base_url}"
        api_key = {{ env = "DEMO_KEY" }}
        allow_private = true
        [destination.s3.s3]
        bucket = "{bucket}"
        endpoint = "{endpoint}"
        credentials = "static"
        access_key = {{ env = "DEMO_ACCESS_KEY" }}
        secret_key = {{ env = "DEMO_SECRET_KEY" }}
        [transfer]
        part_size = "5 MiB"
        stall_timeout = "2s"
        [poll]
        first = "500ms"
        max = "2s"
        "#,
        base_url = simulator.base_url(),
        bucket = bucket.name(),
        endpoint = bucket.endpoint(),
    );
    let path = format!("{folder}/reelvault.toml");
    std::fs::write(&path, &text)?;
    Ok(Config::parse(&text, &path, Vec::new())?.config)
}

/// EvoLink's description with shorter waits: nobody upstream has to be spared here.
fn impatient() -> String {
    let line = |line: &'static str| match line.split(' ').next() {
        Some("min_interval") => "min_interval = { video = \"500ms\" }",
        Some("requests") => "requests = \"100/s\"",
        Some(_) | None => line,
    };
    let lines: Vec<_> = description::EVOLINK.lines().map(line).collect();
    lines.join("\n")
}

fn seams(bucket: &Bucket, config: &Config) -> Result<Seams, Complaint> {
    let secrets = BTreeMap::from([
        ("DEMO_KEY", "demo"),
        ("DEMO_ACCESS_KEY", bucket.access_key()),
        ("DEMO_SECRET_KEY", bucket.secret_key()),
    ]);
    let env = Arc::new(move |name: &str| secrets.get(name).map(|secret| (*secret).to_owned()));
    Ok(Seams {
        env,
        ..open::seams(config)?
    })
}

/// Submits, follows, and prints what came of it.
async fn show(stage: &Stage, arguments: &Arguments) -> Result<Exit, Complaint> {
    let ids = submit(stage, usize::from(arguments.tasks)).await?;
    let records = screen::follow(&stage.manifest, &stage.gauge).await?;
    let places = open::places(&stage.config);
    say!("{}", table(&records, &places).page())?;
    if let Some(task) = records.iter().find(|task| !task.assets.is_empty()) {
        let id = &task.key.id;
        say!("The manifest has a record a task; `reelvault manifest get {id}` prints:")?;
        let record = serde_json::to_string_pretty(&Record::new(task.clone(), &places));
        say!("{}\n", record.context("a record is JSON")?)?;
    }
    let videos: usize = records.iter().map(|task| task.assets.len()).sum();
    let identical = records.iter().map(|task| identical(stage, task)).sum();
    let ended = records.iter().filter(|task| task.assets.is_empty()).count();
    let lost = videos.saturating_sub(identical);
    let open = stage.bucket.open_uploads().len();
    say!(
        "{} tasks: {identical} of {videos} videos archived, byte for byte what the provider served; \
         {ended} ended without one; {lost} lost; {open} uploads left open",
        ids.len(),
    )?;
    let is_clean = lost == 0 && videos + ended == ids.len() && open == 0;
    Ok(if is_clean { Exit::Done } else { Exit::Failed })
}

/// A line an object, and one a task that ended without any.
fn table(records: &[TaskRecord], places: &Places) -> Table {
    let mut table = Table::new(&["task", "state", "size", "parts", "verified", "address"]);
    for task in records {
        let id = &task.key.id;
        if task.assets.is_empty() {
            let code = task.task_error.as_ref().map(|error| error.code.as_str());
            let cells = [
                id.as_str(),
                record::state(task),
                "-",
                "-",
                "-",
                code.unwrap_or_default(),
            ];
            table.row(cells.map(str::to_owned).to_vec());
        }
        for asset in &task.assets {
            let size = asset.size.map(|size| ByteSize::bytes(size).to_string());
            for object in &asset.objects {
                let verified = object.verified.map(|verified| verified.to_string());
                let place = places.get(&object.destination).zip(object.key.as_ref());
                let address = place.map(|(place, key)| place.locate(key));
                table.row(vec![
                    id.to_string(),
                    asset.state.to_string(),
                    size.clone().unwrap_or_default(),
                    object.parts.to_string(),
                    verified.unwrap_or_default(),
                    address.unwrap_or_default(),
                ]);
            }
        }
    }
    table
}

/// How many of a task's videos stand in the bucket as they were served.
fn identical(stage: &Stage, task: &TaskRecord) -> usize {
    let is_identical = |asset: &&AssetRecord| {
        let served = stage.simulator.expected_sha256(&task.key.id, asset.index);
        let mut keys = asset
            .objects
            .iter()
            .filter_map(|object| object.key.as_ref());
        served.is_some() && keys.any(|key| stage.bucket.sha256(key.as_str()) == served)
    };
    task.assets.iter().filter(is_identical).count()
}

/// Submits over HTTP, as an application would, and announces what came back.
async fn submit(stage: &Stage, count: usize) -> anyhow::Result<Vec<TaskId>> {
    let http = client::connect(&ClientConfig {
        guard: Guard::private(),
        traffic: Traffic::Answers,
        connect_timeout: Span::from_secs(5),
        read_timeout: Span::from_secs(5),
        user_agent: USER_AGENT.to_owned(),
        roots: Roots::load(&[])?,
    })?;
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(submit_one(&http, &stage.simulator.base_url()).await?);
    }
    let provider = stage
        .config
        .provider
        .keys()
        .next()
        .context("the demo has a provider")?;
    let announced = ids.iter().map(|id| Announcement {
        key: TaskKey {
            provider: provider.clone(),
            id: id.clone(),
        },
        tags: Tags::new(),
        via: LearnedVia::Cli,
        ttl: stage.config.deadline.default,
        callback: None,
    });
    intake::learn(&stage.manifest, announced.collect(), Clock::system().now()).await?;
    Ok(ids)
}

async fn submit_one(http: &Http, base_url: &str) -> anyhow::Result<TaskId> {
    let wish = r#"{"model":"seedance-2.0-text-to-video","prompt":"rain on asphalt","duration":6}"#;
    let request = http::Request::post(format!("{base_url}/v1/videos/generations"))
        .header("authorization", "Bearer demo")
        .header("content-type", "application/json")
        .body(Bytes::from_static(wish.as_bytes()))?;
    let answer = http.send(request).await?;
    let status = answer.status();
    let body = collect(answer.into_body(), ByteSize::mib(1)).await?;
    anyhow::ensure!(
        status.is_success(),
        "the simulator answers {status} to a submission"
    );
    let task: serde_json::Value = serde_json::from_slice(&body)?;
    Ok(task
        .get("id")
        .and_then(|id| id.as_str())
        .context("a submission has an ID")?
        .parse()?)
}
