//! What the log is spared: a manifest that is away fails every turn of every loop in the same way.

use std::mem::Discriminant;
use std::mem::discriminant;
use std::time::Duration;

use tokio::time::Instant;

use crate::manifest::ManifestError;

/// An error that stays the same is said again after this time: whoever looks into the log sees that it lasts.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// The failures of one kind of work, one after the other.
#[derive(Debug, Default)]
pub struct Refrain {
    said: Option<(Discriminant<ManifestError>, Instant)>,
}

impl Refrain {
    /// Whether a failure is to be said: the first, one for another reason, and then one now and then.
    pub fn is_to_be_said(&mut self, error: &ManifestError) -> bool {
        let (cause, now) = (discriminant(error), Instant::now());
        let is_old = |(said, at): &(_, Instant)| *said == cause && now < *at + SAY_AGAIN;
        if self.said.as_ref().is_some_and(is_old) {
            return false;
        }
        self.said = Some((cause, now));
        true
    }

    /// Takes note that it works. Whether it failed before, which is to be said too.
    pub fn is_over(&mut self) -> bool {
        self.said.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_same_again_is_said_now_and_then_and_what_is_new_at_once() {
        let away = |what: &str| ManifestError::Away {
            verb: "claim",
            server: "postgres://db/x".to_owned(),
            what: what.to_owned(),
        };
        let mut refrain = Refrain::default();
        assert!(!refrain.is_over());
        assert!(refrain.is_to_be_said(&away("refused")));
        let mut said = 0;
        for _ in 0..600 {
            tokio::time::advance(Duration::from_millis(100)).await;
            said += u32::from(refrain.is_to_be_said(&away("no answer")));
        }
        assert_eq!(said, 6);
        assert!(refrain.is_to_be_said(&ManifestError::Closed));
        assert!(refrain.is_to_be_said(&away("refused")));
        assert!(refrain.is_over() && !refrain.is_over());
        assert!(refrain.is_to_be_said(&away("refused")));
    }
}
