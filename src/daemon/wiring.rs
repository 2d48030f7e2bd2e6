//! Wiring: from a configuration and the seams to stages that can run.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::gauge::Gauge;
use crate::archive::stage::Archive;
use crate::archive::stage::ArchiveParts;
use crate::archive::stage::Downloads;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::daemon::routes;
use crate::daemon::server::Face;
use crate::daemon::server::Rules;
use crate::http::Http;
use crate::http::client::ClientConfig;
use crate::http::client::USER_AGENT;
use crate::http::guard::Guard;
use crate::intake::discover::Discover;
use crate::intake::discover::DiscoverParts;
use crate::manifest::Manifest;
use crate::model::object::DestinationName;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::provider;
use crate::provider::Provider;
use crate::store;
use crate::store::Store;
use crate::tend::Tend;
use crate::units::Span;
use crate::watch::stage::Watch;
use crate::work::budget::Budget;
use crate::work::driver::Driver;
use crate::work::driver::Pulse;
use crate::work::driver::Surroundings;
use crate::work::wake::Wake;

/// Calls to providers under way at once.
const WATCH_ROOM: usize = 16;

/// Lists read at once.
const DISCOVER_ROOM: usize = 4;

/// Aborts under way at once.
const TEND_ROOM: usize = 4;

/// How long an answer of a task API may take.
const API_TIMEOUT: Span = Span::from_secs(30);

/// Reads one variable of the environment.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Makes a client that behaves as it is told.
pub type ClientMaker = Arc<dyn Fn(ClientConfig) -> anyhow::Result<Http> + Send + Sync>;

/// Everything of the outside that is handed in, so that a simulation can own it.
#[derive(Clone)]
pub struct Seams {
    /// Wall time.
    pub clock: Clock,
    /// Jitter and nonces.
    pub dice: Dice,
    /// The environment, for secrets and the SDK's default chain.
    pub env: Environment,
    /// Makes the clients of `provider` and `origin`.
    pub http: ClientMaker,
    /// The client of every S3 destination.
    pub s3_http: SharedHttpClient,
    /// Certificates (PEM) of further authorities that `http` trusts; may be empty.
    pub extra_roots: Vec<u8>,
}

/// What of the stages outlives a reload: transfers go on while the stages that began them are replaced.
#[derive(Clone, Debug)]
pub struct Outliving {
    /// What moves now.
    pub gauge: Gauge,
    /// The limit on all downloads.
    pub bandwidth: Bandwidth,
}

/// What runs: one driver a stage, and the tokens that stop them.
pub struct Stages {
    /// Reads providers' lists.
    pub discover: Driver<Discover>,
    /// Asks providers.
    pub watch: Driver<Watch>,
    /// Moves bytes.
    pub archive: Driver<Archive>,
    /// Cleans up and warns.
    pub tend: Driver<Tend>,
    /// What answers requests while these stages run.
    pub face: Face,
    /// Asks all of them to end soon.
    pub stop: CancellationToken,
    /// Ends what is still running.
    pub halt: CancellationToken,
}

impl Stages {
    /// The pulses of all drivers, by name.
    pub fn pulses(&self) -> Vec<(&'static str, Pulse)> {
        vec![
            ("discover", self.discover.pulse()),
            ("watch", self.watch.pulse()),
            ("archive", self.archive.pulse()),
            ("tend", self.tend.pulse()),
        ]
    }
}

/// Builds the stages that `config` describes over an open manifest.
pub async fn stages(
    config: &Config,
    manifest: &Manifest,
    outliving: &Outliving,
    seams: &Seams,
) -> anyhow::Result<Stages> {
    let (stop, halt) = (CancellationToken::new(), CancellationToken::new());
    let (watch_wake, archive_wake, tend_wake) = (Wake::new(), Wake::new(), Wake::new());
    let discover_wake = Wake::new();
    let around = Surroundings {
        manifest: manifest.clone(),
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        lease: config.manifest.lease,
        stop: stop.clone(),
        halt: halt.clone(),
    };
    let mut stores = BTreeMap::new();
    for (name, settings) in &config.destination {
        stores.insert(name.clone(), store(name, settings, seams).await?);
    }
    let mut providers = BTreeMap::new();
    for (name, settings) in task_apis(config) {
        providers.insert(name.clone(), provider(name, settings, config, seams)?);
    }
    let parts_budget = config
        .transfer
        .parts_budget()
        .context("transfer.memory is too small")?;

    let archive = Archive::new(ArchiveParts {
        manifest: manifest.clone(),
        stores: stores.clone(),
        downloads: downloads(config, &providers, seams)?,
        config: config.transfer.clone(),
        margin: config.deadline.margin,
        warn: config.deadline.warn,
        keep_trying: config.deadline.keep_trying,
        budget: Budget::new(parts_budget),
        bandwidth: outliving.bandwidth.clone(),
        gauge: outliving.gauge.clone(),
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        watch: watch_wake.clone(),
    });
    let discover = Discover::new(DiscoverParts {
        manifest: manifest.clone(),
        providers: discovered(config, &providers),
        margin: config.deadline.margin,
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        watch: watch_wake.clone(),
    });
    let watch = Watch {
        manifest: manifest.clone(),
        providers,
        routes: config.routes(),
        config: config.poll.clone(),
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        archive: archive_wake.clone(),
    };
    let tend = Tend {
        manifest: manifest.clone(),
        stores,
        warn: config.deadline.warn,
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
    };
    let room = Archive::room(&config.transfer);
    let watch = Driver::new(watch, WATCH_ROOM, watch_wake, around.clone());
    let archive = Driver::new(archive, room, archive_wake, around.clone());
    let discover = Driver::new(discover, DISCOVER_ROOM, discover_wake, around.clone());
    let tend = Driver::new(tend, TEND_ROOM, tend_wake, around);
    let face = Face {
        rules: rules(config, seams)?,
        routes: routes::routes(),
    };
    Ok(Stages {
        discover,
        watch,
        archive,
        tend,
        face,
        stop,
        halt,
    })
}

/// Who is let in, with the token that the configuration names.
fn rules(config: &Config, seams: &Seams) -> anyhow::Result<Rules> {
    let server = &config.server;
    let token = server.token.as_ref().map(|it| it.read(seams.env.as_ref()));
    let token = token.transpose().context("server.token")?;
    Ok(Rules::new(token, server.public_url.as_ref()))
}

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

/// The task APIs whose lists are to be read, and from when on.
fn discovered(
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

/// Connects one task API; nothing is sent yet.
pub fn provider(
    name: &ProviderName,
    settings: &provider::Config,
    config: &Config,
    seams: &Seams,
) -> anyhow::Result<Provider> {
    let client = ClientConfig {
        guard: guard(settings, &[])?,
        http2: true,
        connect_timeout: config.transfer.connect_timeout,
        read_timeout: API_TIMEOUT,
        user_agent: USER_AGENT.to_owned(),
        extra_roots: seams.extra_roots.clone(),
    };
    let provider = Provider::connect(
        name.clone(),
        settings,
        config.deadline.default,
        (seams.http)(client)?,
        seams.clock.clone(),
        seams.env.as_ref(),
    );
    provider.with_context(|| format!("provider.{name}"))
}

/// How each provider's results are fetched, and bare links.
fn downloads(
    config: &Config,
    providers: &BTreeMap<ProviderName, Provider>,
    seams: &Seams,
) -> anyhow::Result<BTreeMap<ProviderName, Downloads>> {
    let client = |guard| ClientConfig {
        guard,
        // A big body over HTTP/2 costs more for its windows than the connections that it saves.
        http2: false,
        connect_timeout: config.transfer.connect_timeout,
        read_timeout: config.transfer.stall_timeout,
        user_agent: USER_AGENT.to_owned(),
        extra_roots: seams.extra_roots.clone(),
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
                can_refresh: provider.refreshes(),
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
            can_refresh: false,
        },
    );
    Ok(downloads)
}

fn guard(settings: &provider::Config, hosts: &[String]) -> anyhow::Result<Guard> {
    let guard = if settings.allow_private {
        Guard::private()
    } else {
        Guard::public()
    };
    Ok(guard.with_hosts(hosts)?)
}
