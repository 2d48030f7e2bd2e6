//! How a body is cut into parts: pure arithmetic from its length, the configuration and the store's limits.

use crate::model::object::PartNumber;
use crate::units::ByteSize;

/// The number of parts that a plan aims at most for: below S3's 10,000, so that a length told a little wrong still fits.
const PARTS_PLANNED_MAX: u64 = 9_000;

/// Part sizes are rounded up to this, which keeps them equal and easy to read.
const PART_SIZE_STEP: u64 = 1 << 20;

/// S3's limit on one part.
const PART_SIZE_MAX: u64 = 5 << 30;

/// A body that cannot be cut within the store's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} does not fit into 10,000 parts of at most 5 GiB")]
pub struct TooLong(ByteSize);

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In one request.
    Single,
    /// In parts of this many bytes, the last one maybe shorter.
    Parts {
        /// The length of every part but the last.
        part_size: u64,
    },
}

/// One part of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub number: PartNumber,
    /// Where it begins in the body.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl Slot {
    /// The byte after its last.
    pub fn end(self) -> u64 {
        self.offset + self.length
    }
}

/// What the store and the configuration say about parts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The configured length of a part.
    pub part_size: u64,
    /// The store's lower limit for all parts but the last.
    pub part_size_min: u64,
    /// The longest body that is written in one request; `None` where the store takes none so.
    pub single_max: Option<u64>,
}

/// How a body of `length` bytes, or of unknown length, is written. A length of zero is planned like one byte.
pub fn shape(length: Option<u64>, limits: &Limits) -> Result<Shape, TooLong> {
    let smallest = limits.part_size.max(limits.part_size_min);
    let Some(length) = length else {
        return Ok(Shape::Parts {
            part_size: smallest,
        });
    };
    if limits.single_max.is_some_and(|max| length <= max) {
        return Ok(Shape::Single);
    }
    let spread = length.div_ceil(PARTS_PLANNED_MAX);
    let part_size = if spread <= smallest {
        smallest
    } else {
        spread
            .div_ceil(PART_SIZE_STEP)
            .saturating_mul(PART_SIZE_STEP)
    };
    if part_size > PART_SIZE_MAX {
        return Err(TooLong(ByteSize::bytes(length)));
    }
    Ok(Shape::Parts { part_size })
}

/// The part of a body with `length` bytes that begins at `offset`, a multiple of `part_size`; `None` at the end.
pub fn slot_at(offset: u64, length: u64, part_size: u64) -> Option<Slot> {
    if offset >= length {
        return None;
    }
    Some(Slot {
        number: number_at(offset, part_size)?,
        offset,
        length: part_size.min(length - offset),
    })
}

/// The number of the part that begins at `offset`; `None` past S3's limit.
pub fn number_at(offset: u64, part_size: u64) -> Option<PartNumber> {
    let number = u32::try_from(offset / part_size.max(1) + 1).ok()?;
    Some(PartNumber(number)).filter(|number| *number <= PartNumber::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All parts of a body, in order.
    fn slots(length: u64, part_size: u64) -> impl Iterator<Item = Slot> {
        let first = slot_at(0, length, part_size);
        std::iter::successors(first, move |slot| {
            slot_at(slot.offset + slot.length, length, part_size)
        })
    }

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits {
        part_size: 16 * MIB,
        part_size_min: 5 * MIB,
        single_max: Some(16 * MIB),
    };

    #[track_caller]
    fn check(length: Option<u64>, expected: Shape) {
        assert_eq!(shape(length, &LIMITS), Ok(expected), "{length:?}");
    }

    #[test]
    fn shapes() {
        check(Some(1), Shape::Single);
        check(Some(16 * MIB), Shape::Single);
        check(
            Some(16 * MIB + 1),
            Shape::Parts {
                part_size: 16 * MIB,
            },
        );
        check(
            None,
            Shape::Parts {
                part_size: 16 * MIB,
            },
        );
        check(
            Some(9_000 * 16 * MIB),
            Shape::Parts {
                part_size: 16 * MIB,
            },
        );
        check(
            Some(9_000 * 16 * MIB + 1),
            Shape::Parts {
                part_size: 17 * MIB,
            },
        );
        let folder = Limits {
            single_max: None,
            ..LIMITS
        };
        assert_eq!(
            shape(Some(1), &folder),
            Ok(Shape::Parts {
                part_size: 16 * MIB
            })
        );
        let tiny = Limits {
            part_size: 1,
            single_max: Some(1),
            ..LIMITS
        };
        assert_eq!(
            shape(Some(20 * MIB), &tiny),
            Ok(Shape::Parts { part_size: 5 * MIB })
        );
        assert!(shape(Some(u64::MAX), &LIMITS).is_err());
    }

    #[test]
    fn slots_cover_the_body_once() {
        for (length, part_size) in [(1, 5), (5, 5), (6, 5), (10, 5), (11, 5), (9_999, 1)] {
            let mut next = 0;
            for slot in slots(length, part_size) {
                assert_eq!(slot.offset, next);
                assert!(slot.length == part_size || slot.offset + slot.length == length);
                next += slot.length;
            }
            assert_eq!(next, length);
        }
        assert_eq!(slots(0, 5).count(), 0);
        assert_eq!(slots(20_000, 1).count(), 10_000);
    }
}
