//! What origin and sink share: two listeners, plain and TLS, one hyper connection for each peer, and slowness.

use std::convert::Infallible;
use std::io;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::combinators::BoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::pace::Paced;

/// As much is read from a socket at once.
const READ_BYTES: usize = 256 << 10;

/// What the kernel keeps for a server that takes slowly. Left alone it grows to megabytes, and a film would
/// be gone from the mover before anything was slow.
const SLOW_RECEIVE_BYTES: u32 = 64 << 10;

/// Peers that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// An answer's body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Where a server listens, as whom, and how slowly it does everything.
#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Holds `server.pem` and `server.key`.
    #[arg(long)]
    certificates: PathBuf,
    #[command(flatten)]
    conduct: Conduct,
}

/// How slow a server is. By default not at all.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Conduct {
    /// Gives so many MiB a second over each connection.
    #[arg(long)]
    pub(crate) give_mib: Option<u64>,
    /// Takes so many MiB a second from each connection.
    #[arg(long)]
    pub(crate) take_mib: Option<u64>,
    /// Holds back each answer for so many milliseconds.
    #[arg(long)]
    pub(crate) latency_ms: Option<u64>,
}

/// Answers requests.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers one.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

impl Conduct {
    /// The same as a server's arguments.
    pub(crate) fn arguments(self) -> Vec<String> {
        let named = [
            ("--give-mib", self.give_mib),
            ("--take-mib", self.take_mib),
            ("--latency-ms", self.latency_ms),
        ];
        let said = named
            .into_iter()
            .filter_map(|(name, value)| Some([name.to_owned(), value?.to_string()]));
        said.flatten().collect()
    }

    fn listener(self) -> Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        if self.take_mib.is_some() {
            socket.set_recv_buffer_size(SLOW_RECEIVE_BYTES)?;
        }
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(socket.listen(BACKLOG)?)
    }

    fn paced(self, stream: TcpStream) -> Paced<TcpStream> {
        let bytes = |mib: u64| mib << 20;
        Paced::new(stream, self.give_mib.map(bytes), self.take_mib.map(bytes))
    }
}

/// Serves until standard input ends. Prints the plain and the TLS port once both are open.
pub(crate) fn run<A: Answer>(listen: &Listen, server: A) -> Result<()> {
    // However the bench ends, its end of the pipe ends with it, and no server outlives it.
    std::thread::spawn(|| {
        io::copy(&mut io::stdin(), &mut io::sink()).ok();
        std::process::exit(0);
    });
    let tls = acceptor(listen).context("load the certificate")?;
    let conduct = listen.conduct;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (plain, secure) = (conduct.listener()?, conduct.listener()?);
        println!(
            "{} {}",
            plain.local_addr()?.port(),
            secure.local_addr()?.port()
        );
        io::stdout().flush()?;
        let server = Arc::new(server);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    connections.spawn(talk(conduct.paced(stream), Arc::clone(&server), conduct));
                }
                accepted = secure.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let stream = conduct.paced(stream);
                    connections.spawn(talk_tls(tls.clone(), stream, Arc::clone(&server), conduct));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

async fn talk_tls<A: Answer>(
    tls: TlsAcceptor,
    stream: Paced<TcpStream>,
    server: Arc<A>,
    conduct: Conduct,
) {
    // rustls reads 4 KiB at a time, which would make the servers the dearest part of the rig.
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    if let Ok(stream) = tls.accept(stream).await {
        talk(stream, server, conduct).await;
    }
}

async fn talk<A, S>(stream: S, server: Arc<A>, conduct: Conduct)
where
    A: Answer,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move {
            let answer = server.answer(request).await;
            if let Some(latency) = conduct.latency_ms {
                tokio::time::sleep(Duration::from_millis(latency)).await;
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new();
    connection.max_buf_size(READ_BYTES);
    // Movers hang up when they are done; what else may go wrong shows in what arrives.
    connection
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

fn acceptor(listen: &Listen) -> Result<TlsAcceptor> {
    let chain = CertificateDer::from_pem_file(listen.certificates.join("server.pem"))?;
    let key = PrivateKeyDer::from_pem_file(listen.certificates.join("server.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
