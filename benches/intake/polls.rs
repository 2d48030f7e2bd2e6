//! Unfinished tasks, watched one by one: polls a second, CPU a poll, memory a task.

use std::fmt::Write as _;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::path::Path;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::simulator;
use reelvault::simulator::tasks::Submission;
use reelvault::units::Span;
use tokio::time::Instant;

use crate::process::Process;

/// Wanted: all CPU time of the daemon, by the poll.
const POLL_US_MAX: f64 = 40.0;

/// Wanted: what the daemon holds more with its tasks than without any, by the task.
const TASK_KIB_MAX: f64 = 2.0;

/// How often the provider is asked what it has seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// No sweep over all tasks takes as long.
const SWEEP_MAX: Duration = Duration::from_mins(10);

/// What the daemon had used when the provider had seen so many polls.
#[derive(Clone, Copy)]
struct Moment {
    at: Instant,
    polls: u64,
    cpu_s: f64,
}

impl Moment {
    fn now(provider: &mut Provider, daemon: &Process) -> Result<Self> {
        let cpu_s = daemon.usage()?.cpu_s;
        let polls = provider.polls()?;
        Ok(Self {
            at: Instant::now(),
            polls,
            cpu_s,
        })
    }
}

/// Waits for that many polls.
async fn once_polled(provider: &mut Provider, daemon: &Process, polls: u64) -> Result<Moment> {
    let begun = Instant::now();
    loop {
        let moment = Moment::now(provider, daemon)?;
        if moment.polls >= polls {
            return Ok(moment);
        }
        ensure!(
            begun.elapsed() < SWEEP_MAX,
            "see {polls} polls: {} were seen",
            moment.polls
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn print(what: &str, from: Moment, to: Moment) {
    let (done, wall) = (float(to.polls - from.polls), to.at - from.at);
    let (cpu_s, wall_s) = (to.cpu_s - from.cpu_s, wall.as_secs_f64());
    println!(
        "  {what:20}{:7.0} polls/s  {:6.1} us CPU a poll  {:5.1}% of a core",
        done / wall_s,
        cpu_s * 1e6 / done,
        cpu_s * 100.0 / wall_s
    );
}

/// A provider with tasks that never finish.
struct Provider {
    process: Process,
    said: BufReader<ChildStdout>,
    base_url: String,
    ids: Vec<String>,
}

/// Measures the group and prints it.
pub(crate) fn run(tasks: usize, seconds: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure(tasks, Duration::from_secs(seconds)))
}

async fn measure(tasks: usize, span: Duration) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut provider = Provider::start(tasks)?;
    configure(folder.path(), &provider.base_url)?;
    let empty = idle(folder.path()).await?;
    announce(folder.path(), &provider.ids)?;

    let daemon = daemon(folder.path())?;
    println!("polls, {tasks} tasks that do not finish, one by one, plain HTTP/1.1");
    // All are due at once: as many polls a second as one core does.
    let all = count(tasks);
    let begun = once_polled(&mut provider, &daemon, 1).await?;
    let swept = once_polled(&mut provider, &daemon, all).await?;
    print("all due at once", begun, swept);
    // A first look is written; at the next one they are claimed to be held.
    let held = once_polled(&mut provider, &daemon, 2 * all).await?;
    print("claimed to be held", swept, held);
    // Who had its second look early has its third by now, and others wait for theirs: the rest is claimed meanwhile.
    once_polled(&mut provider, &daemon, 3 * all).await?;
    // And at their intervals, as it goes on.
    let from = Moment::now(&mut provider, &daemon)?;
    tokio::time::sleep(span).await;
    let to = Moment::now(&mut provider, &daemon)?;
    print("at their intervals", from, to);
    println!("  {:52}(wanted: at most {POLL_US_MAX} us)", "");
    let used = daemon.usage()?;
    let a_task = (used.own_kib - empty) / float(count(tasks));
    println!(
        "  memory              {:7.1} MiB, {:.1} without tasks: {a_task:.2} KiB a task  (wanted: at most {TASK_KIB_MAX})",
        used.own_kib / 1024.0,
        empty / 1024.0
    );
    Ok(())
}

impl Provider {
    fn start(tasks: usize) -> Result<Self> {
        let mut command = on_core(1, &std::env::current_exe()?);
        command
            .args(["provider", &tasks.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let said = process.0.stdout.take().context("hear the provider")?;
        let mut provider = Self {
            process,
            said: BufReader::new(said),
            base_url: String::new(),
            ids: Vec::new(),
        };
        provider.base_url = provider.line()?;
        for _ in 0..tasks {
            let id = provider.line()?;
            provider.ids.push(id);
        }
        Ok(provider)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        ensure!(!line.is_empty(), "hear the provider: it has ended");
        Ok(line.trim_end().to_owned())
    }

    /// How often a task was asked about.
    fn polls(&mut self) -> Result<u64> {
        let asked = self.process.0.stdin.as_mut().context("ask the provider")?;
        asked.write_all(b"\n")?;
        asked.flush()?;
        self.line()?.parse().context("hear the provider")
    }
}

/// The provider's side: tasks, and then a count for each line that is asked for.
pub(crate) fn provider(tasks: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let config = simulator::Config {
        pending: Span::from_secs(864_000),
        has_batch: false,
        has_list: false,
        ..simulator::Config::at_once()
    };
    let start = simulator::start(config, Clock::system(), Dice::new());
    let simulator = runtime.block_on(start)?;
    let mut told = simulator.base_url() + "\n";
    for _ in 0..tasks {
        let id = simulator.submit(Submission::video("seedance-2.0"))?;
        writeln!(told, "{id}")?;
    }
    let mut out = std::io::stdout();
    out.write_all(told.as_bytes())?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        writeln!(out, "{}", simulator.seen().reads)?;
        out.flush()?;
    }
    Ok(())
}

fn configure(folder: &Path, base_url: &str) -> Result<()> {
    let place = folder.display();
    let text = format!(
        r#"
[log]
level = "warn"
[manifest]
url = "sqlite:{place}/manifest.db"
[server]
listen = ""
socket = ""
[provider.evolink]
base_url = "{base_url}"
api_key = {{ env = "KEY" }}
requests = "1000000/s"
allow_private = true
[destination.disk.fs]
path = "{place}/archive"
free_min = "0 B"
"#
    );
    std::fs::create_dir(folder.join("archive"))?;
    std::fs::write(folder.join("reelvault.toml"), text).context("write a configuration")
}

/// What a daemon holds that has nothing to do.
async fn idle(folder: &Path) -> Result<f64> {
    let daemon = daemon(folder)?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(daemon.usage()?.own_kib)
}

fn announce(folder: &Path, ids: &[String]) -> Result<()> {
    let mut command = reelvault(0, folder);
    command
        .args(["add", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut process = Process::start(&mut command)?;
    let mut input = process.0.stdin.take().context("announce tasks")?;
    input.write_all(ids.join("\n").as_bytes())?;
    drop(input);
    let status = process.0.wait()?;
    ensure!(status.success(), "announce tasks: {status}");
    Ok(())
}

fn daemon(folder: &Path) -> Result<Process> {
    let mut command = reelvault(0, folder);
    command.arg("run").stdout(Stdio::null());
    Process::start(&mut command)
}

fn reelvault(core: usize, folder: &Path) -> Command {
    let mut command = on_core(core, Path::new(env!("CARGO_BIN_EXE_reelvault")));
    command
        .current_dir(folder)
        .env("REELVAULT_CONFIG", folder.join("reelvault.toml"))
        .env("KEY", "a-key");
    command
}

/// A program that has one core to itself, and no more.
fn on_core(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

fn count(tasks: usize) -> u64 {
    u64::try_from(tasks).unwrap_or(u64::MAX)
}

fn float(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}
