//! Learning of tasks, claims on them, and what a look writes.

use std::collections::HashSet;

use futures::future::join_all;

use super::world::*;
use crate::manifest::row::*;
use crate::model::asset::AssetState;
use crate::model::deadline::Deadline;
use crate::model::deadline::DeadlineSource;
use crate::model::object::ObjectState;
use crate::model::task::LearnedVia;
use crate::model::task::Progress;
use crate::model::task::Sighting;
use crate::model::task::Tags;
use crate::model::task::TaskError;
use crate::model::task::TaskState;
use crate::units::Span;

pub(in crate::manifest) async fn learning_again_changes_nothing_but_tags_that_lack(world: &World) {
    let tagged = |tags: &[(&str, &str)]| NewTask {
        tags: tags
            .iter()
            .map(|(name, tag)| ((*name).to_owned(), (*tag).to_owned()))
            .collect(),
        ..world.task("a")
    };
    let tasks = vec![
        tagged(&[("customer", "acme")]),
        world.task("b"),
        world.task("a"),
    ];
    let learned = world.manifest.learn(tasks).await.unwrap();
    let known = Learned::Known(TaskState::Watching);
    assert_eq!(learned, [Learned::New, Learned::New, known]);

    let later = NewTask {
        next_look_at: world.after(5),
        via: LearnedVia::Webhook,
        ..tagged(&[("customer", "other"), ("region", "eu")])
    };
    assert_eq!(world.manifest.learn(vec![later]).await.unwrap(), [known]);
    let record = world.record("a").await;
    let tags = Tags::from([
        ("customer".to_owned(), "acme".to_owned()),
        ("region".to_owned(), "eu".to_owned()),
    ]);
    assert_eq!(record.tags, tags);
    assert_eq!(record.learned_via, LearnedVia::Cli);
    assert_eq!(record.next_look_at, Some(world.now()));
    assert_eq!(record.learned_at, world.now());

    let namesake = NewTask {
        key: crate::model::task::TaskKey {
            provider: "other".parse().unwrap(),
            ..key("a")
        },
        ..world.task("a")
    };
    assert_eq!(
        world.manifest.learn(vec![namesake]).await.unwrap(),
        [Learned::New]
    );
    assert_eq!(world.manifest.learn(Vec::new()).await.unwrap(), []);
}

pub(in crate::manifest) async fn a_bare_link_is_a_completed_task_with_one_due_asset(world: &World) {
    let link = |path: &str| NewLink {
        key: key("x"),
        tags: Tags::new(),
        asset: world.seen(&[path]).remove(0),
        objects: route(&["main"]),
    };
    assert_eq!(
        world.manifest.learn_link(link("a?s=1")).await.unwrap(),
        Learned::New
    );
    let record = world.record("x").await;
    assert_eq!(record.state, TaskState::Completed);
    assert_eq!(record.learned_via, LearnedVia::Fetch);
    assert!(
        world
            .manifest
            .claim_tasks(10, &[])
            .await
            .unwrap()
            .is_empty()
    );
    let asset = world.claim_asset().await;
    assert_eq!(asset.url.as_str(), "https://cdn.test/a?s=1");
    world
        .settle(&asset.lease, world.ending(AssetState::Lost))
        .await;

    let known = Learned::Known(TaskState::Completed);
    assert_eq!(
        world.manifest.learn_link(link("a?s=1")).await.unwrap(),
        known
    );
    assert_eq!(world.record("x").await.assets[0].state, AssetState::Lost);
    assert_eq!(
        world.manifest.learn_link(link("a?s=2")).await.unwrap(),
        known
    );
    assert_eq!(
        world.claim_asset().await.url.as_str(),
        "https://cdn.test/a?s=2"
    );
}

pub(in crate::manifest) async fn tasks_are_claimed_by_deadline_when_their_time_has_come(
    world: &World,
) {
    let task = |id: &str, look_in: u64, dies_in: u64| NewTask {
        next_look_at: world.after(look_in),
        deadline: world.deadline(dies_in),
        ..world.task(id)
    };
    let mut other = task("other", 0, 1);
    other.key.provider = "other".parse().unwrap();
    let tasks = vec![
        task("third", 0, 300),
        task("first", 0, 100),
        task("second", 0, 200),
        task("later", 10, 50),
        other,
    ];
    world.manifest.learn(tasks).await.unwrap();
    let except = ["other".parse().unwrap(), "unknown".parse().unwrap()];
    let ids = |claimed: Vec<ClaimedTask>| -> Vec<String> {
        claimed.iter().map(|task| task.key.id.to_string()).collect()
    };
    let claimed = world.manifest.claim_tasks(2, &except).await.unwrap();
    assert!(
        claimed
            .iter()
            .all(|task| task.lease.expires_at == world.now().plus(LEASE))
    );
    assert_eq!(ids(claimed), ["first", "second"]);
    assert_eq!(
        ids(world.manifest.claim_tasks(10, &except).await.unwrap()),
        ["third"]
    );
    assert!(
        world
            .manifest
            .claim_tasks(10, &except)
            .await
            .unwrap()
            .is_empty()
    );
    assert!(world.manifest.claim_tasks(0, &[]).await.unwrap().is_empty());
    world.advance(10);
    assert_eq!(
        ids(world.manifest.claim_tasks(10, &[]).await.unwrap()),
        ["other", "later"]
    );
}

pub(in crate::manifest) async fn two_claimers_never_get_one_row(world: &World) {
    let tasks = (0..50)
        .map(|number| world.task(&format!("t{number}")))
        .collect();
    world.manifest.learn(tasks).await.unwrap();
    let claims = join_all((0..20).map(|_| world.manifest.claim_tasks(5, &[]))).await;
    let rows: Vec<i64> = claims
        .into_iter()
        .flat_map(Result::unwrap)
        .map(|task| task.lease.row)
        .collect();
    let distinct: HashSet<i64> = rows.iter().copied().collect();
    assert_eq!((rows.len(), distinct.len()), (50, 50));
}

pub(in crate::manifest) async fn a_lease_that_ran_out_is_claimed_anew_and_its_late_owner_changes_nothing(
    world: &World,
) {
    world.learn("a").await;
    let late = world.claim_task().await;
    world.advance(59);
    assert!(
        world
            .manifest
            .claim_tasks(10, &[])
            .await
            .unwrap()
            .is_empty()
    );
    world.advance(1);
    let owner = world.claim_task().await;
    assert_eq!(owner.lease.row, late.lease.row);
    assert!(owner.lease.token > late.lease.token);

    let before = world.everything().await;
    assert_stale(
        world
            .manifest
            .observe(&late.lease, world.completed(&["a"]))
            .await,
    );
    let settlement = TaskSettlement {
        state: TaskState::Vanished,
        next_look_at: None,
        error: Some("late".into()),
        is_attempt: true,
        is_miss: true,
    };
    assert_stale(world.manifest.settle_task(&late.lease, settlement).await);
    assert_eq!(world.everything().await, before);
    world
        .manifest
        .observe(&owner.lease, world.running())
        .await
        .unwrap();
}

pub(in crate::manifest) async fn a_lease_that_ran_out_and_that_nobody_claimed_still_writes(
    world: &World,
) {
    world.learn("a").await;
    let late = world.claim_task().await;
    world.advance(3600);
    world
        .manifest
        .observe(&late.lease, world.completed(&["a"]))
        .await
        .unwrap();
    assert_eq!(world.record("a").await.state, TaskState::Completed);
}

pub(in crate::manifest) async fn a_settled_claim_is_over(world: &World) {
    world.learn("a").await;
    let task = world.claim_task().await;
    world
        .manifest
        .observe(&task.lease, world.completed(&["a"]))
        .await
        .unwrap();
    assert_stale(world.manifest.observe(&task.lease, world.running()).await);
    let asset = world.claim_asset().await;
    world.settle(&asset.lease, world.try_again(5)).await;
    assert_stale(
        world
            .manifest
            .settle_asset(&asset.lease, world.try_again(5))
            .await,
    );
    assert_eq!(world.record("a").await.assets[0].attempts, 1);
}

pub(in crate::manifest) async fn of_two_leases_on_one_row_the_older_is_lost(world: &World) {
    world.learn("a").await;
    let older = world.manifest.claim_tasks(1, &[]).await.unwrap()[0].lease;
    world.advance(1000);
    let newer = world.manifest.claim_tasks(1, &[]).await.unwrap()[0].lease;
    assert_ne!(older.token, newer.token);
    let both = [older, newer];
    let lost = world.manifest.renew(Claimable::Tasks, &both).await;
    assert_eq!(lost.unwrap(), [older]);
}

pub(in crate::manifest) async fn renewing_tells_which_leases_are_lost(world: &World) {
    world.learn("a").await;
    world.learn("b").await;
    let claimed = world.manifest.claim_tasks(2, &[]).await.unwrap();
    let leases: Vec<_> = claimed.iter().map(|task| task.lease).collect();
    world.advance(50);
    assert!(
        world
            .manifest
            .renew(Claimable::Tasks, &leases)
            .await
            .unwrap()
            .is_empty()
    );
    world.advance(50);
    assert!(
        world.manifest.claim_tasks(2, &[]).await.unwrap().is_empty(),
        "renewed"
    );
    world
        .manifest
        .observe(&leases[0], world.running())
        .await
        .unwrap();
    let lost = world
        .manifest
        .renew(Claimable::Tasks, &leases)
        .await
        .unwrap();
    assert_eq!(lost, leases[..1]);
    let other_table = world
        .manifest
        .renew(Claimable::Assets, &leases)
        .await
        .unwrap();
    assert_eq!(other_table, leases);
}

pub(in crate::manifest) async fn an_observation_is_written_whole(world: &World) {
    world.learn("a").await;
    let task = world.claim_task().await;
    assert_eq!((task.looks, task.last_unfinished_at), (0, None));
    let (created, seen_at) = (world.now().minus(Span::from_secs(9)), world.now());
    let running = Observation {
        sighting: Sighting {
            percent: Some(250),
            model: Some("seedance-2.0".into()),
            kind: Some("video".into()),
            created: Some(created),
            estimate: Some(Span::from_secs(40)),
            ..sighting(Progress::Running)
        },
        deadline: Deadline {
            at: world.after(7),
            from: DeadlineSource::LastSeen,
        },
        ..world.running()
    };
    world.manifest.observe(&task.lease, running).await.unwrap();
    let record = world.record("a").await;
    assert_eq!(record.percent, Some(100), "there is no more than all");
    assert_eq!(record.status.as_deref(), Some("running"));
    assert_eq!(record.estimate, Some(Span::from_secs(40)));
    assert_eq!(record.deadline.from, DeadlineSource::LastSeen);
    assert_eq!(record.next_look_at, Some(world.after(10)));

    world.advance(10);
    let task = world.claim_task().await;
    assert_eq!((task.looks, task.last_unfinished_at), (1, Some(seen_at)));
    assert_eq!(
        (task.model.as_deref(), task.kind.as_deref()),
        (Some("seedance-2.0"), Some("video"))
    );
    assert_eq!(task.created_at, Some(created));
    let failed = Observation {
        state: TaskState::Failed,
        next_look_at: None,
        sighting: Sighting {
            created: Some(world.now()),
            completed: Some(world.now()),
            error: Some(TaskError {
                code: "nsfw".into(),
                message: "no".into(),
            }),
            ..sighting(Progress::Failed)
        },
        ..world.running()
    };
    world.manifest.observe(&task.lease, failed).await.unwrap();
    let record = world.record("a").await;
    assert_eq!(
        (record.state, record.next_look_at),
        (TaskState::Failed, None)
    );
    assert_eq!(
        record.task_error.map(|error| error.code).as_deref(),
        Some("nsfw")
    );
    assert_eq!(
        record.created_at,
        Some(created),
        "keys are made of it: the first stays"
    );
    assert_eq!(
        record.model.as_deref(),
        Some("seedance-2.0"),
        "not said again is not unsaid"
    );
    assert_eq!(record.completed_at, Some(world.now()));
}

pub(in crate::manifest) async fn a_look_without_a_sighting_counts_attempts_and_misses(
    world: &World,
) {
    world.learn("a").await;
    let settlement = |is_attempt, is_miss| TaskSettlement {
        state: TaskState::Watching,
        next_look_at: Some(world.now()),
        error: Some("no answer".into()),
        is_attempt,
        is_miss,
    };
    for (settlement, counts) in [
        (settlement(true, false), (1, 0)),
        (settlement(true, true), (2, 1)),
        (settlement(false, false), (2, 1)),
    ] {
        let task = world.claim_task().await;
        world
            .manifest
            .settle_task(&task.lease, settlement)
            .await
            .unwrap();
        let task = world.claim_task().await;
        assert_eq!((task.attempts, task.misses), counts);
        world.advance(60);
    }
    assert_eq!(world.record("a").await.error.as_deref(), Some("no answer"));
    let task = world.claim_task().await;
    world
        .manifest
        .observe(&task.lease, world.running())
        .await
        .unwrap();
    world.advance(10);
    let task = world.claim_task().await;
    assert_eq!((task.attempts, task.misses, task.looks), (0, 0, 1));
    assert_eq!(world.record("a").await.error, None);
    let gone = TaskSettlement {
        state: TaskState::Vanished,
        next_look_at: None,
        ..settlement(true, true)
    };
    world.manifest.settle_task(&task.lease, gone).await.unwrap();
    assert_eq!(world.record("a").await.state, TaskState::Vanished);
    assert_eq!(
        world.manifest.next_due(Claimable::Tasks).await.unwrap(),
        None
    );
}

pub(in crate::manifest) async fn every_task_is_final_or_has_a_due_time(world: &World) {
    world.learn("a").await;
    let task = world.claim_task().await;
    let before = world.everything().await;
    for (state, next_look_at) in [
        (TaskState::Watching, None),
        (TaskState::Failed, Some(world.now())),
        (TaskState::Cancelled, Some(world.now())),
        (TaskState::Vanished, Some(world.now())),
        (TaskState::Abandoned, Some(world.now())),
    ] {
        let observation = Observation {
            state,
            next_look_at,
            ..world.running()
        };
        let refused = world.manifest.observe(&task.lease, observation).await;
        assert!(refused.is_err(), "{state} {next_look_at:?}");
        let settlement = TaskSettlement {
            state,
            next_look_at,
            error: None,
            is_attempt: false,
            is_miss: false,
        };
        let refused = world.manifest.settle_task(&task.lease, settlement).await;
        assert!(refused.is_err(), "{state} {next_look_at:?}");
    }
    assert_eq!(world.everything().await, before);
    // The claim is as good as before, and a completed task may be looked at once more.
    let again = Observation {
        next_look_at: Some(world.now()),
        ..world.completed(&["a"])
    };
    world.manifest.observe(&task.lease, again).await.unwrap();
    assert_eq!(world.claim_task().await.state, TaskState::Completed);
    assert_eq!(
        world.record("a").await.assets[0].objects[0].state,
        ObjectState::Due
    );
}
