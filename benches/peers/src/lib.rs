//! What both peers share: the work that they are given, and the download that feeds their uploads.

use std::str::FromStr as _;

use anyhow::Context as _;
use anyhow::Result;

/// What to move: `PEER ORIGIN SINK LIST CONCURRENT [unsigned]`.
#[derive(Debug)]
pub struct Work {
    /// Scheme, host and port of the origin.
    pub origin: String,
    /// Scheme, host and port of the sink.
    pub sink: String,
    /// The films' paths, each with a slash at its start. It is the key as well.
    pub paths: Vec<String>,
    /// So many at once.
    pub concurrent: usize,
    /// Payloads need no signature.
    pub unsigned: bool,
}

impl Work {
    /// Reads the command line.
    pub fn of_arguments() -> Result<Self> {
        let mut arguments = std::env::args().skip(1);
        let mut next = |name: &str| arguments.next().with_context(|| format!("find {name}"));
        let origin = next("ORIGIN")?;
        let sink = next("SINK")?;
        let list = next("LIST")?;
        let concurrent = usize::from_str(&next("CONCURRENT")?)?;
        let list = std::fs::read_to_string(&list).with_context(|| format!("read {list}"))?;
        Ok(Self {
            origin,
            sink,
            paths: list.lines().map(str::to_owned).collect(),
            concurrent,
            unsigned: arguments.next().as_deref() == Some("unsigned"),
        })
    }
}

/// A part of a large object, as both libraries' examples have it.
pub const PART_BYTES: usize = 8 << 20;

/// So many parts of one object at once.
pub const PARTS_AT_ONCE: usize = 4;
