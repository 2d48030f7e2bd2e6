//! `[provider.NAME]` made ready to call: its description, its key, its address and its headers.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Uri;
use http::header;
use url::Url;

use crate::clock::Timestamp;
use crate::model::task::ProviderName;
use crate::provider::Config;
use crate::provider::description::Description;
use crate::provider::description::DescriptionError;
use crate::provider::description::field::Auth;
use crate::provider::token;
use crate::secret::Secret;
use crate::secret::SecretError;

/// A configured provider that cannot be used. Each message names the key to mend.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Both a built-in description and an own one.
    #[error("provider.{0} has both `kind` and `description`: keep one")]
    TwoDescriptions(ProviderName),
    /// No built-in description of that kind.
    #[error(
        "provider.{provider}.kind: {kind:?} is not built in (there are {known}); \
         set provider.{provider}.description to a file that describes it"
    )]
    UnknownKind {
        /// The provider.
        provider: ProviderName,
        /// As configured, or the provider's name where no kind is.
        kind: String,
        /// Those that are built in.
        known: String,
    },
    /// The description's file cannot be read.
    #[error("provider.{provider}.description: {}: {source}", path.display())]
    File {
        /// The provider.
        provider: ProviderName,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The description's file says nothing sensible.
    #[error("provider.{provider}.description: {}: {source}", path.display())]
    Description {
        /// The provider.
        provider: ProviderName,
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: DescriptionError,
    },
    /// The API needs a key and none is configured.
    #[error(
        "provider.{0}.api_key is missing: it is one of {{ credential = \"NAME\" }}, {{ file = \"/path\" }}, {{ env = \"NAME\" }}"
    )]
    NoKey(ProviderName),
    /// The key cannot be had.
    #[error("provider.{provider}.api_key: {source}")]
    Key {
        /// The provider.
        provider: ProviderName,
        /// Why.
        source: SecretError,
    },
    /// The key has characters that no header can carry.
    #[error("provider.{0}.api_key: the key has characters that cannot be sent")]
    KeyText(ProviderName),
    /// The address of the API is none.
    #[error("provider.{provider}.base_url: {url}: {why}")]
    BaseUrl {
        /// The provider.
        provider: ProviderName,
        /// As configured or described, without what may be secret in it.
        url: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// What is configured of its webhooks cannot be used.
    #[error("provider.{provider}.{key}: {what}")]
    Hook {
        /// The provider.
        provider: ProviderName,
        /// The key to mend.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A further header that is none.
    #[error("provider.{provider}.headers: {header:?} is no header, or its value cannot be sent")]
    Header {
        /// The provider.
        provider: ProviderName,
        /// Its name as configured.
        header: String,
    },
}

/// An account at a task API, and all that a call to it needs.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: ProviderName,
    pub(super) description: Description,
    /// `None` where the API needs none.
    pub(super) key: Option<Secret>,
    /// Sent with every call.
    pub(super) headers: HeaderMap,
    /// Without a slash at its end: every path begins with one.
    base_url: String,
}

impl Account {
    /// Reads what `config` names, taking variables through `env`.
    pub(super) fn read(
        name: ProviderName,
        config: &Config,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConnectError> {
        let description = describe(&name, config)?;
        let key = read_key(&name, config, &description.auth, env)?;
        let base_url = base_url(&name, config, &description)?;
        let mut headers = further_headers(&name, &description.headers, config)?;
        if let Some(key) = &key {
            let auth = auth_header(&description.auth, key);
            let auth = auth.map_err(|_| ConnectError::KeyText(name.clone()))?;
            if let Some((name, value)) = auth {
                headers.insert(name, value);
            }
        }
        Ok(Self {
            name,
            description,
            key,
            headers,
            base_url,
        })
    }

    /// The address of `path`, without the key.
    pub(super) fn address_without_key(&self, path: &str) -> Result<Url, url::ParseError> {
        Url::parse(&format!("{}{path}", self.base_url))
    }

    /// What paths are added to.
    pub(super) fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The path of an address that an answer gave, whole or from its host's root, where it is one of this very API.
    pub(super) fn path_of(&self, address: &str) -> Option<String> {
        let url = if address.starts_with('/') {
            Url::parse(&self.base_url).ok()?.join(address).ok()?.into()
        } else {
            address.to_owned()
        };
        let path = url.strip_prefix(self.base_url.as_str())?;
        path.starts_with('/').then(|| path.to_owned())
    }

    /// The header with a token that holds from `now` on, where calls need one made anew.
    pub(super) fn minted(&self, now: Timestamp) -> Option<(HeaderName, HeaderValue)> {
        let key = match &self.description.auth {
            Auth::Jwt => self.key.as_ref()?,
            Auth::Bearer | Auth::Header { .. } | Auth::Query { .. } | Auth::None => return None,
        };
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token::mint(key, now)?)).ok()?;
        value.set_sensitive(true);
        Some((header::AUTHORIZATION, value))
    }

    /// The address of `path`, with the key where that travels in the query; `None` where it makes none.
    pub(super) fn address(&self, path: &str) -> Option<Uri> {
        let address = format!("{}{path}", self.base_url);
        let (Auth::Query { name }, Some(key)) = (&self.description.auth, &self.key) else {
            return address.parse().ok();
        };
        let mut url = Url::parse(&address).ok()?;
        url.query_pairs_mut().append_pair(name, key.expose());
        url.as_str().parse().ok()
    }

    /// The header that carries the key, if it travels in one.
    pub(super) fn auth_header(&self) -> HeaderMap {
        let key = self.key.as_ref();
        let header = key.and_then(|key| auth_header(&self.description.auth, key).ok());
        header.flatten().into_iter().collect()
    }
}

/// What `config` says of its API: the own description, else the built-in one of `kind`, else the built-in one that
/// bears the provider's name; at the address that `config` gives.
pub fn describe(name: &ProviderName, config: &Config) -> Result<Description, ConnectError> {
    let mut description = read_or_built_in(name, config)?;
    if let Some(base_url) = &config.base_url {
        description.base_url = base_url.clone();
    }
    Ok(description.at_home())
}

fn read_or_built_in(name: &ProviderName, config: &Config) -> Result<Description, ConnectError> {
    match (&config.kind, &config.description) {
        (Some(_), Some(_)) => Err(ConnectError::TwoDescriptions(name.clone())),
        (None, Some(path)) => read_description(name, path),
        (kind, None) => {
            let kind = kind.as_deref().unwrap_or(name.as_str());
            Description::built_in(kind).ok_or_else(|| ConnectError::UnknownKind {
                provider: name.clone(),
                kind: kind.to_owned(),
                known: Description::kinds().collect::<Vec<_>>().join(", "),
            })
        }
    }
}

fn read_description(name: &ProviderName, path: &Path) -> Result<Description, ConnectError> {
    let read = std::fs::read_to_string(path);
    let text = read.map_err(|source| ConnectError::File {
        provider: name.clone(),
        path: path.to_owned(),
        source,
    })?;
    Description::parse(&text).map_err(|source| ConnectError::Description {
        provider: name.clone(),
        path: path.to_owned(),
        source,
    })
}

fn read_key(
    name: &ProviderName,
    config: &Config,
    auth: &Auth,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Secret>, ConnectError> {
    match (auth, &config.api_key) {
        (Auth::None, _) => Ok(None),
        (Auth::Bearer | Auth::Header { .. } | Auth::Query { .. } | Auth::Jwt, None) => {
            Err(ConnectError::NoKey(name.clone()))
        }
        (Auth::Bearer | Auth::Header { .. } | Auth::Query { .. } | Auth::Jwt, Some(place)) => {
            let key = place.read(env).map_err(|source| ConnectError::Key {
                provider: name.clone(),
                source,
            })?;
            Ok(Some(key))
        }
    }
}

/// The address that paths are added to.
fn base_url(
    name: &ProviderName,
    config: &Config,
    description: &Description,
) -> Result<String, ConnectError> {
    let url = &description.base_url;
    let is_clean = url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    let good = || Ok(url.as_str().trim_end_matches('/').to_owned());
    let why = match url.scheme() {
        "https" | "http" if !is_clean => "it has more than a scheme, a host and a path",
        "https" => return good(),
        "http" if config.allow_private => return good(),
        "http" => "plain http is for private networks, and needs allow_private = true",
        _ => "it is neither https nor http",
    };
    Err(ConnectError::BaseUrl {
        provider: name.clone(),
        url: format!("{}://{host}{port}{}", url.scheme(), url.path()),
        why,
    })
}

/// Those of the description, which the configuration may change.
fn further_headers(
    name: &ProviderName,
    described: &BTreeMap<String, String>,
    config: &Config,
) -> Result<HeaderMap, ConnectError> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    for (header, value) in described.iter().chain(&config.headers) {
        let parsed = header.parse::<HeaderName>().ok().zip(value.parse().ok());
        let (parsed, mut value): (HeaderName, HeaderValue) =
            parsed.ok_or_else(|| ConnectError::Header {
                provider: name.clone(),
                header: header.clone(),
            })?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    Ok(headers)
}

fn auth_header(
    auth: &Auth,
    key: &Secret,
) -> Result<Option<(HeaderName, HeaderValue)>, header::InvalidHeaderValue> {
    let (name, value) = match auth {
        // A key of the form that tokens are made of is never sent itself: each call replaces this.
        Auth::Bearer | Auth::Jwt => (header::AUTHORIZATION, format!("Bearer {}", key.expose())),
        Auth::Header { name, prefix } if prefix.is_empty() => {
            (name.clone(), key.expose().to_owned())
        }
        Auth::Header { name, prefix } => (name.clone(), format!("{prefix} {}", key.expose())),
        Auth::Query { .. } | Auth::None => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&value)?;
    value.set_sensitive(true);
    Ok(Some((name, value)))
}

#[cfg(test)]
mod tests {
    use crate::secret::SecretSource;

    use super::*;

    fn config() -> Config {
        Config {
            api_key: Some(SecretSource::env("KEY")),
            ..Config::default()
        }
    }

    fn read(name: &str, config: &Config) -> Result<Account, ConnectError> {
        let env = |name: &str| match name {
            "KEY" => Some("sk-canary\n".to_owned()),
            "TORN" => Some("sk-\u{1}".to_owned()),
            _ => None,
        };
        Account::read(name.parse().unwrap(), config, &env)
    }

    fn written(text: &str) -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::write(&path, text).unwrap();
        let own = Config {
            description: Some(path),
            ..config()
        };
        (folder, own)
    }

    fn own(auth: &str) -> String {
        format!(
            "base_url = \"https://api.example.com/base/\"\nauth = {auth}\n\
             [status]\npath = \"/t?id={{id}}\"\nstate = \"/s\"\nmap = {{ done = \"completed\" }}\n\
             [results]\npointers = [\"/url\"]\n"
        )
    }

    #[test]
    fn five_lines_of_configuration_are_enough() {
        let account = read("evolink", &config()).unwrap();
        assert_eq!(account.headers["authorization"], "Bearer sk-canary");
        assert_eq!(
            account.address("/v1/credits").unwrap().to_string(),
            "https://api.evolink.ai/v1/credits"
        );
        assert!(!format!("{account:?}").contains("sk-canary"));
    }

    #[track_caller]
    fn check(name: &str, config: &Config, message: &str) {
        let error = read(name, config).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn errors_name_the_key_to_mend() {
        let with_url = |url: &str| Config {
            base_url: Some(url.parse().unwrap()),
            ..config()
        };
        let with_key = |key| Config {
            api_key: key,
            ..config()
        };
        let with_header = |name: &str, value: &str| Config {
            headers: [(name.to_owned(), value.to_owned())].into(),
            ..config()
        };
        check(
            "evolink",
            &with_key(None),
            "provider.evolink.api_key is missing",
        );
        check(
            "evolink",
            &with_key(Some(SecretSource::env("NONE"))),
            "provider.evolink.api_key: environment variable NONE is not set",
        );
        check(
            "evolink",
            &with_key(Some(SecretSource::env("TORN"))),
            "provider.evolink.api_key: the key has characters",
        );
        check(
            "house",
            &config(),
            "provider.house.kind: \"house\" is not built in (there are ark, ",
        );
        check(
            "evolink",
            &with_url("http://10.0.0.1/"),
            "provider.evolink.base_url: http://10.0.0.1/: plain http",
        );
        check(
            "evolink",
            &with_url("http://10.0.0.1:8080/"),
            "provider.evolink.base_url: http://10.0.0.1:8080/: plain http",
        );
        check(
            "evolink",
            &with_url("ftp://a/b"),
            "provider.evolink.base_url: ftp://a/b: it is neither",
        );
        check(
            "evolink",
            &with_url("https://u:p@a/b?c=d"),
            "provider.evolink.base_url: https://a/b: it has more than",
        );
        check(
            "evolink",
            &with_header("X Team", "a"),
            "provider.evolink.headers: \"X Team\"",
        );
        check(
            "evolink",
            &with_header("x-team", "a\nb"),
            "provider.evolink.headers: \"x-team\"",
        );
        let missing = Config {
            description: Some("/nowhere/own.toml".into()),
            ..config()
        };
        check(
            "own",
            &missing,
            "provider.own.description: /nowhere/own.toml: ",
        );
        let two = Config {
            kind: Some("evolink".to_owned()),
            ..missing
        };
        check(
            "own",
            &two,
            "provider.own has both `kind` and `description`",
        );
        let (folder, torn) = written("base_url = 1");
        let path = folder.path().join("own.toml");
        let message = format!("provider.own.description: {}: line 1: ", path.display());
        check("own", &torn, &message);
    }

    #[test]
    fn the_key_travels_as_described() {
        let (_folder, named) = written(&own(
            "{ scheme = \"header\", name = \"X-Key\", prefix = \"Key\" }",
        ));
        let account = read("own", &named).unwrap();
        assert_eq!(account.headers["x-key"], "Key sk-canary");
        assert!(!account.headers.contains_key("authorization"));
        assert_eq!(account.auth_header().len(), 1);

        let (_folder, bare) = written(&own("{ scheme = \"header\", name = \"x-goog-api-key\" }"));
        assert_eq!(
            read("own", &bare).unwrap().headers["x-goog-api-key"],
            "sk-canary"
        );

        let (_folder, query) = written(&own("{ scheme = \"query\", name = \"key\" }"));
        let account = read("own", &query).unwrap();
        let id = "a+b&c".parse().unwrap();
        let names = account.description.id.split(&id).unwrap();
        let path = account.description.status.path.fill(|name| names.at(name));
        let address = account.address(&path.unwrap());
        assert_eq!(
            address.unwrap().to_string(),
            "https://api.example.com/base/t?id=a%2Bb%26c&key=sk-canary"
        );
        assert!(account.auth_header().is_empty());

        let (_folder, open) = written(&own("{ scheme = \"none\" }"));
        let keyless = Config {
            api_key: None,
            ..open
        };
        assert_eq!(read("own", &keyless).unwrap().headers.len(), 1);
    }

    #[test]
    fn further_headers_are_sent_but_cannot_replace_the_key() {
        let config = Config {
            headers: [
                ("Authorization".to_owned(), "mine".to_owned()),
                ("X-Team".to_owned(), "render".to_owned()),
            ]
            .into(),
            ..config()
        };
        let account = read("evolink", &config).unwrap();
        assert_eq!(account.headers["authorization"], "Bearer sk-canary");
        assert_eq!(account.headers["x-team"], "render");
        assert_eq!(account.headers.get_all("authorization").iter().count(), 1);
    }
}
