//! A whole fake provider and CDN on a real socket, for the demo, the tests and the benches.
//!
//! ```text
//!  submit, push ----> world <---- provider: /v1/... (EvoLink's API)
//!                      |  ^
//!        courier <-----+  +------ files: /files/... (ranges, dying links) <---- source: bytes on the fly
//!     (callbacks)                     script: which request meets which fault
//! ```
//!
//! A simulator listens once it is started and stops when it is shut down or dropped. Its tasks run by the given
//! clock, divided by [`Config::speed`]: at speed 60 a video that takes two minutes takes two seconds, and a link that
//! lives a day lives 24 minutes. All instants it tells are those of the clock.

mod body;
pub mod bucket;
mod callback;
mod config;
mod files;
mod line;
mod listen;
mod media;
mod mp4;
#[cfg(test)]
mod probe;
mod provider;
mod range;
pub mod script;
pub mod source;
pub mod tasks;
mod traffic;
mod webm;
mod world;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::model::asset::AssetIndex;
use crate::model::digest::Sha256Digest;
use crate::model::task::TaskId;
use crate::simulator::listen::accept;
use crate::simulator::listen::pass_panic;
use crate::simulator::script::AtOnce;
use crate::simulator::script::Rule;
use crate::simulator::source::FileSource;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Submission;
use crate::simulator::tasks::SubmitError;
use crate::simulator::world::World;
use crate::units::ByteSize;

pub use crate::simulator::config::Config;
pub use crate::simulator::traffic::SeenFile;

/// How much a simulator has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls that make a task.
    pub submits: u64,
    /// Calls that read one task.
    pub reads: u64,
    /// Calls that read many.
    pub batches: u64,
    /// Calls of the list.
    pub lists: u64,
    /// Calls of the credits.
    pub credits: u64,
    /// Requests for a file.
    pub file_gets: u64,
    /// Requests for a file's headers.
    pub file_heads: u64,
    /// Requests for files that named a range.
    pub file_ranges: u64,
    /// Bytes of files that were handed to connections.
    pub file_bytes: u64,
    /// Faults dealt.
    pub faults: u64,
    /// Tries of a callback.
    pub callbacks_sent: u64,
    /// Callbacks that were answered with 2xx.
    pub callbacks_taken: u64,
    /// Callbacks given up or lost by a fault.
    pub callbacks_dropped: u64,
}

/// One request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The `Range` header.
    pub range: Option<String>,
    /// The `If-Range` header.
    pub if_range: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// Whether there was an `Authorization` header.
    pub has_authorization: bool,
}

/// A simulator that listens.
#[derive(Debug)]
pub struct Simulator {
    world: Arc<World>,
    address: SocketAddr,
    /// The accept loop and the courier; dropping it stops both, and with them every connection.
    running: JoinSet<()>,
}

/// Listens and serves from now on.
pub async fn start(config: Config, clock: Clock, dice: Dice) -> io::Result<Simulator> {
    config.check()?;
    let client = callback::client()?;
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let base = match &config.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("http://{address}"),
    };
    let world = Arc::new(World::new(config, base, clock, dice));
    let mut running = JoinSet::new();
    running.spawn(accept(listener, Arc::clone(&world)));
    running.spawn(callback::run(Arc::clone(&world), client));
    Ok(Simulator {
        world,
        address,
        running,
    })
}

impl Simulator {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the provider's `base_url` is to be.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a task without a request.
    pub fn submit(&self, submission: Submission) -> Result<TaskId, SubmitError> {
        self.world.submit(submission)
    }

    /// Every task's ID, in the order of submission.
    pub fn tasks(&self) -> Vec<TaskId> {
        self.world.task_ids()
    }

    /// Where a task stands now.
    pub fn status(&self, task: &TaskId) -> Option<Status> {
        self.world.status(task)
    }

    /// Puts a task to this status, where it stays until it is pushed again. `false` when there is no such task.
    pub fn push(&self, task: &TaskId, status: Status) -> bool {
        self.world.push(task, status)
    }

    /// Takes a task off the list, as when somebody deletes it there; it can still be read. `false` when it is not on it.
    pub fn unlist(&self, task: &TaskId) -> bool {
        self.world.unlist(task)
    }

    /// The links to a task's files as of now, whether or not it has completed.
    pub fn links(&self, task: &TaskId) -> Vec<String> {
        self.world.links(task)
    }

    /// The very bytes of a task's file as of now.
    pub fn expected(&self, task: &TaskId, index: AssetIndex) -> Option<FileSource> {
        self.world.source(task, index)
    }

    /// How long a task's file is.
    pub fn expected_length(&self, task: &TaskId, index: AssetIndex) -> Option<u64> {
        self.expected(task, index).map(|source| source.length())
    }

    /// The SHA-256 of a task's file; takes as long as making all of it.
    pub fn expected_sha256(&self, task: &TaskId, index: AssetIndex) -> Option<Sha256Digest> {
        self.expected(task, index).map(|source| source.sha256())
    }

    /// Adds a fault.
    pub fn plant(&self, rule: Rule) {
        self.world.plant(|script| script.plant(rule));
    }

    /// From now on one connection gets at most so many bytes a second of a file; `None`: as many as it takes.
    pub fn limit_rate(&self, rate: Option<ByteSize>) {
        self.world.plant(|script| script.rate = rate);
    }

    /// From now on no more files than this are sent at once; `None`: as many as are asked for.
    pub fn limit_at_once(&self, bound: Option<AtOnce>) {
        self.world.plant(|script| script.at_once = bound);
    }

    /// What it has seen so far of one file.
    pub fn seen_file(&self, task: &TaskId, index: AssetIndex) -> SeenFile {
        self.world.traffic.seen(task, index)
    }

    /// The most files that were being sent at once.
    pub fn files_at_once_max(&self) -> u64 {
        self.world.traffic.at_once_max()
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.world.seen()
    }

    /// Waits until it has seen what `is_enough` says.
    pub async fn seen_until(&self, is_enough: impl Fn(&Seen) -> bool) -> Seen {
        loop {
            let changed = self.world.changed.notified();
            tokio::pin!(changed);
            // From here on a change wakes us, even one before the await.
            changed.as_mut().enable();
            let seen = self.world.seen();
            if is_enough(&seen) {
                return seen;
            }
            changed.await;
        }
    }

    /// The last requests, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.world.requests()
    }

    /// Stops listening, drops every connection, and returns when nothing runs any more.
    pub async fn shutdown(mut self) {
        self.running.abort_all();
        while let Some(ended) = self.running.join_next().await {
            pass_panic(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    use super::*;
    use crate::simulator::probe::Hands;
    use crate::simulator::probe::call;

    async fn check_gone(address: SocketAddr, mut connection: TcpStream) {
        // Closed or reset: the connection does not outlive the simulator.
        let ended = connection.read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn nothing_outlives_a_shutdown() {
        let simulator = probe::start(Config::at_once(), &Hands::new()).await;
        let address = simulator.address();
        let connection = TcpStream::connect(address).await.unwrap();
        call(&simulator, "/v1/credits").await;
        simulator.shutdown().await;
        check_gone(address, connection).await;
    }

    #[tokio::test]
    async fn nothing_outlives_a_drop() {
        let simulator = probe::start(Config::at_once(), &Hands::new()).await;
        let address = simulator.address();
        let mut connection = TcpStream::connect(address).await.unwrap();
        call(&simulator, "/v1/credits").await;
        drop(simulator);
        let ended = connection.read(&mut [0; 1]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }

    #[tokio::test]
    async fn wrong_configurations_are_refused() {
        let check = async |config: Config, part: &str| {
            let started = start(config, Clock::system(), Dice::seeded(1)).await;
            let error = started.expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
        };
        let usual = Config::default;
        check(
            Config {
                speed: 0.0,
                ..usual()
            },
            "speed 0",
        )
        .await;
        check(
            Config {
                speed: f64::NAN,
                ..usual()
            },
            "speed NaN",
        )
        .await;
        check(
            Config {
                spread: 1.5,
                ..usual()
            },
            "spread 1.5",
        )
        .await;
        check(
            Config {
                dead_status: 200,
                ..usual()
            },
            "200",
        )
        .await;
        check(
            Config {
                size: ByteSize::bytes(9),
                ..usual()
            },
            "9 B",
        )
        .await;
    }

    #[tokio::test]
    async fn one_seed_gives_one_world() {
        let world = async |dice| {
            let simulator = start(Config::default(), Hands::new().clock(), Dice::seeded(dice));
            let simulator = simulator.await.unwrap();
            let task = simulator.submit(Submission::video("m")).unwrap();
            let etag = simulator.expected_sha256(&task, AssetIndex(0));
            (task, etag)
        };
        assert_eq!(world(5).await, world(5).await);
        assert_ne!(world(5).await.0, world(6).await.0);
    }

    #[tokio::test]
    async fn submissions_that_cannot_be_are_refused() {
        let simulator = probe::start(Config::at_once(), &Hands::new()).await;
        let wish = Submission::video("m");
        let id: TaskId = "task-unified-1-abcdefgh".parse().unwrap();
        let named = Submission {
            id: Some(id.clone()),
            ..wish.clone()
        };
        assert_eq!(simulator.submit(named.clone()), Ok(id.clone()));
        assert_eq!(simulator.submit(named), Err(SubmitError::IdTaken(id)));
        let none = Submission {
            count: 0,
            ..wish.clone()
        };
        assert_eq!(simulator.submit(none), Err(SubmitError::Count(0)));
        let long = Submission {
            seconds: 61,
            ..wish
        };
        assert_eq!(simulator.submit(long), Err(SubmitError::Seconds(61)));
    }
}
