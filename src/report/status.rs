//! Will something be lost, and when? The same document on the command line and over HTTP.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::elsewhere::Elsewhere;
use crate::manifest::row::AtRisk;
use crate::manifest::row::Tally;
use crate::manifest::row::event::EndpointTrouble;
use crate::manifest::row::machine::MachineRecord;
use crate::manifest::row::waiting::Waiting;
use crate::model::asset::AssetState;
use crate::model::deadline::Danger;
use crate::model::task::TaskState;
use crate::units::Span;

/// Risks that are counted; the first is told in full.
const RISKS_MAX: usize = 10_000;

/// Errors that are told. A destination or an account that refuses has one word for all that waits for it.
const ERRORS_MAX: usize = 5;

/// How everything stands.
#[derive(Debug, Serialize)]
pub struct Status {
    /// `ok`, `at_risk` or `lost`.
    pub verdict: &'static str,
    /// Whether somebody works on it.
    pub is_daemon_running: bool,
    /// What is unarchived and dies soon.
    pub at_risk: usize,
    /// What of it dies first.
    pub first_at_risk: Option<AtRisk>,
    /// Assets that are lost.
    pub lost: u64,
    /// Assets that are refused.
    pub refused: u64,
    /// By state; a state without any stands there with 0, so that scripts need no case for it.
    pub tasks: BTreeMap<&'static str, u64>,
    /// The same of assets.
    pub assets: BTreeMap<&'static str, u64>,
    /// Bytes of archived assets.
    pub bytes_archived: u64,
    /// Uploads that wait to be aborted.
    pub orphans: u64,
    /// The earliest deadline of anything unarchived.
    pub next_deadline: Option<Timestamp>,
    /// What waits because something went wrong, the errors that most wait for first.
    pub waiting: Vec<Waiting>,
    /// Endpoints that take no messages.
    pub endpoints: Vec<EndpointTrouble>,
    /// The machines that work on it; none where one file has one daemon.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machines: Vec<MachineRecord>,
    /// What waits for a provider or a destination that this machine does not have.
    #[serde(skip_serializing_if = "Elsewhere::is_empty")]
    pub elsewhere: Elsewhere,
    /// The numbers themselves.
    #[serde(skip)]
    pub tally: Tally,
}

/// What stands in front of everything else, in one line and up to two more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headline {
    /// `LOST`, `RISK` or `OK`.
    pub word: &'static str,
    /// What it is about.
    pub what: String,
    /// Why.
    pub cause: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Status {
    /// Whether something will be lost, the worst first.
    pub fn headlines(&self, now: Timestamp) -> Vec<Headline> {
        let mut headlines = Vec::new();
        if self.lost > 0 {
            headlines.push(Headline {
                word: "LOST",
                what: format!("{} {}", self.lost, videos(self.lost)),
                cause: None,
                hint: Some("`reelvault tasks --state lost` names them".to_owned()),
            });
        }
        if let Some(first) = &self.first_at_risk {
            let hint = if self.is_daemon_running {
                "`reelvault check` tests providers and destinations; `reelvault tasks --at-risk` names all"
            } else {
                "no daemon is running: start it with `reelvault run`"
            };
            headlines.push(Headline {
                word: "RISK",
                what: risk(self.at_risk, first, now),
                cause: first.error.clone(),
                hint: Some(hint.to_owned()),
            });
        }
        if headlines.is_empty() {
            headlines.push(Headline {
                word: "OK",
                what: "nothing is at risk".to_owned(),
                cause: None,
                hint: None,
            });
        }
        headlines
    }

    /// Reads it as it is at `now`; what dies within `warn` is at risk.
    pub async fn read(
        manifest: &Manifest,
        now: Timestamp,
        warn: Span,
        is_daemon_running: bool,
    ) -> Result<Self, ManifestError> {
        let at_risk = manifest
            .at_risk(Danger::within(warn, now), RISKS_MAX)
            .await?;
        let tally = manifest.tally().await?;
        let waiting = manifest.waiting(ERRORS_MAX).await?;
        let endpoints = manifest.endpoint_troubles().await?;
        let machines = manifest.machines().await?;
        let lost = tally.assets_in(AssetState::Lost);
        let tasks = TaskState::ALL.iter();
        let assets = AssetState::ALL.iter();
        Ok(Self {
            verdict: match (lost, at_risk.len()) {
                (0, 0) => "ok",
                (0, _) => "at_risk",
                (_, _) => "lost",
            },
            is_daemon_running,
            at_risk: at_risk.len(),
            first_at_risk: at_risk.into_iter().next(),
            lost,
            refused: tally.assets_in(AssetState::Refused),
            tasks: tasks
                .map(|state| (state.as_str(), tally.tasks_in(*state)))
                .collect(),
            assets: assets
                .map(|state| (state.as_str(), tally.assets_in(*state)))
                .collect(),
            bytes_archived: tally.bytes_archived,
            orphans: tally.orphans,
            next_deadline: tally.next_deadline,
            waiting,
            endpoints,
            machines,
            elsewhere: manifest.elsewhere(),
            tally,
        })
    }
}

fn risk(count: usize, first: &AtRisk, now: Timestamp) -> String {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    let (videos, when) = (videos(count), when(first.deadline.at, now));
    if count == 1 {
        format!("1 video may be lost, {when} ({})", first.task.id)
    } else {
        format!(
            "{count} {videos} may be lost, the first {when} ({})",
            first.task.id
        )
    }
}

/// How far off a deadline is.
pub fn when(deadline: Timestamp, now: Timestamp) -> String {
    if deadline > now {
        format!("in {}", deadline.since(now))
    } else {
        format!("past by {}", now.since(deadline))
    }
}

fn videos(count: u64) -> &'static str {
    if count == 1 { "video" } else { "videos" }
}
