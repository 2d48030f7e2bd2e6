//! The files under a folder, blocking: names of partial files, and paths that never lead out.

use std::fs;
use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Metadata;
use std::fs::OpenOptions;
use std::fs::Permissions;
use std::io;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;

use crate::clock::Timestamp;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::key::ObjectKey;
use crate::model::object::UploadId;
use crate::store::OpenUpload;
use crate::store::Standing;
use crate::store::StoreErrorKind;
use crate::store::folder::FolderRules;
use crate::store::folder::READ_BYTES;
use crate::units::ByteSize;

/// What file systems allow a name.
const NAME_BYTES_MAX: usize = 255;

/// Longer names are cut in the name of the partial file: with dots, nonce and ending it has to fit
/// [`NAME_BYTES_MAX`].
const STEM_BYTES_MAX: usize = 160;

/// Reads of a file that is digested before its thread is given back: a disk that is slow is no disk that hangs.
pub(super) const STRETCH_READS: u32 = 16;

/// The end of a partial file's name.
const PARTIAL: &str = ".partial";

/// The permissions of a file that is not whole yet: nobody else's business.
const PARTIAL_MODE: u32 = 0o600;

/// What of its permissions it takes to write to it.
const OWNER_WRITES: u32 = 0o200;

/// Uploads of one key under one nonce; a second one is already the trace of a crash.
const BEGINS_MAX: u32 = 100;

/// A folder and how files are written there.
#[derive(Debug)]
pub(super) struct Tree {
    /// Absolute, without symbolic links.
    pub(super) root: PathBuf,
    /// Whether another disk begins at the root. When it is gone, what is below looks like an empty folder.
    pub(super) is_mounted: bool,
    /// How files are written there.
    pub(super) rules: FolderRules,
}

/// What kept the file system from doing it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It says so itself.
    Io(io::Error),
    /// We do.
    Refused(StoreErrorKind, String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

impl Tree {
    /// The tree at `path`, with its links resolved.
    pub(super) fn at(path: &Path, rules: FolderRules) -> io::Result<Self> {
        let root = fs::canonicalize(path)?;
        if !fs::metadata(&root)?.is_dir() {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        Ok(Self {
            is_mounted: is_mounted(&root)?,
            root,
            rules,
        })
    }

    /// What stands at `key`, whose bytes are still to be digested.
    pub(super) fn find(&self, key: &ObjectKey) -> Result<Option<Digesting>, Trouble> {
        match self.open(key) {
            Ok(file) => Ok(Some(Digesting {
                file,
                length: 0,
                crc64nvme: Crc64Digester::new(),
            })),
            Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                // Nothing at the key, unless the folder itself is gone.
                fs::metadata(&self.root)?;
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Opens the file at `key` for reading.
    pub(super) fn open(&self, key: &ObjectKey) -> Result<File, Trouble> {
        let path = self.existing_folder(key)?.join(file_name(key));
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_file() {
            Ok(File::open(&path)?)
        } else {
            let why = "something stands there that is no plain file".to_owned();
            Err(Trouble::Refused(StoreErrorKind::Rejected, why))
        }
    }

    /// Makes an empty partial file.
    pub(super) fn begin(&self, key: &ObjectKey, nonce: &str) -> Result<UploadId, Trouble> {
        if file_name(key).len() > NAME_BYTES_MAX {
            // The link would fail as well, but only after all bytes are written.
            let why = format!("a name has at most {NAME_BYTES_MAX} bytes");
            return Err(Trouble::Refused(StoreErrorKind::Rejected, why));
        }
        self.check_free(0)?;
        let folder = self.make_folder(key)?;
        for count in 0..BEGINS_MAX {
            let name = partial_name(key, nonce, count);
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(PARTIAL_MODE);
            match options.open(folder.join(&name)) {
                Ok(_) => {
                    self.sync_folder(&folder)?;
                    return Ok(upload_id(key, &name));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        let why = "too many partial files of the same object".to_owned();
        Err(Trouble::Refused(StoreErrorKind::Transient, why))
    }

    /// Opens a partial file for writing.
    pub(super) fn open_partial(&self, key: &ObjectKey, upload: &UploadId) -> Result<File, Trouble> {
        let path = self.partial_path(key, upload)?;
        let metadata = fs::symlink_metadata(&path)?;
        // A second name means that it was linked to its key already: writing to it would write to the object.
        if !metadata.is_file() || metadata.nlink() != 1 {
            return Err(no_upload());
        }
        if metadata.mode() & OWNER_WRITES == 0 {
            // It was about to get its name when somebody died or the disk was full.
            fs::set_permissions(&path, Permissions::from_mode(PARTIAL_MODE))?;
        }
        Ok(OpenOptions::new().write(true).open(&path)?)
    }

    /// Gives a whole partial file its name.
    pub(super) fn finish(
        &self,
        key: &ObjectKey,
        upload: &UploadId,
        length: u64,
    ) -> Result<(), Trouble> {
        let partial = self.partial_path(key, upload)?;
        let target = partial.with_file_name(file_name(key));
        if !is_linked(&partial, &target)? {
            let file = self.open_partial(key, upload)?;
            let found = file.metadata()?.len();
            if found != length {
                let why = format!("the partial file has {found} bytes, not {length}");
                return Err(Trouble::Refused(StoreErrorKind::Conflict, why));
            }
            file.set_permissions(Permissions::from_mode(self.rules.mode))?;
            if self.rules.is_synced {
                file.sync_all()?;
            }
            fs::hard_link(&partial, &target)?;
        }
        self.drop_partial(&partial).map_err(|error| {
            let why = format!("the file is in place, but not its folder: {error}");
            Trouble::Refused(StoreErrorKind::Ambiguous, why)
        })
    }

    /// Removes a partial file.
    pub(super) fn abort(&self, key: &ObjectKey, upload: &UploadId) -> Result<(), Trouble> {
        let partial = self.partial_path(key, upload)?;
        Ok(self.drop_partial(&partial)?)
    }

    /// The partial files of `key`.
    pub(super) fn open_uploads(&self, key: &ObjectKey) -> Result<Vec<OpenUpload>, Trouble> {
        let folder = match self.existing_folder(key) {
            Err(Trouble::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            folder => folder?,
        };
        let mut open = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_partial_of(key, name)) else {
                continue;
            };
            match entry.metadata() {
                Ok(metadata) => open.push(OpenUpload {
                    id: upload_id(key, name),
                    initiated: modified(&metadata),
                }),
                // Finished or aborted since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(open)
    }

    /// Removes the file at `key`; only ever a probe's.
    pub(super) fn remove(&self, key: &ObjectKey) -> Result<(), Trouble> {
        let path = self.existing_folder(key)?.join(file_name(key));
        Ok(fs::remove_file(path)?)
    }

    /// Whether `length` more bytes leave as much of the disk free as is asked for.
    pub(super) fn check_free(&self, length: u64) -> Result<(), Trouble> {
        let Some(free_min) = self.rules.free_min else {
            return Ok(());
        };
        let disk = rustix::fs::statvfs(&self.root).map_err(io::Error::from)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free.saturating_sub(length) < free_min.as_u64() {
            let free = ByteSize::bytes(free);
            let why = format!("{free} are free, and {free_min} have to stay free");
            return Err(Trouble::Refused(StoreErrorKind::Blocked, why));
        }
        Ok(())
    }

    /// Has the bytes of a file on the disk, where that is asked for.
    pub(super) fn sync_data(&self, file: &File) -> Result<(), Trouble> {
        if self.rules.is_synced {
            file.sync_data()?;
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if self.rules.is_synced {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn drop_partial(&self, partial: &Path) -> io::Result<()> {
        fs::remove_file(partial)?;
        self.sync_folder(partial.parent().unwrap_or(&self.root))
    }

    /// The folder of `key`, made where it is missing. Step by step, so that no link is followed out of the root.
    fn make_folder(&self, key: &ObjectKey) -> Result<PathBuf, Trouble> {
        let mut folder = self.inside(&self.root)?;
        for segment in folders(key) {
            let next = folder.join(segment);
            match DirBuilder::new().create(&next) {
                Ok(()) => self.sync_folder(&folder)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
            folder = self.inside(&next)?;
        }
        Ok(folder)
    }

    fn existing_folder(&self, key: &ObjectKey) -> Result<PathBuf, Trouble> {
        let mut folder = self.root.clone();
        folder.extend(folders(key));
        self.inside(&folder)
    }

    /// `folder` with its links resolved, if that is inside the root.
    fn inside(&self, folder: &Path) -> Result<PathBuf, Trouble> {
        if self.is_mounted && !is_mounted(&self.root)? {
            let why = "the disk that was mounted there is gone".to_owned();
            return Err(Trouble::Refused(StoreErrorKind::Blocked, why));
        }
        let resolved = fs::canonicalize(folder)?;
        if resolved.starts_with(&self.root) {
            Ok(resolved)
        } else {
            let why = format!("{} leads out of the folder", folder.display());
            Err(Trouble::Refused(StoreErrorKind::Rejected, why))
        }
    }

    /// The partial file that `upload` names, if it can be one of `key`.
    fn partial_path(&self, key: &ObjectKey, upload: &UploadId) -> Result<PathBuf, Trouble> {
        let name = upload.0.rsplit('/').next().unwrap_or_default();
        if is_partial_of(key, name) && upload_id(key, name) == *upload {
            Ok(self.existing_folder(key)?.join(name))
        } else {
            Err(no_upload())
        }
    }
}

/// Whether another disk begins at `root` than the one that `root` would be on.
pub(super) fn is_mounted(root: &Path) -> io::Result<bool> {
    let above = fs::metadata(root.parent().unwrap_or(root))?;
    Ok(fs::metadata(root)?.dev() != above.dev())
}

/// A file on the way to the checksum of all its bytes.
pub(super) struct Digesting {
    file: File,
    length: u64,
    crc64nvme: Crc64Digester,
}

impl Digesting {
    /// Reads one stretch more; at the end it is known what stands there.
    pub(super) fn read_on(mut self) -> Result<ControlFlow<Standing, Self>, Trouble> {
        let mut buffer = vec![0; READ_BYTES];
        for _ in 0..STRETCH_READS {
            let read = match self.file.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            if read == 0 {
                return Ok(ControlFlow::Break(Standing {
                    length: self.length,
                    etag: None,
                    version_id: None,
                    crc64nvme: Some(self.crc64nvme.value()),
                    nonce: None,
                    last_modified: modified(&self.file.metadata()?),
                }));
            }
            self.crc64nvme
                .update(buffer.get(..read).unwrap_or_default());
            let read = u64::try_from(read).unwrap_or(u64::MAX);
            self.length = self.length.saturating_add(read);
        }
        Ok(ControlFlow::Continue(self))
    }
}

/// Whether a crash came between the link and the removal of the partial file.
fn is_linked(partial: &Path, target: &Path) -> Result<bool, Trouble> {
    let partial = fs::symlink_metadata(partial)?;
    let linked = match fs::symlink_metadata(target) {
        Ok(target) => (target.dev(), target.ino()) == (partial.dev(), partial.ino()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error.into()),
    };
    Ok(linked && partial.is_file())
}

fn no_upload() -> Trouble {
    let why = "no upload of this object is open under this name".to_owned();
    Trouble::Refused(StoreErrorKind::UploadGone, why)
}

fn folders(key: &ObjectKey) -> impl Iterator<Item = &str> {
    let folders = key.as_str().rsplit_once('/').map(|(folders, _)| folders);
    folders.into_iter().flat_map(|folders| folders.split('/'))
}

fn file_name(key: &ObjectKey) -> &str {
    let name = key.as_str().rsplit('/').next();
    name.unwrap_or(key.as_str())
}

/// `.NAME.NONCE.partial` in the key's folder. The nonce has no dot, so that no two keys share a partial file.
fn partial_name(key: &ObjectKey, nonce: &str, count: u32) -> String {
    let nonce = utf8_percent_encode(nonce, NON_ALPHANUMERIC);
    let count = if count == 0 {
        String::new()
    } else {
        format!("-{count}")
    };
    format!("{}{nonce}{count}{PARTIAL}", partial_start(key))
}

fn partial_start(key: &ObjectKey) -> String {
    let name = file_name(key);
    if name.len() <= STEM_BYTES_MAX {
        return format!(".{name}.");
    }
    let cut = name.floor_char_boundary(STEM_BYTES_MAX);
    let head = name.get(..cut).unwrap_or_default();
    format!(".{head}~{}.", Crc64::of(name.as_bytes()))
}

fn is_partial_of(key: &ObjectKey, name: &str) -> bool {
    let nonce = name.strip_prefix(&partial_start(key));
    let nonce = nonce.and_then(|rest| rest.strip_suffix(PARTIAL));
    let is_nonce = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'-');
    nonce.is_some_and(|nonce| !nonce.is_empty() && nonce.bytes().all(is_nonce))
}

/// The partial file's path under the root.
fn upload_id(key: &ObjectKey, partial_name: &str) -> UploadId {
    match key.as_str().rsplit_once('/') {
        Some((folders, _)) => UploadId(format!("{folders}/{partial_name}")),
        None => UploadId(partial_name.to_owned()),
    }
}

fn modified(metadata: &Metadata) -> Option<Timestamp> {
    let since_epoch = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    let millis = i64::try_from(since_epoch.as_millis()).ok()?;
    Some(Timestamp::from_unix_millis(millis))
}
