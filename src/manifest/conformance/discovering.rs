//! Lists of tasks: who reads them, from where on, and how far they have come.

use super::world::*;
use crate::clock::Timestamp;
use crate::manifest::row::Claimable;
use crate::manifest::row::discovery::ClaimedDiscovery;
use crate::manifest::row::discovery::Discovery;
use crate::manifest::row::discovery::DiscoverySettlement;
use crate::manifest::row::discovery::Pass;
use crate::manifest::row::discovery::Wanted;
use crate::model::task::ProviderName;

fn name(provider: &str) -> ProviderName {
    provider.parse().unwrap()
}

async fn want(world: &World, provider: &str, since: Option<Timestamp>) {
    let provider = name(provider);
    let wanted = [Wanted { provider, since }];
    world.manifest.want_discoveries(&wanted).await.unwrap();
}

async fn claim(world: &World, among: &[&str]) -> Vec<ClaimedDiscovery> {
    let among: Vec<ProviderName> = among.iter().map(|it| name(it)).collect();
    world.manifest.claim_discoveries(10, &among).await.unwrap()
}

fn on_page(world: &World, place: &str) -> Discovery {
    Discovery {
        complete_to: None,
        pass: Some(Pass {
            began_at: world.now(),
            round: 2,
            place: Some(place.to_owned()),
            pages: 7,
            learned: 350,
        }),
        has_list: true,
    }
}

fn settlement(world: &World, discovery: Discovery, seconds: u64) -> DiscoverySettlement {
    DiscoverySettlement {
        discovery,
        due_at: world.after(seconds),
        error: None,
        is_attempt: false,
    }
}

pub(in crate::manifest) async fn a_list_is_read_by_one_at_a_time_and_goes_on_where_it_was(
    world: &World,
) {
    want(world, "a", None).await;
    want(world, "b", None).await;
    want(world, "b", None).await;
    let claimed = claim(world, &["a", "c"]).await;
    assert_eq!(claimed.len(), 1, "one that nobody wants now is left alone");
    let first = &claimed[0];
    assert_eq!((&first.provider, first.since), (&name("a"), None));
    assert_eq!(first.discovery.pass, None);
    assert!(first.discovery.has_list);
    assert!(claim(world, &["a"]).await.is_empty());

    let reached = on_page(world, "8");
    let settled = settlement(world, reached.clone(), 5);
    let settle = |lease| world.manifest.settle_discovery(lease, settled.clone());
    settle(&first.lease).await.unwrap();
    assert_stale(settle(&first.lease).await);
    let due = world.manifest.next_due(Claimable::Discoveries);
    assert_eq!(due.await.unwrap(), Some(world.now()), "b waits still");
    assert!(claim(world, &["a"]).await.is_empty());
    world.advance(5);
    let again = claim(world, &["a"]).await.remove(0);
    assert_eq!(again.discovery, reached);

    // Whoever had it is gone.
    world.advance(61);
    let other = claim(world, &["a"]).await.remove(0);
    assert_eq!(other.discovery, reached);
    assert_stale(settle(&again.lease).await);
    let ended = Discovery {
        complete_to: Some(world.now()),
        pass: None,
        has_list: false,
    };
    let failed = DiscoverySettlement {
        error: Some("no answer".to_owned()),
        is_attempt: true,
        ..settlement(world, ended.clone(), 0)
    };
    let settled = world.manifest.settle_discovery(&other.lease, failed);
    settled.await.unwrap();
    let last = claim(world, &["a"]).await.remove(0);
    assert_eq!((last.discovery, last.attempts), (ended, 1));
}

pub(in crate::manifest) async fn a_list_that_is_wanted_from_further_back_begins_anew(
    world: &World,
) {
    let complete = Discovery {
        complete_to: Some(world.now()),
        pass: None,
        has_list: true,
    };
    let back =
        |days: i64| Timestamp::from_unix_millis(world.now().as_unix_millis() - days * 86_400_000);
    for (since, begins_anew) in [
        (None, true),
        (None, false),
        (Some(back(10)), true),
        (Some(back(5)), false),
        (None, false),
        (Some(back(20)), true),
    ] {
        want(world, "a", since).await;
        let claimed = claim(world, &["a"]).await.remove(0);
        let is_new = claimed.discovery.complete_to.is_none();
        assert_eq!(is_new, begins_anew, "{since:?}");
        if begins_anew {
            assert_eq!(claimed.since, since);
        }
        let settled = settlement(world, complete.clone(), 0);
        let settled = world.manifest.settle_discovery(&claimed.lease, settled);
        settled.await.unwrap();
    }
    // Under the hands of who reads it.
    let claimed = claim(world, &["a"]).await.remove(0);
    want(world, "a", Some(back(30))).await;
    let settled = settlement(world, complete, 0);
    assert_stale(
        world
            .manifest
            .settle_discovery(&claimed.lease, settled)
            .await,
    );
    let anew = claim(world, &["a"]).await.remove(0);
    assert_eq!(anew.discovery.complete_to, None);
}
