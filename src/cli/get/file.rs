//! The file that a copy goes into: written beside it under another name, and given its name once it is whole.

use std::fs;
use std::io;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::path::PathBuf;

use crate::cli::copies::ArchivedCopy;
use crate::cli::copies::Body;
use crate::cli::copies::Trouble;
use crate::cli::exit::Complaint;

/// A file to be written.
pub(super) struct File<'a> {
    path: &'a Path,
    is_forced: bool,
}

/// What is written until then. Dropped, it is removed: whatever ends the command, no half of a film stays.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // Renamed, it is not there any more.
        fs::remove_file(&self.0).ok();
    }
}

/// Standard output, without a buffer that bytes could be left in.
pub(super) fn stdout() -> io::Result<tokio::fs::File> {
    let stdout = io::stdout().as_fd().try_clone_to_owned()?;
    Ok(tokio::fs::File::from_std(stdout.into()))
}

impl<'a> File<'a> {
    /// The file at `path`, if it may be written; an existing one only if that `is_forced`.
    pub(super) fn check(path: &'a Path, is_forced: bool) -> Result<Self, Complaint> {
        let file = Self { path, is_forced };
        let name = file.name();
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => Err(Complaint::failed(format!("{name} is a folder"))
                .hint("-o names the file to write; - is stdout")),
            Ok(found) if !found.is_file() => {
                Err(Complaint::failed(format!("{name} is no plain file"))
                    .hint("`-o -` writes to stdout, which can be redirected to it"))
            }
            Ok(_) | Err(_) if !is_forced && fs::symlink_metadata(path).is_ok() => {
                Err(file.complaint(&ErrorKind::AlreadyExists.into()))
            }
            Ok(_) | Err(_) => Ok(file),
        }
    }

    /// For people.
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Writes a copy, which gets the file's name if it is what was archived.
    pub(super) async fn fill(
        &self,
        nonce: &str,
        copy: &ArchivedCopy,
        body: Body,
    ) -> Result<(), Trouble> {
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let partial = Partial(folder.join(format!(".reelvault-{nonce}.partial")));
        let file = tokio::fs::File::create_new(&partial.0).await;
        let mut file = file.map_err(Trouble::Sink)?;
        copy.pour(body, &mut file).await?;
        file.sync_all().await.map_err(Trouble::Sink)?;
        self.take(&partial.0).map_err(Trouble::Sink)
    }

    /// Gives a whole file its name. A link fails where something stands by now; not every file system knows links.
    fn take(&self, partial: &Path) -> io::Result<()> {
        if !self.is_forced {
            match fs::hard_link(partial, self.path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {}
                linked => return linked,
            }
        }
        fs::rename(partial, self.path)
    }

    /// Why it cannot be written.
    pub(super) fn complaint(&self, error: &io::Error) -> Complaint {
        let (name, kind) = (self.name(), error.kind());
        if kind == ErrorKind::AlreadyExists {
            return Complaint::failed(format!("{name} exists already and is not overwritten"))
                .hint("--force overwrites it");
        }
        if kind == ErrorKind::NotFound {
            return Complaint::failed(format!("no folder to put {name} in"))
                .hint("make it, or name another place");
        }
        let hint = if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            "free some space, or name another place; what was written is removed"
        } else {
            "name a place that can be written, or - for stdout"
        };
        Complaint::failed(format!("{name}: {error}")).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_there_meanwhile_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (path, partial) = (folder.path().join("film"), folder.path().join("partial"));
        let file = File::check(&path, false).unwrap();
        fs::write(&path, "theirs").unwrap();
        fs::write(&partial, "ours").unwrap();
        let taken = file.take(&partial).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"theirs");
        let forced = File::check(&path, true).unwrap();
        forced.take(&partial).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"ours");
    }
}
