//! The transport under every S3 client: rustls on aws-lc, one pool, connections dropped before the stores drop them.

use std::fmt;
use std::time::Duration;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpClient;
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use crate::http::roots::Roots;
use crate::units::Span;

/// S3 closes idle connections after about 20 s; one that is closed while a request goes out costs an attempt.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// TLS that cannot be set up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct HttpClientError(String);

/// See [`Store::http_client`](crate::store::Store::http_client).
pub(super) fn build(
    connect_timeout: Span,
    roots: &Roots,
) -> Result<SharedHttpClient, HttpClientError> {
    let trust = tls::TrustStore::empty().with_pem_certificate(roots.pem());
    let context = tls::TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| HttpClientError(error.to_string()))?;
    let pool = Builder::new()
        .tls_provider(tls::Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context)
        .pool_idle_timeout(POOL_IDLE)
        .build_https();
    Ok(SharedHttpClient::new(Patient {
        pool,
        connect_timeout: connect_timeout.as_duration(),
    }))
}

/// A transport with a time-out to connect of its own, whoever uses it: the S3 clients, and the providers of
/// credentials, which each come with another one.
struct Patient {
    pool: SharedHttpClient,
    connect_timeout: Duration,
}

impl HttpClient for Patient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let mut own = HttpConnectorSettings::builder().connect_timeout(self.connect_timeout);
        own.set_read_timeout(settings.read_timeout());
        self.pool.http_connector(&own.build(), components)
    }
}

impl fmt::Debug for Patient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Patient")
    }
}
