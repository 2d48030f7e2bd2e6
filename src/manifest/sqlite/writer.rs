//! The one writer: takes whatever waits in its queue into one transaction, syncs at most once, then answers everybody.

use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

use super::EngineFault;
use super::Fault;
use super::Tx;
use super::execute;
use super::lock::DaemonLock;
use crate::clock::Clock;
use crate::manifest::ManifestError;
use crate::units::Span;

/// The most verbs in one transaction: at some 10 us each the last of them waits no longer than for a slow sync.
const GROUP_MAX: usize = 256;

/// A verb on its way to the writer.
pub(super) struct Job {
    work: Work,
    lasting: Lasting,
}

/// What an answered verb outlives, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::manifest) enum Lasting {
    /// Written, and synced with the next that is: a power cut may undo it, together with all that came after.
    AsLongAsProcesses,
    /// Synced: it is there when the machine comes back.
    ThroughPowerCuts,
}

impl Lasting {
    /// In the engine's words, for a database with a write-ahead log.
    pub(super) fn synchronous(self) -> &'static str {
        match self {
            Self::ThroughPowerCuts => "FULL",
            Self::AsLongAsProcesses => "NORMAL",
        }
    }
}

/// Given the transaction it does its work, or it learns why there is none.
type Work = Box<dyn FnOnce(Result<&Tx<'_>, &EngineFault>) -> Answer + Send>;

/// A verb that did its work and is told whether that was made durable.
pub(super) type Answer = Box<dyn FnOnce(Result<(), &EngineFault>) + Send>;

/// A verb's answer, once it is durable.
pub(super) type Answered<T> = oneshot::Receiver<Result<T, ManifestError>>;

/// The connection that writes, with what its verbs need to know.
pub(super) struct Desk {
    pub(super) connection: Connection,
    pub(super) clock: Clock,
    pub(super) lease: Span,
    pub(super) owner: String,
    /// Groups committed so far.
    pub(super) commits: watch::Sender<u64>,
    /// Held for as long as anything may be written.
    pub(super) lock: Option<DaemonLock>,
    /// What the connection does at a commit.
    pub(super) lasting: Lasting,
}

/// Makes a job out of a verb's work, and the end at which its answer comes.
pub(super) fn job<T: Send + 'static>(
    verb: &'static str,
    lasting: Lasting,
    work: impl FnOnce(&Tx<'_>) -> Result<T, Fault> + Send + 'static,
) -> (Job, Answered<T>) {
    let (answer, answered) = oneshot::channel();
    let work: Work = Box::new(move |tx| {
        let outcome = match tx {
            Ok(tx) => in_savepoint(tx, work),
            Err(fault) => Err(Fault::Engine(fault.clone())),
        };
        Box::new(move |committed| {
            let durable = committed.map_err(|fault| Fault::Engine(fault.clone()));
            let outcome = outcome.and_then(|value| durable.map(|()| value));
            // Whoever asked may have stopped waiting; what was written stands all the same.
            answer.send(outcome.map_err(|fault| fault.named(verb))).ok();
        })
    });
    (Job { work, lasting }, answered)
}

impl Desk {
    /// Works until every sender of jobs is gone and the queue is empty.
    pub(super) fn work(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.blocking_recv() {
            let mut group = vec![first];
            while group.len() < GROUP_MAX
                && let Ok(job) = jobs.try_recv()
            {
                group.push(job);
            }
            self.commit(group);
        }
        self.finish();
    }

    /// Does all of `group` in one transaction and then answers.
    pub(super) fn commit(&mut self, group: Vec<Job>) {
        let mut fault = self.begin(&group).err().map(EngineFault::of);
        let mut answers = Vec::with_capacity(group.len());
        for job in group {
            let now = self.clock.now();
            let tx = Tx {
                db: &self.connection,
                now,
                lease_until: now.plus(self.lease),
                owner: &self.owner,
            };
            answers.push((job.work)(fault.as_ref().map_or(Ok(&tx), Err)));
            // A full disk or a failing one makes the engine roll back everything, not just the verb that met it.
            if fault.is_none() && self.connection.is_autocommit() {
                fault = Some(EngineFault::rolled_back());
            }
        }
        let fault = fault.or_else(|| self.end_transaction().err());
        for answer in answers {
            answer(fault.as_ref().map_or(Ok(()), Err));
        }
    }

    /// Moves the log into the database, so that a copy of the file alone is whole.
    pub(super) fn finish(self) {
        // Without it nothing is lost: the log is read when the database is opened next.
        self.connection
            .pragma_update(None, "wal_checkpoint", "TRUNCATE")
            .ok();
        drop(self.connection);
        drop(self.lock);
    }

    /// Begins a transaction that lasts as long as the most lasting of `group`.
    fn begin(&mut self, group: &[Job]) -> Result<(), Fault> {
        let most = group.iter().map(|job| job.lasting).max();
        if let Some(lasting) = most
            && lasting != self.lasting
        {
            self.connection
                .pragma_update(None, "synchronous", lasting.synchronous())?;
            self.lasting = lasting;
        }
        execute(&self.connection, "BEGIN IMMEDIATE", [])?;
        Ok(())
    }

    fn end_transaction(&self) -> Result<(), EngineFault> {
        let committed = execute(&self.connection, "COMMIT", []);
        if let Err(fault) = committed {
            if !self.connection.is_autocommit() {
                // The engine has said already what is wrong.
                execute(&self.connection, "ROLLBACK", []).ok();
            }
            return Err(EngineFault::of(fault));
        }
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }
}

/// Does the work so that its failure leaves no trace and spoils no other verb of the group.
///
/// One within another undoes itself alone.
pub(super) fn in_savepoint<T>(
    tx: &Tx<'_>,
    work: impl FnOnce(&Tx<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    execute(tx.db, "SAVEPOINT verb", [])?;
    let outcome = work(tx);
    if outcome.is_ok() {
        execute(tx.db, "RELEASE verb", [])?;
    } else if !tx.db.is_autocommit() {
        execute(tx.db, "ROLLBACK TO verb", [])?;
        execute(tx.db, "RELEASE verb", [])?;
    }
    outcome
}
