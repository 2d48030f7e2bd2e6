//! One POST to an endpoint, bounded in time and bytes, and what its answer means.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::header;
use url::Url;

use crate::clock::Timestamp;
use crate::http::Http;
use crate::http::body::collect;
use crate::http::pace::retry_after;
use crate::units::ByteSize;
use crate::units::Span;

/// How long an endpoint may take to answer: who has more to do answers first and works then.
pub(super) const ANSWER_WITHIN: Span = Span::from_secs(15);

/// How long the body of an answer may take after its head.
const REST_WITHIN: Span = Span::from_secs(2);

/// What is read of an answer's body, so that its connection can be used again. It is not looked at.
const ANSWER_BYTES_MAX: ByteSize = ByteSize::bytes(64 << 10);

/// The longest pause that an endpoint is granted.
const PAUSE_MAX: Span = Span::from_secs(24 * 3600);

/// The shortest, so that a `Retry-After: 0` cannot make us spin.
const PAUSE_MIN: Span = Span::from_secs(1);

/// What came of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A 2xx.
    Taken,
    /// 410: the receiver is gone for good.
    Gone,
    /// The receiver said when to come back.
    Busy { until: Timestamp, what: String },
    /// Anything else: whether the message arrived is not known.
    Failed(String),
}

/// Sends `body` once.
pub(super) async fn post(
    http: &Http,
    url: &Url,
    mut headers: HeaderMap,
    body: Bytes,
    now: Timestamp,
) -> Answer {
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let request = http::Request::post(url.as_str()).body(body);
    let mut request = match request {
        Ok(request) => request,
        Err(error) => return Answer::Failed(format!("no request can be made: {error}")),
    };
    *request.headers_mut() = headers;
    let answer = tokio::time::timeout(ANSWER_WITHIN.as_duration(), http.send(request)).await;
    let (parts, body) = match answer {
        Err(_) => return Answer::Failed(format!("no answer within {ANSWER_WITHIN}")),
        Ok(Err(error)) => return Answer::Failed(error.to_string()),
        Ok(Ok(answer)) => answer.into_parts(),
    };
    // The status has said it all; a body that is too long, breaks off or stalls costs only the connection.
    let rest = collect(body, ANSWER_BYTES_MAX);
    drop(tokio::time::timeout(REST_WITHIN.as_duration(), rest).await);
    judge(parts.status, &parts.headers, now)
}

fn judge(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Answer {
    if status.is_success() {
        return Answer::Taken;
    }
    if status == StatusCode::GONE {
        return Answer::Gone;
    }
    let what = format!("answered {}", status.as_u16());
    if status.is_redirection() {
        return Answer::Failed(format!("{what}: redirects are not followed"));
    }
    let asked = headers.get(header::RETRY_AFTER);
    let asked = asked.and_then(|value| retry_after(value.to_str().ok()?, now));
    match asked {
        Some(pause) => {
            let pause = pause.clamp(PAUSE_MIN, PAUSE_MAX);
            let what = format!("{what}: it wants to be left alone for {pause}");
            let until = now.plus(pause);
            Answer::Busy { until, what }
        }
        None => Answer::Failed(what),
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use futures::stream;

    use crate::http::Exchange;
    use crate::http::Transport;

    use super::*;

    #[test]
    fn each_answer() {
        let now = Timestamp::from_unix_seconds(1_774_857_405);
        let check = |status: u16, after: Option<&str>, expected: Answer| {
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert(header::RETRY_AFTER, after.parse().unwrap());
            }
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(judge(status, &headers, now), expected, "{status} {after:?}");
        };
        let busy = |status: u16, seconds, said: &str| Answer::Busy {
            until: now.plus(Span::from_secs(seconds)),
            what: format!("answered {status}: it wants to be left alone for {said}"),
        };
        let failed = |what: &str| Answer::Failed(what.to_owned());
        for status in [200, 202, 204] {
            check(status, None, Answer::Taken);
        }
        check(410, Some("5"), Answer::Gone);
        check(429, Some("90"), busy(429, 90, "1 min 30 s"));
        check(503, Some("0"), busy(503, 1, "1 s"));
        check(503, Some("99999999999999999999"), busy(503, 86_400, "1 d"));
        check(503, Some("soon"), failed("answered 503"));
        check(404, None, failed("answered 404"));
        check(
            307,
            Some("5"),
            failed("answered 307: redirects are not followed"),
        );
    }

    /// Answers with this status, and a body that never ends.
    struct Stalls(u16);

    impl Transport for Stalls {
        fn send(&self, _: http::Request<Bytes>) -> Exchange {
            let answer = http::Response::builder().status(self.0);
            Box::pin(async move { Ok(answer.body(stream::pending().boxed()).unwrap()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_changes_no_answer() {
        let url = "https://app.example.com/hook".parse().unwrap();
        let answer = async |status| {
            let (http, now) = (Http::new(Stalls(status)), Timestamp::EPOCH);
            post(&http, &url, HeaderMap::new(), Bytes::new(), now).await
        };
        assert_eq!(answer(200).await, Answer::Taken);
        assert_eq!(answer(410).await, Answer::Gone);
    }
}
