//! The tend stage: what nobody else comes back for.
