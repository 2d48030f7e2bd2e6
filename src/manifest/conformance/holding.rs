//! Claims that outlast many looks: what ends them, and what their holder is told.

use super::world::*;
use crate::manifest::row::*;
use crate::model::lease::Lease;
use crate::model::task::Tags;
use crate::units::Span;

/// Ten leases.
const HOLD: Span = Span::from_secs(600);

async fn hold(world: &World) -> Vec<Lease> {
    let held = world.manifest.hold_tasks(10, &[], HOLD).await.unwrap();
    held.iter().map(|task| task.lease).collect()
}

pub(in crate::manifest) async fn a_hold_outlasts_a_lease_and_no_renewal_shortens_it(world: &World) {
    let manifest = &world.manifest;
    world.learn("a").await;
    let end = world.now().plus(HOLD);
    let held = hold(world).await;
    assert_eq!(held[0].expires_at, end);
    assert_eq!(manifest.renew(Claimable::Tasks, &held).await.unwrap(), []);
    let next = manifest.next_due(Claimable::Tasks).await.unwrap();
    assert_eq!(next, Some(end));
    for _ in 0..9 {
        world.advance(60);
        assert!(manifest.claim_tasks(10, &[]).await.unwrap().is_empty());
    }
    world.advance(30);
    // Towards its end it is renewed as any other.
    assert_eq!(manifest.renew(Claimable::Tasks, &held).await.unwrap(), []);
    world.advance(59);
    assert!(manifest.claim_tasks(10, &[]).await.unwrap().is_empty());
    world.advance(1);
    assert_eq!(manifest.claim_tasks(10, &[]).await.unwrap().len(), 1);
}

pub(in crate::manifest) async fn who_holds_is_told_what_is_lost_and_what_was_heard_of(
    world: &World,
) {
    let manifest = &world.manifest;
    for id in ["kept", "forgotten", "ended", "heard", "retried", "tagged"] {
        world.learn(id).await;
    }
    let held = hold(world).await;
    assert_eq!(held.len(), 6);
    assert_eq!(
        manifest.held_news(&held).await.unwrap(),
        HeldNews::default()
    );
    let of = |id: &'static str| {
        let held = held.clone();
        async move {
            let row = world.record(id).await.row;
            held.into_iter().find(|it| it.row == row).unwrap()
        }
    };
    let (forgotten, ended) = (of("forgotten").await, of("ended").await);
    let told = [of("heard").await, of("retried").await, of("tagged").await];

    let gone = key("forgotten");
    assert!(manifest.forget(&gone.provider, &gone.id).await.unwrap());
    manifest.observe(&ended, world.running()).await.unwrap();
    assert_eq!(manifest.hear(&key("heard")).await.unwrap(), Heard::Due);
    let retried = manifest.retry(None, &key("retried").id).await.unwrap();
    assert_eq!(retried, 1);
    let tagged = |id: &str| NewTask {
        tags: Tags::from([("region".to_owned(), "eu".to_owned())]),
        ..world.task(id)
    };
    // Nobody holds the one, so that nobody has to hear of it.
    let tags = vec![tagged("tagged"), tagged("ended")];
    manifest.learn(tags.clone()).await.unwrap();
    let news = manifest.held_news(&held).await.unwrap();
    let sorted = |mut leases: Vec<Lease>| {
        leases.sort_by_key(|lease| lease.row);
        leases
    };
    assert_eq!(sorted(news.lost), sorted(vec![forgotten, ended]));
    assert_eq!(sorted(news.heard), sorted(told.to_vec()));

    // Let go, all three are due, and the ear is free for what comes.
    let later = world.after(300);
    let all = told.map(|lease| (lease, later));
    manifest.let_go(&all).await.unwrap();
    // Tags that are there already are no news.
    manifest.learn(tags).await.unwrap();
    let held = hold(world).await;
    assert_eq!(held.len(), 3);
    assert_eq!(
        manifest.held_news(&held).await.unwrap(),
        HeldNews::default()
    );

    // Somebody else claimed what had run out.
    world.advance(700);
    hold(world).await;
    let news = manifest.held_news(&held).await.unwrap();
    assert_eq!(sorted(news.lost), sorted(held));
}

pub(in crate::manifest) async fn what_is_let_go_is_due_at_its_time_unless_it_is_lost(
    world: &World,
) {
    let manifest = &world.manifest;
    for id in ["a", "b", "c"] {
        world.learn(id).await;
    }
    let held = hold(world).await;
    let (soon, later) = (world.after(30), world.after(90));
    manifest.observe(&held[2], world.running()).await.unwrap();
    let third = world.record("c").await;
    let all = [(held[0], soon), (held[1], later), (held[2], soon)];
    manifest.let_go(&all).await.unwrap();
    assert_eq!(world.record("a").await.next_look_at, Some(soon));
    assert_eq!(world.record("b").await.next_look_at, Some(later));
    assert_eq!(
        world.record("c").await.next_look_at,
        third.next_look_at,
        "not ours any more"
    );
    let late = manifest.observe(&held[0], world.running()).await;
    assert_stale(late);
    world.advance(30);
    assert_eq!(hold(world).await.len(), 2, "a and c");
    manifest.let_go(&[]).await.unwrap();
}
