//! Pointers into a JSON answer: RFC 6901, plus `*` (each element), `**` (every http string below), `#` (a string that holds JSON).

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::de::SeqAccess;
use serde::de::Visitor;
use serde_json::Value;

/// No known answer needs a deeper pointer; it also bounds the recursion, `**` apart.
const STEPS_MAX: usize = 32;

/// `**` looks no deeper than `serde_json` nests by itself.
const DEPTH_MAX: usize = 128;

/// A pointer that finds more than this in one answer is a lie of the answer or a mistake of the pointer.
const FOUND_MAX: usize = 1_000;

/// A pointer as written that says nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no pointer: {why}")]
pub struct PointerError {
    text: String,
    why: &'static str,
}

/// An answer in which a pointer finds more than there can truly be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {FOUND_MAX} values at {pointer}")]
pub struct TooMany {
    pointer: String,
}

/// A place, or many, in a JSON answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: String,
    steps: Vec<Step>,
}

/// One step of a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A member of an object, or an element of an array by its number.
    Name(String),
    /// `*`: each element of an array, each member of an object.
    Each,
    /// `**`: every string below that begins with `http://` or `https://`.
    Links,
    /// `#`: the JSON inside a string.
    Parse,
}

/// Several places, of which the first that has something counts. Written as one pointer or as a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointers(Vec<Pointer>);

impl Pointers {
    /// The pointers in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Pointer> {
        self.0.iter()
    }

    /// What `read` makes of the first value that it can read, and where that is.
    pub fn find<T>(
        &self,
        root: &Value,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Option<(T, &Pointer)> {
        self.0.iter().find_map(|pointer| {
            let read = read(pointer.at(root)?.as_ref())?;
            Some((read, pointer))
        })
    }
}

impl Pointer {
    /// The same place in a value that has, at `root`, the one that this is about.
    pub(super) fn below(&self, root: Option<&Pointer>) -> Pointer {
        let Some(root) = root else {
            return self.clone();
        };
        Pointer {
            text: format!("{}{}", root.text, self.text),
            steps: root.steps.iter().chain(&self.steps).cloned().collect(),
        }
    }

    /// What it is made of.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether something stands where it looks for links that is none and no such address either: a text, a number. False of a
    /// pointer that does not end in `**`, since that knows what it finds.
    pub(super) fn has_no_links(&self, root: &Value) -> bool {
        let Some((Step::Links, above)) = self.steps.split_last() else {
            return false;
        };
        let (mut has_any, mut has_links) = (false, false);
        visit(root, above, &mut |value| {
            words(value, DEPTH_MAX, &mut |word| {
                has_any = true;
                has_links |= word.as_str().is_some_and(is_like_an_address);
            });
            Flow::Go
        });
        has_any && !has_links
    }

    /// The first value at this place, copied only where it stands in a string.
    pub fn at<'v>(&self, root: &'v Value) -> Option<Cow<'v, Value>> {
        let mut value = root;
        for step in &self.steps {
            match step {
                Step::Name(name) => value = member(value, name)?,
                Step::Each | Step::Links | Step::Parse => return self.first(root).map(Cow::Owned),
            }
        }
        Some(Cow::Borrowed(value))
    }

    /// The first value at this place; a container is copied whole.
    pub fn first(&self, root: &Value) -> Option<Value> {
        let mut found = None;
        // Stopping is no error here: the first is all that is asked for.
        visit(root, &self.steps, &mut |value| {
            found = Some(value.clone());
            Flow::Stop
        });
        found
    }

    /// Shows every value at this place to `see`, in the order of the answer.
    pub fn each(&self, root: &Value, mut see: impl FnMut(&Value)) -> Result<(), TooMany> {
        let mut left = FOUND_MAX;
        let flow = visit(root, &self.steps, &mut |value| {
            if left == 0 {
                return Flow::Stop;
            }
            left -= 1;
            see(value);
            Flow::Go
        });
        match flow {
            Flow::Go => Ok(()),
            Flow::Stop => Err(TooMany {
                pointer: self.text.clone(),
            }),
        }
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, PointerError> {
        let bad = |why| PointerError {
            text: text.to_owned(),
            why,
        };
        if !text.is_empty() && !text.starts_with('/') {
            return Err(bad("it begins with /, as in \"/results/*\""));
        }
        let parsed: Result<Vec<Step>, _> = text.split('/').skip(1).map(Step::parse).collect();
        let steps = parsed.map_err(bad)?;
        if steps.len() > STEPS_MAX {
            return Err(bad("it has more than 32 steps"));
        }
        let last = steps.len().saturating_sub(1);
        if steps.iter().take(last).any(|step| *step == Step::Links) {
            return Err(bad("** can only be its last step"));
        }
        Ok(Self {
            text: text.to_owned(),
            steps,
        })
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Pointers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

/// Reads a pointer or a list of them; an untagged enum would lose what is wrong with either.
struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Pointers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pointer or a list of pointers")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Pointers, E> {
        let pointer = text.parse().map_err(E::custom)?;
        Ok(Pointers(vec![pointer]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Pointers, A::Error> {
        let mut pointers = Vec::new();
        while let Some(pointer) = list.next_element()? {
            pointers.push(pointer);
        }
        Ok(Pointers(pointers))
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "*" => Ok(Step::Each),
            "**" => Ok(Step::Links),
            "#" => Ok(Step::Parse),
            name => unescape(name).map(Step::Name),
        }
    }
}

/// `~1` is `/` and `~0` is `~`, as in RFC 6901.
fn unescape(name: &str) -> Result<String, &'static str> {
    let mut plain = String::with_capacity(name.len());
    let mut letters = name.chars();
    while let Some(letter) = letters.next() {
        match (letter, letter == '~') {
            (letter, false) => plain.push(letter),
            (_, true) => plain.push(match letters.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err("a ~ stands before 0 (for ~) or 1 (for /)"),
            }),
        }
    }
    Ok(plain)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Go,
    Stop,
}

fn visit(value: &Value, steps: &[Step], see: &mut dyn FnMut(&Value) -> Flow) -> Flow {
    let Some((step, rest)) = steps.split_first() else {
        return see(value);
    };
    match step {
        Step::Name(name) => member(value, name).map_or(Flow::Go, |inner| visit(inner, rest, see)),
        Step::Each => every(value, &mut |inner| visit(inner, rest, see)),
        Step::Links => links(value, DEPTH_MAX, see),
        Step::Parse => {
            let parsed = value.as_str().map(serde_json::from_str::<Value>);
            match parsed {
                Some(Ok(inner)) => visit(&inner, rest, see),
                Some(Err(_)) | None => Flow::Go,
            }
        }
    }
}

fn member<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match value {
        Value::Object(members) => members.get(name),
        // RFC 6901: no sign, no leading zero.
        Value::Array(elements) => {
            let is_number =
                name == "0" || name.starts_with(|c: char| c.is_ascii_digit() && c != '0');
            elements.get(name.parse::<usize>().ok().filter(|_| is_number)?)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn every(value: &Value, go: &mut dyn FnMut(&Value) -> Flow) -> Flow {
    let mut flow = Flow::Go;
    let mut step = |inner: &Value| {
        flow = go(inner);
        flow == Flow::Stop
    };
    match value {
        Value::Array(elements) => elements.iter().any(&mut step),
        Value::Object(members) => members.values().any(&mut step),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    flow
}

/// Shows all that is said below, however deep: no containers, nulls and empty texts.
fn words(value: &Value, depth: usize, see: &mut dyn FnMut(&Value)) {
    match value {
        Value::Null => {}
        Value::String(text) if text.trim().is_empty() => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) => see(value),
        Value::Array(_) | Value::Object(_) => {
            if let Some(depth) = depth.checked_sub(1) {
                every(value, &mut |inner| {
                    words(inner, depth, see);
                    Flow::Go
                });
            }
        }
    }
}

/// Whether a text is a file's address, or the file itself as a `data:` address has it: one word with a scheme.
fn is_like_an_address(text: &str) -> bool {
    let text = text.trim();
    let is_word = !text.contains(char::is_whitespace);
    is_word && (text.starts_with("data:") || text.contains("://"))
}

fn links(value: &Value, depth: usize, see: &mut dyn FnMut(&Value) -> Flow) -> Flow {
    if let Value::String(text) = value {
        let is_link = text.starts_with("https://") || text.starts_with("http://");
        return if is_link { see(value) } else { Flow::Go };
    }
    match depth.checked_sub(1) {
        Some(depth) => every(value, &mut |inner| links(inner, depth, see)),
        None => Flow::Go,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn found(pointer: &str, root: &Value) -> Vec<Value> {
        let mut found = Vec::new();
        let pointer: Pointer = pointer.parse().unwrap();
        pointer
            .each(root, |value| found.push(value.clone()))
            .unwrap();
        assert_eq!(pointer.first(root).as_ref(), found.first());
        found
    }

    #[track_caller]
    fn check(pointer: &str, root: &Value, expected: &Value) {
        assert_eq!(&Value::from(found(pointer, root)), expected, "{pointer}");
    }

    #[test]
    fn what_is_no_link_is_told_from_what_is_not_there() {
        let check = |output: Value, expected: bool| {
            let root = json!({ "output": output });
            let pointer = |text: &str| text.parse::<Pointer>().unwrap();
            assert_eq!(
                pointer("/output/**").has_no_links(&root),
                expected,
                "{root}"
            );
            assert!(!pointer("/output").has_no_links(&root), "{root}");
            assert!(!pointer("/other/**").has_no_links(&root), "{root}");
        };
        for text in [
            json!(["Hello", " world"]),
            json!("a story"),
            json!({"score": 0.5}),
            json!([[], {"seen": false}]),
            json!("see https://a/1 and more"),
        ] {
            check(text, true);
        }
        for none in [json!(null), json!([]), json!({"a": {}}), json!(["", " \n"])] {
            check(none, false);
        }
        for file in [
            json!("https://a/1"),
            json!(["a caption", "https://a/1"]),
            json!("data:image/png;base64,AAAA"),
            json!({"a": ["s3://bucket/key"]}),
        ] {
            check(file, false);
        }
    }

    #[test]
    fn rfc_6901() {
        let root = json!({
            "foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8, " ": 7, "01": 5, "nested": {"x": null},
        });
        check("", &root, &json!([root]));
        check("/foo", &root, &json!([["bar", "baz"]]));
        check("/foo/0", &root, &json!(["bar"]));
        check("/foo/1", &root, &json!(["baz"]));
        check("/", &root, &json!([0]));
        check("/a~1b", &root, &json!([1]));
        check("/m~0n", &root, &json!([8]));
        check("/ ", &root, &json!([7]));
        check("/01", &root, &json!([5]));
        check("/nested/x", &root, &json!([null]));
        for nothing in [
            "/foo/2",
            "/foo/00",
            "/foo/01",
            "/foo/-",
            "/foo/+1",
            "/none",
            "/nested/x/y",
            "/foo/0/0",
        ] {
            check(nothing, &root, &json!([]));
        }
    }

    #[test]
    fn stars_and_hashes() {
        let root = json!({
            "results": ["https://a/1", {"url": "https://a/2"}, 3],
            "grid": {"videos": [{"url": "u1"}, {"url": "u2"}], "images": [{"url": "u3"}]},
            "text": "{\"urls\":[\"https://a/4\",\"ftp://a/5\"]}",
            "bad": "{",
            "deep": {"b": [[["http://a/6"]], "no link", {"c": "https://a/7"}]},
        });
        check("/results/*", &root, &root["results"].clone());
        check("/results/*/url", &root, &json!(["https://a/2"]));
        check("/grid/videos/*/url", &root, &json!(["u1", "u2"]));
        check("/grid/images/*/url", &root, &json!(["u3"]));
        assert_eq!(found("/grid/*/*/url", &root).len(), 3);
        check(
            "/text/#/urls/*",
            &root,
            &json!(["https://a/4", "ftp://a/5"]),
        );
        check("/text/#/**", &root, &json!(["https://a/4"]));
        check("/bad/#", &root, &json!([]));
        check("/results/#", &root, &json!([]));
        check("/deep/**", &root, &json!(["http://a/6", "https://a/7"]));
        check("/results/0/**", &root, &json!(["https://a/1"]));
    }

    #[test]
    fn says_what_is_wrong_with_a_pointer() {
        let long = "/a".repeat(STEPS_MAX + 1);
        for bad in ["results", "/a~2", "/a~", "/**/url", long.as_str()] {
            assert!(bad.parse::<Pointer>().is_err(), "{bad}");
        }
        let error = "status".parse::<Pointer>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"status\" is no pointer: it begins with /, as in \"/results/*\""
        );
    }

    #[test]
    fn an_answer_cannot_flood_us() {
        let most = Value::from(vec![1; FOUND_MAX]);
        assert_eq!(found("/*", &most).len(), FOUND_MAX);
        let flood = Value::from(vec![1; FOUND_MAX + 1]);
        let pointer: Pointer = "/*".parse().unwrap();
        assert!(pointer.each(&flood, |_| ()).is_err());
        assert_eq!(pointer.first(&flood), Some(json!(1)));
    }

    /// Any JSON, with the names that the pointers below look for.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "https?://.{0,9}".prop_map(Value::from),
            "[\\[{\"]a?[\\]}\"]".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[ab]|.{0,3}", inner, 0..6).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_panics_a_pointer(root in any_json(), pointer in "(/([ab0-3*#]|\\*\\*|~[01])){0,6}") {
            if let Ok(pointer) = pointer.parse::<Pointer>() {
                let mut count = 0;
                let all = pointer.each(&root, |_| count += 1);
                prop_assert!(count <= FOUND_MAX);
                prop_assert_eq!(all.is_ok() && count == 0, pointer.first(&root).is_none());
            }
        }

        #[test]
        fn no_text_panics_the_parser(text in "\\PC{0,40}|(/[~*#0-9a]{0,3}){0,40}") {
            if let Ok(pointer) = text.parse::<Pointer>() {
                prop_assert_eq!(pointer.to_string(), text);
            }
        }
    }
}
