//! The files of a simulated provider and the links to them: how long each works, and what it leads to.

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::task::TaskId;
use crate::simulator::source::FileKind;
use crate::simulator::source::FileSource;
use crate::simulator::tasks::File;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::answer::unix_seconds;
use crate::simulator::world::World;

/// What a link leads to.
#[derive(Debug)]
pub(in crate::simulator) enum Opened {
    /// A file.
    File(Box<OpenedFile>),
    /// Nothing (any more), and the status that says so.
    Gone(u16),
}

/// A file and what its headers tell of it.
#[derive(Debug)]
pub(in crate::simulator) struct OpenedFile {
    pub(in crate::simulator) source: FileSource,
    pub(in crate::simulator) kind: FileKind,
    pub(in crate::simulator) etag: String,
    pub(in crate::simulator) modified: Timestamp,
}

impl World {
    pub(in crate::simulator) fn links(&self, id: &TaskId) -> Vec<String> {
        let inner = self.lock();
        inner
            .tasks
            .get(id)
            .map(|task| task.links(&self.base))
            .unwrap_or_default()
    }

    /// Follows a link.
    pub(in crate::simulator) fn open(
        &self,
        id: &TaskId,
        index: AssetIndex,
        format: &str,
        link: u32,
    ) -> Opened {
        let now = self.now();
        let inner = self.lock();
        let file = inner
            .tasks
            .get(id)
            .and_then(|task| Some((task, *task.file(index)?)));
        let Some((task, file)) = file else {
            return Opened::Gone(404);
        };
        let kind = task.wish.file_kind();
        if task.status(now) != Status::Completed || kind.as_str() != format || link > file.link {
            return Opened::Gone(404);
        }
        if link < file.link {
            return Opened::Gone(file.dead_status.unwrap_or(self.config.dead_status));
        }
        if now >= task.ends.plus(self.scaled(self.config.life)) {
            return Opened::Gone(self.config.dead_status);
        }
        let key = task.file_key(self.config.seed, index).unwrap_or(0);
        Opened::File(Box::new(OpenedFile {
            source: FileSource::new(kind, key, task.size.as_u64(), task.wish.seconds),
            kind,
            etag: format!("\"{key:016x}\""),
            // A file that changed was changed later.
            modified: Timestamp::from_unix_seconds(
                unix_seconds(task.ends) + i64::from(file.version),
            ),
        }))
    }

    /// The file at `index` as it is now, whether or not its link works.
    pub(in crate::simulator) fn source(
        &self,
        id: &TaskId,
        index: AssetIndex,
    ) -> Option<FileSource> {
        let inner = self.lock();
        let task = inner.tasks.get(id)?;
        let key = task.file_key(self.config.seed, index)?;
        let size = task.size.as_u64();
        Some(FileSource::new(
            task.wish.file_kind(),
            key,
            size,
            task.wish.seconds,
        ))
    }

    /// The file gets other bytes.
    pub(in crate::simulator) fn change_file(&self, id: &TaskId, index: AssetIndex) {
        self.with_file(id, index, |file| file.version += 1);
    }

    /// The file's link dies and it gets a fresh one.
    pub(in crate::simulator) fn kill_link(&self, id: &TaskId, index: AssetIndex, status: u16) {
        self.with_file(id, index, |file| {
            file.link += 1;
            file.dead_status = Some(status);
        });
    }

    fn with_file(&self, id: &TaskId, index: AssetIndex, change: impl FnOnce(&mut File)) {
        let mut inner = self.lock();
        let place = usize::try_from(index.0).unwrap_or(usize::MAX);
        if let Some(file) = inner
            .tasks
            .get_mut(id)
            .and_then(|task| task.files.get_mut(place))
        {
            change(file);
        }
    }
}
