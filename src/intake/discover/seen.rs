//! What was read of a list already, so that one that repeats itself is read no further.

use std::collections::BTreeSet;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;

use crate::clock::Timestamp;
use crate::manifest::row::discovery::Pass;
use crate::provider::Page;

/// A round ends after so many pages in a row on which all was read before. One alone may come of as many new tasks as
/// a page has rows, which push what was read onto the next.
const REPEATED_PAGES: u32 = 3;

/// So many tasks of a round are remembered, in a few MiB. A list that goes round after more of them ends at
/// `PAGES_MAX`.
const SEEN_MAX: usize = 200_000;

/// What of a round this process has read. It goes with the process, which costs a list that repeats itself some more
/// pages.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// How far it goes: a page that was read and not written down is read again, and repeats nothing.
    until: Option<(Timestamp, u32, u32)>,
    /// The tasks, each by its hash.
    tasks: BTreeSet<u64>,
    repeated_pages: u32,
    /// Whether it was said of this list that it repeats itself.
    is_told: bool,
}

impl Seen {
    /// Forgets what was read.
    pub(super) fn forget(&mut self) {
        self.tasks.clear();
        self.repeated_pages = 0;
    }

    /// Forgets what is of another round, or of pages that were not written down.
    pub(super) fn begin(&mut self, pass: &Pass) {
        if self.until != Some(pass.read_so_far()) {
            self.forget();
        }
    }

    /// Takes a page into account, with which `pass` has come to where it is; whether the list repeats itself.
    pub(super) fn take(&mut self, page: &Page, pass: &Pass) -> bool {
        self.until = Some(pass.read_so_far());
        // Rows that name no task say nothing of what was read.
        if page.tasks.is_empty() {
            return false;
        }
        if self.tasks.len() >= SEEN_MAX {
            self.tasks.clear();
        }
        let mut is_new = false;
        for (id, _) in &page.tasks {
            let mut hasher = DefaultHasher::new();
            id.hash(&mut hasher);
            is_new |= self.tasks.insert(hasher.finish());
        }
        self.repeated_pages = if is_new { 0 } else { self.repeated_pages + 1 };
        self.repeated_pages >= REPEATED_PAGES
    }

    /// Says once of a list that it repeats itself.
    pub(super) fn tell(&mut self, pages: u32) {
        if !std::mem::replace(&mut self.is_told, true) {
            tracing::warn!(
                pages,
                "the list of tasks repeats itself: it is read no further"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(pages: u32) -> Pass {
        Pass {
            began_at: Timestamp::EPOCH,
            round: 1,
            place: None,
            pages,
            learned: 0,
        }
    }

    /// A page of so many tasks, that are on no page with another name.
    fn page(name: &str, tasks: usize) -> Page {
        let task = |number| (format!("{name}-{number}").parse().unwrap(), None);
        Page {
            tasks: (0..tasks).map(task).collect(),
            unread: 0,
            next: None,
        }
    }

    #[test]
    fn a_page_that_is_read_again_repeats_nothing() {
        let mut seen = Seen::default();
        let page = page("a", 1);
        for _ in 0..10 {
            // It was never written down that the first page was read.
            seen.begin(&pass(0));
            assert!(!seen.take(&page, &pass(1)));
        }
        for pages in 2..4 {
            seen.begin(&pass(pages - 1));
            assert!(!seen.take(&page, &pass(pages)));
        }
        assert!(seen.take(&page, &pass(4)));
    }

    #[test]
    fn what_was_read_is_remembered_within_a_bound() {
        let mut seen = Seen::default();
        for name in 0..20_000 {
            assert!(!seen.take(&page(&name.to_string(), 11), &pass(name)));
            assert!(seen.tasks.len() < SEEN_MAX + 11);
        }
    }
}
