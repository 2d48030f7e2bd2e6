//! Bodies on their way: a caller's to the provider, an answer to the caller, whole where we must read it.

use std::time::Duration;

use axum::body::Body as Outgoing;
use axum::response::Response;
use bytes::Bytes;
use bytes::BytesMut;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use futures::stream;

use crate::http::Body;
use crate::http::HttpError;
use crate::intake::gateway::headers;
use crate::units::ByteSize;

/// A caller that sends nothing of its body for this long is given up: it holds a connection of ours and of the
/// provider's.
const CALLER_PATIENCE: Duration = Duration::from_secs(30);

/// A body that was to be read whole.
pub(super) enum Taken {
    /// It was.
    Whole(Bytes),
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

/// Reads a body whole, unless it is longer than `max`.
pub(super) async fn take(mut body: Body, max: ByteSize) -> Result<Taken, HttpError> {
    let mut taken = BytesMut::new();
    while let Some(frame) = body.try_next().await? {
        taken.extend_from_slice(&frame);
        if taken.len() > max.as_usize() {
            let begun = stream::once(async move { Ok(taken.freeze()) });
            return Ok(Taken::Long(begun.chain(body).boxed()));
        }
    }
    Ok(Taken::Whole(taken.freeze()))
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
            let Taken::Whole(taken) = take(frames(whole), max).await.unwrap() else {
                panic!("{whole:?} is short")
            };
            assert_eq!(taken, whole.concat());
        }
        for long in [&["abcde"][..], &["ab", "cd", "e", "f"]] {
            let Taken::Long(body) = take(frames(long), max).await.unwrap() else {
                panic!("{long:?} is long")
            };
            assert_eq!(rest(body).await, long.concat());
        }
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
