//! The movers, and the command that sets each to work on a case.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Result;
use clap::ValueEnum;

use crate::content::Film;
use crate::rig::Case;
use crate::rig::Servers;

/// Who moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mover {
    /// The floor.
    Relay,
    /// The SDK with nothing around it.
    Bare,
    /// The daemon as it comes: CRC64NVME proven end to end, and the SHA-256 for the manifest.
    Reelvault,
    /// The daemon with `transfer.verify.sha256 = false`.
    ReelvaultUnhashed,
}

impl Mover {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mover::Relay => "relay",
            Mover::Bare => "bare",
            Mover::Reelvault => "reelvault",
            Mover::ReelvaultUnhashed => "reelvault, no sha256",
        }
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
        Mover::Relay | Mover::Bare => own_role(mover, case, servers)?,
        Mover::Reelvault | Mover::ReelvaultUnhashed => daemon(mover, case, servers, scratch)?,
    };
    command.stdin(Stdio::null()).stdout(Stdio::null());
    // The system's store of authorities, for all who look there.
    command.env("SSL_CERT_FILE", servers.authority());
    Ok(command)
}

/// This program once more, as `relay` or `bare`.
fn own_role(mover: Mover, case: &Case, servers: &Servers) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(mover.name());
    command.args(["--origin", &servers.origin(case.tls)]);
    command.args(["--sink", &servers.sink(case.tls)]);
    command.args(["--films", &case.films.to_string()]);
    command.args(["--bytes", &case.bytes.to_string()]);
    if case.tls {
        command.arg("--authority").arg(servers.authority());
    }
    Ok(command)
}

/// The daemon, once, over the tasks of this case, which are announced before the measuring begins.
fn daemon(mover: Mover, case: &Case, servers: &Servers, scratch: &Path) -> Result<Command> {
    let config = scratch.join("reelvault.toml");
    fs::write(&config, daemon_config(mover, case, servers, scratch))?;
    let tasks = (0..case.films).map(|number| {
        Film {
            number,
            bytes: case.bytes,
        }
        .task_id()
    });
    let added = reelvault(&config, &["add"])
        .args(tasks)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    anyhow::ensure!(added.success(), "the tasks were not announced: {added}");
    Ok(reelvault(&config, &["run", "--once"]))
}

fn reelvault(config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_reelvault"));
    command.args(arguments).arg("-c").arg(config);
    command
        .env("BENCH_API_KEY", "bench")
        .env("BENCH_S3_KEY", "bench");
    command
}

fn daemon_config(mover: Mover, case: &Case, servers: &Servers, scratch: &Path) -> String {
    let scheme = if case.tls { "https" } else { "http" };
    let (origin, sink) = (servers.origin(case.tls), servers.sink(case.tls));
    let sha256 = mover == Mover::Reelvault;
    let (films, bytes, scratch) = (case.films, case.bytes, scratch.display());
    format!(
        r#"
[manifest]
url = "sqlite:{scratch}/manifest.db"

[log]
level = "warn"

[transfer.verify]
sha256 = {sha256}

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
    )
}
