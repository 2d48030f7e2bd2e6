//! Verbs that are committed together: what one suffers the others do not, and how long they last.

use super::*;
use crate::manifest::sqlite::Lasting;

#[tokio::test]
async fn what_waits_together_is_committed_together() {
    let world = World::sqlite(false).await;
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let busy = sqlite(&world).write("busy", Lasting::ThroughPowerCuts, move |_| {
        wait.recv().unwrap();
        Ok(())
    });
    let before = world.manifest.commits();
    let learns = join_all((0..100).map(|number| {
        let task = world.task(&format!("t{number}"));
        world.manifest.learn(vec![task])
    }));
    let release = async {
        // By now every verb above was polled once, which puts it into the queue.
        go.send(()).unwrap();
    };
    let (busy, learned, ()) = futures::join!(busy, learns, release);
    busy.unwrap();
    assert!(
        learned
            .into_iter()
            .all(|learned| learned.unwrap() == [Learned::New])
    );
    let commits = world.manifest.commits() - before;
    assert!(commits <= 3, "{commits} commits for 101 verbs");
}

#[tokio::test]
async fn leases_alone_are_not_synced() {
    const FULL: i64 = 2;
    const NORMAL: i64 = 1;
    let world = World::sqlite(false).await;
    let sync = |lasting| {
        sqlite(&world).write("sync", lasting, |tx| {
            Ok(tx
                .db
                .pragma_query_value(None, "synchronous", |row| row.get::<_, i64>(0))?)
        })
    };
    let (record, lease) = (Lasting::ThroughPowerCuts, Lasting::AsLongAsProcesses);
    assert_eq!(sync(record).await.unwrap(), FULL);
    assert_eq!(sync(lease).await.unwrap(), NORMAL);
    assert_eq!(sync(record).await.unwrap(), FULL);
    world.learn("claimed").await;
    let both = async { futures::join!(sync(lease), sync(record)) };
    let (first, second) = in_one_group(&world, both).await;
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (FULL, FULL),
        "a group lasts as its most lasting"
    );
    let claim = async { futures::join!(world.manifest.claim_tasks(1, &[]), sync(lease)) };
    let (claimed, synced) = in_one_group(&world, claim).await;
    assert_eq!(claimed.unwrap().len(), 1);
    assert_eq!(synced.unwrap(), NORMAL, "a claim is not synced");
}

/// Holds the writer up until all verbs of `work` wait for it.
async fn in_one_group<T>(world: &World, work: impl Future<Output = T>) -> T {
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (inside, is_inside) = tokio::sync::oneshot::channel();
    let busy = sqlite(world).write("busy", Lasting::AsLongAsProcesses, move |_| {
        inside.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    });
    let group = async {
        is_inside.await.unwrap();
        futures::join!(work, async { go.send(()).unwrap() }).0
    };
    let (busy, done) = futures::join!(busy, group);
    busy.unwrap();
    done
}

#[tokio::test]
async fn a_verb_that_fails_spoils_no_other_of_its_group() {
    let world = World::sqlite(false).await;
    world.learn("claimed").await;
    let task = world.claim_task().await;
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (inside, is_inside) = tokio::sync::oneshot::channel();
    let busy = sqlite(&world).write("busy", Lasting::ThroughPowerCuts, move |_| {
        inside.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    });
    let half_done = sqlite(&world).write("half_done", Lasting::ThroughPowerCuts, |tx| {
        execute(tx.db, "DELETE FROM tasks", [])?;
        execute(tx.db, "INSERT INTO nonsense VALUES (1)", []).map(|_| ())
    });
    let refused = Observation {
        next_look_at: None,
        ..world.running()
    };
    let group = async {
        is_inside.await.unwrap();
        futures::join!(
            world.manifest.learn(vec![world.task("first")]),
            half_done,
            world.manifest.observe(&task.lease, refused),
            world.manifest.learn(vec![world.task("second")]),
            async { go.send(()).unwrap() },
        )
    };
    let (busy, (first, half_done, refused, second, ())) = futures::join!(busy, group);
    busy.unwrap();
    assert_eq!(
        (first.unwrap(), second.unwrap()),
        (vec![Learned::New], vec![Learned::New])
    );
    let says = half_done.unwrap_err().to_string();
    assert!(
        says.starts_with("half_done: ") && says.contains("nonsense"),
        "{says}"
    );
    assert!(
        matches!(
            refused,
            Err(ManifestError::Unfit {
                verb: "observe",
                ..
            })
        ),
        "{refused:?}"
    );
    assert_eq!(
        world
            .manifest
            .tally()
            .await
            .unwrap()
            .tasks_in(TaskState::Watching),
        3
    );
}

#[tokio::test]
async fn when_the_engine_rolls_back_a_group_nobody_is_told_that_it_was_written() {
    let world = World::sqlite(false).await;
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (inside, is_inside) = tokio::sync::oneshot::channel();
    let busy = sqlite(&world).write("busy", Lasting::ThroughPowerCuts, move |_| {
        inside.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    });
    // What the engine does by itself when the disk fails under it.
    let failing = sqlite(&world).write("failing", Lasting::ThroughPowerCuts, |tx| {
        execute(tx.db, "ROLLBACK", [])?;
        Err::<(), _>(ManifestError::Closed.into())
    });
    // Sent while the writer is busy, these three make one group.
    let group = async {
        is_inside.await.unwrap();
        futures::join!(
            world.manifest.learn(vec![world.task("first")]),
            failing,
            world.manifest.learn(vec![world.task("second")]),
            async { go.send(()).unwrap() },
        )
    };
    let (busy, (first, failing, second, ())) = futures::join!(busy, group);
    busy.unwrap();
    assert!(
        matches!(failing, Err(ManifestError::Closed)),
        "its own error: {failing:?}"
    );
    for learned in [first, second] {
        assert!(
            matches!(learned, Err(ManifestError::Engine { .. })),
            "{learned:?}"
        );
    }
    assert!(world.manifest.tally().await.unwrap().tasks.is_empty());
    world.learn("after").await;
}

#[tokio::test]
async fn a_full_disk_is_told_to_all_whose_work_is_undone_and_passes() {
    let world = World::sqlite(false).await;
    world.learn("before").await;
    let limit = |pages: i64| {
        sqlite(&world).write("limit", Lasting::ThroughPowerCuts, move |tx| {
            Ok(tx.db.pragma_update(None, "max_page_count", pages)?)
        })
    };
    limit(1).await.unwrap();
    let tasks = (0..10_000)
        .map(|number| world.task(&format!("t{number}")))
        .collect();
    let full = world.manifest.learn(tasks).await;
    assert!(
        matches!(full, Err(ManifestError::Full { verb: "learn", .. })),
        "{full:?}"
    );
    limit(1_000_000).await.unwrap();
    world.learn("after").await;
    assert_eq!(
        world
            .manifest
            .tally()
            .await
            .unwrap()
            .tasks_in(TaskState::Watching),
        2
    );
}

#[tokio::test]
async fn reads_do_not_wait_for_the_writer() {
    let world = World::sqlite(false).await;
    world.learn("a").await;
    let (go, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (inside, is_inside) = tokio::sync::oneshot::channel();
    let busy = sqlite(&world).write("busy", Lasting::ThroughPowerCuts, move |tx| {
        execute(tx.db, "DELETE FROM tasks", [])?;
        inside.send(()).unwrap();
        wait.recv().unwrap();
        Ok(())
    });
    let read = async {
        is_inside.await.unwrap();
        let records = join_all((0..20).map(|_| world.record("a"))).await;
        go.send(()).unwrap();
        records.len()
    };
    let (busy, read) = futures::join!(busy, read);
    busy.unwrap();
    assert_eq!(read, 20);
    assert!(world.manifest.tally().await.unwrap().tasks.is_empty());
}
