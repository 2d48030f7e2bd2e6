//! Webhooks: a provider says that a task has news, and the truth is read over its API.

use std::net::SocketAddr;

use serde::Deserialize;
use serde::Serialize;

use crate::units::ByteSize;
use crate::units::Rate;
use crate::units::or_blank;

/// `[server.hooks]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// A TCP listener for webhooks alone, or none: then they come to the same port as all else.
    #[serde(with = "or_blank")]
    pub listen: Option<SocketAddr>,
    /// Larger bodies are refused.
    pub body_max: ByteSize,
    /// Webhooks of tasks that nobody announced are believed this often, each with one look at the provider.
    pub rate: Rate,
}
