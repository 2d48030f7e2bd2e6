//! The daemon as a service: from the moment its provider says `completed` to the moment its record says `archived`.

use std::collections::HashMap;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use reelvault::clock::Timestamp;

use crate::groups::Case;
use crate::measure;
use crate::measure::Cost;
use crate::measure::Running;
use crate::movers::Mover;
use crate::movers::daemon_config;
use crate::movers::mover_command;
use crate::movers::reelvault;
use crate::origin;
use crate::servers::Servers;

/// How often a command is asked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What `reelvault add --wait` ends with while no daemon runs.
const NO_DAEMON: i32 = 10;

/// How often that is taken for a daemon that is still starting. Each time takes a program's start and end.
const TRIES: usize = 200;

/// Has the daemon, or the relay, move the case's one film. The wall time is that of the moving alone; CPU and memory
/// are those of the process's whole life.
pub(crate) async fn cost(
    mover: Mover,
    case: &Case,
    servers: &Servers,
    scratch: &Path,
) -> Result<Cost> {
    if mover == Mover::Relay {
        relay(case, servers, scratch).await
    } else {
        daemon(mover, case, servers, scratch).await
    }
}

/// The daemon is running by the time its task is there, and so is not timed from its start; no more is the relay.
async fn relay(case: &Case, servers: &Servers, scratch: &Path) -> Result<Cost> {
    let told = scratch.join("seconds");
    let mut command = mover_command(Mover::Relay, case, servers, scratch)?;
    command.arg("--tell").arg(&told);
    let cost = measure::run(command).await?;
    let wall_s = std::fs::read_to_string(&told)?.parse()?;
    Ok(Cost { wall_s, ..cost })
}

/// Starts the daemon, announces the task, and stops the daemon when it has archived it.
async fn daemon(mover: Mover, case: &Case, servers: &Servers, scratch: &Path) -> Result<Cost> {
    let config = daemon_config(mover, case, servers, scratch)?;
    let task = case.all_films().next().context("find a film")?.task_id();
    let mut command = reelvault(&config, &["run"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.env("SSL_CERT_FILE", servers.authority());
    let daemon = Running::start(command)?;
    let pid = daemon.pid();
    let stopped = async {
        let archived = archived(&config, &task).await;
        // Whether or not it was archived, the daemon ends now, and the other future with it.
        let mut stop = Command::new("kill");
        ended(stop.args(["-TERM", &pid.to_string()]).spawn()?).await?;
        archived
    };
    let (ended, archived) = tokio::join!(daemon.ended(), stopped);
    let ((status, cost), archived) = (ended?, archived?);
    ensure!(status.success(), "stop when asked to: {status}");
    let answered = servers.ask_origin(origin::ANSWERED).await?;
    let answered: HashMap<String, i64> = serde_json::from_str(&answered)?;
    let answered = answered.get(&task).context("be asked for the task")?;
    let lag = archived.since(Timestamp::from_unix_millis(*answered));
    let wall_s = lag.as_duration().as_secs_f64();
    Ok(Cost { wall_s, ..cost })
}

/// Announces a task, waits until it is archived, and gives the time of that.
async fn archived(config: &Path, task: &str) -> Result<Timestamp> {
    let mut status = ExitStatus::default();
    for _ in 0..TRIES {
        let mut add = reelvault(config, &["add", "--wait=10m", task]);
        let add = add.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        status = ended(add).await?;
        // While the daemon is starting the task is announced already, and announcing it again does no harm.
        if status.code() != Some(NO_DAEMON) {
            break;
        }
    }
    ensure!(status.success(), "archive {task}: {status}");
    let mut get = reelvault(config, &["manifest", "get", task, "--field", "archived_at"]);
    let got = get.output()?;
    let at = String::from_utf8_lossy(&got.stdout);
    Timestamp::parse(at.trim()).with_context(|| format!("understand {at:?}"))
}

async fn ended(mut child: Child) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
