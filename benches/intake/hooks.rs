//! A burst of webhooks: how long each waits for its answer, and whether all of them are written down.
//!
//! The daemon is the real program. Webhooks are sent on their own clock, so that one that waits holds up no other and
//! its wait counts; the last of them is answered before anything is counted.

use std::io::BufRead as _;
use std::io::BufReader;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::simulator;
use reelvault::simulator::Simulator;
use reelvault::simulator::tasks::Submission;
use reelvault::units::Span;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The figure: so many webhooks,
const COUNT: usize = 5_000;

/// within so long,
const WITHIN: Duration = Duration::from_secs(10);

/// and all but one in a hundred answered after at most this.
const P99_MAX: Duration = Duration::from_millis(250);

/// Connections that the provider keeps.
const CONNECTIONS: usize = 32;

/// The token in the address.
const TOKEN: &str = "bench-token-of-32-letters-01234567";

/// A daemon of this program's own, ended with it.
struct Daemon {
    child: Child,
    address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that ended by itself has nothing to be killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What became of a burst.
struct Burst {
    waits: Vec<Duration>,
    refused: usize,
    took: Duration,
}

pub(super) fn measure() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        println!(
            "hooks: {COUNT} webhooks, {CONNECTIONS} connections, the daemon in a process of its own"
        );
        println!(
            "{:28} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9}",
            "", "p50 ms", "p99 ms", "max ms", "refused", "took s", "written"
        );
        run("known tasks, 500/s", true, Some(WITHIN)).await?;
        run("unknown tasks, 500/s", false, Some(WITHIN)).await?;
        run("known tasks, all at once", true, None).await?;
        run("unknown tasks, all at once", false, None).await
    })
}

/// One burst against a daemon that knows its tasks or does not; fails where the figure is missed.
async fn run(name: &str, is_known: bool, within: Option<Duration>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = simulator::Config {
        running: Span::from_secs(3_600),
        ..simulator::Config::at_once()
    };
    let simulator = simulator::start(config, Clock::system(), Dice::new()).await?;
    let ids: Vec<String> = (0..COUNT)
        .map(|_| {
            Ok(simulator
                .submit(Submission::video("seedance-2.0"))?
                .to_string())
        })
        .collect::<Result<_>>()?;
    let daemon = start(&simulator, folder.path()).await?;
    if is_known {
        announce(&daemon, &ids).await?;
    }
    let burst = send(&daemon, &ids, within).await?;
    let written = count(&daemon).await?;
    let mut waits = burst.waits;
    waits.sort();
    let at = |share: usize| {
        waits
            .get(waits.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    let (p50, p99) = (at(50), at(99));
    let max = waits.last().copied().unwrap_or_default();
    let millis = |span: Duration| span.as_secs_f64() * 1000.0;
    println!(
        "{name:28} {:8.1} {:8.1} {:8.1} {:8} {:8.2} {written:>9}",
        millis(p50),
        millis(p99),
        millis(max),
        burst.refused,
        burst.took.as_secs_f64()
    );
    ensure!(
        written + burst.refused >= COUNT,
        "webhooks that were answered with 200 are lost"
    );
    if within.is_some() {
        ensure!(
            burst.refused == 0,
            "{} webhooks were refused",
            burst.refused
        );
        ensure!(p99 <= P99_MAX, "p99 is {p99:?}, over {P99_MAX:?}");
    }
    Ok(())
}

async fn start(simulator: &Simulator, folder: &std::path::Path) -> Result<Daemon> {
    let config = folder.join("reelvault.toml");
    let videos = folder.join("videos");
    std::fs::create_dir(&videos)?;
    let text = format!(
        r#"
        [server]
        listen = "127.0.0.1:0"
        socket = ""
        [server.hooks]
        rate = "10000/s"
        [log]
        format = "text"
        [manifest]
        url = "sqlite:{folder}/manifest.db"
        [provider.sim]
        kind = "evolink"
        base_url = "{base_url}"
        api_key = {{ env = "SIM_KEY" }}
        requests = "1000/s"
        allow_private = true
        webhook = true
        hook_secret = {{ env = "TOKEN" }}
        [destination.disk.fs]
        path = "{videos}"
        "#,
        folder = folder.display(),
        videos = videos.display(),
        base_url = simulator.base_url(),
    );
    std::fs::write(&config, text)?;
    let mut child = Command::new(env!("CARGO_BIN_EXE_reelvault"))
        .args(["run", "-c"])
        .arg(&config)
        .env_clear()
        .envs([("SIM_KEY", "key"), ("TOKEN", TOKEN)])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take().context("a pipe was asked for")?;
    let said = tokio::task::spawn_blocking(move || {
        let mut lines = BufReader::new(stderr).lines();
        let mut address = None;
        for line in lines.by_ref() {
            let line = line?;
            if let Some((_, rest)) = line.split_once("listening on ") {
                address = rest.split_whitespace().next().map(str::to_owned);
            }
            if line.contains(" ready ") {
                break;
            }
        }
        // Whoever does not read a pipe stops its writer at some time.
        std::thread::spawn(move || lines.for_each(drop));
        anyhow::Ok(address)
    });
    let mut daemon = Daemon {
        child,
        address: String::new(),
    };
    daemon.address = said.await??.context("the daemon does not listen")?;
    Ok(daemon)
}

/// Announces the tasks as a program does, and waits until the daemon has looked at all of them.
async fn announce(daemon: &Daemon, ids: &[String]) -> Result<()> {
    for some in ids.chunks(1000) {
        let tasks: Vec<_> = some
            .iter()
            .map(|id| serde_json::json!({ "task_id": id }))
            .collect();
        let mut line = Line::open(&daemon.address).await?;
        let status = line
            .post("/api/v1/tasks", &serde_json::json!(tasks).to_string())
            .await?;
        ensure!(status == 200, "the tasks were not announced: {status}");
    }
    ensure!(count(daemon).await? == COUNT, "not all tasks are known");
    Ok(())
}

/// How many tasks the manifest has.
async fn count(daemon: &Daemon) -> Result<usize> {
    let mut line = Line::open(&daemon.address).await?;
    let (status, body) = line.ask("GET", "/api/v1/status", "").await?;
    ensure!(status == 200, "no status: {status}");
    let status: serde_json::Value = serde_json::from_slice(&body)?;
    let tasks = status.get("tasks").and_then(|it| it.as_object());
    let tasks = tasks.context("a status counts tasks")?;
    let tasks = tasks
        .values()
        .filter_map(serde_json::Value::as_u64)
        .sum::<u64>();
    Ok(usize::try_from(tasks)?)
}

/// Sends a webhook a task, evenly over `within` or as fast as answers come.
async fn send(daemon: &Daemon, ids: &[String], within: Option<Duration>) -> Result<Burst> {
    let ids: Arc<[String]> = ids.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut lines = Vec::new();
    for _ in 0..CONNECTIONS {
        lines.push(Line::open(&daemon.address).await?);
    }
    let begun = Instant::now();
    let mut sending = JoinSet::new();
    for mut line in lines {
        let (ids, next) = (Arc::clone(&ids), Arc::clone(&next));
        sending.spawn(async move {
            let (mut waits, mut refused) = (Vec::new(), 0);
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(id) = ids.get(number) else { break };
                let due = match within {
                    Some(within) => {
                        begun
                            + within.mul_f64(
                                f64::from(u32::try_from(number)?)
                                    / f64::from(u32::try_from(COUNT)?),
                            )
                    }
                    None => Instant::now(),
                };
                tokio::time::sleep_until(due).await;
                let body = format!("{{\"id\":\"{id}\",\"status\":\"completed\"}}");
                let status = line.post(&format!("/hooks/sim/{TOKEN}"), &body).await?;
                waits.push(due.elapsed());
                refused += usize::from(status != 200);
            }
            anyhow::Ok((waits, refused))
        });
    }
    let mut burst = Burst {
        waits: Vec::new(),
        refused: 0,
        took: Duration::ZERO,
    };
    while let Some(sent) = sending.join_next().await {
        let (waits, refused) = sent??;
        burst.waits.extend(waits);
        burst.refused += refused;
    }
    burst.took = begun.elapsed();
    Ok(burst)
}

/// A kept connection.
struct Line {
    stream: TcpStream,
    host: String,
    read: Vec<u8>,
}

impl Line {
    async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            host: address.to_owned(),
            read: Vec::new(),
        })
    }

    async fn post(&mut self, path: &str, body: &str) -> Result<u16> {
        Ok(self.ask("POST", path, body).await?.0)
    }

    /// One exchange; the answer must have a length.
    async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>)> {
        let (host, length) = (&self.host, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.read.clear();
        loop {
            let head = self.read.windows(4).position(|it| it == b"\r\n\r\n");
            if let Some(end) = head.map(|at| at + 4) {
                let (head, rest) = self.read.split_at(end);
                let head = std::str::from_utf8(head)?.to_ascii_lowercase();
                let length = head
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|it| it.lines().next());
                let length: usize = length.context("an answer without a length")?.parse()?;
                if rest.len() >= length {
                    let status = head
                        .split_whitespace()
                        .nth(1)
                        .context("no status")?
                        .parse()?;
                    return Ok((status, rest.to_vec()));
                }
            }
            ensure!(
                self.stream.read_buf(&mut self.read).await? > 0,
                "the daemon hung up"
            );
        }
    }
}
