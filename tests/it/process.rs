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

use tempfile::TempDir;
use tokio::sync::watch;

/// How long a process may take for anything before the test is hung.
const PATIENCE: Duration = Duration::from_secs(60);

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

    /// Starts a daemon without waiting for anything.
    pub(crate) fn spawn(&self) -> Daemon {
        Daemon::new(self.command(&["run", "-c", "reelvault.toml"]))
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
