//! This daemon as one of a fleet: its name, its heartbeat, and its share of what providers allow.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::manifest;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::elsewhere::Elsewhere;
use crate::manifest::machines::BEAT_EVERY;
use crate::manifest::row::Claimable;
use crate::manifest::row::machine::Arrival;
use crate::manifest::row::machine::Arrived;
use crate::provider::Provider;
use crate::units::Span;
use crate::work::refrain::Refrain;

/// How often it is found out what this machine lacks, and whether its clock is right.
const COMPARE_EVERY: Duration = Duration::from_mins(1);

/// Nothing else waits longer: pauses after refusals, and between tries of what is past its deadline, take minutes.
const WAIT_MAX: Span = Span::from_secs(3600);

/// Messages to endpoints, and lists that a provider does not have, wait up to a day.
const LONG_WAIT_MAX: Span = Span::from_secs(25 * 3600);

/// How long a server that took us in, but does not take the announcement, is waited for: longer than the locks of a frozen
/// machine last, of which the server sees to that they go.
const ARRIVE_WITHIN: Duration = Duration::from_secs(45);

/// The wait between two tries to announce ourselves.
const ARRIVE_AGAIN: Duration = Duration::from_secs(1);

/// In what this machine differs from others, as far as it was told already.
#[derive(Debug)]
pub(super) struct Differences {
    clock: Clock,
    /// The longest wait between two looks at a task, but for its spread.
    between_looks: Span,
    elsewhere: Elsewhere,
    is_skewed: bool,
}

impl Differences {
    /// None are told yet.
    pub(super) fn new(clock: Clock, between_looks: Span) -> Self {
        Self {
            clock,
            between_looks,
            elsewhere: Elsewhere::default(),
            is_skewed: false,
        }
    }

    /// Finds out again and again what is different, and has looked at what waits too long.
    async fn compare(&mut self, manifest: &Manifest) {
        loop {
            self.tell(manifest).await;
            self.pull_in(manifest).await;
            tokio::time::sleep(COMPARE_EVERY).await;
        }
    }

    /// Finds out what is different, and logs what is new of it.
    pub(super) async fn tell(&mut self, manifest: &Manifest) {
        match manifest.look_elsewhere().await {
            Ok(found) => self.tell_elsewhere(found),
            Err(error) => tracing::warn!(%error, "it cannot be told what waits for other machines"),
        }
        match manifest.skew(&self.clock).await {
            Ok(Some(skew)) if !self.is_skewed => {
                self.is_skewed = true;
                tracing::warn!("{skew}: tasks are looked at too late or too early by as much");
            }
            Ok(skew) => self.is_skewed = skew.is_some(),
            // Whoever works with the manifest says so too.
            Err(error) => tracing::debug!(%error, "no clock to compare with"),
        }
    }

    /// Has looked at now what waits longer than anything should: whoever wrote that had a clock that was ahead, and it would
    /// wait until the right time is as late.
    pub(super) async fn pull_in(&self, manifest: &Manifest) {
        let mut rows = 0;
        for table in Claimable::ALL {
            let longest = match table {
                // Twice, for the spread.
                Claimable::Tasks => self.between_looks.times(2.0).max(WAIT_MAX),
                Claimable::Assets | Claimable::Orphans => WAIT_MAX,
                Claimable::Deliveries | Claimable::Discoveries => LONG_WAIT_MAX,
            };
            match manifest.pull_in(table, longest).await {
                Ok(pulled) => rows += pulled,
                // The stages say so too.
                Err(error) => tracing::debug!(%error, "it cannot be seen what waits too long"),
            }
        }
        if rows > 0 {
            tracing::warn!(
                rows,
                "the clock was ahead and was put right: what was due too far ahead is due now"
            );
        }
    }

    fn tell_elsewhere(&mut self, found: Elsewhere) {
        for (name, waiting) in &found.providers {
            if !self.elsewhere.providers.contains_key(name) {
                tracing::warn!(provider.name = %name, waiting, "provider {name} is not configured here: its tasks wait for a machine that has it");
            }
        }
        for (name, waiting) in &found.destinations {
            if !self.elsewhere.destinations.contains_key(name) {
                tracing::warn!(destination.name = %name, waiting, "destination {name} is not configured here: its objects wait for a machine that has it");
            }
        }
        self.elsewhere = found;
    }
}

/// A daemon that has announced itself.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    manifest: Manifest,
    arrival: Arrival,
    lost: CancellationToken,
}

impl Fleet {
    /// Announces this daemon. A name that another daemon lives under is refused; one that a dead daemon left behind, of
    /// which nothing is heard any more, is taken over as soon as that is sure.
    pub(super) async fn arrive(
        manifest: &Manifest,
        config: &manifest::Config,
        dice: &Dice,
    ) -> anyhow::Result<Self> {
        let arrival = Arrival {
            name: config.machine_name(),
            run: format!("{:016x}", dice.number()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut heard = None;
        loop {
            match (announce(manifest, &arrival).await?, heard) {
                (Arrived::Yes, _) => break,
                (Arrived::Taken(beat), Some(before)) if beat != before => {
                    let name = arrival.name;
                    return Err(ManifestError::NameTaken { name }.into());
                }
                (Arrived::Taken(beat), before) => {
                    if before.is_none() {
                        tracing::info!(
                            machine.name = arrival.name,
                            "a daemon of this name was here just now: waiting whether it is heard of again"
                        );
                    }
                    heard = Some(beat);
                    tokio::time::sleep(BEAT_EVERY.as_duration()).await;
                }
            }
        }
        Ok(Self {
            manifest: manifest.clone(),
            arrival,
            lost: CancellationToken::new(),
        })
    }

    /// Says again and again that this daemon is there, gives it its share of each provider's pace, and sees to what
    /// machines left that are gone. Now and then it finds out in what this machine differs from others.
    pub(super) async fn keep_up(
        self,
        providers: Vec<Provider>,
        mut differences: Differences,
        stop: CancellationToken,
    ) {
        let (heard, mut silent) = watch::channel(Vec::new());
        // Nothing else is waited for by a beat: who is not heard of for some seconds counts as gone.
        let all = async {
            tokio::join!(
                self.beats(&heard),
                self.sees_to(&mut silent, &providers),
                differences.compare(&self.manifest),
            )
        };
        // Both arms are cancel-safe: verbs are carried out whole or not at all.
        tokio::select! {
            () = stop.cancelled() => {}
            _ = all => {}
        }
    }

    /// Beats, and passes on which machines fell silent.
    async fn beats(&self, heard: &watch::Sender<Vec<String>>) {
        let mut unheard = Refrain::default();
        loop {
            if self.manifest.check_in_place().is_err() {
                self.lost.cancel();
            }
            match self.manifest.beat(&self.arrival).await {
                Ok(Some(silent)) => {
                    unheard.is_over();
                    heard.send_replace(silent);
                }
                Ok(None) => self.lost.cancel(),
                // The stages say so too, and what they were given stays theirs.
                Err(error) if unheard.is_to_be_said(&error) => {
                    tracing::warn!(%error, "the fleet does not hear of this machine");
                }
                Err(_) => {}
            }
            tokio::time::sleep(BEAT_EVERY.as_duration()).await;
        }
    }

    /// After each beat that was heard: divides what providers allow among those that live, and frees what others held.
    async fn sees_to(&self, silent: &mut watch::Receiver<Vec<String>>, providers: &[Provider]) {
        let mut failed = Refrain::default();
        while silent.changed().await.is_ok() {
            let gone = silent.borrow_and_update().clone();
            match self.see_to(&gone, providers).await {
                Ok(()) => {
                    failed.is_over();
                }
                Err(error) if failed.is_to_be_said(&error) => {
                    tracing::warn!(%error, "it is not seen to what other machines left");
                }
                Err(_) => {}
            }
        }
    }

    async fn see_to(&self, gone: &[String], providers: &[Provider]) -> Result<(), ManifestError> {
        let machines = self.manifest.machines().await?;
        // This one included, whatever the server has heard.
        let living = machines.iter().filter(|machine| machine.is_living).count();
        let living = u32::try_from(living.max(1)).unwrap_or(u32::MAX);
        for provider in providers {
            provider.share_among(living);
        }
        self.manifest.free_held(gone).await
    }

    /// Ends when another daemon has this one's name: this one was out of touch for too long. Or when the manifest's file is
    /// another one: what this daemon does is written nowhere.
    pub(super) async fn lost(&self) -> anyhow::Error {
        self.lost.cancelled().await;
        if let Err(replaced) = self.manifest.check_in_place() {
            return replaced.into();
        }
        let name = self.arrival.name.clone();
        ManifestError::NameTaken { name }.into()
    }

    /// Says that this daemon goes, so that its name and its share are free at once.
    pub(super) async fn leave(&self) {
        if let Err(error) = self.manifest.leave(&self.arrival).await {
            tracing::warn!(%error, "the fleet was not told that this machine goes");
        }
    }
}

/// Announces this daemon to a server that may be busy, or away for a moment. One that somebody has to mend is not waited
/// for: whoever started us sees us end, and starts us anew.
async fn announce(manifest: &Manifest, arrival: &Arrival) -> Result<Arrived, ManifestError> {
    let until = Instant::now() + ARRIVE_WITHIN;
    loop {
        match manifest.arrive(arrival).await {
            Err(error @ (ManifestError::Away { .. } | ManifestError::Engine { .. }))
                if Instant::now() < until =>
            {
                tracing::warn!(%error, "the fleet does not hear of this machine yet");
                tokio::time::sleep(ARRIVE_AGAIN).await;
            }
            arrived => return arrived,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::manifest::Access;
    use crate::manifest::elsewhere::Known;
    use crate::manifest::server::Server;

    #[tokio::test]
    async fn beats_wait_for_no_other_verb() {
        let server = Server::shared();
        let database = server.database();
        let config = manifest::Config {
            url: database.url.clone(),
            ..manifest::Config::of_tests()
        };
        let clock = Clock::system();
        let manifest = Manifest::open(&config, clock.clone(), Access::Daemon).await;
        let manifest = manifest.unwrap();
        manifest.knows(Known::default());
        let fleet = Fleet::arrive(&manifest, &config, &Dice::seeded(1)).await;
        let fleet = fleet.unwrap();
        let beat_at = async || manifest.machines().await.unwrap()[0].beat_at;
        let arrived_at = beat_at().await;

        // Whoever asks what others lack waits for this.
        let mut running = JoinSet::new();
        let (locker, name) = (Server::shared(), database.name.clone());
        let lock = "BEGIN; LOCK TABLE orphans; SELECT pg_sleep(8)";
        running.spawn_blocking(move || drop(locker.sql(&name, lock)));
        let is_locked =
            "SELECT COUNT(*) FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
            AND relation = 'orphans'::regclass";
        while server.sql(&database.name, is_locked).trim() != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        let stop = CancellationToken::new();
        let differences = Differences::new(clock, Span::from_secs(60));
        running.spawn(fleet.keep_up(Vec::new(), differences, stop.clone()));
        let begun = Instant::now();
        while beat_at().await == arrived_at {
            assert!(begun.elapsed() < Duration::from_secs(4), "no beat");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.cancel();
        running.join_all().await;
    }
}
