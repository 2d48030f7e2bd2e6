//! What people ask for, and what they see.

use std::collections::BTreeMap;

use super::world::*;
use crate::manifest::row::*;
use crate::model::asset::AssetState;
use crate::model::asset::SourceIdentity;
use crate::model::task::TaskState;

pub(in crate::manifest) async fn retry_makes_everything_due_that_is_not_archived(world: &World) {
    world.complete("a", &["one", "two", "three", "four"]).await;
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    world.archive(&claimed[0], "k").await;
    world
        .settle(&claimed[1].lease, world.ending(AssetState::Lost))
        .await;
    world
        .settle(&claimed[2].lease, world.ending(AssetState::Refused))
        .await;
    let ask = AssetSettlement {
        wants_fresh_link: true,
        ..world.try_again(600)
    };
    world.settle(&claimed[3].lease, ask).await;
    let (house, a) = (&"house".parse().unwrap(), &"a".parse().unwrap());
    let elsewhere = world
        .manifest
        .retry(Some(&"other".parse().unwrap()), a)
        .await
        .unwrap();
    assert_eq!(elsewhere, 0);
    assert_eq!(world.manifest.retry(Some(house), a).await.unwrap(), 3);
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    assert_eq!(claimed.len(), 3);
    let is_fresh = |asset: &ClaimedAsset| asset.attempts == 0 && asset.refresh_asked_at.is_none();
    assert!(claimed.iter().all(is_fresh));

    for (state, revives) in [
        (TaskState::Watching, true),
        (TaskState::Vanished, true),
        (TaskState::Abandoned, true),
        (TaskState::Failed, false),
        (TaskState::Cancelled, false),
    ] {
        let id = state.as_str();
        let task = NewTask {
            deadline: world.deadline(1),
            ..world.task(id)
        };
        world.manifest.learn(vec![task]).await.unwrap();
        let mut claimed = world.manifest.claim_tasks(1, &[]).await.unwrap();
        let settlement = TaskSettlement {
            state,
            next_look_at: (!state.is_final()).then(|| world.after(600)),
            error: None,
            is_attempt: true,
            is_miss: true,
        };
        let lease = claimed.remove(0).lease;
        world
            .manifest
            .settle_task(&lease, settlement)
            .await
            .unwrap();
        let rows = world
            .manifest
            .retry(None, &id.parse().unwrap())
            .await
            .unwrap();
        assert_eq!(rows, u64::from(revives), "{state}");
        let record = world.record(id).await;
        let expected = if revives { TaskState::Watching } else { state };
        assert_eq!(record.state, expected);
        assert_eq!(record.next_look_at, revives.then(|| world.now()));
        world
            .manifest
            .forget(house, &id.parse().unwrap())
            .await
            .unwrap();
    }
}

pub(in crate::manifest) async fn forget_deletes_a_task_and_orphans_its_uploads(world: &World) {
    world.complete("a", &["one", "two"]).await;
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    world.archive(&claimed[0], "k").await;
    world.begin(&claimed[1], 0, "l", "u1").await;
    let object = claimed[1].objects[0].row;
    world
        .manifest
        .record_part(&claimed[1].lease, object, &part(1, 5))
        .await
        .unwrap();
    let (house, a) = (&"house".parse().unwrap(), &"a".parse().unwrap());
    assert!(
        !world
            .manifest
            .forget(&"other".parse().unwrap(), a)
            .await
            .unwrap()
    );
    assert!(world.manifest.forget(house, a).await.unwrap());
    assert!(!world.manifest.forget(house, a).await.unwrap());

    let tally = world.manifest.tally().await.unwrap();
    assert_eq!(
        (tally.tasks.len(), tally.assets.len(), tally.orphans),
        (0, 0, 1)
    );
    assert_stale(
        world
            .manifest
            .record_part(&claimed[1].lease, object, &part(2, 5))
            .await,
    );
    // Learned again it is another row: what was written under the old lease cannot hit it.
    world.complete("a", &["one", "two"]).await;
    let again = world.manifest.claim_assets(10).await.unwrap();
    assert!(
        again
            .iter()
            .all(|asset| asset.lease.row > claimed[1].lease.row)
    );
}

pub(in crate::manifest) async fn records_show_all_that_is_known(world: &World) {
    world.complete("a", &["film?s=1"]).await;
    let record = world.record("a").await;
    assert_eq!(record.key, key("a"));
    assert_eq!(record.state, TaskState::Completed);
    let asset = &record.assets[0];
    assert_eq!(
        (asset.state, asset.due_at),
        (AssetState::Due, Some(world.now()))
    );
    assert_eq!(asset.url.as_str(), "https://cdn.test/film?s=1");
    assert_eq!(asset.source, SourceIdentity::default());
    assert!(asset.media.is_empty());
    let destinations: Vec<_> = asset
        .objects
        .iter()
        .map(|object| object.destination.as_str())
        .collect();
    assert_eq!(destinations, ["main", "copy"]);
    assert!(
        asset
            .objects
            .iter()
            .all(|object| object.key.is_none() && object.parts == 0)
    );
}

pub(in crate::manifest) async fn filters_and_pages(world: &World) {
    world.complete("a", &["one"]).await;
    let asset = world.claim_asset().await;
    world.archive(&asset, "k").await;
    world.advance(10);
    world.complete("b", &["two"]).await;
    let other = NewTask {
        key: crate::model::task::TaskKey {
            provider: "other".parse().unwrap(),
            ..key("a")
        },
        deadline: world.deadline(100_000),
        ..world.task("a")
    };
    world.manifest.learn(vec![other]).await.unwrap();

    let check = async |filter: TaskFilter, most: usize, expected: &[&str]| {
        let records = world.manifest.tasks(&filter, most).await.unwrap();
        let found: Vec<_> = records
            .iter()
            .map(|record| format!("{}/{}", record.key.provider, record.key.id))
            .collect();
        assert_eq!(found, expected, "{filter:?}");
        records.last().map(|record| record.row)
    };
    let all = TaskFilter::default;
    check(all(), 10, &["house/a", "house/b", "other/a"]).await;
    let last = check(all(), 2, &["house/a", "house/b"]).await;
    check(
        TaskFilter {
            after_row: last,
            ..all()
        },
        2,
        &["other/a"],
    )
    .await;
    let id = Some("a".parse().unwrap());
    check(
        TaskFilter {
            id: id.clone(),
            ..all()
        },
        10,
        &["house/a", "other/a"],
    )
    .await;
    let provider = Some("other".parse().unwrap());
    check(
        TaskFilter {
            provider,
            id,
            ..all()
        },
        10,
        &["other/a"],
    )
    .await;
    let state = Some(TaskState::Watching);
    check(TaskFilter { state, ..all() }, 10, &["other/a"]).await;
    let asset_state = Some(AssetState::Archived);
    check(
        TaskFilter {
            asset_state,
            ..all()
        },
        10,
        &["house/a"],
    )
    .await;
    check(
        TaskFilter {
            since: Some(world.now()),
            ..all()
        },
        10,
        &["house/b", "other/a"],
    )
    .await;
    let at_risk = TaskFilter {
        at_risk: Some(world.danger(90_000)),
        since: Some(world.now()),
        ..all()
    };
    check(at_risk, 10, &["house/b"]).await;
    let at_risk = TaskFilter {
        at_risk: Some(world.danger(200_000)),
        ..all()
    };
    check(at_risk, 10, &["house/b", "other/a"]).await;
    let at_risk = TaskFilter {
        at_risk: Some(world.danger(10)),
        ..all()
    };
    check(at_risk, 10, &[]).await;
}

pub(in crate::manifest) async fn the_newest_come_first_and_ids_are_found_by_how_they_begin(
    world: &World,
) {
    for id in ["film-1", "film-2", "Film-3", "other"] {
        world.manifest.learn(vec![world.task(id)]).await.unwrap();
    }
    let check = async |prefix: Option<&str>, after_row: Option<i64>, expected: &[&str]| {
        let filter = TaskFilter {
            id_prefix: prefix.map(str::to_owned),
            after_row,
            is_newest_first: true,
            ..TaskFilter::default()
        };
        let records = world.manifest.tasks(&filter, 2).await.unwrap();
        let found: Vec<&str> = records.iter().map(|it| it.key.id.as_str()).collect();
        assert_eq!(found, expected, "{prefix:?}");
        records.last().map(|record| record.row)
    };
    let last = check(None, None, &["other", "Film-3"]).await;
    let last = check(None, last, &["film-2", "film-1"]).await;
    check(None, last, &[]).await;
    check(Some("film-"), None, &["film-2", "film-1"]).await;
    check(Some("film-1"), None, &["film-1"]).await;
    check(Some("film-12"), None, &[]).await;
    // What a pattern would mean something by means itself.
    for none in ["%", "film_", "*", "'"] {
        check(Some(none), None, &[]).await;
    }
}

pub(in crate::manifest) async fn what_waits_is_told_by_its_errors(world: &World) {
    let waiting = async |most| {
        let waiting = world.manifest.waiting(most).await.unwrap();
        let told = waiting.into_iter();
        let told =
            told.map(|it| format!("{} {} of {}: {}", it.rows, it.what, it.provider, it.error));
        told.collect::<Vec<_>>()
    };
    world.complete("a", &["one", "two", "three", "four"]).await;
    assert!(waiting(10).await.is_empty());
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    for asset in &claimed[..2] {
        world.settle(&asset.lease, world.try_again(60)).await;
    }
    // What is over waits for nothing, whatever its last error was.
    let lost = AssetSettlement {
        error: Some("gone".into()),
        ..world.ending(AssetState::Lost)
    };
    world.settle(&claimed[2].lease, lost).await;
    world.learn("b").await;
    let refused = TaskSettlement {
        state: TaskState::Watching,
        next_look_at: Some(world.after(60)),
        error: Some("provider house answered 401".into()),
        is_attempt: true,
        is_miss: false,
    };
    let task = world.claim_task().await;
    let settled = world.manifest.settle_task(&task.lease, refused).await;
    settled.unwrap();
    let both = [
        "2 assets of house: the origin answered 403",
        "1 tasks of house: provider house answered 401",
    ];
    assert_eq!(waiting(10).await, both);
    assert_eq!(waiting(1).await, both[..1]);
}

pub(in crate::manifest) async fn the_tally_counts_everything(world: &World) {
    let empty = world.manifest.tally().await.unwrap();
    assert!(empty.tasks.is_empty() && empty.assets.is_empty() && empty.next_deadline.is_none());
    world.complete("a", &["one", "two", "three"]).await;
    let claimed = world.manifest.claim_assets(2).await.unwrap();
    world.archive(&claimed[0], "k").await;
    world.begin(&claimed[1], 0, "l", "u1").await;
    world
        .settle(&claimed[1].lease, world.ending(AssetState::Lost))
        .await;
    let soon = NewTask {
        deadline: world.deadline(5),
        ..world.task("b")
    };
    world.manifest.learn(vec![soon]).await.unwrap();

    let tally = world.manifest.tally().await.unwrap();
    assert_eq!(
        tally.tasks,
        [(TaskState::Watching, 1), (TaskState::Completed, 1)]
    );
    let assets = [
        (AssetState::Due, 1),
        (AssetState::Archived, 1),
        (AssetState::Lost, 1),
    ];
    assert_eq!(tally.assets, assets);
    assert_eq!((tally.bytes_archived, tally.orphans), (18_312_004, 1));
    assert_eq!(tally.next_deadline, Some(world.after(5)));
}

/// The tally is kept beside the rows: it is what counting them gives, whatever became of them.
pub(in crate::manifest) async fn the_tally_follows_every_row(world: &World) {
    let agrees = async || {
        let all = TaskFilter::default();
        let records = world.manifest.tasks(&all, 100).await.unwrap();
        let (mut tasks, mut assets, mut bytes) = (BTreeMap::new(), BTreeMap::new(), 0);
        for record in &records {
            *tasks.entry(record.state).or_insert(0) += 1;
            for asset in &record.assets {
                *assets.entry(asset.state).or_insert(0) += 1;
                if asset.state == AssetState::Archived {
                    bytes += asset.size.unwrap();
                }
            }
        }
        let tally = world.manifest.tally().await.unwrap();
        assert_eq!(tally.tasks, tasks.into_iter().collect::<Vec<_>>());
        assert_eq!(tally.assets, assets.into_iter().collect::<Vec<_>>());
        assert_eq!(tally.bytes_archived, bytes);
    };
    agrees().await;
    world.complete("a", &["one", "two", "three"]).await;
    world.learn("b").await;
    agrees().await;
    let claimed = world.manifest.claim_assets(10).await.unwrap();
    world.archive(&claimed[0], "k").await;
    let lost = world.ending(AssetState::Lost);
    world.settle(&claimed[1].lease, lost).await;
    agrees().await;
    let (house, id) = ("house".parse().unwrap(), |id: &str| id.parse().unwrap());
    world.manifest.retry(None, &id("a")).await.unwrap();
    agrees().await;
    // Its assets go with it.
    world.manifest.forget(&house, &id("a")).await.unwrap();
    agrees().await;
    world.manifest.forget(&house, &id("b")).await.unwrap();
    agrees().await;
}
