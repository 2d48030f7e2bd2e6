//! Listening sockets, and what their connections are to the rules.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;

use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use crate::daemon::server::ListenError;
use crate::daemon::server::admit::Entrance;

/// Who may talk to the socket: the service's user and its group.
const SOCKET_MODE: u32 = 0o660;

/// One listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    /// TCP, for webhooks alone.
    Hooks(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// An accepted connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Listener {
    pub(super) async fn tcp(key: &'static str, address: SocketAddr) -> Result<Self, ListenError> {
        bind_tcp(key, address).await.map(Listener::Tcp)
    }

    pub(super) async fn hooks(key: &'static str, address: SocketAddr) -> Result<Self, ListenError> {
        bind_tcp(key, address).await.map(Listener::Hooks)
    }

    /// The socket, or none where the folder that it belongs in does not exist: under systemd it always does, and who
    /// runs the daemon by hand can do without.
    pub(super) async fn unix(key: &'static str, path: &Path) -> Result<Option<Self>, ListenError> {
        if !path.parent().is_some_and(Path::is_dir) {
            tracing::warn!(
                "{key}: there is no folder for {}, so there is no socket",
                path.display()
            );
            return Ok(None);
        }
        let bound = bind_unix(path).await;
        let bound = bound.map_err(|source| ListenError {
            key,
            place: path.display().to_string(),
            source,
        })?;
        tracing::info!("listening on {}", path.display());
        Ok(Some(Listener::Unix(bound, path.to_owned())))
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(Stream, Entrance)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let entrance = Entrance::Tcp(stream.local_addr()?.ip());
                Ok((Stream::Tcp(stream), entrance))
            }
            Listener::Hooks(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Entrance::Hooks))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Entrance::Socket))
            }
        }
    }

    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Hooks(_) | Listener::Unix(..) => None,
        }
    }

    pub(super) fn hooks_address(&self) -> Option<SocketAddr> {
        match self {
            Listener::Hooks(listener) => listener.local_addr().ok(),
            Listener::Tcp(_) | Listener::Unix(..) => None,
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Listener::Unix(_, path) => Some(path),
            Listener::Tcp(_) | Listener::Hooks(_) => None,
        }
    }

    /// Takes the socket's file away; one that stays does no harm, the next start replaces it.
    pub(super) fn remove(&self) {
        if let Some(path) = self.path()
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::debug!(%error, "the socket stays");
        }
    }
}

async fn bind_tcp(key: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bound = async {
        let listener = TcpListener::bind(address).await?;
        tracing::info!("listening on {}", listener.local_addr()?);
        Ok(listener)
    };
    bound.await.map_err(|source| ListenError {
        key,
        place: address.to_string(),
        source,
    })
}

/// Binds under another name and moves the socket into place: it takes that of a daemon that died, never that of one
/// that lives, and nobody can reach it before its mode is set.
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let what = "something else than a socket is there";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            let what = "another daemon answers there";
            return Err(io::Error::new(io::ErrorKind::AddrInUse, what));
        }
        Ok(_) | Err(_) => {}
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(name);
    if let Err(error) = std::fs::remove_file(&fresh)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    std::fs::rename(&fresh, path)?;
    Ok(listener)
}
