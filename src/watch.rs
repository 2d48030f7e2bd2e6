//! The watch stage: asks providers how their tasks stand and writes what they said.
//!
//! ```text
//! stage    claims due tasks, asks each provider in one call where it can, observes or settles
//! outcome  what a look means for a task's row
//! held     tasks that are claimed for many looks, until the next one
//! room     what one provider can be asked at once
//! news     what is worth a write: a pure function
//! cadence  when to look next: a pure function
//! route    where the assets of a task go
//! ```

pub mod cadence;
mod held;
mod news;
mod outcome;
mod room;
pub mod route;
pub mod stage;

use serde::Deserialize;
use serde::Serialize;

use crate::units::Span;

/// `[poll]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The shortest time between two looks at one task.
    pub first: Span,
    /// The longest.
    pub max: Span,
    /// How far a wait is spread, as a fraction of it: 0 to 1.
    pub jitter: f64,
    /// A task that has not finished after this long becomes `abandoned`.
    pub give_up: Span,
}

/// `[deadline]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeadlineConfig {
    /// How long a link lives when neither provider nor URL says.
    pub default: Span,
    /// Links are treated as dead this much earlier when urgency is judged.
    pub margin: Span,
    /// An alarm is raised this long before a link dies.
    pub warn: Span,
    /// After the deadline go on until the origin gives a definitive answer.
    pub keep_trying: bool,
}

/// `[[route]]`: which tasks go where. The first that matches wins.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Any of these providers; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Vec<crate::model::task::ProviderName>>,
    /// Any of these models, `*` stands for anything; absent = all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Vec<String>>,
    /// All of these tags; absent = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<std::collections::BTreeMap<String, String>>,
    /// The destinations; archived only when every copy is safe.
    pub to: Vec<crate::model::object::DestinationName>,
    /// The key template; absent = the default key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<crate::model::key::KeyTemplate>,
}
