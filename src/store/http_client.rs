//! The transport under every S3 client: rustls on aws-lc, one pool, connections dropped before the stores drop them.

use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::HttpClient;
use aws_smithy_runtime_api::client::http::HttpConnectorSettings;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::base64;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use crate::units::Span;

/// S3 closes idle connections after about 20 s; one that is closed while a request goes out costs an attempt.
const POOL_IDLE: Duration = Duration::from_secs(15);

/// Certificate authorities that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpClientError {
    /// Not PEM, no certificate in it, or one that is none.
    #[error("the extra certificate authorities are no PEM certificates: {0}")]
    Roots(String),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// See [`Store::http_client`](crate::store::Store::http_client).
pub(super) fn build(
    connect_timeout: Span,
    extra_roots_pem: Option<&[u8]>,
) -> Result<SharedHttpClient, HttpClientError> {
    let mut trust = if has_native_roots() {
        tls::TrustStore::default()
    } else {
        tls::TrustStore::empty().with_pem_certificate(compiled_in_roots())
    };
    if let Some(pem) = extra_roots_pem {
        // The transport panics on what it cannot parse.
        check_roots(pem)?;
        trust = trust.with_pem_certificate(pem);
    }
    let context = tls::TlsContext::builder().with_trust_store(trust).build();
    let context = context.map_err(|error| HttpClientError::Tls(error.to_string()))?;
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

/// Whether the machine has certificate authorities of its own, `SSL_CERT_FILE` included: reqwest looks at the same
/// places as the SDK's transport, and is not built where there are none. The transport itself would not say.
fn has_native_roots() -> bool {
    reqwest::Client::builder().build().is_ok()
}

fn compiled_in_roots() -> String {
    let mut pem = String::new();
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        let encoded = base64::encode(root);
        write!(
            pem,
            "-----BEGIN CERTIFICATE-----\n{encoded}\n-----END CERTIFICATE-----\n"
        )
        .expect("writing to a string does not fail");
    }
    pem
}

/// How many certificate authorities `pem` holds.
fn check_roots(pem: &[u8]) -> Result<usize, HttpClientError> {
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(pem) {
        let root = root.map_err(|error| HttpClientError::Roots(error.to_string()))?;
        let added = roots.add(root);
        added.map_err(|error| HttpClientError::Roots(error.to_string()))?;
    }
    if roots.is_empty() {
        Err(HttpClientError::Roots("there is none in it".to_owned()))
    } else {
        Ok(roots.len())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_roots_can_stand_in() {
        let known = webpki_root_certs::TLS_SERVER_ROOT_CERTS.len();
        assert_eq!(check_roots(compiled_in_roots().as_bytes()), Ok(known));
    }

    #[test]
    fn roots_that_are_none_are_refused_instead_of_panicking() {
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        for pem in [&b""[..], b"no PEM", garbage] {
            let built = build(Span::from_secs(1), Some(pem));
            assert!(matches!(built, Err(HttpClientError::Roots(_))), "{pem:?}");
        }
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        assert!(build(Span::from_secs(1), Some(made.cert.pem().as_bytes())).is_ok());
    }
}
