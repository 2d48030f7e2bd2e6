//! Submissions on their way: what goes in, what comes out, and what no byte of may change.

use std::sync::Arc;
use std::sync::Mutex;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const OURS: &str = "https://ours/h";

fn is_taken(said: &Value) -> bool {
    said.is_null() || said.as_str().is_some_and(|said| said.starts_with("https:"))
}

/// What comes out of `text`, cut into pieces of `piece` bytes, and the values that were taken out.
fn spliced(text: &[u8], ours: Option<&str>, piece: usize) -> (Vec<u8>, Vec<String>) {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let takes = Arc::clone(&taken);
    let judge = move |said: &[u8]| {
        let said: Option<Value> = serde_json::from_slice(said).ok();
        let is_address = said.as_ref().is_some_and(is_taken);
        if is_address {
            takes.lock().unwrap().push(said.unwrap().to_string());
        }
        is_address
    };
    let mut splice = Splice::new("callback_url", ours, Box::new(judge));
    let growth = match Splice::is_object(text) {
        Some(true) => splice.growth(),
        Some(false) | None => 0,
    };
    let mut out = Vec::new();
    for piece in text.chunks(piece.max(1)) {
        out.extend(splice.push(piece));
    }
    out.extend(splice.finish());
    assert_eq!(out.len(), text.len() + growth, "the length was promised");
    let taken = taken.lock().unwrap().clone();
    (out, taken)
}

/// `without` and `with` are what comes out without and with an address of ours.
#[track_caller]
fn check(text: &str, without: &str, with: &str) {
    for piece in [1, 2, 3, 7, 1000] {
        let (out, _) = spliced(text.as_bytes(), None, piece);
        assert_eq!(String::from_utf8(out).unwrap(), without);
        let (out, _) = spliced(text.as_bytes(), Some(OURS), piece);
        assert_eq!(String::from_utf8(out).unwrap(), with);
    }
}

#[test]
fn ours_goes_in_and_nothing_else_changes() {
    check(
        r#"{"model":"m", "n": 1.0e+2 }"#,
        r#"{"model":"m", "n": 1.0e+2 }"#,
        r#"{"callback_url":"https://ours/h","model":"m", "n": 1.0e+2 }"#,
    );
    check("{}", "{}", r#"{"callback_url":"https://ours/h" }"#);
    check(
        "\u{feff} {\r\n}\n",
        "\u{feff} {\r\n}\n",
        "\u{feff} {\"callback_url\":\"https://ours/h\" \r\n}\n",
    );
}

#[test]
fn the_callers_own_goes_out_wherever_it_stands() {
    check(
        r#"{"callback_url":"https:x","a":1}"#,
        r#"{                         "a":1}"#,
        r#"{"callback_url":"https://ours/h"                         ,"a":1}"#,
    );
    check(
        r#"{"a":1,"callback_url" : "https:x"}"#,
        r#"{"a":1                           }"#,
        r#"{"callback_url":"https://ours/h","a":1                           }"#,
    );
    check(
        r#"{"callback_url":null}"#,
        "{                   }",
        r#"{"callback_url":"https://ours/h"                    }"#,
    );
    // Doubles, and another spelling of the name.
    let taken = " ".repeat(r#""callback_url":"https:x","callback\u005furl":"https:y""#.len());
    check(
        r#"{"callback_url":"https:x","callback\u005furl":"https:y","a":1,"callback_url":"https:z","b":2}"#,
        &format!(r#"{{{taken} "a":1                         ,"b":2}}"#),
        &format!(
            r#"{{"callback_url":"https://ours/h" {taken},"a":1                         ,"b":2}}"#
        ),
    );
    // Within another member it is another field.
    let inner = r#"{"a":{"callback_url":"https:x"},"b":["callback_url","}"],"c":"\"callback_url\":\"https:x\""}"#;
    check(
        inner,
        inner,
        &inner.replacen('{', r#"{"callback_url":"https://ours/h","#, 1),
    );
}

#[test]
fn what_is_no_address_stays_for_the_provider_to_judge() {
    let odd = r#"{"callback_url":7,"callback_url":{"a":",}"},"callback_url":""}"#;
    check(
        odd,
        odd,
        &odd.replacen('{', r#"{"callback_url":"https://ours/h","#, 1),
    );
    let long = format!(
        r#"{{"callback_url":"https:{}","a":1}}"#,
        "x".repeat(HELD_BYTES_MAX)
    );
    check(
        &long,
        &long,
        &long.replacen('{', r#"{"callback_url":"https://ours/h","#, 1),
    );
    let named = format!(
        r#"{{"a":1,"{}\"callback_url":"https:x"}}"#,
        "x".repeat(HELD_BYTES_MAX)
    );
    check(
        &named,
        &named,
        &named.replacen('{', r#"{"callback_url":"https://ours/h","#, 1),
    );
}

#[test]
fn what_is_no_json_passes() {
    for text in [
        "",
        "[{\"callback_url\":\"https:x\"}]",
        "callback_url=https:x",
        "\"{\"",
        "  ",
        "7",
    ] {
        check(text, text, text);
    }
    for text in [
        "{",
        "{,\"callback_url\":\"https:x\"}",
        "{7}",
        "{\"a\":1,,\"callback_url\":\"https:x\"}",
        "{\"callback_url\"",
        "{\"callback_url\":\"https:x\"",
        "{\"a\":1]\"callback_url\":\"https:x\"}",
        "{\"callback_url\" \"https:x\"}",
    ] {
        let (out, taken) = spliced(text.as_bytes(), None, 3);
        assert_eq!(out, text.as_bytes());
        assert_eq!(taken, [""; 0]);
        let (out, _) = spliced(text.as_bytes(), Some(OURS), 3);
        let rest = out
            .strip_prefix(b"{\"callback_url\":\"https://ours/h\"")
            .unwrap();
        assert_eq!(&rest[1..], &text.as_bytes()[1..]);
    }
}

#[test]
fn a_huge_body_is_not_kept() {
    let mut splice = Splice::new("callback_url", Some(OURS), Box::new(|_| true));
    let mut length = splice.push(b"{\"image\":\"").len();
    let piece = vec![b'A'; 64 * 1024];
    for _ in 0..256 {
        length += splice.push(&piece).len();
        assert!(splice.held.capacity() <= 2 * HELD_BYTES_MAX);
    }
    length += splice.push(b"\"}").len();
    assert_eq!(length, 10 + 256 * piece.len() + 2 + splice.growth());
    let mut deep = Splice::new("callback_url", Some(OURS), Box::new(|_| true));
    let levels = "[".repeat(1 << 20);
    let out = deep.push(format!("{{\"a\":{levels}").as_bytes());
    assert_eq!(out.len(), levels.len() + 5 + deep.growth());
}

fn any_member() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        3 => Just("\"callback_url\"".to_owned()),
        1 => Just("\"callback\\u005Furl\"".to_owned()),
        2 => "[a-z]{0,3}".prop_map(|name| format!("\"{name}\"")),
        1 => Just("\"\\\"callback_url\"".to_owned()),
    ];
    let value = prop_oneof![
        3 => Just("\"https:x/?a=\\\"}\"".to_owned()),
        1 => Just("null".to_owned()),
        1 => Just("{\"callback_url\":\"https:in\",\"b\":[1,{}]}".to_owned()),
        1 => Just("\"\\\\\"".to_owned()),
        1 => Just("-1.50E+3".to_owned()),
        1 => Just("[ ]".to_owned()),
    ];
    let space = prop::sample::select(vec!["", " ", "\n\t"]);
    (space.clone(), name, space.clone(), value, space)
        .prop_map(|(a, name, b, value, c)| format!("{a}{name}{b}:{b}{value}{c}"))
}

/// The members of an object in order, doubles included; `serde_json` alone would keep the last.
struct Members(Vec<(String, Value)>);

impl<'de> serde::Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

proptest! {
    #[test]
    fn any_object_loses_its_callbacks_and_gains_ours(
        members in prop::collection::vec(any_member(), 0..6),
        tail in prop::sample::select(vec!["", "\n"]),
        has_ours in any::<bool>(),
        piece in 1usize..40,
    ) {
        let text = format!("{{{}}}{tail}", members.join(","));
        let ours = has_ours.then_some(OURS);
        let (out, taken) = spliced(text.as_bytes(), ours, piece);
        let before: Members = serde_json::from_str(&text).unwrap();
        let after: Members = serde_json::from_slice(&out).unwrap();
        let goes = |(name, value): &&(String, Value)| name == "callback_url" && is_taken(value);
        let mut expected: Vec<(String, Value)> = ours.map(|ours| ("callback_url".to_owned(), ours.into())).into_iter().collect();
        expected.extend(before.0.iter().filter(|member| !goes(member)).cloned());
        prop_assert_eq!(&after.0, &expected);
        prop_assert_eq!(taken.len(), before.0.iter().filter(goes).count());
        // Every byte that went out as another is a space now: those of the field, and the comma beside it.
        let grown = if has_ours { out.len() - text.len() } else { 0 };
        let kept = std::iter::once(out[0]).chain(out[1 + grown..].iter().copied());
        for (old, new) in text.bytes().zip(kept) {
            prop_assert!(old == new || new == b' ');
        }
    }

    #[test]
    fn no_bytes_panic_it_and_none_are_lost(
        text in "\\{?[{}\\[\\]\",:a\\\\ ]{0,12}(\"callback_url\":\"https:x\")?[{}\\[\\]\",:a\\\\ ]{0,12}",
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        piece in 1usize..20,
    ) {
        for text in [text.as_bytes(), &bytes] {
            for ours in [None, Some(OURS)] {
                let (out, taken) = spliced(text, ours, piece);
                if taken.is_empty() && ours.is_none() {
                    prop_assert_eq!(&out, text);
                }
                // What was JSON is JSON, and what was none is none.
                let is_json = |text: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
                prop_assert_eq!(is_json(&out), is_json(text), "{:?}", String::from_utf8_lossy(&out));
            }
        }
    }
}
