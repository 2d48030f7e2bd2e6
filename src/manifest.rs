//! The manifest: the durable record of tasks, assets and objects, and the only hand-over between stages.
//!
//! Verbs, not tables. Each verb is one transaction; every write to a claimed row compares the lease's token and
//! fails with [`ManifestError::Stale`] when the claim is no longer ours. No verb is held open over network I/O.

pub mod row;

mod answers;
mod columns;
mod discoveries;
pub mod elsewhere;
mod engine;
mod error;
mod holds;
mod links;
pub mod machines;
pub mod meant;
mod migrate;
pub mod moving;
mod outbox;
pub mod owner;
mod postgres;
mod rebuild;
mod sqlite;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) use self::postgres::server;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use self::elsewhere::Reach;
use self::engine::Engine;
use self::engine::change;
use self::engine::lease;
use self::engine::look;
pub use self::error::ManifestError;
use self::postgres::Postgres;
use self::row::AssetSettlement;
use self::row::AtRisk;
use self::row::Claimable;
use self::row::ClaimedAsset;
use self::row::ClaimedOrphan;
use self::row::ClaimedTask;
use self::row::Heard;
use self::row::Learned;
use self::row::NewLink;
use self::row::NewTask;
use self::row::NewUpload;
use self::row::ObjectName;
use self::row::Observation;
use self::row::Observed;
use self::row::PartRow;
use self::row::Proof;
use self::row::Tally;
use self::row::TaskFilter;
use self::row::TaskRecord;
use self::row::TaskSettlement;
use self::row::waiting::Waiting;
use self::sqlite::Sqlite;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::model::deadline::Danger;
use crate::model::lease::Lease;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::model::task::ProviderName;
use crate::model::task::TaskId;
use crate::model::task::TaskKey;
use crate::secret::Secret;
use crate::secret::SecretSource;
use crate::units::Span;

/// A starting daemon tries the lock this often: `is_daemon_running` holds it for a moment.
const LOCK_TRIES: u32 = 5;

/// The wait between two tries for the lock.
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// Rows of a backlog that one transaction changes at most: neither a server's patience nor that of other writers ends before
/// it does.
const ROWS_AT_ONCE: usize = 10_000;

/// Tasks that are learned in one transaction of a server: each takes a few of its answers.
const LEARNED_AT_ONCE: usize = 100;

/// How the URL of a server begins.
const SERVER_SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// `[manifest]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `sqlite:/path/to/manifest.db`, or `postgres://user@host/database` for several machines.
    pub url: String,
    /// How long a claim holds without being renewed.
    pub lease: Span,
    /// The server's password, where it wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretSource>,
    /// The most connections to the server at once.
    pub connections: usize,
    /// Whether machines wake each other through the server.
    pub notify: bool,
    /// Whether a transaction pooler stands between: no prepared statements, no wakes.
    pub pooler: bool,
    /// This machine's name in the fleet; empty = its host name.
    pub machine: String,
}

impl Config {
    /// Whether several machines may work on it.
    pub fn is_shared(&self) -> bool {
        SERVER_SCHEMES
            .iter()
            .any(|scheme| self.url.starts_with(scheme))
    }

    /// Whether the URL names a server in a way that can be understood.
    pub fn names_server(&self) -> bool {
        self.is_shared() && postgres::is_url(&self.url)
    }

    /// What of a server's URL is not taken, and what is taken in its place.
    pub fn wrong_parameter(&self) -> Option<(String, String)> {
        let url = self.is_shared().then_some(self.url.as_str())?;
        postgres::wrong_parameter(url)
    }

    /// Whether a password stands in the URL, where everybody can read it.
    pub fn url_has_password(&self) -> bool {
        self.is_shared() && postgres::has_password(&self.url)
    }

    /// The server's password. Every command opens its manifest in this way, so the environment is read here for all.
    fn read_password(&self) -> Result<Option<Secret>, ManifestError> {
        let env = |name: &str| std::env::var(name).ok();
        let password = self.password.as_ref().map(|source| source.read(&env));
        Ok(password.transpose()?)
    }

    /// What tests need not say.
    #[cfg(test)]
    pub(crate) fn of_tests() -> Self {
        Self {
            url: String::new(),
            lease: Span::from_secs(60),
            password: None,
            connections: 4,
            notify: false,
            pooler: false,
            machine: "here".to_owned(),
        }
    }

    /// This machine's name in the fleet.
    pub fn machine_name(&self) -> String {
        if self.machine.is_empty() {
            let system = rustix::system::uname();
            system.nodename().to_string_lossy().into_owned()
        } else {
            self.machine.clone()
        }
    }
}

/// As whom the manifest is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The one daemon: takes the lock, and ends the leases that a dead predecessor left.
    Daemon,
    /// A command that writes, whether a daemon runs or not.
    Writer,
    /// A command that reads. Makes nothing.
    Reader,
}

/// An open manifest; clones share it.
///
/// A verb whose future is dropped while it waits for its answer is carried out whole or not at all.
#[derive(Clone, Debug)]
pub struct Manifest {
    engine: Engine,
    /// What this daemon has, and what it leaves to others.
    reach: Arc<Mutex<Reach>>,
}

impl Manifest {
    /// Opens the manifest that `config` names, making it where `access` allows that. The folder must exist.
    pub async fn open(
        config: &Config,
        clock: Clock,
        access: Access,
    ) -> Result<Self, ManifestError> {
        if config.is_shared() {
            return Self::open_shared(config, access, postgres::Time::Server).await;
        }
        let mut tries = 1;
        loop {
            let opening = opening(config, &clock, access, false)?;
            let opened = tokio::task::spawn_blocking(|| Sqlite::open(opening)).await;
            let opened = opened.map_err(|error| ManifestError::Engine {
                verb: "open",
                what: error.to_string(),
            })?;
            match opened {
                Err(ManifestError::Locked { .. }) if tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_WAIT).await;
                }
                Err(error) => return Err(error),
                Ok(sqlite) => {
                    return Ok(Self::over(Engine::Sqlite(Arc::new(sqlite))));
                }
            }
        }
    }

    async fn open_shared(
        config: &Config,
        access: Access,
        time: postgres::Time,
    ) -> Result<Self, ManifestError> {
        let password = config.read_password()?;
        let engine = Postgres::open(config, password.as_ref(), access, time).await?;
        Ok(Self::over(Engine::Postgres(Arc::new(engine))))
    }

    fn over(engine: Engine) -> Self {
        Self {
            engine,
            reach: Arc::default(),
        }
    }

    /// Opens the manifest so that every verb is done on the caller's thread before it is first awaited.
    ///
    /// For simulations and tests with paused time, where another thread would make each run differ from the next.
    pub fn open_inline(
        config: &Config,
        clock: &Clock,
        access: Access,
    ) -> Result<Self, ManifestError> {
        let sqlite = Sqlite::open(opening(config, clock, access, true)?)?;
        Ok(Self::over(Engine::Sqlite(Arc::new(sqlite))))
    }

    /// Whether a daemon works on the manifest that `config` names.
    pub async fn is_daemon_running(config: &Config) -> bool {
        if config.is_shared() {
            let clock = Clock::system();
            let Ok(manifest) = Self::open(config, clock, Access::Reader).await else {
                return false;
            };
            let machines = manifest.machines().await.unwrap_or_default();
            manifest.close().await;
            return machines.iter().any(|machine| machine.is_living);
        }
        database_path(&config.url).is_ok_and(|path| Sqlite::is_daemon_running(&path))
    }

    /// Whether a daemon could write to the manifest that `config` names, or make it. Of a file the daemon's start says so.
    pub async fn check_writable(config: &Config) -> Result<(), ManifestError> {
        if !config.is_shared() {
            return Ok(());
        }
        let password = config.read_password()?;
        Postgres::check_writable(config, password.as_ref()).await
    }

    /// Whether several machines may work on it.
    pub fn is_shared(&self) -> bool {
        match &self.engine {
            Engine::Sqlite(_) => false,
            Engine::Postgres(_) => true,
        }
    }

    /// The file of the manifest that `config` names, where it is one.
    pub fn path(config: &Config) -> Option<PathBuf> {
        database_path(&config.url).ok()
    }

    /// Writes what is queued, closes the files and frees the lock. Verbs fail from here on.
    pub async fn close(&self) {
        match &self.engine {
            Engine::Sqlite(engine) => engine.close().await,
            Engine::Postgres(engine) => engine.close().await,
        }
    }

    /// Changes with every group of writes that is committed by this process. Says nothing of what was written.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        match &self.engine {
            Engine::Sqlite(engine) => engine.changes(),
            Engine::Postgres(engine) => engine.changes(),
        }
    }

    /// Changes when another machine may have made work. Where one file has one daemon, never.
    pub fn heard(&self) -> tokio::sync::watch::Receiver<u64> {
        match &self.engine {
            Engine::Sqlite(_) => tokio::sync::watch::channel(0).1,
            Engine::Postgres(engine) => engine.heard(),
        }
    }

    /// Writes what is there already, to see whether anything can be written.
    pub async fn try_write(&self) -> Result<(), ManifestError> {
        change!(self, "try_write", health::try_write())
    }

    /// How many groups of writes were committed: far fewer than verbs when there is much to do.
    pub fn commits(&self) -> u64 {
        match &self.engine {
            Engine::Sqlite(engine) => engine.commits(),
            Engine::Postgres(engine) => engine.commits(),
        }
    }
}

/// Intake: what there is to archive.
impl Manifest {
    /// Makes tasks known that are not, to be watched; a known one gets the tags and the callback that it lacks. In
    /// the order given. A server may fail with some of them known, which does no harm when they are learned again.
    pub async fn learn(&self, tasks: Vec<NewTask>) -> Result<Vec<Learned>, ManifestError> {
        if !self.is_shared() {
            return change!(self, "learn", tasks::learn(&tasks));
        }
        let mut learned = Vec::with_capacity(tasks.len());
        for some in tasks.chunks(LEARNED_AT_ONCE) {
            let some = some.to_vec();
            learned.extend(change!(self, "learn", tasks::learn(&some))?);
        }
        Ok(learned)
    }

    /// Takes note that a task may have news: one that is watched is looked at now, and one under lease once more as
    /// soon as its claim ends. Nothing is ever put off by it, and no claim is touched.
    pub async fn hear(&self, key: &TaskKey) -> Result<Heard, ManifestError> {
        let key = key.clone();
        change!(self, "hear", hints::hear(&key))
    }

    /// Watches a task again that was given up, since its provider speaks of it. Whether it was given up.
    pub async fn revive(&self, key: &TaskKey) -> Result<bool, ManifestError> {
        let key = key.clone();
        change!(self, "revive", hints::revive(&key))
    }

    /// Makes a bare link known as a completed task with one asset, due now. Another signature on a known link is taken
    /// as a fresh link for its asset where that is not archived.
    pub async fn learn_link(&self, link: NewLink) -> Result<Learned, ManifestError> {
        change!(self, "learn_link", tasks::learn_link(&link))
    }
}

/// Watch: tasks under lease.
impl Manifest {
    /// Claims at most `most` tasks whose next look has come, earliest deadline first, none of the providers `except` and
    /// none that are for others.
    pub async fn claim_tasks(
        &self,
        most: usize,
        except: &[ProviderName],
    ) -> Result<Vec<ClaimedTask>, ManifestError> {
        self.claim_due("claim_tasks", most, except, None).await
    }

    /// Claims for `hold`, or else for a lease.
    async fn claim_due(
        &self,
        verb: &'static str,
        most: usize,
        except: &[ProviderName],
        hold: Option<Span>,
    ) -> Result<Vec<ClaimedTask>, ManifestError> {
        let mut except = except.to_vec();
        except.extend(self.passed_over().providers.into_keys());
        let claimed = lease!(self, verb, claims::claim_tasks(most, &except, hold))?;
        self.remember_unknown(&claimed);
        Ok(claimed)
    }

    /// Writes what a look found, with new assets and fresh links, and ends the claim.
    pub async fn observe(
        &self,
        lease: &Lease,
        observation: Observation,
    ) -> Result<Observed, ManifestError> {
        let lease = *lease;
        change!(self, "observe", tasks::observe(&lease, &observation))
    }

    /// As [`Manifest::observe`] for many looks at once, in their order; what one of them meets spoils no other.
    pub async fn observe_all(
        &self,
        observed: &[(Lease, Observation)],
    ) -> Result<Vec<Result<Observed, ManifestError>>, ManifestError> {
        let observed = observed.to_vec();
        change!(self, "observe_all", tasks::observe_all(&observed))
    }

    /// Ends the claim after a look that brought no sighting.
    pub async fn settle_task(
        &self,
        lease: &Lease,
        settlement: TaskSettlement,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        change!(self, "settle_task", tasks::settle(&lease, &settlement))
    }
}

/// Archive: assets under lease. An object is named by its row in the claimed asset.
impl Manifest {
    /// Claims at most `most` assets that are due, earliest deadline first, with all that is known of their objects. Of a
    /// long backlog those that have waited longest are among them.
    pub async fn claim_assets(&self, most: usize) -> Result<Vec<ClaimedAsset>, ManifestError> {
        let others = self.passed_over();
        lease!(
            self,
            "claim_assets",
            claims::claim_assets(most, None, &others)
        )
    }

    /// As [`Manifest::claim_assets`], of those alone that die before `before`.
    pub async fn claim_urgent_assets(
        &self,
        most: usize,
        before: Timestamp,
    ) -> Result<Vec<ClaimedAsset>, ManifestError> {
        let others = self.passed_over();
        lease!(
            self,
            "claim_urgent_assets",
            claims::claim_assets(most, Some(before), &others)
        )
    }

    /// Fixes an object's name, before the store hears of it; [`ManifestError::KeyTaken`] if another object has the key.
    pub async fn name_object(
        &self,
        lease: &Lease,
        object: i64,
        name: &ObjectName,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        let name = name.clone();
        change!(self, "name_object", objects::name(&lease, object, &name))
    }

    /// Writes down an upload that the store has opened under the object's key. Another one that was open is orphaned.
    pub async fn begin_upload(
        &self,
        lease: &Lease,
        object: i64,
        upload: &NewUpload,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        let upload = upload.clone();
        change!(
            self,
            "begin_upload",
            uploads::begin(&lease, object, &upload)
        )
    }

    /// Writes down a part that the store acknowledged, in place of an earlier one of the same number.
    pub async fn record_part(
        &self,
        lease: &Lease,
        object: i64,
        part: &PartRow,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        let part = part.clone();
        change!(
            self,
            "record_part",
            uploads::record_part(&lease, object, &part)
        )
    }

    /// Drops the rows of all parts but `numbers`: the store's list is the truth.
    pub async fn retain_parts(
        &self,
        lease: &Lease,
        object: i64,
        numbers: &[PartNumber],
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        let numbers = numbers.to_vec();
        change!(
            self,
            "retain_parts",
            uploads::retain_parts(&lease, object, &numbers)
        )
    }

    /// Gives up the object's open upload: it is orphaned, and its parts are forgotten. The name stays.
    pub async fn retire_upload(&self, lease: &Lease, object: i64) -> Result<(), ManifestError> {
        let lease = *lease;
        change!(self, "retire_upload", uploads::retire(&lease, object))
    }

    /// Orphans uploads that were found open under the object's key; the one in its row is left out.
    pub async fn orphan_uploads(
        &self,
        lease: &Lease,
        object: i64,
        uploads: &[UploadId],
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        let uploads = uploads.to_vec();
        change!(
            self,
            "orphan_uploads",
            uploads::orphan(&lease, object, &uploads)
        )
    }

    /// Writes down a verified object. Whether all of the asset's objects are archived now, which ends the claim.
    pub async fn mark_archived(
        &self,
        lease: &Lease,
        object: i64,
        proof: &Proof,
    ) -> Result<bool, ManifestError> {
        let lease = *lease;
        let proof = proof.clone();
        change!(
            self,
            "mark_archived",
            objects::mark_archived(&lease, object, &proof)
        )
    }

    /// Ends the claim on an asset that is not archived. With a final state its open uploads are orphaned.
    pub async fn settle_asset(
        &self,
        lease: &Lease,
        settlement: AssetSettlement,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        change!(self, "settle_asset", assets::settle(&lease, &settlement))
    }
}

/// Tend: what was left behind, and what is in danger.
impl Manifest {
    /// Claims at most `most` orphaned uploads that are due.
    pub async fn claim_orphans(&self, most: usize) -> Result<Vec<ClaimedOrphan>, ManifestError> {
        let others = self.passed_over();
        lease!(self, "claim_orphans", claims::claim_orphans(most, &others))
    }

    /// Ends the claim on an orphan: tried again at `due_at`, or, without one, aborted and done with.
    pub async fn settle_orphan(
        &self,
        lease: &Lease,
        due_at: Option<Timestamp>,
    ) -> Result<(), ManifestError> {
        let lease = *lease;
        change!(
            self,
            "settle_orphan",
            uploads::settle_orphan(&lease, due_at)
        )
    }

    /// What is unarchived, in danger, and had no alarm yet; it counts as told from here on.
    ///
    /// Once for each deadline, and a bounded number at once: call again until nothing comes.
    pub async fn raise_alarms(&self, danger: Danger) -> Result<Vec<AtRisk>, ManifestError> {
        change!(self, "raise_alarms", alarms::raise(danger))
    }
}

/// Leases and due times, for every stage.
impl Manifest {
    /// Renews leases for another span from now; those that are lost come back.
    pub async fn renew(
        &self,
        table: Claimable,
        leases: &[Lease],
    ) -> Result<Vec<Lease>, ManifestError> {
        let leases = leases.to_vec();
        lease!(self, "renew", claims::renew(table, &leases))
    }

    /// The earliest instant at which a row can be claimed, which may have passed.
    pub async fn next_due(&self, table: Claimable) -> Result<Option<Timestamp>, ManifestError> {
        look!(self, "next_due", claims::next_due(table))
    }

    /// Makes due now what is not claimed and due later than in `longest`, which no wait is: the clock was ahead when that
    /// was written. How many rows.
    pub async fn pull_in(&self, table: Claimable, longest: Span) -> Result<usize, ManifestError> {
        let mut rows = 0;
        loop {
            let some = change!(self, "pull_in", claims::pull_in(table, longest))?;
            rows += some;
            if some < ROWS_AT_ONCE {
                return Ok(rows);
            }
        }
    }
}

/// People: what they ask for and what they see.
impl Manifest {
    /// Makes everything of a task that is not archived due now, also what was given up; tells how many rows.
    /// Without a provider, of every task with this ID.
    pub async fn retry(
        &self,
        provider: Option<&ProviderName>,
        id: &TaskId,
    ) -> Result<u64, ManifestError> {
        let provider = provider.cloned();
        let id = id.clone();
        change!(self, "retry", tasks::retry(provider.as_ref(), &id))
    }

    /// Deletes a task with all that hangs on it, and orphans its open uploads; archived objects stay where they are.
    /// Whether it was known.
    pub async fn forget(
        &self,
        provider: &ProviderName,
        id: &TaskId,
    ) -> Result<bool, ManifestError> {
        let provider = provider.clone();
        let id = id.clone();
        change!(self, "forget", tasks::forget(&provider, &id))
    }

    /// At most `most` tasks that pass the filter, in the order in which they were learned.
    pub async fn tasks(
        &self,
        filter: &TaskFilter,
        most: usize,
    ) -> Result<Vec<TaskRecord>, ManifestError> {
        let filter = filter.clone();
        look!(self, "tasks", reads::tasks(&filter, most))
    }

    /// Everything in numbers.
    pub async fn tally(&self) -> Result<Tally, ManifestError> {
        look!(self, "tally", reads::tally())
    }

    /// What is unarchived and in danger, the most urgent first.
    pub async fn at_risk(&self, danger: Danger, most: usize) -> Result<Vec<AtRisk>, ManifestError> {
        look!(self, "at_risk", alarms::at_risk(danger, most))
    }

    /// The errors that most tasks and assets wait for, among the most urgent.
    pub async fn waiting(&self, most: usize) -> Result<Vec<Waiting>, ManifestError> {
        look!(self, "waiting", waiting::waiting(most))
    }
}

fn opening(
    config: &Config,
    clock: &Clock,
    access: Access,
    is_inline: bool,
) -> Result<sqlite::Opening, ManifestError> {
    Ok(sqlite::Opening {
        path: database_path(&config.url)?,
        access,
        clock: clock.clone(),
        lease: config.lease,
        is_inline,
    })
}

fn database_path(url: &str) -> Result<PathBuf, ManifestError> {
    // A database in memory could have no readers beside its writer.
    let path = url
        .strip_prefix("sqlite:")
        .filter(|path| !path.is_empty() && !path.starts_with(':'));
    path.map(PathBuf::from).ok_or_else(|| ManifestError::Url {
        url: url.to_owned(),
    })
}
