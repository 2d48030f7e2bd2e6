//! Randomness as an argument: [`Dice`] that whoever starts the daemon throws in, so that a test can seed them.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

/// A shared source of random numbers, for jitter and nonces; not for secrets.
#[derive(Clone, Debug)]
pub struct Dice(Arc<Mutex<fastrand::Rng>>);

impl Dice {
    /// Dice that the machine's entropy has seeded.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// Dice that fall the same way for the same `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// A number from 0 up to but not including 1.
    pub fn fraction(&self) -> f64 {
        self.with(fastrand::Rng::f64)
    }

    /// Any number.
    pub fn number(&self) -> u64 {
        self.with(|rng| rng.u64(..))
    }

    /// 32 hexadecimal digits that no other call gives.
    pub fn nonce(&self) -> String {
        self.with(|rng| format!("{:032x}", rng.u128(..)))
    }

    fn with<T>(&self, throw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        throw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Dice {
    fn default() -> Self {
        Self::new()
    }
}
