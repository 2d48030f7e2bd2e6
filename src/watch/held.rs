//! Tasks that are held: claimed for many looks, looked at again when their time comes, and not written until there is
//! news.
//!
//! ```text
//!   claim --> look --news--> write, which ends the claim
//!              ^ |
//!              | `-none--> here, until the next look
//!              `--------------'
//! ```
//!
//! Held in the same way, but in lines of their own, are those that only a call about each alone can tell of: what a batch call
//! left out, and what the provider said not to know. Their number is nobody's loss: they wait here for the one place that
//! they have (`room`), while the manifest shows all others that are due.
//!
//! Nothing is lost with this memory. A held row stays as it was when it was claimed, due, so that whoever claims it next
//! looks at once; and what is written, by whomever, is fenced by the lease's token as ever.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::manifest::row::ClaimedTask;
use crate::model::lease::Lease;
use crate::model::task::ProviderName;
use crate::units::ByteSize;
use crate::units::Span;

/// How many leases long a hold is. The longer, the less is written while nothing happens; the later another machine gets
/// its share of tasks, and takes up those of a machine whose end nobody noticed.
pub(super) const HOLD_LEASES: u32 = 10;

/// How many leases long a claim is believed in: a look that comes later asks the manifest first. Who takes a task from us,
/// or forgets it, makes our next looks useless but does them no harm: what they find is not written.
pub(super) const BELIEVED_LEASES: u32 = 4;

/// What may be held at most, some 200,000 tasks without tags; beyond that each look is written and ends its claim.
const HELD_BYTES_MAX: ByteSize = ByteSize::mib(128);

/// Claims that are let go at once since they end: as much as a claim brings.
const OVERDUE_AT_ONCE: usize = 1000;

/// What a held task takes besides its texts: itself, and its places in the tables here.
const HELD_BYTES: usize =
    size_of::<ClaimedTask>() + 2 * size_of::<(Place, HeldTask, Line, Place)>();

/// What a text takes besides its letters.
const TEXT_BYTES: usize = size_of::<String>() + 2 * size_of::<usize>();

/// In which line a task waits for its next look. Those that are asked about alone come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// With others of its provider, in one call where it takes many.
    Together,
    /// Alone: it was seen before, or somebody asks for it.
    Seen,
    /// Alone: no call about it alone was made before.
    Unasked,
    /// Alone: its provider has only ever said that there is no such task.
    Missed,
}

impl Line {
    /// The line of a task that is asked about alone.
    pub(super) fn alone(task: &ClaimedTask) -> Self {
        if task.is_asked_for || task.looks > 0 {
            Self::Seen
        } else if task.misses == 0 {
            Self::Unasked
        } else {
            Self::Missed
        }
    }

    /// Whether its tasks are asked about alone.
    pub(super) fn is_alone(self) -> bool {
        match self {
            Self::Together => false,
            Self::Seen | Self::Unasked | Self::Missed => true,
        }
    }
}

/// For how many of a provider's tasks there is room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Open {
    /// Asked about together.
    pub(super) together: usize,
    /// Asked about alone.
    pub(super) alone: usize,
}

/// A task under lease, and until when.
#[derive(Clone, Debug)]
pub(super) struct HeldTask {
    /// The task as it was claimed.
    pub(super) task: Arc<ClaimedTask>,
    /// The line in which it waits.
    pub(super) line: Line,
    /// When it was last seen unfinished, by looks that were not written too.
    pub(super) last_unfinished_at: Option<Timestamp>,
    /// Until when the claim surely holds, by a clock that nobody sets.
    pub(super) until: Instant,
    /// When the manifest last said that it does.
    pub(super) confirmed_at: Instant,
    /// What it takes, about.
    bytes: usize,
}

impl HeldTask {
    /// A task that was claimed at `claimed_at`, until `until`.
    pub(super) fn new(task: ClaimedTask, claimed_at: Instant, until: Instant) -> Self {
        Self {
            last_unfinished_at: task.last_unfinished_at,
            until,
            confirmed_at: claimed_at,
            bytes: bytes(&task),
            line: Line::Together,
            task: Arc::new(task),
        }
    }
}

/// The held tasks of one stage.
#[derive(Debug)]
pub(super) struct Held {
    /// A look that is due at a task, and the write after it, must end before the claim does: its time is a lease earlier.
    lease: Span,
    bytes_max: usize,
    shelf: Mutex<Shelf>,
}

/// When a task is looked at next, and its row.
type Place = (Instant, i64);

/// The held tasks of one provider, each line by itself.
type Lines = BTreeMap<Line, BTreeMap<Place, HeldTask>>;

#[derive(Debug, Default)]
struct Shelf {
    /// Those of each provider by themselves: none is looked through for the sake of another.
    tasks: BTreeMap<ProviderName, Lines>,
    /// The line and place of each of them, by row.
    places: HashMap<i64, (Line, Place)>,
    bytes: usize,
    is_closed: bool,
}

/// What is due of the held tasks.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// To be looked at.
    pub(super) looks: Vec<HeldTask>,
    /// To be let go, since their claim ends soon or has ended.
    pub(super) overdue: Vec<HeldTask>,
}

impl Held {
    /// Holds nothing yet; claims are for leases of this length, or for many of them.
    pub(super) fn new(lease: Span) -> Self {
        Self {
            lease,
            bytes_max: HELD_BYTES_MAX.as_usize(),
            shelf: Mutex::default(),
        }
    }

    /// Whether more may be held.
    pub(super) fn has_room(&self) -> bool {
        let shelf = self.shelf();
        !shelf.is_closed && shelf.bytes < self.bytes_max
    }

    /// Keeps a task until `look_at`. Not where the claim would end too soon after that, or there is no room.
    pub(super) fn keep(&self, task: HeldTask, look_at: Instant) -> bool {
        let is_held_then = look_at
            .checked_add(self.lease.as_duration())
            .is_some_and(|end| end <= task.until);
        let mut shelf = self.shelf();
        let has_room = !shelf.is_closed && shelf.bytes < self.bytes_max;
        if is_held_then && has_room {
            shelf.put(task, look_at);
        }
        is_held_then && has_room
    }

    /// Puts back what was taken and not looked at.
    pub(super) fn put_back(&self, tasks: impl IntoIterator<Item = HeldTask>, look_at: Instant) {
        let mut shelf = self.shelf();
        for task in tasks {
            shelf.put(task, look_at);
        }
    }

    /// Keeps a task that is asked about alone until its line has come to it, as [`Held::keep`] does.
    pub(super) fn keep_alone(&self, task: &HeldTask, now: Instant) -> bool {
        let mut task = task.clone();
        task.line = Line::alone(&task.task);
        self.keep(task, now)
    }

    /// Takes of each provider's tasks that are due at most as many as `room` has for them, of each line those first that wait
    /// for longest, and a bounded number whose claim ends.
    pub(super) fn take_due(&self, now: Instant, room: impl Fn(&ProviderName) -> Open) -> Due {
        let mut due = Due::default();
        let ends = now + self.lease.as_duration() / 2;
        let mut shelf = self.shelf();
        let names: Vec<ProviderName> = shelf.tasks.keys().cloned().collect();
        for name in names {
            let Open { together, alone } = room(&name);
            for (is_alone, mut free) in [(false, together), (true, alone)] {
                while due.overdue.len() < OVERDUE_AT_ONCE
                    && let Some((line, place, task)) = shelf.first_due(&name, is_alone, now)
                {
                    let is_overdue = task.until < ends;
                    if !is_overdue && free == 0 {
                        break;
                    }
                    let task = shelf.take(&name, line, place);
                    if is_overdue {
                        due.overdue.extend(task);
                    } else {
                        free -= 1;
                        due.looks.extend(task);
                    }
                }
            }
        }
        due
    }

    /// Takes those who are due to be asked about alone, as many more as there is `room` for beside `taken`, up to the first
    /// that is not to be taken.
    pub(super) fn take_alone(
        &self,
        taken: &[HeldTask],
        now: Instant,
        room: impl Fn(&ProviderName) -> Open,
        may: impl Fn(&HeldTask) -> bool,
    ) -> Vec<HeldTask> {
        let mut shelf = self.shelf();
        let mut more = Vec::new();
        let names: Vec<ProviderName> = shelf.tasks.keys().cloned().collect();
        for name in names {
            let is_its = |held: &&HeldTask| held.line.is_alone() && held.task.key.provider == name;
            let free = room(&name).alone;
            for _ in taken.iter().filter(is_its).count()..free {
                let first = shelf.first_due(&name, true, now);
                let Some((line, place, _)) = first.filter(|(_, _, task)| may(task)) else {
                    break;
                };
                more.extend(shelf.take(&name, line, place));
            }
        }
        more
    }

    /// Takes those of the leases that are held here.
    pub(super) fn take(&self, leases: &[Lease]) -> Vec<HeldTask> {
        let mut shelf = self.shelf();
        let take = |lease: &Lease| {
            let (line, place) = *shelf.places.get(&lease.row)?;
            let is_it = |(name, lines): (&ProviderName, &Lines)| {
                let token = lines.get(&line)?.get(&place)?.task.lease.token;
                (token == lease.token).then(|| name.clone())
            };
            let name = shelf.tasks.iter().find_map(is_it)?;
            shelf.take(&name, line, place)
        };
        leases.iter().filter_map(take).collect()
    }

    /// Whether the manifest is to be asked before a look at `task`.
    pub(super) fn is_doubted(&self, task: &HeldTask, now: Instant) -> bool {
        let believed = self.lease.times(f64::from(BELIEVED_LEASES));
        now.saturating_duration_since(task.confirmed_at) >= believed.as_duration()
    }

    /// Whether nothing is held.
    pub(super) fn is_empty(&self) -> bool {
        self.shelf().places.is_empty()
    }

    /// When the next look is due at a task that there is `room` for.
    pub(super) fn next_look(&self, room: impl Fn(&ProviderName) -> Open) -> Option<Instant> {
        let shelf = self.shelf();
        let firsts = shelf.tasks.iter().flat_map(|(name, lines)| {
            let Open { together, alone } = room(name);
            let has_room = move |line: Line| (if line.is_alone() { alone } else { together }) > 0;
            let open = lines.iter().filter(move |(line, _)| has_room(**line));
            open.filter_map(|(_, tasks)| Some(tasks.first_key_value()?.0.0))
        });
        firsts.min()
    }

    /// Whether one of a provider's tasks is due to be asked about alone.
    pub(super) fn has_alone(&self, name: &ProviderName, now: Instant) -> bool {
        self.shelf().first_due(name, true, now).is_some()
    }

    /// Takes everything, each with the time of its next look; nothing is kept from now on.
    pub(super) fn close(&self) -> Vec<(HeldTask, Instant)> {
        let mut shelf = self.shelf();
        shelf.is_closed = true;
        shelf.places = HashMap::new();
        shelf.bytes = 0;
        let all = std::mem::take(&mut shelf.tasks).into_values();
        let all = all.flat_map(|lines| lines.into_values().flatten());
        all.map(|((at, _), task)| (task, at)).collect()
    }

    /// Holds no more than this.
    #[cfg(test)]
    pub(super) fn hold_at_most(&mut self, bytes: usize) {
        self.bytes_max = bytes;
    }

    /// How many are held.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.shelf().places.len()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// One that is held already was lost, or is about to be: the later claim counts.
    fn put(&mut self, task: HeldTask, look_at: Instant) {
        let (name, lease) = (&task.task.key.provider, task.task.lease);
        if let Some((line, place)) = self.places.get(&lease.row).copied() {
            let held = self.take(name, line, place);
            if let Some(held) = held.filter(|held| held.task.lease.token > lease.token) {
                return self.insert(held, place.0);
            }
        }
        self.insert(task, look_at);
    }

    fn insert(&mut self, task: HeldTask, look_at: Instant) {
        let (line, place) = (task.line, (look_at, task.task.lease.row));
        self.places.insert(place.1, (line, place));
        self.bytes += task.bytes;
        let lines = self.tasks.entry(task.task.key.provider.clone());
        lines
            .or_default()
            .entry(line)
            .or_default()
            .insert(place, task);
    }

    fn take(&mut self, name: &ProviderName, line: Line, place: Place) -> Option<HeldTask> {
        let tasks = self.tasks.get_mut(name)?.get_mut(&line)?;
        let task = tasks.remove(&place)?;
        self.places.remove(&place.1);
        self.bytes -= task.bytes;
        Some(task)
    }

    /// The task of a provider that is looked at first of those that are due, alone or not: who waits longest in the first
    /// line that has any.
    fn first_due(
        &self,
        name: &ProviderName,
        is_alone: bool,
        now: Instant,
    ) -> Option<(Line, Place, &HeldTask)> {
        let lines = self.tasks.get(name)?.iter();
        lines
            .filter(|(line, _)| line.is_alone() == is_alone)
            .filter_map(|(line, tasks)| {
                let (place, task) = tasks.first_key_value()?;
                Some((*line, *place, task))
            })
            .find(|(_, place, _)| place.0 <= now)
    }
}

fn bytes(task: &ClaimedTask) -> usize {
    let text = |text: &str| TEXT_BYTES + text.len();
    let tags = task.tags.iter().map(|(name, tag)| text(name) + text(tag));
    let words = [&task.model, &task.kind, &task.status];
    let words = words.into_iter().flatten().map(|word| text(word));
    let names = text(task.key.provider.as_str()) + text(task.key.id.as_str());
    HELD_BYTES + names + words.sum::<usize>() + tags.sum::<usize>()
}
