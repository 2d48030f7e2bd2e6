//! What others see: who is let in, the links to copies, and what the page shows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use anyhow::Context as _;
use url::Url;

use super::Seams;
use super::connect::task_apis;
use crate::archive::gauge;
use crate::archive::gauge::Gauge;
use crate::config::Config;
use crate::config::ServerConfig;
use crate::daemon::health::Refusals;
use crate::daemon::server::Rules;
use crate::model::object::DestinationName;
use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::report::events::IsMoving;
use crate::report::links::Links;
use crate::report::page::Moving;
use crate::report::page::Now;
use crate::report::page::Peer;
use crate::report::record::Places;
use crate::secret::Secret;
use crate::store::Address;
use crate::store::Store;

/// Who is let in, with the token that the configuration names.
pub(super) fn rules(config: &Config, seams: &Seams) -> anyhow::Result<Rules> {
    let server = &config.server;
    Ok(Rules::new(
        token(server, seams)?,
        server.public_url.as_ref(),
    ))
}

/// How archived copies are reached by others, by addresses of our own too where the server listens at `address`.
pub fn links(
    config: &Config,
    stores: &BTreeMap<DestinationName, Store>,
    address: Option<SocketAddr>,
    seams: &Seams,
) -> anyhow::Result<Links> {
    Ok(Links {
        base: base_url(&config.server, address),
        token: token(&config.server, seams)?,
        token_old: {
            let old = config.server.token_old.as_ref();
            let old = old.map(|it| it.read(seams.env.as_ref()));
            old.transpose().context("server.token_old")?
        },
        ..links_to_stores(config, stores)
    })
}

/// How archived copies are reached where they are.
pub fn links_to_stores(config: &Config, stores: &BTreeMap<DestinationName, Store>) -> Links {
    let public = config.destination.iter();
    let public = public.filter_map(|(name, it)| Some((name.clone(), it.public_url.clone()?)));
    Links {
        config: config.links.clone(),
        stores: stores.clone(),
        public: public.collect(),
        base: None,
        token: None,
        token_old: None,
    }
}

/// What addresses of this daemon begin with: as others know it, else as this machine does.
pub fn base_url(server: &ServerConfig, address: Option<SocketAddr>) -> Option<Url> {
    server.public_url.clone().or_else(|| {
        let mut address = address?;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        format!("http://{address}").parse().ok()
    })
}

/// What everybody on TCP must show, where that is set.
pub fn token(server: &ServerConfig, seams: &Seams) -> anyhow::Result<Option<Secret>> {
    let token = server.token.as_ref().map(|it| it.read(seams.env.as_ref()));
    token.transpose().context("server.token")
}

/// Where each configured destination is, for records.
pub fn places(config: &Config) -> Places {
    let destinations = config.destination.iter();
    destinations
        .filter_map(|(name, it)| Some((name.clone(), Address::of(it)?)))
        .collect()
}

/// What moves now, as the page shows it.
pub(super) fn moving(gauge: &Gauge) -> Now<Moving> {
    let gauge = gauge.clone();
    Box::new(move || {
        let shown = |it: gauge::Moving| Moving {
            task: it.task,
            index: it.index,
            destination: it.destination,
            length: it.length,
            bytes: it.bytes,
        };
        gauge.now().into_iter().map(shown).collect()
    })
}

pub(super) fn is_moving(gauge: &Gauge) -> IsMoving {
    let gauge = gauge.clone();
    Box::new(move || !gauge.now().is_empty())
}

/// The task APIs, as the page shows them.
pub(super) fn page_providers(
    config: &Config,
    providers: &BTreeMap<ProviderName, Provider>,
) -> Now<Peer> {
    let kinds = task_apis(config).map(|(name, settings)| {
        let kind = settings.kind.clone().unwrap_or_else(|| name.to_string());
        (name.clone(), kind)
    });
    let kinds: BTreeMap<ProviderName, String> = kinds.collect();
    let providers = providers.clone();
    Box::new(move || {
        let shown = providers.iter().map(|(name, provider)| Peer {
            name: name.to_string(),
            what: kinds.get(name).cloned().unwrap_or_default(),
            trouble: provider.refusal(),
        });
        shown.collect()
    })
}

/// The destinations, as the page shows them.
pub(super) fn page_destinations(config: &Config, refusals: Refusals) -> Now<Peer> {
    let places = places(config);
    Box::new(move || {
        let refusals: BTreeMap<DestinationName, String> = refusals().into_iter().collect();
        let shown = places.iter().map(|(name, place)| Peer {
            name: name.to_string(),
            what: place.to_string(),
            trouble: refusals.get(name).cloned(),
        });
        shown.collect()
    })
}
