//! Secrets: where configuration says they are, and values that never print.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::path::PathBuf;

use secrecy::ExposeSecret as _;
use secrecy::SecretString;
use serde::Deserialize;
use serde::Serialize;

/// More than this is no secret: keys of cloud accounts are JSON of a few KiB.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where a secret is, as `{ credential = "NAME" }`, `{ file = "/path" }` or `{ env = "NAME" }`; never the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecretSource {
    /// A systemd credential: the file of this name in `$CREDENTIALS_DIRECTORY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// A file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// An environment variable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env: Option<String>,
}

/// A secret that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Not exactly one of the three places was named.
    #[error(
        "a secret is one of {{ credential = \"NAME\" }}, {{ file = \"/path\" }}, {{ env = \"NAME\" }}"
    )]
    Place,
    /// A credential was named, but systemd gave none.
    #[error(
        "credential {0:?}: $CREDENTIALS_DIRECTORY is not set; add LoadCredential={0}:/path to the unit"
    )]
    NoCredentials(String),
    /// A credential's name that is a path.
    #[error("credential {0:?} is not a plain name")]
    CredentialName(String),
    /// A file that cannot be read.
    #[error("secret file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that holds something else.
    #[error("secret file {}: longer than any secret", .0.display())]
    Long(PathBuf),
    /// A variable that is not set.
    #[error("environment variable {0} is not set")]
    Env(String),
    /// A secret of no length.
    #[error("the secret in {0} is empty")]
    Empty(String),
}

impl SecretError {
    /// Whether it may be there later, without anybody changing what was configured.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::File { .. })
    }
}

/// A secret value. Prints as `***`; trailing line ends are cut.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value that came from outside the configuration.
    pub fn new(value: &str) -> Self {
        Self(SecretString::from(value.trim_end_matches(['\r', '\n'])))
    }

    /// Whether somebody who shows `shown` knows the value. How long this takes tells nothing but its length.
    pub fn is(&self, shown: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(
            self.expose().as_bytes(),
            shown.as_bytes(),
        )
        .is_ok()
    }

    /// The value, for the one place that sends it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl SecretSource {
    /// A secret that an environment variable holds.
    pub fn env(name: &str) -> Self {
        Self {
            credential: None,
            file: None,
            env: Some(name.to_owned()),
        }
    }

    /// Reads the secret, taking variables through `env`.
    pub fn read(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Secret, SecretError> {
        match (&self.credential, &self.file, &self.env) {
            (Some(name), None, None) => {
                if name.is_empty() || name.contains('/') || name == ".." {
                    return Err(SecretError::CredentialName(name.clone()));
                }
                let folder = env("CREDENTIALS_DIRECTORY");
                let folder = folder.ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
                read_file(&Path::new(&folder).join(name))
            }
            (None, Some(path), None) => read_file(path),
            (None, None, Some(name)) => {
                let value = env(name).ok_or_else(|| SecretError::Env(name.clone()))?;
                filled(&value, || format!("environment variable {name}"))
            }
            _ => Err(SecretError::Place),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, SecretError> {
    let mut value = String::new();
    let read = File::open(path).and_then(|file| {
        let mut bounded = file.take(FILE_BYTES_MAX + 1);
        bounded.read_to_string(&mut value)
    });
    read.map_err(|source| SecretError::File {
        path: path.to_owned(),
        source,
    })?;
    if u64::try_from(value.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(SecretError::Long(path.to_owned()));
    }
    // Some editors begin a text with a mark that nobody sees.
    let value = value.strip_prefix('\u{feff}').unwrap_or(&value);
    filled(value, || path.display().to_string())
}

fn filled(value: &str, place: impl FnOnce() -> String) -> Result<Secret, SecretError> {
    let secret = Secret::new(value);
    if secret.expose().is_empty() {
        Err(SecretError::Empty(place()))
    } else {
        Ok(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "KEY" => Some("sk-canary\n".to_owned()),
            "EMPTY" => Some("\n".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn reads_one_place_and_never_prints_what_it_read() {
        let secret = SecretSource::env("KEY").read(&env).unwrap();
        assert_eq!(secret.expose(), "sk-canary");
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn a_file_is_read_as_far_as_secrets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let source = |path: &Path| SecretSource {
            credential: None,
            file: Some(path.to_owned()),
            env: None,
        };
        std::fs::write(&path, "\u{feff}sk-canary\r\n").unwrap();
        let secret = source(&path).read(&env).unwrap();
        assert_eq!(secret.expose(), "sk-canary");
        let endless = source(Path::new("/dev/zero")).read(&env);
        assert!(matches!(endless, Err(SecretError::Long(_))));
    }

    #[test]
    fn says_what_is_missing() {
        let both = SecretSource {
            file: Some("/x".into()),
            ..SecretSource::env("KEY")
        };
        let credential = |name: &str| SecretSource {
            credential: Some(name.to_owned()),
            file: None,
            env: None,
        };
        assert!(matches!(both.read(&env), Err(SecretError::Place)));
        assert!(matches!(
            SecretSource::env("NO").read(&env),
            Err(SecretError::Env(_))
        ));
        assert!(matches!(
            SecretSource::env("EMPTY").read(&env),
            Err(SecretError::Empty(_))
        ));
        assert!(matches!(
            credential("k").read(&env),
            Err(SecretError::NoCredentials(_))
        ));
        assert!(matches!(
            credential("../k").read(&env),
            Err(SecretError::CredentialName(_))
        ));
    }
}
