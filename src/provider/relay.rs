//! What the gateway asks of a provider: where a call goes, with whose key, and what an answer that passes says.

use http::HeaderMap;
use http::StatusCode;
use url::Url;

use crate::model::digest::Sha256Digester;
use crate::model::task::Progress;
use crate::model::task::TaskId;
use crate::provider::Provider;
use crate::provider::connect::Account;
use crate::provider::description::field::Auth;
use crate::provider::description::gateway::Gateway;
use crate::provider::description::gateway::task_in;
use crate::provider::error::Meaning;
use crate::provider::error::meaning;
use crate::provider::json;
use crate::provider::rewrite;

/// A longer answer is not kept: one about a task takes a few KiB.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// What an answer about a task says that passes through the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passing {
    /// How the task stands, with its results where it is completed.
    Task {
        /// What the status means.
        progress: Progress,
        /// The links of the results, in the provider's order.
        results: Vec<Url>,
    },
    /// The provider knows no such task, and has let the caller in.
    Gone,
    /// Trouble on the other side, which may be over soon.
    Trouble,
    /// Anything else: what it means is between the provider and the caller.
    Other,
}

impl Provider {
    /// What the description says for the gateway, where it says anything.
    pub fn gateway(&self) -> Option<&Gateway> {
        self.description().gateway.as_ref()
    }

    /// Where the API is.
    pub fn base_url(&self) -> Option<Url> {
        self.account().address_without_key("").ok()
    }

    /// The task that a look with this path and query is about; the path is that below the base URL.
    pub fn task_in(&self, path: &str, query: Option<&str>) -> Option<TaskId> {
        task_in(&self.description().status.path, path, query)
    }

    /// Whether a call shows the very key that is configured, or the API needs none.
    pub fn shows_own_key(&self, headers: &HeaderMap, url: &Url) -> bool {
        let account = self.account();
        match (&account.description.auth, &account.key) {
            (Auth::None, _) => true,
            (_, None) => false,
            (Auth::Query { name }, Some(key)) => url.query_pairs().any(|(own, shown)| {
                own == name.as_str() && is_same(shown.as_bytes(), key.expose().as_bytes())
            }),
            (Auth::Bearer | Auth::Header { .. }, Some(_)) => {
                let own = account.auth_header();
                !own.is_empty()
                    && own.iter().all(|(name, value)| {
                        let shown = headers.get(name);
                        shown.is_some_and(|shown| {
                            is_same(
                                &scheme_lowered(shown.as_bytes()),
                                &scheme_lowered(value.as_bytes()),
                            )
                        })
                    })
            }
        }
    }

    /// Puts the configured key, and the further headers, in place of the caller's.
    pub fn put_own_key(&self, headers: &mut HeaderMap, url: &mut Url) {
        let account = self.account();
        headers.remove(http::header::AUTHORIZATION);
        for (name, value) in &account.headers {
            headers.insert(name, value.clone());
        }
        if let (Auth::Query { name }, Some(key)) = (&account.description.auth, &account.key) {
            let others = url.query().unwrap_or_default().split('&');
            let is_other =
                |pair: &&str| !pair.is_empty() && pair.split('=').next() != Some(name.as_str());
            let others: Vec<&str> = others.filter(is_other).collect();
            let others = others.join("&");
            url.set_query(
                Some(&others)
                    .filter(|others| !others.is_empty())
                    .map(String::as_str),
            );
            url.query_pairs_mut().append_pair(name, key.expose());
        }
    }

    /// The ID of the task that a submission made, which was answered like this.
    pub fn submitted(&self, status: StatusCode, body: &[u8]) -> Option<TaskId> {
        let description = self.description();
        let pointer = self
            .gateway()?
            .id
            .as_ref()
            .or(description.status.id.as_ref())?;
        let answer: serde_json::Value = serde_json::from_slice(body)
            .ok()
            .filter(|_| status.is_success())?;
        if !description.status.ok.is_in(&answer) {
            return None;
        }
        match pointer.first(&answer)? {
            serde_json::Value::String(id) => id.parse().ok(),
            serde_json::Value::Number(id) => id.to_string().parse().ok(),
            serde_json::Value::Null
            | serde_json::Value::Bool(_)
            | serde_json::Value::Array(_)
            | serde_json::Value::Object(_) => None,
        }
    }

    /// What an answer to a look at `id` says. Unlike [`Provider::look`] it changes nothing for our own calls: with
    /// another key a refusal says nothing about ours.
    pub fn passing(&self, id: &TaskId, status: StatusCode, body: &[u8]) -> Passing {
        let reader = self.0.caller.reader();
        let answer: Option<serde_json::Value> = serde_json::from_slice(body).ok();
        if let Some(answer) = &answer
            && status.is_success()
            && !reader.is_error(answer)
        {
            return reader
                .sighting(answer, id)
                .map_or(Passing::Other, |sighting| Passing::Task {
                    progress: sighting.progress,
                    results: sighting.results.into_iter().map(|link| link.url).collect(),
                });
        }
        let code = answer.and_then(|answer| reader.words(&answer).code);
        let errors = &self.description().status.error;
        match meaning(errors, status, code.as_deref(), false) {
            Meaning::Gone => Passing::Gone,
            Meaning::Unavailable => Passing::Trouble,
            Meaning::Refused | Meaning::Limited | Meaning::Garbled => Passing::Other,
        }
    }

    /// An answer with other links in the places of its results: `with` gives the new one for a link, or nothing.
    pub fn relink(&self, body: &[u8], with: &mut dyn FnMut(&Url) -> Option<String>) -> Vec<u8> {
        rewrite::replace_strings(body, &self.description().results.pointers, &mut |said| {
            Url::parse(said.trim()).ok().and_then(|url| with(&url))
        })
    }

    /// The answer about a completed task as it would have been shortly before: still running, without results.
    pub fn held_back(&self, body: &[u8]) -> Vec<u8> {
        let description = self.description();
        let word_for = |meant| {
            description
                .status
                .map
                .iter()
                .find(|(_, means)| **means == meant)
        };
        let word = word_for(Progress::Running).or_else(|| word_for(Progress::Pending));
        let Some((word, _)) = word else {
            return body.to_vec();
        };
        let mut held =
            rewrite::replace_values(body, &description.status.state, &json::written(word));
        if let Some(percent) = &description.status.percent {
            held = rewrite::replace_values(&held, percent, b"99");
        }
        for pointer in &description.results.pointers {
            held = rewrite::withhold(&held, pointer);
        }
        held
    }

    /// An answer in which `ours`, where it is echoed, stands as the caller's own callback, or as none.
    pub fn without_callback(&self, body: &[u8], ours: &Url, own: Option<&Url>) -> Vec<u8> {
        rewrite::replace_everywhere(body, &mut |said| {
            (said == ours.as_str())
                .then(|| own.map_or_else(|| b"null".to_vec(), |own| json::written(own.as_str())))
        })
    }

    /// An answer about a task that is over, fit to be kept for when the provider has forgotten it: short enough, and
    /// without our key.
    pub(super) fn keepable(&self, body: &[u8]) -> Option<Vec<u8>> {
        if !self.0.keeps_answers || body.len() > KEPT_BYTES_MAX {
            return None;
        }
        let Some(key) = &self.account().key else {
            return Some(body.to_vec());
        };
        let mut without_key = |said: &str| {
            let key = key.expose();
            said.contains(key)
                .then(|| json::written(&said.replace(key, "***")))
        };
        Some(rewrite::replace_everywhere(body, &mut without_key))
    }

    fn account(&self) -> &Account {
        &self.0.caller.account
    }
}

/// Takes the same time whatever differs.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let digest = |bytes: &[u8]| {
        let mut digester = Sha256Digester::new();
        digester.update(bytes);
        digester.value()
    };
    digest(one) == digest(other)
}

/// `bearer` and `Bearer` are one scheme.
fn scheme_lowered(value: &[u8]) -> Vec<u8> {
    let scheme = value.iter().position(|byte| *byte == b' ').unwrap_or(0);
    let mut lowered = value.to_vec();
    lowered
        .iter_mut()
        .take(scheme)
        .for_each(|byte| byte.make_ascii_lowercase());
    lowered
}
