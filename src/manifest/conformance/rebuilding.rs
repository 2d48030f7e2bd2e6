//! Objects that stand at a destination and are written down anew.

use super::world::*;
use crate::clock::Timestamp;
use crate::manifest::row::event::EventFilter;
use crate::manifest::row::rebuild::FoundObject;
use crate::manifest::row::rebuild::Rebuilt;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::asset::MediaType;
use crate::model::digest::Crc64;
use crate::model::object::ETag;
use crate::model::object::ObjectState;
use crate::model::object::Verified;
use crate::model::task::TaskState;

fn found(task: &str, index: u32, destination: &str) -> FoundObject {
    FoundObject {
        task: key(task),
        index: AssetIndex(index),
        role: AssetRole::Video,
        url: format!("s3://films/{task}/{index}.mp4").parse().unwrap(),
        destination: destination.parse().unwrap(),
        key_template: "{task_id}/{index}.{ext}".parse().unwrap(),
        key: format!("{task}/{index}.mp4").parse().unwrap(),
        nonce: format!("nonce of {task} {index}"),
        media: MediaType {
            content_type: "video/mp4".to_owned(),
            extension: "mp4".to_owned(),
        },
        size: 7,
        crc64nvme: Crc64::of(b"a film."),
        sha256: None,
        etag: Some(ETag("\"tag-2\"".to_owned())),
        version_id: None,
        parts: 2,
        verified: Verified::Head,
        archived_at: Timestamp::from_unix_seconds(1_774_857_405),
    }
}

pub(in crate::manifest) async fn what_a_bucket_holds_is_written_down_and_nothing_is_changed(
    world: &World,
) {
    // One task is watched, and one has an asset that is due.
    world.complete("open", &["film?s=1"]).await;
    world.learn("watched").await;
    let before = format!("{:?}", world.record("open").await);
    let objects = vec![
        found("lost", 1, "main"),
        found("lost", 0, "main"),
        found("lost", 0, "copy"),
        found("watched", 0, "main"),
        found("open", 0, "main"),
    ];
    let rebuilt = world.manifest.rebuild(objects.clone()).await.unwrap();
    let (new, open) = (Rebuilt::New, Rebuilt::Open);
    assert_eq!(rebuilt, [new, new, new, open, open]);
    assert_eq!(format!("{:?}", world.record("open").await), before);
    assert_eq!(world.record("watched").await.state, TaskState::Watching);

    let lost = world.record("lost").await;
    assert_eq!(lost.state, TaskState::Completed);
    let mut assets = lost.assets;
    assets.sort_by_key(|asset| asset.index);
    let seen: Vec<_> = assets
        .iter()
        .map(|asset| (asset.index.0, asset.state, asset.size, asset.objects.len()))
        .collect();
    let archived = AssetState::Archived;
    assert_eq!(seen, [(0, archived, Some(7), 2), (1, archived, Some(7), 1)]);
    let object = &assets[0].objects[0];
    assert_eq!(object.destination.as_str(), "main");
    assert_eq!(object.state, ObjectState::Archived);
    assert_eq!(object.key.as_ref().unwrap().as_str(), "lost/0.mp4");
    assert_eq!(object.crc64nvme, Some(Crc64::of(b"a film.")));
    assert_eq!((object.parts, object.verified), (2, Some(Verified::Head)));
    assert_eq!(object.archived_at, Some(objects[1].archived_at));
    assert_eq!(object.nonce.as_deref(), Some("nonce of lost 0"));

    // Again it changes nothing; an object under another key is a second one.
    let mut again = objects;
    again.truncate(3);
    again.push(FoundObject {
        key: "elsewhere/0.mp4".parse().unwrap(),
        ..found("lost", 0, "main")
    });
    let rebuilt = world.manifest.rebuild(again).await.unwrap();
    let known = Rebuilt::Known;
    assert_eq!(rebuilt, [known, known, known, Rebuilt::Second]);
    // Nobody is told of what happened long ago, and nothing of it is due.
    let events = world
        .manifest
        .events(&EventFilter::default(), 100)
        .await
        .unwrap();
    assert!(events.iter().all(|event| event.event.task != key("lost")));
    let due = world.manifest.claim_assets(10).await.unwrap();
    assert!(due.iter().all(|asset| asset.task == key("open")));
    let tally = world.manifest.tally().await.unwrap();
    assert_eq!(
        (tally.assets_in(AssetState::Archived), tally.bytes_archived),
        (2, 14)
    );
}
