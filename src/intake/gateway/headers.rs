//! Which headers go on and which belong to one connection alone.

use http::HeaderMap;
use http::HeaderName;
use http::header;

/// What this daemon says of itself in an answer; the provider's own of this name would be taken for ours.
pub(super) const ARCHIVING: HeaderName = HeaderName::from_static("reelvault-archiving");

/// Headers that say how one connection is used, and nothing about what is asked.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers of a request that the client sets anew: for another host, a body of its own framing.
const SET_ANEW: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::EXPECT];

/// Digests of a body as it was: with one of these it cannot be changed.
const BODY_DIGESTS: [&str; 5] = [
    "content-digest",
    "content-md5",
    "digest",
    "repr-digest",
    "signature",
];

/// The headers of a request that go on to the provider.
pub(super) fn of_request(headers: &HeaderMap) -> HeaderMap {
    let mut kept = end_to_end(headers);
    for name in SET_ANEW {
        kept.remove(name);
    }
    kept
}

/// The headers of an answer that go on to the caller.
pub(super) fn of_answer(headers: &HeaderMap) -> HeaderMap {
    let mut kept = end_to_end(headers);
    kept.remove(ARCHIVING);
    kept
}

/// Takes out what would be false of an answer with another body.
pub(super) fn forget_body(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::ETAG);
    headers.remove(header::LAST_MODIFIED);
    for name in BODY_DIGESTS {
        headers.remove(name);
    }
}

/// Whether the body of a request may be changed on its way: JSON in the open, and no digest over it.
pub(super) fn may_change_body(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| kind.as_bytes().to_ascii_lowercase());
    // Where nothing is said the first byte decides.
    let is_json = kind.is_none_or(|kind| kind.windows(4).any(|word| word == b"json"));
    is_json
        && is_in_the_open(headers)
        && !BODY_DIGESTS.iter().any(|name| headers.contains_key(*name))
}

/// Whether a body is what its bytes say.
pub(super) fn is_in_the_open(headers: &HeaderMap) -> bool {
    let encoding = headers.get(header::CONTENT_ENCODING);
    encoding.is_none_or(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// Whether a request asks for another protocol. HTTP/2 in the open is offered by clients that do without.
pub(super) fn wants_another_protocol(headers: &HeaderMap) -> bool {
    let asked = headers.get_all(header::UPGRADE).iter();
    let mut protocols = asked.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    protocols.any(|protocol| !protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    let is_kept = |name: &HeaderName| !HOP_BY_HOP.contains(&name.as_str()) && !named.contains(name);
    let kept = headers.iter().filter(|(name, _)| is_kept(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let sent = headers(&[
            ("host", "gateway"),
            ("authorization", "Bearer k"),
            ("connection", "keep-alive, X-Hop"),
            ("connection", "close"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "secret"),
            ("content-length", "3"),
            ("expect", "100-continue"),
            ("accept", "a"),
            ("accept", "b"),
            ("idempotency-key", "i"),
        ]);
        let kept = of_request(&sent);
        let expected = headers(&[
            ("authorization", "Bearer k"),
            ("accept", "a"),
            ("accept", "b"),
            ("idempotency-key", "i"),
        ]);
        assert_eq!(kept, expected);
        let answered = headers(&[
            ("content-length", "3"),
            ("etag", "x"),
            ("location", "/l"),
            ("set-cookie", "a"),
            ("set-cookie", "b"),
            ("upgrade", "h2"),
            ("reelvault-archiving", "forged"),
        ]);
        let mut kept = of_answer(&answered);
        assert_eq!(
            kept,
            headers(&[
                ("content-length", "3"),
                ("etag", "x"),
                ("location", "/l"),
                ("set-cookie", "a"),
                ("set-cookie", "b")
            ])
        );
        forget_body(&mut kept);
        assert_eq!(
            kept,
            headers(&[("location", "/l"), ("set-cookie", "a"), ("set-cookie", "b")])
        );
    }

    #[test]
    fn only_json_in_the_open_may_change() {
        let check = |lines: &[(&'static str, &'static str)], may| {
            assert_eq!(may_change_body(&headers(lines)), may, "{lines:?}");
        };
        check(&[], true);
        check(&[("content-type", "application/JSON; charset=utf-8")], true);
        check(&[("content-type", "application/vnd.api+json")], true);
        check(
            &[("content-type", "multipart/form-data; boundary=x")],
            false,
        );
        check(
            &[
                ("content-type", "application/json"),
                ("content-encoding", "gzip"),
            ],
            false,
        );
        check(&[("content-encoding", "Identity")], true);
        check(&[("content-digest", "sha-256=:x:")], false);
    }

    #[test]
    fn other_protocols_are_told() {
        assert!(wants_another_protocol(&headers(&[(
            "upgrade",
            "websocket"
        )])));
        assert!(wants_another_protocol(&headers(&[(
            "upgrade",
            "h2c, websocket"
        )])));
        assert!(!wants_another_protocol(&headers(&[("upgrade", "h2c")])));
        assert!(!wants_another_protocol(&headers(&[])));
    }
}
