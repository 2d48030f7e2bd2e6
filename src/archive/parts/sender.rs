//! One part on its way: from the download, from memory, or from the origin by a request of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::archive::delivery::Delivery;
use crate::archive::download::Download;
use crate::archive::gate::Pass;
use crate::archive::length;
use crate::archive::parts::Held;
use crate::archive::parts::Sent;
use crate::archive::parts::Slot;
use crate::archive::parts::Target;
use crate::archive::parts::hold_all;
use crate::backoff;
use crate::model::asset::SourceIdentity;
use crate::model::digest::Crc64;
use crate::model::digest::Crc64Digester;
use crate::model::object::PartNumber;
use crate::origin::OriginError;
use crate::origin::open::Window;
use crate::origin::reading::Reading;
use crate::store::BrokenSource;
use crate::store::PartBody;
use crate::store::PartSlot;
use crate::store::StoreError;
use crate::store::StoreErrorKind;
use crate::store::WrittenPart;

/// Tries of one part before the whole transfer is put off; its other parts stay stored.
const PART_TRIES: u32 = 4;

/// A store that was silent for this long is not tried again at once: the asset is told of it, and comes back.
const LONG_TRY: Duration = Duration::from_secs(15);

/// Frames on their way between origin and store: one being sent, one being read.
const FRAMES_AHEAD: usize = 1;

/// What sends parts of one upload. Clones send parts of the same.
#[derive(Clone)]
pub(super) struct Sender<'a> {
    delivery: &'a Delivery<'a>,
    target: Arc<Target>,
    /// The file, of which any part may be fetched again.
    identity: SourceIdentity,
    tries: Arc<Mutex<BTreeMap<PartNumber, u32>>>,
}

/// Why a part was not sent.
pub(super) enum Trouble {
    /// The store did not take it.
    Store(StoreError),
    /// The origin did not give it a second time.
    Origin(OriginError),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Trouble::Store(error)
    }
}

impl From<OriginError> for Trouble {
    fn from(error: OriginError) -> Self {
        Trouble::Origin(error)
    }
}

impl<'a> Sender<'a> {
    pub(super) fn new(delivery: &'a Delivery<'a>, target: Target, download: &Download) -> Self {
        Self {
            delivery,
            target: Arc::new(target),
            identity: download.facts().identity.clone(),
            tries: Arc::default(),
        }
    }

    pub(super) fn part_size(&self) -> u64 {
        self.target.part_size
    }

    /// Whether no further try of this part is worth its while now.
    pub(super) fn has_tried_enough(&self, slot: Slot) -> bool {
        self.tries_of(slot) >= PART_TRIES
    }

    /// Sends a body once, under `pass`.
    pub(super) async fn put(
        &self,
        slot: Slot,
        body: PartBody,
        pass: Pass,
    ) -> Result<WrittenPart, Trouble> {
        self.count(slot, 1);
        let began = Instant::now();
        let place = PartSlot {
            number: slot.number,
            offset: slot.offset,
        };
        let Target { name, upload, .. } = self.target.as_ref();
        let Delivery { store, gate, .. } = self.delivery;
        let put = store.put_part(&name.key, upload, place, body).await;
        drop(pass);
        match &put {
            Ok(written) => gate.succeeded(written.waited),
            Err(error) => {
                gate.failed(error, self.delivery.transfer.asset.lease.row);
                if is_long_silence(error, began) {
                    self.count(slot, PART_TRIES);
                }
            }
        }
        Ok(put?)
    }

    /// Sends a part that is held in memory, as often as it takes within the limit.
    pub(super) async fn put_held(&self, slot: Slot, held: &Held) -> Result<WrittenPart, Trouble> {
        loop {
            let body = PartBody::Filled {
                frames: held.frames.clone(),
                crc64nvme: held.crc64nvme,
            };
            let pass = self.delivery.gate.pass().await;
            match self.put(slot, body, pass).await {
                Err(Trouble::Store(error))
                    if is_passing(&error) && !self.has_tried_enough(slot) =>
                {
                    self.pause(slot).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Fetches a part again and passes it through. A store that is in trouble is left alone for a while first.
    pub(super) async fn fetch_and_pass(&self, slot: Slot) -> Result<Sent, Trouble> {
        if self.tries_of(slot) > 1 {
            self.pause(slot).await;
        }
        // An origin that takes its time keeps nobody else from the store.
        let mut reading = self.fetch(slot).await?;
        let pass = self.delivery.gate.pass().await;
        let (feed, mut frames) = mpsc::channel(FRAMES_AHEAD);
        let frames = futures::stream::poll_fn(move |context| frames.poll_recv(context)).boxed();
        let body = PartBody::Stream {
            length: slot.length,
            frames,
        };
        let bandwidth = self.delivery.transfer.bandwidth;
        let fed = async move {
            let mut crc = Crc64Digester::new();
            loop {
                let mut frame = match reading.next().await {
                    Ok(Some(frame)) => frame,
                    Ok(None) => return Ok(Some(crc.value())),
                    Err(error) => {
                        // Told to the store's request, so that it ends now and not at its time-out.
                        feed.send(Err(BrokenSource::new(error.to_string())))
                            .await
                            .ok();
                        return Err(error);
                    }
                };
                crc.update(&frame);
                while !frame.is_empty() {
                    let step = usize::try_from(bandwidth.step()).unwrap_or(usize::MAX);
                    let step = frame.split_to(frame.len().min(step));
                    bandwidth.pass(length(&step)).await;
                    if feed.send(Ok(step)).await.is_err() {
                        return Ok::<Option<Crc64>, OriginError>(None);
                    }
                }
            }
        };
        // A request that ends lets go of its body, and with it of the feed.
        let (put, fed) = tokio::join!(self.put(slot, body, pass), fed);
        match (put, fed) {
            (Ok(written), Ok(crc64nvme)) => Ok(Sent {
                written,
                // What was answered before it was read to its end has no checksum, and must equal no part's.
                crc64nvme: Some(crc64nvme.unwrap_or_default()),
            }),
            (Err(Trouble::Store(error)), Err(broke)) if error.kind == StoreErrorKind::Source => {
                Err(broke.into())
            }
            (Err(trouble), _) => Err(trouble),
            (Ok(_), Err(broke)) => Err(broke.into()),
        }
    }

    /// Fetches a part into memory that was taken from the budget, and sends it from there.
    pub(super) async fn fetch_and_hold(&self, slot: Slot) -> Result<Sent, Trouble> {
        let bandwidth = self.delivery.transfer.bandwidth;
        let held = hold_all(self.fetch(slot).await?, bandwidth).await?;
        Ok(Sent {
            written: self.put_held(slot, &held).await?,
            crc64nvme: Some(held.crc64nvme),
        })
    }

    async fn fetch(&self, slot: Slot) -> Result<Reading, OriginError> {
        let window = Window {
            start: slot.offset,
            end: Some(slot.end()),
        };
        let transfer = self.delivery.transfer;
        let (origin, identity) = (transfer.origin.clone(), Some(&self.identity));
        Reading::open_patiently(origin, window, identity, transfer.patience()).await
    }

    async fn pause(&self, slot: Slot) {
        let pause = backoff::delay(self.tries_of(slot), None, self.delivery.transfer.dice);
        tokio::time::sleep(pause.as_duration()).await;
    }

    fn tries_of(&self, slot: Slot) -> u32 {
        self.tries().get(&slot.number).copied().unwrap_or_default()
    }

    fn count(&self, slot: Slot, tries: u32) {
        *self.tries().entry(slot.number).or_default() += tries;
    }

    fn tries(&self) -> std::sync::MutexGuard<'_, BTreeMap<PartNumber, u32>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a request that `began` then failed by a store's long silence, not by an origin that took its time.
pub(crate) fn is_long_silence(error: &StoreError, began: Instant) -> bool {
    let is_silence = error.status.is_none() && error.kind != StoreErrorKind::Source;
    is_silence && began.elapsed() >= LONG_TRY
}

/// Whether the same request may succeed when it is sent again.
fn is_passing(error: &StoreError) -> bool {
    match error.kind {
        StoreErrorKind::Transient | StoreErrorKind::Ambiguous => true,
        StoreErrorKind::Blocked
        | StoreErrorKind::Exists
        | StoreErrorKind::Conflict
        | StoreErrorKind::UploadGone
        | StoreErrorKind::Rejected
        | StoreErrorKind::Source => false,
    }
}
