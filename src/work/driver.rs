//! The driver: claims what is due as far as there is room, steps each claim in a task of its own, keeps the leases
//! alive, and drains when told to stop.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use tokio::task::Id;
use tokio::task::JoinError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::row::Claimable;
use crate::model::failure::Failure;
use crate::model::lease::Lease;
use crate::telemetry::metrics::Metrics;
use crate::units::Span;
use crate::work::refrain::Refrain;
use crate::work::wake::Wake;

/// The longest sleep between two looks at the manifest: what another process learned waits no longer than this.
const TICK: Span = Span::from_secs(1);

/// Claims in a row that may fail before who works until nothing is due gives up.
const CLAIM_TRIES: u32 = 10;

/// Why it is not known that nothing is due any more.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// A step panicked.
    #[error("a stage crashed")]
    Crashed(#[from] JoinError),
    /// The manifest gives no work out.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// One kind of work on claimed rows.
pub trait Stage: Send + Sync + 'static {
    /// What one step works on: one claimed row, or several that are asked about in one call.
    type Work: Send + Sync + 'static;

    /// For logs.
    const NAME: &'static str;

    /// Whose rows it claims.
    const TABLE: Claimable;

    /// The shortest time between two claims, unless there is more than there was room for or somebody pokes.
    const REST: Span = Span::ZERO;

    /// Claims at most `most` pieces of work that are due.
    fn claim(
        &self,
        most: usize,
    ) -> impl Future<Output = Result<Vec<Self::Work>, ManifestError>> + Send;

    /// The leases that a piece of work holds.
    fn leases(work: &Self::Work) -> Vec<Lease>;

    /// Until when they surely hold without being renewed, where that is longer than a lease.
    fn held_until(_work: &Self::Work) -> Option<Instant> {
        None
    }

    /// Whether a stage that rests has more to claim than there was room for, and room for some of it by now.
    fn has_more(&self) -> bool {
        false
    }

    /// When it wants to claim again for the sake of what it has claimed already and keeps.
    fn next_kept(&self) -> Option<Instant> {
        None
    }

    /// Gives back what it keeps between its steps, and keeps nothing from now on.
    fn give_back(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// A span that names the work in every log line of its step.
    fn span(work: &Self::Work) -> tracing::Span;

    /// Takes one step, which ends in a write to the manifest or a failure. `stop` asks it to end soon, with nothing lost.
    fn step(
        &self,
        work: &Self::Work,
        stop: &CancellationToken,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Writes what a failed step means.
    fn settle(&self, work: &Self::Work, failure: Failure) -> impl Future<Output = ()> + Send;
}

/// Counts the turns of a loop, so that a watchdog can tell one that moves from one that hangs.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// How often the loop has turned.
    pub fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one turn.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a driver needs besides its stage.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where the work is claimed.
    pub manifest: Manifest,
    /// Wall time, against which due times are read.
    pub clock: Clock,
    /// For jitter.
    pub dice: Dice,
    /// Where leases that are lost are counted.
    pub metrics: Metrics,
    /// How long a claim holds; it is renewed every third of this.
    pub lease: Span,
    /// Asks the stage to stop claiming and its steps to end soon.
    pub stop: CancellationToken,
    /// Ends what is still running.
    pub halt: CancellationToken,
}

/// Runs one stage.
pub struct Driver<S: Stage> {
    stage: Arc<S>,
    room: usize,
    wake: Wake,
    pulse: Pulse,
    around: Surroundings,
    running: JoinSet<()>,
    claims: HashMap<Id, Claim>,
    failed_claims: Refrain,
    failed_renewals: Refrain,
}

/// A claim that is being worked on.
struct Claim {
    leases: Vec<Lease>,
    held_until: Option<Instant>,
    lost: CancellationToken,
}

impl<S: Stage> Driver<S> {
    /// A driver that works on at most `room` claims at once.
    pub fn new(stage: S, room: usize, wake: Wake, around: Surroundings) -> Self {
        Self {
            stage: Arc::new(stage),
            room: room.max(1),
            wake,
            pulse: Pulse::default(),
            around,
            running: JoinSet::new(),
            claims: HashMap::new(),
            failed_claims: Refrain::default(),
            failed_renewals: Refrain::default(),
        }
    }

    /// The driver's pulse, for the watchdog.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Works until told to stop, then until its steps have ended. An error is a panic in a step.
    pub async fn run(mut self) -> Result<(), JoinError> {
        let mut renew_at = Instant::now() + self.renew_every();
        let mut heard = self.around.manifest.heard();
        let mut look_again_at = Instant::now();
        let mut is_time = true;
        while !self.around.stop.is_cancelled() {
            self.pulse.beat();
            // Registered before looking for work, so that a poke between the look and the wait is not missed.
            let woken = self.wake.listen();
            if is_time {
                let is_claimed = self.claim().await.is_ok();
                look_again_at = self.look_again_at(is_claimed).await;
            }
            is_time = true;
            // Every arm is cancel-safe: tokens, a notification that keeps its permit, a watch, timers, and join_next.
            tokio::select! {
                () = self.around.stop.cancelled() => break,
                () = woken => {}
                // Another machine made work. Where none can, this arm is off.
                Ok(()) = heard.changed() => {}
                () = tokio::time::sleep_until(look_again_at) => {}
                () = tokio::time::sleep_until(renew_at) => {
                    self.renew().await;
                    renew_at = Instant::now() + self.renew_every();
                }
                Some(ended) = self.running.join_next_with_id() => {
                    self.forget(ended)?;
                    is_time = S::REST == Span::ZERO || self.stage.has_more();
                }
            }
        }
        self.drain(renew_at).await
    }

    /// Works until nothing is due and nothing is running: what `run --once` does.
    pub async fn run_until_idle(&mut self) -> Result<(), Unfinished> {
        let mut renew_at = Instant::now() + self.renew_every();
        let mut failures = 0;
        let mut outcome = Ok(());
        while !self.around.stop.is_cancelled() {
            let claimed = self.claim().await;
            failures = if claimed.is_ok() { 0 } else { failures + 1 };
            if self.running.is_empty() {
                if claimed.is_ok() || failures == CLAIM_TRIES {
                    outcome = claimed;
                    break;
                }
                tokio::time::sleep(TICK.as_duration()).await;
                continue;
            }
            // Every arm is cancel-safe: a token, a timer, and join_next.
            tokio::select! {
                () = self.around.stop.cancelled() => break,
                () = tokio::time::sleep_until(renew_at) => {
                    self.renew().await;
                    renew_at = Instant::now() + self.renew_every();
                }
                Some(ended) = self.running.join_next_with_id() => self.forget(ended)?,
            }
        }
        self.drain(renew_at).await?;
        Ok(outcome?)
    }

    /// Gives back what the stage keeps and waits for the running steps, then ends those that `halt` finds still running.
    async fn drain(&mut self, mut renew_at: Instant) -> Result<(), JoinError> {
        let stage = Arc::clone(&self.stage);
        self.running.spawn(async move { stage.give_back().await });
        while !self.running.is_empty() {
            self.pulse.beat();
            // Every arm is cancel-safe: a token, timers, and join_next.
            tokio::select! {
                () = self.around.halt.cancelled() => {
                    self.running.shutdown().await;
                    self.claims.clear();
                }
                () = tokio::time::sleep(TICK.as_duration()) => {}
                () = tokio::time::sleep_until(renew_at) => {
                    self.renew().await;
                    renew_at = Instant::now() + self.renew_every();
                }
                Some(ended) = self.running.join_next_with_id() => self.forget(ended)?,
            }
        }
        Ok(())
    }

    /// Claims as much as there is room for and starts it.
    async fn claim(&mut self) -> Result<(), ManifestError> {
        let room = self.room.saturating_sub(self.running.len());
        if room == 0 {
            return Ok(());
        }
        match self.stage.claim(room).await {
            Ok(works) => {
                if self.failed_claims.is_over() {
                    tracing::info!(stage = S::NAME, "the manifest answers again");
                }
                works.into_iter().for_each(|work| self.start(work));
                Ok(())
            }
            Err(error) => {
                if self.failed_claims.is_to_be_said(&error) {
                    tracing::error!(stage = S::NAME, %error, "failed to claim work");
                }
                Err(error)
            }
        }
    }

    fn start(&mut self, work: S::Work) {
        let (leases, held_until) = (S::leases(&work), S::held_until(&work));
        let span = S::span(&work);
        let lost = CancellationToken::new();
        let stage = Arc::clone(&self.stage);
        let (stop, gone) = (self.around.stop.clone(), lost.clone());
        let step = async move {
            tokio::select! {
                () = gone.cancelled() => tracing::warn!("the lease was lost: somebody else has this work now"),
                () = async {
                    if let Err(failure) = stage.step(&work, &stop).await {
                        stage.settle(&work, failure).await;
                    }
                } => {}
            }
        };
        let task = self.running.spawn(step.instrument(span));
        let claim = Claim {
            leases,
            held_until,
            lost,
        };
        self.claims.insert(task.id(), claim);
    }

    /// When to look at the manifest again, unless woken: when the next row is due, within the tick.
    async fn look_again_at(&self, is_claimed: bool) -> Instant {
        let tick = TICK.times(0.75 + 0.5 * self.around.dice.fraction());
        let is_full = self.running.len() >= self.room;
        let wait = if self.stage.has_more() {
            // What did not fit is not left to the steps alone, of which some may be slow.
            S::REST
        } else if is_full || !is_claimed {
            // No room, or a manifest that fails: a step that ends or the tick is soon enough.
            tick
        } else {
            match self.around.manifest.next_due(S::TABLE).await {
                // What is due already and was not claimed cannot be claimed now: its provider pauses, or has enough to do.
                Ok(Some(due)) if due > self.around.clock.now() => due
                    .since(self.around.clock.now())
                    .clamp(S::REST.min(tick), tick),
                Ok(_) | Err(_) => tick,
            }
        };
        let now = Instant::now();
        let at = now + wait.as_duration();
        match self.stage.next_kept() {
            Some(kept) if is_claimed && !is_full => at.min(kept.max(now + S::REST.as_duration())),
            Some(_) | None => at,
        }
    }

    async fn renew(&mut self) {
        let soon = Instant::now() + self.around.lease.as_duration();
        let leases: Vec<Lease> = self
            .claims
            .values()
            .filter(|claim| claim.held_until.is_none_or(|until| until < soon))
            .flat_map(|claim| claim.leases.clone())
            .collect();
        if leases.is_empty() {
            return;
        }
        match self.around.manifest.renew(S::TABLE, &leases).await {
            Ok(lost) => {
                self.failed_renewals.is_over();
                let count = u64::try_from(lost.len()).unwrap_or(u64::MAX);
                self.around.metrics.leases_lost(S::NAME, count);
                for claim in self.claims.values_mut() {
                    claim.leases.retain(|lease| !lost.contains(lease));
                    // What a step writes of a row that is lost among others changes nothing.
                    if claim.leases.is_empty() {
                        claim.lost.cancel();
                    }
                }
            }
            Err(error) if self.failed_renewals.is_to_be_said(&error) => {
                tracing::error!(stage = S::NAME, %error, "failed to renew leases");
            }
            Err(_) => {}
        }
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) -> Result<(), JoinError> {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(error) => error.id(),
        };
        self.claims.remove(&id);
        ended.map(|_| ())
    }

    fn renew_every(&self) -> std::time::Duration {
        self.around.lease.times(1.0 / 3.0).as_duration()
    }
}
