//! Endpoints as they are configured, made ready to be told: a name, an address, keys that sign, a guarded client.

use url::Url;

use crate::http::Http;
use crate::http::standard_webhooks::KeyError;
use crate::http::standard_webhooks::SigningKey;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::report::notify::Config;
use crate::secret::SecretError;
use crate::secret::SecretSource;

/// The longest name that a URL is made into.
const NAME_BYTES_MAX: usize = 64;

/// What a name made from a host begins with where the host begins with no letter.
const NAME_PREFIX: &str = "at_";

/// Why an endpoint cannot be used. Each message names the key to mend.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The key cannot be had.
    #[error("{key}: {source}")]
    Secret {
        /// Where it is configured.
        key: String,
        /// Why.
        source: SecretError,
    },
    /// The key is none.
    #[error("{key}: {source}")]
    Key {
        /// Where it is configured.
        key: String,
        /// Why.
        source: KeyError,
    },
}

/// The keys that sign messages: none, one, or two while one is changed for another.
#[derive(Clone, Debug, Default)]
pub struct Signer(Vec<SigningKey>);

impl Signer {
    /// Reads the keys of the section `section`, taking variables through `env`.
    pub fn read(
        section: &str,
        secret: Option<&SecretSource>,
        previous: Option<&SecretSource>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, EndpointError> {
        let named = [("secret", secret), ("secret_old", previous)];
        let read = |(key, source): (&str, &SecretSource)| {
            let key = format!("{section}.{key}");
            let secret = match source.read(env) {
                Ok(secret) => secret,
                Err(source) => return Err(EndpointError::Secret { key, source }),
            };
            SigningKey::read(&secret).map_err(|source| EndpointError::Key { key, source })
        };
        let keys = named
            .into_iter()
            .filter_map(|(key, source)| source.map(|source| read((key, source))));
        keys.collect::<Result<_, _>>().map(Self)
    }

    /// The keys.
    pub(super) fn keys(&self) -> &[SigningKey] {
        &self.0
    }
}

/// An endpoint that can be told.
#[derive(Clone, Debug)]
pub struct Endpoint {
    url: Url,
    kinds: Vec<EventKind>,
    signer: Signer,
    http: Http,
}

impl Endpoint {
    /// Makes `config` ready, taking variables through `env`; nothing is sent yet.
    pub fn connect(
        config: &Config,
        http: Http,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, EndpointError> {
        let section = format!("notify {}", config.endpoint());
        let previous = config.secret_old.as_ref();
        Ok(Self {
            url: config.url.clone(),
            kinds: config.when.clone(),
            signer: Signer::read(&section, Some(&config.secret), previous, env)?,
            http,
        })
    }

    /// Where it is.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// What it wants to hear of.
    pub(super) fn kinds(&self) -> &[EventKind] {
        &self.kinds
    }

    /// What signs its messages.
    pub(super) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// The client that reaches it.
    pub(super) fn http(&self) -> &Http {
        &self.http
    }
}

impl Config {
    /// The endpoint's name: its own, or one made from host and port, which stays whatever stands before and after it.
    pub fn endpoint(&self) -> EndpointName {
        self.name.clone().unwrap_or_else(|| name_of(&self.url))
    }
}

fn name_of(url: &Url) -> EndpointName {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    let port = url
        .port()
        .map(|port| format!("_{port}"))
        .unwrap_or_default();
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let word = |c: char| if is_word(c) { c } else { '_' };
    let prefix = if host.starts_with(|c: char| c.is_ascii_lowercase()) {
        ""
    } else {
        NAME_PREFIX
    };
    let name = format!("{prefix}{host}{port}");
    let name: String = name.chars().map(word).take(NAME_BYTES_MAX).collect();
    name.parse()
        .expect("letters, digits and underlines after a letter")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_is_made_from_host_and_port() {
        let check = |url: &str, expected: &str| {
            assert_eq!(name_of(&url.parse().unwrap()).as_str(), expected);
        };
        check("https://app.example.com/hooks?x=1", "app_example_com");
        check("http://127.0.0.1:8080/", "at_127_0_0_1_8080");
        check("http://[::1]:8080/", "at____1__8080");
        check("data:x", "at_");
    }

    proptest! {
        #[test]
        fn every_url_has_a_name(host in "[a-z0-9.-]{1,80}", port: u16) {
            if let Ok(url) = format!("https://{host}:{port}/").parse::<Url>() {
                prop_assert!(name_of(&url).as_str().len() <= NAME_BYTES_MAX);
            }
        }
    }
}
