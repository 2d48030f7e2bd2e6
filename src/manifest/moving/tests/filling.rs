//! A manifest with rows in every table, in as many states as the verbs can bring about.

use crate::manifest::conformance::lives::random_lives_agree_with_the_model;
use crate::manifest::conformance::world::*;
use crate::manifest::row::discovery::*;
use crate::manifest::row::event::*;
use crate::manifest::row::*;
use crate::model::asset::AssetState;
use crate::model::event::EventKind;
use crate::model::task::Progress;
use crate::model::task::TaskError;
use crate::model::task::TaskState;
use crate::units::Span;

/// Leaves the rows.
pub(super) async fn fill(world: &World) {
    random_lives_agree_with_the_model(world).await;
    world.advance(2_000_000);
    // Whatever is due by now is claimed away, so that the verbs below find their own.
    let claimed = world.manifest.claim_tasks(1000, &[]).await.unwrap();
    for task in claimed {
        let later = Observation {
            next_look_at: Some(world.after(5_000_000)),
            ..world.running()
        };
        world.manifest.observe(&task.lease, later).await.unwrap();
    }
    for asset in world.manifest.claim_assets(1000).await.unwrap() {
        world.settle(&asset.lease, world.try_again(5_000_000)).await;
    }
    archive_and_upload(world).await;
    tell(world).await;
    let wanted = Wanted {
        provider: "house".parse().unwrap(),
        since: Some(world.now()),
    };
    let among = [wanted.provider.clone()];
    world.manifest.want_discoveries(&[wanted]).await.unwrap();
    let lists = world.manifest.claim_discoveries(1, &among).await.unwrap();
    let settlement = DiscoverySettlement {
        discovery: Discovery {
            complete_to: Some(world.now()),
            pass: Some(Pass {
                began_at: world.now(),
                round: 2,
                place: Some("page=3".to_owned()),
                pages: 3,
                learned: 7,
            }),
            has_list: false,
        },
        due_at: world.after(60),
        error: Some("answered 404".to_owned()),
        is_attempt: true,
    };
    let settled = world.manifest.settle_discovery(&lists[0].lease, settlement);
    settled.await.unwrap();
    world.manifest.prove_writable().await.unwrap();
    // One claim is still under way.
    world.learn("claimed").await;
    let claimed = world.manifest.claim_tasks(1, &[]).await.unwrap();
    assert_eq!(claimed.len(), 1);
    // IDs were given that no row has any more.
    world.learn("forgotten").await;
    let gone = key("forgotten");
    let forgotten = world.manifest.forget(&gone.provider, &gone.id).await;
    assert!(forgotten.unwrap());
}

async fn archive_and_upload(world: &World) {
    let words = NewTask {
        tags: [("name".into(), "tab\t, line\n, \\N, \"quotes\", ü, 🎞".into())].into(),
        callback: Some("https://caller.example/h?k=1".parse().unwrap()),
        ..world.task("words\\N")
    };
    world.manifest.learn(vec![words]).await.unwrap();
    let claimed = world.claim_task().await;
    let mut completed = world.completed(&["a.mp4?sig=%5C%0A", "b.mp4", "c.mp4"]);
    completed.sighting.answer = Some(vec![0, 1, b'\\', b'\n', 255]);
    completed.sighting.model = Some("seedance-2.0".to_owned());
    completed.sighting.kind = Some("video".to_owned());
    completed.sighting.created = Some(world.now());
    completed.sighting.completed = Some(world.now());
    let observed = world.manifest.observe(&claimed.lease, completed).await;
    assert_eq!(observed.unwrap().assets_new, 3);
    let assets = world.manifest.claim_assets(3).await.unwrap();
    let [first, second, third] = assets.as_slice() else {
        panic!("{assets:?}");
    };
    world.archive(first, "kept").await;
    world.begin(second, 0, "open/0", "upload-1").await;
    for (number, length) in [(1, 8 << 20), (2, 8 << 20), (4, 100)] {
        let (object, part) = (second.objects[0].row, part(number, length));
        let recorded = world.manifest.record_part(&second.lease, object, &part);
        recorded.await.unwrap();
    }
    world.begin(third, 1, "given up", "upload-2").await;
    world
        .settle(&third.lease, world.ending(AssetState::Refused))
        .await;
    // A failed task, in the provider's words.
    world.learn("failed").await;
    let claimed = world.claim_task().await;
    let mut failed = world.completed(&[]);
    failed.state = TaskState::Failed;
    failed.sighting = sighting(Progress::Failed);
    failed.sighting.percent = Some(40);
    failed.sighting.estimate = Some(Span::from_secs(7));
    failed.sighting.error = Some(TaskError {
        code: "moderation".to_owned(),
        message: "no\tgood".to_owned(),
    });
    world
        .manifest
        .observe(&claimed.lease, failed)
        .await
        .unwrap();
    assert!(
        !world
            .manifest
            .raise_alarms(world.danger(90_000))
            .await
            .unwrap()
            .is_empty()
    );
    world.manifest.hear(&key("failed")).await.unwrap();
}

async fn tell(world: &World) {
    let subscribers = ["app", "mute"].map(|name| Subscriber {
        endpoint: name.parse().unwrap(),
        kinds: EventKind::ALL.to_vec(),
    });
    let fanned = world.manifest.fan_out(&subscribers, "n1".to_owned(), 10);
    assert_eq!(fanned.await.unwrap().events, 10);
    let claimed = world.manifest.claim_deliveries(3, 2).await.unwrap();
    world.manifest.mark_sent(&claimed[0].lease).await.unwrap();
    let settlement = DeliverySettlement {
        due_at: Some(world.after(60)),
        error: "answered 503".to_owned(),
        is_attempt: true,
        is_endpoint_failing: true,
        paused_until: Some(world.after(30)),
    };
    let settled = world
        .manifest
        .settle_delivery(&claimed[1].lease, settlement);
    settled.await.unwrap();
    let mute = "mute".parse().unwrap();
    assert!(
        world
            .manifest
            .disable_endpoint(&mute, "answered 410")
            .await
            .unwrap()
    );
}
