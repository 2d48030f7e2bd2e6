//! How the rooms' types read the tree, and why they could not: causes as data, so that no text is ever matched.

use std::collections::BTreeMap;
use std::fmt;

use serde::de;
use serde::de::IntoDeserializer;
use serde::de::Unexpected;
use serde::de::Visitor;
use serde::de::value::MapDeserializer;
use serde::de::value::SeqDeserializer;
use serde::forward_to_deserialize_any;

use crate::config::node::Node;

/// Why a node does not become what the configuration wants there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    UnknownField {
        field: String,
        expected: &'static [&'static str],
    },
    UnknownVariant {
        variant: String,
        expected: &'static [&'static str],
    },
    MissingField(&'static str),
    /// `found` names the kind of value, never the value itself.
    WrongType {
        found: &'static str,
        wanted: Wanted,
    },
    /// What a type of our own says about a text.
    Other(String),
}

/// The kind of value that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Bool,
    /// A number that fits 32 bits without a sign.
    Whole,
    Number,
    Text,
    List,
    Table,
    OneOf(&'static [&'static str]),
    /// What a foreign type says it wants.
    Other(String),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Bool => f.write_str("true or false"),
            Wanted::Whole => write!(f, "a whole number from 0 to {}", u32::MAX),
            Wanted::Number => f.write_str("a number"),
            Wanted::Text => f.write_str("a text"),
            Wanted::List => f.write_str("a list"),
            Wanted::Table => f.write_str("a table"),
            Wanted::OneOf(words) => write!(f, "one of {}", listed(words)),
            Wanted::Other(what) => f.write_str(what),
        }
    }
}

impl Cause {
    fn wrong_type(node: &Node, wanted: Wanted) -> Self {
        Cause::WrongType {
            found: node.kind(),
            wanted,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::UnknownField { .. } => f.write_str("unknown key"),
            Cause::UnknownVariant { expected, .. } => write!(f, "not one of {}", listed(expected)),
            Cause::MissingField(_) => f.write_str("missing"),
            Cause::WrongType { found, wanted } => write!(f, "{found}, where {wanted} is wanted"),
            Cause::Other(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Cause {}

impl de::Error for Cause {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Cause::Other(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Cause::WrongType {
            found: kind_of(found),
            wanted: Wanted::Other(expected.to_string()),
        }
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Cause::UnknownVariant {
            variant: variant.to_owned(),
            expected,
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Cause::UnknownField {
            field: field.to_owned(),
            expected,
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Cause::MissingField(field)
    }
}

/// Words in a row for people: "`a`, `b`, `c`".
pub(super) fn listed(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

impl Node {
    /// What kind of value this is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::Bool(_) => "true or false",
            Node::Int(_) => "a whole number",
            Node::Float(_) => "a number",
            Node::String(_) => "a text",
            Node::List(_) => "a list",
            Node::Table(_) => "a table",
            Node::Blank => "nothing",
        }
    }
}

fn kind_of(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "true or false",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "a whole number",
        Unexpected::Float(_) => "a number",
        Unexpected::Seq => "a list",
        Unexpected::Map => "a table",
        Unexpected::Char(_)
        | Unexpected::Str(_)
        | Unexpected::Bytes(_)
        | Unexpected::Unit
        | Unexpected::Option
        | Unexpected::NewtypeStruct
        | Unexpected::Enum
        | Unexpected::UnitVariant
        | Unexpected::NewtypeVariant
        | Unexpected::TupleVariant
        | Unexpected::StructVariant
        | Unexpected::Other(_) => "a text",
    }
}

impl IntoDeserializer<'_, Cause> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = Cause;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self {
            Node::Bool(it) => visitor.visit_bool(it),
            Node::Int(it) => visitor.visit_i64(it),
            Node::Float(it) => visitor.visit_f64(it),
            Node::String(it) => visitor.visit_string(it),
            Node::List(list) => {
                let nodes = list.into_iter().map(|(_, node)| node);
                visitor.visit_seq(SeqDeserializer::new(nodes))
            }
            Node::Table(table) => visitor.visit_map(MapDeserializer::new(table.into_iter())),
            Node::Blank => visitor.visit_unit(),
        }
    }

    /// A text is taken where it says one: the environment knows nothing else.
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        let read = match &self {
            Node::Blank => Some(false),
            Node::Bool(it) => Some(*it),
            Node::String(text) => text.parse().ok(),
            Node::Int(_) | Node::Float(_) | Node::List(_) | Node::Table(_) => None,
        };
        let read = read.ok_or_else(|| Cause::wrong_type(&self, Wanted::Bool))?;
        visitor.visit_bool(read)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        let read = match &self {
            Node::Blank => Some(0),
            Node::Int(it) => u32::try_from(*it).ok(),
            Node::String(text) => text.parse().ok(),
            Node::Bool(_) | Node::Float(_) | Node::List(_) | Node::Table(_) => None,
        };
        let read = read.ok_or_else(|| match &self {
            Node::Int(it) => Cause::Other(format!("{it} is not {}", Wanted::Whole)),
            Node::Bool(_)
            | Node::Float(_)
            | Node::String(_)
            | Node::List(_)
            | Node::Table(_)
            | Node::Blank => Cause::wrong_type(&self, Wanted::Whole),
        })?;
        visitor.visit_u32(read)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        let read = match &self {
            // Whole numbers reach a float through their digits, exactly or rounded as any other text.
            Node::Int(it) => it.to_string().parse().ok(),
            Node::Float(it) => Some(*it),
            Node::Blank => Some(0.0),
            Node::String(text) => text.parse().ok(),
            Node::Bool(_) | Node::List(_) | Node::Table(_) => None,
        };
        let read = read.ok_or_else(|| Cause::wrong_type(&self, Wanted::Number))?;
        visitor.visit_f64(read)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self {
            Node::String(text) => visitor.visit_string(text),
            Node::Blank => visitor.visit_str(""),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::List(_) | Node::Table(_) => {
                Err(Cause::wrong_type(&self, Wanted::Text))
            }
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        self.deserialize_string(visitor)
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

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self {
            Node::List(_) => self.deserialize_any(visitor),
            Node::Blank => Node::List(Vec::new()).deserialize_any(visitor),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::String(_) | Node::Table(_) => {
                Err(Cause::wrong_type(&self, Wanted::List))
            }
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Cause> {
        match self {
            Node::Table(_) => self.deserialize_any(visitor),
            Node::Blank => Node::Table(BTreeMap::new()).deserialize_any(visitor),
            Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::String(_) | Node::List(_) => {
                Err(Cause::wrong_type(&self, Wanted::Table))
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Cause> {
        self.deserialize_map(visitor)
    }

    /// A word, or a table of one word and what belongs to it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Cause> {
        match self {
            Node::String(text) => {
                let word: de::value::StringDeserializer<Cause> = text.into_deserializer();
                word.deserialize_enum(name, variants, visitor)
            }
            Node::Table(table) if table.len() == 1 => {
                let table = MapDeserializer::new(table.into_iter());
                visitor.visit_enum(de::value::MapAccessDeserializer::new(table))
            }
            Node::Bool(_)
            | Node::Int(_)
            | Node::Float(_)
            | Node::List(_)
            | Node::Table(_)
            | Node::Blank => Err(Cause::wrong_type(&self, Wanted::OneOf(variants))),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 char bytes byte_buf unit unit_struct
        tuple tuple_struct identifier ignored_any
    }
}
