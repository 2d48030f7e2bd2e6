//! Who is told: endpoints, callbacks and the heartbeat.

use std::collections::BTreeMap;

use super::Seams;
use super::face::places;
use crate::config::Config;
use crate::daemon::gateway;
use crate::http::Http;
use crate::http::client::ClientConfig;
use crate::http::client::Traffic;
use crate::http::client::USER_AGENT;
use crate::http::guard::Guard;
use crate::intake::gateway::Gateway;
use crate::manifest::Manifest;
use crate::model::event::EndpointName;
use crate::report::heartbeat::Heartbeat;
use crate::report::notify;
use crate::report::notify::Callbacks;
use crate::report::notify::Endpoint;
use crate::report::notify::Notify;
use crate::report::notify::Signer;
use crate::units::Span;
use crate::work::driver::Pulse;

/// How long an endpoint may take to answer, and each frame of its answer.
const ENDPOINT_TIMEOUT: Span = Span::from_secs(15);

/// Who is told what.
pub(super) fn notify(
    config: &Config,
    (endpoints, signer): (BTreeMap<EndpointName, Endpoint>, Signer),
    manifest: &Manifest,
    gateway: &Gateway,
    seams: &Seams,
) -> anyhow::Result<Notify> {
    let callback = &config.callback;
    Ok(Notify {
        manifest: manifest.clone(),
        endpoints,
        callbacks: Callbacks {
            signer,
            http: endpoint_http(config, callback.allow_private, seams)?,
            body: Some(gateway::callback_body(gateway)),
        },
        places: places(config),
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
    })
}

/// What signs callbacks, where anything does.
pub fn callback_signer(config: &Config, seams: &Seams) -> anyhow::Result<Signer> {
    let callback = &config.callback;
    let (secret, previous) = (callback.secret.as_ref(), callback.secret_old.as_ref());
    Ok(Signer::read(
        "callback",
        secret,
        previous,
        seams.env.as_ref(),
    )?)
}

/// Makes one endpoint ready to be told; nothing is sent yet.
pub fn endpoint(
    settings: &notify::Config,
    config: &Config,
    seams: &Seams,
) -> anyhow::Result<Endpoint> {
    let http = endpoint_http(config, settings.allow_private, seams)?;
    Ok(Endpoint::connect(settings, http, seams.env.as_ref())?)
}

pub(super) fn heartbeat(
    config: &Config,
    manifest: &Manifest,
    pulses: Vec<(&'static str, Pulse)>,
    seams: &Seams,
) -> anyhow::Result<Option<Heartbeat>> {
    let settings = &config.heartbeat;
    let Some(url) = settings.url.clone() else {
        return Ok(None);
    };
    Ok(Some(Heartbeat {
        url,
        every: settings.every,
        warn: config.deadline.warn,
        manifest: manifest.clone(),
        http: endpoint_http(config, settings.allow_private, seams)?,
        pulses,
        clock: seams.clock.clone(),
    }))
}

/// The client for addresses that somebody else chose.
fn endpoint_http(config: &Config, allow_private: bool, seams: &Seams) -> anyhow::Result<Http> {
    let guard = Guard::new(allow_private);
    (seams.http)(ClientConfig {
        guard,
        traffic: Traffic::Answers,
        connect_timeout: config.transfer.connect_timeout,
        read_timeout: ENDPOINT_TIMEOUT,
        user_agent: USER_AGENT.to_owned(),
        roots: seams.roots.clone(),
    })
}
