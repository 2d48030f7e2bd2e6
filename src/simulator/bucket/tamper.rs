//! Requests and answers that planted faults change on their way: slowed, with a bit turned, with other words.

use futures::StreamExt as _;
use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;
use http_body::Frame;
use http_body_util::BodyExt;
use http_body_util::BodyStream;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use s3s::Body;
use s3s::HttpResponse;
use s3s::StdError;
use tokio::time::Instant;

use crate::simulator::bucket::body::flip;
use crate::units::ByteSize;
use crate::units::Span;

/// The request with a body that comes no faster than `rate`.
pub(super) fn slowed(request: Request<Incoming>, rate: ByteSize) -> Request<Body> {
    let started = Instant::now();
    request.map(|body| {
        let frames = BodyStream::new(body).scan(0, move |read, frame| {
            let bytes = frame.as_ref().ok().and_then(|frame| frame.data_ref());
            *read += bytes.map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(0));
            let millis = u128::from(*read) * 1000 / u128::from(rate.as_u64().max(1));
            let due = Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
            let due = started.checked_add(due.as_duration());
            async move {
                if let Some(due) = due {
                    tokio::time::sleep_until(due).await;
                }
                Some(frame)
            }
        });
        Body::http_body_unsync(StreamBody::new(frames))
    })
}

/// The request with a bit turned in its body.
pub(super) fn flipped(request: Request<Incoming>) -> Request<Body> {
    request.map(|body| {
        let mut is_done = false;
        let frames = BodyStream::new(body).map(move |frame| {
            frame.map(|frame| match frame.data_ref().and_then(flip) {
                Some(data) if !is_done => {
                    is_done = true;
                    Frame::data(data)
                }
                Some(_) | None => frame,
            })
        });
        Body::http_body_unsync(StreamBody::new(frames))
    })
}

/// The answer with each `from` in its body replaced.
pub(super) async fn edited(
    answer: HttpResponse,
    from: &str,
    to: &str,
) -> Result<HttpResponse, StdError> {
    let (mut head, body) = answer.into_parts();
    let bytes = BodyExt::collect(body).await?.to_bytes();
    let text = String::from_utf8_lossy(&bytes).replace(from, to);
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(HttpResponse::from_parts(head, Body::from(text)))
}

/// An answer with this status and this XML.
pub(super) fn answer(status: u16, text: impl Into<String>) -> Result<HttpResponse, StdError> {
    let mut response = HttpResponse::new(Body::from(text.into()));
    *response.status_mut() = StatusCode::from_u16(status)?;
    let xml = HeaderValue::from_static("application/xml");
    response.headers_mut().insert(header::CONTENT_TYPE, xml);
    Ok(response)
}
