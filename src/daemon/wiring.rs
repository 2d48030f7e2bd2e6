//! Wiring: from a configuration and the seams to stages that can run.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use http::HeaderMap;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::gauge;
use crate::archive::gauge::Gauge;
use crate::archive::stage::Archive;
use crate::archive::stage::ArchiveParts;
use crate::archive::stage::Downloads;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::config::ServerConfig;
use crate::daemon::gateway;
use crate::daemon::health::Health;
use crate::daemon::health::Refusals;
use crate::daemon::metrics::Scrape;
use crate::daemon::metrics::ScrapeParts;
use crate::daemon::routes;
use crate::daemon::routes::Rooms;
use crate::daemon::server::Face;
use crate::daemon::server::Rules;
use crate::http::Http;
use crate::http::client::ClientConfig;
use crate::http::client::Traffic;
use crate::http::client::USER_AGENT;
use crate::http::guard::Guard;
use crate::http::roots::Roots;
use crate::intake::api::Doors;
use crate::intake::discover::Discover;
use crate::intake::discover::DiscoverParts;
use crate::intake::gateway::Gateway;
use crate::intake::hooks::Hooks;
use crate::intake::line::Account;
use crate::intake::line::Accounts;
use crate::intake::spool::Spool;
use crate::manifest::Manifest;
use crate::manifest::elsewhere::Known;
use crate::manifest::row::ObjectPlan;
use crate::model::object::DestinationName;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::provider;
use crate::provider::Provider;
use crate::report::api::Views;
use crate::report::events::Events;
use crate::report::events::IsMoving;
use crate::report::heartbeat::Heartbeat;
use crate::report::links::Links;
use crate::report::notify;
use crate::report::notify::Callbacks;
use crate::report::notify::Endpoint;
use crate::report::notify::Notify;
use crate::report::notify::Signer;
use crate::report::overview::Overview;
use crate::report::page::Moving;
use crate::report::page::Now;
use crate::report::page::Page;
use crate::report::page::Peer;
use crate::report::record::Places;
use crate::secret::Secret;
use crate::store;
use crate::store::Address;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::tend::Tend;
use crate::units::Span;
use crate::watch::stage::Watch;
use crate::watch::stage::WatchParts;
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

/// Messages under way at once, to all endpoints together.
const NOTIFY_ROOM: usize = 64;

/// How long an endpoint may take to answer, and each frame of its answer.
const ENDPOINT_TIMEOUT: Span = Span::from_secs(15);

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
    /// Whom `http` trusts.
    pub roots: Roots,
}

/// What of the stages outlives a reload: transfers go on while the stages that began them are replaced.
#[derive(Clone, Debug)]
pub struct Outliving {
    /// What moves now.
    pub gauge: Gauge,
    /// The limit on all downloads.
    pub bandwidth: Bandwidth,
    /// What is counted.
    pub metrics: Metrics,
    /// What the gateway keeps.
    pub gateway: gateway::Kept,
    /// Where the server listens, for addresses of our own.
    pub address: Option<SocketAddr>,
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
    /// What the gateway does beside answering.
    pub gateway: Gateway,
    /// Tells others.
    pub notify: Driver<Notify>,
    /// Says that all is well, where somebody wants to hear it.
    pub heartbeat: Option<Heartbeat>,
    /// The accounts whose pace this daemon has a share of.
    pub providers: Vec<Provider>,
    /// Takes files that announce tasks, where there is a folder for them.
    pub spool: Option<Spool>,
    pulses: Vec<(&'static str, Pulse)>,
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
        self.pulses.clone()
    }
}

/// Builds the stages that `config` describes over an open manifest.
#[expect(clippy::too_many_lines, reason = "one list of what belongs together")]
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
        metrics: outliving.metrics.clone(),
        lease: config.manifest.lease,
        stop: stop.clone(),
        halt: halt.clone(),
    };
    let mut stores = BTreeMap::new();
    for (name, settings) in &config.destination {
        let store = store(name, settings, seams).await?;
        store.report_to(&outliving.metrics);
        stores.insert(name.clone(), store);
    }
    let mut providers = BTreeMap::new();
    for (name, settings) in task_apis(config) {
        let provider = provider(name, settings, config, seams)?;
        provider.report_to(&outliving.metrics);
        providers.insert(name.clone(), provider);
    }
    let parts_budget = config
        .transfer
        .parts_budget()
        .context("transfer.memory is too small")?;
    let budget = Budget::new(parts_budget);

    let archive = Archive::new(ArchiveParts {
        manifest: manifest.clone(),
        stores: stores.clone(),
        downloads: downloads(config, &providers, seams)?,
        config: config.transfer.clone(),
        margin: config.deadline.margin,
        warn: config.deadline.warn,
        keep_trying: config.deadline.keep_trying,
        budget: budget.clone(),
        bandwidth: outliving.bandwidth.clone(),
        gauge: outliving.gauge.clone(),
        metrics: outliving.metrics.clone(),
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        watch: watch_wake.clone(),
    });
    let links = Arc::new(links(config, &stores, outliving.address, seams)?);
    let around_gateway = gateway::Around {
        manifest,
        providers: &providers,
        links: Arc::clone(&links),
        kept: &outliving.gateway,
        seams,
        watch: watch_wake.clone(),
    };
    let gateway = gateway::gateway(config, around_gateway)?;
    let warn = config.deadline.warn;
    let overview = Overview::new(manifest.clone(), seams.clock.clone(), warn);
    let rooms = Rooms {
        gateway: gateway.clone(),
        health: Health::new(
            manifest.clone(),
            providers.clone(),
            Box::new(archive.refusals()),
            gateway.clone(),
        ),
        hooks: Hooks {
            manifest: manifest.clone(),
            providers: providers.clone(),
            config: config.server.hooks.clone(),
            clock: seams.clock.clone(),
            watch: watch_wake.clone(),
            metrics: outliving.metrics.clone(),
        },
        scrape: Scrape::new(ScrapeParts {
            metrics: outliving.metrics.clone(),
            overview: overview.clone(),
            providers: providers.clone(),
            destinations: stores.keys().cloned().collect(),
            refusals: Box::new(archive.refusals()),
            gauge: outliving.gauge.clone(),
            budget,
            gateway: gateway.clone(),
            submissions: outliving.gateway.counts.clone(),
            clock: seams.clock.clone(),
        }),
        events: Events::new(
            manifest.clone(),
            seams.clock.clone(),
            is_moving(&outliving.gauge),
            stop.clone(),
        ),
        page: Page {
            manifest: manifest.clone(),
            overview,
            places: places(config),
            clock: seams.clock.clone(),
            warn,
            moving: moving(&outliving.gauge),
            providers: page_providers(config, &providers),
            destinations: page_destinations(config, Box::new(archive.refusals())),
            wakes: [watch_wake.clone(), archive_wake.clone()],
        },
        doors: doors(config, manifest, seams, [&watch_wake, &archive_wake]),
        views: Views {
            manifest: manifest.clone(),
            places: places(config),
            links,
            clock: seams.clock.clone(),
            warn: config.deadline.warn,
            stop: stop.clone(),
        },
    };
    let sharing = providers.values().cloned().collect();
    let discover = Discover::new(DiscoverParts {
        manifest: manifest.clone(),
        providers: discovered(config, &providers),
        margin: config.deadline.margin,
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        watch: watch_wake.clone(),
    });
    let watch = Watch::new(WatchParts {
        manifest: manifest.clone(),
        providers,
        routes: config.routes(),
        config: config.poll.clone(),
        lease: config.manifest.lease,
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
        archive: archive_wake.clone(),
    });
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
    let tend = Driver::new(tend, TEND_ROOM, tend_wake, around.clone());
    let notify = notify(config, manifest, &gateway, seams)?;
    let notify = Driver::new(notify, NOTIFY_ROOM, Wake::new(), around);
    let pulses = vec![
        ("discover", discover.pulse()),
        ("watch", watch.pulse()),
        ("archive", archive.pulse()),
        ("tend", tend.pulse()),
        ("notify", notify.pulse()),
    ];
    rooms.health.watch_over(&pulses);
    rooms.scrape.watch_over(&pulses);
    let face = Face {
        rules: rules(config, seams)?,
        routes: routes::routes(rooms),
    };
    Ok(Stages {
        discover,
        watch,
        archive,
        tend,
        gateway,
        notify,
        heartbeat: heartbeat(config, manifest, pulses.clone(), seams)?,
        pulses,
        providers: sharing,
        spool: spool(config, manifest, seams),
        face,
        stop,
        halt,
    })
}

/// What a daemon with this configuration can work with.
pub fn known(config: &Config) -> Known {
    let providers = task_apis(config).map(|(name, _)| name.clone());
    Known {
        // Bare links need no section of their own.
        providers: providers.chain(FETCH_PROVIDER.parse()).collect(),
        destinations: config.destination.keys().cloned().collect(),
    }
}

/// What moves now, as the page shows it.
fn moving(gauge: &Gauge) -> Now<Moving> {
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

fn is_moving(gauge: &Gauge) -> IsMoving {
    let gauge = gauge.clone();
    Box::new(move || !gauge.now().is_empty())
}

/// The task APIs, as the page shows them.
fn page_providers(config: &Config, providers: &BTreeMap<ProviderName, Provider>) -> Now<Peer> {
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
fn page_destinations(config: &Config, refusals: Refusals) -> Now<Peer> {
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

/// Where each configured destination is, for records.
pub fn places(config: &Config) -> Places {
    let destinations = config.destination.iter();
    destinations
        .filter_map(|(name, it)| Some((name.clone(), Address::of(it)?)))
        .collect()
}

/// Whose tasks can be announced. Where a description cannot be read, any task ID is taken: the daemon and `check` tell of
/// it, and a task that is announced now is not lost for that.
pub fn accounts(config: &Config) -> Accounts {
    Accounts::new(task_apis(config).map(|(name, settings)| {
        let described = provider::describe(name, settings).ok();
        let told = described.as_ref().and_then(|it| it.results.ttl);
        let account = Account {
            ttl: settings
                .output_ttl
                .or(told)
                .unwrap_or(config.deadline.default),
            id: described.map(|it| it.id),
        };
        (name.clone(), account)
    }))
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

/// Who is told what.
fn notify(
    config: &Config,
    manifest: &Manifest,
    gateway: &Gateway,
    seams: &Seams,
) -> anyhow::Result<Notify> {
    let mut endpoints = BTreeMap::new();
    for settings in &config.notify {
        let endpoint = endpoint(settings, config, seams)?;
        endpoints.insert(settings.endpoint(), endpoint);
    }
    let callback = &config.callback;
    let (secret, previous) = (callback.secret.as_ref(), callback.secret_old.as_ref());
    Ok(Notify {
        manifest: manifest.clone(),
        endpoints,
        callbacks: Callbacks {
            signer: Signer::read("callback", secret, previous, seams.env.as_ref())?,
            http: endpoint_http(config, callback.allow_private, seams)?,
            body: Some(gateway::callback_body(gateway)),
        },
        places: places(config),
        clock: seams.clock.clone(),
        dice: seams.dice.clone(),
    })
}

fn heartbeat(
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

fn spool(config: &Config, manifest: &Manifest, seams: &Seams) -> Option<Spool> {
    let path = config.spool.path.clone();
    let is_wanted = !path.as_os_str().is_empty();
    is_wanted.then(|| {
        Spool::new(
            path,
            accounts(config),
            manifest.clone(),
            seams.clock.clone(),
        )
    })
}

/// The client for addresses that somebody else chose.
fn endpoint_http(config: &Config, allow_private: bool, seams: &Seams) -> anyhow::Result<Http> {
    let guard = if allow_private {
        Guard::private()
    } else {
        Guard::public()
    };
    (seams.http)(ClientConfig {
        guard,
        traffic: Traffic::Answers,
        connect_timeout: config.transfer.connect_timeout,
        read_timeout: ENDPOINT_TIMEOUT,
        user_agent: USER_AGENT.to_owned(),
        roots: seams.roots.clone(),
    })
}

/// Who is let in, with the token that the configuration names.
fn rules(config: &Config, seams: &Seams) -> anyhow::Result<Rules> {
    let server = &config.server;
    Ok(Rules::new(
        token(server, seams)?,
        server.public_url.as_ref(),
    ))
}

/// By which people and programs announce tasks and links.
fn doors(
    config: &Config,
    manifest: &Manifest,
    seams: &Seams,
    [watch, archive]: [&Wake; 2],
) -> Doors {
    Doors {
        manifest: manifest.clone(),
        accounts: accounts(config),
        objects: bare_link_objects(config),
        ttl: config.deadline.default,
        clock: seams.clock.clone(),
        watch: watch.clone(),
        archive: archive.clone(),
    }
}

/// Bare links go to every destination, under the key of the root.
fn bare_link_objects(config: &Config) -> Vec<ObjectPlan> {
    let names = config.destination.keys();
    names
        .map(|name| ObjectPlan {
            destination: name.clone(),
            key_template: config.key.clone(),
        })
        .collect()
}

/// How archived copies are reached by others, by addresses of our own too where the server listens at `address`.
pub fn links(
    config: &Config,
    stores: &BTreeMap<DestinationName, Store>,
    address: Option<SocketAddr>,
    seams: &Seams,
) -> anyhow::Result<Links> {
    let public = config.destination.iter();
    let public = public.filter_map(|(name, it)| Some((name.clone(), it.public_url.clone()?)));
    Ok(Links {
        config: config.links.clone(),
        stores: stores.clone(),
        public: public.collect(),
        base: base_url(&config.server, address),
        token: token(&config.server, seams)?,
    })
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

fn token(server: &ServerConfig, seams: &Seams) -> anyhow::Result<Option<Secret>> {
    let token = server.token.as_ref().map(|it| it.read(seams.env.as_ref()));
    token.transpose().context("server.token")
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

/// A client for a task API that waits so long for an answer.
pub(super) fn api_client(
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

/// How each provider's results are fetched, and bare links.
fn downloads(
    config: &Config,
    providers: &BTreeMap<ProviderName, Provider>,
    seams: &Seams,
) -> anyhow::Result<BTreeMap<ProviderName, Downloads>> {
    let client = |guard| ClientConfig {
        guard,
        traffic: Traffic::Files,
        connect_timeout: config.transfer.connect_timeout,
        read_timeout: config.transfer.stall_timeout,
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
