//! What others say of tasks: it makes them due, and puts nothing off.

use super::world::*;
use crate::manifest::row::*;
use crate::model::task::TaskState;

/// Ends a claim without a sighting.
fn settlement(world: &World, state: TaskState) -> TaskSettlement {
    TaskSettlement {
        state,
        next_look_at: (!state.is_final()).then(|| world.after(600)),
        error: None,
        is_attempt: true,
        is_miss: false,
    }
}

pub(in crate::manifest) async fn a_hint_makes_a_task_due_and_postpones_nothing(world: &World) {
    let manifest = &world.manifest;
    assert_eq!(manifest.hear(&key("a")).await.unwrap(), Heard::Unknown);
    let later = NewTask {
        next_look_at: world.after(600),
        ..world.task("a")
    };
    manifest.learn(vec![later, world.task("b")]).await.unwrap();
    assert_eq!(manifest.claim_tasks(10, &[]).await.unwrap().len(), 1);
    assert_eq!(manifest.hear(&key("a")).await.unwrap(), Heard::Due);
    let next = manifest.next_due(Claimable::Tasks).await.unwrap();
    assert!(next.is_some_and(|next| next <= world.after(0)), "{next:?}");
    // Heard again later, it stays due at the earlier time.
    world.advance(5);
    assert_eq!(manifest.hear(&key("a")).await.unwrap(), Heard::Due);
    assert_eq!(manifest.next_due(Claimable::Tasks).await.unwrap(), next);
    let claimed = manifest.claim_tasks(10, &[]).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].key, key("a"));
}

pub(in crate::manifest) async fn who_is_asked_for_is_claimed_first(world: &World) {
    let manifest = &world.manifest;
    let held = NewTask {
        deadline: world.deadline(900),
        ..world.task("held")
    };
    manifest.learn(vec![held]).await.unwrap();
    let lease = manifest.claim_tasks(1, &[]).await.unwrap()[0].lease;
    for number in 0..9 {
        let urgent = NewTask {
            deadline: world.deadline(100),
            ..world.task(&format!("urgent{number}"))
        };
        manifest.learn(vec![urgent]).await.unwrap();
    }
    let late = NewTask {
        deadline: world.deadline(900),
        ..world.task("late")
    };
    manifest.learn(vec![late]).await.unwrap();
    let tried = NewTask {
        deadline: world.deadline(900),
        ..world.task("tried")
    };
    manifest.learn(vec![tried]).await.unwrap();
    for id in ["late", "held"] {
        assert_eq!(manifest.hear(&key(id)).await.unwrap(), Heard::Due);
    }
    let again = manifest.retry(None, &key("tried").id).await.unwrap();
    assert_eq!(again, 1);
    let shown = world.record("late").await.next_look_at;
    assert_eq!(shown, Some(world.now()), "a time that people understand");
    manifest.let_go(&[(lease, world.after(600))]).await.unwrap();
    let claimed = manifest.claim_tasks(3, &[]).await.unwrap();
    let mut names: Vec<&str> = claimed.iter().map(|task| task.key.id.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["held", "late", "tried"]);
    assert!(claimed.iter().all(|task| task.is_asked_for));
    let rest = manifest.claim_tasks(10, &[]).await.unwrap();
    assert!(rest.iter().all(|task| !task.is_asked_for));
}

pub(in crate::manifest) async fn a_hint_during_a_look_leaves_the_claim_and_brings_another_look(
    world: &World,
) {
    let manifest = &world.manifest;
    manifest.learn(vec![world.task("a")]).await.unwrap();
    let claimed = manifest.claim_tasks(10, &[]).await.unwrap();
    let lease = claimed[0].lease;
    assert_eq!(manifest.hear(&key("a")).await.unwrap(), Heard::Due);
    assert!(manifest.claim_tasks(10, &[]).await.unwrap().is_empty());
    // The look saw the task unfinished, just before it finished.
    let unfinished = world.running();
    manifest.observe(&lease, unfinished.clone()).await.unwrap();
    let claimed = manifest.claim_tasks(10, &[]).await.unwrap();
    assert_eq!(claimed.len(), 1, "it is looked at once more");
    // Once: the hint is used up.
    let lease = claimed[0].lease;
    manifest.observe(&lease, unfinished).await.unwrap();
    assert!(manifest.claim_tasks(10, &[]).await.unwrap().is_empty());
}

pub(in crate::manifest) async fn only_what_was_given_up_is_revived(world: &World) {
    let manifest = &world.manifest;
    for state in TaskState::ALL.iter().copied() {
        if matches!(state, TaskState::Watching | TaskState::Completed) {
            continue;
        }
        let id = state.as_str();
        manifest.learn(vec![world.task(id)]).await.unwrap();
        let claimed = manifest.claim_tasks(1, &[]).await.unwrap();
        let end = settlement(world, state);
        manifest.settle_task(&claimed[0].lease, end).await.unwrap();
        assert_eq!(manifest.hear(&key(id)).await.unwrap(), Heard::Ended(state));
        let is_given_up = matches!(state, TaskState::Vanished | TaskState::Abandoned);
        assert_eq!(
            manifest.revive(&key(id)).await.unwrap(),
            is_given_up,
            "{id}"
        );
        let due = manifest.claim_tasks(1, &[]).await.unwrap();
        assert_eq!(due.len(), usize::from(is_given_up), "{id}");
    }
    assert!(!manifest.revive(&key("nobody")).await.unwrap());
}
