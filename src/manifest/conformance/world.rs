//! A manifest with a clock of its own, and short words for what the tests do with it.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;

use tempfile::TempDir;
use url::Url;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::manifest::Access;
use crate::manifest::Config;
use crate::manifest::Manifest;
use crate::manifest::ManifestError;
use crate::manifest::database_path;
use crate::manifest::migrate::MIGRATIONS;
use crate::manifest::migrate::migrate;
use crate::manifest::postgres::Time;
use crate::manifest::postgres::server::Database;
use crate::manifest::postgres::server::Server;
use crate::manifest::row::*;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::asset::MediaDetails;
use crate::model::asset::MediaType;
use crate::model::asset::SourceIdentity;
use crate::model::deadline::Danger;
use crate::model::deadline::Deadline;
use crate::model::deadline::DeadlineSource;
use crate::model::digest::Crc64;
use crate::model::lease::Lease;
use crate::model::object::ETag;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::model::object::Verified;
use crate::model::task::LearnedVia;
use crate::model::task::Progress;
use crate::model::task::ResultLink;
use crate::model::task::Sighting;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;
use crate::units::Span;

/// How long a lease holds in these tests.
pub(in crate::manifest) const LEASE: Span = Span::from_secs(60);

/// How long a link lives in these tests.
pub(in crate::manifest) const TTL: Span = Span::from_secs(86_400);

pub(in crate::manifest) struct World {
    pub(in crate::manifest) manifest: Manifest,
    pub(in crate::manifest) config: Config,
    pub(in crate::manifest) clock: Clock,
    time: Arc<AtomicI64>,
    pub(in crate::manifest) folder: TempDir,
    /// The database and its server, where the manifest is on one.
    _database: Option<(Database, Server)>,
}

impl World {
    /// A new manifest on `SQLite`.
    pub(in crate::manifest) async fn sqlite(is_inline: bool) -> Self {
        let (folder, time, clock, config) = ground();
        let manifest = if is_inline {
            Manifest::open_inline(&config, &clock, Access::Daemon).unwrap()
        } else {
            Manifest::open(&config, clock.clone(), Access::Daemon)
                .await
                .unwrap()
        };
        Self {
            manifest,
            config,
            clock,
            time,
            folder,
            _database: None,
        }
    }

    /// A manifest that an older program left behind, with these rows.
    pub(in crate::manifest) fn sqlite_of_schema(schema: usize, rows: &str) -> Self {
        let (folder, time, clock, config) = ground();
        let path = database_path(&config.url).unwrap();
        let mut connection = rusqlite::Connection::open(&path).unwrap();
        migrate(&mut connection, &path, &MIGRATIONS[..schema]).unwrap();
        connection.execute_batch(rows).unwrap();
        drop(connection);
        Self {
            manifest: Manifest::open_inline(&config, &clock, Access::Daemon).unwrap(),
            config,
            clock,
            time,
            folder,
            _database: None,
        }
    }

    /// A new manifest on Postgres, with or without what a transaction pooler takes away.
    pub(in crate::manifest) async fn postgres(pooler: bool) -> Self {
        let (folder, time, clock, sqlite) = ground();
        let server = Server::shared();
        let database = server.database();
        let config = Config {
            url: database.url.clone(),
            pooler,
            ..sqlite
        };
        let handed = Time::Handed(clock.clone());
        let manifest = Manifest::open_shared(&config, Access::Daemon, handed).await;
        Self {
            manifest: manifest.unwrap(),
            config,
            clock,
            time,
            folder,
            _database: Some((database, server)),
        }
    }

    pub(in crate::manifest) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(in crate::manifest) fn advance(&self, seconds: u64) {
        let millis = Span::from_secs(seconds).as_millis_i64();
        self.time.fetch_add(millis, Ordering::SeqCst);
    }

    /// This many seconds from now.
    pub(in crate::manifest) fn after(&self, seconds: u64) -> Timestamp {
        self.now().plus(Span::from_secs(seconds))
    }

    pub(in crate::manifest) fn deadline(&self, seconds: u64) -> Deadline {
        Deadline {
            at: self.after(seconds),
            from: DeadlineSource::Preset,
        }
    }

    /// The danger of all that dies in less than so many seconds, judged when they are over.
    pub(in crate::manifest) fn danger(&self, seconds: u64) -> Danger {
        Danger::within(Span::ZERO, self.after(seconds))
    }

    /// A task of the provider `house`, due now.
    pub(in crate::manifest) fn task(&self, id: &str) -> NewTask {
        NewTask {
            key: key(id),
            tags: Tags::new(),
            via: LearnedVia::Cli,
            next_look_at: self.now(),
            deadline: Deadline {
                at: self.now().plus(TTL),
                from: DeadlineSource::Learned,
            },
            callback: None,
        }
    }

    pub(in crate::manifest) async fn learn(&self, id: &str) {
        let learned = self.manifest.learn(vec![self.task(id)]).await.unwrap();
        assert_eq!(learned, [Learned::New]);
    }

    /// Claims the one task that is due.
    pub(in crate::manifest) async fn claim_task(&self) -> ClaimedTask {
        let mut claimed = self.manifest.claim_tasks(10, &[]).await.unwrap();
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    /// Claims the one asset that is due.
    pub(in crate::manifest) async fn claim_asset(&self) -> ClaimedAsset {
        let mut claimed = self.manifest.claim_assets(10).await.unwrap();
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    /// Links to files at the result host, each dying in a day.
    pub(in crate::manifest) fn seen(&self, paths: &[&str]) -> Vec<SeenAsset> {
        let seen = |path: &&str| SeenAsset {
            link: ResultLink {
                url: Url::parse(&format!("https://cdn.test/{path}")).unwrap(),
                role: AssetRole::Video,
                expires: None,
            },
            deadline: Deadline {
                at: self.now().plus(TTL),
                from: DeadlineSource::Preset,
            },
        };
        paths.iter().map(seen).collect()
    }

    /// What a look at a completed task with these files finds.
    pub(in crate::manifest) fn completed(&self, paths: &[&str]) -> Observation {
        Observation {
            state: TaskState::Completed,
            sighting: sighting(Progress::Completed),
            deadline: Deadline {
                at: self.now().plus(TTL),
                from: DeadlineSource::Preset,
            },
            next_look_at: None,
            assets: self.seen(paths),
            objects: route(&["main", "copy"]),
            error: None,
        }
    }

    /// What a look at a task that runs finds; the next look is in ten seconds.
    pub(in crate::manifest) fn running(&self) -> Observation {
        Observation {
            state: TaskState::Watching,
            sighting: sighting(Progress::Running),
            next_look_at: Some(self.after(10)),
            assets: Vec::new(),
            ..self.completed(&[])
        }
    }

    /// Learns of a task and sees it completed with these files, each with an object at `main` and at `copy`.
    pub(in crate::manifest) async fn complete(&self, id: &str, paths: &[&str]) -> Observed {
        self.learn(id).await;
        self.see_completed(paths).await
    }

    /// Claims the one task that is due and sees it completed with these files.
    pub(in crate::manifest) async fn see_completed(&self, paths: &[&str]) -> Observed {
        let claimed = self.claim_task().await;
        let observation = self.completed(paths);
        self.manifest
            .observe(&claimed.lease, observation)
            .await
            .unwrap()
    }

    /// Names the object at `place` of a claimed asset.
    pub(in crate::manifest) async fn name(&self, asset: &ClaimedAsset, place: usize, key: &str) {
        let object = asset.objects[place].row;
        let name = self.object_name(key);
        self.manifest
            .name_object(&asset.lease, object, &name)
            .await
            .unwrap();
    }

    pub(in crate::manifest) fn object_name(&self, key: &str) -> ObjectName {
        ObjectName {
            key: key.parse().unwrap(),
            nonce: format!("nonce of {key}"),
            media: MediaType {
                content_type: "video/mp4".into(),
                extension: "mp4".into(),
            },
            named_at: self.now(),
        }
    }

    /// Names the object at `place` and opens an upload for it.
    pub(in crate::manifest) async fn begin(
        &self,
        asset: &ClaimedAsset,
        place: usize,
        key: &str,
        upload: &str,
    ) {
        self.name(asset, place, key).await;
        let object = asset.objects[place].row;
        self.manifest
            .begin_upload(&asset.lease, object, &new_upload(upload))
            .await
            .unwrap();
    }

    /// Names every object of a claimed asset after `prefix` and proves it.
    pub(in crate::manifest) async fn archive(&self, asset: &ClaimedAsset, prefix: &str) {
        for place in 0..asset.objects.len() {
            self.name(asset, place, &format!("{prefix}/{place}")).await;
            let object = asset.objects[place].row;
            let done = self
                .manifest
                .mark_archived(&asset.lease, object, &proof())
                .await
                .unwrap();
            assert_eq!(done, place + 1 == asset.objects.len());
        }
    }

    pub(in crate::manifest) async fn settle(&self, lease: &Lease, settlement: AssetSettlement) {
        self.manifest.settle_asset(lease, settlement).await.unwrap();
    }

    /// A failed try after which the asset is due again in `seconds`.
    pub(in crate::manifest) fn try_again(&self, seconds: u64) -> AssetSettlement {
        AssetSettlement {
            state: AssetState::Due,
            due_at: Some(self.after(seconds)),
            error: Some("the origin answered 403".into()),
            is_attempt: true,
            has_gained: false,
            wants_fresh_link: false,
        }
    }

    pub(in crate::manifest) fn ending(&self, state: AssetState) -> AssetSettlement {
        AssetSettlement {
            state,
            due_at: None,
            ..self.try_again(0)
        }
    }

    pub(in crate::manifest) async fn record(&self, id: &str) -> TaskRecord {
        let filter = TaskFilter {
            id: Some(id.parse().unwrap()),
            ..TaskFilter::default()
        };
        let mut records = self.manifest.tasks(&filter, 10).await.unwrap();
        assert_eq!(records.len(), 1, "{records:?}");
        records.remove(0)
    }

    /// All that can be read, to see whether anything changed.
    pub(in crate::manifest) async fn everything(&self) -> String {
        let tasks = self
            .manifest
            .tasks(&TaskFilter::default(), 1000)
            .await
            .unwrap();
        format!("{tasks:#?} {:#?}", self.manifest.tally().await.unwrap())
    }
}

/// A folder, a clock that the test owns, and a configuration over both.
fn ground() -> (TempDir, Arc<AtomicI64>, Clock, Config) {
    let folder = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicI64::new(1_774_857_405_000));
    let reading = Arc::clone(&time);
    let read = move || Timestamp::from_unix_millis(reading.load(Ordering::SeqCst));
    let clock = Clock::new(read);
    let config = Config {
        url: format!("sqlite:{}", folder.path().join("manifest.db").display()),
        lease: LEASE,
        ..Config::of_tests()
    };
    (folder, time, clock, config)
}

pub(in crate::manifest) fn key(id: &str) -> TaskKey {
    TaskKey {
        provider: "house".parse().unwrap(),
        id: id.parse().unwrap(),
    }
}

pub(in crate::manifest) fn route(destinations: &[&str]) -> Vec<ObjectPlan> {
    let plan = |destination: &&str| ObjectPlan {
        destination: destination.parse().unwrap(),
        key_template: "{task_id}/{index}.{ext}".parse().unwrap(),
    };
    destinations.iter().map(plan).collect()
}

pub(in crate::manifest) fn sighting(progress: Progress) -> Sighting {
    Sighting {
        progress,
        status: progress.as_str().to_owned(),
        is_unknown_status: false,
        percent: None,
        model: None,
        kind: None,
        created: None,
        completed: None,
        expires: None,
        estimate: None,
        is_without_files: false,
        results: Vec::new(),
        error: None,
        answer: None,
    }
}

pub(in crate::manifest) fn new_upload(id: &str) -> NewUpload {
    NewUpload {
        id: UploadId(id.into()),
        part_size: 8 << 20,
        source: source(),
    }
}

pub(in crate::manifest) fn source() -> SourceIdentity {
    SourceIdentity {
        etag: Some("\"5f2c\"".into()),
        last_modified: None,
        length: Some(18_312_004),
    }
}

pub(in crate::manifest) fn part(number: u32, length: u64) -> PartRow {
    PartRow {
        number: PartNumber(number),
        length,
        etag: ETag(format!("\"{number}\"")),
        crc64nvme: Crc64(u64::MAX - u64::from(number)),
        progress: Some(vec![0, 255, u8::try_from(number).unwrap()]),
    }
}

pub(in crate::manifest) fn proof() -> Proof {
    Proof {
        size: 18_312_004,
        etag: Some(ETag("\"4f2e-2\"".into())),
        version_id: Some("v1".into()),
        parts: 2,
        crc64nvme: Crc64(u64::MAX),
        sha256: Some(
            "781a365c3b8c22d82b2c95f13dd21f81a39a0fc820c75a0d884cc6e6a9357c77"
                .parse()
                .unwrap(),
        ),
        media: media(),
        verified: Verified::Checksum,
        source: source(),
    }
}

pub(in crate::manifest) fn media() -> MediaDetails {
    MediaDetails {
        duration: Some(Span::from_millis(5_042)),
        width: Some(1280),
        height: Some(720),
        codec: Some("avc1.64001F".parse().unwrap()),
    }
}

#[track_caller]
#[expect(
    clippy::needless_pass_by_value,
    reason = "called on the outcome of a verb"
)]
pub(in crate::manifest) fn assert_stale<T: std::fmt::Debug>(outcome: Result<T, ManifestError>) {
    assert!(
        matches!(outcome, Err(ManifestError::Stale { .. })),
        "{outcome:?}"
    );
}
