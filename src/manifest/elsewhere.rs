//! Work for other machines: what waits for a provider or a destination that this daemon does not have.
//!
//! Claims pass it over. What it is called is looked up now and then and remembered, so that a claim costs nothing where
//! all machines are alike; what is claimed all the same is remembered at once, and given back.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use serde::Serialize;

use super::Manifest;
use super::ManifestError;
use super::engine::look;
use crate::manifest::row::ClaimedTask;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;

/// What a daemon has.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Whose tasks and links it can ask for.
    pub providers: Vec<ProviderName>,
    /// Where it can archive to.
    pub destinations: Vec<DestinationName>,
}

/// What it lacks: how many rows wait for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Elsewhere {
    /// Tasks and assets of these providers.
    pub providers: BTreeMap<ProviderName, u64>,
    /// Objects and uploads at these destinations.
    pub destinations: BTreeMap<DestinationName, u64>,
}

impl Elsewhere {
    /// Whether this daemon has all that is needed.
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty() && self.destinations.is_empty()
    }
}

/// What a daemon has, and what it found out that it lacks.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// `None` for who works on nothing.
    known: Option<Known>,
    /// Everything that was ever found; with 0 of what does not wait now, and may at any moment again.
    elsewhere: Elsewhere,
}

/// What a daemon has, and what is for others.
impl Manifest {
    /// Says what this daemon has. What needs more is left to others as soon as it is found out.
    pub fn knows(&self, known: Known) {
        *self.reach() = Reach {
            known: Some(known),
            elsewhere: Elsewhere::default(),
        };
    }

    /// Finds out what waits for others. Without a word on what this daemon has, nothing does.
    pub async fn look_elsewhere(&self) -> Result<Elsewhere, ManifestError> {
        let Some(known) = self.reach().known.clone() else {
            return Ok(Elsewhere::default());
        };
        let found = look!(self, "look_elsewhere", elsewhere::find(&known))?;
        let Elsewhere {
            providers,
            destinations,
        } = &mut self.reach().elsewhere;
        providers.values_mut().for_each(|count| *count = 0);
        providers.extend(found.providers.clone());
        destinations.values_mut().for_each(|count| *count = 0);
        destinations.extend(found.destinations.clone());
        Ok(found)
    }

    /// What waited for others when it was last found out.
    pub fn elsewhere(&self) -> Elsewhere {
        let mut waiting = self.passed_over();
        waiting.providers.retain(|_, count| *count > 0);
        waiting.destinations.retain(|_, count| *count > 0);
        waiting
    }

    /// What claims pass over.
    pub(super) fn passed_over(&self) -> Elsewhere {
        self.reach().elsewhere.clone()
    }

    /// Remembers providers of claimed tasks that this daemon does not have.
    pub(super) fn remember_unknown(&self, claimed: &[ClaimedTask]) {
        let mut reach = self.reach();
        let Some(known) = &reach.known else { return };
        let is_unknown = |provider: &&ProviderName| !known.providers.contains(provider);
        let providers = claimed.iter().map(|task| &task.key.provider);
        let unknown: Vec<ProviderName> = providers.filter(is_unknown).cloned().collect();
        for provider in unknown {
            *reach.elsewhere.providers.entry(provider).or_default() += 1;
        }
    }

    fn reach(&self) -> std::sync::MutexGuard<'_, Reach> {
        self.reach.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
