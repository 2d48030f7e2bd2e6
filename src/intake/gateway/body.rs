//! Bodies on their way: a caller's to the provider, an answer to the caller, whole where we must read it.

use std::time::Duration;

use axum::body::Body as Outgoing;
use axum::response::Response;
use bytes::Bytes;
use bytes::BytesMut;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::stream;
use http::HeaderValue;
use http::header;
use http::response::Parts;
use tokio::sync::Semaphore;
use tokio::sync::SemaphorePermit;

use crate::http::Body;
use crate::http::HttpError;
use crate::intake::gateway::headers;
use crate::units::ByteSize;

/// A caller that sends nothing of its body for this long is given up: it holds a connection of ours and of the
/// provider's.
const CALLER_PATIENCE: Duration = Duration::from_secs(30);

/// An answer about one task takes a few KiB. As many as there are connections may be in memory at once.
const SHORT_BYTES_MAX: ByteSize = ByteSize::bytes(256 * 1024);

/// One that repeats what was submitted, as a picture, is longer: as long as our own looks read, and this many at once.
const LONG_BYTES_MAX: ByteSize = ByteSize::mib(1);
const LONG_AT_ONCE: usize = 16;

/// Who comes when so many are read waits this long for its turn.
const LONG_PATIENCE: Duration = Duration::from_secs(2);

/// The turns of long answers.
#[derive(Debug)]
pub(super) struct LongAnswers(Semaphore);

/// An answer that was to be read whole.
pub(super) enum Taken<'a> {
    /// It was. What it takes in memory is counted until the turn is given back.
    Whole(Bytes, Option<SemaphorePermit<'a>>),
    /// It is longer than the bound: what was read, and the rest.
    Long(Body),
}

/// The body of a caller, as long as it comes.
pub(super) fn incoming(body: Outgoing) -> Body {
    let broken = |what: &str| HttpError::Broken {
        host: "the caller".to_owned(),
        what: what.to_owned(),
    };
    let frames = body.into_data_stream();
    stream::try_unfold(frames, move |mut frames| async move {
        match tokio::time::timeout(CALLER_PATIENCE, frames.try_next()).await {
            Ok(Ok(frame)) => Ok(frame.map(|frame| (frame, frames))),
            Ok(Err(_)) => Err(broken("its body ended too early")),
            Err(_) => Err(broken("it sent nothing of its body for too long")),
        }
    })
    .boxed()
}

/// An answer as it is, while it comes.
pub(super) fn outgoing(answer: http::Response<Body>) -> Response {
    let (head, body) = answer.into_parts();
    let mut response = Response::new(Outgoing::from_stream(body));
    *response.status_mut() = head.status;
    *response.headers_mut() = headers::of_answer(&head.headers);
    response
}

/// An answer that was read, as it is `shown`.
pub(super) fn answered(head: Parts, read: &[u8], shown: Bytes) -> Response {
    let is_same = shown == read;
    let length = shown.len();
    let body = crate::http::body::full(shown);
    let mut response = outgoing(http::Response::from_parts(head, body));
    if !is_same {
        headers::forget_body(response.headers_mut());
    }
    if length > 0 {
        let length = HeaderValue::from(length);
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
    }
    response
}

impl Default for LongAnswers {
    fn default() -> Self {
        Self(Semaphore::new(LONG_AT_ONCE))
    }
}

impl LongAnswers {
    /// Reads an answer whole, unless it is too long, or many others are long now.
    pub(super) async fn take(&self, body: Body) -> Result<Taken<'_>, HttpError> {
        let body = match read(body, SHORT_BYTES_MAX).await? {
            Ok(whole) => return Ok(Taken::Whole(whole, None)),
            Err(long) => long,
        };
        let Ok(Ok(turn)) = tokio::time::timeout(LONG_PATIENCE, self.0.acquire()).await else {
            return Ok(Taken::Long(body));
        };
        Ok(match read(body, LONG_BYTES_MAX).await? {
            Ok(whole) => Taken::Whole(whole, Some(turn)),
            Err(long) => Taken::Long(long),
        })
    }
}

/// The whole body, or where it is longer than `max` all of it that comes.
async fn read(mut body: Body, max: ByteSize) -> Result<Result<Bytes, Body>, HttpError> {
    let mut taken = BytesMut::new();
    while let Some(frame) = body.try_next().await? {
        taken.extend_from_slice(&frame);
        if taken.len() > max.as_usize() {
            let begun = stream::once(async move { Ok(taken.freeze()) });
            return Ok(Err(begun.chain(body).boxed()));
        }
    }
    Ok(Ok(taken.freeze()))
}

/// Reads the beginning of a body until `is_enough`, its end, or `max`; gives that and all of the body.
pub(super) async fn peek(
    mut body: Body,
    max: ByteSize,
    is_enough: impl Fn(&[u8]) -> bool,
) -> Result<(Bytes, Body), HttpError> {
    let mut begun = BytesMut::new();
    while !is_enough(&begun)
        && begun.len() < max.as_usize()
        && let Some(frame) = body.try_next().await?
    {
        begun.extend_from_slice(&frame);
    }
    let begun = begun.freeze();
    let first = begun.clone();
    let whole = stream::once(async move { Ok(first) }).chain(body).boxed();
    Ok((begun, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(frames: &[&'static str]) -> Body {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| Ok(Bytes::from_static(frame.as_bytes())))
            .collect();
        stream::iter(frames).boxed()
    }

    async fn rest(body: Body) -> Bytes {
        crate::http::body::collect(body, ByteSize::mib(1))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn what_is_too_long_comes_all_the_same() {
        let max = ByteSize::bytes(4);
        for whole in [&[][..], &["abcd"], &["ab", "", "cd"]] {
            let Ok(taken) = read(frames(whole), max).await.unwrap() else {
                panic!("{whole:?} is short")
            };
            assert_eq!(taken, whole.concat());
        }
        for long in [&["abcde"][..], &["ab", "cd", "e", "f"]] {
            let Err(body) = read(frames(long), max).await.unwrap() else {
                panic!("{long:?} is long")
            };
            assert_eq!(rest(body).await, long.concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_long_answers_are_read_at_once_and_no_more() {
        let frame: &str = "x".repeat(200 * 1024).leak();
        let long = LongAnswers::default();
        let taken = async |count: usize| long.take(frames(&vec![frame; count])).await.unwrap();
        let mut held = Vec::new();
        for _ in 0..LONG_AT_ONCE {
            let it = taken(5).await;
            assert!(matches!(&it, Taken::Whole(whole, Some(_)) if whole.len() == 5 * frame.len()));
            held.push(it);
        }
        assert!(matches!(taken(1).await, Taken::Whole(_, None)));
        let Taken::Long(body) = taken(2).await else {
            panic!("there is no turn")
        };
        assert_eq!(rest(body).await.len(), 2 * frame.len());
        held.pop();
        assert!(matches!(taken(6).await, Taken::Long(_)), "too long");
        assert!(matches!(taken(2).await, Taken::Whole(..)));
    }

    #[tokio::test]
    async fn a_beginning_is_seen_and_nothing_lost() {
        let is_enough = |begun: &[u8]| begun.contains(&b'{');
        for (sent, begun) in [
            (&["  ", "{a", "b}"][..], "  {a"),
            (&["    ", "    ", "{"], "        "),
            (&[" "], " "),
            (&[], ""),
        ] {
            let (seen, body) = peek(frames(sent), ByteSize::bytes(5), is_enough)
                .await
                .unwrap();
            assert_eq!(seen, begun);
            assert_eq!(rest(body).await, sent.concat());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_stalls_is_given_up() {
        let stalled = stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"a")) })
            .chain(stream::pending());
        let mut body = incoming(Outgoing::from_stream(stalled));
        assert_eq!(body.try_next().await.unwrap().unwrap(), "a");
        let error = body.try_next().await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "the caller broke off: it sent nothing of its body for too long"
        );
    }
}
