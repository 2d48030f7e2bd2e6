//! Many tasks at once: which of a backlog go first, and what one of many outcomes can spoil.

use super::world::*;
use crate::manifest::ManifestError;
use crate::manifest::row::*;
use crate::model::task::TaskState;

/// More tasks than are sorted by their deadlines at one claim.
const CROWD: usize = 300;

/// And more assets.
const CROWD_OF_ASSETS: usize = 600;

pub(in crate::manifest) async fn of_a_backlog_the_most_urgent_go_first(world: &World) {
    let waiting = |number: usize| NewTask {
        deadline: world.deadline(100_000),
        ..world.task(&format!("t{number}"))
    };
    let crowd = (0..CROWD).map(waiting).collect();
    world.manifest.learn(crowd).await.unwrap();
    world.advance(10);
    // It came last, and nobody has waited for a shorter time.
    let urgent = NewTask {
        deadline: world.deadline(60),
        next_look_at: world.now(),
        ..world.task("urgent")
    };
    world.manifest.learn(vec![urgent]).await.unwrap();
    let mut claimed = Vec::new();
    loop {
        let some = world.manifest.claim_tasks(7, &[]).await.unwrap();
        if some.is_empty() {
            break;
        }
        claimed.extend(some.into_iter().map(|task| task.key.id.to_string()));
    }
    assert_eq!(claimed.first().map(String::as_str), Some("urgent"));
    claimed.sort();
    claimed.dedup();
    assert_eq!(claimed.len(), CROWD + 1, "each once, none left out");
}

pub(in crate::manifest) async fn of_a_backlog_of_assets_none_that_is_due_is_left_out(
    world: &World,
) {
    let paths: Vec<String> = (0..CROWD_OF_ASSETS)
        .map(|number| format!("f{number}"))
        .collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    world.complete("crowd", &paths).await;
    let under_way = world.manifest.claim_assets(CROWD_OF_ASSETS).await.unwrap();
    assert_eq!(under_way.len(), CROWD_OF_ASSETS);
    // All that are nearer to their deadline are under way: more than are sorted by it at one claim.
    world.advance(30);
    world.complete("late", &["late"]).await;
    let late = world.manifest.claim_assets(7).await.unwrap();
    let ids: Vec<&str> = late.iter().map(|asset| asset.task.id.as_str()).collect();
    assert_eq!(ids, ["late"]);
    // And all are found whose leases ran out.
    world.advance(61);
    let before = world.after(10_000_000);
    let mut claimed = Vec::new();
    loop {
        let mut some = world.manifest.claim_assets(7).await.unwrap();
        some.extend(world.manifest.claim_urgent_assets(7, before).await.unwrap());
        if some.is_empty() {
            break;
        }
        claimed.extend(some.into_iter().map(|asset| asset.lease.row));
    }
    assert_eq!(claimed.len(), CROWD_OF_ASSETS + 1);
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(
        claimed.len(),
        CROWD_OF_ASSETS + 1,
        "each once, none left out"
    );
}

pub(in crate::manifest) async fn of_many_observations_one_that_fails_spoils_no_other(
    world: &World,
) {
    for id in ["stale", "runs", "ends", "wrong"] {
        world.learn(id).await;
    }
    let claimed = world.manifest.claim_tasks(10, &[]).await.unwrap();
    let lease = |id: &str| {
        claimed
            .iter()
            .find(|task| task.key.id.as_str() == id)
            .unwrap()
            .lease
    };
    // Somebody else has had it since.
    world
        .manifest
        .observe(&lease("stale"), world.running())
        .await
        .unwrap();
    let observed = [
        (lease("stale"), world.completed(&["x"])),
        (lease("runs"), world.running()),
        (lease("ends"), world.completed(&["a", "b"])),
    ];
    let outcomes = world.manifest.observe_all(&observed).await.unwrap();
    let [stale, runs, ends] = <[_; 3]>::try_from(outcomes).unwrap();
    assert_stale(stale);
    assert_eq!(runs.unwrap(), Observed::default());
    assert_eq!(ends.unwrap().assets_new, 2);
    assert!(world.record("stale").await.assets.is_empty());
    assert_eq!(world.record("runs").await.state, TaskState::Watching);
    assert_eq!(world.record("ends").await.assets.len(), 2);

    // What the engine itself refuses is nobody's outcome: nothing of it is written, and whoever asked may write the others.
    let wrong = Observation {
        next_look_at: None,
        ..world.running()
    };
    let refused = world.manifest.observe_all(&[(lease("wrong"), wrong)]).await;
    assert!(
        matches!(refused, Err(ManifestError::Unfit { .. })),
        "{refused:?}"
    );
    assert_eq!(world.record("wrong").await.status, None);
}
