//! The loop that every stage runs in: claim, step, settle.
