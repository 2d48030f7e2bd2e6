//! The one error of a stage: whoever sees the cause says whether to try again, `work::settle` says when.

use std::error::Error;
use std::fmt;

use crate::clock::Timestamp;

/// Whether a step is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after a back-off; counts as an attempt.
    Retry,
    /// The same, but not before this instant, which whoever refused has named.
    RetryAfter(Timestamp),
    /// Try again at this instant; nothing was wrong with the row itself, so no attempt is charged.
    WaitUntil(Timestamp),
    /// The origin says that there is no such file: ask for a fresh link, and believe it only after the deadline.
    Gone,
    /// The origin gives something else than the file, such as a page that wants a login: as with `Gone`, but then the
    /// asset is refused.
    Wrong,
    /// No try will ever succeed.
    Dead,
    /// Stopped because the daemon stops: due again at once, no attempt is charged.
    Drained,
}

/// Why a step did not get done.
#[derive(Debug)]
pub struct Failure {
    verdict: Verdict,
    what: String,
    has_gained: bool,
    has_dead_link: bool,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A cause that may pass.
    pub fn retry(what: impl Into<String>) -> Self {
        Self::new(Verdict::Retry, what)
    }

    /// A cause that may pass, but not before `until`.
    pub fn retry_after(until: Timestamp, what: impl Into<String>) -> Self {
        Self::new(Verdict::RetryAfter(until), what)
    }

    /// A cause outside the row, that will not pass before `until`.
    pub fn wait_until(until: Timestamp, what: impl Into<String>) -> Self {
        Self::new(Verdict::WaitUntil(until), what)
    }

    /// A link that is dead as far as the origin goes.
    pub fn gone(what: impl Into<String>) -> Self {
        Self::new(Verdict::Gone, what)
    }

    /// A link that leads to something else than its file.
    pub fn wrong(what: impl Into<String>) -> Self {
        Self::new(Verdict::Wrong, what)
    }

    /// A cause that will not pass.
    pub fn dead(what: impl Into<String>) -> Self {
        Self::new(Verdict::Dead, what)
    }

    /// The daemon is stopping.
    pub fn drained() -> Self {
        Self::new(Verdict::Drained, "the daemon is stopping")
    }

    /// The same failure with the error that caused it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same failure of a step that brought something which lasts before it failed.
    #[must_use]
    pub fn after_gain(mut self) -> Self {
        self.has_gained = true;
        self
    }

    /// Whether the step brought something that lasts: what failed before it counts no more.
    pub fn has_gained(&self) -> bool {
        self.has_gained
    }

    /// The same failure of a step that also found the link dead.
    #[must_use]
    pub fn with_dead_link(mut self) -> Self {
        self.has_dead_link = true;
        self
    }

    /// Whether the step found the link dead, or leading astray, whatever else decided.
    pub fn has_dead_link(&self) -> bool {
        self.has_dead_link || matches!(self.verdict, Verdict::Gone | Verdict::Wrong)
    }

    /// Whether to try again.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn new(verdict: Verdict, what: impl Into<String>) -> Self {
        Self {
            verdict,
            what: what.into(),
            has_gained: false,
            has_dead_link: false,
            source: None,
        }
    }
}

impl fmt::Display for Failure {
    /// The whole chain on one line, since it ends in a row and a log field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        let mut source = self.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| -> &(dyn Error + 'static) { source })
    }
}
