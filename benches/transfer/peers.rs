//! The peers: other people's tools and libraries, each called as somebody would who means it to be fast.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use anyhow::Result;
use anyhow::bail;

use crate::groups::Case;
use crate::movers::Mover;
use crate::servers::Servers;

/// Moves the film at `$1`. What fails in it shows in what arrives.
const S5CMD: &str = r#"curl -sSf --cacert "$SSL_CERT_FILE" "$ORIGIN$1" | "$PROGRAM" --endpoint-url "$SINK" pipe --content-type video/mp4 "s3://bench$1""#;

const AWSCLI: &str = r#"curl -sSf --cacert "$SSL_CERT_FILE" "$ORIGIN$1" | "$PROGRAM" s3 cp --only-show-errors --endpoint-url "$SINK" --content-type video/mp4 --expected-size "$BYTES" - "s3://bench$1""#;

/// Where `benches/peers/setup` puts what it installs.
pub(crate) fn place() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench/peers")
}

/// Whether a program is there: at its path, or in one of the folders where programs are looked for.
pub(crate) fn is_there(program: &Path) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// The command that has a peer move a case.
pub(crate) fn command(
    mover: Mover,
    case: &Case,
    servers: &Servers,
    scratch: &Path,
) -> Result<Command> {
    let scheme = case.scheme();
    let origin = format!("{scheme}://{}", servers.origin(case.tls));
    let sink = format!("{scheme}://{}", servers.sink(case.tls));
    let list = scratch.join("films");
    let paths = case.all_films().map(|film| film.path() + "\n");
    fs::write(&list, paths.collect::<String>())?;
    let at_once = case.concurrent.to_string();
    let program = mover.program().unwrap_or_default();
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers/boto3-stream.py");

    // `PEER ORIGIN SINK LIST CONCURRENT`, as all peers are called that are programs of ours.
    let ours = [
        OsString::from(&origin),
        OsString::from(&sink),
        list.clone().into_os_string(),
        OsString::from(&at_once),
    ];
    let mut command = match mover {
        Mover::Rclone => rclone(case, &origin, &sink, &list, scratch)?,
        Mover::S5cmd => each(S5CMD, &list, &at_once),
        Mover::Awscli => each(AWSCLI, &list, &at_once),
        Mover::Boto3 => {
            let mut command = Command::new(&program);
            command.arg(script).args(ours);
            command
        }
        Mover::ObjectStore => {
            let mut command = Command::new(&program);
            command.args(ours).arg("unsigned");
            command
        }
        Mover::Opendal | Mover::ObjectStoreSigned => {
            let mut command = Command::new(&program);
            command.args(ours);
            command
        }
        Mover::Relay
        | Mover::Sha256
        | Mover::Bare
        | Mover::ReelvaultUnhashed
        | Mover::Reelvault => bail!("find the peer that is called {}", mover.name()),
    };
    command
        .env("ORIGIN", origin)
        .env("SINK", sink)
        .env("BYTES", case.bytes.to_string())
        .env("PROGRAM", program)
        .env("NO_PROXY", "127.0.0.1")
        .env("AWS_ACCESS_KEY_ID", "bench")
        .env("AWS_SECRET_ACCESS_KEY", "bench")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        // Whoever runs this has accounts of their own, perhaps; none of them is meant.
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env_remove("AWS_PROFILE")
        .stderr(Stdio::inherit());
    if mover == Mover::Rclone {
        // Its S3 client refuses to start when it is told an authority in two ways.
        command.env_remove("AWS_CA_BUNDLE");
        command.arg("--ca-cert").arg(servers.authority());
    } else {
        command.env("AWS_CA_BUNDLE", servers.authority());
    }
    Ok(command)
}

/// A script for each film, so many at once.
fn each(script: &str, list: &Path, at_once: &str) -> Command {
    let mut command = Command::new("xargs");
    command.arg("-a").arg(list).args(["-P", at_once, "-I{}"]);
    command.args(["sh", "-c", script, "sh", "{}"]);
    command
}

fn rclone(case: &Case, origin: &str, sink: &str, list: &Path, scratch: &Path) -> Result<Command> {
    let config = scratch.join("rclone.conf");
    let remotes = format!(
        "[origin]\ntype = http\nurl = {origin}\n\n\
         [sink]\ntype = s3\nprovider = Other\nregion = us-east-1\nendpoint = {sink}\n\
         access_key_id = bench\nsecret_access_key = bench\nno_check_bucket = true\n"
    );
    fs::write(&config, remotes)?;
    let mut command = Command::new("rclone");
    command.arg("--config").arg(config).arg("--log-level=ERROR");
    let mut films = case.all_films();
    if let (Some(film), None) = (films.next(), films.next()) {
        let path = film.path();
        command.args(["copyurl", &format!("{origin}{path}")]);
        command.arg(format!("sink:bench{path}"));
    } else {
        command.args(["copy", "--no-traverse"]);
        command.arg(format!("--transfers={}", case.concurrent));
        command.arg(format!("--checkers={}", case.concurrent));
        command.arg("--files-from-raw").arg(list);
        command.args(["origin:", "sink:bench"]);
    }
    Ok(command)
}
