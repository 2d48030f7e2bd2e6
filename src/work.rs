//! The loop that every stage runs in: claim, step, settle.
//!
//! A stage is a [`driver::Stage`]: it claims rows that are due, takes one step with each under its lease, and settles
//! what did not get done. First try, retry, restart after a crash and a second machine are this one code path.

pub mod budget;
pub mod driver;
pub mod refrain;
pub(crate) mod rounds;
pub mod settle;
pub mod wake;
