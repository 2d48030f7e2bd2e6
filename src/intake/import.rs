//! Import: announcements out of a long text, a line each, as CSV with a header or as JSON lines.
//!
//! One line is one task, in CSV too: a quote that is not closed spoils its own line and no other, and memory is bounded
//! by the longest line that is taken, however long the text.

use std::io;
use std::io::BufRead;
use std::io::Read as _;

use csv_core::ReadRecordResult;
use csv_core::Reader;
use csv_core::ReaderBuilder;

use crate::intake::line::Line;
use crate::model::task::Tags;
use crate::model::task::TaskId;

/// A longer line is no announcement: an ID, a provider, a callback and some tags are far shorter.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// More columns than a task has labels.
const COLUMNS_MAX: usize = 256;

/// What separates columns, of which the header shows which one does.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// What a text begins with that some spreadsheets write.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A header, then a line of values each.
    Csv,
    /// A task ID or a JSON object on each line.
    Lines,
}

/// A header that cannot be used: nothing after it can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HeaderError(String);

/// A line and what it is, or why it is nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Numbered {
    /// From 1, as editors count.
    pub number: u64,
    /// The announcement, or what is wrong.
    pub line: Result<Line, String>,
}

/// Reads announcements one by one.
pub struct Import {
    text: Box<dyn BufRead + Send>,
    number: u64,
    columns: Option<Columns>,
}

/// Why a text cannot be read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The header.
    #[error("the header: {0}")]
    Header(#[from] HeaderError),
    /// The file or the pipe.
    #[error("line {number} cannot be read: {source}")]
    Read {
        /// The line.
        number: u64,
        /// Why.
        source: io::Error,
    },
}

impl Import {
    /// Begins to read `text`; of CSV the header.
    pub fn new(text: Box<dyn BufRead + Send>, format: Format) -> Result<Self, ImportError> {
        let mut import = Self {
            text,
            number: 0,
            columns: None,
        };
        if format == Format::Csv {
            let header = match import.next_filled()? {
                Some(Ok(header)) => header,
                Some(Err(why)) => return Err(HeaderError(why).into()),
                None => return Err(HeaderError("there is none".to_owned()).into()),
            };
            import.columns = Some(Columns::read(&header)?);
        }
        Ok(import)
    }

    /// The next line that is not blank; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<Numbered>, ImportError> {
        let Some(read) = self.next_filled()? else {
            return Ok(None);
        };
        let line = read.and_then(|text| match &mut self.columns {
            Some(columns) => columns.line(&text),
            None => Line::parse(text.trim()),
        });
        let number = self.number;
        Ok(Some(Numbered { number, line }))
    }

    /// At most `most` lines; none at the end.
    pub fn batch(&mut self, most: usize) -> Result<Vec<Numbered>, ImportError> {
        let mut batch = Vec::new();
        while batch.len() < most
            && let Some(line) = self.next_line()?
        {
            batch.push(line);
        }
        Ok(batch)
    }

    /// The text of the next line that is not blank, or why it is no text.
    fn next_filled(&mut self) -> Result<Option<Result<String, String>>, ImportError> {
        loop {
            let Some(bytes) = self.next_bytes()? else {
                return Ok(None);
            };
            let text = match bytes {
                Err(why) => return Ok(Some(Err(why))),
                Ok(bytes) => String::from_utf8(bytes),
            };
            match text {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => return Ok(Some(Ok(text))),
                Err(_) => return Ok(Some(Err("not UTF-8".to_owned()))),
            }
        }
    }

    fn next_bytes(&mut self) -> Result<Option<Result<Vec<u8>, String>>, ImportError> {
        self.number = self.number.saturating_add(1);
        let number = self.number;
        let failed = |source| ImportError::Read { number, source };
        let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bytes = Vec::new();
        let mut bounded = (&mut self.text).take(most.saturating_add(1));
        let length = bounded.read_until(b'\n', &mut bytes).map_err(failed)?;
        if length == 0 {
            return Ok(None);
        }
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        } else if length > LINE_BYTES_MAX {
            skip_line(&mut self.text).map_err(failed)?;
            let why = format!("longer than {LINE_BYTES_MAX} bytes");
            return Ok(Some(Err(why)));
        }
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
        if number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        Ok(Some(Ok(bytes)))
    }
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Import(line {})", self.number)
    }
}

/// Passes over the rest of a line, without keeping any of it.
fn skip_line(text: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffered = text.fill_buf()?;
        let end = buffered.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffered.len(), |end| end + 1);
        if length == 0 {
            return Ok(());
        }
        text.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// What each column of a CSV text is.
struct Columns {
    /// Made once: making one costs far more than reading a line with it.
    reader: Reader,
    columns: Vec<Column>,
}

enum Column {
    TaskId,
    Provider,
    Callback,
    Tag(String),
}

impl Columns {
    fn read(header: &str) -> Result<Self, HeaderError> {
        let is_used = |delimiter: &&u8| header.as_bytes().contains(delimiter);
        let delimiter = *DELIMITERS.iter().find(is_used).unwrap_or(&b',');
        let mut reader = ReaderBuilder::new().delimiter(delimiter).build();
        let names = fields(&mut reader, header).map_err(HeaderError)?;
        let columns: Result<Vec<Column>, _> = names
            .iter()
            .map(|name| Column::named(name.trim()))
            .collect();
        let columns = columns?;
        let ids = columns.iter().filter(|it| matches!(it, Column::TaskId));
        match ids.count() {
            1 => Ok(Self { reader, columns }),
            0 => Err(HeaderError("no column task_id".to_owned())),
            _ => Err(HeaderError("more than one column task_id".to_owned())),
        }
    }

    fn line(&mut self, text: &str) -> Result<Line, String> {
        let values = fields(&mut self.reader, text)?;
        if values.len() != self.columns.len() {
            let (found, wanted) = (values.len(), self.columns.len());
            return Err(format!(
                "{found} values, where the header has {wanted} columns"
            ));
        }
        let (mut id, mut provider, mut callback_url) = (None, None, None);
        let mut tags = Tags::new();
        for (column, value) in self.columns.iter().zip(&values) {
            let value = value.trim();
            match column {
                Column::TaskId => {
                    let read = value.parse::<TaskId>();
                    id = Some(read.map_err(|error| error.to_string())?);
                }
                _ if value.is_empty() => {}
                Column::Provider => {
                    let read = value.parse();
                    provider =
                        Some(read.map_err(|error: crate::model::WordError| error.to_string())?);
                }
                Column::Callback => {
                    let read = value.parse::<url::Url>();
                    callback_url = Some(read.map_err(|_| "callback_url is not a URL".to_owned())?);
                }
                Column::Tag(name) => {
                    tags.insert(name.clone(), value.to_owned());
                }
            }
        }
        let task_id = id.ok_or_else(|| "no task_id".to_owned())?;
        Ok(Line {
            task_id,
            provider,
            tags,
            callback_url,
        })
    }
}

impl Column {
    fn named(name: &str) -> Result<Self, HeaderError> {
        let tag = ["tags.", "tag."]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .filter(|tag| !tag.is_empty());
        match (name, tag) {
            ("task_id" | "id", _) => Ok(Column::TaskId),
            ("provider", _) => Ok(Column::Provider),
            ("callback_url", _) => Ok(Column::Callback),
            (_, Some(tag)) => Ok(Column::Tag(tag.to_owned())),
            (_, None) => {
                let name: String = name.chars().take(80).collect();
                Err(HeaderError(format!(
                    "unknown column {name:?}: there are task_id, provider, callback_url and tags.NAME"
                )))
            }
        }
    }
}

/// The values of one line.
fn fields(reader: &mut Reader, text: &str) -> Result<Vec<String>, String> {
    // The reader is lenient and would take the rest of the line for the value.
    if text.bytes().filter(|byte| *byte == b'"').count() % 2 == 1 {
        return Err("a quote is not closed".to_owned());
    }
    // Whatever the line before left behind.
    reader.reset();
    // Values are never longer than what they are read from.
    let mut bytes = vec![0; text.len().saturating_add(1)];
    let mut ends = [0; COLUMNS_MAX];
    let (mut filled, mut count) = (0, 0);
    let mut input = text.as_bytes();
    loop {
        let output = bytes.get_mut(filled..).unwrap_or_default();
        let places = ends.get_mut(count..).unwrap_or_default();
        let (result, read, written, ended) = reader.read_record(input, output, places);
        input = input.get(read..).unwrap_or_default();
        filled += written;
        count += ended;
        match result {
            // Once: the next call has an empty input, which tells the reader of the end.
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record if !input.is_empty() => {
                return Err("a line break in the middle".to_owned());
            }
            ReadRecordResult::Record | ReadRecordResult::End => break,
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                return Err(format!("more than {COLUMNS_MAX} values"));
            }
        }
    }
    let mut from = 0;
    let values = ends.iter().take(count).map(|end| {
        let value = bytes.get(from..*end).unwrap_or_default();
        from = *end;
        String::from_utf8_lossy(value).into_owned()
    });
    Ok(values.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn import(text: &[u8], format: Format) -> Result<Import, ImportError> {
        Import::new(Box::new(io::Cursor::new(text.to_vec())), format)
    }

    /// Every line in a few words.
    fn told(text: &[u8], format: Format) -> Vec<String> {
        let mut import = import(text, format).unwrap();
        let lines = import.batch(usize::MAX).unwrap();
        let tell = |it: Numbered| match it.line {
            Ok(line) => {
                let provider = line.provider.map(|it| format!(" of {it}"));
                let callback = line.callback_url.map(|it| format!(" to {it}"));
                let tags: Vec<String> =
                    line.tags.iter().map(|(k, v)| format!(" {k}={v}")).collect();
                let (provider, callback) =
                    (provider.unwrap_or_default(), callback.unwrap_or_default());
                format!(
                    "{}: {}{provider}{callback}{}",
                    it.number,
                    line.task_id,
                    tags.concat()
                )
            }
            Err(why) => format!("{}: error: {why}", it.number),
        };
        lines.into_iter().map(tell).collect()
    }

    #[track_caller]
    fn check(text: &str, format: Format, expected: &[&str]) {
        assert_eq!(told(text.as_bytes(), format), expected, "{text}");
    }

    #[test]
    fn csv_with_a_header() {
        let expected = ["2: a of house customer=x", "3: b", "5: c customer=y z"];
        let text = "task_id,provider,tags.customer\na,house,x\n b , , \n\nc,,\"y z\"\n";
        check(text, Format::Csv, &expected);
        check(&text.replace(',', ";"), Format::Csv, &expected);
        check(
            &text.replace(',', "\t").replace('\n', "\r\n"),
            Format::Csv,
            &expected,
        );
        check(&format!("\u{feff}{text}"), Format::Csv, &expected);
        let text = "tag.a,id,callback_url\n\"say \"\"hi\"\"\",t1,https://a.test/x?y=1,\n,t2,\n";
        let why = "2: error: 4 values, where the header has 3 columns";
        check(text, Format::Csv, &[why, "3: t2"]);
        let text = "tag.a,id\n\"say \"\"hi\"\", he said\",t1";
        check(text, Format::Csv, &["2: t1 a=say \"hi\", he said"]);
    }

    #[test]
    fn junk_spoils_its_own_line_only() {
        let id = "is not a task ID (1 to 256 visible ASCII characters, none of ? # %; slashes only between)";
        check(
            "id,provider\n\"a,house\nb,house\n,house\nc d,house\ne,Big House\nf\ng,house,x\nh,\"a\rb\"\ni\rj,house\n",
            Format::Csv,
            &[
                "2: error: a quote is not closed",
                "3: b of house",
                &format!("4: error: \"\" {id}"),
                &format!("5: error: \"c d\" {id}"),
                "6: error: \"Big House\" is not a provider name ([a-z][a-z0-9_]*, at most 64 long)",
                "7: error: 1 values, where the header has 2 columns",
                "8: error: 3 values, where the header has 2 columns",
                "9: error: \"a\\rb\" is not a provider name ([a-z][a-z0-9_]*, at most 64 long)",
                "10: error: a line break in the middle",
            ],
        );
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        let exact = "x".repeat(LINE_BYTES_MAX);
        let lines = told(
            format!("a\n{long}\n{exact}\nb\n{long}").as_bytes(),
            Format::Lines,
        );
        assert_eq!(lines[0], "1: a");
        assert_eq!(lines[1], "2: error: longer than 65536 bytes");
        assert!(lines[2].contains("is not a task ID"), "{}", lines[2].len());
        assert_eq!(lines[3..], ["4: b", "5: error: longer than 65536 bytes"]);
        let lines = told(b"a\n\xff\xfe\n{\"task_id\":\"b\"}\n{\n\0\n", Format::Lines);
        assert_eq!(lines[..2], ["1: a", "2: error: not UTF-8"]);
        assert_eq!(
            lines[2..4],
            ["3: b", "4: error: EOF while parsing an object"]
        );
        assert!(
            lines[4].starts_with("5: error: \"\\0\" is not"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_header_that_cannot_be_used_is_told() {
        let check = |text: &str, expected: &str| {
            let error = import(text.as_bytes(), Format::Csv).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("the header: {expected}"),
                "{text}"
            );
        };
        check("", "there is none");
        check("\n\n", "there is none");
        check("provider\n", "no column task_id");
        check("id,task_id\n", "more than one column task_id");
        let known = "there are task_id, provider, callback_url and tags.NAME";
        check("id,tags\n", &format!("unknown column \"tags\": {known}"));
        check("id,tags.\n", &format!("unknown column \"tags.\": {known}"));
        check(
            &format!("id{}\n", ",tags.a".repeat(300)),
            "more than 256 values",
        );
        check("id,\"x\n", "a quote is not closed");
    }

    proptest! {
        #[test]
        fn no_text_can_panic_us(bytes: Vec<u8>, is_csv: bool) {
            let format = if is_csv { Format::Csv } else { Format::Lines };
            if let Ok(mut import) = import(&bytes, format) {
                let lines = import.batch(usize::MAX).unwrap();
                prop_assert!(lines.len() <= bytes.len());
            }
        }

        #[test]
        fn no_row_can_panic_us(rows in "([a-z,;\"\t\r\n{}:]|\\PC){0,200}") {
            let text = format!("task_id,tags.a,provider\n{rows}");
            let mut import = import(text.as_bytes(), Format::Csv).unwrap();
            let lines = import.batch(usize::MAX).unwrap();
            let numbers: Vec<u64> = lines.iter().map(|line| line.number).collect();
            prop_assert!(numbers.is_sorted());
        }

        #[test]
        fn what_was_written_is_read(values in prop::collection::vec("[ -~]{0,20}", 1..5)) {
            let header: Vec<String> = (0..values.len()).map(|at| format!("tags.t{at}")).collect();
            let quoted: Vec<String> =
                values.iter().map(|it| format!("\"{}\"", it.replace('"', "\"\""))).collect();
            let text = format!("id,{}\nx,{}\n", header.join(","), quoted.join(","));
            let mut import = import(text.as_bytes(), Format::Csv).unwrap();
            let line = import.next_line().unwrap().unwrap().line.unwrap();
            for (at, value) in values.iter().enumerate() {
                let read = line.tags.get(&format!("t{at}")).map_or("", String::as_str);
                prop_assert_eq!(read, value.trim());
            }
        }
    }
}
