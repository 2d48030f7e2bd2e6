//! The rounds: servers that stay, movers that come and go, and the proof that what was moved arrived.

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use reelvault::model::digest::Crc64;
use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::content::Film;
use crate::measure;
use crate::measure::Cost;
use crate::movers::Mover;
use crate::movers::mover_command;
use crate::report::Line;
use crate::sink;

/// What the small objects weigh.
const SMALL_MIB: u64 = 8;

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) mib: u64,
    pub(crate) movers: Vec<Mover>,
}

/// One thing to move.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) films: u64,
    pub(crate) bytes: u64,
    pub(crate) tls: bool,
}

/// Origin and sink, as processes of their own. Dropping them ends them.
pub(crate) struct Servers {
    origin: Server,
    sink: Server,
    certificates: TempDir,
}

struct Server {
    child: Child,
    plain: u16,
    secure: u16,
}

/// What the sink says of an object.
#[derive(Debug, Deserialize)]
struct Arrived {
    bytes: u64,
    crc64: String,
}

impl Case {
    /// The name in tables.
    pub(crate) fn name(&self) -> String {
        format!("{} x {} MiB", self.films, self.bytes >> 20)
    }

    /// All that it moves, in GiB.
    pub(crate) fn gib(&self) -> f64 {
        let mib = u32::try_from((self.films * self.bytes) >> 20).unwrap_or(u32::MAX);
        f64::from(mib) / 1_024.0
    }

    fn all(plan: &Plan) -> Vec<Case> {
        let small = (plan.mib / SMALL_MIB, SMALL_MIB << 20);
        let shapes = [(1, plan.mib << 20), small];
        let cases = [false, true]
            .into_iter()
            .flat_map(|tls| shapes.map(|(films, bytes)| Case { films, bytes, tls }));
        cases.collect()
    }
}

/// Measures all cases, and gives a line for each mover in each.
pub(crate) async fn run(plan: &Plan) -> Result<Vec<Line>> {
    let servers = Servers::start()?;
    let mut movers = vec![Mover::Relay];
    movers.extend(plan.movers.iter().filter(|mover| **mover != Mover::Relay));
    let mut lines = Vec::new();
    for case in Case::all(plan) {
        let sums = Sums::of(&case);
        let mut costs = vec![Vec::new(); movers.len()];
        let sink_before = measure::cpu_s(servers.sink.child.id())?;
        for round in 1..=plan.rounds {
            for (mover, costs) in movers.iter().zip(&mut costs) {
                let cost = moved(*mover, &case, &servers, &sums).await;
                costs.push(cost.with_context(|| {
                    format!(
                        "measure {} on {} in round {round}",
                        mover.name(),
                        case.name()
                    )
                })?);
            }
        }
        let sink_cpu_s = measure::cpu_s(servers.sink.child.id())? - sink_before;
        let count = u32::try_from(movers.len() * plan.rounds).unwrap_or(u32::MAX);
        let sink_cpu_s_per_gib = sink_cpu_s / (case.gib() * f64::from(count));
        let floor = costs.first().cloned().unwrap_or_default();
        let measured = movers.iter().zip(&costs);
        lines.extend(
            measured
                .map(|(mover, costs)| Line::new(*mover, &case, costs, &floor, sink_cpu_s_per_gib)),
        );
    }
    Ok(lines)
}

/// Has a case moved once, and checks what arrived.
async fn moved(mover: Mover, case: &Case, servers: &Servers, sums: &Sums) -> Result<Cost> {
    servers.ask_sink(sink::RESET).await?;
    let scratch = tempfile::tempdir()?;
    let command = mover_command(mover, case, servers, scratch.path())?;
    let (status, cost) = measure::run(command).await?;
    ensure!(status.success(), "succeed: {status}");
    let report = servers.ask_sink(sink::REPORT).await?;
    sums.compare(serde_json::from_str(&report)?)?;
    Ok(cost)
}

/// What must arrive: lengths and checksums, whatever the keys are.
struct Sums(Vec<(u64, Crc64)>);

impl Sums {
    fn of(case: &Case) -> Self {
        let films = (0..case.films).map(|number| Film {
            number,
            bytes: case.bytes,
        });
        let mut sums: Vec<_> = films.map(|film| (film.bytes, film.crc64())).collect();
        sums.sort_by_key(|(_, crc64)| crc64.0);
        Self(sums)
    }

    /// What is too small for a film, such as a record beside one, is not counted.
    fn compare(&self, arrived: Vec<Arrived>) -> Result<()> {
        let films = arrived
            .into_iter()
            .filter(|object| object.bytes >= Film::BYTES_MIN);
        let found = films.map(|film| Ok((film.bytes, film.crc64.parse::<Crc64>()?)));
        let mut found: Vec<_> = found.collect::<Result<_>>()?;
        found.sort_by_key(|(_, crc64)| crc64.0);
        let (came, expected) = (found.len(), self.0.len());
        ensure!(
            came == expected,
            "move everything: {came} of {expected} films arrived"
        );
        ensure!(
            found == self.0,
            "move everything: what arrived is not what was sent"
        );
        Ok(())
    }
}

impl Servers {
    fn start() -> Result<Self> {
        let certificates = tempfile::tempdir()?;
        write_certificates(&certificates).context("make certificates")?;
        Ok(Self {
            origin: Server::start("origin", &certificates)?,
            sink: Server::start("sink", &certificates)?,
            certificates,
        })
    }

    /// The origin's host and port.
    pub(crate) fn origin(&self, tls: bool) -> String {
        self.origin.address(tls)
    }

    /// The sink's host and port.
    pub(crate) fn sink(&self, tls: bool) -> String {
        self.sink.address(tls)
    }

    /// The file with the authority that vouches for both.
    pub(crate) fn authority(&self) -> PathBuf {
        self.certificates.path().join("authority.pem")
    }

    /// Asks the sink something apart from S3.
    async fn ask_sink(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.sink(false)).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: sink\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, body) = answer
            .split_once("\r\n\r\n")
            .context("understand the sink")?;
        Ok(body.to_owned())
    }
}

impl Server {
    fn start(role: &str, certificates: &TempDir) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg("--certificates")
            .arg(certificates.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let output = child.stdout.take().context("read the ports")?;
        BufReader::new(output).read_line(&mut line)?;
        let (plain, secure) = line
            .trim()
            .split_once(' ')
            .with_context(|| format!("start {role}"))?;
        Ok(Self {
            plain: plain.parse()?,
            secure: secure.parse()?,
            child,
        })
    }

    fn address(&self, tls: bool) -> String {
        let port = if tls { self.secure } else { self.plain };
        format!("127.0.0.1:{port}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; either way it is reaped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn write_certificates(directory: &TempDir) -> Result<()> {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate()?;
    let pem = authority.self_signed(&authority_key)?.pem();
    std::fs::write(directory.path().join("authority.pem"), pem)?;
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let key = rcgen::KeyPair::generate()?;
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let server = server.signed_by(&key, &issuer)?;
    std::fs::write(directory.path().join("server.pem"), server.pem())?;
    std::fs::write(directory.path().join("server.key"), key.serialize_pem())?;
    Ok(())
}
