//! What a simulator is like: its pace, its files, its faults.

use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use url::Url;

use crate::simulator::script::Script;
use crate::simulator::source::FileSource;
use crate::units::ByteSize;
use crate::units::Span;

/// What a simulator is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What result links begin with; the simulator's own address where nothing is given.
    pub public_url: Option<Url>,
    /// The account's key; where none is given, any is good, but there must be one.
    pub api_key: Option<String>,
    /// How many times faster than the clock everything goes.
    pub speed: f64,
    /// How long a task is pending.
    pub pending: Span,
    /// How long a task is processing.
    pub running: Span,
    /// By how much of themselves, from 0 to 1, the two vary from task to task.
    pub spread: f64,
    /// How long a link lives, from the completion of its task.
    pub life: Span,
    /// What a dead link answers: 403, 404 or 410.
    pub dead_status: u16,
    /// How long each file is.
    pub size: ByteSize,
    /// What the bytes of the files depend on.
    pub seed: u64,
    /// The faults.
    pub script: Script,
    /// Whether there is a list of tasks.
    pub has_list: bool,
    /// Whether many tasks can be read at once.
    pub has_batch: bool,
    /// Whether completed tasks tell their `duration`, which the provider's page does not have.
    pub tells_duration: bool,
}

impl Default for Config {
    /// On a free port of loopback, at the pace of the provider's page: short videos take one to three minutes,
    /// links live a day.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            public_url: None,
            api_key: None,
            speed: 1.0,
            pending: Span::from_secs(15),
            running: Span::from_secs(105),
            spread: 0.5,
            life: Span::from_secs(24 * 60 * 60),
            dead_status: 403,
            size: ByteSize::mib(8),
            seed: 0,
            script: Script::default(),
            has_list: true,
            has_batch: true,
            tells_duration: false,
        }
    }
}

impl Config {
    /// As the default, but tasks complete as soon as they are submitted, with small files.
    pub fn at_once() -> Self {
        Self {
            pending: Span::ZERO,
            running: Span::ZERO,
            size: ByteSize::bytes(64 * 1024),
            ..Self::default()
        }
    }

    pub(super) fn check(&self) -> io::Result<()> {
        let problem = if !(self.speed.is_finite() && self.speed > 0.0) {
            Some(format!("speed {} is not a number above 0", self.speed))
        } else if !(0.0..=1.0).contains(&self.spread) {
            Some(format!("spread {} is not between 0 and 1", self.spread))
        } else if !matches!(self.dead_status, 403 | 404 | 410) {
            Some(format!(
                "status {} of dead links is none of 403, 404, 410",
                self.dead_status
            ))
        } else if self.size.as_u64() < FileSource::LENGTH_MIN {
            let least = ByteSize::bytes(FileSource::LENGTH_MIN);
            Some(format!("files of {} are smaller than {least}", self.size))
        } else {
            None
        };
        match problem {
            Some(problem) => Err(io::Error::new(io::ErrorKind::InvalidInput, problem)),
            None => Ok(()),
        }
    }
}
