//! `[results]` of a description: where the links are, or which further call tells them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::provider::description::field::HostPattern;
use crate::provider::description::path::PathTemplate;
use crate::provider::pointer::Pointer;
use crate::units::Span;

/// `[results]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// Where links are; what each of them finds is taken, once.
    #[serde(default)]
    pub pointers: Vec<Pointer>,
    /// A path of the API itself that gives the bytes.
    pub path: Option<PathTemplate>,
    /// The call whose answer has the links, made once a task has completed; absent = the status call.
    pub call: Option<Call>,
    /// The hosts that links may be on, `*.example.com` for all below, `{api}` for the API's own; empty = any.
    #[serde(default)]
    pub hosts: Vec<HostPattern>,
    /// Whether a download needs the key as well.
    #[serde(default)]
    pub download_auth: DownloadAuth,
    /// How long links live after completion.
    pub ttl: Option<Span>,
    /// Whether another look may give a fresh link for an old result.
    #[serde(default)]
    pub refresh: bool,
}

/// `[results.call]`: `GET` of a completed task's results. Its errors are told as those of the status call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// May have `{id}`, what `id.params` names, and what `values` names.
    pub path: PathTemplate,
    /// What the task says that the path needs.
    #[serde(default)]
    pub values: BTreeMap<String, Pointer>,
    /// HTTP statuses that mean that the task has failed.
    #[serde(default)]
    pub failed_http: Vec<u16>,
    /// Codes that mean that the task has failed.
    #[serde(default)]
    pub failed: Vec<String>,
}

/// Whether a download needs the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DownloadAuth {
    /// No: media hosts never see it.
    #[default]
    None,
    /// The same header as the API.
    Same,
}
