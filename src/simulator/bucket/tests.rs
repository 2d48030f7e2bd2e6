//! The endpoint under the real SDK over real sockets; what all of these tests share.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::BehaviorVersion;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::operation::upload_part::builders::UploadPartFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::primitives::SdkBody;
use aws_sdk_s3::types::CompletedMultipartUpload;
use aws_sdk_s3::types::CompletedPart;
use aws_smithy_http_client::tls;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::base64;
use aws_smithy_types::retry::RetryConfig;
use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use tokio_rustls::rustls;

use super::Bucket;
use super::Config;
use super::Quirks;
use super::start;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::model::digest::Crc64;
use crate::units::ByteSize;

mod faults;
mod multipart;
mod whole;

const BUCKET: &str = "films";

/// An endpoint with parts as small as tests like them, and a clock that stands still.
async fn small(quirks: Quirks) -> (Bucket, Client) {
    let mut config = Config::new(BUCKET);
    config.quirks = Quirks {
        part_bytes_min: ByteSize::bytes(1_000),
        ..quirks
    };
    config.clock = Clock::new(|| Timestamp::from_unix_seconds(1_774_857_405));
    let bucket = start(config).await.unwrap();
    let client = client(&bucket, None);
    (bucket, client)
}

fn client(bucket: &Bucket, ca_pem: Option<&str>) -> Client {
    client_of(bucket.endpoint(), bucket.secret_key(), ca_pem)
}

fn client_of(endpoint: &str, secret_key: &str, ca_pem: Option<&str>) -> Client {
    let trust = ca_pem
        .into_iter()
        .fold(tls::TrustStore::empty(), |trust, pem| {
            trust.with_pem_certificate(pem)
        });
    let context = tls::TlsContext::builder().with_trust_store(trust).build();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::AwsLc,
        ))
        .tls_context(context.unwrap())
        .pool_idle_timeout(Duration::from_secs(15))
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(
            super::ACCESS_KEY,
            secret_key,
            None,
            None,
            "test",
        ))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}

/// A certificate for 127.0.0.1 and the authority that vouches for it.
fn certificate() -> (Arc<rustls::ServerConfig>, String) {
    let mut authority = rcgen::CertificateParams::default();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, authority_key);

    let key = rcgen::KeyPair::generate().unwrap();
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let server = server.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![server.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        );
    (Arc::new(config.unwrap()), pem)
}

/// A body that passes through: frames of a known total, which nobody can rewind.
struct Passing {
    frames: std::vec::IntoIter<Bytes>,
    left: u64,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.frames.next();
        self.left -= frame.as_ref().map_or(0, |frame| length_of(frame));
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn passing(bytes: &[u8]) -> ByteStream {
    let frames: Vec<_> = bytes.chunks(16 << 10).map(Bytes::copy_from_slice).collect();
    let left = length_of(bytes);
    ByteStream::new(SdkBody::from_body_1_x(Passing {
        frames: frames.into_iter(),
        left,
    }))
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

/// Bytes in which no stretch repeats soon.
fn bytes(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn crc64(bytes: &[u8]) -> String {
    base64::encode(Crc64::of(bytes).to_bytes())
}

/// Status and code of a refusal.
#[track_caller]
fn refusal<T, E>(result: Result<T, SdkError<E, HttpResponse>>) -> (u16, String)
where
    E: ProvideErrorMetadata,
{
    let error = result.err().expect("a refusal");
    let status = error.raw_response().expect("an answer").status().as_u16();
    let code = error.as_service_error().and_then(|error| error.code());
    (status, code.unwrap_or("").to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// An upload under way.
struct Sending<'a> {
    client: &'a Client,
    key: &'a str,
    id: String,
    done: Vec<CompletedPart>,
}

impl<'a> Sending<'a> {
    async fn open(client: &'a Client, key: &'a str) -> Self {
        let created = client.create_multipart_upload().bucket(BUCKET).key(key);
        let id = created.send().await.unwrap().upload_id.unwrap();
        Self::of(client, key, id)
    }

    fn of(client: &'a Client, key: &'a str, id: String) -> Self {
        let done = Vec::new();
        Self {
            client,
            key,
            id,
            done,
        }
    }

    fn part(&self, number: i32, body: ByteStream) -> UploadPartFluentBuilder {
        let part = self.client.upload_part().bucket(BUCKET).key(self.key);
        part.upload_id(&self.id).part_number(number).body(body)
    }

    /// Sends a part as production does.
    async fn send(&mut self, number: i32, bytes: &[u8]) {
        let part = self.part(number, passing(bytes)).customize();
        let answer = part.disable_payload_signing().send().await.unwrap();
        self.list(number, &answer.e_tag.unwrap());
    }

    fn list(&mut self, number: i32, etag: &str) {
        let part = CompletedPart::builder().part_number(number).e_tag(etag);
        self.done.push(part.build());
    }

    fn complete(&self) -> CompleteMultipartUploadFluentBuilder {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(self.done.clone()));
        let complete = self.client.complete_multipart_upload();
        let complete = complete.bucket(BUCKET).key(self.key).upload_id(&self.id);
        complete.multipart_upload(parts.build())
    }
}
