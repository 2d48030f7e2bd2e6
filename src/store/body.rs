//! Bodies of parts: the origin's frames as they come, or frames that are all there; neither is ever copied.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use aws_runtime::auth::PayloadSigningOverride;
use aws_sdk_s3::config::ConfigBag;
use aws_sdk_s3::config::Intercept;
use aws_sdk_s3::config::RuntimeComponents;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint;
use aws_smithy_types::base64;
use bytes::Bytes;
use crc_fast::CrcAlgorithm;
use futures::StreamExt as _;
use futures::stream;
use futures::stream::BoxStream;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Instant;

use crate::model::digest::Crc64;
use crate::model::digest::Sha256Digester;
use crate::store::Proof;

/// The bytes of a part, or of an object that is written in one request.
pub enum PartBody {
    /// Frames passed through as they come. Cannot be sent a second time.
    Stream {
        /// Exactly how many bytes come.
        length: u64,
        /// The frames.
        frames: BoxStream<'static, Result<Bytes, BrokenSource>>,
    },
    /// Frames that are all there.
    Filled {
        /// The frames.
        frames: Vec<Bytes>,
        /// The checksum over all of them.
        crc64nvme: Crc64,
    },
}

impl PartBody {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        match self {
            PartBody::Stream { length, .. } => *length,
            PartBody::Filled { frames, .. } => length_of(frames),
        }
    }

    /// The frames one by one, checked to be as many bytes as was said.
    pub(super) fn into_frames(self) -> BoxStream<'static, Result<Bytes, BrokenSource>> {
        match self {
            PartBody::Stream { length, frames } => {
                let exact = Exact::new(length, frames, Clock::new());
                http_body_util::BodyDataStream::new(exact).boxed()
            }
            PartBody::Filled { frames, .. } => stream::iter(frames.into_iter().map(Ok)).boxed(),
        }
    }
}

impl fmt::Debug for PartBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            PartBody::Stream { .. } => "Stream",
            PartBody::Filled { .. } => "Filled",
        };
        write!(f, "PartBody::{kind}({} bytes)", self.length())
    }
}

/// The body that was to be sent broke, by no fault of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the origin's body broke: {what}")]
pub struct BrokenSource {
    /// What broke.
    pub what: String,
}

impl BrokenSource {
    /// Says what broke.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// A body as a request takes it.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) body: SdkBody,
    /// How far the request is with it.
    pub(super) clock: Clock,
    /// What stands in the signature: its SHA-256, or that there is none.
    pub(super) signing: Signing,
    /// In base64, where the store is to check it.
    pub(super) crc64nvme: Option<String>,
    /// In base64, where the store is to check it.
    pub(super) crc32: Option<String>,
}

impl Payload {
    /// What `proof` makes of `body`. Something over all bytes can only be sent of a body that is all there.
    pub(super) fn new(body: PartBody, proof: Proof) -> Self {
        let length = body.length();
        let clock = Clock::new();
        let bare = |body| Self {
            body,
            clock: clock.clone(),
            signing: Signing(PayloadSigningOverride::UnsignedPayload),
            crc64nvme: None,
            crc32: None,
        };
        match (body, proof) {
            (PartBody::Stream { frames, .. }, _) => bare(passed_through(length, frames, &clock)),
            (PartBody::Filled { frames, crc64nvme }, Proof::Crc64nvme) => Self {
                crc64nvme: Some(in_base64(crc64nvme)),
                ..bare(filled(frames, &clock))
            },
            (PartBody::Filled { frames, .. }, Proof::Crc32) => Self {
                crc32: Some(crc32_of(&frames)),
                ..bare(filled(frames, &clock))
            },
            (PartBody::Filled { frames, .. }, Proof::SignedPayload) => Self {
                signing: Signing(PayloadSigningOverride::Precomputed(sha256_of(&frames))),
                ..bare(filled(frames, &clock))
            },
            (PartBody::Filled { frames, .. }, Proof::ByStore | Proof::Length) => {
                bare(filled(frames, &clock))
            }
        }
    }
}

/// A checksum as S3 writes it.
pub(super) fn in_base64(crc64nvme: Crc64) -> String {
    base64::encode(crc64nvme.to_bytes())
}

/// A checksum as S3 writes it.
pub(super) fn from_base64(text: &str) -> Option<Crc64> {
    let bytes = base64::decode(text).ok()?;
    let bytes: [u8; 8] = bytes.try_into().ok()?;
    Some(Crc64(u64::from_be_bytes(bytes)))
}

fn crc32_of(frames: &[Bytes]) -> String {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
    for frame in frames {
        digest.update(frame);
    }
    let value = u32::try_from(digest.finalize()).expect("a CRC32 has 32 bits");
    base64::encode(value.to_be_bytes())
}

fn sha256_of(frames: &[Bytes]) -> String {
    let mut digest = Sha256Digester::new();
    for frame in frames {
        digest.update(frame);
    }
    digest.value().to_string()
}

/// Says what stands in a request's signature. Left alone, the SDK hashes only bodies that are one buffer.
#[derive(Clone, Debug)]
pub(super) struct Signing(PayloadSigningOverride);

#[dyn_dispatch_hint]
impl Intercept for Signing {
    fn name(&self) -> &'static str {
        "Signing"
    }

    fn modify_before_signing(
        &self,
        _: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().store_put(self.0.clone());
        Ok(())
    }
}

/// How far a request is with its body: who is waited for, and since when.
///
/// A store that stops reading is noticed by nothing else: the socket stays open, and so does the request.
#[derive(Clone, Debug)]
pub(super) struct Clock(Arc<Mutex<Ticking>>);

#[derive(Clone, Copy, Debug)]
struct Ticking {
    awaits: Awaits,
    since: Instant,
    /// What the store took of the time before.
    on_store: Duration,
}

/// Who has to act next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The store: it has not asked for the next bytes.
    Store,
    /// Whoever gives the body.
    Body,
    /// The store's answer: all bytes are on their way.
    Answer,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Ticking {
            awaits: Awaits::Store,
            since: Instant::now(),
            on_store: Duration::ZERO,
        })))
    }

    /// Who is waited for, and for how long.
    pub(super) fn read(&self) -> (Awaits, Duration) {
        let Ticking { awaits, since, .. } = *self.ticking();
        (awaits, since.elapsed())
    }

    /// How long the store was waited for in all.
    pub(super) fn on_store(&self) -> Duration {
        let Ticking {
            awaits,
            since,
            on_store,
        } = *self.ticking();
        match awaits {
            Awaits::Store | Awaits::Answer => on_store + since.elapsed(),
            Awaits::Body => on_store,
        }
    }

    /// Takes note of who is waited for from now on. Waiting for the same side goes on.
    fn set(&self, awaits: Awaits) {
        let on_store = self.on_store();
        let mut ticking = self.ticking();
        if ticking.awaits != awaits || awaits == Awaits::Store {
            *ticking = Ticking {
                awaits,
                since: Instant::now(),
                on_store,
            };
        }
    }

    /// Takes note of bytes that were given out, of which `left` are still to come.
    pub(super) fn gave(&self, left: u64) {
        self.set(if left == 0 {
            Awaits::Answer
        } else {
            Awaits::Store
        });
    }

    fn ticking(&self) -> std::sync::MutexGuard<'_, Ticking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body of frames that come from elsewhere.
fn passed_through(
    length: u64,
    frames: BoxStream<'static, Result<Bytes, BrokenSource>>,
    clock: &Clock,
) -> SdkBody {
    SdkBody::from_body_1_x(Exact::new(length, frames, clock.clone()))
}

/// A body of frames that are all there.
fn filled(frames: Vec<Bytes>, clock: &Clock) -> SdkBody {
    let (length, clock) = (length_of(&frames), clock.clone());
    let frames = Arc::new(frames);
    SdkBody::retryable(move || {
        SdkBody::from_body_1_x(Frames::new(Arc::clone(&frames), length, clock.clone()))
    })
}

/// The bytes of all frames together.
pub(super) fn length_of(frames: &[Bytes]) -> u64 {
    let lengths = frames.iter().map(frame_length);
    lengths.fold(0, u64::saturating_add)
}

fn frame_length(frame: &Bytes) -> u64 {
    u64::try_from(frame.len()).unwrap_or(u64::MAX)
}

/// A stream that ends in an error unless it gives exactly the bytes that were announced: a `Content-Length` that is
/// not kept would leave the store waiting for the rest.
struct Exact {
    /// Never contended: the SDK wants bodies that threads could share.
    frames: Mutex<BoxStream<'static, Result<Bytes, BrokenSource>>>,
    left: u64,
    clock: Clock,
}

impl Exact {
    fn new(
        length: u64,
        frames: BoxStream<'static, Result<Bytes, BrokenSource>>,
        clock: Clock,
    ) -> Self {
        Self {
            frames: Mutex::new(frames),
            left: length,
            clock,
        }
    }
}

impl Body for Exact {
    type Data = Bytes;
    type Error = BrokenSource;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenSource>>> {
        let this = self.get_mut();
        let frames = this
            .frames
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let left = this.left;
        let polled = frames.as_mut().poll_next(context);
        if polled.is_pending() && left > 0 {
            this.clock.set(Awaits::Body);
        }
        Poll::Ready(match ready!(polled) {
            None if left == 0 => None,
            None => Some(Err(BrokenSource::new(format!("{left} bytes are missing")))),
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(frame)) => match left.checked_sub(frame_length(&frame)) {
                Some(left) => {
                    this.left = left;
                    this.clock.gave(left);
                    Some(Ok(Frame::data(frame)))
                }
                None => Some(Err(BrokenSource::new(
                    "more bytes came than were announced",
                ))),
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A walk over shared frames.
struct Frames {
    shared: Arc<Vec<Bytes>>,
    next: usize,
    left: u64,
    clock: Clock,
}

impl Frames {
    fn new(shared: Arc<Vec<Bytes>>, length: u64, clock: Clock) -> Self {
        Self {
            shared,
            next: 0,
            left: length,
            clock,
        }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = BrokenSource;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenSource>>> {
        let this = self.get_mut();
        let frame = this.shared.get(this.next).cloned();
        Poll::Ready(frame.map(|frame| {
            this.next += 1;
            this.left = this.left.saturating_sub(frame_length(&frame));
            this.clock.gave(this.left);
            Ok(Frame::data(frame))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt as _;

    use super::*;

    fn stream_of(length: u64, frames: Vec<Result<Bytes, BrokenSource>>) -> PartBody {
        PartBody::Stream {
            length,
            frames: stream::iter(frames).boxed(),
        }
    }

    async fn read(body: PartBody) -> Result<Vec<Bytes>, BrokenSource> {
        body.into_frames().try_collect().await
    }

    #[tokio::test]
    async fn frames_arrive_uncopied() {
        let frame = Bytes::from(vec![7; 100]);
        let body = stream_of(100, vec![Ok(frame.clone())]);
        assert_eq!(read(body).await.unwrap()[0].as_ptr(), frame.as_ptr());

        let body = PartBody::Filled {
            frames: vec![frame.clone()],
            crc64nvme: Crc64::of(&frame),
        };
        assert_eq!(body.length(), 100);
        let shared = Arc::new(vec![frame.clone(), frame.clone()]);
        let mut sent = Frames::new(shared, 200, Clock::new());
        let polled = Pin::new(&mut sent)
            .poll_frame(&mut Context::from_waker(futures::task::noop_waker_ref()));
        let Poll::Ready(Some(Ok(polled))) = polled else {
            panic!("a frame is there")
        };
        assert_eq!(polled.into_data().unwrap().as_ptr(), frame.as_ptr());
        assert!(!sent.is_end_stream());
    }

    #[tokio::test]
    async fn a_stream_keeps_its_word_or_breaks() {
        let frame = Bytes::from_static(b"12345");
        let short = read(stream_of(6, vec![Ok(frame.clone())])).await;
        assert_eq!(short, Err(BrokenSource::new("1 bytes are missing")));
        let long = read(stream_of(4, vec![Ok(frame.clone())])).await;
        assert!(long.is_err());
        let broken = BrokenSource::new("reset");
        let cut = read(stream_of(9, vec![Ok(frame), Err(broken.clone())])).await;
        assert_eq!(cut, Err(broken));
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_tells_who_is_waited_for() {
        let clock = Clock::new();
        let second = Duration::from_secs(1);
        let frames = stream::iter([Ok(Bytes::from_static(b"ab"))])
            .chain(stream::once(async move {
                tokio::time::sleep(second * 5).await;
                Ok(Bytes::from_static(b"c"))
            }))
            .boxed();
        let mut body = passed_through(3, frames, &clock);
        let mut next =
            async || std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        tokio::time::advance(second).await;
        assert_eq!(clock.read(), (Awaits::Store, second));
        next().await.unwrap().unwrap();
        assert_eq!(clock.read(), (Awaits::Store, Duration::ZERO));
        tokio::join!(next(), async {
            tokio::time::sleep(second * 2).await;
            assert_eq!(clock.read(), (Awaits::Body, second * 2));
        });
        tokio::time::advance(second).await;
        assert_eq!(clock.read(), (Awaits::Answer, second));
    }

    #[test]
    fn what_each_proof_sends() {
        let check = |proof, sha256: Option<&str>, crc64nvme: Option<&str>, crc32: Option<&str>| {
            let frames = vec![Bytes::from_static(b"12345"), Bytes::from_static(b"6789")];
            let crc = Crc64::of(b"123456789");
            let body = PartBody::Filled {
                frames,
                crc64nvme: crc,
            };
            let payload = Payload::new(body, proof);
            assert_eq!(payload.body.content_length(), Some(9));
            let Signing(signing) = &payload.signing;
            let signed = if let PayloadSigningOverride::Precomputed(sha256) = signing {
                Some(sha256.as_str())
            } else {
                None
            };
            let sent = (
                signed,
                payload.crc64nvme.as_deref(),
                payload.crc32.as_deref(),
            );
            assert_eq!(sent, (sha256, crc64nvme, crc32), "{proof:?}");
        };
        let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
        check(Proof::ByStore, None, None, None);
        check(Proof::Length, None, None, None);
        check(Proof::Crc64nvme, None, Some("rosUhgp5mIg="), None);
        check(Proof::Crc32, None, None, Some("y/Q5Jg=="));
        check(Proof::SignedPayload, Some(sha256), None, None);
        assert_eq!(from_base64("rosUhgp5mIg="), Some(Crc64::of(b"123456789")));
        for bad in ["", "rosUhgp5mIg=-3", "y/Q5Jg==", "%"] {
            assert_eq!(from_base64(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_filled_body_can_be_made_again_and_knows_its_length() {
        let clock = Clock::new();
        let frames = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"c")];
        let body = filled(frames, &clock);
        assert_eq!(body.content_length(), Some(3));
        assert_eq!(body.try_clone().unwrap().content_length(), Some(3));
        let passed = passed_through(8, stream::empty().boxed(), &clock);
        assert_eq!(passed.content_length(), Some(8));
        assert!(passed.try_clone().is_none());
    }
}
