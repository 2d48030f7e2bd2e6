//! The movers, and the command that sets each to work on a case.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Result;
use clap::ValueEnum;

use crate::content::Film;
use crate::groups::Case;
use crate::peers;
use crate::servers::Servers;

/// Who moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mover {
    /// The floor.
    Relay,
    /// No mover: a bare pass over the same bytes in memory, the other half of a hashed floor.
    Sha256,
    /// The SDK with nothing around it.
    Bare,
    /// The daemon with `transfer.verify.sha256 = false`.
    ReelvaultUnhashed,
    /// The daemon as it comes: CRC64NVME proven end to end, and the SHA-256 for the manifest.
    Reelvault,
    /// The writer of `OpenDAL`; its payloads are not signed.
    Opendal,
    /// The crate of this name, with unsigned payloads.
    ObjectStore,
    /// The same as it comes: payloads are signed.
    ObjectStoreSigned,
    /// `rclone copyurl`, and `rclone copy` from its http remote for many.
    Rclone,
    /// `curl | s5cmd pipe`.
    S5cmd,
    /// `upload_fileobj` of a streamed response.
    Boto3,
    /// `curl | aws s3 cp -`.
    Awscli,
}

/// Programs that are started for every object, or whose language is slow: fewer rounds are enough for them.
const SLOW_ROUNDS: usize = 3;

impl Mover {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mover::Relay => "relay",
            Mover::Sha256 => "sha256 pass",
            Mover::Bare => "bare SDK",
            Mover::ReelvaultUnhashed => "reelvault, no sha256",
            Mover::Reelvault => "reelvault",
            Mover::Opendal => "OpenDAL",
            Mover::ObjectStore => "object_store, unsigned",
            Mover::ObjectStoreSigned => "object_store",
            Mover::Rclone => "rclone",
            Mover::S5cmd => "curl | s5cmd pipe",
            Mover::Boto3 => "boto3",
            Mover::Awscli => "curl | aws s3 cp -",
        }
    }

    /// The program that a peer needs and this repository does not build. `None` for our own.
    pub(crate) fn program(self) -> Option<PathBuf> {
        match self {
            Mover::Relay
            | Mover::Sha256
            | Mover::Bare
            | Mover::ReelvaultUnhashed
            | Mover::Reelvault => None,
            Mover::Opendal => Some(peers::place().join("bin/opendal")),
            Mover::ObjectStore | Mover::ObjectStoreSigned => {
                Some(peers::place().join("bin/object-store"))
            }
            Mover::Rclone => Some("rclone".into()),
            Mover::S5cmd => Some(peers::place().join("bin/s5cmd")),
            Mover::Boto3 => Some(peers::place().join("venv/bin/python3")),
            Mover::Awscli => Some(peers::place().join("venv/bin/aws")),
        }
    }

    /// How many of `rounds` it takes part in.
    pub(crate) fn rounds(self, rounds: usize) -> usize {
        match self {
            Mover::Relay
            | Mover::Sha256
            | Mover::Bare
            | Mover::ReelvaultUnhashed
            | Mover::Reelvault
            | Mover::Opendal
            | Mover::ObjectStore
            | Mover::ObjectStoreSigned => rounds,
            Mover::Rclone | Mover::S5cmd | Mover::Boto3 | Mover::Awscli => rounds.min(SLOW_ROUNDS),
        }
    }

    /// Whether films arrive at the sink.
    pub(crate) fn moves(self) -> bool {
        self != Mover::Sha256
    }
}

/// The command that moves a case once, from the origin to the sink. `scratch` is empty and its own.
pub(crate) fn mover_command(
    mover: Mover,
    case: &Case,
    servers: &Servers,
    scratch: &Path,
) -> Result<Command> {
    let mut command = match mover {
        Mover::Relay => own_role("relay", case, servers)?,
        Mover::Bare => {
            let mut command = own_role("bare", case, servers)?;
            command.args(["--concurrent", &case.concurrent.to_string()]);
            command
        }
        Mover::Sha256 => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("sha256").args(films_of(case));
            command
        }
        Mover::Reelvault | Mover::ReelvaultUnhashed => once(mover, case, servers, scratch)?,
        Mover::Opendal
        | Mover::ObjectStore
        | Mover::ObjectStoreSigned
        | Mover::Rclone
        | Mover::S5cmd
        | Mover::Boto3
        | Mover::Awscli => peers::command(mover, case, servers, scratch)?,
    };
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // The system's store of authorities, for all who look there.
    command.env("SSL_CERT_FILE", servers.authority());
    Ok(command)
}

/// This program once more, in another role.
fn own_role(role: &str, case: &Case, servers: &Servers) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).args(films_of(case));
    command.args(["--origin", &servers.origin(case.tls)]);
    command.args(["--sink", &servers.sink(case.tls)]);
    if case.tls {
        command.arg("--authority").arg(servers.authority());
    }
    Ok(command)
}

fn films_of(case: &Case) -> [String; 4] {
    let (films, bytes) = (case.films.to_string(), case.bytes.to_string());
    ["--films".to_owned(), films, "--bytes".to_owned(), bytes]
}

/// The daemon, once, over the tasks of this case, which are announced before the measuring begins.
fn once(mover: Mover, case: &Case, servers: &Servers, scratch: &Path) -> Result<Command> {
    let config = daemon_config(mover, case, servers, scratch)?;
    if case.films > 0 {
        let tasks = case.all_films().map(Film::task_id);
        let added = reelvault(&config, &["add"])
            .args(tasks)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        anyhow::ensure!(added.success(), "the tasks were not announced: {added}");
    }
    Ok(reelvault(&config, &["run", "--once"]))
}

/// A command of the program that is measured.
pub(crate) fn reelvault(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reelvault"));
    command.args(arguments).arg("-c").arg(config);
    command
        .env("BENCH_API_KEY", "bench")
        .env("BENCH_S3_KEY", "bench");
    command
}

/// Writes the daemon's configuration for a case, as small as it can be: all else is the program's default.
pub(crate) fn daemon_config(
    mover: Mover,
    case: &Case,
    servers: &Servers,
    scratch: &Path,
) -> Result<PathBuf> {
    let scheme = case.scheme();
    let (origin, sink) = (servers.origin(case.tls), servers.sink(case.tls));
    let sha256 = mover == Mover::Reelvault;
    let Case {
        films,
        bytes,
        concurrent,
        ..
    } = case;
    let path = scratch.join("reelvault.toml");
    let scratch = scratch.display();
    let config = format!(
        r#"
[manifest]
url = "sqlite:{scratch}/manifest.db"

[log]
level = "warn"

[transfer]
concurrent = {concurrent}
verify.sha256 = {sha256}

[provider.evolink]
kind = "evolink"
api_key = {{ env = "BENCH_API_KEY" }}
base_url = "{scheme}://{origin}/case/{scheme}/{films}/{bytes}"
allow_private = true
requests = "1000/s"

[destination.sink.s3]
bucket = "bench"
region = "us-east-1"
endpoint = "{scheme}://{sink}"
quirks = "aws"
access_key = {{ env = "BENCH_S3_KEY" }}
secret_key = {{ env = "BENCH_S3_KEY" }}
credentials = "static"
"#
    );
    fs::write(&path, config)?;
    Ok(path)
}
