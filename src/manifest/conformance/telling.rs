//! Events, their deliveries, and the endpoints that they go to.

use super::world::*;
use crate::manifest::row::event::*;
use crate::manifest::row::*;
use crate::model::asset::AssetState;
use crate::model::event::DeliveryState;
use crate::model::event::EndpointName;
use crate::model::event::EventKind;
use crate::model::task::Progress;
use crate::model::task::TaskError;
use crate::model::task::TaskState;

const MANY: usize = 1000;

/// Deliveries at once to one endpoint.
const AT_ONCE: usize = 2;

fn name(text: &str) -> EndpointName {
    text.parse().unwrap()
}

fn wants(endpoint: &str, kinds: &[EventKind]) -> Subscriber {
    Subscriber {
        endpoint: name(endpoint),
        kinds: kinds.to_vec(),
    }
}

async fn told(world: &World, filter: EventFilter) -> Vec<EventRecord> {
    world.manifest.events(&filter, MANY).await.unwrap()
}

/// What happened so far: kind, task, asset, reason.
async fn happened(world: &World) -> Vec<(EventKind, String, Option<u32>, Option<String>)> {
    let events = told(world, EventFilter::default()).await.into_iter();
    let tell = |record: EventRecord| {
        let event = record.event;
        let index = event.index.map(|index| index.0);
        (event.kind, event.task.id.to_string(), index, event.reason)
    };
    events.map(tell).collect()
}

async fn fan_out(world: &World, subscribers: &[Subscriber]) -> FannedOut {
    let fanned = world.manifest.fan_out(subscribers, "n0".to_owned(), MANY);
    fanned.await.unwrap()
}

async fn claim(world: &World) -> Vec<ClaimedDelivery> {
    world.manifest.claim_deliveries(100, AT_ONCE).await.unwrap()
}

async fn claim_one(world: &World) -> ClaimedDelivery {
    let mut claimed = claim(world).await;
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed.remove(0)
}

/// A try that failed, to be repeated in `seconds`.
fn again(world: &World, seconds: u64) -> DeliverySettlement {
    DeliverySettlement {
        due_at: Some(world.after(seconds)),
        error: "answered 503".to_owned(),
        is_attempt: true,
        is_endpoint_failing: true,
        paused_until: None,
    }
}

async fn settle(
    world: &World,
    delivery: &ClaimedDelivery,
    settlement: DeliverySettlement,
) -> Option<EndpointTrouble> {
    let settled = world.manifest.settle_delivery(&delivery.lease, settlement);
    settled.await.unwrap()
}

async fn states(world: &World) -> Vec<(String, DeliveryState)> {
    let records = told(world, EventFilter::default()).await.into_iter();
    let deliveries = records.flat_map(|record| record.deliveries);
    deliveries
        .map(|it| (it.endpoint.to_string(), it.state))
        .collect()
}

pub(in crate::manifest) async fn a_task_without_a_file_is_told_of_as_archived_once(world: &World) {
    world.learn("text").await;
    world.see_completed(&[]).await;
    let kinds = async || {
        let happened = happened(world).await.into_iter();
        happened.map(|(kind, ..)| kind).collect::<Vec<_>>()
    };
    let all = [EventKind::Learned, EventKind::Ready, EventKind::Archived];
    assert_eq!(kinds().await, all);
    assert_eq!(
        world.manifest.retry(None, &key("text").id).await.unwrap(),
        0
    );
    assert_eq!(kinds().await, all);
}

pub(in crate::manifest) async fn each_transition_appends_its_event(world: &World) {
    use EventKind::{Archived, AtRisk, Failed, Learned, Lost, Ready};
    let expect = async |more: &[(EventKind, &str, Option<u32>, Option<&str>)], known: usize| {
        let happened = happened(world).await;
        let more: Vec<_> = more
            .iter()
            .map(|(kind, task, index, why)| {
                let why = why.map(str::to_owned);
                (*kind, (*task).to_owned(), *index, why)
            })
            .collect();
        assert_eq!(happened[known..], more);
        happened.len()
    };
    world.learn("a").await;
    world.manifest.learn(vec![world.task("a")]).await.unwrap();
    let known = expect(&[(Learned, "a", None, None)], 0).await;
    world.see_completed(&["a", "b"]).await;
    let known = expect(&[(Ready, "a", None, None)], known).await;

    let assets = world.manifest.claim_assets(10).await.unwrap();
    world.archive(&assets[0], "first").await;
    let known = expect(&[], known).await;
    world.archive(&assets[1], "second").await;
    let known = expect(&[(Archived, "a", None, None)], known).await;

    // The provider goes on telling the same: nothing happens.
    world.manifest.retry(None, &key("a").id).await.unwrap();
    world.learn("lost").await;
    world.see_completed(&["c", "d"]).await;
    let known = expect(
        &[(Learned, "lost", None, None), (Ready, "lost", None, None)],
        known,
    )
    .await;
    let raised = world.manifest.raise_alarms(world.danger(100_000)).await;
    assert_eq!(raised.unwrap().len(), 2);
    world
        .manifest
        .raise_alarms(world.danger(100_000))
        .await
        .unwrap();
    let risks = [
        (AtRisk, "lost", Some(0), None),
        (AtRisk, "lost", Some(1), None),
    ];
    let known = expect(&risks, known).await;
    let assets = world.manifest.claim_assets(10).await.unwrap();
    world
        .settle(&assets[0].lease, world.ending(AssetState::Lost))
        .await;
    world
        .settle(&assets[1].lease, world.ending(AssetState::Refused))
        .await;
    let why = Some("the origin answered 403");
    let ends = [(Lost, "lost", Some(0), why), (Failed, "lost", Some(1), why)];
    let known = expect(&ends, known).await;

    world.learn("failed").await;
    let task = world.claim_task().await;
    let mut seen = world.running();
    world
        .manifest
        .observe(&task.lease, seen.clone())
        .await
        .unwrap();
    world.advance(10);
    let task = world.claim_task().await;
    seen.state = TaskState::Failed;
    seen.next_look_at = None;
    seen.sighting = sighting(Progress::Failed);
    seen.sighting.error = Some(TaskError {
        code: "policy".to_owned(),
        message: "not this".to_owned(),
    });
    world.manifest.observe(&task.lease, seen).await.unwrap();
    let failed = (Failed, "failed", None, Some("failed: policy: not this"));
    let known = expect(&[(Learned, "failed", None, None), failed], known).await;

    world.learn("gone").await;
    let task = world.claim_task().await;
    let settlement = TaskSettlement {
        state: TaskState::Vanished,
        next_look_at: None,
        error: Some("no such task".to_owned()),
        is_attempt: false,
        is_miss: true,
    };
    world
        .manifest
        .settle_task(&task.lease, settlement)
        .await
        .unwrap();
    let vanished = (Failed, "gone", None, Some("vanished: no such task"));
    let known = expect(&[(Learned, "gone", None, None), vanished], known).await;

    // What a stale claim wanted to write did not happen.
    assert_stale(
        world
            .manifest
            .observe(&task.lease, world.completed(&["x"]))
            .await,
    );
    expect(&[], known).await;
}

pub(in crate::manifest) async fn events_become_deliveries_for_whoever_wants_them(world: &World) {
    let subscribers = [
        wants("all", EventKind::ALL),
        wants("ends", &[EventKind::Archived, EventKind::Lost]),
    ];
    world.learn("a").await;
    world.see_completed(&["a"]).await;
    let first = fan_out(world, &subscribers).await;
    assert_eq!((first.events, first.deliveries), (2, 2));
    assert_eq!(fan_out(world, &subscribers).await, FannedOut::default());
    let asset = world.claim_asset().await;
    world.archive(&asset, "a").await;
    // One at a time, as when there is more than fits one transaction.
    let fanned = world
        .manifest
        .fan_out(&subscribers, "n1".to_owned(), 1)
        .await;
    assert_eq!(fanned.unwrap().deliveries, 2);

    let events = told(world, EventFilter::default()).await;
    let endpoints: Vec<Vec<&str>> = events
        .iter()
        .map(|it| {
            it.deliveries
                .iter()
                .map(|it| it.endpoint.as_str())
                .collect()
        })
        .collect();
    assert_eq!(endpoints, [vec!["all"], vec!["all"], vec!["all", "ends"]]);
    let mut ids: Vec<&str> = events
        .iter()
        .flat_map(|it| it.deliveries.iter().map(|it| it.message_id.as_str()))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each message has an ID of its own: {ids:?}");

    // Nobody wants to hear: it is done with all the same.
    world.learn("b").await;
    let nobody = fan_out(world, &[]).await;
    assert_eq!((nobody.events, nobody.deliveries), (1, 0));

    let filtered = async |filter| told(world, filter).await.len();
    let after = Some(events[1].event.number);
    assert_eq!(
        filtered(EventFilter {
            after,
            ..EventFilter::default()
        })
        .await,
        2
    );
    let kind = Some(EventKind::Learned);
    assert_eq!(
        filtered(EventFilter {
            kind,
            ..EventFilter::default()
        })
        .await,
        2
    );
    let task = Some(key("b").id);
    assert_eq!(
        filtered(EventFilter {
            task,
            ..EventFilter::default()
        })
        .await,
        1
    );
    let numbers = vec![events[0].event.number];
    assert_eq!(
        filtered(EventFilter {
            numbers,
            ..EventFilter::default()
        })
        .await,
        1
    );
    let since = Some(world.after(1));
    assert_eq!(
        filtered(EventFilter {
            since,
            ..EventFilter::default()
        })
        .await,
        0
    );
}

pub(in crate::manifest) async fn a_task_calls_back_when_it_ends(world: &World) {
    let calling = |id: &str, url: &str| NewTask {
        callback: Some(url.parse().unwrap()),
        ..world.task(id)
    };
    let url = "https://app.test/done?key=1";
    world.manifest.learn(vec![calling("a", url)]).await.unwrap();
    // The first one stays.
    world
        .manifest
        .learn(vec![calling("a", "https://other.test/")])
        .await
        .unwrap();
    world.see_completed(&["a"]).await;
    let asset = world.claim_asset().await;
    world.archive(&asset, "a").await;
    let fanned = fan_out(world, &[]).await;
    assert_eq!((fanned.events, fanned.deliveries), (3, 1));
    let delivery = claim_one(world).await;
    assert_eq!(delivery.endpoint, name("callback:app.test"));
    assert_eq!(delivery.callback.as_ref().unwrap().as_str(), url);
    assert_eq!(delivery.event.kind, EventKind::Archived);
    assert!(
        world
            .manifest
            .mark_sent(&delivery.lease)
            .await
            .unwrap()
            .is_none()
    );

    // A callback that comes after the end is called too, once.
    world.complete("b", &["b"]).await;
    let asset = world.claim_asset().await;
    world.archive(&asset, "b").await;
    fan_out(world, &[]).await;
    assert!(claim(world).await.is_empty());
    for _ in 0..2 {
        world.manifest.learn(vec![calling("b", url)]).await.unwrap();
        fan_out(world, &[]).await;
    }
    let delivery = claim_one(world).await;
    assert_eq!(delivery.event.task, key("b"));

    // Who forgets a task forgets what there was to say of it.
    world
        .manifest
        .forget(&key("b").provider, &key("b").id)
        .await
        .unwrap();
    assert_stale(world.manifest.mark_sent(&delivery.lease).await);
    assert_eq!(states(world).await.len(), 1);
}

pub(in crate::manifest) async fn a_delivery_keeps_its_id_until_it_is_taken(world: &World) {
    world.learn("a").await;
    fan_out(world, &[wants("app", EventKind::ALL)]).await;
    let first = claim_one(world).await;
    assert_eq!((first.attempts, first.event.kind), (0, EventKind::Learned));
    assert!(claim(world).await.is_empty(), "nobody else gets it");
    let trouble = settle(world, &first, again(world, 5)).await.unwrap();
    assert_eq!(
        (trouble.failing_since, trouble.disabled_at),
        (world.now(), None)
    );
    assert_stale(world.manifest.mark_sent(&first.lease).await);
    let next = world.manifest.next_due(Claimable::Deliveries).await;
    assert_eq!(next.unwrap(), Some(world.after(5)));
    assert!(claim(world).await.is_empty());

    world.advance(5);
    let late = claim_one(world).await;
    assert_eq!((late.attempts, &late.message_id), (1, &first.message_id));
    world.advance(LEASE.as_millis_i64().unsigned_abs() / 1000);
    let second = claim_one(world).await;
    assert_eq!(second.message_id, first.message_id);
    assert_stale(world.manifest.mark_sent(&late.lease).await);
    let over = world
        .manifest
        .mark_sent(&second.lease)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(over.failing_since, trouble.failing_since);
    assert!(world.manifest.endpoint_troubles().await.unwrap().is_empty());
    assert_eq!(
        states(world).await,
        [("app".to_owned(), DeliveryState::Sent)]
    );
    assert_eq!(
        world
            .manifest
            .next_due(Claimable::Deliveries)
            .await
            .unwrap(),
        None
    );
}

pub(in crate::manifest) async fn a_slow_endpoint_holds_up_no_other(world: &World) {
    let tasks = (0..10).map(|it| world.task(&format!("t{it}"))).collect();
    world.manifest.learn(tasks).await.unwrap();
    let both = [wants("busy", EventKind::ALL), wants("calm", EventKind::ALL)];
    fan_out(world, &both).await;
    let of = |claimed: &[ClaimedDelivery], endpoint: &str| {
        claimed
            .iter()
            .filter(|it| it.endpoint == name(endpoint))
            .count()
    };
    let claimed = claim(world).await;
    assert_eq!((of(&claimed, "busy"), of(&claimed, "calm")), (2, 2));
    // One is slow: the other goes on.
    for delivery in claimed.iter().filter(|it| it.endpoint == name("calm")) {
        world.manifest.mark_sent(&delivery.lease).await.unwrap();
    }
    let claimed = claim(world).await;
    assert_eq!((of(&claimed, "busy"), of(&claimed, "calm")), (0, 2));
    // One that fails is only looked at, and one that asks for a pause gets it.
    let pause = DeliverySettlement {
        paused_until: Some(world.after(30)),
        ..again(world, 1)
    };
    settle(world, &claimed[0], again(world, 1)).await;
    settle(world, &claimed[1], pause).await;
    world.advance(1);
    assert_eq!(of(&claim(world).await, "calm"), 0);
    world.advance(30);
    let claimed = claim(world).await;
    assert_eq!(of(&claimed, "calm"), 1, "{claimed:?}");
    assert_eq!(
        world.manifest.claim_deliveries(100, 3).await.unwrap().len(),
        1,
        "one more for busy"
    );
}

pub(in crate::manifest) async fn an_endpoint_that_works_again_gets_all_at_once(world: &World) {
    world
        .manifest
        .learn(vec![world.task("a"), world.task("b")])
        .await
        .unwrap();
    fan_out(world, &[wants("app", EventKind::ALL)]).await;
    let claimed = claim(world).await;
    settle(world, &claimed[0], again(world, 7_200)).await;
    settle(world, &claimed[1], again(world, 900)).await;
    world.advance(900);
    let delivery = claim_one(world).await;
    assert!(
        world
            .manifest
            .mark_sent(&delivery.lease)
            .await
            .unwrap()
            .is_some()
    );
    assert_eq!(claim_one(world).await.message_id, claimed[0].message_id);
}

pub(in crate::manifest) async fn a_disabled_endpoint_is_told_nothing_until_it_is_enabled(
    world: &World,
) {
    let both = [wants("app", EventKind::ALL), wants("other", EventKind::ALL)];
    let tasks = (0..3).map(|it| world.task(&format!("t{it}"))).collect();
    world.manifest.learn(tasks).await.unwrap();
    fan_out(world, &both).await;
    let claimed = claim(world).await;
    let at_app: Vec<_> = claimed
        .iter()
        .filter(|it| it.endpoint == name("app"))
        .collect();
    assert_eq!(at_app.len(), 2);
    settle(world, at_app[0], again(world, 5)).await;
    assert!(
        world
            .manifest
            .disable_endpoint(&name("app"), "gone")
            .await
            .unwrap()
    );
    assert!(
        !world
            .manifest
            .disable_endpoint(&name("app"), "gone")
            .await
            .unwrap()
    );
    // What was under way ends as it ends.
    settle(world, at_app[1], again(world, 5)).await;
    world.learn("late").await;
    fan_out(world, &both).await;
    let count = async |state| {
        let states = states(world).await;
        states
            .iter()
            .filter(|it| **it == ("app".to_owned(), state))
            .count()
    };
    assert_eq!(count(DeliveryState::GivenUp).await, 4);
    let troubles = world.manifest.endpoint_troubles().await.unwrap();
    assert_eq!(troubles.len(), 1);
    assert_eq!(troubles[0].disabled_at, Some(world.now()));
    // Nor by a replay.
    let replay = async |endpoint: Option<&EndpointName>| {
        let all = EventFilter::default();
        let nonce = "n9".to_owned();
        let replayed = world.manifest.replay(&all, &both, endpoint, nonce).await;
        replayed.unwrap()
    };
    assert_eq!(replay(None).await, 4);
    assert_eq!(count(DeliveryState::GivenUp).await, 4);

    let enabled = world.manifest.enable_endpoints().await.unwrap();
    assert_eq!(enabled[0].endpoint, name("app"));
    assert!(world.manifest.endpoint_troubles().await.unwrap().is_empty());
    world.advance(60);
    assert!(
        claim(world)
            .await
            .iter()
            .all(|it| it.endpoint == name("other"))
    );
    assert_eq!(replay(Some(&name("app"))).await, 4);
    let app = name("app");
    let claimed = claim(world).await;
    let again = claimed.iter().find(|it| it.endpoint == app).unwrap();
    assert_eq!((again.attempts, again.begun_at), (0, world.now()));
    assert_eq!(again.message_id, at_app[0].message_id, "the same message");
}

pub(in crate::manifest) async fn an_event_that_all_were_told_of_is_pruned_in_the_end(
    world: &World,
) {
    let both = [wants("app", EventKind::ALL), wants("other", EventKind::ALL)];
    world.learn("a").await;
    fan_out(world, &both).await;
    world.advance(100);
    world.learn("b").await;
    world.advance(100);
    let prune = async || world.manifest.prune_events(world.now(), 10).await.unwrap();
    assert_eq!(prune().await, 0, "nobody was told yet");
    let claimed = claim(world).await;
    world.manifest.mark_sent(&claimed[0].lease).await.unwrap();
    assert_eq!(prune().await, 0, "one was not told yet");
    let given_up = DeliverySettlement {
        due_at: None,
        ..again(world, 0)
    };
    settle(world, &claimed[1], given_up).await;
    assert_eq!(
        world.manifest.prune_events(world.now(), 0).await.unwrap(),
        0
    );
    assert_eq!(prune().await, 1);
    let left = happened(world).await;
    assert_eq!(left.len(), 1, "no delivery was made of it: {left:?}");
    assert_eq!(left[0].1, "b");
    fan_out(world, &[]).await;
    assert_eq!(
        world
            .manifest
            .prune_events(world.after(0), 10)
            .await
            .unwrap(),
        1
    );
    assert_eq!(world.record("b").await.key, key("b"));
    assert!(happened(world).await.is_empty());
}

pub(in crate::manifest) async fn a_replay_tells_whom_it_names_and_nobody_else(world: &World) {
    let aa = wants("aa", &[EventKind::Learned]);
    let both = [aa.clone(), wants("bb", &[EventKind::Ready])];
    world.learn("a").await;
    world.see_completed(&["a"]).await;
    fan_out(world, &[]).await;
    let replay = async |filter: EventFilter, only: &str| {
        let (only, nonce) = (name(only), only.to_owned());
        let replayed = world.manifest.replay(&filter, &both, Some(&only), nonce);
        replayed.await.unwrap()
    };
    assert_eq!(replay(EventFilter::default(), "cc").await, 0);
    // Of two events it wants one.
    assert_eq!(replay(EventFilter::default(), "aa").await, 1);
    let states = states(world).await;
    assert_eq!(states, [("aa".to_owned(), DeliveryState::Due)]);
    fan_out(world, &both).await;
    let delivery = claim_one(world).await;
    assert_eq!(delivery.event.kind, EventKind::Learned);
    world.manifest.mark_sent(&delivery.lease).await.unwrap();
    let ready = EventFilter {
        kind: Some(EventKind::Ready),
        ..EventFilter::default()
    };
    assert_eq!(replay(ready.clone(), "aa").await, 0);
    assert_eq!(replay(ready, "bb").await, 1);
    assert_eq!(claim_one(world).await.endpoint, name("bb"));
}
