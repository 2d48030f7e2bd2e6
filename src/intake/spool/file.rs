//! One spooled file: a JSON document of one task or an array of tasks, or lines of either IDs or JSON.

use std::fs;
use std::io;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Seek as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::OFlags;

use crate::intake::import::Format;
use crate::intake::import::Import;
use crate::intake::line::Line;
use crate::units::ByteSize;

/// What lies there may have been replaced since it was listed: no link is followed, and no pipe is waited for.
const NO_OTHER_FILE: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK);

/// Larger files are not read: nobody has so many tasks, and a look must end.
const FILE_BYTES_MAX: ByteSize = ByteSize::mib(256);

/// Larger files are read line by line only, since a document is held in memory whole.
const DOCUMENT_BYTES_MAX: ByteSize = ByteSize::mib(8);

/// As much of a file is held while it is seen whether it is a text.
const SCAN_BYTES: u64 = 64 << 10;

/// Where an announcement stands in its file, and what it is or what is wrong with it.
pub(super) type Placed = (String, Result<Line, String>);

/// An open file.
pub(super) enum File {
    /// The elements of a document, with the place of the next.
    Document(std::vec::IntoIter<serde_json::Value>, u64),
    Lines(Box<Import>),
    /// While a batch is read on another thread.
    Away,
}

impl File {
    /// Opens the file; a document is read whole. The error is for people.
    pub(super) async fn open(path: PathBuf) -> Result<Self, String> {
        let opened = tokio::task::spawn_blocking(move || open(&path)).await;
        opened.map_err(|error| error.to_string())?
    }

    /// At most `most` announcements; none at the end.
    pub(super) async fn batch(&mut self, most: usize) -> Result<Vec<Placed>, String> {
        let mut file = std::mem::replace(self, File::Away);
        let reading = tokio::task::spawn_blocking(move || (file.read(most), file));
        let (batch, file) = reading.await.map_err(|error| error.to_string())?;
        *self = file;
        batch
    }

    fn read(&mut self, most: usize) -> Result<Vec<Placed>, String> {
        match self {
            File::Document(elements, next) => {
                let elements = elements.take(most);
                let placed = elements.map(|element| {
                    let place = format!("task {next}");
                    *next = next.saturating_add(1);
                    (place, Line::of_element(element))
                });
                Ok(placed.collect())
            }
            File::Lines(import) => {
                let lines = import.batch(most).map_err(|error| error.to_string())?;
                let placed = lines.into_iter();
                Ok(placed
                    .map(|it| (format!("line {}", it.number), it.line))
                    .collect())
            }
            File::Away => Ok(Vec::new()),
        }
    }
}

fn open(path: &Path) -> Result<File, String> {
    let told = |error: io::Error| format!("cannot be read: {error}");
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(NO_OTHER_FILE.bits().cast_signed())
        .open(path);
    let mut file = opened.map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    if !metadata.is_file() {
        return Err("no file any more".to_owned());
    }
    let length = metadata.len();
    if length > FILE_BYTES_MAX.as_u64() {
        let length = ByteSize::bytes(length);
        return Err(format!(
            "{length} is too much: at most {FILE_BYTES_MAX} in a file"
        ));
    }
    check_text(&mut (&file).take(FILE_BYTES_MAX.as_u64()))?;
    file.rewind().map_err(told)?;
    if length > DOCUMENT_BYTES_MAX.as_u64() {
        return lines(Box::new(BufReader::new(file.take(FILE_BYTES_MAX.as_u64()))));
    }
    let mut text = Vec::new();
    let most = DOCUMENT_BYTES_MAX.as_u64();
    file.by_ref()
        .take(most)
        .read_to_end(&mut text)
        .map_err(told)?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err("nothing in it".to_owned());
    }
    // One object on one line is a document as well as a line, and means the same as both.
    match serde_json::from_slice(&text) {
        Ok(serde_json::Value::Array(elements)) => Ok(File::Document(elements.into_iter(), 1)),
        Ok(document @ (serde_json::Value::Object(_) | serde_json::Value::String(_))) => {
            Ok(File::Document(vec![document].into_iter(), 1))
        }
        Err(error) if text.trim_ascii_start().starts_with(b"[") => {
            Err(format!("neither a JSON array nor lines: {error}"))
        }
        // Some task IDs are numbers, and so documents of their own.
        Ok(_) | Err(_) => lines(Box::new(io::Cursor::new(text))),
    }
}

/// Refuses what is no text before any of it is read: a film has lines too, and what stands in them are no task IDs.
fn check_text(file: &mut impl io::Read) -> Result<(), String> {
    let (mut text, mut at) = (Vec::new(), 0);
    loop {
        let length = file
            .by_ref()
            .take(SCAN_BYTES)
            .read_to_end(&mut text)
            .map_err(|error| format!("cannot be read: {error}"))?;
        if let Some(place) = text.iter().position(|byte| *byte == 0) {
            return Err(format!("not a text: byte {} is zero", at + place));
        }
        let (whole, is_cut) = match std::str::from_utf8(&text) {
            Ok(_) => (text.len(), false),
            // A character that goes on in what is read next, if anything is.
            Err(error) => (
                error.valid_up_to(),
                error.error_len().is_some() || length == 0,
            ),
        };
        at += whole;
        if is_cut {
            return Err(format!("not a text: byte {at} is not UTF-8"));
        }
        if length == 0 {
            return Ok(());
        }
        text.drain(..whole);
    }
}

fn lines(text: Box<dyn io::BufRead + Send>) -> Result<File, String> {
    let import = Import::new(text, Format::Lines).map_err(|error| error.to_string())?;
    Ok(File::Lines(Box::new(import)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &[u8]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, text).unwrap();
        let mut file = match open(&path) {
            Ok(file) => file,
            Err(why) => return vec![format!("error: {why}")],
        };
        let mut told = Vec::new();
        loop {
            let batch = file.read(2).unwrap();
            if batch.is_empty() {
                return told;
            }
            told.extend(batch.into_iter().map(|(place, line)| match line {
                Ok(line) => format!("{place}: {}", line.task_id),
                Err(_) => format!("{place}: bad"),
            }));
        }
    }

    #[test]
    fn a_file_is_a_document_or_lines() {
        let check = |text: &str, expected: &[&str]| assert_eq!(told(text.as_bytes()), expected);
        check(r#"{"task_id":"a"}"#, &["task 1: a"]);
        check("{\n  \"task_id\": \"a\"\n}\n", &["task 1: a"]);
        check(
            r#"[{"task_id":"a"}, "b", 3, {"task_id":"c d"}]"#,
            &["task 1: a", "task 2: b", "task 3: bad", "task 4: bad"],
        );
        check("[]", &[]);
        check(
            "{\"task_id\":\"a\"}\nb\n\n{\"task_id\":7}\nc\n",
            &["line 1: a", "line 2: b", "line 4: bad", "line 5: c"],
        );
        check("a\n", &["line 1: a"]);
        check("17\n", &["line 1: 17"]);
        check("\"a\"", &["task 1: a"]);
        check(" \n", &["error: nothing in it"]);
        let cut = told(br#"[{"task_id":"a"}, {"#);
        assert!(
            cut[0].starts_with("error: neither a JSON array nor lines"),
            "{cut:?}"
        );
        assert_eq!(told(&vec![b'['; 100_000]).len(), 1, "nesting has a bound");
    }

    #[test]
    fn what_is_no_text_is_refused_as_a_whole() {
        let check = |text: &[u8], expected: &str| {
            assert_eq!(told(text), [format!("error: not a text: {expected}")]);
        };
        check(b"good\nftyp\0isom\n", "byte 9 is zero");
        check(b"good\n\xff\n", "byte 5 is not UTF-8");
        check(b"good\n\xc3", "byte 5 is not UTF-8");
        // A character across the border of what is read at once.
        let border = usize::try_from(SCAN_BYTES).unwrap() - 1;
        let mut text = vec![b'\n'; border];
        text.extend("é\n".as_bytes());
        assert_eq!(told(&text), [format!("line {}: bad", border + 1)]);
        text.push(0);
        check(&text, &format!("byte {} is zero", border + 3));
    }

    #[test]
    fn what_took_the_place_of_a_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let [secret, link, pipe] = ["secret", "link", "pipe"].map(|name| folder.path().join(name));
        fs::write(&secret, "sk-canary\n").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(open(&secret).is_ok());
        for other in [&link, &pipe] {
            assert!(open(other).is_err(), "{}", other.display());
        }
    }
}
