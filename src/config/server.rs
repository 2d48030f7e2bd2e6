//! `[server]`: where the daemon listens, who may talk to it, and under which address others know it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde::Serialize;
use url::Url;

use crate::intake::hooks;
use crate::secret::SecretSource;
use crate::units::Span;
use crate::units::or_blank;

/// `[server]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The TCP listener, or none.
    #[serde(with = "or_blank")]
    pub listen: Option<SocketAddr>,
    /// The unix socket; empty for none.
    pub socket: PathBuf,
    /// How others reach us, if they do.
    #[serde(with = "or_blank")]
    pub public_url: Option<Url>,
    /// What everybody on TCP must show, once it is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<SecretSource>,
    /// The token before that one: links that were sealed with it stay good, and it opens nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_old: Option<SecretSource>,
    /// How long a stopping daemon finishes parts before it cuts off the rest.
    pub shutdown_grace: Span,
    /// `[server.hooks]`
    pub hooks: hooks::Config,
}

impl ServerConfig {
    /// Whether the listeners are the same, which no reload can change.
    pub fn listens_like(&self, other: &Self) -> bool {
        self.listen == other.listen
            && self.socket == other.socket
            && self.hooks.listen == other.hooks.listen
    }
}
