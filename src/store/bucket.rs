//! A bucket behind the S3 protocol: the client as it has to be configured, and the bounds of every request.

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::BehaviorVersion;
use aws_sdk_s3::config::Region;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::config::ResponseChecksumValidation;
use aws_sdk_s3::config::SharedCredentialsProvider;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::types::StorageClass;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use tokio::time::Instant;

use crate::model::object::DestinationName;
use crate::store::Encryption;
use crate::store::StoreError;
use crate::store::UploadId;
use crate::store::body::Awaits;
use crate::store::body::Clock;
use crate::store::failure::Call;
use crate::store::failure::Verb;
use crate::store::quirks::Quirks;
use crate::units::Span;

/// Time for a request that moves no video. A store that needs longer is as good as down.
pub(super) const SMALL_VERB_TIMEOUT: Span = Span::from_secs(30);

/// Time for a completion, which makes one object of thousands of parts before it answers: minutes, by S3's documents.
pub(super) const FINISH_TIMEOUT: Span = Span::from_secs(300);

/// How long either side of a body may do nothing. Stores give up a request that brings nothing after 20 to 30 s, with
/// an error that names neither cause nor side; a part that is ended before that is begun again at once.
const BODY_STALL: Duration = Duration::from_secs(18);

/// The least rate, in bytes a second, at which a store has to take a body while there is something to take. Slower, and
/// a part holds its memory and its place for hours.
const BODY_RATE_MIN: u64 = 64 << 10;

/// Time for the answer once all bytes are handed over, besides what the sockets still hold.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// That time is doubled where it ran out, up to this many times: a store that is slow, and not dead, gets its answer out.
const ANSWER_DOUBLINGS_MAX: u32 = 3;

/// What sockets hold at most of bytes that were handed over and are not through yet.
const SOCKET_BYTES: u64 = 4 << 20;

/// How often a request's progress is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) client: Client,
    pub(super) quirks: Quirks,
    pub(super) extras: WriteExtras,
    destination: DestinationName,
    name: String,
    /// How often the time for an answer ran out, since one came in half of it.
    overdue: AtomicU32,
    /// The CRC32s of parts, in base64, of uploads that are open.
    pub(super) crc32s: Mutex<HashMap<UploadId, HashMap<i32, String>>>,
}

/// What a bucket is made of.
pub(super) struct BucketParts {
    pub(super) destination: DestinationName,
    pub(super) bucket: String,
    pub(super) endpoint: Option<String>,
    pub(super) region: Region,
    pub(super) path_style: bool,
    pub(super) credentials: SharedCredentialsProvider,
    pub(super) extras: WriteExtras,
    pub(super) quirks: Quirks,
    pub(super) http: SharedHttpClient,
}

/// What every new object is written with.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteExtras {
    pub(super) storage_class: Option<StorageClass>,
    pub(super) encryption: Option<Encryption>,
    /// In the form of a query.
    pub(super) tags: Option<String>,
}

impl Bucket {
    pub(super) fn new(parts: BucketParts) -> Self {
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(parts.http)
            .region(parts.region)
            .credentials_provider(parts.credentials)
            .force_path_style(parts.path_style)
            // Retries are decided above, where the deadline is known; the SDK's own would share one budget.
            .retry_config(RetryConfig::disabled())
            // Each request is bounded in `ask`; the transport knows its time-out to connect.
            .timeout_config(TimeoutConfig::disabled())
            // Ends uploads that live but are slow, also when the origin pauses.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            // Otherwise streams go out in `aws-chunked` framing, which several stores refuse or store as data.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
        if let Some(endpoint) = parts.endpoint {
            config = config.endpoint_url(endpoint);
        }
        Self {
            client: Client::from_conf(config.build()),
            quirks: parts.quirks,
            extras: parts.extras,
            destination: parts.destination,
            name: parts.bucket,
            overdue: AtomicU32::new(0),
            crc32s: Mutex::default(),
        }
    }

    /// The bucket's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn call(&self, verb: Verb) -> Call<'_> {
        Call {
            destination: &self.destination,
            place: &self.name,
            verb,
        }
    }

    /// Sends one request within the time that its verb has.
    pub(super) async fn ask<Output, E>(
        &self,
        verb: Verb,
        request: impl Future<Output = Result<Output, SdkError<E>>>,
    ) -> Result<Output, StoreError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let allowed = if verb == Verb::Finish {
            FINISH_TIMEOUT
        } else {
            SMALL_VERB_TIMEOUT
        };
        self.within(verb, allowed, request).await
    }

    /// Sends one request with a body of `length` bytes, as long as `clock` shows that both sides go on. Says how long the answer took
    /// after the last byte.
    pub(super) async fn send<Output, E>(
        &self,
        verb: Verb,
        length: u64,
        clock: Clock,
        request: impl Future<Output = Result<Output, SdkError<E>>>,
    ) -> Result<(Output, Duration), StoreError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        tokio::pin!(request);
        let begun = Instant::now();
        loop {
            // A request that is polled by reference loses nothing.
            let answer = tokio::time::timeout(LOOK_EVERY, &mut request).await;
            let (awaits, waited) = clock.read();
            match answer {
                Ok(Ok(output)) => {
                    if waited < ANSWER_TIMEOUT / 2 {
                        self.overdue.store(0, Ordering::Relaxed);
                    }
                    return Ok((output, waited));
                }
                Ok(Err(error)) => return Err(self.call(verb).failed(&error)),
                Err(_) => {}
            }
            let call = self.call(verb);
            match awaits {
                Awaits::Store if waited >= BODY_STALL => {
                    return Err(call.stalled(BODY_STALL.into()));
                }
                Awaits::Body if waited >= BODY_STALL => {
                    return Err(call.starved(BODY_STALL.into()));
                }
                Awaits::Store | Awaits::Body if clock.on_store() >= body_timeout(length) => {
                    return Err(call.timed_out(clock.on_store().into()));
                }
                Awaits::Answer => {
                    let took = begun.elapsed().saturating_sub(waited);
                    let overdue = self.overdue.load(Ordering::Relaxed);
                    if waited >= answer_timeout(length, took, overdue) {
                        self.overdue.fetch_add(1, Ordering::Relaxed);
                        return Err(call.timed_out(waited.into()));
                    }
                }
                Awaits::Store | Awaits::Body => {}
            }
        }
    }

    /// Sends one request within `allowed`.
    pub(super) async fn within<Output, E>(
        &self,
        verb: Verb,
        allowed: Span,
        request: impl Future<Output = Result<Output, SdkError<E>>>,
    ) -> Result<Output, StoreError>
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match tokio::time::timeout(allowed.as_duration(), request).await {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(error)) => Err(self.call(verb).failed(&error)),
            Err(_) => Err(self.call(verb).timed_out(allowed)),
        }
    }
}

/// How long a store may take over a body of `length` bytes, the time in which it waited for the body left out.
fn body_timeout(length: u64) -> Duration {
    let moving = Duration::from_secs(length / BODY_RATE_MIN);
    SMALL_VERB_TIMEOUT.as_duration() + moving
}

/// How long an answer may take after a body of `length` bytes that was handed over in `took`, where it was `overdue` so
/// often: the slower it went, the longer the sockets have to get rid of what they hold.
fn answer_timeout(length: u64, took: Duration, overdue: u32) -> Duration {
    let held = u32::try_from(length.min(SOCKET_BYTES) >> 10).unwrap_or(u32::MAX);
    let sent = u32::try_from(length >> 10).unwrap_or(u32::MAX);
    ANSWER_TIMEOUT * (1 << overdue.min(ANSWER_DOUBLINGS_MAX)) + took * held / sent.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_bodies_that_go_slowly_may_take_longer() {
        let check = |mib: u64, took: u64, seconds: u64| {
            let took = Duration::from_secs(took);
            let allowed = |overdue| answer_timeout(mib << 20, took, overdue).as_secs();
            assert_eq!(allowed(0), ANSWER_TIMEOUT.as_secs() + seconds);
            assert_eq!(allowed(1), 2 * ANSWER_TIMEOUT.as_secs() + seconds);
            assert_eq!(allowed(99), allowed(ANSWER_DOUBLINGS_MAX));
        };
        check(0, 0, 0);
        check(1, 0, 0);
        check(16, 0, 0);
        check(16, 160, 40);
        check(2, 30, 30);
    }
}
