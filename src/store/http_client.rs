//! The transport under every S3 client: whoever waits for an answer drives its connection, its body with it.

use std::fmt;

use aws_smithy_runtime_api::client::http::HttpClient;
use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::http::HttpConnectorFuture;
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use futures::TryStreamExt as _;
use http::HeaderValue;
use http::Uri;
use http::header;
use http_body::Frame;
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use http_body_util::StreamBody;
use url::Url;

use crate::http::bulk::Cause;
use crate::http::bulk::LineError;
use crate::http::bulk::Lines;
use crate::http::bulk::Payload;
use crate::http::client::ClientError;
use crate::http::guard::Guard;
use crate::http::roots::Roots;
use crate::units::Span;

/// No answer but an object is longer: a list of a thousand uploads with the longest keys has about 2 MiB.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// See [`Store::http_client`](crate::store::Store::http_client).
pub(super) fn build(connect_timeout: Span, roots: &Roots) -> Result<SharedHttpClient, ClientError> {
    // The operator names destinations, and they may well be inside.
    let lines = Lines::new(Guard::private(), roots, connect_timeout)?;
    Ok(SharedHttpClient::new(Client(lines)))
}

/// Connections for whoever has requests: the S3 clients, and the providers of credentials.
struct Client(Lines);

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Connector {
            lines: self.0.clone(),
            // The time to connect is ours, whoever asks.
            read_timeout: settings.read_timeout().map(Span::from),
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[derive(Clone)]
struct Connector {
    lines: Lines,
    read_timeout: Option<Span>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let connector = self.clone();
        HttpConnectorFuture::new(async move { connector.send(request).await })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = request.try_into_http1x().map_err(user)?;
        let asks_for_object = asks_for_object(&request);
        let (url, request) = in_origin_form(request)?;
        let answer = self
            .lines
            .send(&url, Box::new(request), self.read_timeout)
            .await;
        let answer = answer.map_err(|error| match error {
            LineError::Timeout | LineError::DialedTooLong => ConnectorError::timeout(error.into()),
            LineError::Dial(_) | LineError::Broken(_) => ConnectorError::io(error.into()),
        })?;
        let is_object = asks_for_object && answer.status().is_success();
        let answer = answer.map(|flow| {
            let frames = StreamBody::new(flow.map_ok(Frame::data));
            if is_object {
                SdkBody::from_body_1_x(frames)
            } else {
                SdkBody::from_body_1_x(Limited::new(frames, ANSWER_BYTES_MAX))
            }
        });
        HttpResponse::try_from(answer).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

/// Whether the answer to a request may be an object, of which only whoever reads it knows how long it is.
fn asks_for_object(request: &http::Request<SdkBody>) -> bool {
    let mut pairs = request.uri().query().unwrap_or_default().split('&');
    request.method() == http::Method::GET && pairs.any(|pair| pair == "x-id=GetObject")
}

/// The request as it goes over the wire, and where to: its target to the letter, since that is what was signed.
fn in_origin_form(
    request: http::Request<SdkBody>,
) -> Result<(Url, http::Request<Payload>), ConnectorError> {
    let (mut parts, body) = request.into_parts();
    let scheme = parts.uri.scheme_str().unwrap_or_default();
    let authority = parts.uri.authority();
    let authority = authority.ok_or_else(|| user("a request without a host"))?;
    let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(user)?;
    if !parts.headers.contains_key(header::HOST) {
        // As the signature has it: a port that goes without saying is not said.
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let host = HeaderValue::from_str(&host).map_err(user)?;
        parts.headers.insert(header::HOST, host);
    }
    let target = parts.uri.path_and_query().cloned();
    parts.uri = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    parts.version = http::Version::HTTP_11;
    let body: Payload = body.boxed();
    Ok((url, http::Request::from_parts(parts, body)))
}

/// A request that cannot be sent.
fn user(error: impl Into<Cause>) -> ConnectorError {
    ConnectorError::user(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_may_be_of_any_length() {
        let check = |method: http::Method, uri: &str| {
            let request = http::Request::builder().method(method).uri(uri);
            asks_for_object(&request.body(SdkBody::empty()).unwrap())
        };
        assert!(check(http::Method::GET, "https://s/b/k?x-id=GetObject"));
        assert!(!check(
            http::Method::GET,
            "https://s/b/k?uploadId=1&x-id=ListParts"
        ));
        assert!(!check(http::Method::GET, "https://s/b?uploads"));
        assert!(!check(http::Method::PUT, "https://s/b/k?x-id=PutObject"));
    }

    #[test]
    fn what_was_signed_is_what_is_sent() {
        let check = |uri: &str, origin: &str, host: &str, target: &str| {
            let request = http::Request::get(uri).body(SdkBody::empty()).unwrap();
            let (url, sent) = in_origin_form(request).unwrap();
            assert_eq!(url.as_str(), origin);
            assert_eq!(sent.headers()[header::HOST], host);
            assert_eq!(sent.uri(), target);
        };
        let dots = "/b/../a//%2e%2e/k%20y?x-id=PutObject&q=%2F";
        check(
            &format!("https://s3.example.com{dots}"),
            "https://s3.example.com/",
            "s3.example.com",
            dots,
        );
        check(
            "https://s3.example.com:443/b",
            "https://s3.example.com/",
            "s3.example.com",
            "/b",
        );
        check(
            "http://127.0.0.1:9000?list-type=2",
            "http://127.0.0.1:9000/",
            "127.0.0.1:9000",
            "/?list-type=2",
        );
        check(
            "http://[::1]:9000/b",
            "http://[::1]:9000/",
            "[::1]:9000",
            "/b",
        );
        let relative = http::Request::get("/b").body(SdkBody::empty()).unwrap();
        assert!(in_origin_form(relative).is_err());
    }
}
