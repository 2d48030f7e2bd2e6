//! TLS for large bodies: long strokes of records, decrypted where they were read and encrypted where they are sent from.
//!
//! The stroke is the thread's, so that a connection holds no more than it must: what a record still lacks to be whole,
//! and what its socket did not take.

use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf as _;
use bytes::BytesMut;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt as _;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::client::ClientConnectionData;
use tokio_rustls::rustls::client::UnbufferedClientConnection;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::unbuffered::ConnectionState;
use tokio_rustls::rustls::unbuffered::EncodeTlsData;
use tokio_rustls::rustls::unbuffered::UnbufferedStatus;
use tokio_rustls::rustls::unbuffered::WriteTraffic;

/// What one call to the kernel reads at most: sixteen records.
const STROKE_BYTES: usize = 256 * 1024;

/// What one call to the kernel writes, before it is encrypted. Each record adds some bytes, so it is below the stroke.
const WRITE_BYTES: usize = 128 * 1024;

/// A record on the wire is never longer.
const RECORD_MAX: usize = 5 + 16 * 1024 + 256;

thread_local! {
    /// Nobody keeps anything in it.
    static STROKE: RefCell<Vec<u8>> = RefCell::new(vec![0; STROKE_BYTES]);
}

/// A client's end of an encrypted connection.
pub(super) struct TlsSocket {
    tcp: TcpStream,
    session: Session,
    /// Received, and not yet a whole record.
    partial: Vec<u8>,
    /// Decrypted, and more than the reader had room for.
    surplus: BytesMut,
}

impl TlsSocket {
    /// Agrees on keys with a peer that proves to be `name`.
    pub(super) async fn connect(
        mut tcp: TcpStream,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let mut session = Session::new(config, name)?;
        let (mut partial, mut surplus) = (Vec::new(), BytesMut::new());
        loop {
            let taken = session.hear(&mut partial, |plain| surplus.extend_from_slice(plain));
            // Of what is wrong with it, the peer is told as well.
            tcp.write_all_buf(&mut session.unsent).await?;
            partial.drain(..taken?);
            if !session.tls.is_handshaking() {
                break;
            }
            partial.reserve(RECORD_MAX);
            if tcp.read_buf(&mut partial).await? == 0 {
                return Err(hung_up());
            }
        }
        Ok(Self {
            tcp,
            session,
            partial,
            surplus,
        })
    }

    /// Reads once, behind what the last time left, and decrypts what is whole.
    fn poll_stroke(
        &mut self,
        cx: &mut Context<'_>,
        stroke: &mut [u8],
        plain: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let held = self.partial.len();
        // What is decrypted is shorter, so that it has room.
        let most = stroke.len().min(plain.remaining().max(held + RECORD_MAX));
        let mut received = ReadBuf::new(stroke.get_mut(..most).unwrap_or_default());
        received.put_slice(&self.partial);
        ready!(Pin::new(&mut self.tcp).poll_read(cx, &mut received))?;
        let received = received.filled_mut();
        if received.len() == held {
            return Poll::Ready(Err(hung_up()));
        }
        let surplus = &mut self.surplus;
        let taken = self.session.hear(received, |record| {
            let (fits, over) = record.split_at(record.len().min(plain.remaining()));
            plain.put_slice(fits);
            surplus.extend_from_slice(over);
        })?;
        self.partial.clear();
        let rest = received.get(taken..).unwrap_or_default();
        self.partial.extend_from_slice(rest);
        Poll::Ready(Ok(()))
    }

    /// Encrypts some of `plain`, and sends what the socket takes of it; how much was encrypted.
    fn poll_say(
        &mut self,
        cx: &mut Context<'_>,
        stroke: &mut [u8],
        plain: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let (taken, sealed) = self.session.say(&mut self.partial, plain, stroke)?;
        let mut sealed = stroke.get(..sealed).unwrap_or_default();
        // What the protocol has to say by itself comes before.
        if self.session.unsent.is_empty()
            && let Poll::Ready(sent) = Pin::new(&mut self.tcp).poll_write(cx, sealed)
        {
            sealed.advance(sent?);
        }
        self.session.unsent.extend_from_slice(sealed);
        Poll::Ready(Ok(taken))
    }

    /// Sends what is encrypted.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let unsent = &mut self.session.unsent;
        while !unsent.is_empty() {
            match ready!(Pin::new(&mut self.tcp).poll_write(cx, unsent))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => unsent.advance(sent),
            }
        }
        // Its memory goes as well.
        *unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

fn hung_up() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the peer closed the connection without saying so",
    )
}

impl AsyncRead for TlsSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plain: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.surplus.is_empty() {
            let fits = this.surplus.len().min(plain.remaining());
            plain.put_slice(&this.surplus.split_to(fits));
            return Poll::Ready(Ok(()));
        }
        let before = plain.filled().len();
        while plain.filled().len() == before && !this.session.is_ended {
            // Such as the answer to a request for new keys.
            if let Poll::Ready(Err(error)) = this.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            ready!(STROKE.with_borrow_mut(|stroke| this.poll_stroke(cx, stroke, plain)))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plain: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(plain)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        plain: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        STROKE.with_borrow_mut(|stroke| this.poll_say(cx, stroke, plain))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_send(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.end(&mut this.partial)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}

/// The protocol, without a socket.
struct Session {
    tls: UnbufferedClientConnection,
    /// Encrypted.
    unsent: BytesMut,
    /// The peer has said that nothing more comes.
    is_ended: bool,
    /// What the peer did wrong. Nothing can be said or heard after that.
    failure: Option<rustls::Error>,
}

impl Session {
    fn new(config: Arc<rustls::ClientConfig>, name: ServerName<'static>) -> io::Result<Self> {
        let tls = UnbufferedClientConnection::new(config, name).map_err(io::Error::other)?;
        Ok(Self {
            tls,
            unsent: BytesMut::new(),
            is_ended: false,
            failure: None,
        })
    }

    /// Takes the whole records of `received`, says how long they were, and gives what was in them.
    fn hear(&mut self, received: &mut [u8], give: impl FnMut(&[u8])) -> io::Result<usize> {
        self.turn(received, give, |_| Ok(()))
    }

    /// Encrypts some of `plain` into `room`; how much of the one it took, and of the other.
    fn say(
        &mut self,
        partial: &mut [u8],
        plain: &[IoSlice<'_>],
        room: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        let (mut taken, mut filled) = (0, 0);
        let mut may_speak = false;
        let seal = |traffic: &mut WriteTraffic<'_, ClientConnectionData>| {
            may_speak = true;
            for slice in plain {
                let fits = slice.len().min(WRITE_BYTES - taken);
                let (slice, room) = (slice.get(..fits), room.get_mut(filled..));
                let slice = slice.unwrap_or_default();
                let sealed = traffic.encrypt(slice, room.unwrap_or_default());
                filled += sealed.map_err(io::Error::other)?;
                taken += fits;
            }
            Ok(())
        };
        // Nothing is whole in `partial`, and so nothing is given.
        self.turn(partial, |_| {}, seal)?;
        if may_speak {
            Ok((taken, filled))
        } else {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }

    /// Says that nothing more comes.
    fn end(&mut self, partial: &mut [u8]) -> io::Result<()> {
        let mut room = [0; 1024];
        let mut said = 0;
        let close = |traffic: &mut WriteTraffic<'_, ClientConnectionData>| {
            said = traffic
                .queue_close_notify(&mut room)
                .map_err(io::Error::other)?;
            Ok(())
        };
        self.turn(partial, |_| {}, close)?;
        self.unsent
            .extend_from_slice(room.get(..said).unwrap_or_default());
        Ok(())
    }

    /// Goes on as far as `received` allows, and lets `speak` in the end, should that be possible by then.
    fn turn(
        &mut self,
        received: &mut [u8],
        mut give: impl FnMut(&[u8]),
        speak: impl FnOnce(&mut WriteTraffic<'_, ClientConnectionData>) -> io::Result<()>,
    ) -> io::Result<usize> {
        if let Some(failure) = &self.failure {
            return Err(invalid(failure.clone()));
        }
        let mut taken = 0;
        loop {
            let rest = received.get_mut(taken..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(rest);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(invalid)?;
                        discard += record.discard;
                        give(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent)?,
                // Whoever called sends it.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    speak(&mut traffic)?;
                    return Ok(taken + discard);
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.is_ended = true;
                    return Ok(taken + discard);
                }
                // The handshake needs more; all else is not for clients.
                Ok(_) => return Ok(taken + discard),
                Err(error) => {
                    let last = self.tls.process_tls_records(&mut []);
                    if let Ok(ConnectionState::EncodeTlsData(alert)) = last.state {
                        encode(alert, &mut self.unsent)?;
                    }
                    self.failure = Some(error.clone());
                    return Err(invalid(error));
                }
            }
            taken += discard;
        }
    }
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Appends what the protocol says by itself.
fn encode(
    mut data: EncodeTlsData<'_, ClientConnectionData>,
    unsent: &mut BytesMut,
) -> io::Result<()> {
    let start = unsent.len();
    unsent.resize(start + RECORD_MAX, 0);
    let written = data.encode(unsent.get_mut(start..).unwrap_or_default());
    unsent.truncate(start + written.map_err(io::Error::other)?);
    Ok(())
}

#[cfg(test)]
mod tests;
