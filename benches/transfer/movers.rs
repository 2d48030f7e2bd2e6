//! The movers, and the command that sets each to work on a case.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use anyhow::Result;
use clap::ValueEnum;

use crate::rig::Case;
use crate::rig::Servers;

/// Who moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mover {
    /// The floor.
    Relay,
    /// The SDK with nothing around it.
    Bare,
    /// The daemon.
    Reelvault,
}

impl Mover {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mover::Relay => "relay",
            Mover::Bare => "bare",
            Mover::Reelvault => "reelvault",
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
        Mover::Reelvault => daemon(case, servers, scratch)?,
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

/// The daemon, once, over all that the origin's task API lists for this case.
fn daemon(case: &Case, servers: &Servers, scratch: &Path) -> Result<Command> {
    let config = scratch.join("reelvault.toml");
    fs::write(&config, daemon_config(case, servers, scratch))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_reelvault"));
    command.args(["run", "--once", "-c"]).arg(config);
    command
        .env("BENCH_API_KEY", "bench")
        .env("BENCH_S3_KEY", "bench");
    Ok(command)
}

fn daemon_config(case: &Case, servers: &Servers, scratch: &Path) -> String {
    let scheme = if case.tls { "https" } else { "http" };
    let (origin, sink) = (servers.origin(case.tls), servers.sink(case.tls));
    let (films, bytes, scratch) = (case.films, case.bytes, scratch.display());
    format!(
        r#"
[server]
listen = ""
socket = "{scratch}/reelvault.sock"

[manifest]
url = "sqlite:{scratch}/manifest.db"

[provider.evolink]
kind = "evolink"
api_key = {{ env = "BENCH_API_KEY" }}
base_url = "{scheme}://{origin}/case/{scheme}/{films}/{bytes}"
discover = true
allow_private = true

[destination.sink.s3]
bucket = "bench"
region = "us-east-1"
endpoint = "{scheme}://{sink}"
path_style = true
access_key = {{ env = "BENCH_S3_KEY" }}
secret_key = {{ env = "BENCH_S3_KEY" }}
credentials = "static"
"#
    )
}
