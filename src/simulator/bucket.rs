//! A strict S3 endpoint on loopback: bodies in memory, quirks by choice, faults by script.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::model::digest::Crc64;
use crate::model::digest::Sha256Digest;
use crate::model::digest::Sha256Digester;
use crate::units::ByteSize;

pub use fault::Effect;
pub use fault::Fault;
pub use fault::Operation;

mod backend;
mod body;
mod checksum;
mod crowd;
mod fault;
mod reading;
mod serve;
mod shelf;
mod tamper;
#[cfg(test)]
mod tests;

use backend::Backend;
use body::Capacity;
use body::Keeping;
use crowd::Crowd;
use serve::Server;
use shelf::Object;

/// The access key that every bucket takes.
const ACCESS_KEY: &str = "reelvault-simulator";

/// Its secret, which protects nothing: the endpoint is on loopback and ends with the process.
const SECRET_KEY: &str = "simulator-secret";

/// Kept bodies beyond this are refused. Enough for a demo's day, little enough for a laptop.
const CAPACITY: ByteSize = ByteSize::mib(2_048);

/// How an endpoint is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// The bucket that is there from the start.
    pub bucket: String,
    /// Where the store differs from AWS.
    pub quirks: Quirks,
    /// What becomes of the bodies.
    pub bodies: Bodies,
    /// Speaks TLS with this certificate. It must not offer HTTP/2: the endpoint speaks HTTP/1.1.
    pub tls: Option<Arc<ServerConfig>>,
    /// Stamps what is written.
    pub clock: Clock,
    /// Names the uploads.
    pub dice: Dice,
}

/// What becomes of the bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    /// Kept in memory, up to so many bytes; more is refused with `QuotaExceeded`.
    Kept(ByteSize),
    /// Forgotten but for length, checksum and, of each part, SHA-256.
    Hashed,
    /// Forgotten but for length and checksum.
    Discarded,
}

/// Where a store differs from AWS.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent switches, each named where it is set"
)]
pub struct Quirks {
    /// All parts but the last have one size, and the last is not larger; checked at Complete.
    pub equal_parts: bool,
    /// A Complete that is refused takes the upload with it.
    pub failed_complete_ends_upload: bool,
    /// Bodies in `aws-chunked` framing are answered 501.
    pub refuse_aws_chunked: bool,
    /// HEAD tells a CRC64NVME over the whole object where the writer declared no checksum.
    pub computes_crc64: bool,
    /// Objects keep the metadata that they were written with.
    pub keeps_metadata: bool,
    /// The key pair may list: else 403 is the answer where nothing stands.
    pub may_list: bool,
    /// What `If-None-Match: *` does.
    pub conditions: Conditions,
    /// The least that parts but the last have.
    pub part_bytes_min: ByteSize,
    /// The most entries on one page of a listing, whatever is asked for.
    pub page_entries_max: i32,
}

/// What `If-None-Match: *` does on `PutObject` and Complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conditions {
    /// A key that exists is answered 412.
    Honoured,
    /// Overwrites, as if nothing had been said.
    Ignored,
    /// Answered 501.
    Unsupported,
}

/// A running endpoint. Dropping it ends it.
pub struct Bucket {
    name: String,
    endpoint: String,
    backend: Arc<Backend>,
    server: Arc<Server>,
    tasks: JoinSet<()>,
}

/// What the bucket knows about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its key.
    pub key: String,
    /// Its length in bytes.
    pub length: u64,
    /// As S3 writes it, quotes included.
    pub etag: String,
    /// Over all its bytes.
    pub crc64: Crc64,
    /// What the writer said it is.
    pub content_type: Option<String>,
    /// The writer's own words.
    pub metadata: std::collections::BTreeMap<String, String>,
    /// How many parts it came in; `None` when it was written at once.
    pub parts: Option<i32>,
    /// What came in each request.
    pub pieces: Vec<StoredPiece>,
    /// When it was written.
    pub modified: Timestamp,
}

/// What came in one request: a part, or a whole object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredPiece {
    /// Its length in bytes.
    pub length: u64,
    /// Where hashes are kept.
    pub sha256: Option<Sha256Digest>,
}

/// What the bucket knows about an open upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenUpload {
    /// The key that it is for.
    pub key: String,
    /// Its ID.
    pub upload_id: String,
    /// Number and length of the parts that arrived.
    pub parts: Vec<(i32, u64)>,
}

impl Config {
    /// A plain endpoint that behaves as AWS does, keeps bodies, and has one bucket of this name.
    pub fn new(bucket: &str) -> Self {
        Self {
            bucket: bucket.to_owned(),
            quirks: Quirks::aws(),
            bodies: Bodies::Kept(CAPACITY),
            tls: None,
            clock: Clock::system(),
            dice: Dice::new(),
        }
    }
}

impl Quirks {
    /// None: what AWS does.
    pub fn aws() -> Self {
        Self {
            equal_parts: false,
            failed_complete_ends_upload: false,
            refuse_aws_chunked: false,
            computes_crc64: true,
            keeps_metadata: true,
            may_list: true,
            conditions: Conditions::Honoured,
            part_bytes_min: ByteSize::mib(5),
            page_entries_max: 1_000,
        }
    }

    /// What R2 is known for.
    pub fn r2() -> Self {
        Self {
            equal_parts: true,
            failed_complete_ends_upload: true,
            refuse_aws_chunked: true,
            computes_crc64: false,
            ..Self::aws()
        }
    }
}

/// Starts an endpoint on a free port of 127.0.0.1.
pub async fn start(config: Config) -> io::Result<Bucket> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let scheme = if config.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let endpoint = format!("{scheme}://{}", listener.local_addr()?);
    let refuse_aws_chunked = config.quirks.refuse_aws_chunked;
    let keeping = match config.bodies {
        Bodies::Kept(bytes) => Keeping::Frames(Capacity::new(bytes.as_u64())),
        Bodies::Hashed => Keeping::Hashes,
        Bodies::Discarded => Keeping::Sums,
    };
    let (bucket, dice) = (&config.bucket, config.dice);
    let backend = Backend::new(bucket, config.quirks, keeping, config.clock, dice);
    let backend = Arc::new(backend);
    let mut service = S3ServiceBuilder::new(backend::Lead(Arc::clone(&backend)));
    service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let server = Arc::new(Server {
        service: service.build(),
        backend: Arc::clone(&backend),
        crowd: Crowd::default(),
        script: fault::Script::default(),
        counts: watch::Sender::default(),
        tls: config.tls.map(TlsAcceptor::from),
        refuse_aws_chunked,
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(serve::serve(Arc::clone(&server), listener));
    Ok(Bucket {
        name: config.bucket,
        endpoint,
        backend,
        server,
        tasks,
    })
}

impl Bucket {
    /// The endpoint's URL, without a bucket: clients use path style.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The bucket that is there from the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who may do everything here.
    pub fn access_key(&self) -> &'static str {
        ACCESS_KEY
    }

    /// The secret that belongs to the access key.
    pub fn secret_key(&self) -> &'static str {
        SECRET_KEY
    }

    /// All objects by key.
    pub fn objects(&self) -> Vec<StoredObject> {
        self.look(|shelf| {
            let objects = shelf.objects.iter();
            objects
                .map(|(key, object)| StoredObject::new(key, object))
                .collect()
        })
    }

    /// The object of this key.
    pub fn object(&self, key: &str) -> Option<StoredObject> {
        let found = self.stored(key)?;
        Some(StoredObject::new(key, &found))
    }

    /// How often clients wrote an object at this key, whether it stands there still or not.
    pub fn writes(&self, key: &str) -> u64 {
        self.look(|shelf| shelf.writes.get(key).copied().unwrap_or(0))
    }

    /// An object's bytes, frame by frame as they arrived. `None` without such an object, and where bodies are discarded.
    pub fn frames(&self, key: &str) -> Option<Vec<bytes::Bytes>> {
        let object = self.stored(key)?;
        let kept = !object.bodies.is_empty() || object.length == 0;
        kept.then(|| reading::slices_of(&object, &(0..object.length)))
    }

    /// An object's bytes in one piece.
    pub fn bytes(&self, key: &str) -> Option<Vec<u8>> {
        Some(self.frames(key)?.concat())
    }

    /// The SHA-256 over an object's bytes, computed here and now.
    pub fn sha256(&self, key: &str) -> Option<Sha256Digest> {
        let mut digester = Sha256Digester::new();
        for frame in self.frames(key)? {
            digester.update(&frame);
        }
        Some(digester.value())
    }

    /// All open uploads by key.
    pub fn open_uploads(&self) -> Vec<OpenUpload> {
        let mut uploads: Vec<_> = self.look(|shelf| {
            let uploads = shelf.uploads.iter().map(|(id, upload)| OpenUpload {
                key: upload.key.clone(),
                upload_id: id.clone(),
                parts: upload
                    .parts
                    .iter()
                    .map(|(number, part)| (*number, part.length))
                    .collect(),
            });
            uploads.collect()
        });
        uploads.sort_by(|one, other| one.key.cmp(&other.key));
        uploads
    }

    /// Removes an object behind everybody's back, as somebody else with access to the bucket might.
    pub fn remove(&self, key: &str) -> bool {
        self.look(|shelf| shelf.objects.remove(key).is_some())
    }

    /// Turns a bit of the store's copy of an object, as a bad disk might. `false` where no bytes are kept.
    pub fn damage(&self, key: &str) -> bool {
        self.backend.damage(&self.name, key)
    }

    /// Puts other bytes at a key, as somebody else with access to the bucket might.
    pub async fn replace(&self, key: &str, bytes: bytes::Bytes) {
        let replaced = self.backend.replace(&self.name, key, bytes).await;
        replaced.expect("the first bucket is never deleted, and a test's object fits");
    }

    /// Ends every open upload, as a lifecycle rule or somebody else might.
    pub fn end_uploads(&self) {
        self.look(|shelf| shelf.uploads.clear());
    }

    /// Opens so many uploads of a key, as somebody else might.
    pub fn open_others(&self, key: &str, count: usize) {
        self.backend.open_others(&self.name, key, count);
    }

    /// From now on more requests at once than this are answered 503 `SlowDown`; `None`: as many as come are served.
    pub fn limit_at_once(&self, most: Option<u64>) {
        self.server.crowd.limit(most);
    }

    /// The most requests for `operation` that were under way at once.
    pub fn at_once_max(&self, operation: Operation) -> u64 {
        self.server.crowd.at_once_max(operation)
    }

    /// How many requests there were for `operation`, those that faults hit included.
    pub fn count(&self, operation: Operation) -> u64 {
        self.server
            .counts
            .borrow()
            .get(&operation)
            .copied()
            .unwrap_or(0)
    }

    /// Waits until there were so many requests for `operation`.
    pub async fn reached(&self, operation: Operation, count: u64) {
        let mut counts = self.server.counts.subscribe();
        let reached = |counts: &serve::Counts| counts.get(&operation).is_some_and(|n| *n >= count);
        // An error would say that the sender is gone, and this bucket holds it.
        counts.wait_for(reached).await.ok();
    }

    /// Adds a fault behind those that wait.
    pub fn plant(&self, fault: Fault) {
        self.server.script.plant(fault);
    }

    /// Forgets every planted fault: the store is mended.
    pub fn heal(&self) {
        self.server.script.clear();
    }

    /// How many planted faults have hits left.
    pub fn faults_waiting(&self) -> usize {
        self.server.script.waiting()
    }

    /// Ends all connections and waits until nothing runs any more.
    pub async fn shutdown(mut self) {
        self.tasks.shutdown().await;
    }

    fn stored(&self, key: &str) -> Option<Arc<Object>> {
        self.look(|shelf| shelf.objects.get(key).cloned())
    }

    fn look<T>(&self, look: impl FnOnce(&mut shelf::Shelf) -> T) -> T {
        let looked = self.backend.with(&self.name, |shelf| Ok(look(shelf)));
        looked.expect("the first bucket is never deleted")
    }
}

impl StoredObject {
    fn new(key: &str, object: &Object) -> Self {
        Self {
            key: key.to_owned(),
            length: object.length,
            etag: format!("\"{}\"", object.etag),
            crc64: object.crc64,
            content_type: object.label.content_type.clone(),
            metadata: object.label.metadata.clone(),
            parts: object.parts,
            pieces: object.pieces.clone(),
            modified: object.modified,
        }
    }
}
