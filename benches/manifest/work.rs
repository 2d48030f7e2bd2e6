//! What a daemon does with its manifest, through its verbs: lives of assets, looks at tasks, claims, look-ups.

use anyhow::Context as _;
use anyhow::Result;
use anyhow::ensure;
use futures::StreamExt as _;
use futures::TryStreamExt as _;
use reelvault::chance::Dice;
use reelvault::clock::Clock;
use reelvault::manifest::Manifest;
use reelvault::manifest::row::Claimable;
use reelvault::manifest::row::ClaimedAsset;
use reelvault::manifest::row::ClaimedTask;
use reelvault::manifest::row::NewTask;
use reelvault::manifest::row::NewUpload;
use reelvault::manifest::row::ObjectName;
use reelvault::manifest::row::ObjectPlan;
use reelvault::manifest::row::Observation;
use reelvault::manifest::row::PartRow;
use reelvault::manifest::row::Proof;
use reelvault::manifest::row::SeenAsset;
use reelvault::manifest::row::TaskFilter;
use reelvault::model::asset::AssetRole;
use reelvault::model::asset::MediaDetails;
use reelvault::model::asset::MediaType;
use reelvault::model::asset::SourceIdentity;
use reelvault::model::deadline::Deadline;
use reelvault::model::deadline::DeadlineSource;
use reelvault::model::digest::Crc64;
use reelvault::model::digest::Sha256Digester;
use reelvault::model::lease::Lease;
use reelvault::model::object::ETag;
use reelvault::model::object::PartNumber;
use reelvault::model::object::UploadId;
use reelvault::model::object::Verified;
use reelvault::model::task::LearnedVia;
use reelvault::model::task::Progress;
use reelvault::model::task::ResultLink;
use reelvault::model::task::Sighting;
use reelvault::model::task::Tags;
use reelvault::model::task::TaskKey;
use reelvault::model::task::TaskState;
use reelvault::units::Span;

use crate::crowd;

/// Assets that a daemon claims and archives at once, as `transfer.concurrent` has them.
pub(crate) const ROOM: usize = 16;

/// Tasks that one call tells of.
pub(crate) const BATCH: usize = 50;

/// Tasks that a claim takes.
pub(crate) const CLAIM: usize = 100;

/// Parts of an object that does not go in one request.
const PARTS: u32 = 2;

/// People and programs that look records up at once.
pub(crate) const READERS: usize = 8;

/// Claims assets, renews their leases and archives them in so many parts or in one request, until there were so many.
pub(crate) async fn lives(manifest: &Manifest, count: usize, parts: u32) -> Result<()> {
    let mut done = 0;
    while done < count {
        let claimed = manifest.claim_assets(ROOM).await?;
        ensure!(!claimed.is_empty(), "nothing is due any more");
        let leases: Vec<Lease> = claimed.iter().map(|asset| asset.lease).collect();
        let lost = manifest.renew(Claimable::Assets, &leases).await?;
        ensure!(lost.is_empty(), "leases were lost");
        let archived = claimed.iter().map(|asset| archive(manifest, asset, parts));
        futures::future::try_join_all(archived).await?;
        done += claimed.len();
    }
    Ok(())
}

/// Names an asset's object, writes down its upload with its parts, if it has any, and proves it.
pub(crate) async fn archive(manifest: &Manifest, asset: &ClaimedAsset, parts: u32) -> Result<()> {
    let object = asset.objects.first().context("an asset has an object")?.row;
    manifest
        .name_object(&asset.lease, object, &object_name(asset.lease.row)?)
        .await?;
    if parts > 0 {
        let lease = [asset.lease];
        manifest.renew(Claimable::Assets, &lease).await?;
        let upload = NewUpload {
            id: UploadId("2~dbcea67525fa94b137123d09e80cf485".into()),
            part_size: 16 << 20,
            source: proof().source,
        };
        manifest.begin_upload(&asset.lease, object, &upload).await?;
    }
    for number in 1..=parts {
        let part = PartRow {
            number: PartNumber(number),
            length: 16 << 20,
            etag: ETag("\"4f2e\"".into()),
            crc64nvme: Crc64(255),
            progress: Some(vec![7; 200]),
        };
        manifest.record_part(&asset.lease, object, &part).await?;
    }
    let done = manifest
        .mark_archived(&asset.lease, object, &proof())
        .await?;
    ensure!(done, "one object is all that there is");
    Ok(())
}

/// The name of the object with this number.
pub(crate) fn object_name(number: i64) -> Result<ObjectName> {
    Ok(ObjectName {
        key: format!("house/2026/11/{}/0.mp4", crowd::name(number)).parse()?,
        nonce: "0123456789abcdef0123456789abcdef".to_owned(),
        media: MediaType {
            content_type: "video/mp4".into(),
            extension: "mp4".into(),
        },
        named_at: Clock::system().now(),
    })
}

/// A proof as a store like AWS gives it.
pub(crate) fn proof() -> Proof {
    Proof {
        size: 18_312_004,
        etag: Some(ETag("\"4f2e-2\"".into())),
        version_id: None,
        parts: 2,
        crc64nvme: Crc64(255),
        sha256: Some(Sha256Digester::new().value()),
        media: MediaDetails {
            duration: Some(Span::from_millis(5_042)),
            width: Some(1280),
            height: Some(720),
            codec: "avc1.64001F".parse().ok(),
        },
        verified: Verified::Checksum,
        source: SourceIdentity {
            etag: Some("\"5f2c\"".into()),
            last_modified: None,
            length: Some(18_312_004),
        },
    }
}

/// Claims tasks and writes that they still run, until there were so many. They are due again at once.
pub(crate) async fn looks(manifest: &Manifest, count: usize) -> Result<()> {
    let mut done = 0;
    while done < count {
        let claimed = manifest.claim_tasks(BATCH, &[]).await?;
        ensure!(!claimed.is_empty(), "nothing is due any more");
        observe(manifest, &claimed).await?;
        done += claimed.len();
    }
    Ok(())
}

/// Writes that tasks still run and are due again at once.
pub(crate) async fn observe(manifest: &Manifest, claimed: &[ClaimedTask]) -> Result<()> {
    let seen: Vec<_> = claimed
        .iter()
        .map(|task| (task.lease, running(task)))
        .collect();
    let outcomes = manifest.observe_all(&seen).await?;
    for outcome in outcomes {
        outcome?;
    }
    Ok(())
}

fn running(task: &ClaimedTask) -> Observation {
    Observation {
        state: TaskState::Watching,
        sighting: Sighting {
            progress: Progress::Running,
            status: "processing".to_owned(),
            is_unknown_status: false,
            percent: Some(40),
            model: task.model.clone(),
            kind: task.kind.clone(),
            created: task.created_at,
            completed: None,
            expires: None,
            estimate: None,
            is_without_files: false,
            results: Vec::new(),
            error: None,
            answer: None,
        },
        error: None,
        deadline: task.deadline,
        next_look_at: Some(Clock::system().now()),
        assets: Vec::new(),
        objects: Vec::new(),
    }
}

/// Learns of tasks, sees them completed at the first look, and archives what they made.
pub(crate) async fn tasks(manifest: &Manifest, count: usize) -> Result<()> {
    let dice = Dice::new();
    let mut done = 0;
    while done < count {
        let new = (0..BATCH).map(|_| new_task(&format!("task-new-{}", dice.nonce()), Span::ZERO));
        manifest.learn(new.collect::<Result<_>>()?).await?;
        let mut seen = Vec::new();
        while seen.len() < BATCH {
            let claimed = manifest.claim_tasks(BATCH, &[]).await?;
            ensure!(!claimed.is_empty(), "nothing is due any more");
            for task in &claimed {
                seen.push((task.lease, completed(task)?));
            }
        }
        done += seen.len();
        for outcome in manifest.observe_all(&seen).await? {
            outcome?;
        }
        lives(manifest, seen.len(), PARTS).await?;
    }
    Ok(())
}

fn completed(task: &ClaimedTask) -> Result<Observation> {
    let link = format!("https://files.example.com/results/{}/0.mp4", task.key.id);
    Ok(Observation {
        state: TaskState::Completed,
        next_look_at: None,
        assets: vec![SeenAsset {
            link: ResultLink {
                url: link.parse()?,
                role: AssetRole::Video,
                expires: None,
            },
            deadline: task.deadline,
        }],
        objects: vec![ObjectPlan {
            destination: "main".parse()?,
            key_template: "{provider}/{task_id}/{index}.{ext}".parse()?,
        }],
        ..running(task)
    })
}

/// A task that is looked at first after `wait`.
pub(crate) fn new_task(id: &str, wait: Span) -> Result<NewTask> {
    let now = Clock::system().now();
    Ok(NewTask {
        key: TaskKey {
            provider: "house".parse()?,
            id: id.parse()?,
        },
        tags: Tags::new(),
        via: LearnedVia::Api,
        next_look_at: now.plus(wait),
        deadline: Deadline {
            at: now.plus(Span::from_secs(86_400)),
            from: DeadlineSource::Learned,
        },
        callback: None,
    })
}

/// Claims so many tasks, and nothing else.
pub(crate) async fn claims(manifest: &Manifest, count: usize) -> Result<()> {
    let mut done = 0;
    while done < count {
        let claimed = manifest.claim_tasks(CLAIM, &[]).await?;
        ensure!(!claimed.is_empty(), "nothing is due any more");
        done += claimed.len();
    }
    Ok(())
}

/// Looks up the records of these tasks, several at once.
pub(crate) async fn look_ups(manifest: &Manifest, numbers: &[i64]) -> Result<()> {
    futures::stream::iter(numbers)
        .map(|number| look_up(manifest, *number))
        .buffer_unordered(READERS)
        .try_collect()
        .await
}

/// Looks up the record of a task.
pub(crate) async fn look_up(manifest: &Manifest, number: i64) -> Result<()> {
    let filter = TaskFilter {
        id: Some(crowd::name(number).parse()?),
        ..TaskFilter::default()
    };
    let found = manifest.tasks(&filter, 2).await?;
    ensure!(found.len() == 1, "task {number} is unknown");
    Ok(())
}
