//! Assets, objects and uploads under lease.

use super::world::*;
use crate::manifest::ManifestError;
use crate::manifest::row::*;
use crate::model::asset::AssetIndex;
use crate::model::asset::AssetRole;
use crate::model::asset::AssetState;
use crate::model::key::ObjectKey;
use crate::model::object::ObjectState;
use crate::model::object::PartNumber;
use crate::model::object::UploadId;
use crate::model::object::Verified;
use crate::model::task::FETCH_PROVIDER;
use crate::model::task::Tags;
use crate::model::task::TaskKey;
use crate::units::Span;

pub(in crate::manifest) async fn results_become_due_assets_with_an_object_for_each_destination(
    world: &World,
) {
    world.learn("a").await;
    let task = world.claim_task().await;
    let mut observation = world.completed(&["film?s=1", "frame"]);
    observation.assets[1].link.role = AssetRole::Image;
    observation.assets[1].deadline = world.deadline(60);
    let observed = world
        .manifest
        .observe(&task.lease, observation)
        .await
        .unwrap();
    assert_eq!(
        observed,
        Observed {
            assets_new: 2,
            links_refreshed: 0
        }
    );

    let claimed = world.manifest.claim_assets(10).await.unwrap();
    let order: Vec<_> = claimed
        .iter()
        .map(|asset| (asset.index, asset.role))
        .collect();
    assert_eq!(
        order,
        [
            (AssetIndex(1), AssetRole::Image),
            (AssetIndex(0), AssetRole::Video)
        ]
    );
    let film = &claimed[1];
    assert_eq!(film.task, key("a"));
    assert_eq!(film.url.as_str(), "https://cdn.test/film?s=1");
    assert_eq!(film.created_at, world.record("a").await.learned_at);
    let objects: Vec<_> = film
        .objects
        .iter()
        .map(|object| (object.destination.as_str(), object.state))
        .collect();
    assert_eq!(
        objects,
        [("main", ObjectState::Due), ("copy", ObjectState::Due)]
    );
    assert_eq!(
        film.objects[0].key_template.as_str(),
        "{task_id}/{index}.{ext}"
    );
    assert!(film.objects[0].name.is_none() && film.objects[0].upload.is_none());
    assert!(world.manifest.claim_assets(10).await.unwrap().is_empty());
    // Where only what dies early is wanted, the rest stays for others.
    world.advance(61);
    let (image, film) = (claimed[0].deadline.at, claimed[1].deadline.at);
    assert!(image < film);
    let early = world.manifest.claim_urgent_assets(10, film).await.unwrap();
    let early: Vec<_> = early.iter().map(|asset| asset.index).collect();
    assert_eq!(early, [AssetIndex(1)]);
    assert_eq!(world.manifest.claim_assets(10).await.unwrap().len(), 1);
}

pub(in crate::manifest) async fn a_fresh_link_is_asked_for_and_given(world: &World) {
    world.complete("a", &["film?s=1", "frame?s=1"]).await;
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    let ask = AssetSettlement {
        wants_fresh_link: true,
        ..world.try_again(600)
    };
    world.settle(&claimed[0].lease, ask.clone()).await;
    world.settle(&claimed[1].lease, world.try_again(600)).await;

    // The provider has nothing new: the asset waits on, and knows that it asked in vain.
    assert_eq!(
        world.see_completed(&["film?s=1", "frame?s=1"]).await,
        Observed::default()
    );
    assert!(world.manifest.claim_assets(10).await.unwrap().is_empty());
    world.advance(600);
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    let asked: Vec<_> = claimed
        .iter()
        .map(|asset| asset.refresh_asked_at.is_some())
        .collect();
    assert_eq!(asked, [true, false]);
    world.settle(&claimed[0].lease, ask).await;
    world.settle(&claimed[1].lease, world.try_again(600)).await;

    // Both links are signed anew: only the one that was asked for makes its asset due.
    let observed = world.see_completed(&["film?s=2", "frame?s=2"]).await;
    assert_eq!(
        observed,
        Observed {
            assets_new: 0,
            links_refreshed: 1
        }
    );
    let asset = world.claim_asset().await;
    assert_eq!(asset.url.as_str(), "https://cdn.test/film?s=2");
    // Until it has brought something, it counts with the links before it.
    let counted = (asset.attempts, asset.refresh_asked_at);
    assert_eq!(counted, (2, Some(world.now())));
    assert_eq!(asset.deadline.at, world.now().plus(TTL));
    assert_eq!(
        asset.task_deadline_at.plus(Span::from_secs(600)),
        asset.deadline.at,
        "the first links' stays"
    );
    let frame = &world.record("a").await.assets[1];
    assert_eq!(
        frame.url.as_str(),
        "https://cdn.test/frame?s=2",
        "it lives longer"
    );
    assert_eq!(frame.due_at, Some(world.after(600)));

    let gained = AssetSettlement {
        has_gained: true,
        ..world.try_again(0)
    };
    world.settle(&asset.lease, gained).await;
    assert_eq!(world.claim_asset().await.attempts, 1);
}

pub(in crate::manifest) async fn a_lost_asset_with_a_new_link_is_due_again_and_archived_ones_stay(
    world: &World,
) {
    world.complete("a", &["one", "two?s=1", "three"]).await;
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    world.archive(&claimed[0], "k").await;
    world
        .settle(&claimed[1].lease, world.ending(AssetState::Lost))
        .await;
    world
        .settle(&claimed[2].lease, world.ending(AssetState::Refused))
        .await;
    let archived = format!("{:?}", world.record("a").await.assets[0]);
    assert!(
        world
            .manifest
            .claim_tasks(10, &[])
            .await
            .unwrap()
            .is_empty()
    );

    let again = world
        .manifest
        .retry(None, &"nobody".parse().unwrap())
        .await
        .unwrap();
    assert_eq!(again, 0);
    let link = NewLink {
        key: key("a"),
        tags: Tags::new(),
        asset: world.seen(&["two?s=2"]).remove(0),
        objects: route(&["main"]),
    };
    world.manifest.learn_link(link).await.unwrap();
    let asset = world.claim_asset().await;
    assert_eq!((asset.index, asset.attempts), (AssetIndex(1), 0));
    let record = world.record("a").await;
    let states: Vec<_> = record.assets.iter().map(|asset| asset.state).collect();
    assert_eq!(
        states,
        [AssetState::Archived, AssetState::Due, AssetState::Refused]
    );
    assert_eq!(format!("{:?}", record.assets[0]), archived);
}

pub(in crate::manifest) async fn nobody_is_asked_for_a_fresh_bare_link(world: &World) {
    let link = NewLink {
        key: TaskKey {
            provider: FETCH_PROVIDER.parse().unwrap(),
            ..key("x")
        },
        tags: Tags::new(),
        asset: world.seen(&["a"]).remove(0),
        objects: route(&["main"]),
    };
    world.manifest.learn_link(link).await.unwrap();
    let asset = world.claim_asset().await;
    let ask = AssetSettlement {
        wants_fresh_link: true,
        ..world.try_again(0)
    };
    world.settle(&asset.lease, ask).await;
    assert_eq!(
        world.manifest.next_due(Claimable::Tasks).await.unwrap(),
        None
    );
    assert_eq!(
        world.claim_asset().await.refresh_asked_at,
        Some(world.now())
    );
}

pub(in crate::manifest) async fn a_stale_lease_changes_nothing(world: &World) {
    world.complete("a", &["a"]).await;
    let late = world.claim_asset().await;
    world.begin(&late, 0, "k", "u1").await;
    let object = late.objects[0].row;
    world
        .manifest
        .record_part(&late.lease, object, &part(1, 5))
        .await
        .unwrap();
    world.advance(60);
    let owner = world.claim_asset().await;
    let before = world.everything().await;

    let (manifest, lease) = (&world.manifest, &late.lease);
    assert_stale(
        manifest
            .name_object(lease, object, &world.object_name("other"))
            .await,
    );
    assert_stale(
        manifest
            .begin_upload(lease, object, &new_upload("u2"))
            .await,
    );
    assert_stale(manifest.record_part(lease, object, &part(2, 5)).await);
    assert_stale(manifest.retain_parts(lease, object, &[]).await);
    assert_stale(manifest.retire_upload(lease, object).await);
    assert_stale(
        manifest
            .orphan_uploads(lease, object, &[UploadId("u9".into())])
            .await,
    );
    assert_stale(manifest.mark_archived(lease, object, &proof()).await);
    assert_stale(
        manifest
            .settle_asset(lease, world.ending(AssetState::Lost))
            .await,
    );
    assert_eq!(
        manifest.renew(Claimable::Assets, &[*lease]).await.unwrap(),
        [*lease]
    );
    assert_eq!(world.everything().await, before);
    manifest
        .record_part(&owner.lease, object, &part(2, 5))
        .await
        .unwrap();
    assert_ne!(world.everything().await, before);
}

pub(in crate::manifest) async fn an_upload_is_found_again_with_its_parts(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    world.begin(&asset, 1, "k", "u1").await;
    let object = asset.objects[1].row;
    for (number, length) in [(2, 8), (1, 8), (2, 9), (3, 4)] {
        let part = part(number, length);
        world
            .manifest
            .record_part(&asset.lease, object, &part)
            .await
            .unwrap();
    }
    // The same upload once more is no other one.
    world
        .manifest
        .begin_upload(&asset.lease, object, &new_upload("u1"))
        .await
        .unwrap();
    world.settle(&asset.lease, world.try_again(0)).await;

    let asset = world.claim_asset().await;
    assert_eq!(asset.attempts, 1);
    let claimed = &asset.objects[1];
    assert_eq!(claimed.state, ObjectState::Uploading);
    assert_eq!(claimed.name, Some(world.object_name("k")));
    let upload = claimed.upload.as_ref().unwrap();
    assert_eq!((upload.id.0.as_str(), upload.part_size), ("u1", 8 << 20));
    assert_eq!(upload.source, source());
    assert_eq!(upload.parts, [part(1, 8), part(2, 9), part(3, 4)]);
    let shown = &world.record("a").await.assets[0].objects[1];
    assert_eq!((shown.parts, shown.bytes_stored), (3, 21));

    let stored = [PartNumber(1), PartNumber(3), PartNumber(7)];
    world
        .manifest
        .retain_parts(&asset.lease, object, &stored)
        .await
        .unwrap();
    world
        .manifest
        .retain_parts(&asset.lease, asset.objects[0].row, &[])
        .await
        .unwrap();
    world.settle(&asset.lease, world.try_again(0)).await;
    let asset = world.claim_asset().await;
    let upload = asset.objects[1].upload.as_ref().unwrap();
    assert_eq!(upload.parts, [part(1, 8), part(3, 4)]);

    world
        .manifest
        .retire_upload(&asset.lease, object)
        .await
        .unwrap();
    world
        .manifest
        .retire_upload(&asset.lease, object)
        .await
        .unwrap();
    let late = world
        .manifest
        .record_part(&asset.lease, object, &part(1, 8))
        .await;
    assert!(late.is_err(), "no upload, no parts");
    world.settle(&asset.lease, world.try_again(0)).await;
    let asset = world.claim_asset().await;
    assert_eq!(asset.objects[1].state, ObjectState::Due);
    assert!(asset.objects[1].upload.is_none() && asset.objects[1].name.is_some());
    let orphans = world.manifest.claim_orphans(10).await.unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!(
        (
            orphans[0].destination.as_str(),
            orphans[0].upload.0.as_str()
        ),
        ("copy", "u1")
    );
}

pub(in crate::manifest) async fn no_key_is_given_twice(world: &World) {
    world.complete("a", &["one", "two"]).await;
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    world.name(&claimed[0], 0, "k").await;
    world.name(&claimed[0], 0, "k").await;
    world.name(&claimed[1], 1, "k").await;
    let object = claimed[1].objects[0].row;
    let taken = world
        .manifest
        .name_object(&claimed[1].lease, object, &world.object_name("k"))
        .await;
    let Err(ManifestError::KeyTaken { destination, key }) = taken else {
        panic!("{taken:?}");
    };
    assert_eq!((destination.as_str(), key.as_str()), ("main", "k"));
    // An object of another asset cannot be named under this lease.
    let theirs = claimed[0].objects[0].row;
    let name = world.object_name("elsewhere");
    assert!(
        world
            .manifest
            .name_object(&claimed[1].lease, theirs, &name)
            .await
            .is_err()
    );
    let unnamed = world
        .manifest
        .begin_upload(&claimed[1].lease, object, &new_upload("u"))
        .await;
    assert!(unnamed.is_err(), "an upload is opened under a name");
}

pub(in crate::manifest) async fn another_key_orphans_the_upload_under_the_old_one(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    world.begin(&asset, 0, "old.mp4", "u1").await;
    world.name(&asset, 0, "new.webm").await;
    let orphans = world.manifest.claim_orphans(10).await.unwrap();
    assert_eq!(orphans.len(), 1);
    assert_eq!(
        (orphans[0].key.as_str(), orphans[0].upload.0.as_str()),
        ("old.mp4", "u1")
    );
    let object = asset.objects[0].row;
    world
        .manifest
        .begin_upload(&asset.lease, object, &new_upload("u2"))
        .await
        .unwrap();
    world
        .manifest
        .begin_upload(&asset.lease, object, &new_upload("u3"))
        .await
        .unwrap();
    let orphans = world.manifest.claim_orphans(10).await.unwrap();
    assert_eq!(
        (orphans[0].key.as_str(), orphans[0].upload.0.as_str()),
        ("new.webm", "u2")
    );
}

pub(in crate::manifest) async fn archived_when_every_object_is(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    world.begin(&asset, 0, "k", "u1").await;
    let [main, copy] = [asset.objects[0].row, asset.objects[1].row];
    world
        .manifest
        .record_part(&asset.lease, main, &part(1, 5))
        .await
        .unwrap();
    let unnamed = world
        .manifest
        .mark_archived(&asset.lease, copy, &proof())
        .await;
    assert!(unnamed.is_err(), "what has no name is nowhere");
    assert!(
        !world
            .manifest
            .mark_archived(&asset.lease, main, &proof())
            .await
            .unwrap()
    );
    assert_eq!(world.record("a").await.assets[0].state, AssetState::Due);
    let renamed = world.object_name("elsewhere");
    assert!(
        world
            .manifest
            .name_object(&asset.lease, main, &renamed)
            .await
            .is_err()
    );
    world.settle(&asset.lease, world.try_again(0)).await;

    let asset = world.claim_asset().await;
    assert_eq!(asset.objects[0].state, ObjectState::Archived);
    world.name(&asset, 1, "k").await;
    assert!(
        world
            .manifest
            .mark_archived(&asset.lease, copy, &proof())
            .await
            .unwrap()
    );
    assert_stale(
        world
            .manifest
            .settle_asset(&asset.lease, world.try_again(0))
            .await,
    );
    assert_eq!(
        world.manifest.next_due(Claimable::Assets).await.unwrap(),
        None
    );
    assert!(
        world.manifest.claim_orphans(10).await.unwrap().is_empty(),
        "it was completed"
    );

    let record = &world.record("a").await.assets[0];
    assert_eq!((record.state, record.due_at), (AssetState::Archived, None));
    assert_eq!(
        (record.size, record.error.as_ref()),
        (Some(18_312_004), None)
    );
    assert_eq!(record.content_type.as_deref(), Some("video/mp4"));
    assert_eq!(
        (record.sha256, record.crc64nvme),
        (proof().sha256, Some(proof().crc64nvme))
    );
    assert_eq!(record.media, media());
    assert_eq!(
        (record.archived_at, &record.source),
        (Some(world.now()), &source())
    );
    let main = &record.objects[0];
    assert_eq!(
        (main.state, main.parts, main.bytes_stored),
        (ObjectState::Archived, 2, 0)
    );
    assert_eq!(
        (main.verified, &main.etag),
        (Some(Verified::Checksum), &proof().etag)
    );
    assert_eq!(main.key.as_ref().map(ObjectKey::as_str), Some("k"));
}

pub(in crate::manifest) async fn a_final_settlement_orphans_open_uploads(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    world.begin(&asset, 0, "k", "u1").await;
    world.begin(&asset, 1, "k", "u2").await;
    world
        .settle(&asset.lease, world.ending(AssetState::Refused))
        .await;
    assert_eq!(world.manifest.tally().await.unwrap().orphans, 2);
    let record = &world.record("a").await.assets[0];
    assert_eq!(record.state, AssetState::Refused);
    assert_eq!(record.error.as_deref(), Some("the origin answered 403"));
    assert!(
        record
            .objects
            .iter()
            .all(|object| object.state == ObjectState::Due)
    );
}

pub(in crate::manifest) async fn every_asset_is_final_or_has_a_due_time(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    let before = world.everything().await;
    for (state, due_at) in [
        (AssetState::Due, None),
        (AssetState::Lost, Some(world.now())),
        (AssetState::Refused, Some(world.now())),
        // Archived is what proofs make, never a settlement.
        (AssetState::Archived, None),
    ] {
        let settlement = AssetSettlement {
            state,
            due_at,
            ..world.try_again(0)
        };
        let refused = world.manifest.settle_asset(&asset.lease, settlement).await;
        assert!(
            matches!(refused, Err(ManifestError::Unfit { .. })),
            "{state} {refused:?}"
        );
    }
    assert_eq!(world.everything().await, before);
    world
        .settle(&asset.lease, world.ending(AssetState::Lost))
        .await;
}
