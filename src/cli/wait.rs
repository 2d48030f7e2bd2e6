//! Waiting for tasks to end, and the note about a daemon that is not there.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::say::say;
use crate::cli::say::talk;
use crate::config::Config;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::TaskFilter;
use crate::manifest::row::TaskRecord;
use crate::model::asset::AssetState;
use crate::model::task::TaskKey;
use crate::report::record;
use crate::units::Span;

/// How often the manifest is looked at for up to a hundred tasks; for more, which are a query each, more rarely.
const LOOK_EVERY: Span = Span::from_millis(200);

/// How often for however many.
const LOOK_EVERY_MAX: Span = Span::from_secs(10);

/// A daemon that ended may be gone for so long until it is given up: it may be started anew.
const ABSENCE_MAX: Span = Span::from_secs(60);

/// When a daemon was there last.
struct Presence(Instant);

impl Presence {
    /// Whether one may still be waited for.
    fn lasts(&mut self, is_running: bool) -> bool {
        if is_running {
            self.0 = Instant::now();
        }
        self.0.elapsed() < ABSENCE_MAX.as_duration()
    }
}

/// Says so when what was announced waits for a daemon.
pub(crate) async fn note_daemon(config: &Config) {
    if !Manifest::is_daemon_running(&config.manifest).await {
        talk!("note: no daemon is running; they are archived once one is: `reelvault run`");
    }
}

/// Waits until all tasks have ended or `most` is over, and says how it came out. What keeps a task from its end is told
/// as soon as it is known: somebody may sit before it, and the link may be dead for good.
pub(crate) async fn until_archived(
    config: &Config,
    manifest: &Manifest,
    keys: &[TaskKey],
    most: Span,
) -> Result<Exit, Complaint> {
    if !Manifest::is_daemon_running(&config.manifest).await {
        let what = "no daemon is running, so nothing would come of waiting";
        return Err(Complaint::new(Exit::NoDaemon, what).hint(
            "the tasks are announced; start one with `reelvault run`, or `reelvault run --once`",
        ));
    }
    let over_at = Instant::now() + most.as_duration();
    let mut presence = Presence(Instant::now());
    let mut open: Vec<TaskKey> = keys.to_vec();
    let mut failed = 0;
    let mut told: HashMap<TaskKey, String> = HashMap::new();
    loop {
        let mut still_open = Vec::new();
        for key in open {
            let found = match find(manifest, &key).await {
                // A server that is away comes back, and the tasks go on.
                Err(ManifestError::Away { .. }) => {
                    still_open.push(key);
                    continue;
                }
                found => found?,
            };
            match found {
                Some(task) if record::is_over(&task) => failed += usize::from(!tell(&task)?),
                Some(task) => {
                    if let Some(error) = error(&task)
                        && told.get(&key).is_none_or(|before| before != error)
                    {
                        talk!("{} {}: {}", key.provider, key.id, outcome(&task));
                        told.insert(key.clone(), error.to_owned());
                    }
                    still_open.push(key);
                }
                None => failed += 1,
            }
        }
        open = still_open;
        if open.is_empty() {
            break;
        }
        if Instant::now() >= over_at {
            talk!(
                "error: {} of {} tasks did not end within {most}\nhint:  `reelvault task show ID` says what each waits for",
                open.len(),
                keys.len()
            );
            return Ok(Exit::WaitRanOut);
        }
        if !presence.lasts(Manifest::is_daemon_running(&config.manifest).await) {
            let what =
                format!("no daemon is running for {ABSENCE_MAX}, so nothing would come of waiting");
            return Err(Complaint::new(Exit::NoDaemon, what)
                .hint("the tasks are announced, and its log says why it ended"));
        }
        let hundreds = u32::try_from(open.len() / 100).unwrap_or(u32::MAX);
        let pause = LOOK_EVERY.as_duration().saturating_mul(1 + hundreds);
        tokio::time::sleep(pause.min(LOOK_EVERY_MAX.as_duration())).await;
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
) -> Result<Option<TaskRecord>, ManifestError> {
    let filter = TaskFilter {
        provider: Some(key.provider.clone()),
        id: Some(key.id.clone()),
        ..TaskFilter::default()
    };
    Ok(manifest.tasks(&filter, 1).await?.pop())
}

/// Prints how a task ended; whether it ended well.
fn tell(task: &TaskRecord) -> Result<bool, Complaint> {
    say!("{} {}: {}", task.key.provider, task.key.id, outcome(task))?;
    Ok(record::state(task) == "archived" || record::is_without_files(task))
}

/// How it stands with a task in a few words: its state, and what is in the way of a better one.
pub(crate) fn outcome(task: &TaskRecord) -> String {
    let state = record::state(task);
    let open = task
        .assets
        .iter()
        .find(|asset| asset.state != AssetState::Archived);
    if record::is_without_files(task) {
        return format!("{state}, with no file: nothing to archive");
    }
    let Some(asset) = open else {
        return match (&task.task_error, &task.error) {
            (Some(error), _) => format!("{state}: {}: {}", error.code, error.message),
            (None, Some(error)) if state != "archived" => format!("{state}: {error}"),
            (None, _) => state.to_owned(),
        };
    };
    match &asset.error {
        Some(error) => format!("{}: {error}", asset.state),
        None => asset.state.to_string(),
    }
}

/// What keeps a task that is not over from its end.
fn error(task: &TaskRecord) -> Option<&str> {
    let mut assets = task.assets.iter();
    let open = assets.find(|asset| asset.state != AssetState::Archived);
    match open {
        Some(asset) => asset.error.as_deref(),
        None => task.error.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_daemon_that_is_started_anew_is_waited_for_and_one_that_stays_away_is_not() {
        let mut presence = Presence(Instant::now());
        let most = ABSENCE_MAX.as_duration();
        tokio::time::advance(most / 2).await;
        assert!(presence.lasts(false));
        assert!(presence.lasts(true));
        tokio::time::advance(most / 2).await;
        assert!(presence.lasts(false));
        tokio::time::advance(most / 2).await;
        assert!(!presence.lasts(false));
    }
}
