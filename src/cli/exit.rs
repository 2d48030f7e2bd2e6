//! How a command ends: its exit code, and the complaint that goes with one that is not 0.

use std::io::ErrorKind;
use std::process::ExitCode;

use crate::cli::say::talk;
use crate::config::ConfigErrors;
use crate::daemon::sentence;
use crate::manifest::ManifestError;
use crate::provider;
use crate::report::notify::EndpointError;
use crate::secret::SecretError;
use crate::store;

/// The exit codes. Scripts depend on them: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    DoneInPart = 3,
    AtRisk = 4,
    WaitRanOut = 5,
    NotFound = 6,
    NoDaemon = 10,
    Manifest = 11,
    Refused = 12,
    Differs = 13,
    Configuration = 78,
    Interrupted = 130,
}

impl Exit {
    /// The number that the process ends with.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::DoneInPart => 3,
            Exit::AtRisk => 4,
            Exit::WaitRanOut => 5,
            Exit::NotFound => 6,
            Exit::NoDaemon => 10,
            Exit::Manifest => 11,
            Exit::Refused => 12,
            Exit::Differs => 13,
            Exit::Configuration => 78,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// What went wrong, for a person: one sentence with the value in question, then what to do.
#[derive(Debug)]
pub(crate) struct Complaint {
    exit: Exit,
    what: String,
    hint: Option<String>,
}

impl Complaint {
    /// A complaint that ends the process with `exit`.
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            hint: None,
        }
    }

    /// Something failed that has no code of its own.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// The same with what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Both in one, which ends as the first would.
    #[must_use]
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.what = format!("{}\n       {}", self.what, other.what);
        self.hint = self.hint.or(other.hint);
        self
    }

    /// The exit code that goes with it.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// What went wrong, and what to do about it, for whoever shows it differently.
    pub(crate) fn into_words(self) -> (String, Option<String>) {
        (self.what, self.hint)
    }

    /// Prints the complaint and gives its exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        if !self.what.is_empty() {
            talk!("error: {}", self.what);
        }
        if let Some(hint) = &self.hint {
            talk!("hint:  {hint}");
        }
        self.exit.into()
    }
}

impl From<anyhow::Error> for Complaint {
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<ManifestError>() {
            Ok(error) => return error.into(),
            Err(error) => error,
        };
        let is_configuration = error.is::<provider::ConnectError>()
            || error.is::<store::ConnectError>()
            || error.is::<EndpointError>()
            || error.is::<SecretError>();
        let exit = if is_configuration {
            Exit::Configuration
        } else {
            Exit::Failed
        };
        Self::new(exit, sentence(&error))
    }
}

impl From<std::io::Error> for Complaint {
    /// A reader who has gone has what it wanted: nothing to complain about.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        Self::failed(error.to_string())
    }
}

impl From<ConfigErrors> for Complaint {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(
            Exit::Configuration,
            format!("the configuration cannot be used\n\n{errors}"),
        )
    }
}

impl From<ManifestError> for Complaint {
    fn from(error: ManifestError) -> Self {
        let what = error.to_string();
        match &error {
            ManifestError::Locked { .. } => Self::new(Exit::Manifest, what)
                .hint("one manifest has one daemon: stop the other, or give this one a manifest.url of its own"),
            ManifestError::Newer { .. } => {
                Self::new(Exit::Manifest, what).hint("a newer Reelvault wrote it: upgrade this one")
            }
            ManifestError::Missing { .. } => Self::new(Exit::Manifest, what)
                .hint("the daemon makes it at its first start; manifest.url says where"),
            ManifestError::Older { .. } => Self::new(Exit::Manifest, what)
                .hint("start the daemon once: it brings the manifest up to date, with a backup beside it"),
            ManifestError::Unfinished { from, .. } => {
                let hint = format!("run `reelvault manifest migrate --from {from:?}` to here again: it goes on where it was");
                Self::new(Exit::Manifest, what).hint(hint)
            }
            ManifestError::Untrusted { .. } => Self::new(Exit::Manifest, what).hint(
                "it is verified against the machine's authorities, or those in the file that SSL_CERT_FILE names; the host in manifest.url must be one that it is made for",
            ),
            ManifestError::Pooler { .. } => Self::new(Exit::Manifest, what)
                .hint("set manifest.pooler = true, or name the server itself in manifest.url"),
            ManifestError::Folder { .. } => Self::new(Exit::Manifest, what)
                .hint("make it, owned by the service user; or set manifest.url"),
            ManifestError::NoFile { .. } => Self::new(Exit::Configuration, what)
                .hint("manifest.url must name a file in that folder, such as manifest.db"),
            ManifestError::Forbidden { .. } => Self::new(Exit::Manifest, what)
                .hint("do this as the user who owns the manifest's folder, which is the service's user; all files in it must be that user's"),
            ManifestError::Replaced { .. } => Self::new(Exit::Manifest, what)
                .hint("keep the daemon stopped until the file or the latest backup of it is back in its place: one that starts without makes an empty manifest"),
            ManifestError::Foreign { .. } => Self::new(Exit::Manifest, what)
                .hint("manifest.url must name a file of its own"),
            ManifestError::InTheWay { .. } => Self::new(Exit::Manifest, what)
                .hint("manifest.url must name a database of its own, or a role whose search_path begins with a schema of its own"),
            ManifestError::Encoding { .. } => Self::new(Exit::Manifest, what).hint(
                "make one with `CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0` and name it in manifest.url; pg_dump takes over what is in this one",
            ),
            ManifestError::Full { .. } => {
                Self::new(Exit::Manifest, what).hint("free some space on the manifest's disk")
            }
            ManifestError::Broken { .. } => Self::new(Exit::Manifest, what)
                .hint("the database or its disk is damaged: stop the daemon and restore the latest backup; without one, `reelvault manifest rebuild` makes a new one from a bucket"),
            ManifestError::Url { .. } | ManifestError::Password(_) => {
                Self::new(Exit::Configuration, what)
            }
            ManifestError::Away { .. } => Self::new(Exit::Manifest, what).hint(
                "see that the server runs and that manifest.url names it; nothing is lost meanwhile",
            ),
            ManifestError::Denied { .. } => Self::new(Exit::Manifest, what)
                .hint("see to the role and database in manifest.url, manifest.password, and the server's pg_hba.conf"),
            ManifestError::Standby { .. } => Self::new(Exit::Manifest, what)
                .hint("manifest.url must name the primary: with several hosts, add ?target_session_attrs=read-write"),
            ManifestError::OldServer { .. } => {
                Self::new(Exit::Manifest, what).hint("upgrade the server")
            }
            ManifestError::NameTaken { .. } => Self::new(Exit::Manifest, what)
                .hint("each daemon has a name of its own: set manifest.machine"),
            ManifestError::Stale { .. }
            | ManifestError::KeyTaken { .. }
            | ManifestError::Inconsistent { .. }
            | ManifestError::ReadOnly { .. }
            | ManifestError::Unfit { .. }
            | ManifestError::Engine { .. }
            | ManifestError::Closed => Self::new(Exit::Manifest, what),
        }
    }
}
