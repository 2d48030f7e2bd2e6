//! `reelvault manifest verify`: asks the destinations whether what is archived is still there, and the same.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use futures::stream;
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::backoff;
use crate::chance::Dice;
use crate::cli::copies;
use crate::cli::copies::ArchivedCopy;
use crate::cli::copies::Trouble;
use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::tasks;
use crate::cli::tasks::json;
use crate::config::Config;
use crate::daemon::sentence;
use crate::daemon::wiring;
use crate::daemon::wiring::Seams;
use crate::manifest::row::TaskFilter;
use crate::model::asset::AssetIndex;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::report::record::Places;
use crate::store::Store;
use crate::store::StoreErrorKind;

use super::LOOKS;
use super::TRIES;

/// Copies that are read at once: each takes as much of the line as it gets.
const READS: usize = 4;

/// Failures in a row after which a destination is asked no more: it would say the same of a million copies. Those that
/// are looked at at once fail together in one bad moment, so it takes eight of them.
const FAILURES_MAX: usize = 8 * LOOKS;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Read all bytes and compare their digests; else the destination is asked what it has
    #[arg(long)]
    deep: bool,
    /// Only so many copies, taken at random
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Only of this provider
    #[arg(short, long)]
    provider: Option<ProviderName>,
    /// Only at this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<DestinationName>,
    /// One JSON document a finding, the numbers last
    #[arg(long)]
    json: bool,
}

/// What was found of a copy that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Missing,
    Differs,
    Refused,
    Unasked,
}

/// A copy that is not as it should be, or not known to be.
#[derive(Debug, Serialize)]
struct Finding<'a> {
    verdict: Verdict,
    provider: &'a ProviderName,
    task_id: &'a TaskId,
    asset: AssetIndex,
    destination: &'a DestinationName,
    url: String,
    what: String,
}

/// All of it in numbers.
#[derive(Debug, Default, Serialize)]
struct Summary {
    archived: u64,
    checked: u64,
    good: u64,
    missing: u64,
    differs: u64,
    refused: u64,
    unasked: u64,
}

/// A destination that is asked.
struct Peer {
    store: Store,
    failures: AtomicUsize,
}

/// The destinations, and how they are asked.
struct Audit {
    /// One that cannot be connected stands here with the reason.
    peers: BTreeMap<DestinationName, Result<Peer, String>>,
    places: Places,
    /// Those of whose copies one was told in place of all that are not asked for.
    told: Mutex<BTreeSet<DestinationName>>,
    reads: Semaphore,
    is_deep: bool,
    is_json: bool,
    dice: Dice,
}

pub(super) async fn verify(
    config: Option<&Path>,
    arguments: &Arguments,
) -> Result<Exit, Complaint> {
    let config = open::load(config)?.config;
    let destination = arguments.destination.as_ref();
    copies::check_destination(&config, destination)?;
    let seams = open::seams(&config)?;
    let audit = Audit {
        peers: connect(&config, &seams, destination).await,
        places: open::places(&config),
        told: Mutex::default(),
        reads: Semaphore::new(READS),
        is_deep: arguments.deep,
        is_json: arguments.json,
        dice: seams.dice,
    };
    let manifest = open::read_manifest(&config).await?;
    let (mut summary, mut drawn) = (Summary::default(), Vec::new());
    let mut filter = TaskFilter {
        provider: arguments.provider.clone(),
        ..TaskFilter::default()
    };
    loop {
        let page = tasks::page(&manifest, &mut filter).await?;
        if page.is_empty() {
            break;
        }
        let assets = page
            .iter()
            .flat_map(|task| task.assets.iter().map(move |asset| (&task.key, asset)));
        let copies = assets.flat_map(|(task, asset)| copies::of_asset(task, asset, destination));
        let copies: Vec<ArchivedCopy> = copies.collect();
        if let Some(most) = arguments.sample {
            for copy in copies {
                summary.archived += 1;
                draw(&mut drawn, copy, most, summary.archived, &audit.dice);
            }
        } else {
            summary.archived += u64::try_from(copies.len()).unwrap_or(u64::MAX);
            audit.check(copies, &mut summary).await?;
        }
    }
    manifest.close().await;
    audit.check(drawn, &mut summary).await?;
    if arguments.json {
        say!("{}", json(&summary)?)?;
    } else {
        let Summary {
            archived,
            checked,
            good,
            missing,
            differs,
            refused,
            unasked,
        } = summary;
        say!(
            "{checked} of {archived} archived copies: {good} good, {missing} missing, {differs} differ, {refused} refused, {unasked} unasked"
        )?;
    }
    Ok(summary.exit())
}

/// Keeps `most` of the copies so far, each as likely as any other; `copy` is the one numbered `seen`, from 1.
fn draw<Copied>(drawn: &mut Vec<Copied>, copy: Copied, most: usize, seen: u64, dice: &Dice) {
    if drawn.len() < most {
        drawn.push(copy);
        return;
    }
    let place = usize::try_from(dice.number() % seen).unwrap_or(usize::MAX);
    if let Some(place) = drawn.get_mut(place) {
        *place = copy;
    }
}

async fn connect(
    config: &Config,
    seams: &Seams,
    destination: Option<&DestinationName>,
) -> BTreeMap<DestinationName, Result<Peer, String>> {
    let mut peers = BTreeMap::new();
    for (name, settings) in &config.destination {
        if destination.is_none_or(|it| it == name) {
            let store = wiring::connect::store(name, settings, seams).await;
            let peer = store.map(|store| Peer {
                store,
                failures: AtomicUsize::new(0),
            });
            peers.insert(name.clone(), peer.map_err(|error| sentence(&error)));
        }
    }
    peers
}

impl Audit {
    /// Checks copies, many at once, and tells what is not as it should be.
    async fn check(
        &self,
        copies: Vec<ArchivedCopy>,
        summary: &mut Summary,
    ) -> Result<(), Complaint> {
        let checks = stream::iter(copies).map(async |copy| (self.ask(&copy).await, copy));
        let mut checks = std::pin::pin!(checks.buffer_unordered(LOOKS));
        while let Some((outcome, copy)) = checks.next().await {
            summary.checked += 1;
            let Err((verdict, what)) = outcome else {
                summary.good += 1;
                continue;
            };
            summary.add(verdict);
            if let Some(what) = what {
                self.tell(&copy, verdict, what)?;
            }
        }
        Ok(())
    }

    /// Whether a copy is as it was archived; if not, what is to be told of it.
    async fn ask(&self, copy: &ArchivedCopy) -> Result<(), (Verdict, Option<String>)> {
        let name = &copy.destination;
        let peer = match self.peers.get(name) {
            Some(Ok(peer)) => peer,
            Some(Err(why)) => return self.skip(name, why),
            None => return self.skip(name, "it is not configured here"),
        };
        let mut tries = 1;
        loop {
            if peer.failures.load(Ordering::Relaxed) >= FAILURES_MAX {
                return self.skip(name, &format!("it failed {FAILURES_MAX} times in a row"));
            }
            let Err(trouble) = self.look(copy, &peer.store).await else {
                peer.failures.store(0, Ordering::Relaxed);
                return Ok(());
            };
            let kind = match &trouble {
                Trouble::Store(error) => Some(error.kind),
                Trouble::Missing | Trouble::Differs(_) | Trouble::Sink(_) => None,
            };
            if kind == Some(StoreErrorKind::Transient) && tries < TRIES {
                let wait = backoff::delay(tries, None, &self.dice);
                tokio::time::sleep(wait.as_duration()).await;
                tries += 1;
                continue;
            }
            if kind.is_some() {
                peer.failures.fetch_add(1, Ordering::Relaxed);
            } else {
                peer.failures.store(0, Ordering::Relaxed);
            }
            let (verdict, what) = match trouble {
                Trouble::Missing => (Verdict::Missing, "nothing is there".to_owned()),
                Trouble::Differs(what) => (Verdict::Differs, what),
                Trouble::Store(error) if error.kind == StoreErrorKind::Blocked => {
                    (Verdict::Refused, error.to_string())
                }
                Trouble::Store(error) => (Verdict::Unasked, error.to_string()),
                Trouble::Sink(error) => (Verdict::Unasked, error.to_string()),
            };
            return Err((verdict, Some(what)));
        }
    }

    /// Leaves out a copy at a destination that is not asked: the first is told for all, since one word fits a million.
    fn skip(&self, name: &DestinationName, why: &str) -> Result<(), (Verdict, Option<String>)> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = told.insert(name.clone());
        let what = format!(
            "destination {name}: {why}; of its other copies that are not asked for nothing is said"
        );
        Err((Verdict::Unasked, is_first.then_some(what)))
    }

    /// Asks what is there, or reads it. A folder reads its files either way.
    async fn look(&self, copy: &ArchivedCopy, store: &Store) -> Result<(), Trouble> {
        let is_folder = store.bucket().is_none();
        if !self.is_deep && !is_folder && copy.look(store).await? {
            return Ok(());
        }
        let permit = self.reads.acquire().await;
        let _permit = permit.expect("nobody closes it");
        let body = copy.open(store).await?;
        copy.pour(body, tokio::io::sink()).await
    }

    fn tell(&self, copy: &ArchivedCopy, verdict: Verdict, what: String) -> Result<(), Complaint> {
        let place = self.places.get(&copy.destination);
        let finding = Finding {
            verdict,
            provider: &copy.task.provider,
            task_id: &copy.task.id,
            asset: copy.index,
            destination: &copy.destination,
            url: place.map_or_else(|| copy.key.to_string(), |it| it.locate(&copy.key)),
            what,
        };
        if self.is_json {
            return say!("{}", json(&finding)?);
        }
        let word = match verdict {
            Verdict::Missing => "missing",
            Verdict::Differs => "differs",
            Verdict::Refused => "refused",
            Verdict::Unasked => "unasked",
        };
        let Finding { url, what, .. } = finding;
        say!(
            "{word}  {url} ({} {}, asset {}): {what}",
            copy.task.provider,
            copy.task.id,
            copy.index
        )
    }
}

impl Summary {
    fn add(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Missing => self.missing += 1,
            Verdict::Differs => self.differs += 1,
            Verdict::Refused => self.refused += 1,
            Verdict::Unasked => self.unasked += 1,
        }
    }

    fn exit(&self) -> Exit {
        if self.missing + self.differs > 0 {
            Exit::Differs
        } else if self.refused > 0 {
            Exit::Refused
        } else if self.unasked > 0 {
            Exit::DoneInPart
        } else {
            Exit::Done
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_copy_is_as_likely_as_any_other() {
        const ROUNDS: u32 = 2000;
        let dice = Dice::seeded(7);
        let mut times = [0; 10];
        for _ in 0..ROUNDS {
            let mut drawn = Vec::new();
            for (copy, seen) in (0..times.len()).zip(1..) {
                draw(&mut drawn, copy, 3, seen, &dice);
            }
            assert_eq!(drawn.len(), 3);
            drawn.into_iter().for_each(|copy| times[copy] += 1);
        }
        // 600 of 2000 is what each has to expect, 20 the deviation.
        assert!(times.iter().all(|it| (500..700).contains(it)), "{times:?}");
    }
}
