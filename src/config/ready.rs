//! What the configuration is right about and the machine is not: secrets that cannot be had, and keys that are missing
//! for the API that they are for. Only who works as a daemon needs them, so no other command asks.

use crate::config::Config;
use crate::config::ConfigErrors;
use crate::config::Loaded;
use crate::config::node::Path;
use crate::config::node::Step;
use crate::config::problem::At;
use crate::config::problem::Problem;
use crate::config::salvage::SECRET_FORMS;
use crate::model::task::ProviderName;
use crate::provider;
use crate::secret::SecretSource;

/// One thing that is not ready, for whoever lists it among others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// Whose it is: `provider.evolink`, `notify app`.
    pub section: String,
    /// Where, which key, and what is wrong.
    pub what: String,
    /// What helps.
    pub hint: Option<String>,
}

/// What a daemon cannot start with, all of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{errors}")]
pub struct NotReady {
    /// Each with its place.
    pub errors: ConfigErrors,
    /// Whether all of it may be there later, without anybody changing the configuration.
    pub may_pass: bool,
}

impl Loaded {
    /// Reads all secrets that a daemon would, taking variables through `env`; what cannot be had is told at once, each
    /// with its place.
    pub fn ready(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<(), NotReady> {
        let (problems, may_pass): (Vec<Problem>, Vec<bool>) =
            self.problems(env).into_iter().unzip();
        if problems.is_empty() {
            return Ok(());
        }
        Err(NotReady {
            errors: ConfigErrors(self.sources.tell(problems)),
            may_pass: may_pass.into_iter().all(|it| it),
        })
    }

    /// The same one by one.
    pub fn unready(&self, env: &dyn Fn(&str) -> Option<String>) -> Vec<Unready> {
        let unready = |problem: Problem| Unready {
            section: self.section(&problem.path),
            what: format!(
                "{}: {}: {}",
                self.sources.place(&problem),
                problem.path,
                problem.what
            ),
            hint: problem.notes.into_iter().next(),
        };
        let problems = self.problems(env).into_iter();
        problems.map(|(problem, _)| unready(problem)).collect()
    }

    /// Whose a key is, as `check` calls it.
    fn section(&self, path: &Path) -> String {
        match path.0.as_slice() {
            [Step::Key(table), Step::Index(index), ..] if table == "notify" => {
                let endpoint = self.config.notify.get(*index);
                let name = endpoint.map(|it| it.endpoint().to_string());
                format!("notify {}", name.unwrap_or_default())
            }
            [Step::Key(table), ..] if table == "callback" => table.clone(),
            steps => Path(steps.iter().take(2).cloned().collect()).to_string(),
        }
    }

    /// Each with whether it may pass.
    fn problems(&self, env: &dyn Fn(&str) -> Option<String>) -> Vec<(Problem, bool)> {
        let keyless = self.config.provider.iter();
        let keyless = keyless.filter(|(name, it)| it.api_key.is_none() && wants_key(name, it));
        let missing = keyless.map(|(name, _)| {
            let problem = Problem {
                path: Path::keys(&["provider", name.as_str(), "api_key"]),
                at: At::Missing,
                what: "missing, while the API wants a key".to_owned(),
                notes: vec![SECRET_FORMS.to_owned()],
            };
            (problem, false)
        });
        let secrets = self.secrets.iter();
        let secrets = secrets.filter(|(path, _)| is_read(path, &self.config));
        let unread = secrets.filter_map(|(path, source)| unread(path, source, env));
        missing.chain(unread).collect()
    }
}

/// Whether a daemon reads this secret at its start. That of the manifest is read where that is opened.
fn is_read(path: &Path, config: &Config) -> bool {
    let keys: Vec<&str> = path.0.iter().filter_map(Step::as_key).collect();
    match keys.as_slice() {
        ["manifest", ..] => false,
        ["provider", name, key] => {
            let mut providers = config.provider.iter();
            let provider = providers.find(|(it, _)| it.as_str() == *name);
            provider.is_some_and(|(name, it)| match *key {
                "api_key" => wants_key(name, it),
                _ => it.webhook,
            })
        }
        _ => true,
    }
}

/// Whether calls carry a key. A description that cannot be read is told of by whoever connects.
fn wants_key(name: &ProviderName, provider: &provider::Config) -> bool {
    let described = provider::describe(name, provider);
    described.is_ok_and(|it| it.wants_key())
}

fn unread(
    path: &Path,
    source: &SecretSource,
    env: &dyn Fn(&str) -> Option<String>,
) -> Option<(Problem, bool)> {
    let place = match (&source.credential, &source.file) {
        (Some(_), _) => "credential",
        (None, Some(_)) => "file",
        (None, None) => "env",
    };
    let is_token = matches!(path.last_key(), Some("hook_secret" | "hook_secret_old"));
    let (what, notes, may_pass) = match source.read(env) {
        Err(error) => (error.to_string(), Vec::new(), error.may_pass()),
        Ok(secret) if is_token && secret.expose().len() < provider::TOKEN_BYTES_MIN => {
            let what = format!("shorter than {} characters", provider::TOKEN_BYTES_MIN);
            let notes = vec!["better are 32 random bytes as text".to_owned()];
            (what, notes, false)
        }
        Ok(_) => return None,
    };
    let problem = Problem {
        path: path.key(place),
        at: At::Value,
        what,
        notes,
    };
    Some((problem, may_pass))
}
