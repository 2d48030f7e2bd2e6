//! Logs: one subscriber, made as a value, in the format that fits where standard error goes.

use std::io;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use serde::Deserialize;
use serde::Serialize;
use tracing::Dispatch;
use tracing::Level;
use tracing::Metadata;
use tracing_journald::Priority;
use tracing_journald::PriorityMappings;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Layered;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;

/// `[log]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// From where on events are told: `info`, or by room, `info,reelvault::archive=debug`.
    pub level: String,
    /// In what form.
    pub format: Format,
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `journal` under systemd, `pretty` on a terminal, `text` otherwise.
    Auto,
    /// One line an event, with time, level, spans and where it comes from.
    Text,
    /// One JSON document an event.
    Json,
    /// Fields for systemd's journal.
    Journal,
    /// One short line an event, for eyes.
    Pretty,
}

/// A log that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A level that is none.
    #[error(
        "log.level {level:?} is neither a level nor a list such as \"info,reelvault::archive=debug\": {source}"
    )]
    Level {
        /// What was written.
        level: String,
        /// Why it is none.
        source: ParseError,
    },
    /// No journal to write to.
    #[error("log.format \"journal\": systemd's journal does not answer: {0}")]
    Journal(io::Error),
    /// The process has a log already.
    #[error("a log was set up before")]
    Twice,
}

/// Where a log goes, as far as its form depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// A person reads along.
    pub terminal: bool,
    /// systemd's journal takes it.
    pub journal: bool,
    /// Colours are wanted.
    pub colour: bool,
}

impl Place {
    /// What this process' standard error is, with variables taken through `env`.
    pub fn stderr(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let terminal = io::stderr().is_terminal();
        // By the convention of no-color.org, an empty value counts as unset.
        let colourless = env("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            terminal,
            journal: env("JOURNAL_STREAM").is_some_and(|stream| is_stderr(&stream)),
            colour: terminal && !colourless,
        }
    }
}

/// Whether `stream`, as in `$JOURNAL_STREAM`, is what standard error is: a child inherits the variable even where its
/// output was redirected.
fn is_stderr(stream: &str) -> bool {
    let own = io::stderr().as_fd().try_clone_to_owned();
    let own = own.and_then(|fd| std::fs::File::from(fd).metadata());
    own.is_ok_and(|own| stream == format!("{}:{}", own.dev(), own.ino()))
}

/// Below what the foreign layers start.
type Filtered = Layered<reload::Layer<EnvFilter, Registry>, Registry>;

/// A layer that writes.
type Writing = Box<dyn Layer<Filtered> + Send + Sync>;

/// A log as a value: where events go, and the handle that changes what is told.
pub struct Log {
    /// Takes events, for one scope or the whole process.
    pub dispatch: Dispatch,
    /// Changes what is told.
    pub level: LevelHandle,
}

/// Changes what a log tells while it runs.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// Tells events from `level` on, written as in `log.level`; keeps to the old one if that is none.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        let filter = parse_level(level)?;
        // The only failure is that the subscriber is gone, and with it what could be told.
        self.0.reload(filter).ok();
        Ok(())
    }
}

impl Log {
    /// Makes a log that writes to `writer`, or to systemd's journal.
    pub fn new<W>(config: &Config, place: Place, writer: W) -> Result<Self, LogError>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let (filter, handle) = reload::Layer::new(parse_level(&config.level)?);
        let told = filter_fn(|metadata| !is_foreign_chatter(metadata));
        let subscriber = Registry::default()
            .with(filter)
            .with(writing(config, place, writer)?);
        Ok(Self {
            dispatch: Dispatch::new(subscriber.with(told)),
            level: LevelHandle(handle),
        })
    }
}

/// Sets up the log of this process, on standard error; `env` gives variables.
pub fn init(
    config: &Config,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<LevelHandle, LogError> {
    let Log { dispatch, level } = Log::new(config, Place::stderr(env), io::stderr)?;
    tracing::dispatcher::set_global_default(dispatch).map_err(|_| LogError::Twice)?;
    Ok(level)
}

fn parse_level(level: &str) -> Result<EnvFilter, LogError> {
    EnvFilter::builder()
        .parse(level)
        .map_err(|source| LogError::Level {
            level: level.to_owned(),
            source,
        })
}

fn writing<W>(config: &Config, place: Place, writer: W) -> Result<Writing, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        // Complains by `eprintln!`, which panics where nobody reads stderr any more.
        .log_internal_errors(false)
        .with_ansi(place.colour);
    Ok(match config.format {
        Format::Journal => journal().map_err(LogError::Journal)?,
        // Without the socket, lines reach the journal all the same: it takes our standard error.
        Format::Auto if place.journal => match journal() {
            Ok(journal) => journal,
            Err(_) => lines.boxed(),
        },
        Format::Auto if place.terminal => lines.compact().with_target(false).boxed(),
        Format::Pretty => lines.compact().with_target(false).boxed(),
        Format::Auto | Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).with_ansi(false).boxed(),
    })
}

/// The journal, our fields prefixed: `journalctl REELVAULT_TASK_ID=…` finds what befell a task.
fn journal() -> io::Result<Writing> {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer()?
        .with_syslog_identifier("reelvault".to_owned())
        .with_field_prefix(Some("REELVAULT".to_owned()))
        .with_priority_mappings(priorities);
    Ok(layer.boxed())
}

/// Crates that print whole requests below `info`, signed URLs and keys among them.
const CHATTERERS: [&str; 12] = [
    "axum",
    "h2",
    "hyper",
    "hyper_util",
    "reqwest",
    "rustls",
    "rustls_platform_verifier",
    "s3s",
    "tokio_postgres",
    "tokio_rustls",
    "tower",
    "tower_http",
];

/// Where the SDK calls it an error that our connections cannot be taken from it, at each status that says "later".
const POINTLESS: &str = "aws_smithy_runtime::client::http::connection_poisoning";

/// Whether this is what no level may bring to light.
fn is_foreign_chatter(metadata: &Metadata<'_>) -> bool {
    if metadata.target() == POINTLESS {
        return true;
    }
    let name = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() > Level::INFO && (name.starts_with("aws_") || CHATTERERS.contains(&name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixDatagram;
    use std::sync::Arc;
    use std::sync::Mutex;

    use super::*;

    const PIPE: Place = Place {
        terminal: false,
        journal: false,
        colour: false,
    };
    const TERMINAL: Place = Place {
        terminal: true,
        journal: false,
        colour: true,
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Written {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn config(level: &str, format: Format) -> Config {
        Config {
            level: level.to_owned(),
            format,
        }
    }

    fn log(level: &str, format: Format, place: Place) -> (Log, Written) {
        let written = Written::default();
        let writer = written.clone();
        let log = Log::new(&config(level, format), place, move || writer.clone()).unwrap();
        (log, written)
    }

    fn tell_one(format: Format, place: Place) -> String {
        let (log, written) = log("info", format, place);
        tracing::dispatcher::with_default(&log.dispatch, || {
            let span = tracing::info_span!("archive", task.id = "task-1");
            let _entered = span.enter();
            tracing::info!(asset.index = 2, "archived");
        });
        written.take()
    }

    #[test]
    fn text_is_one_line_with_its_span() {
        let text = tell_one(Format::Text, PIPE);
        assert_eq!(text.lines().count(), 1, "{text}");
        let rest = text.split_once(' ').unwrap().1;
        let target = "reelvault::telemetry::log::tests";
        let line =
            format!(" INFO archive{{task.id=\"task-1\"}}: {target}: archived asset.index=2\n");
        assert_eq!(rest, line);
        assert_eq!(
            tell_one(Format::Auto, PIPE).split_once(' ').unwrap().1,
            line
        );
    }

    #[test]
    fn colour_is_for_terminals_that_want_it() {
        let colourless = Place {
            colour: false,
            ..TERMINAL
        };
        for format in [Format::Auto, Format::Pretty, Format::Text] {
            assert!(tell_one(format, TERMINAL).contains('\u{1b}'), "{format:?}");
            assert!(
                !tell_one(format, colourless).contains('\u{1b}'),
                "{format:?}"
            );
        }
        assert!(!tell_one(Format::Json, TERMINAL).contains('\u{1b}'));
        let pretty = tell_one(Format::Auto, colourless);
        assert!(!pretty.contains("telemetry::log"), "{pretty}");
    }

    #[test]
    fn json_is_one_document_with_fields() {
        let text = tell_one(Format::Json, PIPE);
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["level"], "INFO");
        assert_eq!(document["message"], "archived");
        assert_eq!(document["asset.index"], 2);
        assert_eq!(document["span"]["task.id"], "task-1");
    }

    #[test]
    fn chatter_stays_capped_whatever_is_asked() {
        for level in [
            "trace",
            "info,aws_smithy_runtime=trace,hyper_util=trace",
            "hyper_util::client=trace",
        ] {
            let (log, written) = log(level, Format::Text, PIPE);
            tracing::dispatcher::with_default(&log.dispatch, || {
                tracing::debug!(target: "aws_smithy_runtime::client", "canary");
                tracing::trace!(target: "aws_sdk_s3", "canary");
                tracing::debug!(target: "hyper_util::client::legacy", "canary");
                tracing::debug!(target: "reqwest::connect", "canary");
                tracing::trace!(target: "h2", "canary");
                tracing::debug!(target: "rustls::client", "canary");
                let span =
                    tracing::debug_span!(target: "aws_smithy_runtime", "invoke", url = "canary");
                let _entered = span.enter();
                tracing::info!(target: "hyper_util::client", "told");
                tracing::debug!(target: "h2o", "told at trace only");
            });
            let told = written.take();
            assert!(!told.contains("canary"), "{level}: {told}");
            let own = usize::from(level == "trace");
            assert_eq!(told.matches("told at trace only").count(), own, "{told}");
            assert!(
                level.starts_with("info,aws") || told.contains("told"),
                "{level}: {told}"
            );
        }
    }

    #[test]
    fn the_level_changes_while_running() {
        let (log, written) = log("warn,reelvault::archive=debug", Format::Text, PIPE);
        let tell = || {
            tracing::debug!(target: "reelvault::archive", "first");
            tracing::debug!(target: "reelvault::watch", "second");
            let told = written.take();
            (told.contains("first"), told.contains("second"))
        };
        tracing::dispatcher::with_default(&log.dispatch, || {
            assert_eq!(tell(), (true, false));
            log.level.set("debug").unwrap();
            assert_eq!(tell(), (true, true));
            let refused = log.level.set("loud=very");
            assert!(matches!(refused, Err(LogError::Level { .. })));
            assert_eq!(tell(), (true, true));
            log.level.set("info").unwrap();
            assert_eq!(tell(), (false, false));
        });
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        let made = Log::new(&config("info,reelvault=loud", Format::Text), PIPE, io::sink);
        let said = made.err().unwrap().to_string();
        assert!(
            said.starts_with("log.level \"info,reelvault=loud\" is neither"),
            "{said}"
        );
    }

    #[test]
    fn the_journal_is_needed_only_when_asked_for() {
        let socket = "/run/systemd/journal/socket";
        let answers = UnixDatagram::unbound().unwrap().connect(socket).is_ok();
        let asked = Log::new(&config("info", Format::Journal), PIPE, io::sink);
        assert_eq!(asked.is_ok(), answers);
        let place = Place {
            journal: true,
            ..PIPE
        };
        assert!(Log::new(&config("info", Format::Auto), place, io::sink).is_ok());
        if !answers {
            assert!(tell_one(Format::Auto, place).contains("archived"));
        }
    }

    #[test]
    fn the_journal_is_told_by_what_stderr_is() {
        let own = io::stderr().as_fd().try_clone_to_owned().unwrap();
        let own = std::fs::File::from(own).metadata().unwrap();
        let place = |stream: String| {
            Place::stderr(&move |name| (name == "JOURNAL_STREAM").then(|| stream.clone()))
        };
        assert!(place(format!("{}:{}", own.dev(), own.ino())).journal);
        assert!(!place(format!("{}:{}", own.dev(), own.ino() + 1)).journal);
        assert!(!place("canary".to_owned()).journal);
        assert!(!Place::stderr(&|_| None).journal);
    }

    #[test]
    fn formats_are_written_in_lower_case() {
        let config: Config = toml::from_str("level = \"info\"\nformat = \"auto\"").unwrap();
        assert_eq!(config.format, Format::Auto);
        assert!(toml::from_str::<Config>("level = \"info\"\nformat = \"xml\"").is_err());
        assert!(toml::from_str::<Config>("level = \"info\"\nformat = \"json\"\nx = 1").is_err());
    }
}
