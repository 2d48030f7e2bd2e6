//! The words of the domain, as pure types and transitions: no async, no I/O.
//! What each word means stands in ARCHITECTURE.md.

pub mod asset;
pub mod deadline;
pub mod digest;
pub mod event;
pub mod failure;
pub mod key;
pub mod lease;
pub mod links;
pub mod object;
pub mod task;

/// A name or word that breaks the rules of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{value:?}{} is not {expected}", if *is_cut { "..." } else { "" })]
pub struct WordError {
    /// As much of it as a person reads.
    value: String,
    is_cut: bool,
    expected: &'static str,
}

/// As much of a value that is none is shown: enough to know it by.
const SHOWN_CHARS_MAX: usize = 200;

impl WordError {
    pub(crate) fn new(value: impl Into<String>, expected: &'static str) -> Self {
        let mut value: String = value.into();
        let end = value.char_indices().nth(SHOWN_CHARS_MAX).map(|(at, _)| at);
        value.truncate(end.unwrap_or(value.len()));
        Self {
            value,
            is_cut: end.is_some(),
            expected,
        }
    }
}

/// A state as an enum whose names are also the words of SQL, JSON and the command line.
macro_rules! state_enum {
    ($(#[$doc:meta])* $name:ident, $expected:literal, { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every state, in the order of a life.
            pub const ALL: &[$name] = &[$($name::$variant,)+];

            /// The word for this state.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::model::WordError;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                let known = Self::ALL.iter().copied().find(|state| state.as_str() == word);
                known.ok_or_else(|| crate::model::WordError::new(word, $expected))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use state_enum;

/// A checked string as a type of its own, so that a bare `String` never crosses a room's wall.
macro_rules! word_type {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $is_valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::model::WordError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let is_valid: fn(&str) -> bool = $is_valid;
                if is_valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(crate::model::WordError::new(text, $expected))
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use word_type;

/// Whether `text` is a name as configuration has them: `[a-z][a-z0-9_]*`, at most 64 long.
pub(crate) fn is_config_name(text: &str) -> bool {
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.len() <= 64 && text.starts_with(|c: char| c.is_ascii_lowercase()) && text.chars().all(tail)
}
