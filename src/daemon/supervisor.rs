//! The supervisor: runs the stages until a signal, a reload or a crash, and tells systemd how it stands.

use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::gauge::Gauge;
use crate::config::Config;
use crate::daemon::fleet::Differences;
use crate::daemon::fleet::Fleet;
use crate::daemon::gateway;
use crate::daemon::sentence;
use crate::daemon::server::Server;
use crate::daemon::systemd::Systemd;
use crate::daemon::wiring;
use crate::daemon::wiring::Outliving;
use crate::daemon::wiring::Peers;
use crate::daemon::wiring::Seams;
use crate::daemon::wiring::Stages;
use crate::manifest::Manifest;
use crate::manifest::row::event::EndpointTrouble;
use crate::model::asset::AssetState;
use crate::model::task::TaskState;
use crate::telemetry::log::LevelHandle;
use crate::telemetry::metrics::Metrics;
use crate::units::Span;
use crate::work::driver::Pulse;
use crate::work::driver::Unfinished;

/// How often systemd's status line is written.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// How often the watchdog is fed where systemd does not say: never sent anywhere, but the loop stays the same.
const PULSE_EVERY: Duration = Duration::from_secs(30);

/// Runs the stages over one manifest.
pub struct Supervisor<'a> {
    /// The open manifest, which outlives reloads.
    pub manifest: &'a Manifest,
    /// What moves now.
    pub gauge: &'a Gauge,
    /// The outside.
    pub seams: &'a Seams,
    /// Reads the configuration anew at SIGHUP; an error keeps the one in force.
    pub reload: &'a (dyn Fn() -> anyhow::Result<Config> + Send + Sync),
    /// The log whose level a reload changes.
    pub level: Option<LevelHandle>,
    /// Where others ask us things.
    pub server: Server,
    /// Whoever started us, where it is systemd.
    pub systemd: Systemd,
    /// Ends the daemon like SIGTERM does.
    pub stop: CancellationToken,
}

/// What ended a round of the stages.
enum Ended {
    Stopped,
    Reload(Box<(Config, Stages)>),
}

impl Supervisor<'_> {
    /// Runs the daemon until it is told to stop. A panic in any stage is an error: whoever started us starts us anew.
    pub async fn run(&self, mut config: Config, peers: Peers) -> anyhow::Result<()> {
        let mut signals = Signals::listen()?;
        let arriving = Fleet::arrive(self.manifest, &config.manifest, &self.seams.dice);
        let fleet = tokio::select! {
            arrived = arriving => arrived?,
            // A name that was announced all the same is free after a while.
            () = signals.stopped(&self.stop) => return Ok(()),
        };
        let outliving = self.outliving(&config);
        let mut stages = wiring::stages(&config, peers, self.manifest, &outliving, self.seams)?;
        let closing = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(self.server.clone().serve(closing.clone()));
        loop {
            self.server.show(stages.face.clone());
            self.systemd.ready();
            tracing::info!(
                providers = config.provider.len(),
                destinations = config.destination.len(),
                "ready"
            );
            match self
                .round(
                    stages,
                    &config,
                    &outliving,
                    &fleet,
                    &mut signals,
                    &mut serving,
                )
                .await?
            {
                Ended::Stopped => break,
                Ended::Reload(new) => (config, stages) = *new,
            }
        }
        // Until here requests were answered: what came while parts were finished is in the manifest.
        closing.cancel();
        while let Some(ended) = serving.join_next().await {
            ended.context("the server crashed")?;
        }
        fleet.leave().await;
        Ok(())
    }

    /// Looks at every due task once, archives what is due, and comes back: for cron.
    pub async fn run_once(&self, config: &Config, peers: Peers) -> anyhow::Result<()> {
        let outliving = self.outliving(config);
        let mut stages = wiring::stages(config, peers, self.manifest, &outliving, self.seams)?;
        let (stop, halt) = (stages.stop.clone(), stages.halt.clone());
        self.compare(config).await;
        let mut signals = Signals::listen()?;
        let grace = config.server.shutdown_grace;
        let work = async {
            if let Some(spool) = stages.spool {
                spool.sweep(&stop).await;
            }
            stages.gateway.catch_up(config.deadline.default).await;
            stages.discover.run_until_idle().await?;
            stages.watch.run_until_idle().await?;
            stages.archive.run_until_idle().await?;
            // Links that died early were handed back to be asked for: one more look, one more try.
            stages.watch.run_until_idle().await?;
            stages.archive.run_until_idle().await?;
            stages.tend.run_until_idle().await?;
            stages.notify.run_until_idle().await?;
            if let Some(heartbeat) = stages.heartbeat {
                heartbeat.beat_once().await;
            }
            Ok(())
        };
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => {
                return finished(done);
            }
            () = signals.stopped(&self.stop) => {}
        }
        stop.cancel();
        if tokio::time::timeout(grace.as_duration(), &mut work)
            .await
            .is_err()
        {
            halt.cancel();
            finished(work.await)?;
        }
        Ok(())
    }

    /// Runs one set of stages until it has wholly ended.
    async fn round(
        &self,
        stages: Stages,
        config: &Config,
        outliving: &Outliving,
        fleet: &Fleet,
        signals: &mut Signals,
        serving: &mut JoinSet<()>,
    ) -> anyhow::Result<Ended> {
        let (stop, halt) = (stages.stop.clone(), stages.halt.clone());
        let mut watchdog = Watchdog::new(stages.pulses(), &self.systemd);
        let differences = self.compare(config).await;
        let mut running = JoinSet::new();
        running.spawn(stages.discover.run());
        running.spawn(stages.watch.run());
        running.spawn(stages.archive.run());
        running.spawn(stages.tend.run());
        let (gateway, ttl) = (stages.gateway, config.deadline.default);
        let gateway_stop = stop.clone();
        running.spawn(async move {
            gateway.keep_up(ttl, gateway_stop).await;
            Ok(())
        });
        running.spawn(stages.notify.run());
        let beating = fleet
            .clone()
            .keep_up(stages.providers, differences, stop.clone());
        running.spawn(async move {
            beating.await;
            Ok(())
        });
        if let Some(heartbeat) = stages.heartbeat {
            let stop = stop.clone();
            running.spawn(async move {
                heartbeat.run(stop).await;
                Ok(())
            });
        }
        if let Some(spool) = stages.spool {
            let stop = stop.clone();
            running.spawn(async move {
                spool.run(stop).await;
                Ok(())
            });
        }

        let mut status_at = Instant::now();
        let ended = loop {
            // Every arm is cancel-safe: signals, tokens, timers, and join_next.
            tokio::select! {
                told = signals.next(&self.stop) => match told {
                    Told::Stop => {
                        self.systemd.stopping();
                        tracing::info!("stopping: parts under way are finished, the rest resumes at the next start");
                        break Ended::Stopped;
                    }
                    Told::Reload => if let Some(new) = self.reread(config, outliving).await {
                        break Ended::Reload(Box::new(new));
                    }
                },
                () = tokio::time::sleep_until(watchdog.due_at) => watchdog.feed(&self.systemd),
                () = tokio::time::sleep_until(status_at) => {
                    self.tell_status().await;
                    status_at = Instant::now() + STATUS_EVERY;
                }
                lost = fleet.lost() => {
                    halt.cancel();
                    return Err(lost);
                }
                Some(crashed) = serving.join_next() => {
                    halt.cancel();
                    let crashed = crashed.context("the server crashed");
                    return Err(crashed.err().unwrap_or_else(|| anyhow::anyhow!("the server ended by itself")));
                }
                Some(crashed) = running.join_next() => {
                    halt.cancel();
                    let crashed = crashed.context("a stage crashed").and_then(|it| it.context("a step crashed"));
                    return Err(crashed.err().unwrap_or_else(|| anyhow::anyhow!("a stage ended by itself")));
                }
            }
        };
        stop.cancel();
        self.drain(running, &halt, config.server.shutdown_grace, &mut watchdog)
            .await?;
        Ok(ended)
    }

    /// Finds out what this machine leaves to others before it claims anything.
    async fn compare(&self, config: &Config) -> Differences {
        self.manifest.knows(wiring::known(config));
        let mut differences = Differences::new(
            self.seams.clock.clone(),
            wiring::connect::longest_between_looks(config),
        );
        differences.tell(self.manifest).await;
        differences.pull_in(self.manifest).await;
        differences
    }

    /// Waits for the stages to end, at most for the grace time, and keeps systemd informed meanwhile.
    async fn drain(
        &self,
        mut running: JoinSet<Result<(), tokio::task::JoinError>>,
        halt: &CancellationToken,
        grace: Span,
        watchdog: &mut Watchdog,
    ) -> anyhow::Result<()> {
        let halt_at = Instant::now() + grace.as_duration();
        let mut status_at = Instant::now();
        loop {
            // Every arm is cancel-safe: timers and join_next.
            tokio::select! {
                ended = running.join_next() => match ended {
                    None => return Ok(()),
                    Some(ended) => ended.context("a stage crashed")?.context("a step crashed")?,
                },
                () = tokio::time::sleep_until(halt_at), if !halt.is_cancelled() => {
                    tracing::warn!("{grace} were not enough: the rest is cut off and resumes at the next start");
                    halt.cancel();
                }
                // Stages end one after the other, so their loops tell nothing: until then the grace time is the bound.
                () = tokio::time::sleep_until(watchdog.due_at), if !halt.is_cancelled() => {
                    watchdog.ping(&self.systemd);
                }
                () = tokio::time::sleep_until(status_at) => {
                    self.systemd.status(&format!("draining {} transfers", self.gauge.now().len()));
                    status_at = Instant::now() + Duration::from_secs(1);
                }
            }
        }
    }

    /// The new configuration at SIGHUP and the stages that it describes, which are all that a reload can fail at; without
    /// them the old ones stay whole.
    async fn reread(&self, old: &Config, outliving: &Outliving) -> Option<(Config, Stages)> {
        self.systemd.reloading();
        let reread = async {
            let mut new = (self.reload)()?;
            if new.manifest != old.manifest {
                tracing::warn!("[manifest] takes effect at the next start only");
                // Leases are renewed as often as those want that the open manifest gives.
                new.manifest = old.manifest.clone();
            }
            if !new.server.listens_like(&old.server) {
                tracing::warn!("listeners of [server] take effect at the next start only");
            }
            if new.log.format != old.log.format {
                tracing::warn!("log.format takes effect at the next start only");
            }
            let peers = Peers::connect(&new, self.seams).await?;
            let stages = wiring::stages(&new, peers, self.manifest, outliving, self.seams)?;
            if let Some(level) = &self.level {
                level.set(&new.log.level)?;
            }
            self.enable_endpoints().await;
            // At once, also for the transfers that the old stages are still to finish.
            outliving.bandwidth.change(new.transfer.bandwidth);
            anyhow::Ok((new, stages))
        };
        match reread.await {
            Ok(new) => Some(new),
            Err(error) => {
                tracing::error!(
                    "not reloaded, the configuration in force stays: {}",
                    sentence(&error)
                );
                self.systemd.ready();
                None
            }
        }
    }

    /// A reload says that somebody has mended something: whoever was given up on is tried again.
    async fn enable_endpoints(&self) {
        match self.manifest.enable_endpoints().await {
            Ok(enabled) => {
                for EndpointTrouble { endpoint, .. } in enabled {
                    tracing::info!(endpoint.name = %endpoint, "the endpoint is enabled again");
                }
            }
            Err(error) => tracing::error!(%error, "failed to enable endpoints"),
        }
    }

    fn outliving(&self, config: &Config) -> Outliving {
        Outliving {
            gauge: self.gauge.clone(),
            bandwidth: Bandwidth::new(config.transfer.bandwidth),
            metrics: Metrics::new(),
            gateway: gateway::Kept::default(),
            address: self.server.address(),
        }
    }

    async fn tell_status(&self) {
        let moving = self.gauge.now().len();
        let status = match self.manifest.tally().await {
            Ok(tally) => format!(
                "archiving {moving}, due {}, watching {}, archived {}, lost {}",
                tally.assets_in(AssetState::Due),
                tally.tasks_in(TaskState::Watching),
                tally.assets_in(AssetState::Archived),
                tally.assets_in(AssetState::Lost),
            ),
            Err(error) => format!("the manifest does not answer: {error}"),
        };
        self.systemd.status(&status);
    }
}

/// Feeds systemd's watchdog as long as every stage's loop turns.
struct Watchdog {
    pulses: Vec<(&'static str, Pulse)>,
    seen: Vec<u64>,
    every: Duration,
    due_at: Instant,
}

impl Watchdog {
    /// Begins with a ping: the round before may have ended with none.
    fn new(pulses: Vec<(&'static str, Pulse)>, systemd: &Systemd) -> Self {
        let mut watchdog = Self {
            seen: vec![0; pulses.len()],
            pulses,
            every: systemd.ping_interval().unwrap_or(PULSE_EVERY),
            due_at: Instant::now(),
        };
        watchdog.ping(systemd);
        watchdog
    }

    fn ping(&mut self, systemd: &Systemd) {
        systemd.ping();
        self.due_at = Instant::now() + self.every;
    }

    fn feed(&mut self, systemd: &Systemd) {
        self.due_at = Instant::now() + self.every;
        let beats: Vec<u64> = self.pulses.iter().map(|(_, pulse)| pulse.beats()).collect();
        let stuck = self.pulses.iter().zip(beats.iter().zip(&self.seen));
        let stuck: Vec<&str> = stuck
            .filter(|(_, (now, before))| now == before)
            .map(|((name, _), _)| *name)
            .collect();
        if stuck.is_empty() {
            self.ping(systemd);
        } else {
            tracing::error!(stages = ?stuck, "no progress: the watchdog is not fed");
        }
        self.seen = beats;
    }
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Stop,
    Reload,
}

/// The signals that a daemon answers to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("no signal handler can be set");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// What the daemon is told next. Cancel-safe: a signal that comes meanwhile is kept.
    async fn next(&mut self, stop: &CancellationToken) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hang_up.recv() => Told::Reload,
            () = stop.cancelled() => Told::Stop,
        }
    }

    /// Waits until the daemon is told to stop.
    async fn stopped(&mut self, stop: &CancellationToken) {
        while self.next(stop).await == Told::Reload {}
    }
}

/// How a single pass ended. The exit code is read off the manifest's own error.
fn finished(done: Result<(), Unfinished>) -> anyhow::Result<()> {
    done.map_err(|unfinished| match unfinished {
        Unfinished::Manifest(error) => error.into(),
        crashed @ Unfinished::Crashed(_) => crashed.into(),
    })
}
