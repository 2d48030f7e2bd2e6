//! How a command ends: its exit code, and the complaint that goes with one that is not 0.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::cli::say::talk;
use crate::config::ConfigErrors;
use crate::config::NotReady;
use crate::daemon::sentence;
use crate::manifest::ManifestError;
use crate::provider;
use crate::report::notify::EndpointError;
use crate::secret::SecretError;
use crate::store;

/// The exit codes. Scripts depend on them: a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
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
    #[expect(
        clippy::as_conversions,
        reason = "there is no other way to read what is written above"
    )]
    pub(crate) const fn code(self) -> u8 {
        self as u8
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

    /// Both in one, which ends as the first would, or as a wrong configuration: a mistake does not pass with the rest.
    #[must_use]
    pub(crate) fn and(mut self, other: Self) -> Self {
        if other.exit == Exit::Configuration {
            self.exit = other.exit;
        }
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
        let exit = if is_configuration && !may_pass(&error) {
            Exit::Configuration
        } else {
            Exit::Failed
        };
        Self::new(exit, sentence(&error))
    }
}

/// Whether the machine may mend it by itself: a mount or a file that comes later. A daemon has to be started again then.
fn may_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|it| {
        let secret = it.downcast_ref::<SecretError>();
        let folder = it.downcast_ref::<store::ConnectError>();
        secret.is_some_and(SecretError::may_pass) || folder.is_some_and(|it| it.may_pass)
    })
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

impl From<NotReady> for Complaint {
    fn from(NotReady { errors, may_pass }: NotReady) -> Self {
        let mut complaint = Self::from(errors);
        if may_pass {
            complaint.exit = Exit::Failed;
        }
        complaint
    }
}

impl From<ManifestError> for Complaint {
    fn from(error: ManifestError) -> Self {
        let is_configuration = matches!(
            error,
            ManifestError::NoFile { .. } | ManifestError::Url { .. } | ManifestError::Password(_)
        );
        let exit = if is_configuration {
            Exit::Configuration
        } else {
            Exit::Manifest
        };
        let complaint = Self::new(exit, error.to_string());
        match hint(&error) {
            Some(hint) => complaint.hint(hint),
            None => complaint,
        }
    }
}

/// What to do about a manifest that cannot be used.
fn hint(error: &ManifestError) -> Option<Cow<'static, str>> {
    let hint = match error {
        ManifestError::Locked { .. } => {
            "one manifest has one daemon: stop the other, or give this one a manifest.url of its own"
        }
        ManifestError::Newer { .. } => "a newer Reelvault wrote it: upgrade this one",
        ManifestError::Missing { .. } => {
            "the daemon makes it at its first start; manifest.url says where"
        }
        ManifestError::Older { .. } => {
            "start the daemon once: it brings the manifest up to date, with a backup beside it"
        }
        ManifestError::Unfinished { from, .. } => {
            return Some(format!("run `reelvault manifest migrate --from {from:?}` to here again: it goes on where it was").into());
        }
        ManifestError::Untrusted { .. } => {
            "it is verified against the machine's authorities, or those in the file that SSL_CERT_FILE names; the host in manifest.url must be one that it is made for"
        }
        ManifestError::Pooler { .. } => {
            "set manifest.pooler = true, or name the server itself in manifest.url"
        }
        ManifestError::Folder { .. } => "make it, owned by the service user; or set manifest.url",
        ManifestError::NoFile { .. } => {
            "manifest.url must name a file in that folder, such as manifest.db"
        }
        ManifestError::Forbidden { .. } => {
            "do this as the user who owns the manifest's folder, which is the service's user; all files in it must be that user's"
        }
        ManifestError::Replaced { .. } => {
            "keep the daemon stopped until the file or the latest backup of it is back in its place: one that starts without makes an empty manifest"
        }
        ManifestError::Foreign { .. } => "manifest.url must name a file of its own",
        ManifestError::InTheWay { .. } => {
            "manifest.url must name a database of its own, or a role whose search_path begins with a schema of its own"
        }
        ManifestError::Encoding { .. } => {
            "make one with `CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0` and name it in manifest.url; pg_dump takes over what is in this one"
        }
        ManifestError::Full { .. } => "free some space on the manifest's disk",
        ManifestError::Broken { .. } => {
            "the database or its disk is damaged: stop the daemon and restore the latest backup; without one, `reelvault manifest rebuild` makes a new one from a bucket"
        }
        ManifestError::Away { .. } => {
            "see that the server runs and that manifest.url names it; nothing is lost meanwhile"
        }
        ManifestError::Denied { .. } => {
            "see to the role and database in manifest.url, manifest.password, and the server's pg_hba.conf"
        }
        ManifestError::Standby { .. } => {
            "manifest.url must name the primary: with several hosts, add ?target_session_attrs=read-write"
        }
        ManifestError::OldServer { .. } => "upgrade the server",
        ManifestError::NameTaken { .. } => {
            "each daemon has a name of its own: set manifest.machine"
        }
        ManifestError::Url { .. }
        | ManifestError::Password(_)
        | ManifestError::Stale { .. }
        | ManifestError::KeyTaken { .. }
        | ManifestError::Inconsistent { .. }
        | ManifestError::ReadOnly { .. }
        | ManifestError::Unfit { .. }
        | ManifestError::Engine { .. }
        | ManifestError::Closed => return None,
    };
    Some(hint.into())
}
