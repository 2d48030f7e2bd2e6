//! `reelvault status`: will something be lost, and when? The risk first, and the exit code tells.

use std::path::Path;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::say::say_text;
use crate::cli::tasks::json;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::daemon::wiring;
use crate::manifest::Manifest;
use crate::manifest::elsewhere::Elsewhere;
use crate::manifest::row::event::EndpointTrouble;
use crate::manifest::row::machine::MachineRecord;
use crate::manifest::row::waiting::Waiting;
use crate::model::asset::AssetState;
use crate::model::task::TaskState;
use crate::report::status::Status;
use crate::report::status::when;
use crate::units::ByteSize;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// As one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) async fn status(
    config: Option<&Path>,
    arguments: &Arguments,
) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let manifest = open::read_manifest(&config).await?;
    manifest.knows(wiring::known(&config));
    manifest.look_elsewhere().await?;
    let now = Clock::system().now();
    let is_daemon_running = Manifest::is_daemon_running(&config.manifest).await;
    let status = Status::read(&manifest, now, config.deadline.warn, is_daemon_running).await?;
    manifest.close().await;
    if arguments.json {
        say!("{}", json(&status)?)?;
    } else {
        say_text!("{}", describe(&status, now))?;
    }
    Ok(if status.verdict == "ok" {
        Exit::Done
    } else {
        Exit::AtRisk
    })
}

fn describe(status: &Status, now: Timestamp) -> String {
    let mut lines = Vec::new();
    for headline in status.headlines(now) {
        lines.push(format!("{:<4} {}", headline.word, headline.what));
        lines.extend(headline.cause.map(|cause| format!("     cause: {cause}")));
        lines.extend(headline.hint.map(|hint| format!("     hint:  {hint}")));
    }
    let tally = &status.tally;
    lines.push(format!(
        "     {} watched, {} due, {} archived ({}), {} refused, {} failed upstream",
        tally.tasks_in(TaskState::Watching),
        tally.assets_in(AssetState::Due),
        tally.assets_in(AssetState::Archived),
        ByteSize::bytes(tally.bytes_archived),
        status.refused,
        tally.tasks_in(TaskState::Failed) + tally.tasks_in(TaskState::Cancelled),
    ));
    let given_up = [TaskState::Vanished, TaskState::Abandoned].map(|state| {
        let count = tally.tasks_in(state);
        (count > 0).then(|| format!("{count} {state}"))
    });
    let given_up: Vec<String> = given_up.into_iter().flatten().collect();
    if !given_up.is_empty() {
        lines.push(format!(
            "     {}: `reelvault task retry` looks at one again",
            given_up.join(", ")
        ));
    }
    if let Some(deadline) = tally.next_deadline {
        lines.push(format!("     the next deadline is {}", when(deadline, now)));
    }
    lines.extend(status.waiting.iter().map(waiting));
    lines.extend(fleet(&status.machines, now));
    lines.extend(elsewhere(&status.elsewhere));
    lines.extend(status.endpoints.iter().flat_map(|it| untold(it, now)));
    lines.join("\n") + "\n"
}

/// What waits for its next try, and why.
fn waiting(waiting: &Waiting) -> String {
    let Waiting {
        what,
        provider,
        rows,
        error,
    } = waiting;
    match rows {
        1 => {
            let what = what.trim_end_matches('s');
            format!("     1 {what} of {provider} waits: {error}")
        }
        rows => format!("     {rows} {what} of {provider} wait: {error}"),
    }
}

/// Who works on it, and who has fallen silent.
fn fleet(machines: &[MachineRecord], now: Timestamp) -> Vec<String> {
    let (living, silent): (Vec<_>, Vec<_>) = machines.iter().partition(|machine| machine.is_living);
    let names: Vec<&str> = living.iter().map(|machine| machine.name.as_str()).collect();
    let mut lines = Vec::new();
    match names.len() {
        0 => {}
        1 => lines.push(format!("     1 machine: {}", names.join(", "))),
        count => lines.push(format!("     {count} machines: {}", names.join(", "))),
    }
    lines.extend(silent.iter().map(|machine| {
        let ago = now.since(machine.beat_at);
        format!("     {} was last heard of {ago} ago", machine.name)
    }));
    lines
}

/// What waits for what this machine does not have.
fn elsewhere(elsewhere: &Elsewhere) -> Vec<String> {
    let providers = elsewhere.providers.iter().map(|(name, waiting)| {
        format!(
            "     {waiting} tasks and assets wait for provider {name}, which is not configured here"
        )
    });
    let destinations = elsewhere.destinations.iter().map(|(name, waiting)| {
        format!("     {waiting} objects wait for destination {name}, which is not configured here")
    });
    providers.chain(destinations).collect()
}

/// Who is not told, and what to do about it.
fn untold(trouble: &EndpointTrouble, now: Timestamp) -> Vec<String> {
    let EndpointTrouble {
        endpoint, error, ..
    } = trouble;
    match trouble.disabled_at {
        None => {
            let failing_for = now.since(trouble.failing_since);
            vec![format!(
                "     {endpoint} takes no messages for {failing_for}: {error}"
            )]
        }
        Some(disabled_at) => {
            let ago = now.since(disabled_at);
            vec![
                format!("MUTE {endpoint} is disabled for {ago}: {error}"),
                "     hint:  mend it and reload the daemon (SIGHUP); then `reelvault events replay`"
                    .to_owned(),
            ]
        }
    }
}
