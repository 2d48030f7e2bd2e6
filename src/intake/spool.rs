//! The spool: a folder into which others drop files that announce tasks, without talking to anybody.
//!
//! ```text
//!   NAME --unchanged for two looks--> read, learned in batches --> done/NAME
//!                                                             `--> failed/NAME and failed/NAME.reason.txt
//! ```
//!
//! A file is moved after its tasks are in the manifest. Dead in between, it is read again, and learning a task again
//! changes nothing. Names that begin with a dot or end in `.tmp` or `.part` are somebody's unfinished writing.

mod file;
mod folder;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use self::file::File;
use self::folder::Folder;
use self::folder::Found;
use self::folder::Stamp;
use crate::clock::Clock;
use crate::intake::learn;
use crate::intake::line::Accounts;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::model::task::LearnedVia;
use crate::units::Span;

/// How often the folder is looked at. A file is taken at the second look that finds it unchanged.
const LOOK_EVERY: Span = Span::from_secs(1);

/// Tasks written in one transaction.
const BATCH: usize = 1000;

/// Lines of a file whose mistakes are told, so that a reason is not longer than what it is about.
const REASONS_MAX: usize = 1000;

/// `[spool]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder; empty for none.
    pub path: PathBuf,
}

/// Takes what is dropped into the folder.
#[derive(Debug)]
pub struct Spool {
    folder: Folder,
    accounts: Accounts,
    manifest: Manifest,
    clock: Clock,
    /// What the look before found.
    seen: BTreeMap<PathBuf, Stamp>,
    /// What was read and could not be moved: not read again until it changes.
    stuck: BTreeMap<PathBuf, Stamp>,
    /// What is wrong with the folder, as it was told.
    told: Option<String>,
}

/// What came of a file.
#[derive(Debug, Default)]
struct Outcome {
    learned: usize,
    reasons: Vec<String>,
    bad: usize,
}

impl Outcome {
    fn note(&mut self, reason: String) {
        self.bad = self.bad.saturating_add(1);
        if self.reasons.len() < REASONS_MAX {
            self.reasons.push(reason);
        }
    }

    /// Each mistake on a line of its own; nothing where there is none.
    fn reason(&self) -> Option<String> {
        if self.bad == 0 {
            return None;
        }
        let more = self.bad.saturating_sub(self.reasons.len());
        let more = (more > 0).then(|| format!("and {more} more\n"));
        let head = format!("{} taken, {} not:\n", self.learned, self.bad);
        Some(format!(
            "{head}{}\n{}",
            self.reasons.join("\n"),
            more.unwrap_or_default()
        ))
    }
}

impl Spool {
    /// A spool over the folder at `path`.
    pub fn new(path: PathBuf, accounts: Accounts, manifest: Manifest, clock: Clock) -> Self {
        Self {
            folder: Folder::new(path),
            accounts,
            manifest,
            clock,
            seen: BTreeMap::new(),
            stuck: BTreeMap::new(),
            told: None,
        }
    }

    /// Looks until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look(&stop).await;
            // Both arms are cancel-safe: a token and a timer.
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY.as_duration()) => {}
            }
        }
    }

    /// Takes what lies there and stays unchanged for a moment: what `run --once` begins with.
    pub async fn sweep(mut self, stop: &CancellationToken) {
        self.look(stop).await;
        if !self.seen.is_empty() {
            tokio::time::sleep(LOOK_EVERY.as_duration()).await;
            self.look(stop).await;
        }
    }

    /// One look: takes the files that have not changed since the one before.
    async fn look(&mut self, stop: &CancellationToken) {
        let found = match self.folder.list().await {
            Ok(found) => found,
            Err(error) => {
                self.tell(Some(error));
                return;
            }
        };
        let (mut seen, mut trouble) = (BTreeMap::new(), None);
        for Found { path, stamp } in found {
            let is_unchanged = self.seen.get(&path) == Some(&stamp);
            let is_stuck = self.stuck.get(&path) == Some(&stamp);
            seen.insert(path.clone(), stamp);
            if !is_unchanged || is_stuck || stop.is_cancelled() {
                continue;
            }
            if let Err(why) = self.take(&path, stamp, stop).await {
                trouble = Some(why);
            }
        }
        self.stuck
            .retain(|path, stamp| seen.get(path) == Some(stamp));
        self.seen = seen;
        self.tell(trouble);
    }

    /// Learns what a file announces, and moves it. An error leaves it where it is.
    async fn take(
        &mut self,
        path: &std::path::Path,
        stamp: Stamp,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let name = path.display().to_string();
        let outcome = match self.read(path, stop).await {
            Ok(Some(outcome)) => outcome,
            // Stopped in the middle: read again at the next start.
            Ok(None) => return Ok(()),
            Err(error) => return Err(format!("{name}: {error}")),
        };
        let reason = outcome.reason();
        match &reason {
            None => tracing::info!(file = name, tasks = outcome.learned, "took a file"),
            Some(_) => tracing::warn!(
                file = name,
                tasks = outcome.learned,
                bad = outcome.bad,
                first = outcome.reasons.first(),
                "a file has mistakes"
            ),
        }
        if let Err(error) = self.folder.put_away(path, reason).await {
            self.stuck.insert(path.to_owned(), stamp);
            return Err(format!("{name} was taken, but cannot be moved: {error}"));
        }
        Ok(())
    }

    /// Reads and learns; `None` when told to stop.
    async fn read(
        &self,
        path: &std::path::Path,
        stop: &CancellationToken,
    ) -> Result<Option<Outcome>, ManifestError> {
        let mut outcome = Outcome::default();
        let mut file = match File::open(path.to_owned()).await {
            Ok(file) => file,
            Err(why) => {
                outcome.note(why);
                return Ok(Some(outcome));
            }
        };
        loop {
            if stop.is_cancelled() {
                return Ok(None);
            }
            let batch = match file.batch(BATCH).await {
                Ok(batch) if batch.is_empty() => return Ok(Some(outcome)),
                Ok(batch) => batch,
                Err(why) => {
                    outcome.note(why);
                    return Ok(Some(outcome));
                }
            };
            let mut announced = Vec::with_capacity(batch.len());
            for (place, line) in batch {
                let announce = |line| self.accounts.announce(line, None, LearnedVia::Spool);
                match line.and_then(announce) {
                    Ok(announcement) => announced.push(announcement),
                    Err(why) => outcome.note(format!("{place}: {why}")),
                }
            }
            outcome.learned = outcome.learned.saturating_add(announced.len());
            if !announced.is_empty() {
                learn(&self.manifest, announced, self.clock.now()).await?;
            }
        }
    }

    /// Tells what is wrong once, not at every look.
    fn tell(&mut self, trouble: Option<String>) {
        if self.told != trouble {
            match &trouble {
                Some(why) => tracing::error!("spool: {why}"),
                None => tracing::info!("spool: the folder can be used again"),
            }
            self.told = trouble;
        }
    }
}
