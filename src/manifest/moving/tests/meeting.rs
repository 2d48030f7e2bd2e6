//! Moves that meet somebody: another try, whoever looks in between, whoever opens the manifest at their end.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::breaking::filled;
use super::breaking::once_free;
use super::*;

#[tokio::test]
async fn of_two_tries_at_once_one_is_refused() {
    let world = filled().await;
    let (there, back) = (place(), file_in(&world.folder, "back.db"));
    for config in [&there.config, &back] {
        let begin = || End::target(config, "elsewhere");
        let one = begin().await.unwrap();
        let two = begin().await;
        assert!(
            matches!(two, Err(MoveError::Busy { .. })),
            "{:?}",
            two.err()
        );
        let looked = End::check_target(config, "elsewhere").await;
        assert!(matches!(looked, Err(MoveError::Busy { .. })), "{looked:?}");
        drop(one);
        once_free(async || begin().await.map(drop)).await.unwrap();
    }
    // Another came and went in the moment between two pages.
    let mut one = once_free(async || End::target(&there.config, "elsewhere").await)
        .await
        .unwrap();
    let sql = |sql: &str| there.server.sql(&there.database.name, sql);
    sql("UPDATE reelvault_moving SET token = token + 1");
    let late = one.clear().await;
    assert!(matches!(late, Err(MoveError::Busy { .. })), "{late:?}");
}

/// A connection of somebody else to the server. It is closed with the set of tasks.
async fn stranger(there: &Place) -> (tokio_postgres::Client, JoinSet<()>) {
    let (client, connection) = tokio_postgres::connect(&there.config.url, NoTls)
        .await
        .unwrap();
    let mut talking = JoinSet::new();
    talking.spawn(async { connection.await.unwrap() });
    (client, talking)
}

/// Waits until somebody waits for a lock in the database.
async fn somebody_waits(there: &Place) {
    let waiting = "SELECT COUNT(*) FROM pg_locks WHERE NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let look = async {
        while there.server.sql(&there.database.name, waiting) == "0\n" {
            tokio::task::yield_now().await;
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(20), look).await;
    seen.expect("nobody waits for a lock");
}

#[tokio::test]
async fn whoever_looks_between_two_pages_is_waited_for() {
    let there = place();
    let mut moving = End::target(&there.config, "elsewhere").await.unwrap();
    let (client, _talking) = stranger(&there).await;
    let looks = async {
        let lock = "BEGIN; SELECT pg_advisory_xact_lock(7453291001)";
        client.batch_execute(lock).await.unwrap();
        somebody_waits(&there).await;
        client.batch_execute("COMMIT").await.unwrap();
    };
    let goes_on = async {
        // Who waits already gets the lock first.
        somebody_waits(&there).await;
        moving.clear().await.unwrap();
    };
    tokio::join!(looks, goes_on);
}

#[tokio::test]
async fn a_manifest_is_opened_in_the_moment_in_which_its_move_ends() {
    let there = place();
    let open = |access| Manifest::open(&there.config, Clock::system(), access);
    open(Access::Writer).await.unwrap().close().await;
    let (client, _talking) = stranger(&there).await;
    for access in [Access::Daemon, Access::Writer, Access::Reader] {
        let mark = "CREATE TABLE reelvault_moving (source TEXT, token BIGINT)";
        client.batch_execute(mark).await.unwrap();
        let end = "BEGIN; DROP TABLE reelvault_moving";
        client.batch_execute(end).await.unwrap();
        let ends = async {
            // The mark is still there for whoever looks, and is not when it is read.
            somebody_waits(&there).await;
            client.batch_execute("COMMIT").await.unwrap();
        };
        let (opened, ()) = tokio::join!(open(access), ends);
        opened.unwrap().close().await;
    }
}
