//! Wiring: from a configuration and the seams to stages that can run.
//!
//! | file | makes |
//! | --- | --- |
//! | this one | the stages and their drivers, out of all that the others make |
//! | `connect` | stores, task APIs, and the clients of origins |
//! | `announce` | the doors and the spool by which tasks become known |
//! | `telling` | endpoints, callbacks, the heartbeat |
//! | `face` | who is let in, links, what the page shows |

pub mod announce;
pub mod connect;
pub mod face;
pub mod telling;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio_util::sync::CancellationToken;

use crate::archive::bandwidth::Bandwidth;
use crate::archive::gauge::Gauge;
use crate::archive::stage::Archive;
use crate::archive::stage::ArchiveParts;
use crate::chance::Dice;
use crate::clock::Clock;
use crate::config::Config;
use crate::daemon::gateway;
use crate::daemon::health::Health;
use crate::daemon::metrics::Scrape;
use crate::daemon::metrics::ScrapeParts;
use crate::daemon::routes;
use crate::daemon::routes::Rooms;
use crate::daemon::sentence;
use crate::daemon::server::Face;
use crate::http::Http;
use crate::http::client::ClientConfig;
use crate::http::roots::Roots;
use crate::intake::discover::Discover;
use crate::intake::discover::DiscoverParts;
use crate::intake::gateway::Gateway;
use crate::intake::hooks::Hooks;
use crate::intake::spool::Spool;
use crate::manifest::Manifest;
use crate::manifest::elsewhere::Known;
use crate::model::event::EndpointName;
use crate::model::object::DestinationName;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::ProviderName;
use crate::provider::Provider;
use crate::report::api::Views;
use crate::report::events::Events;
use crate::report::heartbeat::Heartbeat;
use crate::report::notify::Endpoint;
use crate::report::notify::Notify;
use crate::report::notify::Signer;
use crate::report::overview::Overview;
use crate::report::page::Page;
use crate::store::Store;
use crate::telemetry::metrics::Metrics;
use crate::tend::Tend;
use crate::watch::stage::Watch;
use crate::watch::stage::WatchParts;
use crate::work::budget::Budget;
use crate::work::driver::Driver;
use crate::work::driver::Pulse;
use crate::work::driver::Surroundings;
use crate::work::wake::Wake;

/// Lists read at once.
const DISCOVER_ROOM: usize = 4;

/// Aborts under way at once.
const TEND_ROOM: usize = 4;

/// Messages under way at once, to all endpoints together.
const NOTIFY_ROOM: usize = 64;

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

/// Whom the stages talk to, ready; nothing is sent yet.
#[derive(Debug)]
pub struct Peers {
    stores: BTreeMap<DestinationName, Store>,
    providers: BTreeMap<ProviderName, Provider>,
    endpoints: BTreeMap<EndpointName, Endpoint>,
    signer: Signer,
}

/// Each account, destination and endpoint that is none.
#[derive(Debug)]
pub struct Unfit(pub Vec<anyhow::Error>);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told: Vec<String> = self.0.iter().map(sentence).collect();
        f.write_str(&told.join("; "))
    }
}

impl std::error::Error for Unfit {}

impl Peers {
    /// Makes all of them ready; what cannot be is told at once.
    pub async fn connect(config: &Config, seams: &Seams) -> Result<Self, Unfit> {
        let mut unfit = Vec::new();
        let mut stores = BTreeMap::new();
        for (name, settings) in &config.destination {
            let store = connect::store(name, settings, seams).await;
            let store = store.map_err(|error| unfit.push(error));
            stores.extend(store.ok().map(|store| (name.clone(), store)));
        }
        let mut providers = BTreeMap::new();
        for (name, settings) in connect::task_apis(config) {
            let provider = connect::provider(name, settings, config, seams);
            let provider = provider.map_err(|error| unfit.push(error));
            providers.extend(provider.ok().map(|provider| (name.clone(), provider)));
        }
        let signer = telling::callback_signer(config, seams).map_err(|error| unfit.push(error));
        let mut endpoints = BTreeMap::new();
        for settings in &config.notify {
            let endpoint = telling::endpoint(settings, config, seams);
            let endpoint = endpoint.map_err(|error| unfit.push(error));
            endpoints.extend(endpoint.ok().map(|it| (settings.endpoint(), it)));
        }
        match signer {
            Ok(signer) if unfit.is_empty() => Ok(Self {
                stores,
                providers,
                endpoints,
                signer,
            }),
            Ok(_) | Err(()) => Err(Unfit(unfit)),
        }
    }
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
pub fn stages(
    config: &Config,
    peers: Peers,
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
    let Peers {
        stores,
        providers,
        endpoints,
        signer,
    } = peers;
    stores
        .values()
        .for_each(|store| store.report_to(&outliving.metrics));
    providers
        .values()
        .for_each(|provider| provider.report_to(&outliving.metrics));
    let parts_budget = config
        .transfer
        .parts_budget()
        .context("transfer.memory is too small")?;
    let budget = Budget::new(parts_budget);

    let archive = Archive::new(ArchiveParts {
        manifest: manifest.clone(),
        stores: stores.clone(),
        downloads: connect::downloads(config, &providers, seams)?,
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
    let links = Arc::new(face::links(config, &stores, outliving.address, seams)?);
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
            stop.clone(),
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
            face::is_moving(&outliving.gauge),
            stop.clone(),
        ),
        page: Page {
            manifest: manifest.clone(),
            overview,
            places: face::places(config),
            clock: seams.clock.clone(),
            warn,
            moving: face::moving(&outliving.gauge),
            providers: face::page_providers(config, &providers),
            destinations: face::page_destinations(config, Box::new(archive.refusals())),
            wakes: [watch_wake.clone(), archive_wake.clone()],
        },
        doors: announce::doors(config, manifest, seams, [&watch_wake, &archive_wake]),
        views: Views {
            manifest: manifest.clone(),
            places: face::places(config),
            links,
            clock: seams.clock.clone(),
            warn: config.deadline.warn,
            stop: stop.clone(),
        },
    };
    let sharing = providers.values().cloned().collect();
    let discover = Discover::new(DiscoverParts {
        manifest: manifest.clone(),
        providers: connect::discovered(config, &providers),
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
    let watch_room = watch.room();
    let watch = Driver::new(watch, watch_room, watch_wake, around.clone());
    let archive = Driver::new(archive, room, archive_wake, around.clone());
    let discover = Driver::new(discover, DISCOVER_ROOM, discover_wake, around.clone());
    let tend = Driver::new(tend, TEND_ROOM, tend_wake, around.clone());
    let notify = telling::notify(config, (endpoints, signer), manifest, &gateway, seams)?;
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
        rules: face::rules(config, seams)?,
        routes: routes::routes(rooms),
    };
    Ok(Stages {
        discover,
        watch,
        archive,
        tend,
        gateway,
        notify,
        heartbeat: telling::heartbeat(config, manifest, pulses.clone(), seams)?,
        pulses,
        providers: sharing,
        spool: announce::spool(config, manifest, seams),
        face,
        stop,
        halt,
    })
}

/// What a daemon with this configuration can work with.
pub fn known(config: &Config) -> Known {
    let providers = connect::task_apis(config).map(|(name, _)| name.clone());
    Known {
        // Bare links need no section of their own.
        providers: providers.chain(FETCH_PROVIDER.parse()).collect(),
        destinations: config.destination.keys().cloned().collect(),
    }
}
