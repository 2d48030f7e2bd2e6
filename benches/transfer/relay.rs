//! The floor: a blocking loop, one connection each way, one buffer that is used again and again.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use tokio::time::Instant;
use tokio_rustls::rustls;
use tokio_rustls::rustls::ClientConnection;
use tokio_rustls::rustls::StreamOwned;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::content::Film;

/// Larger buffers were no faster.
const BUFFER_BYTES: usize = 256 << 10;

/// What to move, and between whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Work {
    /// The origin's host and port.
    #[arg(long)]
    pub(crate) origin: String,
    /// The sink's host and port.
    #[arg(long)]
    pub(crate) sink: String,
    /// Trusts this authority and speaks TLS both ways; without it, plain HTTP.
    #[arg(long)]
    pub(crate) authority: Option<PathBuf>,
    /// How many films.
    #[arg(long)]
    pub(crate) films: u64,
    /// How long each is.
    #[arg(long)]
    pub(crate) bytes: u64,
    /// How many at once; the relay does not know how.
    #[arg(long, default_value_t = 1)]
    pub(crate) concurrent: usize,
    /// Where to write how many seconds the moving took, the program's start and end not counted; the relay's.
    #[arg(long)]
    pub(crate) tell: Option<PathBuf>,
}

impl Work {
    /// The films to move.
    pub(crate) fn films(&self) -> impl Iterator<Item = Film> + use<> {
        let bytes = self.bytes;
        (0..self.films).map(move |number| Film { number, bytes })
    }
}

/// Either kind of connection.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

pub(crate) fn run(work: &Work) -> Result<()> {
    // The library gathers entropy at first use, for tens of milliseconds: a daemon did that long ago.
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    if work.authority.is_some() && provider.secure_random.fill(&mut [0]).is_err() {
        bail!("draw a random number");
    }
    let started = Instant::now();
    moved(work)?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &work.tell {
        std::fs::write(path, seconds.to_string())?;
    }
    Ok(())
}

fn moved(work: &Work) -> Result<()> {
    let authority = work.authority.as_deref();
    let mut origin = connect(&work.origin, authority).context("reach the origin")?;
    let mut sink = connect(&work.sink, authority).context("reach the sink")?;
    let mut buffer = vec![0; BUFFER_BYTES];
    for film in work.films() {
        let path = film.path();
        write!(
            origin,
            "GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n",
            work.origin
        )?;
        origin.flush()?;
        let (length, early) = read_head(&mut origin, &mut buffer)?;
        ensure!(
            length == film.bytes,
            "read {path}: {length} bytes announced"
        );
        write!(
            sink,
            "PUT /bench{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\n",
            work.sink
        )?;
        relay(&mut origin, &mut sink, &mut buffer, early, length)?;
        sink.flush()?;
        let (length, _) = read_head(&mut sink, &mut buffer)?;
        ensure!(length == 0, "understand the sink's answer to {path}");
    }
    Ok(())
}

/// Moves a body of which the first `early` bytes are in the buffer already.
fn relay(
    origin: &mut impl Read,
    sink: &mut impl Write,
    buffer: &mut [u8],
    early: std::ops::Range<usize>,
    length: u64,
) -> Result<()> {
    let mut left = length;
    let mut ready = early;
    loop {
        let frame = buffer
            .get(ready.clone())
            .context("stay within the buffer")?;
        sink.write_all(frame)?;
        left = left.saturating_sub(u64::try_from(frame.len())?);
        if left == 0 {
            return Ok(());
        }
        let read = origin.read(buffer)?;
        ensure!(
            read > 0,
            "read on: the origin hung up with {left} bytes left"
        );
        ready = 0..read;
    }
}

/// Reads the head of an answer: the length of its body, and where in the buffer the body begins.
fn read_head(wire: &mut impl Read, buffer: &mut [u8]) -> Result<(u64, std::ops::Range<usize>)> {
    let mut filled = 0;
    loop {
        let room = buffer
            .get_mut(filled..)
            .context("fit the head into the buffer")?;
        let read = wire.read(room)?;
        ensure!(read > 0, "read an answer: the peer hung up");
        filled += read;
        let seen = buffer.get(..filled).unwrap_or_default();
        let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(seen.get(..end).unwrap_or_default())?;
        if !head.starts_with("HTTP/1.1 200") {
            bail!("be answered 200: {head}");
        }
        let mut lengths = head
            .lines()
            .filter_map(|line| line.strip_prefix("content-length: "));
        let length = lengths.next_back().unwrap_or("0").parse()?;
        return Ok((length, end + 4..filled));
    }
}

fn connect(address: &str, authority: Option<&Path>) -> Result<Box<dyn Wire>> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let Some(authority) = authority else {
        return Ok(Box::new(stream));
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (host, _) = address.split_once(':').context("find the port")?;
    let name = host.to_owned().try_into()?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    Ok(Box::new(StreamOwned::new(connection, stream)))
}
