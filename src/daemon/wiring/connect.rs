//! Connections: a client for each store, task API and origin; nothing is sent yet.

use std::collections::BTreeMap;

use anyhow::Context as _;
use http::HeaderMap;

use super::Seams;
use crate::archive::stage::Downloads;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::http::Http;
use crate::http::client::ClientConfig;
use crate::http::client::Traffic;
use crate::http::client::USER_AGENT;
use crate::http::guard::Guard;
use crate::model::object::DestinationName;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::origin::reading::Patience;
use crate::provider;
use crate::provider::Provider;
use crate::store;
use crate::store::Store;
use crate::units::Span;

/// How long an answer of a task API may take.
const API_TIMEOUT: Span = Span::from_secs(30);

/// Connects one destination; nothing is sent yet.
pub async fn store(
    name: &DestinationName,
    settings: &store::Config,
    seams: &Seams,
) -> anyhow::Result<Store> {
    let http = seams.s3_http.clone();
    let store = Store::connect(name.clone(), settings, seams.env.as_ref(), http).await;
    store.with_context(|| format!("destination.{name}"))
}

/// The configured task APIs; bare links have settings too, but nobody to ask.
pub fn task_apis(config: &Config) -> impl Iterator<Item = (&ProviderName, &provider::Config)> {
    config
        .provider
        .iter()
        .filter(|(name, _)| name.as_str() != FETCH_PROVIDER)
}

/// The longest wait between two looks at a task, but for its spread: `poll.max`, or what a provider wants.
pub fn longest_between_looks(config: &Config) -> Span {
    let described = task_apis(config).filter_map(|(name, it)| provider::describe(name, it).ok());
    let wanted = described.flat_map(|it| it.limits.min_interval.into_values());
    wanted.fold(config.poll.max, Span::max)
}

/// Connects one task API; nothing is sent yet.
pub fn provider(
    name: &ProviderName,
    settings: &provider::Config,
    config: &Config,
    seams: &Seams,
) -> anyhow::Result<Provider> {
    let provider = Provider::connect(
        name.clone(),
        settings,
        config.deadline.default,
        api_client(settings, config, seams, Traffic::Looks, API_TIMEOUT)?,
        seams.clock.clone(),
        seams.env.as_ref(),
    );
    provider.with_context(|| format!("provider.{name}"))
}

/// The task APIs whose lists are to be read, and from when on.
pub(super) fn discovered(
    config: &Config,
    providers: &BTreeMap<ProviderName, Provider>,
) -> Vec<(Provider, Option<Timestamp>)> {
    let wanted = task_apis(config).filter(|(_, settings)| settings.discover);
    let wanted = wanted.filter_map(|(name, settings)| {
        let provider = providers.get(name)?;
        Some((provider.clone(), settings.discover_since))
    });
    wanted.collect()
}

/// How each provider's results are fetched, and bare links.
pub(super) fn downloads(
    config: &Config,
    providers: &BTreeMap<ProviderName, Provider>,
    seams: &Seams,
) -> anyhow::Result<BTreeMap<ProviderName, Downloads>> {
    let client = |guard| ClientConfig {
        guard,
        traffic: Traffic::Files,
        connect_timeout: config.transfer.connect_timeout,
        // Whoever reads has clocks of its own; the longest of them.
        read_timeout: Patience::answer_within(config.transfer.stall_timeout, u32::MAX),
        user_agent: USER_AGENT.to_owned(),
        roots: seams.roots.clone(),
    };
    let mut downloads = BTreeMap::new();
    for (name, provider) in providers {
        let settings = config
            .provider
            .get(name)
            .context("a connected provider is configured")?;
        downloads.insert(
            name.clone(),
            Downloads {
                http: (seams.http)(client(guard(settings, provider.hosts())?))?,
                headers: provider.download_headers(),
                refreshed_for: provider.refreshes().then(|| provider.ttl()),
            },
        );
    }
    let fetch: ProviderName = FETCH_PROVIDER
        .parse()
        .context("a constant that is a provider name")?;
    let settings = config.provider.get(&fetch);
    let links = match settings {
        Some(settings) => guard(settings, &[])?,
        None => Guard::public(),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in settings.iter().flat_map(|settings| &settings.headers) {
        headers.insert(http::HeaderName::try_from(name)?, value.parse()?);
    }
    let http = (seams.http)(client(links))?;
    downloads.insert(
        fetch,
        Downloads {
            http,
            headers,
            refreshed_for: None,
        },
    );
    Ok(downloads)
}

/// A client for a task API that waits so long for an answer.
pub(in crate::daemon) fn api_client(
    settings: &provider::Config,
    config: &Config,
    seams: &Seams,
    traffic: Traffic,
    read_timeout: Span,
) -> anyhow::Result<Http> {
    (seams.http)(ClientConfig {
        guard: guard(settings, &[])?,
        traffic,
        connect_timeout: config.transfer.connect_timeout,
        read_timeout,
        user_agent: USER_AGENT.to_owned(),
        roots: seams.roots.clone(),
    })
}

fn guard(settings: &provider::Config, hosts: &[String]) -> anyhow::Result<Guard> {
    Ok(Guard::new(settings.allow_private).with_hosts(hosts)?)
}
