//! Object keys: templates that two assets can never share a key of, and the keys they give.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;

use crate::clock::Timestamp;
use crate::model::asset::AssetIndex;
use crate::model::task::ProviderName;
use crate::model::task::Tags;
use crate::model::task::TaskId;

/// S3's limit on a key, in bytes.
const KEY_BYTES_MAX: usize = 1024;

/// The key of an object at its destination: relative, `/` between segments, no segment empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ObjectKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong(text.len()));
        }
        let is_bad = |segment: &str| matches!(segment, "" | "." | "..");
        if text.split('/').any(is_bad) || text.chars().any(char::is_control) {
            return Err(KeyError::Path(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A template or a key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A brace without its partner.
    #[error("unbalanced brace in key template {0:?}")]
    Brace(String),
    /// A variable that does not exist.
    #[error(
        "no variable {{{0}}}: there are provider, model, task_id, index, ext, created and tag.NAME"
    )]
    Variable(String),
    /// A format that the variable does not take.
    #[error("{{{0}}} has a format that is not understood")]
    Format(String),
    /// A tag without a value to fall back on.
    #[error("a task may lack the tag {0:?}: write {{tag.{0}|none}}")]
    TagDefault(String),
    /// Two assets could share a key.
    #[error("key template {template:?} {why}")]
    NotInjective {
        /// The template.
        template: String,
        /// What is missing or ambiguous.
        why: &'static str,
    },
    /// A key over S3's limit.
    #[error("the key would be {0} bytes long, the limit is {KEY_BYTES_MAX}")]
    TooLong(usize),
    /// A key that is not a clean relative path.
    #[error(
        "{0:?} is not a clean key: no empty, \".\" or \"..\" segment, no leading or trailing \"/\""
    )]
    Path(String),
}

/// What a template's variables stand for.
#[derive(Clone, Debug)]
pub struct KeyValues<'a> {
    /// `{provider}`
    pub provider: &'a ProviderName,
    /// `{model}`; "unknown" where the provider does not say.
    pub model: Option<&'a str>,
    /// `{task_id}`
    pub task_id: &'a TaskId,
    /// `{index}`, `{index:02}`
    pub index: AssetIndex,
    /// `{ext}`, without the dot.
    pub extension: &'a str,
    /// `{created}`, `{created:%Y/%m/%d}`
    pub created: Timestamp,
    /// `{tag.NAME|fallback}`
    pub tags: &'a Tags,
}

/// A template such as `{provider}/{created:%Y/%m/%d}/{task_id}/{index:02}.{ext}`, proven injective when parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Provider,
    Model,
    TaskId,
    Index { width: usize },
    Extension,
    Created { format: String },
    Tag { name: String, fallback: String },
}

impl KeyTemplate {
    /// The template as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key that `values` give.
    pub fn render(&self, values: &KeyValues<'_>) -> Result<ObjectKey, KeyError> {
        let mut key = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => key.push_str(text),
                Piece::Provider => key.push_str(values.provider.as_str()),
                Piece::Model => key.push_str(&encode(values.model.unwrap_or("unknown"))),
                Piece::TaskId => key.push_str(&encode(values.task_id.as_str())),
                Piece::Index { width } => {
                    write!(key, "{:0width$}", values.index.0).expect("a string takes any text");
                }
                Piece::Extension => key.push_str(&encode(values.extension)),
                Piece::Created { format } => {
                    let written = values.created.strftime(format);
                    key.push_str(&written.ok_or_else(|| KeyError::Format(format.clone()))?);
                }
                Piece::Tag { name, fallback } => {
                    let value = values.tags.get(name).filter(|value| !value.is_empty());
                    key.push_str(&encode(value.unwrap_or(fallback)));
                }
            }
        }
        key.parse()
    }
}

impl FromStr for KeyTemplate {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let pieces = parse(text)?;
        prove_injective(text, &pieces)?;
        let template = Self {
            text: text.to_owned(),
            pieces,
        };
        template.render(&sample_values())?;
        Ok(template)
    }
}

impl fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for KeyTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for KeyTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

fn parse(text: &str) -> Result<Vec<Piece>, KeyError> {
    let unbalanced = || KeyError::Brace(text.to_owned());
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(['{', '}']) {
        let (literal, tail) = rest.split_at(open);
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        let inside = tail.strip_prefix('{').ok_or_else(unbalanced)?;
        let (variable, after) = inside.split_once('}').ok_or_else(unbalanced)?;
        pieces.push(parse_variable(variable)?);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    Ok(pieces)
}

fn parse_variable(variable: &str) -> Result<Piece, KeyError> {
    let bad_format = || KeyError::Format(variable.to_owned());
    if let Some(tag) = variable.strip_prefix("tag.") {
        let (name, fallback) = tag
            .split_once('|')
            .ok_or_else(|| KeyError::TagDefault(tag.to_owned()))?;
        let is_complete = !name.is_empty() && !fallback.is_empty();
        let piece = Piece::Tag {
            name: name.to_owned(),
            fallback: fallback.to_owned(),
        };
        return is_complete.then_some(piece).ok_or_else(bad_format);
    }
    let (name, format) = match variable.split_once(':') {
        Some((name, format)) => (name, Some(format)),
        None => (variable, None),
    };
    match (name, format) {
        ("provider", None) => Ok(Piece::Provider),
        ("model", None) => Ok(Piece::Model),
        ("task_id", None) => Ok(Piece::TaskId),
        ("ext", None) => Ok(Piece::Extension),
        ("index", None) => Ok(Piece::Index { width: 1 }),
        ("index", Some(format)) => {
            let width = format
                .strip_prefix('0')
                .and_then(|width| width.parse().ok());
            let width = width
                .filter(|width| (1..=9).contains(width))
                .ok_or_else(bad_format)?;
            Ok(Piece::Index { width })
        }
        ("created", format) => {
            let format = format.unwrap_or("%Y-%m-%d").to_owned();
            let written = Timestamp::EPOCH.strftime(&format).ok_or_else(bad_format)?;
            let is_clean = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
            written
                .chars()
                .all(is_clean)
                .then_some(Piece::Created { format })
                .ok_or_else(bad_format)
        }
        _ => Err(KeyError::Variable(variable.to_owned())),
    }
}

/// Refuses a template unless task ID and index can be read back from every key that it gives.
///
/// Values never hold a `/`, and every variable but `{created}` stays inside one segment, while `{created}` writes
/// the same number of slashes each time. So the segment of the task ID is known by counting, and it is enough that
/// inside that segment, and inside that of the index, nothing but digits and a fixed extension has a free length.
fn prove_injective(template: &str, pieces: &[Piece]) -> Result<(), KeyError> {
    let refuse = |why| {
        Err(KeyError::NotInjective {
            template: template.to_owned(),
            why,
        })
    };
    let has = |wanted: fn(&Piece) -> bool| pieces.iter().filter(|piece| wanted(piece)).count();
    if has(|piece| matches!(piece, Piece::TaskId)) != 1 {
        return refuse("must hold {task_id} once, or two tasks could share a key");
    }
    if has(|piece| matches!(piece, Piece::Index { .. })) != 1 {
        return refuse("must hold {index} once, or two assets of a task could share a key");
    }
    for segment in segments(pieces) {
        let position = |wanted: fn(&Piece) -> bool| segment.iter().position(wanted);
        let task = position(|piece| matches!(piece, Piece::TaskId));
        let index = position(|piece| matches!(piece, Piece::Index { .. }));
        let is_free = |piece: &Piece| match piece {
            Piece::Literal(_) | Piece::TaskId | Piece::Index { .. } | Piece::Extension => false,
            Piece::Provider | Piece::Model | Piece::Created { .. } | Piece::Tag { .. } => true,
        };
        if (task.is_some() || index.is_some()) && segment.iter().any(is_free) {
            return refuse("must set {task_id} and {index} off from other variables by a \"/\"");
        }
        if task.zip(index).is_some_and(|(task, index)| index < task) {
            return refuse("must have {index} after {task_id} where they share a segment");
        }
        let extension = position(|piece| matches!(piece, Piece::Extension));
        if extension.is_some_and(|extension| task.max(index).is_some_and(|last| extension < last)) {
            return refuse("must have {ext} last in the segment of {task_id} or {index}");
        }
        if !variables_are_apart(&segment) {
            return refuse("must have a character that is no digit or letter between variables");
        }
    }
    Ok(())
}

/// The pieces between one `/` and the next. A `{created}` that writes slashes ends up in one segment with its
/// neighbours, which only makes the rule stricter.
fn segments(pieces: &[Piece]) -> Vec<Vec<Piece>> {
    let mut segments = vec![Vec::new()];
    for piece in pieces {
        let Piece::Literal(text) = piece else {
            segments
                .last_mut()
                .expect("starts with one")
                .push(piece.clone());
            continue;
        };
        for (position, part) in text.split('/').enumerate() {
            if position > 0 {
                segments.push(Vec::new());
            }
            if !part.is_empty() {
                let segment = segments.last_mut().expect("starts with one");
                segment.push(Piece::Literal(part.to_owned()));
            }
        }
    }
    segments
}

/// Whether between any two variables of a segment that holds the index stands a literal that neither can end in.
fn variables_are_apart(segment: &[Piece]) -> bool {
    segment.windows(2).all(|pair| {
        let [left, right] = pair else { return true };
        let touches_index = |piece: &Piece| matches!(piece, Piece::Index { .. });
        match (left, right) {
            (Piece::Literal(text), right) if touches_index(right) => {
                !text.ends_with(|c: char| c.is_ascii_alphanumeric())
            }
            (left, Piece::Literal(text)) if touches_index(left) => {
                !text.starts_with(|c: char| c.is_ascii_alphanumeric())
            }
            (Piece::Literal(_), _) | (_, Piece::Literal(_)) => true,
            _ => {
                !matches!(left, Piece::TaskId | Piece::Index { .. })
                    && !matches!(right, Piece::TaskId | Piece::Index { .. })
            }
        }
    })
}

/// Writes `value` in `[A-Za-z0-9._=-]`: any other byte, and `=` itself, becomes `=` and two hexadecimal digits.
/// Two values never give one text, and none gives an empty, `.` or `..` segment.
fn encode(value: &str) -> String {
    let is_dots = matches!(value, "." | "..");
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        let is_plain =
            byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && !is_dots);
        if is_plain {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "={byte:02X}").expect("a string takes any text");
        }
    }
    encoded
}

fn sample_values() -> KeyValues<'static> {
    static SAMPLE: std::sync::LazyLock<(ProviderName, TaskId, Tags)> =
        std::sync::LazyLock::new(|| {
            let provider = "sample".parse().expect("a valid name");
            let task_id = "task-unified-1774857405-abc12345"
                .parse()
                .expect("a valid task ID");
            (provider, task_id, Tags::new())
        });
    KeyValues {
        provider: &SAMPLE.0,
        model: None,
        task_id: &SAMPLE.1,
        index: AssetIndex(0),
        extension: "mp4",
        created: Timestamp::EPOCH,
        tags: &SAMPLE.2,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const DEFAULT: &str = "{provider}/{created:%Y/%m/%d}/{task_id}/{index:02}.{ext}";

    #[track_caller]
    fn check(template: &str, key: &str) {
        let tags = Tags::from([("customer".to_owned(), "Acme & Söhne/..".to_owned())]);
        let values = KeyValues {
            provider: &"evolink".parse().unwrap(),
            model: Some("seedance-2.0"),
            task_id: &"task-unified-1774857405-abc123".parse().unwrap(),
            index: AssetIndex(3),
            extension: "mp4",
            created: Timestamp::from_unix_seconds(1_774_857_405),
            tags: &tags,
        };
        let rendered = template
            .parse::<KeyTemplate>()
            .and_then(|template| template.render(&values));
        assert_eq!(rendered.map(|key| key.to_string()), Ok(key.to_owned()));
    }

    #[track_caller]
    fn check_refused(template: &str) {
        assert!(
            template.parse::<KeyTemplate>().is_err(),
            "{template:?} was taken"
        );
    }

    #[test]
    fn renders() {
        check(
            DEFAULT,
            "evolink/2026/03/30/task-unified-1774857405-abc123/03.mp4",
        );
        check(
            "{task_id}_{index}.{ext}",
            "task-unified-1774857405-abc123_3.mp4",
        );
        check(
            "eu/{tag.customer|none}/{model}/{task_id}/{index:04}.{ext}",
            "eu/Acme=20=26=20S=C3=B6hne=2F../seedance-2.0/task-unified-1774857405-abc123/0003.mp4",
        );
        check(
            "{tag.region|none}/{task_id}/{index}",
            "none/task-unified-1774857405-abc123/3",
        );
    }

    #[test]
    fn templates_that_two_assets_could_share_a_key_of_are_refused() {
        check_refused("");
        check_refused("video.mp4");
        check_refused("{task_id}.{ext}");
        check_refused("{index}.{ext}");
        check_refused("{task_id}{index}.{ext}");
        check_refused("{index}-{task_id}");
        check_refused("{task_id}-0{index}");
        check_refused("{task_id}/{index}0.{ext}");
        check_refused("{tag.a|none}-{task_id}/{index}");
        check_refused("{task_id}/{model}{index}");
        check_refused("{task_id}/{index}/{task_id}");
    }

    #[test]
    fn malformed_templates_are_refused() {
        check_refused("/{task_id}/{index}");
        check_refused("a//{task_id}/{index}");
        check_refused("../{task_id}/{index}");
        check_refused("{task_id}/{index}/");
        check_refused("{task_id}/{index");
        check_refused("{task_id}}/{index}");
        check_refused("{task_id}/{index:x}");
        check_refused("{tag.customer}/{task_id}/{index}");
        check_refused("{nonsense}/{task_id}/{index}");
        check_refused("{created:%Q%!}/{task_id}/{index}");
        check_refused(&format!("{}/{{task_id}}/{{index}}", "x".repeat(1024)));
    }

    proptest! {
        #[test]
        fn two_assets_never_share_a_key(
            ids in prop::collection::vec("[!-~&&[^/?#%]]{1,12}", 2..12),
            tag in "\\PC{0,6}",
            template in prop::sample::select(vec![
                DEFAULT,
                "{task_id}_{index}.{ext}",
                "{tag.t|none}/{task_id}/{index:02}.{ext}",
                "{model}/{task_id}.{index}",
                "{index}/{task_id}",
            ]),
        ) {
            let template: KeyTemplate = template.parse().unwrap();
            let tags = Tags::from([("t".to_owned(), tag)]);
            let provider: ProviderName = "p".parse().unwrap();
            let mut seen: HashMap<ObjectKey, (String, u32)> = HashMap::new();
            for id in ids.iter().filter_map(|id| id.parse::<TaskId>().ok()) {
                for index in [0, 1, 10, 101] {
                    let values = KeyValues {
                        provider: &provider, model: Some("m"), task_id: &id, index: AssetIndex(index),
                        extension: "mp4", created: Timestamp::EPOCH, tags: &tags,
                    };
                    let asset = (id.to_string(), index);
                    let earlier = seen.insert(template.render(&values).unwrap(), asset.clone());
                    prop_assert!(earlier.is_none_or(|earlier| earlier == asset));
                }
            }
        }
    }
}
