//! What is known of a body after reading it from the start to some byte: its SHA-256, its structure and what that tells.
//!
//! Saved with every part, so that after a restart the digests go on from the part before the first missing one and
//! no stored byte is fetched again just to be hashed.

use crate::model::asset::MediaDetails;
use crate::model::digest::Sha256Digest;
use crate::model::digest::Sha256Digester;
use crate::origin::inspect::walk::Broken;
use crate::origin::inspect::walk::Walk;

/// The layout of a saved state; another first byte is not taken up.
const LAYOUT: u8 = 2;

/// The state of everything that must see the body in order.
#[derive(Clone, Debug)]
pub struct Progress {
    sha256: Option<Sha256Digester>,
    walk: Walk,
}

impl Progress {
    /// Nothing read yet. Without `has_sha256` that digest is left out, since it costs more than all the rest.
    pub fn new(has_sha256: bool) -> Self {
        Self {
            sha256: has_sha256.then(Sha256Digester::new),
            walk: Walk::new(),
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        self.walk.update(bytes);
    }

    /// The digest of all bytes so far.
    pub fn sha256(&self) -> Option<Sha256Digest> {
        self.sha256.as_ref().map(Sha256Digester::value)
    }

    /// Judges the whole body: `Ok(true)` when its structure proves that it is whole.
    pub fn finish(&self) -> Result<bool, Broken> {
        self.walk.finish()
    }

    /// What a player would show of the body, as far as it told so far.
    pub fn details(&self) -> MediaDetails {
        self.walk.details()
    }

    /// The state, to be kept beside a part.
    pub fn save(&self) -> Vec<u8> {
        let sha256 = self
            .sha256
            .as_ref()
            .map(Sha256Digester::save)
            .unwrap_or_default();
        let length =
            u8::try_from(sha256.len()).expect("the state of a SHA-256 is about a hundred bytes");
        [vec![LAYOUT, length], sha256, self.walk.save()].concat()
    }

    /// Takes up where [`Progress::save`] left off. `None` when `state` is not such a state.
    pub fn load(state: &[u8]) -> Option<Self> {
        let [LAYOUT, length, rest @ ..] = state else {
            return None;
        };
        let (sha256, walk) = rest.split_at_checked(usize::from(*length))?;
        let sha256 = match sha256 {
            [] => None,
            state => Some(Sha256Digester::load(state)?),
        };
        Some(Self {
            sha256,
            walk: Walk::load(walk)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_from_any_saved_state() {
        let body: Vec<u8> = (0..1000_u32).flat_map(u32::to_le_bytes).collect();
        for has_sha256 in [true, false] {
            let mut whole = Progress::new(has_sha256);
            whole.update(&body);
            for cut in [0, 1, 64, 1000, 4000] {
                let mut first = Progress::new(has_sha256);
                first.update(&body[..cut]);
                let mut second = Progress::load(&first.save()).unwrap();
                second.update(&body[cut..]);
                assert_eq!(second.sha256(), whole.sha256());
                assert_eq!(second.save(), whole.save());
            }
        }
        for bad in [&[][..], &[1, 0], &[2, 200, 1], &[2, 0]] {
            assert!(Progress::load(bad).is_none());
        }
    }
}
