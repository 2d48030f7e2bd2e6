//! Wakes: a poke that carries nothing and says only "look at the manifest now".

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// A stage's wake. Pokes while nobody listens are kept as one.
#[derive(Clone, Debug, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    /// A wake that nobody has poked.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the stage look now.
    pub fn poke(&self) {
        self.0.notify_one();
    }

    /// Ends at the next poke, or at once if there was one since the last listening ended.
    pub fn listen(&self) -> OwnedNotified {
        Arc::clone(&self.0).notified_owned()
    }
}
