//! TLS for large bodies: long strokes of records, decrypted where they were read and encrypted where they are sent from.
//!
//! The stroke is the thread's, so that a connection holds no more than it must: the beginning of a record, what its
//! reader had no room for, and what its socket did not take.

use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf as _;
use bytes::BufMut as _;
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

/// What one call to the kernel writes, before it is encrypted.
const WRITE_BYTES: usize = 128 * 1024;

/// A record on the wire is never longer with the ciphers that we speak.
const RECORD_MAX: usize = 5 + 16 * 1024 + 256;

/// What a connection keeps at most of what it has received: records of a message that is not whole. The largest that
/// rustls puts together has 64 KiB.
const PARTIAL_MAX: usize = 128 * 1024;

/// Room for what is kept and a record more, and for what is written, to which each record adds some bytes.
const STROKE_BYTES: usize = PARTIAL_MAX + 2 * RECORD_MAX;

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
            // What is wrong with it is told to the peer as well, and says more than that the peer does not listen.
            let told = tcp.write_all_buf(&mut session.unsent).await;
            session.check()?;
            told?;
            partial.drain(..taken);
            if !session.tls.is_handshaking() {
                break;
            }
            if partial.len() > PARTIAL_MAX {
                return Err(endless());
            }
            let mut room = (&mut partial).limit(RECORD_MAX);
            if tcp.read_buf(&mut room).await? == 0 {
                return Err(hung_up());
            }
        }
        partial.shrink_to_fit();
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
        if held > PARTIAL_MAX {
            return Poll::Ready(Err(endless()));
        }
        // What is decrypted is shorter, so that it has room.
        let most = stroke.len().min(plain.remaining().max(held + RECORD_MAX));
        let mut received = ReadBuf::new(stroke.split_at_mut(most).0);
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
        });
        self.partial.clear();
        self.partial.extend_from_slice(received.split_at(taken).1);
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
        let mut sealed = stroke.split_at(sealed).0;
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

/// A peer that goes on and on with one message.
fn endless() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the peer sends a message that has no end",
    )
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
        let (before, room) = (plain.filled().len(), plain.remaining());
        while room > 0 && plain.filled().len() == before && !this.session.is_ended {
            // After what came before it.
            this.session.check()?;
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
        this.session.end(&mut this.partial);
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
    fn hear(&mut self, received: &mut [u8], give: impl FnMut(&[u8])) -> usize {
        self.turn(received, give, |_| {})
    }

    /// Says what the peer did wrong.
    fn check(&self) -> io::Result<()> {
        match &self.failure {
            Some(failure) => Err(io::Error::new(io::ErrorKind::InvalidData, failure.clone())),
            None => Ok(()),
        }
    }

    /// Encrypts some of `plain` into `room`; how much of the one it took, and of the other.
    fn say(
        &mut self,
        partial: &mut [u8],
        plain: &[IoSlice<'_>],
        room: &mut [u8],
    ) -> io::Result<(usize, usize)> {
        let (mut taken, mut filled) = (0, 0);
        let mut said = Err(io::ErrorKind::BrokenPipe.into());
        let seal = |traffic: &mut WriteTraffic<'_, ClientConnectionData>| {
            said = plain.iter().try_for_each(|slice| {
                let slice = slice.split_at(slice.len().min(WRITE_BYTES - taken)).0;
                let sealed = traffic.encrypt(slice, room.split_at_mut(filled).1);
                filled += sealed.map_err(io::Error::other)?;
                taken += slice.len();
                Ok(())
            });
        };
        // Nothing is whole in `partial`, and so nothing is given.
        self.turn(partial, |_| {}, seal);
        self.check()?;
        said.map(|()| (taken, filled))
    }

    /// Says that nothing more comes.
    fn end(&mut self, partial: &mut [u8]) {
        let (mut room, mut filled) = ([0; 1024], 0);
        let close = |traffic: &mut WriteTraffic<'_, ClientConnectionData>| {
            // Where there is no room the peer misses a courtesy.
            filled = traffic.queue_close_notify(&mut room).unwrap_or_default();
        };
        self.turn(partial, |_| {}, close);
        self.unsent.extend_from_slice(room.split_at(filled).0);
    }

    /// Goes on as far as `received` allows, and lets `speak` in the end, should that be possible by then. How much was
    /// taken of `received`.
    fn turn(
        &mut self,
        received: &mut [u8],
        mut give: impl FnMut(&[u8]),
        speak: impl FnOnce(&mut WriteTraffic<'_, ClientConnectionData>),
    ) -> usize {
        let mut taken = 0;
        while self.failure.is_none() {
            let rest = received.split_at_mut(taken).1;
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(rest);
            taken += discard;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                taken += record.discard;
                                give(record.payload);
                            }
                            Err(error) => self.failure = Some(error),
                        }
                    }
                }
                Ok(ConnectionState::EncodeTlsData(data)) => encode(data, &mut self.unsent),
                // Whoever called sends it.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    speak(&mut traffic);
                    break;
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.is_ended = true;
                    break;
                }
                // The handshake needs more; all else is not for clients.
                Ok(_) => break,
                Err(error) => {
                    // Without an alert that waits, rustls would go on with the records that it has just refused.
                    if self.tls.wants_write()
                        && let UnbufferedStatus {
                            state: Ok(ConnectionState::EncodeTlsData(alert)),
                            ..
                        } = self.tls.process_tls_records(&mut [])
                    {
                        encode(alert, &mut self.unsent);
                    }
                    self.failure = Some(error);
                }
            }
        }
        taken
    }
}

/// Appends what the protocol says by itself.
fn encode(mut data: EncodeTlsData<'_, ClientConnectionData>, unsent: &mut BytesMut) {
    let start = unsent.len();
    unsent.resize(start + RECORD_MAX, 0);
    let written = data.encode(unsent.split_at_mut(start).1);
    unsent.truncate(start + written.expect("one record, which has room"));
}

#[cfg(test)]
mod tests;
