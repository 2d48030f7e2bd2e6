//! What passed while the manifest could not be written: a small file beside it, from which it is learned later.
//!
//! The file has its whole length from the beginning, so that it can still be written when the disk is full. It holds a
//! line of JSON for each task and zeros behind them; what a torn write left is overwritten by the next line. A line
//! goes in before its caller is answered, and goes out once the manifest has committed it: dying in between learns it
//! twice, which is once.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::Mutex;
use url::Url;

use crate::clock::Timestamp;
use crate::manifest::owner::give_to_owner_of_folder;
use crate::model::task::TaskKey;

/// The length of the file: about 5,000 tasks without callbacks. More are left to discovery.
const FILE_BYTES: u64 = 1 << 20;

/// A disk that hangs is waited for no longer: a caller waits for its answer meanwhile.
const ADD_PATIENCE: Duration = Duration::from_secs(2);

/// A task that passed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Passed {
    provider: String,
    task_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    callback_url: Option<Url>,
    at_ms: i64,
}

/// The file. A clone is the same.
#[derive(Clone, Debug)]
pub struct Deferred {
    /// Held while the disk is at work, by one at a time: if that hangs, no more than one thread does.
    lines: Arc<Mutex<Lines>>,
    count: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Lines {
    file: File,
    /// What stands before this has been learned.
    begin: u64,
    /// Where the next line goes.
    end: u64,
    /// How many lines are between. Read by whoever must not wait for the disk.
    count: Arc<AtomicUsize>,
}

/// Lines that were read, to be taken out once they are learned.
#[derive(Debug)]
pub(super) struct Batch {
    /// What passed, oldest first. A line that cannot be read is left out.
    pub(super) passed: Vec<Passed>,
    /// How many lines could not be read.
    pub(super) unread: usize,
    end: u64,
}

impl Passed {
    pub(super) fn new(key: &TaskKey, callback: Option<Url>, at: Timestamp) -> Self {
        Self {
            provider: key.provider.to_string(),
            task_id: key.id.to_string(),
            callback_url: callback,
            at_ms: at.as_unix_millis(),
        }
    }

    /// The task; `None` where the names are none.
    pub(super) fn key(&self) -> Option<TaskKey> {
        Some(TaskKey {
            provider: self.provider.parse().ok()?,
            id: self.task_id.parse().ok()?,
        })
    }

    pub(super) fn callback(&self) -> Option<&Url> {
        self.callback_url.as_ref()
    }

    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.at_ms)
    }
}

impl Deferred {
    /// Opens the file at `path`, making it where it is missing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // A callback address may hold what only its owner should know.
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        if length == 0 {
            give_to_owner_of_folder(&file, path)?;
        }
        if length < FILE_BYTES {
            // Not every file system can set space aside; there a full disk is met when it is.
            if rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, FILE_BYTES)
                .is_err()
            {
                file.set_len(FILE_BYTES)?;
            }
            file.sync_all()?;
        }
        let text = read(&file)?;
        let end = whole_lines(&text).len();
        // A torn line, or what is left of lines that were being taken out.
        let rest = text.get(end..).unwrap_or_default();
        if rest.iter().any(|byte| *byte != 0) {
            file.write_all_at(&vec![0; rest.len()], to_u64(end))?;
        }
        let whole = whole_lines(&text);
        let count = whole.split_inclusive(|byte| *byte == b'\n').count();
        let count = Arc::new(AtomicUsize::new(count));
        let lines = Lines {
            file,
            begin: 0,
            end: to_u64(end),
            count: Arc::clone(&count),
        };
        Ok(Self {
            lines: Arc::new(Mutex::new(lines)),
            count,
        })
    }

    /// How many tasks wait to be learned.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Adds a task; on disk when this comes back well. What took too long may be there all the same.
    pub(super) async fn add(&self, passed: Passed) -> io::Result<()> {
        let adding = self.on_disk(move |lines| lines.add(&passed));
        match tokio::time::timeout(ADD_PATIENCE, adding).await {
            Ok(added) => added,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the disk does not answer",
            )),
        }
    }

    /// All that wait.
    pub(super) async fn batch(&self) -> io::Result<Batch> {
        self.on_disk(|lines| lines.batch()).await
    }

    /// Takes out what was read; what was added since stays. The file is emptied once nothing waits: a crash before that
    /// learns again what is known.
    pub(super) async fn take_out(&self, batch: Batch) -> io::Result<()> {
        self.on_disk(move |lines| lines.take_out(&batch)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Lines) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let mut lines = Arc::clone(&self.lines).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || work(&mut lines)).await;
        done.map_err(io::Error::other)?
    }
}

impl Lines {
    fn add(&mut self, passed: &Passed) -> io::Result<()> {
        let mut line = serde_json::to_vec(passed)?;
        line.push(b'\n');
        let end = self.end.saturating_add(to_u64(line.len()));
        if end > FILE_BYTES {
            let full = format!("{} tasks wait already", self.count.load(Ordering::Relaxed));
            return Err(io::Error::new(io::ErrorKind::StorageFull, full));
        }
        self.file.write_all_at(&line, self.end)?;
        self.file.sync_data()?;
        self.end = end;
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn batch(&self) -> io::Result<Batch> {
        let length = self.end.saturating_sub(self.begin);
        let mut text = vec![0; usize::try_from(length).unwrap_or_default()];
        self.file.read_exact_at(&mut text, self.begin)?;
        let read: Vec<Option<Passed>> = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).ok())
            .collect();
        Ok(Batch {
            unread: read.iter().filter(|line| line.is_none()).count(),
            passed: read.into_iter().flatten().collect(),
            end: self.end,
        })
    }

    fn take_out(&mut self, batch: &Batch) -> io::Result<()> {
        if batch.end == self.end {
            let zeros = vec![0; usize::try_from(self.end).unwrap_or_default()];
            self.file.write_all_at(&zeros, 0)?;
            self.file.sync_data()?;
            (self.begin, self.end) = (0, 0);
            self.count.store(0, Ordering::Relaxed);
        } else {
            self.begin = batch.end;
            let learned = batch.passed.len() + batch.unread;
            self.count.fetch_sub(learned, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut text = vec![0; usize::try_from(FILE_BYTES).unwrap_or_default()];
    file.read_exact_at(&mut text, 0)?;
    Ok(text)
}

/// The lines before the zeros, without one that has no end.
fn whole_lines(text: &[u8]) -> &[u8] {
    let used = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    let used = text.get(..used).unwrap_or_default();
    let whole = used
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    used.get(..whole).unwrap_or_default()
}

fn to_u64(length: usize) -> u64 {
    u64::try_from(length).expect("a length in memory fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(id: &str) -> Passed {
        let key = TaskKey {
            provider: "evolink".parse().unwrap(),
            id: id.parse().unwrap(),
        };
        Passed::new(
            &key,
            Some("https://caller.example/h?k=1".parse().unwrap()),
            Timestamp::from_unix_seconds(7),
        )
    }

    async fn ids(deferred: &Deferred) -> Vec<String> {
        let batch = deferred.batch().await.unwrap();
        assert_eq!(batch.passed.len() + batch.unread, deferred.count());
        batch
            .passed
            .iter()
            .map(|passed| passed.key().unwrap().id.to_string())
            .collect()
    }

    #[tokio::test]
    async fn what_passed_outlives_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.deferred");
        let deferred = Deferred::open(&path).unwrap();
        deferred.add(passed("a")).await.unwrap();
        deferred.add(passed("b")).await.unwrap();
        drop(deferred);
        let deferred = Deferred::open(&path).unwrap();
        assert_eq!(ids(&deferred).await, ["a", "b"]);
        let batch = deferred.batch().await.unwrap();
        assert_eq!(batch.passed[0], passed("a"));
        // What comes while the batch is learned stays.
        deferred.add(passed("c")).await.unwrap();
        deferred.take_out(batch).await.unwrap();
        assert_eq!(ids(&deferred).await, ["c"]);
        let again = ids(&Deferred::open(&path).unwrap()).await;
        assert_eq!(again, ["a", "b", "c"], "learned twice is learned once");
        let batch = deferred.batch().await.unwrap();
        deferred.take_out(batch).await.unwrap();
        assert_eq!(deferred.count(), 0);
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES);
    }

    #[tokio::test]
    async fn a_torn_line_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.deferred");
        Deferred::open(&path)
            .unwrap()
            .add(passed("a"))
            .await
            .unwrap();
        let mut text = std::fs::read(&path).unwrap();
        let end = whole_lines(&text).len();
        for (at, byte) in b"{\"provider\":\"evolink\",\"task_id\":\"torn-and-longer-than-the-next"
            .iter()
            .cycle()
            .take(900)
            .enumerate()
        {
            text[end + at] = *byte;
        }
        std::fs::write(&path, &text).unwrap();
        let deferred = Deferred::open(&path).unwrap();
        assert_eq!(ids(&deferred).await, ["a"]);
        deferred.add(passed("b")).await.unwrap();
        assert_eq!(ids(&Deferred::open(&path).unwrap()).await, ["a", "b"]);
    }

    #[tokio::test]
    async fn junk_is_told_and_a_full_file_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.deferred");
        std::fs::write(&path, "junk\n{\"provider\":1}\n").unwrap();
        let deferred = Deferred::open(&path).unwrap();
        let junk = deferred.batch().await.unwrap();
        assert_eq!(junk.unread, 2);
        deferred.take_out(junk).await.unwrap();
        let long = "x".repeat(256);
        let mut count = 0;
        let mut lines = deferred.lines.lock().await;
        while lines.end + 400 <= FILE_BYTES {
            // Not synced one by one: that would take long.
            let mut line = serde_json::to_vec(&passed(&long)).unwrap();
            line.push(b'\n');
            lines.file.write_all_at(&line, lines.end).unwrap();
            lines.end += to_u64(line.len());
            count += 1;
        }
        lines.count.store(count, Ordering::Relaxed);
        drop(lines);
        let full = deferred.add(passed(&long)).await;
        assert!(count > 2_000);
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(ids(&deferred).await.len(), count);
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hangs_stops_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.deferred");
        let deferred = Deferred::open(&path).unwrap();
        deferred.add(passed("a")).await.unwrap();
        let at_work = deferred.lines.lock().await;
        let late = deferred.add(passed("b")).await;
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(deferred.count(), 1);
        drop(at_work);
        deferred.add(passed("c")).await.unwrap();
        assert_eq!(ids(&deferred).await, ["a", "c"]);
    }
}
