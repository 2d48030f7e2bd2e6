//! JSON as the bytes that it is: where values stand in a text, so that one can be replaced and every other byte stays.
//!
//! Reading an answer into values and writing it again would lose what values do not hold: the order and the doubles of
//! members, how a number is written, the space between. Here only places are read.

use std::ops::Range;

use serde_json::Value;

/// Some servers begin their JSON with it; RFC 8259 lets a reader pass it over.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How bodies begin that are compressed with gzip or zstd.
const COMPRESSED: [&[u8]; 2] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];

/// What nests deeper is not read, as with `serde_json`: it bounds the recursion.
const DEPTH_MAX: usize = 128;

/// A value, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// The bytes of the value, its quotes or brackets included.
    pub(super) range: Range<usize>,
    pub(super) shape: Shape,
}

/// What a value is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The members in the order of the text, doubles included.
    Object(Vec<(String, Node)>),
    Array(Vec<Node>),
    String,
    /// A number, `true`, `false` or `null`.
    Plain,
}

/// A replacement of some bytes of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) with: Vec<u8>,
}

/// Why a text is no JSON.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotJson {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// Somebody compressed it.
    #[error("it is compressed")]
    Compressed,
    /// Its bytes are no text.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is the beginning of one.
    #[error("it ends too early")]
    Cut,
    /// Anything else, such as a page in HTML, or one that nests too deeply.
    #[error("{0}")]
    Malformed(serde_json::Error),
}

/// `text` as a value.
pub(super) fn parse(text: &[u8]) -> Result<Value, NotJson> {
    let bare = without_mark(text);
    serde_json::from_slice(bare).map_err(|error| {
        if bare.is_empty() {
            NotJson::Empty
        } else if COMPRESSED.iter().any(|begin| bare.starts_with(begin)) {
            NotJson::Compressed
        } else if std::str::from_utf8(bare).is_err() {
            NotJson::NotUtf8
        } else if error.is_eof() {
            NotJson::Cut
        } else {
            NotJson::Malformed(error)
        }
    })
}

fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

/// The places of all values of `text`; `None` where it is no JSON, or nests too deeply.
pub(super) fn read(text: &[u8]) -> Option<Node> {
    // Who judges what is JSON is the same for values and for places; this reader trusts that judgement.
    let bare = without_mark(text);
    let _: serde::de::IgnoredAny = serde_json::from_slice(bare).ok()?;
    let at = text.len() - bare.len();
    let mut reader = Reader { text, at };
    reader.value(DEPTH_MAX)
}

/// The text of the string at `range`, its escapes read.
pub(super) fn string_at(text: &[u8], range: &Range<usize>) -> Option<String> {
    serde_json::from_slice(text.get(range.clone())?).ok()
}

/// A string as JSON.
pub(super) fn written(text: &str) -> Vec<u8> {
    serde_json::to_vec(text).expect("a text is written as a JSON string")
}

/// `text` with `edits` made. Of edits that overlap the first in the text is made.
pub(super) fn edited(text: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.range.start);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for edit in edits {
        if edit.range.start < at {
            continue;
        }
        out.extend_from_slice(text.get(at..edit.range.start).unwrap_or_default());
        out.extend_from_slice(&edit.with);
        at = edit.range.end;
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
    out
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Node> {
        self.space();
        let start = self.at;
        let shape = match self.text.get(start)? {
            b'{' => Shape::Object(self.members(depth.checked_sub(1)?)?),
            b'[' => Shape::Array(self.elements(depth.checked_sub(1)?)?),
            b'"' => {
                self.string()?;
                Shape::String
            }
            _ => {
                self.plain();
                Shape::Plain
            }
        };
        Some(Node {
            range: start..self.at,
            shape,
        })
    }

    fn members(&mut self, depth: usize) -> Option<Vec<(String, Node)>> {
        let mut members = Vec::new();
        self.at += 1;
        while !self.ends_with(b'}')? {
            let start = self.at;
            self.string()?;
            let name = string_at(self.text, &(start..self.at))?;
            self.space();
            self.at += 1;
            members.push((name, self.value(depth)?));
        }
        Some(members)
    }

    fn elements(&mut self, depth: usize) -> Option<Vec<Node>> {
        let mut elements = Vec::new();
        self.at += 1;
        while !self.ends_with(b']')? {
            elements.push(self.value(depth)?);
        }
        Some(elements)
    }

    /// Whether the container ends here; steps over its end, or over the comma before what comes next.
    fn ends_with(&mut self, end: u8) -> Option<bool> {
        self.space();
        if *self.text.get(self.at)? == b',' {
            self.at += 1;
            self.space();
        }
        let is_end = *self.text.get(self.at)? == end;
        self.at += usize::from(is_end);
        Some(is_end)
    }

    fn string(&mut self) -> Option<()> {
        self.at += 1;
        loop {
            match self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn plain(&mut self) {
        while let Some(byte) = self.text.get(self.at)
            && !b",]} \t\r\n".contains(byte)
        {
            self.at += 1;
        }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.text.get(self.at) {
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The value that the places in `text` say it is.
    fn rebuilt(text: &[u8], node: &Node) -> Value {
        match &node.shape {
            Shape::Object(members) => members
                .iter()
                .map(|(name, inner)| (name.clone(), rebuilt(text, inner)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            Shape::Array(elements) => elements.iter().map(|inner| rebuilt(text, inner)).collect(),
            Shape::String => string_at(text, &node.range).unwrap().into(),
            Shape::Plain => serde_json::from_slice(&text[node.range.clone()]).unwrap(),
        }
    }

    #[test]
    fn places_are_those_of_the_values() {
        let text = br#" { "a" : [ 1.50 , "x\"]}" , {} , [] ] , "b\u0061":null,"a":true } "#;
        let node = read(text).unwrap();
        assert_eq!(
            rebuilt(text, &node),
            serde_json::from_slice::<Value>(text).unwrap()
        );
        let Shape::Object(members) = &node.shape else {
            panic!("{node:?}")
        };
        let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "ba", "a"], "doubles are kept");
        for bad in [
            "",
            "{",
            "[1,]",
            "{\"a\":1,}",
            "{} x",
            "'a'",
            "\u{feff}",
            "\u{feff}\u{feff}{}",
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
        let deep = |levels| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(deep(127).as_bytes()).is_some());
        assert!(read(deep(100_000).as_bytes()).is_none());
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let text = "\u{feff}{\"a\":1}".as_bytes();
        assert_eq!(parse(text).unwrap(), serde_json::json!({"a": 1}));
        let Shape::Object(members) = read(text).unwrap().shape else {
            panic!("an object")
        };
        assert_eq!(members[0].1.range, 8..9);
    }

    #[test]
    fn what_is_no_json_says_why() {
        let check = |text: &[u8], why: &str| {
            assert_eq!(parse(text).unwrap_err().to_string(), why, "{text:?}");
        };
        check(b"", "it is empty");
        check(b"\xef\xbb\xbf", "it is empty");
        check(b"\x1f\x8b\x08\0\0\0", "it is compressed");
        check(b"{\"a\":\"\xfc\"}", "it is not UTF-8");
        check(b"{\"a\":", "it ends too early");
        check(b"<html>", "expected value at line 1 column 1");
        check(
            "[".repeat(200).as_bytes(),
            "recursion limit exceeded at line 1 column 128",
        );
    }

    #[test]
    fn edits_touch_nothing_else() {
        let edit = |range, with: &str| Edit {
            range,
            with: with.into(),
        };
        let edits = vec![edit(4..5, "Y"), edit(0..2, "long"), edit(1..3, "lost")];
        assert_eq!(edited(b"0123456", edits), b"long23Y56");
        assert_eq!(edited(b"012", Vec::new()), b"012");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[\\\\\"{}\\[\\],:]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,3}", inner, 0..6).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_json_reads_it(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
            let text = text.unwrap();
            // A number need not come back as it went, but from one text it comes in one way.
            let value: Value = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(rebuilt(&text, &read(&text).unwrap()), value);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[\\[\\]{}\",:a1\\\\ ]{0,40}") {
            drop(read(&bytes));
            let is_json = serde_json::from_str::<Value>(&text).is_ok();
            prop_assert_eq!(read(text.as_bytes()).is_some(), is_json);
        }
    }
}
