//! Discovery: the lists of tasks that providers keep, read for tasks that nobody announced.
//!
//! ```text
//!   front                                                    overlap       horizon
//!   | page 1 | page 2 | page 3 | ...                           |              |
//!   newest ------------------------------------------------> known --------> too old to matter
//! ```
//!
//! A pass reads from the front until all that comes was made before the last pass that came to its end, less an overlap,
//! or before the horizon. A list that repeats itself, as that of a server which ignores the number of a page, is read no
//! further. A list by pages moves while it is read. A new task pushes rows to later pages, where they are
//! met twice. One that is deleted pulls a row forward onto a page that was read: so a pass that learned something on
//! several pages is done again, until a round learns nothing that was there when the first began.

mod seen;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::intake;
use crate::intake::discover::seen::Seen;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::manifest::row::Learned;
use crate::manifest::row::discovery::ClaimedDiscovery;
use crate::manifest::row::discovery::Discovery;
use crate::manifest::row::discovery::DiscoverySettlement;
use crate::manifest::row::discovery::Pass;
use crate::manifest::row::discovery::Wanted;
use crate::model::failure::Failure;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::provider::ListError;
use crate::provider::Page;
use crate::provider::Place;
use crate::provider::Provider;
use crate::provider::ProviderError;
use crate::units::Span;
use crate::work::driver::Stage;
use crate::work::settle::BLOCKED_PAUSE;
use crate::work::settle::Situation;
use crate::work::settle::decide;
use crate::work::settle::write_patiently;
use crate::work::wake::Wake;

/// The wait between two passes over a list.
const EVERY: Span = Span::from_secs(60);

/// How far it is spread: several machines and providers need not call in one moment.
const SPREAD: f64 = 0.2;

/// Where there is no list it is looked for again after this.
const NO_LIST_PAUSE: Span = Span::from_secs(86_400);

/// A task may show up in the list so much later than the time that it says it was made.
const OVERLAP: Span = Span::from_secs(600);

/// Where rows do not say when they were made, a pass ends after so many pages in a row on which every task is known.
const KNOWN_PAGES: u32 = 3;

/// Pages read in one step; then it is written down how far it came.
const PAGES_A_STEP: u32 = 10;

/// A list with more pages than this has no end, or an API that always gives the same one.
const PAGES_MAX: u32 = 20_000;

/// Where so many tries in a row came to nothing and the last was told that the page makes no sense, the place of the page
/// is given up. Fewer may be a server's trouble, and a long pass would never end if each began it anew.
const PLACE_TRIES: u32 = 3;

/// A list that still moves after so many rounds is taken as read: the next pass begins a minute later.
const ROUNDS_MAX: u32 = 5;

/// The stage that reads lists.
pub struct Discover {
    /// Where work is claimed and recorded.
    manifest: Manifest,
    /// The task APIs whose lists are read.
    providers: BTreeMap<ProviderName, Provider>,
    wanted: Vec<Wanted>,
    names: Vec<ProviderName>,
    /// Whether the manifest knows what is wanted.
    is_wanted: AtomicBool,
    /// What this process has read of the rounds that are under way.
    seen: Mutex<BTreeMap<ProviderName, Seen>>,
    margin: Span,
    clock: Clock,
    dice: Dice,
    watch: Wake,
}

/// What [`Discover`] is made of.
pub struct DiscoverParts {
    /// Where work is claimed and recorded.
    pub manifest: Manifest,
    /// The task APIs whose lists are read, and from when on their tasks are wanted.
    pub providers: Vec<(Provider, Option<Timestamp>)>,
    /// `deadline.margin`: links may live this much longer than they should.
    pub margin: Span,
    /// Wall time.
    pub clock: Clock,
    /// For jitter.
    pub dice: Dice,
    /// Tells `watch` of new tasks.
    pub watch: Wake,
}

impl Discover {
    /// A stage that reads the lists of `parts.providers`.
    pub fn new(parts: DiscoverParts) -> Self {
        let wanted = parts.providers.iter().map(|(provider, since)| Wanted {
            provider: provider.name().clone(),
            since: *since,
        });
        let wanted: Vec<Wanted> = wanted.collect();
        let providers = parts.providers.into_iter();
        Self {
            manifest: parts.manifest,
            names: wanted.iter().map(|it| it.provider.clone()).collect(),
            providers: providers
                .map(|(provider, _)| (provider.name().clone(), provider))
                .collect(),
            wanted,
            is_wanted: AtomicBool::new(false),
            seen: Mutex::default(),
            margin: parts.margin,
            clock: parts.clock,
            dice: parts.dice,
            watch: parts.watch,
        }
    }
}

impl Stage for Discover {
    type Work = ClaimedDiscovery;

    const NAME: &'static str = "discover";

    const TABLE: Claimable = Claimable::Discoveries;

    async fn claim(&self, most: usize) -> Result<Vec<ClaimedDiscovery>, ManifestError> {
        if self.names.is_empty() {
            return Ok(Vec::new());
        }
        if !self.is_wanted.load(Ordering::Relaxed) {
            self.manifest.want_discoveries(&self.wanted).await?;
            self.is_wanted.store(true, Ordering::Relaxed);
        }
        self.manifest.claim_discoveries(most, &self.names).await
    }

    fn leases(work: &ClaimedDiscovery) -> Vec<Lease> {
        vec![work.lease]
    }

    fn span(work: &ClaimedDiscovery) -> tracing::Span {
        tracing::error_span!("discover", provider.name = %work.provider)
    }

    async fn step(&self, work: &ClaimedDiscovery, stop: &CancellationToken) -> Result<(), Failure> {
        let Some(provider) = self.providers.get(&work.provider) else {
            let what = format!("provider {} is no longer configured", work.provider);
            let until = self.clock.now().plus(BLOCKED_PAUSE);
            return Err(Failure::wait_until(until, what));
        };
        let seen = self.seen().remove(&work.provider).unwrap_or_default();
        let mut reading = Reading::new(work, provider, self.margin, self.clock.now(), seen);
        let mut outcome = Ok(Turn::Page);
        for _ in 0..PAGES_A_STEP {
            outcome = tokio::select! {
                // A page that is not written down is read again.
                () = stop.cancelled() => Ok(Turn::Page),
                turn = self.turn(&mut reading, provider) => turn,
            };
            if stop.is_cancelled() || !matches!(outcome, Ok(Turn::Page)) {
                break;
            }
        }
        let mut seen = std::mem::take(&mut reading.seen);
        if matches!(outcome, Ok(Turn::Again | Turn::Done | Turn::NoList)) {
            seen.forget();
        }
        self.seen().insert(work.provider.clone(), seen);
        self.write(work, reading, outcome).await;
        Ok(())
    }

    async fn settle(&self, work: &ClaimedDiscovery, failure: Failure) {
        let settlement = self.failed(work, work.discovery.clone(), &failure);
        self.write_settlement(work, settlement).await;
    }
}

/// What one page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// There are more.
    Page,
    /// The list is to be read once more, from its front.
    Again,
    /// All that there was is known.
    Done,
    /// The API has no list.
    NoList,
}

/// Why there was no page.
enum Trouble {
    Provider(ProviderError),
    Manifest(ManifestError),
}

impl Discover {
    fn seen(&self) -> MutexGuard<'_, BTreeMap<ProviderName, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one page and learns what it tells.
    async fn turn(&self, reading: &mut Reading, provider: &Provider) -> Result<Turn, Trouble> {
        let place = reading.pass.place.clone().map(Place);
        let page = match provider.list(place.as_ref()).await {
            Ok(page) => page,
            Err(ListError::NoList) => return Ok(Turn::NoList),
            Err(ListError::Provider(error)) => return Err(Trouble::Provider(error)),
        };
        if page.unread > 0 {
            tracing::warn!(rows = page.unread, "rows of the list name no task");
        }
        let wanted = reading.wanted(&page);
        let created: Vec<_> = wanted.iter().map(|(_, at)| *at).collect();
        let now = self.clock.now();
        let learned =
            intake::learn_listed(&self.manifest, provider.name(), wanted, provider.ttl(), now);
        let learned = learned.await.map_err(Trouble::Manifest)?;
        if learned.contains(&Learned::New) {
            self.watch.poke();
        }
        let new = learned.iter().zip(created);
        let new = new.filter(|(learned, _)| **learned == Learned::New);
        Ok(reading.take(&page, new.map(|(_, created)| created)))
    }

    /// Writes how far the reading came.
    async fn write(
        &self,
        work: &ClaimedDiscovery,
        reading: Reading,
        outcome: Result<Turn, Trouble>,
    ) {
        let now = self.clock.now();
        let pause = EVERY.times(1.0 + SPREAD * (self.dice.fraction() - 0.5));
        let had_list = work.discovery.has_list;
        let complete_to = work.discovery.complete_to;
        let settled = |discovery, due_at| DiscoverySettlement {
            discovery,
            due_at,
            error: None,
            is_attempt: false,
        };
        let under_way = Discovery {
            complete_to,
            pass: Some(reading.pass.clone()),
            has_list: true,
        };
        let settlement = match outcome {
            Ok(Turn::Page) => settled(under_way, now),
            Ok(Turn::Again) => {
                let again = reading.pass.again();
                settled(
                    Discovery {
                        pass: Some(again),
                        ..under_way
                    },
                    now,
                )
            }
            Ok(Turn::Done) => {
                reading.tell(complete_to.is_none());
                let complete_to = Some(reading.pass.began_at);
                settled(
                    Discovery {
                        complete_to,
                        pass: None,
                        has_list: true,
                    },
                    now.plus(pause),
                )
            }
            Ok(Turn::NoList) => {
                if had_list {
                    tracing::info!(
                        "the API has no list of tasks: only what is announced is archived; asked again in a day"
                    );
                }
                let discovery = Discovery {
                    complete_to,
                    pass: None,
                    has_list: false,
                };
                settled(discovery, now.plus(NO_LIST_PAUSE))
            }
            Err(trouble)
                if work.attempts.saturating_add(1) >= PLACE_TRIES
                    && reading.pass.place.is_some()
                    && trouble.is_of_the_page() =>
            {
                let pass = Some(reading.pass.anew());
                let anew = Discovery { pass, ..under_way };
                DiscoverySettlement {
                    due_at: now.plus(pause),
                    is_attempt: false,
                    ..self.failed(work, anew, &failure(trouble))
                }
            }
            Err(trouble) => self.failed(work, under_way, &failure(trouble)),
        };
        self.write_settlement(work, settlement).await;
    }

    fn failed(
        &self,
        work: &ClaimedDiscovery,
        discovery: Discovery,
        failure: &Failure,
    ) -> DiscoverySettlement {
        tracing::warn!(%failure, "the list of tasks is not read");
        let now = self.clock.now();
        let situation = Situation {
            now,
            attempts: work.attempts,
            urgent_until: None,
        };
        let settled = decide(failure.verdict(), situation, &self.dice);
        DiscoverySettlement {
            discovery,
            due_at: settled.due_at.unwrap_or(now.plus(BLOCKED_PAUSE)),
            error: Some(failure.to_string()),
            is_attempt: settled.is_attempt,
        }
    }

    async fn write_settlement(&self, work: &ClaimedDiscovery, settlement: DiscoverySettlement) {
        let written = write_patiently(&self.dice, || {
            self.manifest
                .settle_discovery(&work.lease, settlement.clone())
        });
        if let Err(error) = written.await {
            tracing::error!(%error, "failed to write how far a list was read; the lease runs out by itself");
        }
    }
}

impl Trouble {
    /// Whether it may be the place of the page that is wrong: one whose task was deleted, a cursor that is too old.
    fn is_of_the_page(&self) -> bool {
        match self {
            Trouble::Provider(ProviderError::NoSuchTask(_) | ProviderError::Garbled(_)) => true,
            Trouble::Provider(
                ProviderError::Refused { .. }
                | ProviderError::Limited { .. }
                | ProviderError::Unavailable(_),
            )
            | Trouble::Manifest(_) => false,
        }
    }
}

fn failure(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Provider(
            ProviderError::Refused { until, said } | ProviderError::Limited { until, said },
        ) => Failure::wait_until(until, said.to_string()),
        Trouble::Provider(
            error @ (ProviderError::NoSuchTask(_)
            | ProviderError::Unavailable(_)
            | ProviderError::Garbled(_)),
        ) => Failure::retry(error.to_string()),
        Trouble::Manifest(error) => {
            Failure::retry("what a list told was not recorded").because(error)
        }
    }
}

/// A pass as far as this step has read it: pure, but for what it is told.
#[derive(Debug)]
struct Reading {
    pass: Pass,
    /// What was made before is not wanted: its links are dead.
    horizon: Timestamp,
    /// What was made before is known, or not wanted.
    stop_before: Timestamp,
    /// Whether an earlier pass came to its end.
    is_complete: bool,
    may_drift: bool,
    known_pages: u32,
    seen: Seen,
}

impl Reading {
    fn new(
        work: &ClaimedDiscovery,
        provider: &Provider,
        margin: Span,
        now: Timestamp,
        mut seen: Seen,
    ) -> Self {
        let can_live = now.minus(provider.ttl()).minus(margin);
        let horizon = work.since.map_or(can_live, |since| since.min(can_live));
        let complete_to = work.discovery.complete_to;
        let known = complete_to.map(|at| at.minus(OVERLAP));
        let pass = work.discovery.pass.clone();
        let pass = pass.unwrap_or(Pass {
            began_at: now,
            round: 1,
            place: None,
            pages: 0,
            learned: 0,
        });
        seen.begin(&pass);
        Self {
            pass,
            horizon,
            stop_before: known.map_or(horizon, |known| known.max(horizon)),
            is_complete: complete_to.is_some(),
            may_drift: provider.pages_drift(),
            known_pages: 0,
            seen,
        }
    }

    /// The tasks of a page whose links can still live.
    fn wanted(&self, page: &Page) -> Vec<(TaskId, Option<Timestamp>)> {
        let is_wanted = |at: &Option<Timestamp>| at.is_none_or(|at| at >= self.horizon);
        let wanted = page.tasks.iter().filter(|(_, at)| is_wanted(at));
        wanted.cloned().collect()
    }

    /// Takes a page into account, of whose tasks those made at `new` were not known.
    fn take(&mut self, page: &Page, new: impl Iterator<Item = Option<Timestamp>>) -> Turn {
        let mut is_all_known = true;
        for created in new {
            is_all_known = false;
            if created.is_none_or(|at| at <= self.pass.began_at) {
                self.pass.learned = self.pass.learned.saturating_add(1);
            }
        }
        self.pass.pages = self.pass.pages.saturating_add(1);
        self.known_pages = if is_all_known {
            self.known_pages + 1
        } else {
            0
        };
        let is_old = |at: &Option<Timestamp>| at.is_some_and(|at| at < self.stop_before);
        let tells_times = page.tasks.iter().any(|(_, at)| at.is_some());
        let is_past = if tells_times {
            is_all_known && page.tasks.iter().all(|(_, at)| is_old(at))
        } else {
            self.is_complete && self.known_pages >= KNOWN_PAGES
        };
        if self.pass.pages >= PAGES_MAX {
            tracing::warn!(
                pages = PAGES_MAX,
                "the list of tasks has no end: it is read no further"
            );
            return Turn::Done;
        }
        let is_repeated = self.seen.take(page, &self.pass);
        if is_repeated && !is_past && page.next.is_some() {
            self.seen.tell(self.pass.pages);
            return self.end();
        }
        match &page.next {
            Some(next) if !is_past => {
                self.pass.place = Some(next.0.clone());
                Turn::Page
            }
            Some(_) | None => self.end(),
        }
    }

    /// A list may have moved under a round that learned something on several pages.
    fn end(&self) -> Turn {
        let moved = self.may_drift && self.pass.pages > 1 && self.pass.learned > 0;
        if moved && self.pass.round < ROUNDS_MAX {
            Turn::Again
        } else {
            Turn::Done
        }
    }

    fn tell(&self, is_first: bool) {
        let Pass {
            pages,
            round,
            learned,
            ..
        } = self.pass;
        if is_first {
            tracing::info!(pages, rounds = round, "the whole list of tasks is read");
        } else if learned > 0 {
            tracing::info!(learned, "learned tasks that nobody announced");
        }
    }
}

impl Pass {
    fn read_so_far(&self) -> (Timestamp, u32, u32) {
        (self.began_at, self.round, self.pages)
    }

    /// The next round of the same pass.
    fn again(&self) -> Self {
        Self {
            round: self.round.saturating_add(1),
            learned: 0,
            ..self.anew()
        }
    }

    /// The same round, from its front.
    fn anew(&self) -> Self {
        Self {
            place: None,
            pages: 0,
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_528_800;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_unix_seconds(NOW - minutes * 60)
    }

    /// A page of tasks, each made so many minutes ago, that are on no page with another name.
    fn page(name: &str, ages: &[Option<i64>], has_next: bool) -> Page {
        let task = |(number, age): (usize, &Option<i64>)| {
            let id = format!("{name}-{number}").parse().unwrap();
            (id, age.map(at))
        };
        Page {
            tasks: ages.iter().enumerate().map(task).collect(),
            unread: 0,
            next: has_next.then(|| Place("2".to_owned())),
        }
    }

    fn reading(complete_minutes_ago: Option<i64>, round: u32) -> Reading {
        Reading {
            pass: Pass {
                began_at: at(0),
                round,
                place: None,
                pages: 0,
                learned: 0,
            },
            horizon: at(24 * 60),
            stop_before: complete_minutes_ago.map_or(at(24 * 60), |ago| at(ago + 10)),
            is_complete: complete_minutes_ago.is_some(),
            may_drift: true,
            known_pages: 0,
            seen: Seen::default(),
        }
    }

    #[track_caller]
    fn check(
        reading: &mut Reading,
        ages: &[Option<i64>],
        new: &[Option<i64>],
        has_next: bool,
        expected: Turn,
    ) {
        let new = new.iter().map(|age| age.map(at));
        let page = page(&reading.pass.pages.to_string(), ages, has_next);
        assert_eq!(reading.take(&page, new), expected);
    }

    #[test]
    fn a_first_pass_ends_where_links_are_dead_or_the_list_ends() {
        let mut first = reading(None, 1);
        check(
            &mut first,
            &[Some(1), Some(50)],
            &[Some(1)],
            true,
            Turn::Page,
        );
        check(&mut first, &[Some(1400), Some(1500)], &[], true, Turn::Page);
        check(
            &mut first,
            &[Some(1500), Some(1600)],
            &[],
            true,
            Turn::Again,
        );
        let mut short = reading(None, 1);
        check(&mut short, &[Some(1)], &[Some(1)], false, Turn::Done);
        let mut empty = reading(None, 1);
        check(&mut empty, &[], &[], false, Turn::Done);
        assert_eq!(
            first
                .wanted(&page("a", &[Some(1), Some(1600), None], true))
                .len(),
            2
        );
    }

    #[test]
    fn a_later_pass_ends_where_all_is_known_and_older_than_the_overlap() {
        let mut later = reading(Some(1), 1);
        check(&mut later, &[Some(1), Some(5)], &[], true, Turn::Page);
        check(&mut later, &[Some(5), Some(20)], &[], true, Turn::Page);
        check(
            &mut later,
            &[Some(20), Some(30)],
            &[Some(30)],
            true,
            Turn::Page,
        );
        check(&mut later, &[Some(40), Some(50)], &[], true, Turn::Again);
        let mut quiet = reading(Some(1), 1);
        check(&mut quiet, &[Some(12), Some(50)], &[], true, Turn::Done);
    }

    #[test]
    fn without_times_a_pass_ends_after_pages_on_which_all_is_known() {
        let mut later = reading(Some(1), 1);
        let rows = [None, None];
        check(&mut later, &rows, &[], true, Turn::Page);
        check(&mut later, &rows, &[], true, Turn::Page);
        check(&mut later, &rows, &[None], true, Turn::Page);
        check(&mut later, &rows, &[], true, Turn::Page);
        check(&mut later, &rows, &[], true, Turn::Page);
        check(&mut later, &rows, &[], true, Turn::Again);
        let mut first = reading(None, 1);
        for _ in 0..20 {
            check(&mut first, &rows, &[], true, Turn::Page);
        }
        check(&mut first, &rows, &[], false, Turn::Done);
    }

    #[test]
    fn rounds_end_when_nothing_old_is_learned_any_more() {
        let mut second = reading(None, 2);
        check(
            &mut second,
            &[Some(-1), Some(1)],
            &[Some(-1)],
            true,
            Turn::Page,
        );
        check(&mut second, &[Some(1500)], &[], true, Turn::Done);
        let mut last = reading(None, ROUNDS_MAX);
        check(&mut last, &[Some(1)], &[Some(1)], true, Turn::Page);
        check(&mut last, &[Some(1500)], &[Some(2)], false, Turn::Done);
        let mut steady = Reading {
            may_drift: false,
            ..reading(None, 1)
        };
        check(&mut steady, &[Some(1)], &[Some(1)], true, Turn::Page);
        check(&mut steady, &[Some(2)], &[Some(2)], false, Turn::Done);
    }

    #[test]
    fn a_list_that_repeats_itself_is_read_no_further() {
        let read = |names: &[&str]| {
            let mut reading = reading(None, 1);
            reading.may_drift = false;
            let turn = |name: &&str| {
                let page = page(name, &[Some(1), Some(2)], true);
                reading.take(&page, std::iter::empty())
            };
            names.iter().map(turn).collect::<Vec<_>>()
        };
        let ends_after = |pages: usize| {
            let mut turns = vec![Turn::Page; pages - 1];
            turns.push(Turn::Done);
            turns
        };
        assert_eq!(read(&["a", "a", "a", "a"]), ends_after(4));
        assert_eq!(read(&["a", "b", "a", "b", "a"]), ends_after(5));
        assert_eq!(read(&["a", "b", "c", "c", "b", "c"]), ends_after(6));
        // A page that is met once more is what a list looks like that moves.
        assert_eq!(read(&["a", "a", "b", "b", "b"]), [Turn::Page; 5]);
    }

    #[test]
    fn a_list_without_end_is_read_no_further() {
        let mut endless = reading(None, 1);
        endless.pass.pages = PAGES_MAX - 1;
        check(&mut endless, &[Some(1)], &[], true, Turn::Done);
    }
}
