//! The SDK's path with nothing around it: reqwest's response is the body of one `PutObject`.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use anyhow::Result;
use anyhow::ensure;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::BehaviorVersion;
use aws_sdk_s3::config::Credentials;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_http_client::tls;
use aws_smithy_types::retry::RetryConfig;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use http_body::Frame;
use http_body::SizeHint;

use crate::content::Film;
use crate::relay::Work;

pub(crate) fn run(work: &Work) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(moved(work))
}

async fn moved(work: &Work) -> Result<()> {
    let scheme = if work.authority.is_some() {
        "https"
    } else {
        "http"
    };
    let http = reqwest::Client::builder().no_proxy().http1_only().build()?;
    let store = store(&format!("{scheme}://{}", work.sink));
    let origin = format!("{scheme}://{}", work.origin);
    let films = futures::stream::iter(work.films()).map(Ok);
    films
        .try_for_each_concurrent(work.concurrent, |film| {
            film_moved(&http, &store, &origin, film)
        })
        .await
}

async fn film_moved(
    http: &reqwest::Client,
    store: &Client,
    origin: &str,
    film: Film,
) -> Result<()> {
    let path = film.path();
    let response = http.get(format!("{origin}{path}")).send().await?;
    ensure!(response.content_length() == Some(film.bytes), "read {path}");
    let body = Passing {
        body: reqwest::Body::from(response),
        left: film.bytes,
    };
    let put = store
        .put_object()
        .bucket("bench")
        .key(path.trim_start_matches('/'));
    let put = put.body(ByteStream::new(SdkBody::from_body_1_x(body)));
    put.customize().disable_payload_signing().send().await?;
    Ok(())
}

/// A response on its way to become a request.
struct Passing {
    body: reqwest::Body,
    left: u64,
}

impl http_body::Body for Passing {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let read = frame.data_ref().map_or(0, Bytes::len);
            self.left = self
                .left
                .saturating_sub(u64::try_from(read).unwrap_or(u64::MAX));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn store(endpoint: &str) -> Client {
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(
            tls::rustls_provider::CryptoMode::AwsLc,
        ))
        .build_https();
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http)
        .endpoint_url(endpoint)
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("bench", "bench", None, None, "bench"))
        .force_path_style(true)
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .build();
    Client::from_conf(config)
}
