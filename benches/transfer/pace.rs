//! A connection that is slow on purpose: it gives, or takes, so many bytes a second, whatever passes over it.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;
use tokio::time::Sleep;

/// What a connection that was idle may pass at once. Small against every film, so that a mover cannot live on
/// the bursts of many connections.
const BURST_BYTES: u64 = 256 << 10;

/// Less is not passed: with timers that come in whole milliseconds, smaller steps cost the rig more than TLS does.
const STEP_BYTES: u64 = 64 << 10;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// A connection with a bucket for each way that is paced.
///
/// The buckets belong to the connection, below TLS and HTTP: a second request on it finds what the first left.
pub(crate) struct Paced<S> {
    stream: S,
    give: Option<Bucket>,
    take: Option<Bucket>,
}

/// A token bucket: a token is a byte.
struct Bucket {
    bytes_per_second: u64,
    ready_bytes: u64,
    filled_at: Instant,
    wait: Pin<Box<Sleep>>,
}

impl<S> Paced<S> {
    /// Paces `stream` to so many bytes a second; `None` is as fast as it goes.
    pub(crate) fn new(stream: S, give: Option<u64>, take: Option<u64>) -> Self {
        Self {
            stream,
            give: give.map(Bucket::new),
            take: take.map(Bucket::new),
        }
    }
}

impl Bucket {
    fn new(bytes_per_second: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_second: bytes_per_second.max(1),
            ready_bytes: BURST_BYTES,
            filled_at: now,
            wait: Box::pin(tokio::time::sleep_until(now)),
        }
    }

    /// Waits until a step may pass, and says how much may.
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<usize> {
        loop {
            self.fill();
            if self.ready_bytes >= STEP_BYTES {
                return Poll::Ready(usize::try_from(self.ready_bytes).unwrap_or(usize::MAX));
            }
            let missing = u128::from(STEP_BYTES - self.ready_bytes);
            let nanos = missing * NANOS_PER_SECOND / u128::from(self.bytes_per_second) + 1;
            let wait = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
            self.wait.as_mut().reset(self.filled_at + wait);
            ready!(self.wait.as_mut().poll(context));
        }
    }

    fn fill(&mut self) {
        let now = Instant::now();
        let nanos = now.duration_since(self.filled_at).as_nanos();
        let gained = nanos * u128::from(self.bytes_per_second) / NANOS_PER_SECOND;
        let ready = u128::from(self.ready_bytes) + gained;
        self.ready_bytes = u64::try_from(ready).map_or(BURST_BYTES, |ready| ready.min(BURST_BYTES));
        self.filled_at = now;
    }

    fn spend(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(bucket) = &mut this.take else {
            return Pin::new(&mut this.stream).poll_read(context, buffer);
        };
        let most = ready!(bucket.poll_ready(context)).min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
        ready!(Pin::new(&mut this.stream).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        bucket.spend(read);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(bucket) = &mut this.give else {
            return Pin::new(&mut this.stream).poll_write(context, bytes);
        };
        let most = ready!(bucket.poll_ready(context));
        let bytes = bytes.get(..most).unwrap_or(bytes);
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        bucket.spend(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(bucket) = &mut this.give else {
            return Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        };
        let most = ready!(bucket.poll_ready(context));
        let mut bytes = 0;
        let fit = slices.iter().take_while(|slice| {
            bytes += slice.len();
            bytes <= most
        });
        match slices.get(..fit.count()) {
            Some(fit) if fit.iter().any(|slice| !slice.is_empty()) => {
                let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, fit))?;
                bucket.spend(written);
                Poll::Ready(Ok(written))
            }
            // The first that holds anything is too long.
            _ => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                self.poll_write(context, first.map_or(&[], |slice| slice))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
