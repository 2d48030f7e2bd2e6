//! An answer with other links in it: only the strings in question are replaced, every other byte stays.

use crate::provider::json;
use crate::provider::json::Edit;
use crate::provider::json::Node;
use crate::provider::json::Shape;
use crate::provider::pointer::Pointer;
use crate::provider::pointer::Step;

/// JSON inside of a string inside of JSON ends somewhere.
const NESTED_MAX: usize = 4;

/// Replaces the strings that `pointers` find by what `with` gives for them; those for which it gives nothing stay.
///
/// Where a member stands twice, both are meant: which of them a reader takes is the reader's affair.
pub(super) fn replace_strings(
    text: &[u8],
    pointers: &[Pointer],
    with: &mut dyn FnMut(&str) -> Option<String>,
) -> Vec<u8> {
    let mut text = text.to_vec();
    // One after the other: two pointers may go into the same text within a string.
    for pointer in pointers {
        if let Some(new) = replaced(&text, pointer.steps(), NESTED_MAX, with) {
            text = new;
        }
    }
    text
}

/// Replaces every string that `with` gives something for, wherever it stands; the names of members stay.
pub(super) fn replace_everywhere(
    text: &[u8],
    with: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
) -> Vec<u8> {
    let mut edits = Vec::new();
    if let Some(root) = json::read(text) {
        every_string(text, &root, with, &mut edits);
    }
    json::edited(text, edits)
}

/// Replaces the values at `pointer`, whatever they are, by `with`.
pub(super) fn replace_values(text: &[u8], pointer: &Pointer, with: &[u8]) -> Vec<u8> {
    let mut edits = Vec::new();
    if let Some(root) = json::read(text) {
        visit(&root, pointer.steps(), &mut |node, rest| {
            if rest.is_empty() {
                edits.push(Edit {
                    range: node.range.clone(),
                    with: with.to_vec(),
                });
            }
        });
    }
    json::edited(text, edits)
}

/// Empties what holds the links that `pointer` finds, if it finds any: the list itself where it is one, else the value.
pub(super) fn withhold(text: &[u8], pointer: &Pointer) -> Vec<u8> {
    let is_name = |step: &&Step| matches!(step, Step::Name(_));
    let named: Vec<Step> = pointer
        .steps()
        .iter()
        .take_while(is_name)
        .cloned()
        .collect();
    let mut edits = Vec::new();
    if let Some(root) = json::read(text) {
        let mut has_links = false;
        visit(&root, pointer.steps(), &mut |node, _| {
            has_links |= node.shape == Shape::String;
        });
        if !has_links {
            return text.to_vec();
        }
        visit(&root, &named, &mut |node, _| {
            let with: &[u8] = match node.shape {
                Shape::Array(_) => b"[]",
                Shape::Object(_) | Shape::String | Shape::Plain => b"null",
            };
            edits.push(Edit {
                range: node.range.clone(),
                with: with.to_vec(),
            });
        });
    }
    json::edited(text, edits)
}

/// Where the values at `pointer` stand, in the order of the answer.
pub(super) fn places(text: &[u8], pointer: &Pointer) -> Vec<std::ops::Range<usize>> {
    let mut places = Vec::new();
    if let Some(root) = json::read(text) {
        visit(&root, pointer.steps(), &mut |node, rest| {
            if rest.is_empty() {
                places.push(node.range.clone());
            }
        });
    }
    places
}

/// The text with what `steps` find replaced; `None` where that is nothing.
fn replaced(
    text: &[u8],
    steps: &[Step],
    nested: usize,
    with: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<Vec<u8>> {
    let root = json::read(text)?;
    let mut edits = Vec::new();
    visit(&root, steps, &mut |node, rest| {
        if node.shape != Shape::String {
            return;
        }
        let Some(said) = json::string_at(text, &node.range) else {
            return;
        };
        let new = match (rest.split_first(), nested.checked_sub(1)) {
            (None, _) => with(&said),
            (Some((_, rest)), Some(nested)) => replaced(said.as_bytes(), rest, nested, with)
                .and_then(|inner| String::from_utf8(inner).ok()),
            (Some(_), None) => None,
        };
        if let Some(new) = new {
            edits.push(Edit {
                range: node.range.clone(),
                with: json::written(&new),
            });
        }
    });
    (!edits.is_empty()).then(|| json::edited(text, edits))
}

/// Shows `see` each value that `steps` lead to, with the steps that are left: none, or those from a `#` on.
fn visit(node: &Node, steps: &[Step], see: &mut dyn FnMut(&Node, &[Step])) {
    let Some((step, rest)) = steps.split_first() else {
        return see(node, steps);
    };
    match (step, &node.shape) {
        (Step::Name(name), Shape::Object(members)) => {
            for (_, inner) in members.iter().filter(|(own, _)| own == name) {
                visit(inner, rest, see);
            }
        }
        (Step::Name(name), Shape::Array(elements)) => {
            let is_number =
                name == "0" || name.starts_with(|c: char| c.is_ascii_digit() && c != '0');
            let at = name.parse::<usize>().ok().filter(|_| is_number);
            if let Some(inner) = at.and_then(|at| elements.get(at)) {
                visit(inner, rest, see);
            }
        }
        (Step::Each, _) => inner(node).for_each(|inner| visit(inner, rest, see)),
        (Step::Links, Shape::String) => see(node, rest),
        (Step::Links, _) => inner(node).for_each(|inner| visit(inner, steps, see)),
        (Step::Parse, Shape::String) => see(node, steps),
        (Step::Parse, Shape::Object(_) | Shape::Array(_) | Shape::Plain)
        | (Step::Name(_), Shape::String | Shape::Plain) => {}
    }
}

fn inner(node: &Node) -> Box<dyn Iterator<Item = &Node> + '_> {
    match &node.shape {
        Shape::Object(members) => Box::new(members.iter().map(|(_, inner)| inner)),
        Shape::Array(elements) => Box::new(elements.iter()),
        Shape::String | Shape::Plain => Box::new(std::iter::empty()),
    }
}

fn every_string(
    text: &[u8],
    node: &Node,
    with: &mut dyn FnMut(&str) -> Option<Vec<u8>>,
    edits: &mut Vec<Edit>,
) {
    if node.shape == Shape::String {
        let new = json::string_at(text, &node.range).and_then(|said| with(&said));
        edits.extend(new.map(|with| Edit {
            range: node.range.clone(),
            with,
        }));
    }
    inner(node).for_each(|inner| every_string(text, inner, with, edits));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn pointer(text: &str) -> Pointer {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check(pointers: &[&str], text: &str, expected: &str) {
        let pointers: Vec<Pointer> = pointers.iter().map(|text| pointer(text)).collect();
        let mut with = |said: &str| {
            said.strip_prefix("https://old/")
                .map(|rest| format!("https://new/{rest}"))
        };
        let got = replace_strings(text.as_bytes(), &pointers, &mut with);
        assert_eq!(String::from_utf8(got).unwrap(), expected);
    }

    #[test]
    fn only_the_strings_in_question_change() {
        check(
            &["/results", "/results/*", "/results/*/url"],
            "{ \"n\":1.0e2,\n\"results\" : [ \"https:\\/\\/old\\/a\" ,{\"url\":\"https://old/b\",\"x\":\"https://old/c\"}, \"https://else/d\"],\"input\":\"https://old/e\"}",
            "{ \"n\":1.0e2,\n\"results\" : [ \"https://new/a\" ,{\"url\":\"https://new/b\",\"x\":\"https://old/c\"}, \"https://else/d\"],\"input\":\"https://old/e\"}",
        );
        check(
            &["/url"],
            r#"{"url":"https://old/1","url":"https://old/2"}"#,
            r#"{"url":"https://new/1","url":"https://new/2"}"#,
        );
        check(
            &["/data/#/urls/*", "/data/#/cover", "/all/**"],
            r#"{"data":"{\"urls\":[\"https://old/1\"], \"cover\":\"https://old/2\"}","all":[["https://old/3"],"x",{"b":"https://old/4"}]}"#,
            r#"{"data":"{\"urls\":[\"https://new/1\"], \"cover\":\"https://new/2\"}","all":[["https://new/3"],"x",{"b":"https://new/4"}]}"#,
        );
        check(
            &["/1", "/01"],
            r#"["https://old/a","https://old/b"]"#,
            r#"["https://old/a","https://new/b"]"#,
        );
        for same in ["no json", "{\"url\":7}", "", "{\"data\":\"{\"}"] {
            check(&["/url", "/data/#/url"], same, same);
        }
    }

    #[test]
    fn links_can_be_withheld() {
        let text = br#"{"results":["a", "b"],"data":{"video_url":"c","n":1}}"#;
        assert_eq!(
            withhold(text, &pointer("/results/*/url")),
            text,
            "there is none"
        );
        let text = withhold(text, &pointer("/results/*"));
        let text = withhold(&text, &pointer("/data/video_url"));
        assert_eq!(text, br#"{"results":[],"data":{"video_url":null,"n":1}}"#);
        let text = replace_values(&text, &pointer("/data/n"), b"\"x\"");
        assert_eq!(text, br#"{"results":[],"data":{"video_url":null,"n":"x"}}"#);
    }

    #[test]
    fn a_string_can_be_replaced_wherever_it_stands() {
        let mut with = |said: &str| (said == "ours").then(|| b"null".to_vec());
        let got = replace_everywhere(
            br#"{"ours":["ours",{"a":"our\u0073"}],"b":"ours "}"#,
            &mut with,
        );
        assert_eq!(got, br#"{"ours":[null,{"a":null}],"b":"ours "}"#);
    }

    proptest! {
        /// The pointer finds the same values by their places as it does among values.
        #[test]
        fn places_and_values_agree(
            text in "\\{\"a\":[\\[\\]{}\",:ab1]{0,24}\\}",
            at in prop::sample::select(vec!["/a", "/a/*", "/a/b", "/a/0", "/*/*/b", ""]),
        ) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                let by_place: Vec<Value> = places(text.as_bytes(), &pointer(at))
                    .into_iter()
                    .map(|range| serde_json::from_str(&text[range]).unwrap())
                    .collect();
                let mut by_value = Vec::new();
                pointer(at).each(&value, |value| by_value.push(value.clone())).unwrap();
                // Values know no doubles, and put their members in order.
                for value in by_value {
                    prop_assert!(by_place.contains(&value), "{} {:?}", text, at);
                }
            }
        }

        #[test]
        fn what_changes_nothing_keeps_every_byte(text in "\\PC{0,60}") {
            let pointers = ["/**", "/*", "/a/#/**"].map(pointer);
            let same = replace_strings(text.as_bytes(), &pointers, &mut |_| None);
            prop_assert_eq!(same, text.as_bytes());
        }
    }
}
