//! One connection to the simulator, with the manners that HTTP servers do not have: resets, and knowing when all is sent.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::units::ByteSize;

/// How much a paced connection may be behind and make up for: timers are a little late, and receivers pause.
const BEHIND_MAX: Duration = Duration::from_millis(100);

/// What a body can ask of the connection that carries it.
#[derive(Debug, Default)]
pub(super) struct Line {
    flushed: Notify,
    is_to_be_reset: AtomicBool,
    /// Until when what was sent keeps a paced connection busy: the next answer on it waits as this one did.
    busy_until: Mutex<Option<Instant>>,
}

impl Line {
    /// Waits until the kernel has every byte that was handed out so far. Only a body that hands out nothing
    /// meanwhile may wait for this.
    pub(super) async fn flushed(&self) {
        self.flushed.notified().await;
    }

    /// Waits until a connection of this rate has room for `bytes` more. `is_first` is for an answer's first bytes,
    /// which make up for no pause before them.
    pub(super) async fn keep_pace(&self, bytes: u64, rate: ByteSize, is_first: bool) {
        let now = Instant::now();
        let behind = if is_first { Duration::ZERO } else { BEHIND_MAX };
        let earliest = now.checked_sub(behind).unwrap_or(now);
        let takes = u128::from(bytes) * 1_000_000 / u128::from(rate.as_u64().max(1));
        let takes = Duration::from_micros(u64::try_from(takes).unwrap_or(u64::MAX));
        let starts = {
            let mut busy_until = self
                .busy_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let starts = busy_until.map_or(now, |until| until.max(earliest));
            *busy_until = starts.checked_add(takes).or(*busy_until);
            starts
        };
        tokio::time::sleep_until(starts).await;
    }

    /// Lets the connection end with a reset instead of a close.
    pub(super) fn reset_at_end(&self) {
        self.is_to_be_reset.store(true, Ordering::Relaxed);
    }
}

/// A TCP connection that tells its [`Line`] of every flush.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    line: Arc<Line>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, line: Arc<Line>) -> Self {
        Self { stream, line }
    }

    /// Ends the connection, in the way that the line was told.
    pub(super) fn end(self) -> io::Result<()> {
        if self.line.is_to_be_reset.load(Ordering::Relaxed) {
            self.stream.set_zero_linger()?;
        }
        Ok(())
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.line.flushed.notify_waiters();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
