//! Orphans, alarms and due times.

use super::world::*;
use crate::manifest::row::*;
use crate::model::asset::AssetIndex;
use crate::model::deadline::Danger;
use crate::model::deadline::Deadline;
use crate::model::deadline::DeadlineSource;
use crate::model::object::UploadId;
use crate::units::Span;

pub(in crate::manifest) async fn orphans_are_claimed_until_they_are_aborted(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    world.begin(&asset, 0, "k", "u1").await;
    world
        .manifest
        .retire_upload(&asset.lease, asset.objects[0].row)
        .await
        .unwrap();

    let orphan = world.manifest.claim_orphans(10).await.unwrap().remove(0);
    assert!(world.manifest.claim_orphans(10).await.unwrap().is_empty());
    world
        .manifest
        .settle_orphan(&orphan.lease, Some(world.after(5)))
        .await
        .unwrap();
    assert_stale(world.manifest.settle_orphan(&orphan.lease, None).await);
    assert_eq!(
        world.manifest.next_due(Claimable::Orphans).await.unwrap(),
        Some(world.after(5))
    );
    assert!(world.manifest.claim_orphans(10).await.unwrap().is_empty());
    world.advance(5);
    let late = world.manifest.claim_orphans(10).await.unwrap().remove(0);
    assert_eq!(late.attempts, 1);
    world.advance(60);
    let orphan = world.manifest.claim_orphans(10).await.unwrap().remove(0);
    assert_stale(world.manifest.settle_orphan(&late.lease, None).await);
    world
        .manifest
        .settle_orphan(&orphan.lease, None)
        .await
        .unwrap();
    assert_eq!(world.manifest.tally().await.unwrap().orphans, 0);
    assert_eq!(
        world.manifest.next_due(Claimable::Orphans).await.unwrap(),
        None
    );
}

pub(in crate::manifest) async fn uploads_that_no_row_has_become_orphans(world: &World) {
    world.complete("a", &["a"]).await;
    let asset = world.claim_asset().await;
    world.begin(&asset, 0, "k", "ours").await;
    let found: Vec<_> = ["ours", "lost1", "lost2"]
        .map(|id| UploadId(id.into()))
        .into();
    let object = asset.objects[0].row;
    world
        .manifest
        .orphan_uploads(&asset.lease, object, &found)
        .await
        .unwrap();
    world
        .manifest
        .orphan_uploads(&asset.lease, object, &found)
        .await
        .unwrap();
    let orphans = world.manifest.claim_orphans(10).await.unwrap();
    let uploads: Vec<_> = orphans
        .iter()
        .map(|orphan| orphan.upload.0.as_str())
        .collect();
    assert_eq!(uploads, ["lost1", "lost2"]);
    assert_eq!(orphans[0].key.as_str(), "k");
}

pub(in crate::manifest) async fn an_alarm_is_raised_once_for_a_deadline(world: &World) {
    let dies_in = |id: &str, seconds| NewTask {
        deadline: world.deadline(seconds),
        ..world.task(id)
    };
    world.complete("a", &["a"]).await;
    world
        .manifest
        .learn(vec![dies_in("soon", 100), dies_in("far", 200_000)])
        .await
        .unwrap();
    let names = |risks: &[AtRisk]| -> Vec<(String, Option<AssetIndex>)> {
        risks
            .iter()
            .map(|risk| (risk.task.id.to_string(), risk.index))
            .collect()
    };
    let danger = world.danger(100_000);
    let both = [
        ("soon".to_owned(), None),
        ("a".to_owned(), Some(AssetIndex(0))),
    ];
    let raised = world.manifest.raise_alarms(danger).await.unwrap();
    assert_eq!(names(&raised), both);
    assert!(
        world
            .manifest
            .raise_alarms(danger)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        names(&world.manifest.at_risk(danger, 10).await.unwrap()),
        both
    );
    assert_eq!(
        names(&world.manifest.at_risk(danger, 1).await.unwrap()),
        both[..1]
    );

    // A look that moves the deadline a little is no reason for another alarm; one that ends the danger is.
    let see = async |seconds| {
        let mut claimed = world.manifest.claim_tasks(1, &[]).await.unwrap();
        let observation = Observation {
            deadline: world.deadline(seconds),
            next_look_at: Some(world.now()),
            ..world.running()
        };
        world
            .manifest
            .observe(&claimed.remove(0).lease, observation)
            .await
            .unwrap();
        world.manifest.raise_alarms(danger).await.unwrap()
    };
    assert!(see(150).await.is_empty());
    assert!(see(150_000).await.is_empty());
    assert_eq!(names(&see(150).await), both[..1]);

    // A fresh link that lives no longer than the last is no reason for another alarm; one that lives far longer is.
    world.advance(10);
    let refreshed = async |link: &str, seconds| {
        let asset = world.claim_asset().await;
        let ask = AssetSettlement {
            wants_fresh_link: true,
            ..world.try_again(0)
        };
        world.settle(&asset.lease, ask).await;
        let claimed = world.manifest.claim_tasks(10, &[]).await.unwrap();
        let task = claimed.iter().find(|task| task.key == key("a")).unwrap();
        let mut observation = world.completed(&[link]);
        observation.assets[0].deadline = world.deadline(seconds);
        let seen = world.manifest.observe(&task.lease, observation).await;
        assert_eq!(seen.unwrap().links_refreshed, 1);
        let danger = world.danger(seconds + 1);
        world.manifest.raise_alarms(danger).await.unwrap()
    };
    assert!(refreshed("a?s=2", 86_400).await.is_empty());
    let raised = refreshed("a?s=3", 199_000).await;
    assert_eq!(names(&raised), both[1..]);
    assert_eq!(raised[0].error.as_deref(), Some("the origin answered 403"));
}

pub(in crate::manifest) async fn a_short_life_is_in_danger_in_its_last_third(world: &World) {
    let manifest = &world.manifest;
    let hour = |from| Deadline {
        at: world.after(3_600),
        from,
    };
    let task = NewTask {
        deadline: hour(DeadlineSource::Learned),
        ..world.task("a")
    };
    manifest.learn(vec![task]).await.unwrap();
    let danger = || Danger::within(Span::from_secs(6 * 3_600), world.now());
    let is_raised = async || {
        let raised = manifest.raise_alarms(danger()).await.unwrap();
        let found = manifest.at_risk(danger(), 10).await.unwrap();
        let filter = TaskFilter {
            at_risk: Some(danger()),
            ..TaskFilter::default()
        };
        let listed = manifest.tasks(&filter, 10).await.unwrap();
        assert_eq!(found.len(), listed.len());
        (raised.len(), found.len())
    };
    assert_eq!(is_raised().await, (0, 0));
    world.advance(2_390);
    assert_eq!(is_raised().await, (0, 0));
    world.advance(20);
    assert_eq!(is_raised().await, (1, 1));
    assert_eq!(is_raised().await, (0, 1));
    // Seen unfinished, it has an hour again; then the next alarm is another one.
    let lease = world.claim_task().await.lease;
    let running = Observation {
        deadline: hour(DeadlineSource::LastSeen),
        ..world.running()
    };
    manifest.observe(&lease, running).await.unwrap();
    assert_eq!(is_raised().await, (0, 0));
    world.advance(2_410);
    assert_eq!(is_raised().await, (1, 1));
    // The same goes for an asset.
    let lease = world.claim_task().await.lease;
    let mut completed = world.completed(&["a"]);
    completed.sighting.completed = Some(world.now());
    for asset in &mut completed.assets {
        asset.deadline = hour(DeadlineSource::Preset);
    }
    manifest.observe(&lease, completed).await.unwrap();
    assert_eq!(is_raised().await, (0, 0));
    world.advance(2_410);
    assert_eq!(is_raised().await, (1, 1));
}

pub(in crate::manifest) async fn the_next_due_time_minds_leases(world: &World) {
    let next = async || world.manifest.next_due(Claimable::Tasks).await.unwrap();
    assert_eq!(next().await, None);
    world.learn("a").await;
    assert_eq!(next().await, Some(world.now()));
    let task = world.claim_task().await;
    assert_eq!(next().await, Some(task.lease.expires_at));
    let later = NewTask {
        next_look_at: world.after(90),
        ..world.task("b")
    };
    world.manifest.learn(vec![later]).await.unwrap();
    assert_eq!(next().await, Some(task.lease.expires_at));
    let observation = Observation {
        next_look_at: Some(world.after(300)),
        ..world.running()
    };
    world
        .manifest
        .observe(&task.lease, observation)
        .await
        .unwrap();
    assert_eq!(next().await, Some(world.after(90)));
    assert_eq!(
        world.manifest.next_due(Claimable::Assets).await.unwrap(),
        None
    );
}

pub(in crate::manifest) async fn what_is_due_later_than_any_wait_is_due_now(world: &World) {
    let manifest = &world.manifest;
    let longest = Span::from_secs(3600);
    let pull_in = async |table| manifest.pull_in(table, longest).await.unwrap();
    let next = async |table| manifest.next_due(table).await.unwrap();
    for (id, seconds) in [("a", 3600), ("b", 3601), ("c", 172_800)] {
        let task = NewTask {
            next_look_at: world.after(seconds),
            ..world.task(id)
        };
        manifest.learn(vec![task]).await.unwrap();
    }
    assert_eq!(pull_in(Claimable::Tasks).await, 2);
    assert_eq!(pull_in(Claimable::Tasks).await, 0);
    let claimed = manifest.claim_tasks(10, &[]).await.unwrap();
    let mut ids: Vec<&str> = claimed.iter().map(|task| task.key.id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["b", "c"]);
    // What is claimed belongs to whoever claimed it, and what is over stays over.
    assert_eq!(pull_in(Claimable::Tasks).await, 0);

    world.complete("d", &["d"]).await;
    let asset = world.claim_asset().await;
    assert_eq!(pull_in(Claimable::Assets).await, 0);
    world.settle(&asset.lease, world.try_again(172_800)).await;
    assert_eq!(next(Claimable::Assets).await, Some(world.after(172_800)));
    assert_eq!(pull_in(Claimable::Assets).await, 1);
    assert_eq!(next(Claimable::Assets).await, Some(world.now()));
    for table in Claimable::ALL {
        assert_eq!(pull_in(table).await, 0, "{table:?}");
    }
}
