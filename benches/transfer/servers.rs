//! Origin and sink as processes of their own, and the authority that vouches for both.

use std::io::BufRead as _;
use std::io::BufReader;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;

use anyhow::Context as _;
use anyhow::Result;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::measure;
use crate::serve::Conduct;

/// Both servers. Dropping them ends them.
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

impl Servers {
    /// Starts both; each behaves as it is told.
    pub(crate) fn start((origin, sink): (Conduct, Conduct)) -> Result<Self> {
        let certificates = tempfile::tempdir()?;
        write_certificates(&certificates).context("make certificates")?;
        Ok(Self {
            origin: Server::start("origin", &certificates, origin)?,
            sink: Server::start("sink", &certificates, sink)?,
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

    /// The CPU time of origin and sink so far.
    pub(crate) fn cpu_s(&self) -> Result<(f64, f64)> {
        Ok((
            measure::cpu_s(self.origin.child.id())?,
            measure::cpu_s(self.sink.child.id())?,
        ))
    }

    /// Asks the origin something apart from films and tasks.
    pub(crate) async fn ask_origin(&self, path: &str) -> Result<String> {
        ask(&self.origin(false), path).await
    }

    /// Asks the sink something apart from S3.
    pub(crate) async fn ask_sink(&self, path: &str) -> Result<String> {
        ask(&self.sink(false), path).await
    }
}

async fn ask(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("understand the answer to {path}"))?;
    Ok(body.to_owned())
}

impl Server {
    fn start(role: &str, certificates: &TempDir, conduct: Conduct) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(role)
            .arg("--certificates")
            .arg(certificates.path())
            .args(conduct.arguments())
            .stdin(Stdio::piped())
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
    // With one name for both, OpenSSL takes the server's certificate for one that vouches for itself.
    let named = |name: &str| {
        let mut full = rcgen::DistinguishedName::new();
        full.push(rcgen::DnType::CommonName, name);
        full
    };
    authority.distinguished_name = named("authority of a bench");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let authority_key = rcgen::KeyPair::generate()?;
    let pem = authority.self_signed(&authority_key)?.pem();
    std::fs::write(directory.path().join("authority.pem"), pem)?;
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let key = rcgen::KeyPair::generate()?;
    let mut server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    server.distinguished_name = named("server of a bench");
    // Python's checks are strict enough to ask for it.
    server.use_authority_key_identifier_extension = true;
    let server = server.signed_by(&key, &issuer)?;
    std::fs::write(directory.path().join("server.pem"), server.pem())?;
    std::fs::write(directory.path().join("server.key"), key.serialize_pem())?;
    Ok(())
}
