//! What only shows when the configuration is seen as a whole: names that nobody has, numbers that do not fit together.

use tracing_subscriber::EnvFilter;

use crate::archive::WINDOW;
use crate::config::Config;
use crate::config::node::Node;
use crate::config::node::Path;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::problem::nearest;
use crate::config::salvage::SECRET_FORMS;
use crate::model::task::FETCH_PROVIDER;
use crate::secret::SecretSource;
use crate::units::ByteSize;
use crate::units::Span;

mod destination;
mod notify;
mod provider;
mod route;
mod server;
mod spool;

/// S3's bounds on a part; every store that speaks the protocol has the same.
const PART_SIZE: (ByteSize, ByteSize) = (ByteSize::mib(5), ByteSize::mib(5 << 10));

/// A shorter lease would run out between two renewals of a busy machine.
const LEASE_MIN: Span = Span::from_secs(10);

/// Shorter silences are ordinary.
const STALL_MIN: Span = Span::from_secs(1);

/// A verb, a listener, and room for another.
const CONNECTIONS_MIN: usize = 2;

/// More than any server gives one client.
const CONNECTIONS_MAX: usize = 1000;

/// How the URL of a manifest in a file begins.
const MANIFEST_SCHEME: &str = "sqlite:";

/// The words that say from where on events are told.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

const LEVELS_NOTE: &str =
    "write error, warn, info, debug or trace, or by room: \"info,reelvault::archive=debug\"";

/// What a whole configuration was found to be like.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    /// Where each secret is to be had.
    pub(super) secrets: Vec<(Path, SecretSource)>,
}

/// Checks `config`, which was read from `tree`. What `failed` to be read is no mistake a second time.
pub(super) fn check(config: &Config, tree: &Node, failed: &[Path]) -> Checked {
    let mut check = Check {
        config,
        tree,
        failed,
        problems: Vec::new(),
        secrets: Vec::new(),
    };
    check.numbers();
    check.zeros();
    check.server();
    check.log();
    check.manifest();
    check.providers();
    check.destinations();
    check.routes();
    check.notify();
    check.spool();
    check.keys();
    let mut warnings = Vec::new();
    if check.providers_named().is_empty() {
        let what =
            "no provider is configured: only bare links can be archived, by `reelvault fetch`";
        warnings.push(what.to_owned());
    }
    warnings.extend(check.undiscovered());
    Checked {
        problems: check.problems,
        warnings,
        secrets: check.secrets,
    }
}

struct Check<'a> {
    config: &'a Config,
    tree: &'a Node,
    failed: &'a [Path],
    problems: Vec<Problem>,
    secrets: Vec<(Path, SecretSource)>,
}

impl<'a> Check<'a> {
    fn wrong(&mut self, at: At, path: Path, what: impl Into<String>, note: impl Into<String>) {
        if !self.has_failed(&path) {
            let notes = Some(note.into()).filter(|note| !note.is_empty());
            self.problems.push(Problem {
                path,
                at,
                what: what.into(),
                notes: notes.into_iter().collect(),
            });
        }
    }

    fn value(&mut self, path: &[&str], what: impl Into<String>, note: impl Into<String>) {
        self.wrong(At::Value, Path::keys(path), what, note);
    }

    fn has_failed(&self, path: &Path) -> bool {
        self.failed
            .iter()
            .any(|failed| failed.is_in_line_with(path))
    }

    /// All names of that section, those included of which not everything could be read.
    fn names(&self, section: &str) -> Vec<&'a str> {
        self.tree.keys_at(&Path::keys(&[section]))
    }

    /// All providers that have tasks, so not the one of bare links.
    fn providers_named(&self) -> Vec<&'a str> {
        let names = self.names("provider").into_iter();
        names.filter(|name| *name != FETCH_PROVIDER).collect()
    }

    fn numbers(&mut self) {
        let transfer = &self.config.transfer;
        if transfer.concurrent == 0 {
            self.value(
                &["transfer", "concurrent"],
                "0, so nothing would be archived",
                "write at least 1",
            );
        }
        if transfer.parts_ahead == 0 {
            self.value(
                &["transfer", "parts_ahead"],
                "0, so no part would be sent",
                "write at least 1",
            );
        }
        let (min, max) = PART_SIZE;
        if transfer.part_size < min || transfer.part_size > max {
            let what = format!(
                "{} is not a length that stores take for a part",
                transfer.part_size
            );
            let note = format!("write \"{min}\" to \"{max}\"");
            self.value(&["transfer", "part_size"], what, note);
        }
        self.memory();
        if transfer.stall_timeout < STALL_MIN {
            let what = format!("{} is too short", transfer.stall_timeout);
            self.value(&["transfer", "stall_timeout"], what, at_least(STALL_MIN));
        }
        let poll = &self.config.poll;
        if !(0.0..=1.0).contains(&poll.jitter) {
            let what = format!("{} is not a fraction", poll.jitter);
            self.value(&["poll", "jitter"], what, "write a number from 0 to 1");
        }
        let max_failed = self.has_failed(&Path::keys(&["poll", "max"]));
        if poll.first > poll.max && !max_failed {
            let what = format!(
                "{} is more than poll.max, which is {}",
                poll.first, poll.max
            );
            self.value(
                &["poll", "first"],
                what,
                "the shortest time cannot be longer than the longest",
            );
        }
    }

    /// What would be over before it began.
    fn zeros(&mut self) {
        let Config {
            transfer,
            deadline,
            poll,
            ..
        } = self.config;
        let spans = [
            (
                ["transfer", "connect_timeout"],
                transfer.connect_timeout,
                "no connection could stand",
            ),
            (
                ["deadline", "default"],
                deadline.default,
                "every link would be dead at once",
            ),
            (
                ["poll", "first"],
                poll.first,
                "tasks would be asked for without a pause",
            ),
            (
                ["poll", "give_up"],
                poll.give_up,
                "every task would be abandoned at once",
            ),
        ];
        for (path, span, then) in spans {
            if span == Span::ZERO {
                let note = "write a length of time such as \"10s\" or \"24h\"";
                self.value(&path, format!("no time at all, so {then}"), note);
            }
        }
        if transfer.size_max == ByteSize::default() {
            let what = "nothing, so every asset would be refused";
            self.value(
                &["transfer", "size_max"],
                what,
                "write a size such as \"20 GiB\"",
            );
        }
    }

    fn memory(&mut self) {
        let transfer = &self.config.transfer;
        let path = |key: &str| Path::keys(&["transfer", key]);
        let is_sound = !["concurrent", "part_size"]
            .iter()
            .any(|key| self.has_failed(&path(key)));
        let budget = transfer.parts_budget().unwrap_or_default();
        if is_sound && transfer.concurrent > 0 && budget < transfer.part_size {
            let windows = WINDOW
                .as_u64()
                .saturating_mul(u64::from(transfer.transfers_max()));
            let least = ByteSize::bytes(windows.saturating_add(transfer.part_size.as_u64()));
            let what = format!("{} is not enough", transfer.memory);
            let note = format!(
                "transfer.concurrent = {} is up to {} transfers with the slow and the urgent, which take {WINDOW} \
                 each, and transfer.part_size is {}: write at least \"{least}\"",
                transfer.concurrent,
                transfer.transfers_max(),
                transfer.part_size
            );
            self.value(&["transfer", "memory"], what, note);
        }
    }

    fn log(&mut self) {
        let level = self.config.log.level.trim();
        let mut directives = level.split(',').map(str::trim);
        // The filter takes a word that it does not know for the name of a room, and is silent about all others.
        let unknown = directives.find(|it| !it.contains(['=', '[']) && !is_level(it));
        let bad = unknown.or_else(|| EnvFilter::builder().parse(level).is_err().then_some(level));
        if let Some(bad) = bad {
            let what = format!("{bad:?} is not a level");
            let note = match nearest_level(bad) {
                Some(level) => format!("did you mean `{level}`?"),
                None => LEVELS_NOTE.to_owned(),
            };
            self.value(&["log", "level"], what, note);
        }
    }

    fn manifest(&mut self) {
        let manifest = &self.config.manifest;
        let path = manifest.url.strip_prefix(MANIFEST_SCHEME);
        let is_file = path.is_some_and(|path| !path.is_empty());
        if !is_file && !manifest.names_server() {
            let (what, note) = manifest.wrong_parameter().unwrap_or_else(|| {
                let note =
                    "write \"sqlite:/path/to/manifest.db\", or \"postgres://user@host/database\"";
                ("not the URL of a manifest".to_owned(), note.to_owned())
            });
            self.value(&["manifest", "url"], what, note);
        }
        if manifest.url_has_password() {
            let what = "a password stands in the configuration";
            let note = "write it to a file of its own and name that in manifest.password";
            self.value(&["manifest", "url"], what, note);
        }
        if let Some(source) = &manifest.password {
            self.secret(Path::keys(&["manifest", "password"]), source);
        }
        if !(CONNECTIONS_MIN..=CONNECTIONS_MAX).contains(&manifest.connections) {
            let what = format!("{} connections", manifest.connections);
            let note = format!("from {CONNECTIONS_MIN} to {CONNECTIONS_MAX}");
            self.value(&["manifest", "connections"], what, note);
        }
        if manifest.lease < LEASE_MIN {
            let what = format!("{} is too short", manifest.lease);
            self.value(&["manifest", "lease"], what, at_least(LEASE_MIN));
        }
    }

    fn secret(&mut self, path: Path, source: &SecretSource) {
        let places = [
            source.credential.is_some(),
            source.file.is_some(),
            source.env.is_some(),
        ];
        match places.iter().filter(|is_given| **is_given).count() {
            1 => {
                self.place(&path, source);
                self.secrets.push((path, source.clone()));
            }
            0 => self.wrong(At::Key, path, "no place of the secret", SECRET_FORMS),
            _ => self.wrong(
                At::Key,
                path,
                "more than one place of the secret",
                SECRET_FORMS,
            ),
        }
    }

    /// A name that cannot be one may be the secret itself, and is not shown.
    fn place(&mut self, path: &Path, source: &SecretSource) {
        if source.env.as_deref().is_some_and(|name| !is_variable(name)) {
            let what = "not the name of an environment variable";
            let note = "write the variable's name, of letters, digits and \"_\", not what it holds";
            self.wrong(At::Hidden, path.key("env"), what, note);
        }
        let credential = source.credential.as_deref();
        if credential.is_some_and(|name| matches!(name, "" | "." | "..") || name.contains('/')) {
            let what = "not the name of a credential";
            let note = "write NAME as in the unit's LoadCredential=NAME:/path";
            self.wrong(At::Hidden, path.key("credential"), what, note);
        }
        if source
            .file
            .as_deref()
            .is_some_and(|file| file.as_os_str().is_empty())
        {
            self.wrong(
                At::Hidden,
                path.key("file"),
                "empty",
                "write the path of a file",
            );
        }
    }

    fn address(&mut self, path: Path, url: &url::Url) {
        let is_http = matches!(url.scheme(), "http" | "https") && url.has_host();
        let note = "write scheme and host, such as \"https://api.example.com\"";
        if !is_http {
            self.wrong(
                At::Value,
                path,
                "neither an http nor an https address",
                note,
            );
        } else if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            let what = "an address with a user, a password, a query or a fragment in it";
            self.wrong(At::Value, path, what, note);
        }
    }
}

fn is_level(word: &str) -> bool {
    LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level))
}

fn nearest_level(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    if word == "warning" {
        return Some("warn");
    }
    nearest(&word, LEVELS)
}

/// Whether a shell could set a variable of this name.
fn is_variable(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_word)
}

/// The note on a span, in the form that the configuration takes.
fn at_least(span: Span) -> String {
    let written = serde_json::to_string(&span).expect("a span is written as a text");
    format!("write at least {written}")
}
