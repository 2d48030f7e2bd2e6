//! Waiting for tasks to end, and the note about a daemon that is not there.

use tokio::time::Instant;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::config::Config;
use crate::manifest::Manifest;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::task::TaskKey;
use crate::report::record;
use crate::units::Span;

/// How often the manifest is looked at.
const LOOK_EVERY: Span = Span::from_millis(200);

/// Says so when what was announced waits for a daemon.
pub(crate) fn note_daemon(config: &Config) {
    if !Manifest::is_daemon_running(&config.manifest) {
        eprintln!("note: no daemon is running; they are archived once one is: `reelvault run`");
    }
}

/// Waits until all tasks have ended or `most` is over, and says how it came out.
pub(crate) async fn until_archived(
    config: &Config,
    manifest: &Manifest,
    keys: &[TaskKey],
    most: Span,
) -> Result<Exit, Complaint> {
    if !Manifest::is_daemon_running(&config.manifest) {
        let what = "no daemon is running, so nothing would come of waiting";
        return Err(Complaint::new(Exit::NoDaemon, what).hint(
            "the tasks are announced; start one with `reelvault run`, or `reelvault run --once`",
        ));
    }
    let over_at = Instant::now() + most.as_duration();
    let mut open: Vec<TaskKey> = keys.to_vec();
    let mut failed = 0;
    loop {
        let mut still_open = Vec::new();
        for key in open {
            match find(manifest, &key).await? {
                Some(task) if is_over(&task) => failed += usize::from(!tell(&task)),
                Some(_) => still_open.push(key),
                None => failed += 1,
            }
        }
        open = still_open;
        if open.is_empty() {
            break;
        }
        if Instant::now() >= over_at {
            eprintln!(
                "error: {} of {} did not end within {most}",
                open.len(),
                keys.len()
            );
            return Ok(Exit::WaitRanOut);
        }
        tokio::time::sleep(LOOK_EVERY.as_duration()).await;
    }
    Ok(match failed {
        0 => Exit::Done,
        failed if failed == keys.len() => Exit::Failed,
        _ => Exit::DoneInPart,
    })
}

/// One task of the manifest.
pub(crate) async fn find(
    manifest: &Manifest,
    key: &TaskKey,
) -> Result<Option<TaskRecord>, Complaint> {
    let filter = TaskFilter {
        provider: Some(key.provider.clone()),
        id: Some(key.id.clone()),
        ..TaskFilter::default()
    };
    Ok(manifest.tasks(&filter, 1).await?.pop())
}

fn is_over(task: &TaskRecord) -> bool {
    task.state.is_final() && task.assets.iter().all(|asset| asset.state.is_final())
}

/// Prints how a task ended; whether it ended well.
fn tell(task: &TaskRecord) -> bool {
    let state = record::state(task);
    println!("{} {}: {state}", task.key.provider, task.key.id);
    state == "archived"
}
