//! The provider port: task APIs, each read through a declarative description.
//!
//! A [`Provider`] asks and says what it was told. It retries nothing; the one thing that it remembers is that the provider
//! wants to be left alone. Nothing that an answer says can panic it or grow without bound.

pub mod description;
pub mod pointer;
pub mod signature;

mod answer;
mod api;
mod base64;
mod builtin;
mod call;
mod connect;
mod error;
mod explain;
mod hook;
mod json;
mod list;
mod relay;
mod rewrite;
mod scrub;
mod token;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::secret::SecretSource;
use crate::units::Rate;
use crate::units::Span;

pub use api::Look;
pub use api::Provider;
pub use connect::ConnectError;
pub use connect::describe;
pub use error::ProviderError;
pub use error::Said;
pub use explain::Explanation;
pub use hook::HookError;
pub use hook::HookSaid;
pub use hook::TOKEN_BYTES_MIN;
pub use list::ListError;
pub use list::Page;
pub use list::Place;
pub use relay::Passing;

/// `[provider.NAME]`
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a key of its own that people switch"
)]
pub struct Config {
    /// The name of a built-in description. This or `description`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A file with a description of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<PathBuf>,
    /// The account's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<SecretSource>,
    /// Where the API is, instead of where the description says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_url: Option<url::Url>,
    /// All calls to this provider from this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Rate>,
    /// How long result links live, instead of what the description says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_ttl: Option<Span>,
    /// Further headers for every call to the API.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Whether its API is served again, under `/gateway/NAME/`.
    #[serde(default)]
    pub gateway: bool,
    /// Whether its webhooks are taken, at `/hooks/NAME/TOKEN`.
    #[serde(default)]
    pub webhook: bool,
    /// The token in the address of its webhooks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_secret: Option<SecretSource>,
    /// The token that was, while the provider still knows the old address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_secret_old: Option<SecretSource>,
    /// The key that the provider signs its webhooks with, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_key: Option<SecretSource>,
    /// The key that was, while the provider changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_key_old: Option<SecretSource>,
    /// Its API and its result links may be plain http and on private addresses (an intranet, a test).
    #[serde(default)]
    pub allow_private: bool,
    /// Whether its list of tasks is read for those that nobody announced.
    #[serde(default)]
    pub discover: bool,
    /// From when on tasks are discovered, however old their links; absent = as far back as links can live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover_since: Option<Timestamp>,
}
