//! Readers: a few connections that see what was committed and never wait for the writer.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use rusqlite::Connection;
use rusqlite::OpenFlags;
use tokio::sync::Semaphore;

use super::Fault;
use super::prepare;
use crate::manifest::ManifestError;

/// Readers at once: reads are short, and more would only compete for the cores that transfers need.
const READERS: usize = 4;

/// The pool. Connections are opened when first needed and kept.
#[derive(Clone)]
pub(super) struct Readers {
    path: PathBuf,
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    /// A pool on the database at `path`.
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            permits: Arc::new(Semaphore::new(READERS)),
            idle: Arc::default(),
        }
    }

    /// Does `work` on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ManifestError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| ManifestError::Closed)?;
        let readers = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let outcome = readers.read_here(verb, work);
            drop(permit);
            outcome
        });
        done.await.map_err(|error| ManifestError::Engine {
            verb,
            what: error.to_string(),
        })?
    }

    /// Does `work` on this thread: one snapshot, however many queries.
    pub(super) fn read_here<T>(
        &self,
        verb: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, ManifestError> {
        if self.permits.is_closed() {
            return Err(ManifestError::Closed);
        }
        let read = |connection: &mut Connection| work(&*connection.transaction()?);
        let mut connection = self.take().map_err(|fault| fault.named(verb))?;
        let outcome = read(&mut connection).map_err(|fault| fault.named(verb));
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.permits.is_closed() {
            idle.push(connection);
        }
        outcome
    }

    /// The first look at the database, whose errors name the file.
    pub(super) fn look_first<T>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, Fault>,
    ) -> Result<T, ManifestError> {
        let looked = self.take().and_then(|connection| look(&connection));
        looked.map_err(|fault| fault.at(&self.path))
    }

    /// Lets nobody in any more, waits for those inside, and closes what is open.
    pub(super) async fn close(&self) {
        if !self.permits.is_closed() {
            let everyone = u32::try_from(READERS).expect("there are few");
            drop(self.permits.acquire_many(everyone).await);
            self.permits.close();
        }
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    fn take(&self) -> Result<Connection, Fault> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(connection) = idle {
            return Ok(connection);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        prepare(&connection)?;
        Ok(connection)
    }
}
