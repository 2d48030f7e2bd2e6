//! What is measured: groups of cases, each with servers that behave in its way and a figure that is its answer.

use clap::ValueEnum;

use crate::content::Film;
use crate::movers::Mover;
use crate::serve::Conduct;

/// What the small objects weigh.
const SMALL_MIB: u64 = 8;

/// Films in flight where nothing else is said: the daemon's default, and what peers are told.
const AT_ONCE: usize = 16;

/// What a connection to the paced origin gets.
const PACED_MIB: u64 = 25;

/// What a request costs at the store of the latency group.
const LATENCY_MS: u64 = 50;

/// Transfers at once in the memory group, and what each moves, and how fast both of its ends are.
const CROWD: usize = 64;
const CROWD_FILM_MIB: u64 = 4;
const CROWD_SPEED_MIB: u64 = 1;

/// What the daemon may hold: so much at all times, and so much for each transfer.
const RSS_MIB: f64 = 24.0;
const RSS_MIB_A_TRANSFER: f64 = 0.5;

/// A question, and the cases that answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// CPU over TLS on both sides.
    Tls,
    /// The same over plain HTTP.
    Plain,
    /// An origin that gives 25 MiB/s a connection.
    Paced,
    /// A store that takes 50 ms for each request.
    Latency,
    /// Memory with 64 transfers at once between slow peers, and with none.
    Memory,
    /// From `completed` at the task API to `archived` in the manifest.
    Lag,
}

/// Which peers take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peers {
    /// Ours only.
    None,
    /// Those that take seconds.
    Fast,
    /// All, in all cases that they can do: it takes many minutes.
    All,
}

/// One thing to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) films: u64,
    pub(crate) bytes: u64,
    pub(crate) tls: bool,
    /// So many films at once.
    pub(crate) concurrent: usize,
}

/// What a group's figure compares with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Figure {
    /// CPU time with the floor's; where SHA-256 is computed, with floor and hash pass together.
    Cpu,
    /// Wall time with the floor's.
    Wall,
    /// Memory with what is allowed.
    Rss,
}

impl Case {
    /// The name in tables.
    pub(crate) fn name(&self) -> String {
        if self.films == 0 {
            "idle".to_owned()
        } else {
            format!("{} x {} MiB", self.films, self.bytes >> 20)
        }
    }

    /// All that it moves, in GiB.
    pub(crate) fn gib(&self) -> f64 {
        let mib = u32::try_from((self.films * self.bytes) >> 20).unwrap_or(u32::MAX);
        f64::from(mib) / 1_024.0
    }

    /// What links and addresses begin with.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// Everything that it moves.
    pub(crate) fn all_films(&self) -> impl Iterator<Item = Film> + use<> {
        let bytes = self.bytes;
        (0..self.films).map(move |number| Film { number, bytes })
    }

    /// The memory that the daemon may hold.
    pub(crate) fn rss_mib_max(&self) -> f64 {
        let at_once = u64::try_from(self.concurrent).unwrap_or(u64::MAX);
        let transfers = u32::try_from(at_once.min(self.films)).unwrap_or(u32::MAX);
        RSS_MIB + RSS_MIB_A_TRANSFER * f64::from(transfers)
    }
}

impl Group {
    /// The name by which it is picked.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Tls => "tls",
            Group::Plain => "plain",
            Group::Paced => "paced",
            Group::Latency => "latency",
            Group::Memory => "memory",
            Group::Lag => "lag",
        }
    }

    /// What its table is called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Group::Tls => "TLS on both sides: what it costs the CPU",
            Group::Plain => "Plain HTTP on both sides: what it costs the CPU",
            Group::Paced => "An origin that gives 25 MiB/s a connection: how long it takes",
            Group::Latency => {
                "A store that takes 50 ms a request, 16 objects at once: how long it takes"
            }
            Group::Memory => "64 transfers at once, both peers at 1 MiB/s, and none at all: memory",
            Group::Lag => "From `completed` at the task API to `archived`: how long it takes",
        }
    }

    /// What its last columns say.
    pub(crate) fn figure(self) -> Figure {
        match self {
            Group::Tls | Group::Plain => Figure::Cpu,
            Group::Paced | Group::Latency | Group::Lag => Figure::Wall,
            Group::Memory => Figure::Rss,
        }
    }

    /// The same in words, above the table and in the chart.
    pub(crate) fn figure_name(self) -> &'static str {
        match self {
            Group::Tls | Group::Plain => {
                "CPU x relay; of reelvault, which hashes: CPU x (relay + sha256)"
            }
            Group::Paced => "wall x relay, which is a single stream",
            Group::Latency => "wall x bare SDK",
            Group::Lag => {
                "wall x relay; of reelvault the wall is the time from `completed` to `archived`"
            }
            Group::Memory => "RSS x what the daemon may hold: 24 MiB + 0.5 MiB a transfer",
        }
    }

    /// How origin and sink behave.
    pub(crate) fn conducts(self) -> (Conduct, Conduct) {
        let usual = Conduct::default();
        match self {
            Group::Tls | Group::Plain | Group::Lag => (usual, usual),
            Group::Paced => {
                let give_mib = Some(PACED_MIB);
                (Conduct { give_mib, ..usual }, usual)
            }
            Group::Latency => {
                let latency_ms = Some(LATENCY_MS);
                (
                    usual,
                    Conduct {
                        latency_ms,
                        ..usual
                    },
                )
            }
            Group::Memory => {
                let (give_mib, take_mib) = (Some(CROWD_SPEED_MIB), Some(CROWD_SPEED_MIB));
                (Conduct { give_mib, ..usual }, Conduct { take_mib, ..usual })
            }
        }
    }

    /// Its cases, where `mib` is moved in all.
    pub(crate) fn cases(self, mib: u64) -> Vec<Case> {
        let case = |films, mib: u64| Case {
            films,
            bytes: mib << 20,
            tls: self != Group::Plain,
            concurrent: AT_ONCE,
        };
        let (large, small) = (case(1, mib), case(mib / SMALL_MIB, SMALL_MIB));
        let crowd = Case {
            concurrent: CROWD,
            ..case(u64::try_from(CROWD).unwrap_or(u64::MAX), CROWD_FILM_MIB)
        };
        match self {
            Group::Tls | Group::Plain => vec![large, small],
            Group::Paced => vec![large],
            Group::Latency => vec![small],
            Group::Memory => vec![crowd, case(0, CROWD_FILM_MIB)],
            Group::Lag => vec![large, case(1, SMALL_MIB)],
        }
    }

    /// Who takes part in one of its cases. The floor, where there is one, is the first.
    pub(crate) fn movers(self, case: &Case, peers: Peers) -> Vec<Mover> {
        let (own, fast, slow): (&[Mover], &[Mover], &[Mover]) = match (self, case.films) {
            (Group::Tls, 1) => (
                OURS,
                &[OPENDAL, OBJECTS, RCLONE, S5CMD, BOTO3],
                &[SIGNED, AWSCLI],
            ),
            (Group::Tls, _) => (
                OURS,
                &[OPENDAL, OBJECTS, RCLONE],
                &[SIGNED, S5CMD, BOTO3, AWSCLI],
            ),
            (Group::Plain, _) => (OURS, &[], PEERS),
            (Group::Paced, _) => (
                &[Mover::Relay, Mover::Reelvault],
                &[RCLONE],
                &[OPENDAL, OBJECTS],
            ),
            (Group::Latency, _) => (
                &[Mover::Bare, Mover::ReelvaultUnhashed, Mover::Reelvault],
                &[OPENDAL, OBJECTS, RCLONE],
                &[SIGNED, BOTO3],
            ),
            (Group::Memory, 0) => (&[Mover::Reelvault], &[], &[]),
            (Group::Memory, _) => (
                &[Mover::ReelvaultUnhashed, Mover::Reelvault],
                &[OPENDAL, OBJECTS],
                &[SIGNED, RCLONE, BOTO3],
            ),
            (Group::Lag, _) => (
                &[Mover::Relay, Mover::ReelvaultUnhashed, Mover::Reelvault],
                &[],
                &[],
            ),
        };
        let (fast, slow) = match peers {
            Peers::None => (&[][..], &[][..]),
            Peers::Fast => (fast, &[][..]),
            Peers::All => (fast, slow),
        };
        [own, fast, slow].concat()
    }
}

const OURS: &[Mover] = &[
    Mover::Relay,
    Mover::Sha256,
    Mover::Bare,
    Mover::ReelvaultUnhashed,
    Mover::Reelvault,
];
const PEERS: &[Mover] = &[OPENDAL, OBJECTS, SIGNED, RCLONE, S5CMD, BOTO3, AWSCLI];
const OPENDAL: Mover = Mover::Opendal;
const OBJECTS: Mover = Mover::ObjectStore;
const SIGNED: Mover = Mover::ObjectStoreSigned;
const RCLONE: Mover = Mover::Rclone;
const S5CMD: Mover = Mover::S5cmd;
const BOTO3: Mover = Mover::Boto3;
const AWSCLI: Mover = Mover::Awscli;
