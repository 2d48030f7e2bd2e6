//! A body as it comes: reading it is what moves its connection.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use futures::Stream;
use http_body::Body as _;
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio::time::Sleep;

use super::line::Line;
use super::line::broken;
use super::line::is_hang_up;
use super::shelf::Home;
use crate::http::HttpError;
use crate::units::Span;

/// The frames of one answer.
pub(crate) struct Flow {
    host: String,
    body: Incoming,
    /// Whether it ends with its connection.
    is_open_ended: bool,
    /// Nothing once the body has ended or broken off.
    line: Option<Line>,
    home: Home,
    timeout: Option<Span>,
    /// Since when a reader has been waiting; nothing while none waits.
    waiting_since: Option<Instant>,
    /// Ends when the silence is too long, or before: to move it with every frame would cost more than the frames.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Flow {
    pub(super) fn new(
        host: String,
        body: Incoming,
        is_open_ended: bool,
        line: Line,
        home: Home,
        timeout: Option<Span>,
    ) -> Self {
        Self {
            host,
            body,
            is_open_ended,
            line: Some(line),
            home,
            timeout,
            waiting_since: None,
            silence: None,
        }
    }

    /// The next frame, where the connection has one ready.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, HttpError>>> {
        loop {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    // Trailers say nothing that we would believe.
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                // TLS would have said whether that was the end. Many do not say it, and whoever judges the body knows that
                // nothing has shown its end.
                Some(Err(error)) if self.is_open_ended && is_hang_up(&error) => {
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(broken(&self.host, &error)))),
                None => return Poll::Ready(None),
            }
        }
    }

    /// The body has ended: its connection may have another.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if let Some(mut line) = self.line.take() {
            line.drive(cx);
            if line.is_ready() {
                self.home.lay_down(line);
            }
        }
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<HttpError> {
        let Some(timeout) = self.timeout else {
            return Poll::Pending;
        };
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let last = since + timeout.as_duration();
        let silence = self
            .silence
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(last)));
        loop {
            ready!(silence.as_mut().poll(cx));
            if Instant::now() >= last {
                let host = self.host.clone();
                return Poll::Ready(HttpError::Timeout { host });
            }
            silence.as_mut().reset(last);
        }
    }
}

impl Stream for Flow {
    type Item = Result<Bytes, HttpError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(line) = &mut this.line else {
            return Poll::Ready(None);
        };
        // The connection first: what it reads is what the body then has.
        line.drive(cx);
        match this.poll_frame(cx) {
            Poll::Ready(Some(Ok(bytes))) => {
                this.waiting_since = None;
                // A reader that knows the length does not ask for what comes after the last byte.
                if this.body.is_end_stream() {
                    this.finish(cx);
                }
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.line = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                this.finish(cx);
                Poll::Ready(None)
            }
            Poll::Pending => {
                let error = ready!(this.poll_silence(cx));
                this.line = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }
}
