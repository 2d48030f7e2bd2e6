//! The real program for tests: a folder with its configuration, commands in it, and a daemon to signal and to kill.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Mutex;
use std::thread::JoinHandle;
use std::time::Duration;

use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::model::asset::AssetIndex;
use reelvault::model::task::TaskId;
use reelvault::simulator;
use reelvault::simulator::Simulator;
use reelvault::simulator::bucket;
use reelvault::simulator::bucket::Bucket;
use reelvault::simulator::tasks::Submission;
use reelvault::units::ByteSize;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::world::OWN_DOOR;
use crate::world::Plan;
use crate::world::config_text;
use crate::world::variables;

/// How long a process may take for anything before the test is hung.
const PATIENCE: Duration = Duration::from_mins(1);

/// How often the end of a process is looked for: nothing tells of it but asking.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A folder that the program runs in, with a configuration and variables of its own and nothing of the machine's.
pub(crate) struct Home {
    folder: TempDir,
    variables: BTreeMap<String, String>,
    /// Everything that any process said here.
    said: Mutex<String>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// The exit code.
    pub(crate) code: i32,
    /// The results.
    pub(crate) stdout: String,
    /// The talk.
    pub(crate) stderr: String,
}

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    log: watch::Receiver<String>,
    reader: Option<JoinHandle<()>>,
}

impl Home {
    /// An empty folder.
    pub(crate) fn new(variables: BTreeMap<String, String>) -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            variables,
            said: Mutex::default(),
        }
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration's path.
    pub(crate) fn config(&self) -> PathBuf {
        self.path().join("reelvault.toml")
    }

    /// Writes the configuration.
    pub(crate) fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    /// The program with `arguments`, in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reelvault"));
        command
            .args(arguments)
            .current_dir(self.path())
            .env_clear()
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with(arguments, "").await
    }

    /// Runs the program to its end with `input` on its standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Outcome {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        let (input, line) = (input.to_owned(), arguments.join(" "));
        let ran = tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            // A program that does not want its input may be gone before it is written.
            let written = child.stdin.take().unwrap().write_all(input.as_bytes());
            (child.wait_with_output().unwrap(), written.is_ok())
        });
        let ran = tokio::time::timeout(PATIENCE, ran).await;
        let (output, _) = ran.unwrap_or_else(|_| panic!("{line}: hangs")).unwrap();
        let outcome = Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        self.hear(&format!("$ {line}\n{}{}", outcome.stdout, outcome.stderr));
        assert!(
            !outcome.stderr.contains("panicked"),
            "{line}: {}",
            outcome.stderr
        );
        outcome
    }

    /// Runs the program and asserts that it ends with 0; gives what it printed.
    pub(crate) async fn done(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments).await;
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome:?}");
        outcome.stdout
    }

    /// Runs the program again and again until it prints `part`.
    pub(crate) async fn prints(&self, arguments: &[&str], part: &str) -> String {
        let look = async {
            loop {
                let printed = self.run(arguments).await.stdout;
                if printed.contains(part) {
                    return printed;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, look).await;
        found.unwrap_or_else(|_| panic!("{arguments:?} never prints {part:?}"))
    }

    /// Starts a daemon without waiting for anything.
    pub(crate) fn spawn(&self) -> Daemon {
        let mut command = self.command(&["run", "-c", "reelvault.toml"]);
        command.envs(OWN_DOOR);
        Daemon::new(command)
    }

    /// Starts a daemon with further variables and waits until it is ready.
    pub(crate) async fn start_with(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(&["run", "-c", "reelvault.toml"]);
        command.envs(OWN_DOOR).envs(variables.iter().copied());
        let daemon = Daemon::new(command);
        daemon.says(" ready ").await;
        daemon
    }

    /// Starts a daemon that may have so much data, stacks included, and no more.
    pub(crate) fn spawn_within(&self, data: ByteSize) -> Daemon {
        let mut command = Command::new("prlimit");
        command
            .args([&format!("--data={}", data.as_u64()), "--"])
            .arg(env!("CARGO_BIN_EXE_reelvault"))
            .args(["run", "-c", "reelvault.toml"])
            .current_dir(self.path())
            .env_clear()
            .envs(&self.variables)
            .envs(OWN_DOOR)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        Daemon::new(command)
    }

    /// Starts a daemon and waits until it is ready.
    pub(crate) async fn start(&self) -> Daemon {
        let daemon = self.spawn();
        daemon.says(" ready ").await;
        daemon
    }

    /// Keeps what a process said.
    pub(crate) fn hear(&self, text: &str) {
        self.said.lock().unwrap().push_str(text);
    }

    /// Everything that was said here.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Daemon {
    fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let (said, log) = watch::channel(String::new());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || {
            for line in stderr.lines() {
                let line = line.unwrap();
                said.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        Self {
            child,
            log,
            reader: Some(reader),
        }
    }

    /// Its process ID.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until it has said `part`.
    pub(crate) async fn says(&self, part: &str) -> String {
        self.says_times(part, 1).await
    }

    /// Waits until it has said `part` so many times.
    pub(crate) async fn says_times(&self, part: &str, times: usize) -> String {
        let mut log = self.log.clone();
        let said = log.wait_for(|text| text.matches(part).count() >= times);
        let said = tokio::time::timeout(PATIENCE, said).await;
        match said {
            Ok(Ok(text)) => text.clone(),
            Ok(Err(_)) | Err(_) => panic!("the daemon does not say {part:?}:\n{}", self.log()),
        }
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Kills it like `kill -9` does and gives its log.
    pub(crate) async fn kill(mut self) -> String {
        self.child.kill().unwrap();
        self.ended().await.1
    }

    /// Stops it like systemd does; it must end well. Gives its log.
    pub(crate) async fn stop(mut self) -> String {
        self.signal("TERM");
        let (status, log) = self.ended().await;
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// Waits until it has ended and gives how, and all that it said.
    pub(crate) async fn ended(&mut self) -> (ExitStatus, String) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        let ended = tokio::time::timeout(PATIENCE, async {
            loop {
                ticks.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
            }
        });
        let Ok(status) = ended.await else {
            panic!("the daemon does not end:\n{}", self.log());
        };
        if let Some(reader) = self.reader.take() {
            // Its end of the pipe is closed, so the reader has at most a few lines left.
            tokio::task::spawn_blocking(move || reader.join().unwrap())
                .await
                .unwrap();
        }
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
        (status, log)
    }
}

impl Drop for Daemon {
    /// A test that fails leaves no daemon behind.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// The outside, and a folder for the program.
pub(crate) struct Outside {
    pub(crate) simulator: Simulator,
    pub(crate) bucket: Bucket,
    pub(crate) home: Home,
}

impl Outside {
    /// A simulator, an endpoint with a bucket of this name, and a folder with a configuration over both.
    pub(crate) async fn new(simulator: simulator::Config, bucket: &str) -> Self {
        Self::with(simulator, bucket::Config::new(bucket)).await
    }

    /// The same over an endpoint of one's own.
    pub(crate) async fn with(simulator: simulator::Config, bucket: bucket::Config) -> Self {
        let simulator = simulator::start(simulator, Clock::system(), Dice::new());
        let simulator = simulator.await.unwrap();
        let bucket = bucket::start(bucket).await.unwrap();
        let home = Home::new(variables(&bucket));
        let outside = Self {
            simulator,
            bucket,
            home,
        };
        outside.home.configure(&outside.config("", ""));
        outside
    }

    /// A configuration with `store` in the destination and `extra` at the end.
    pub(crate) fn config(&self, store: &str, extra: &str) -> String {
        let common =
            "[log]\nformat = \"text\"\n[transfer]\npart_size = \"5 MiB\"\nconcurrent = 3\n";
        let plan = Plan {
            store: store.to_owned(),
            extra: format!("{common}{extra}"),
            ..Plan::files_of(ByteSize::mib(1))
        };
        let base_url = self.simulator.base_url();
        config_text(&base_url, &self.bucket, self.home.path(), &plan)
    }

    /// Submits tasks.
    pub(crate) fn submit(&self, count: usize) -> Vec<TaskId> {
        let submit = || self.simulator.submit(Submission::video("seedance-2.0"));
        (0..count).map(|_| submit().unwrap()).collect()
    }

    /// Submits tasks and announces them as a user does.
    pub(crate) async fn add(&self, count: usize) {
        let ids = self.submit(count);
        let ids = ids.iter().map(TaskId::as_str);
        let arguments: Vec<&str> = ["add"].into_iter().chain(ids).collect();
        let said = self.home.done(&arguments).await;
        assert_eq!(said.matches(": learned\n").count(), count, "{said}");
    }

    /// Waits until the manifest says that everything is archived and no upload is left to abort.
    pub(crate) async fn archived(&self, daemon: &Daemon) {
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
        if tokio::time::timeout(Duration::from_mins(1), look)
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
    pub(crate) fn assert_all_safe(&self) {
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
