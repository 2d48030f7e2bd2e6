//! The lock beside the database: one daemon at a time, and whoever comes second learns whose it is.

use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;

use super::opening_failed;
use crate::manifest::ManifestError;
use crate::manifest::owner::give_to_owner_of_folder;

/// More than this is no process ID.
const PID_BYTES_MAX: u64 = 32;

/// The lock, held until it is dropped. The file stays: removing it would race with the next daemon.
#[derive(Debug)]
pub(super) struct DaemonLock {
    _file: File,
}

impl DaemonLock {
    /// Takes the lock on the manifest at `database` and writes down whose it is.
    pub(super) fn take(database: &Path) -> Result<Self, ManifestError> {
        let path = lock_path(database);
        let failed = |error: std::io::Error| ManifestError::Engine {
            verb: "lock",
            what: format!("{}: {error}", path.display()),
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let is_new = !path.exists();
        let opened = options.open(&path);
        let mut file = opened.map_err(|error| opening_failed(&path, &error))?;
        if is_new {
            give_to_owner_of_folder(&file, &path).map_err(failed)?;
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let read = file.take(PID_BYTES_MAX).read_to_string(&mut pid);
                let is_known = read.is_ok() && !pid.trim().is_empty();
                return Err(ManifestError::Locked {
                    path: database.to_owned(),
                    pid: if is_known { pid.trim() } else { "unknown" }.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }

    /// Whether a daemon holds the lock on the manifest at `database`.
    ///
    /// A shared lock is held for the moment of the test: two who test at once do not see each other, and a daemon
    /// that starts in this moment tries again.
    pub(super) fn is_held(database: &Path) -> bool {
        let Ok(file) = File::open(lock_path(database)) else {
            return false;
        };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}

fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}
