//! A manifest to measure: its engine, a way past it for bare statements, and what its server has used.

use std::fs;
use std::str::FromStr as _;

use anyhow::Context as _;
use anyhow::Result;
use clap::ValueEnum;
use reelvault::clock::Clock;
use reelvault::config::Config;
use reelvault::manifest::Access;
use reelvault::manifest::Manifest;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::server::Database;
use crate::server::Server;

/// Linux gives CPU time in these, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the tests' server does without, since nothing of it has to last: here it does what a real one does.
const DURABLE: [&str; 4] = [
    "ALTER SYSTEM SET fsync = on",
    "ALTER SYSTEM SET full_page_writes = on",
    "ALTER SYSTEM SET shared_buffers = '2GB'",
    "ALTER SYSTEM SET max_wal_size = '4GB'",
];

/// An engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// A file.
    Sqlite,
    /// A server of its own, on this machine.
    Postgres,
}

impl Kind {
    /// For tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Sqlite => "sqlite",
            Kind::Postgres => "postgres",
        }
    }
}

/// Where manifests are made: the server, once for all of them.
pub(crate) struct House {
    kind: Kind,
    server: Option<Server>,
}

impl House {
    pub(crate) fn new(kind: Kind) -> Self {
        let server = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => {
                let server = Server::own();
                for setting in DURABLE {
                    server.sql("postgres", setting);
                }
                server.stop();
                server.start();
                Some(server)
            }
        };
        Self { kind, server }
    }

    /// Opens a new manifest as its daemon.
    pub(crate) async fn ground(&self) -> Result<Ground> {
        let folder = tempfile::tempdir()?;
        let database = self.server.as_ref().map(Server::database);
        let file = folder.path().join("manifest.db");
        let url = match &database {
            Some(database) => database.url.clone(),
            None => format!("sqlite:{}", file.display()),
        };
        let config = format!(
            "[manifest]\nurl = \"{url}\"\n\
             [provider.house]\nkind = \"evolink\"\napi_key = {{ env = \"KEY\" }}\n\
             [destination.main.fs]\npath = \"/\"\n",
        );
        let config = Config::parse(&config, "bench.toml", Vec::new())?.config;
        let manifest = Manifest::open(&config.manifest, Clock::system(), Access::Daemon).await?;
        Ok(Ground {
            kind: self.kind,
            manifest,
            url,
            connections: JoinSet::new(),
            _database: database,
            folder,
        })
    }

    /// Seconds of CPU that the server has used.
    pub(crate) fn cpu_s(&self) -> Result<f64> {
        let Some(server) = &self.server else {
            return Ok(0.0);
        };
        let lock = format!("{}/.s.PGSQL.5432.lock", server.socket());
        let lock = fs::read_to_string(lock)?;
        let postmaster = lock.lines().next().context("a lock names its owner")?;
        let mut ticks = 0.0;
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            // One that ended meanwhile is counted with its parent.
            let Ok(stat) = fs::read_to_string(format!("/proc/{}/stat", name.display())) else {
                continue;
            };
            let Some((_, fields)) = stat.rsplit_once(") ") else {
                continue;
            };
            let fields: Vec<&str> = fields.split(' ').collect();
            let is_child = fields.get(1) == Some(&postmaster);
            let is_first = name.to_str() == Some(postmaster);
            if is_child || is_first {
                // Of the postmaster also what its ended children used.
                let used = if is_first { 11..15 } else { 11..13 };
                let used = fields.get(used).unwrap_or_default();
                ticks += used
                    .iter()
                    .filter_map(|it| it.parse::<f64>().ok())
                    .sum::<f64>();
            }
        }
        Ok(ticks / TICKS_PER_SECOND)
    }
}

/// Seconds of CPU that this program has used.
pub(crate) fn own_cpu_s() -> Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("read CPU time")?;
    let used = fields.split(' ').skip(11).take(2);
    let ticks: f64 = used.filter_map(|it| it.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_SECOND)
}

/// A manifest, opened as its daemon.
pub(crate) struct Ground {
    pub(crate) kind: Kind,
    pub(crate) manifest: Manifest,
    url: String,
    connections: JoinSet<()>,
    _database: Option<Database>,
    folder: TempDir,
}

impl Ground {
    /// A connection past the manifest, with its settings.
    pub(crate) fn lite(&self) -> Result<rusqlite::Connection> {
        let connection = rusqlite::Connection::open(self.folder.path().join("manifest.db"))?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(128);
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
        connection.pragma_update(None, "cache_size", -32 * 1024)?;
        Ok(connection)
    }

    /// A connection past the manifest.
    pub(crate) async fn client(&mut self) -> Result<tokio_postgres::Client> {
        let config = tokio_postgres::Config::from_str(&self.url)?;
        let (client, connection) = config.connect(NoTls).await?;
        self.connections.spawn(async move {
            // It ends with its client.
            connection.await.ok();
        });
        Ok(client)
    }

    /// Runs SQL that both engines understand.
    pub(crate) async fn sql(&mut self, sql: &str) -> Result<()> {
        match self.kind {
            Kind::Sqlite => Ok(self.lite()?.execute_batch(sql)?),
            Kind::Postgres => Ok(self.client().await?.batch_execute(sql).await?),
        }
    }
}
