//! The boxes inside boxes that a walk is in: what each is and where it ends, outermost first.

use crate::origin::inspect::kept::Kept;

/// What a box or element is, as it stands in the file.
pub(super) type Kind = [u8; 4];

/// No file is walked into deeper: `moov trak mdia minf stbl stsd avc1` is the deepest.
const DEPTH_MAX: usize = 8;

/// The way from the outermost box down to where the walk is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Levels(Vec<Level>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Level {
    pub(super) kind: Kind,
    /// The byte after its last.
    pub(super) end: u64,
}

impl Levels {
    /// The innermost box.
    pub(super) fn inner(&self) -> Option<Level> {
        self.0.last().copied()
    }

    /// Goes into a box. Says no where that is too deep.
    pub(super) fn enter(&mut self, kind: Kind, end: u64) -> bool {
        let fits = self.0.len() < DEPTH_MAX;
        if fits {
            self.0.push(Level { kind, end });
        }
        fits
    }

    /// Leaves the innermost box if nothing more can stand in it from `at` on, for want of `room`.
    pub(super) fn leave(&mut self, at: u64, room: u64) -> Option<Level> {
        self.0
            .pop_if(|level| level.end < at.saturating_add(room.max(1)))
    }

    pub(super) fn save(&self, state: &mut Vec<u8>) {
        state.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        for level in &self.0 {
            state.extend(level.kind);
            state.extend(level.end.to_le_bytes());
        }
    }

    pub(super) fn load(kept: &mut Kept<'_>) -> Option<Self> {
        let depth = usize::from(kept.byte()?);
        let mut level = || {
            Some(Level {
                kind: kept.array()?,
                end: kept.long()?,
            })
        };
        let levels = (0..depth.min(DEPTH_MAX)).map(|_| level());
        let levels = levels.collect::<Option<_>>().map(Self);
        levels.filter(|_| depth <= DEPTH_MAX)
    }
}
