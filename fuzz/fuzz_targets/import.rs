//! Import: whatever is in a file, each line is an announcement or is told by its number, and nothing panics.
#![no_main]

use std::io::BufReader;
use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use reelvault::intake::import::Format;
use reelvault::intake::import::Import;
use reelvault::intake::line::Accounts;
use reelvault::model::task::LearnedVia;
use reelvault::units::Span;

fuzz_target!(|text: (bool, u8, Vec<u8>)| {
    let (is_csv, buffer, text) = text;
    let lines = text.iter().filter(|byte| **byte == b'\n').count() + 1;
    let format = if is_csv { Format::Csv } else { Format::Lines };
    // A small buffer meets the lines at all of their places.
    let reader = BufReader::with_capacity(usize::from(buffer) + 1, Cursor::new(text));
    let Ok(mut import) = Import::new(Box::new(reader), format) else {
        return;
    };
    let provider = "house".parse().expect("a provider's name");
    let accounts = Accounts::new([(provider, Span::from_secs(60))]);
    let (mut count, mut before) = (0, 0);
    while let Some(numbered) = import.next_line().expect("memory can be read") {
        assert!(numbered.number > before, "numbers rise");
        before = numbered.number;
        count += 1;
        if let Ok(line) = numbered.line {
            let id = line.task_id.clone();
            if let Ok(announced) = accounts.announce(line, None, LearnedVia::Cli) {
                assert_eq!(announced.key.id, id);
            }
        }
    }
    assert!(count <= lines, "{count} of {lines} lines");
});
