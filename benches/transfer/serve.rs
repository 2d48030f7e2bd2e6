//! What origin and sink share: two listeners, plain and TLS, and one hyper connection for each peer.

use std::convert::Infallible;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

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
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

/// As much is read from a socket at once.
const READ_BYTES: usize = 256 << 10;

/// An answer's body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// Where a server listens, and as whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Listen {
    /// Holds `server.pem` and `server.key`.
    #[arg(long)]
    pub(crate) certificates: PathBuf,
}

/// Answers requests.
pub(crate) trait Answer: Send + Sync + 'static {
    /// Answers one.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// Serves until the process is killed. Prints the plain and the TLS port once both are open.
pub(crate) fn run<A: Answer>(listen: &Listen, server: A) -> Result<()> {
    let tls = acceptor(listen).context("load the certificate")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let plain = TcpListener::bind("127.0.0.1:0").await?;
        let secure = TcpListener::bind("127.0.0.1:0").await?;
        println!(
            "{} {}",
            plain.local_addr()?.port(),
            secure.local_addr()?.port()
        );
        std::io::stdout().flush()?;
        let server = Arc::new(server);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    connections.spawn(talk(stream, Arc::clone(&server)));
                }
                accepted = secure.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    connections.spawn(talk_tls(tls.clone(), stream, Arc::clone(&server)));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    })
}

async fn talk_tls<A: Answer>(tls: TlsAcceptor, stream: TcpStream, server: Arc<A>) {
    // rustls reads 4 KiB at a time, which would make the servers the dearest part of the rig.
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    if let Ok(stream) = tls.accept(stream).await {
        talk(stream, server).await;
    }
}

async fn talk<A, S>(stream: S, server: Arc<A>)
where
    A: Answer,
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let service = service_fn(move |request| {
        let server = Arc::clone(&server);
        async move { Ok::<_, Infallible>(server.answer(request).await) }
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
