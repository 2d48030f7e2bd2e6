//! The merged layers as a tree that serde reads, with errors that say what is wrong instead of how it is worded.
//!
//! Strings become numbers and booleans where those are wanted, since the environment has nothing but strings.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserializer;
use serde::de;
use serde::de::IntoDeserializer;
use serde::de::Visitor;
use serde::de::value::MapAccessDeserializer;
use serde::de::value::MapDeserializer;
use serde::de::value::SeqDeserializer;
use serde::forward_to_deserialize_any;

/// One value of the tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Node {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Item(usize),
}

/// The way from the root to a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route(pub(crate) Vec<Step>);

impl Route {
    /// The route of these keys.
    pub(crate) fn of(keys: &[&str]) -> Self {
        Self(
            keys.iter()
                .map(|key| Step::Key((*key).to_owned()))
                .collect(),
        )
    }

    /// This route, one key further.
    pub(crate) fn key(&self, key: &str) -> Self {
        Self(
            self.0
                .iter()
                .cloned()
                .chain([Step::Key(key.to_owned())])
                .collect(),
        )
    }

    /// This route, one item further.
    pub(crate) fn item(&self, index: usize) -> Self {
        Self(self.0.iter().cloned().chain([Step::Item(index)]).collect())
    }

    /// The last key.
    pub(crate) fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Item(_) => None,
        })
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with a value. Never holds the value itself, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    UnknownKey {
        key: String,
        expected: &'static [&'static str],
    },
    UnknownWord {
        expected: &'static [&'static str],
    },
    Missing(&'static str),
    WrongType {
        found: &'static str,
        expected: String,
    },
    Other(String),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::UnknownKey { .. } => f.write_str("unknown key"),
            Cause::UnknownWord { expected } => write!(f, "is none of {}", expected.join(", ")),
            Cause::Missing(key) => write!(f, "lacks the key {key:?}"),
            Cause::WrongType { found, expected } => write!(f, "is {found}, wanted is {expected}"),
            Cause::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Cause {}

impl de::Error for Cause {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Cause::Other(message.to_string())
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let found = match found {
            de::Unexpected::Bool(_) => "a boolean",
            de::Unexpected::Unsigned(_) | de::Unexpected::Signed(_) => "a whole number",
            de::Unexpected::Float(_) => "a number",
            de::Unexpected::Str(_) | de::Unexpected::Char(_) => "a string",
            de::Unexpected::Seq => "a list",
            de::Unexpected::Map => "a table",
            de::Unexpected::Bytes(_)
            | de::Unexpected::Unit
            | de::Unexpected::Option
            | de::Unexpected::NewtypeStruct
            | de::Unexpected::Enum
            | de::Unexpected::UnitVariant
            | de::Unexpected::NewtypeVariant
            | de::Unexpected::TupleVariant
            | de::Unexpected::StructVariant
            | de::Unexpected::Other(_) => "something else",
        };
        let expected = expected.to_string();
        let expected = match expected.as_str() {
            "u32" | "u64" => "a whole number".to_owned(),
            "f64" => "a number".to_owned(),
            // As serde's derive says it; the name of our type means nothing to whoever wrote the file.
            other if other.starts_with("struct ") => "a table".to_owned(),
            _ => expected,
        };
        Cause::WrongType { found, expected }
    }

    fn unknown_field(key: &str, expected: &'static [&'static str]) -> Self {
        Cause::UnknownKey {
            key: key.to_owned(),
            expected,
        }
    }

    fn unknown_variant(_word: &str, expected: &'static [&'static str]) -> Self {
        Cause::UnknownWord { expected }
    }

    fn missing_field(key: &'static str) -> Self {
        Cause::Missing(key)
    }
}

impl Node {
    /// The tree of a layer or of all layers merged; what TOML does not have becomes nothing.
    pub(crate) fn of(value: config::Value) -> Option<Self> {
        Some(match value.kind {
            config::ValueKind::Nil => return None,
            config::ValueKind::Boolean(it) => Node::Bool(it),
            config::ValueKind::I64(it) => Node::Integer(it),
            config::ValueKind::I128(it) => Node::Integer(i64::try_from(it).ok()?),
            config::ValueKind::U64(it) => Node::Integer(i64::try_from(it).ok()?),
            config::ValueKind::U128(it) => Node::Integer(i64::try_from(it).ok()?),
            config::ValueKind::Float(it) => Node::Float(it),
            config::ValueKind::String(it) => Node::Text(it),
            config::ValueKind::Array(items) => {
                Node::List(items.into_iter().filter_map(Node::of).collect())
            }
            config::ValueKind::Table(table) => {
                let entries = table.into_iter();
                Node::Table(
                    entries
                        .filter_map(|(key, value)| Some((key, Node::of(value)?)))
                        .collect(),
                )
            }
        })
    }

    /// The entries of a table; none of anything else.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Node)> {
        let table = match self {
            Node::Table(table) => Some(table),
            Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::Text(_) | Node::List(_) => {
                None
            }
        };
        table
            .into_iter()
            .flatten()
            .map(|(key, node)| (key.as_str(), node))
    }

    /// Takes what is at `route` out of the tree; from a list, the whole list. Whether there was anything.
    pub(crate) fn remove(&mut self, route: &[Step]) -> bool {
        let Node::Table(table) = self else {
            return false;
        };
        let Some((Step::Key(key), rest)) = route.split_first() else {
            return false;
        };
        let reaches_on = matches!(rest.first(), Some(Step::Key(_)));
        if reaches_on && table.get_mut(key).is_some_and(|node| node.remove(rest)) {
            return true;
        }
        table.remove(key).is_some()
    }
}

impl<'de> Deserializer<'de> for Node {
    type Error = Cause;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self {
            Node::Bool(it) => visitor.visit_bool(it),
            Node::Integer(it) => visitor.visit_i64(it),
            Node::Float(it) => visitor.visit_f64(it),
            Node::Text(it) => visitor.visit_string(it),
            Node::List(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter())),
            Node::Table(table) => visitor.visit_map(MapDeserializer::new(table.into_iter())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Cause> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _words: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Cause> {
        match self {
            Node::Text(word) => visitor.visit_enum(word.into_deserializer()),
            Node::Table(table) => visitor.visit_enum(MapAccessDeserializer::new(
                MapDeserializer::new(table.into_iter()),
            )),
            Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::List(_) => {
                self.deserialize_any(visitor)
            }
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self.as_text().and_then(|text| text.parse().ok()) {
            Some(parsed) => visitor.visit_bool(parsed),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        self.deserialize_u64(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self.as_text().and_then(|text| text.parse().ok()) {
            Some(parsed) => visitor.visit_u64(parsed),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self.as_text().and_then(|text| text.parse().ok()) {
            Some(parsed) => visitor.visit_f64(parsed),
            None => self.deserialize_any(visitor),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl Node {
    fn as_text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            Node::Bool(_) | Node::Integer(_) | Node::Float(_) | Node::List(_) | Node::Table(_) => {
                None
            }
        }
    }
}

impl IntoDeserializer<'_, Cause> for Node {
    type Deserializer = Node;

    fn into_deserializer(self) -> Node {
        self
    }
}
