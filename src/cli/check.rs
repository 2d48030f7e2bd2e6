//! `reelvault check`: everything about configuration and surroundings at once, with a remedy for each that fails.

mod explain;

use std::fmt;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use serde::Serialize;

use crate::cli::exit::Complaint;
use crate::cli::exit::Exit;
use crate::cli::open;
use crate::cli::say::say;
use crate::cli::tasks::json;
use crate::clock::Clock;
use crate::config::Config;
use crate::config::Unready;
use crate::daemon::sentence;
use crate::daemon::wiring;
use crate::daemon::wiring::Seams;
use crate::manifest::Access;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::store::StoreError;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    /// Only what needs no network
    #[arg(long)]
    offline: bool,
    /// A JSON document a finding
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Say what a provider's description reads out of an answer
    Provider(explain::Arguments),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    grade: Grade,
    subject: String,
    what: String,
    hint: Option<String>,
    /// What the command ends with if nothing worse fails: a configuration that is wrong, a manifest that cannot be used, and
    /// whoever else answers.
    #[serde(skip)]
    exit: Exit,
}

impl Finding {
    fn new(grade: Grade, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            grade,
            subject: subject.into(),
            what: what.into(),
            hint: None,
            exit: Exit::Configuration,
        }
    }

    fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }

    fn ending(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }
}

impl From<Unready> for Finding {
    fn from(unready: Unready) -> Self {
        Finding::new(Grade::Fail, unready.section, unready.what).hint(unready.hint)
    }
}

impl From<ManifestError> for Finding {
    fn from(error: ManifestError) -> Self {
        let complaint = Complaint::from(error);
        let exit = complaint.exit();
        let (what, hint) = complaint.into_words();
        Finding::new(Grade::Fail, "manifest", what)
            .hint(hint)
            .ending(exit)
    }
}

impl fmt::Display for Finding {
    /// As wide as asked, which is the width of the subject's column.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = f.width().unwrap_or_default();
        let grade = match self.grade {
            Grade::Ok => "ok",
            Grade::Warn => "warn",
            Grade::Fail => "FAIL",
        };
        write!(f, "{grade:4}  {:width$}  {}", self.subject, self.what)?;
        self.hint
            .iter()
            .try_for_each(|hint| write!(f, "\n      {:width$}  hint: {hint}", ""))
    }
}

pub(crate) async fn check(config: Option<&Path>, arguments: &Arguments) -> Result<Exit, Complaint> {
    if let Some(What::Provider(it)) = &arguments.what {
        return explain::explain(config, it);
    }
    let path = open::config_path(config)?;
    let loaded = match Config::load(&path, open::variables()) {
        Err(errors) if arguments.json => {
            let finding = Finding::new(Grade::Fail, "configuration", errors.to_string());
            say!("{}", json(&finding)?)?;
            return Ok(Exit::Configuration);
        }
        loaded => loaded?,
    };
    let mut findings = vec![Finding::new(
        Grade::Ok,
        "configuration",
        path.display().to_string(),
    )];
    let warnings = loaded.warnings.iter();
    findings.extend(warnings.map(|it| Finding::new(Grade::Warn, "configuration", it.clone())));
    let unready = loaded.unready(&open::variable);
    let config = loaded.config;
    if arguments.offline && config.manifest.is_shared() {
        findings.push(untried("manifest"));
    } else {
        findings.push(manifest(&config).await);
        findings.extend(clock(&config).await);
    }

    let seams = open::seams(&config)?;
    let mut around = server(&config, &seams);
    around.extend(told(&config, &seams));
    around.extend(spool(&config));
    around.extend(destinations(&config, &seams, arguments.offline).await);
    around.extend(providers(&config, &seams, arguments.offline).await);
    // Whoever lacks a secret can say no more than that, and of several only the first.
    around.retain(|it| unready.iter().all(|unready| unready.section != it.subject));
    findings.extend(unready.into_iter().map(Finding::from));
    findings.extend(around);
    let subjects = findings.iter().map(|it| it.subject.chars().count());
    let width = subjects.max().unwrap_or_default();
    for finding in &findings {
        if arguments.json {
            say!("{}", json(finding)?)?;
        } else {
            say!("{finding:width$}")?;
        }
    }
    let failed = findings.iter().filter(|it| it.grade == Grade::Fail);
    let ends: Vec<Exit> = failed.map(|it| it.exit).collect();
    let worst = [Exit::Configuration, Exit::Manifest, Exit::Refused];
    Ok(worst
        .into_iter()
        .find(|exit| ends.contains(exit))
        .unwrap_or(Exit::Done))
}

/// Whether the manifest can be opened as the daemon would; one that is not there yet is made at the daemon's start.
async fn manifest(config: &Config) -> Finding {
    let subject = "manifest";
    let url = &config.manifest.url;
    match Manifest::open(&config.manifest, Clock::system(), Access::Reader).await {
        Ok(manifest) => {
            let tally = manifest.tally().await;
            manifest.close().await;
            let writable = Manifest::check_writable(&config.manifest).await;
            match tally.and_then(|tally| writable.map(|()| tally)) {
                Ok(_) if Manifest::is_daemon_running(&config.manifest).await => {
                    Finding::new(Grade::Ok, subject, format!("{url}, a daemon is running"))
                }
                Ok(_) => Finding::new(Grade::Ok, subject, format!("{url}, no daemon is running")),
                Err(error) => error.into(),
            }
        }
        Err(ManifestError::Missing { .. }) if config.manifest.is_shared() => {
            match Manifest::check_writable(&config.manifest).await {
                Ok(()) => Finding::new(
                    Grade::Ok,
                    subject,
                    format!("{url} will be made at the first start"),
                ),
                Err(error) => error.into(),
            }
        }
        Err(ManifestError::Missing { path }) => match path.parent().map(std::fs::metadata) {
            Some(Ok(folder)) if folder.is_dir() => Finding::new(
                Grade::Ok,
                subject,
                format!("{url} will be made at the first start"),
            ),
            Some(_) | None => ManifestError::Missing { path }.into(),
        },
        Err(error @ ManifestError::Older { .. }) => {
            Finding::new(Grade::Warn, subject, error.to_string())
        }
        Err(error) => error.into(),
    }
}

/// What would be asked over the network.
fn untried(subject: impl Into<String>) -> Finding {
    let what = "configured; not tried, since --offline";
    Finding::new(Grade::Ok, subject, what)
}

/// Whether this machine's clock is that of the manifest, where that has one of its own.
async fn clock(config: &Config) -> Option<Finding> {
    let clock = Clock::system();
    let manifest = Manifest::open(&config.manifest, clock.clone(), Access::Reader).await;
    // One that cannot be opened was told of already.
    let manifest = manifest.ok().filter(|_| config.manifest.is_shared())?;
    let skew = manifest.skew(&clock).await;
    manifest.close().await;
    Some(match skew {
        Ok(None) => Finding::new(Grade::Ok, "clock", "as the manifest's"),
        Ok(Some(skew)) => {
            let hint = "let both keep the right time (NTP): tasks are looked at too late or too early by as much";
            Finding::new(Grade::Warn, "clock", skew.to_string()).hint(Some(hint.to_owned()))
        }
        Err(error) => error.into(),
    })
}

/// Whether the daemon can listen as it should: the token is read, and nothing is opened.
fn server(config: &Config, seams: &Seams) -> Vec<Finding> {
    let mut findings = Vec::new();
    let server = &config.server;
    if server.token.is_some() {
        findings.push(match wiring::face::token(server, seams) {
            Ok(_) => Finding::new(Grade::Ok, "server.token", "can be read"),
            Err(error) => Finding::new(Grade::Fail, "server.token", sentence(&error)),
        });
    }
    let is_other = |found: std::fs::Metadata| !found.file_type().is_socket();
    if std::fs::symlink_metadata(&server.socket).is_ok_and(is_other) {
        let path = server.socket.display();
        let what = format!("{path} is there already, and is no socket");
        let hint = "name a path of its own, or take away what is there".to_owned();
        findings.push(Finding::new(Grade::Fail, "server.socket", what).hint(Some(hint)));
    }
    findings
}

/// Whether those who are told can be: keys are read, and nothing is sent.
fn told(config: &Config, seams: &Seams) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.callback.secret.is_some() {
        findings.push(match wiring::telling::callback_signer(config, seams) {
            Ok(_) => Finding::new(Grade::Ok, "callback", "its key can be read"),
            Err(error) => Finding::new(Grade::Fail, "callback", sentence(&error)),
        });
    }
    if config.heartbeat.url.is_some() {
        let what = "configured; it is not called to try it";
        findings.push(Finding::new(Grade::Ok, "heartbeat", what));
    }
    for settings in &config.notify {
        let subject = format!("notify {}", settings.endpoint());
        findings.push(match wiring::telling::endpoint(settings, config, seams) {
            Ok(_) => Finding::new(Grade::Ok, subject, "configured; nothing is sent to try it"),
            Err(error) => Finding::new(Grade::Fail, subject, sentence(&error)),
        });
    }
    findings
}

/// Whether the spool can be read and what is taken put away.
fn spool(config: &Config) -> Option<Finding> {
    let (subject, path) = ("spool", &config.spool.path);
    if path.as_os_str().is_empty() {
        return None;
    }
    let name = path.display();
    let access =
        rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    Some(match rustix::fs::access(path, access) {
        Ok(()) if path.is_dir() => Finding::new(Grade::Ok, subject, name.to_string()),
        Ok(()) => Finding::new(Grade::Fail, subject, format!("{name} is not a folder")),
        Err(error) => Finding::new(Grade::Fail, subject, format!("{name}: {error}")).hint(Some(
            "make it, and let the service's user read and write it".to_owned(),
        )),
    })
}

async fn destinations(config: &Config, seams: &Seams, is_offline: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, settings) in &config.destination {
        let subject = format!("destination.{name}");
        let store = match wiring::connect::store(name, settings, seams).await {
            Ok(store) => store,
            Err(error) => {
                findings.push(Finding::new(Grade::Fail, &subject, sentence(&error)));
                continue;
            }
        };
        if is_offline {
            findings.push(untried(&subject));
            continue;
        }
        for step in store.probe(&seams.dice.nonce()).await {
            let subject = format!("{subject} {}", step.name);
            findings.push(match step.outcome {
                Ok(what) if step.is_weak => Finding::new(Grade::Warn, subject, what),
                Ok(what) => Finding::new(Grade::Ok, subject, what),
                Err(error) => Finding::new(Grade::Fail, subject, without_hint(&error))
                    .hint(error.hint.clone())
                    .ending(Exit::Refused),
            });
        }
    }
    findings
}

/// A store's error in one line has its hint in it; here the hint has a line of its own.
fn without_hint(error: &StoreError) -> String {
    let what = error.to_string();
    match &error.hint {
        Some(hint) => what.replacen(&format!("; {hint}"), "", 1),
        None => what,
    }
}

/// The address to hand to a provider that calls back. It is secret, and whoever runs this asks for it.
fn webhook(name: &ProviderName, provider: &Provider, config: &Config) -> Option<Finding> {
    let path = provider.hook_path()?;
    let server = &config.server;
    let address = server.hooks.listen.or(server.listen);
    let subject = format!("provider.{name} webhook");
    let Some(base) = wiring::face::base_url(server, address) else {
        let what = "it is taken, but nothing listens on TCP";
        return Some(
            Finding::new(Grade::Warn, subject, what)
                .hint(Some("set server.listen or server.hooks.listen".to_owned())),
        );
    };
    let address = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let finding = Finding::new(Grade::Ok, subject, format!("give it {address}"));
    Some(if server.public_url.is_some() {
        finding
    } else {
        let hint = "set server.public_url to how the provider reaches this machine: it is the beginning of the address";
        Finding {
            grade: Grade::Warn,
            ..finding
        }
        .hint(Some(hint.to_owned()))
    })
}

async fn providers(config: &Config, seams: &Seams, is_offline: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, settings) in wiring::connect::task_apis(config) {
        let subject = format!("provider.{name}");
        let provider = match wiring::connect::provider(name, settings, config, seams) {
            Ok(provider) => provider,
            Err(error) => {
                findings.push(Finding::new(Grade::Fail, subject, sentence(&error)));
                continue;
            }
        };
        findings.extend(webhook(name, &provider, config));
        findings.push(if is_offline {
            untried(subject)
        } else {
            match provider.check_key().await {
                Ok(what) => Finding::new(Grade::Ok, subject, what),
                Err(error) => Finding::new(Grade::Fail, subject, error.to_string())
                    .hint(error.hint())
                    .ending(Exit::Refused),
            }
        });
    }
    findings
}
