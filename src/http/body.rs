//! Bodies of answers: collected under a bound, or made from bytes at hand.

use bytes::Bytes;
use bytes::BytesMut;
use futures::StreamExt as _;
use futures::TryStreamExt as _;

use crate::http::Body;
use crate::http::HttpError;
use crate::units::ByteSize;

/// Collects `body` into memory; one of more than `max` bytes is refused as soon as that shows.
pub async fn collect(mut body: Body, max: ByteSize) -> Result<Bytes, HttpError> {
    let fits = |total: usize| total <= max.as_usize();
    let Some(first) = body.try_next().await? else {
        return Ok(Bytes::new());
    };
    if !fits(first.len()) {
        return Err(HttpError::TooLarge(max));
    }
    // Most answers of an API are one frame, which needs no copy.
    let Some(mut next) = body.try_next().await? else {
        return Ok(first);
    };
    let mut collected = BytesMut::from(first);
    loop {
        if !fits(collected.len().saturating_add(next.len())) {
            return Err(HttpError::TooLarge(max));
        }
        collected.extend_from_slice(&next);
        match body.try_next().await? {
            Some(frame) => next = frame,
            None => return Ok(collected.freeze()),
        }
    }
}

/// A body of these bytes, in one frame.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    let bytes = bytes.into();
    futures::stream::once(async { Ok(bytes) }).boxed()
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn frames(frames: &[&'static str]) -> Body {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| Ok(Bytes::from_static(frame.as_bytes())))
            .collect();
        stream::iter(frames).boxed()
    }

    async fn check(body: Body, max: u64, collected: Result<&'static str, HttpError>) {
        let got = collect(body, ByteSize::bytes(max)).await;
        assert_eq!(
            got,
            collected.map(|text| Bytes::from_static(text.as_bytes()))
        );
    }

    #[tokio::test]
    async fn collects_up_to_the_bound() {
        let over = || Err(HttpError::TooLarge(ByteSize::bytes(4)));
        check(frames(&[]), 4, Ok("")).await;
        check(frames(&["abcd"]), 4, Ok("abcd")).await;
        check(frames(&["ab", "", "cd"]), 4, Ok("abcd")).await;
        check(frames(&["abcde"]), 4, over()).await;
        check(frames(&["ab", "cd", "e"]), 4, over()).await;
        check(full("abc"), 4, Ok("abc")).await;
        check(full("abcde"), 4, over()).await;
    }

    #[tokio::test]
    async fn an_endless_body_ends_at_the_bound() {
        let endless = stream::repeat(Bytes::from_static(&[0; 1024]))
            .map(Ok)
            .boxed();
        check(endless, 1 << 20, Err(HttpError::TooLarge(ByteSize::mib(1)))).await;
    }

    #[tokio::test]
    async fn hands_on_what_broke() {
        let broken = HttpError::Timeout {
            host: "h".to_owned(),
        };
        let body = stream::iter([Ok(Bytes::from_static(b"ab")), Err(broken.clone())]).boxed();
        check(body, 4, Err(broken)).await;
    }

    #[tokio::test]
    async fn one_frame_is_not_copied() {
        let frame = Bytes::from(vec![7; 4096]);
        let body = full(frame.clone());
        let collected = collect(body, ByteSize::mib(1)).await.unwrap();
        assert_eq!(collected.as_ptr(), frame.as_ptr());
    }
}
