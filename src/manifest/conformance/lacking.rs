//! Daemons that do not all have the same: what one lacks is left to others, and costs it nothing.

use super::world::*;
use crate::manifest::elsewhere::Known;
use crate::manifest::row::*;
use crate::model::asset::AssetState;
use crate::model::task::TaskKey;
use crate::model::task::TaskState;

/// Makes the world's daemon one that has these.
async fn becomes(world: &World, providers: &[&str], destinations: &[&str]) {
    world.manifest.knows(Known {
        providers: providers.iter().map(|it| it.parse().unwrap()).collect(),
        destinations: destinations.iter().map(|it| it.parse().unwrap()).collect(),
    });
    world.manifest.look_elsewhere().await.unwrap();
}

/// Providers and destinations that something waits for, each with how much.
async fn elsewhere(world: &World) -> Vec<(String, u64)> {
    let found = world.manifest.look_elsewhere().await.unwrap();
    assert_eq!(found, world.manifest.elsewhere());
    let providers = found
        .providers
        .iter()
        .map(|(name, n)| (name.to_string(), *n));
    let destinations = found.destinations.iter();
    let destinations = destinations.map(|(name, n)| (name.to_string(), *n));
    providers.chain(destinations).collect()
}

fn waiting(name: &str, count: u64) -> Vec<(String, u64)> {
    vec![(name.to_owned(), count)]
}

pub(in crate::manifest) async fn tasks_of_a_provider_that_a_daemon_lacks_are_left_to_others(
    world: &World,
) {
    becomes(world, &["house"], &["main", "copy"]).await;
    let theirs = |id: &str| NewTask {
        key: TaskKey {
            provider: "other".parse().unwrap(),
            id: id.parse().unwrap(),
        },
        deadline: world.deadline(60),
        ..world.task("x")
    };
    world
        .manifest
        .learn(vec![theirs("a"), world.task("b")])
        .await
        .unwrap();
    // What is not found out yet is claimed once, and never after it was given back.
    let claimed = world.manifest.claim_tasks(1, &[]).await.unwrap();
    assert_eq!(claimed[0].key.id.as_str(), "a");
    let back = TaskSettlement {
        state: TaskState::Watching,
        next_look_at: Some(world.now()),
        error: None,
        is_attempt: false,
        is_miss: false,
    };
    world
        .manifest
        .settle_task(&claimed[0].lease, back)
        .await
        .unwrap();
    world.manifest.learn(vec![theirs("c")]).await.unwrap();
    let claimed = world.manifest.claim_tasks(10, &[]).await.unwrap();
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    assert_eq!(claimed[0].key.id.as_str(), "b");
    assert_eq!(elsewhere(world).await, waiting("other", 2));

    becomes(world, &["other"], &["main", "copy"]).await;
    let claimed = world.manifest.claim_tasks(10, &[]).await.unwrap();
    assert_eq!(claimed.len(), 2, "{claimed:?}");
    assert_eq!(
        elsewhere(world).await,
        [],
        "what is claimed is in good hands"
    );
}

pub(in crate::manifest) async fn objects_that_a_daemon_cannot_write_are_left_to_others(
    world: &World,
) {
    world.complete("a", &["1.mp4"]).await;
    becomes(world, &["other"], &["main", "copy"]).await;
    assert_eq!(elsewhere(world).await, waiting("house", 1));
    assert!(world.manifest.claim_assets(1).await.unwrap().is_empty());

    // Of two objects it has one of the destinations: it does its part and no more.
    becomes(world, &["house"], &["main"]).await;
    assert_eq!(elsewhere(world).await, waiting("copy", 1));
    let asset = world.claim_asset().await;
    world.begin(&asset, 1, "copy/1", "upload").await;
    world.name(&asset, 0, "main/1").await;
    let main = asset.objects[0].row;
    let whole = world
        .manifest
        .mark_archived(&asset.lease, main, &proof())
        .await;
    assert!(!whole.unwrap());
    world.settle(&asset.lease, world.try_again(0)).await;
    let before = world.after(1_000_000);
    assert!(world.manifest.claim_assets(1).await.unwrap().is_empty());
    let urgent = world.manifest.claim_urgent_assets(1, before).await.unwrap();
    assert!(urgent.is_empty());

    becomes(world, &["house"], &["copy"]).await;
    assert_eq!(elsewhere(world).await, []);
    let asset = world.claim_asset().await;
    // Given up here, so that its upload is to be aborted by whoever has the destination.
    world
        .settle(&asset.lease, world.ending(AssetState::Refused))
        .await;
    becomes(world, &["house"], &["main"]).await;
    assert_eq!(elsewhere(world).await, waiting("copy", 1));
    assert!(world.manifest.claim_orphans(10).await.unwrap().is_empty());
    becomes(world, &["house"], &["main", "copy"]).await;
    assert_eq!(world.manifest.claim_orphans(10).await.unwrap().len(), 1);
}
