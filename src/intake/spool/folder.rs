//! The spool's folder: what lies there, and the moves to `done` and `failed`, which overwrite nothing.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;

/// Files that one look takes note of; the others have their turn when these have been moved.
const FILES_MAX: usize = 1000;

/// Where files go that were taken, and those that were not, or not whole.
const SHELVES: [&str; 2] = ["done", "failed"];

/// Names that were taken before for a file of this name.
const NAMES_MAX: u32 = 10_000;

/// By what a file is told from itself after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    length: u64,
    changed: Option<SystemTime>,
}

/// A file that lies there.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
}

/// The folder.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The files to be taken, in the order of their names, a bounded number.
    pub(super) async fn list(&self) -> Result<Vec<Found>, String> {
        let path = self.path.clone();
        let listed = tokio::task::spawn_blocking(move || list(&path)).await;
        let listed = listed.map_err(|error| error.to_string())?;
        listed.map_err(|error| format!("{}: {error}", self.path.display()))
    }

    /// Moves a file to `done`, or with a reason beside it to `failed`.
    pub(super) async fn put_away(&self, file: &Path, reason: Option<String>) -> Result<(), String> {
        let (folder, file) = (self.path.clone(), file.to_owned());
        let moving =
            tokio::task::spawn_blocking(move || put_away(&folder, &file, reason.as_deref()));
        let moved = moving.await.map_err(|error| error.to_string())?;
        moved.map_err(|error| error.to_string())
    }
}

fn list(folder: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Whoever may drop a file must not make us read another one through a link.
        if is_left_alone(&entry.file_name()) || !entry.file_type()?.is_file() {
            continue;
        }
        // Gone since: taken back, or renamed by whoever writes it.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        found.push(Found {
            path: entry.path(),
            stamp: Stamp {
                length: metadata.len(),
                changed: metadata.modified().ok(),
            },
        });
        if found.len() >= FILES_MAX {
            break;
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

/// Unfinished writing, and where files are put away.
fn is_left_alone(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let is_shelf = SHELVES.iter().any(|shelf| name == shelf.as_bytes());
    is_shelf || name.starts_with(b".") || name.ends_with(b".tmp") || name.ends_with(b".part")
}

fn put_away(folder: &Path, file: &Path, reason: Option<&str>) -> io::Result<()> {
    let name = file.file_name().unwrap_or_default();
    let [done, failed] = SHELVES;
    let shelf = folder.join(if reason.is_some() { failed } else { done });
    fs::create_dir_all(&shelf)?;
    for number in 0..NAMES_MAX {
        let mut free = name.to_owned();
        if number > 0 {
            free.push(format!(".{number}"));
        }
        let mut beside = free.clone();
        beside.push(".reason.txt");
        let (place, beside) = (shelf.join(free), shelf.join(beside));
        if place.symlink_metadata().is_ok() || beside.symlink_metadata().is_ok() {
            continue;
        }
        if let Some(reason) = reason {
            // Before the file: one that is there has its reason.
            fs::write(&beside, reason)?;
        }
        return fs::rename(file, place);
    }
    Err(io::Error::other(format!(
        "{} has had {NAMES_MAX} files of this name",
        shelf.display()
    )))
}
