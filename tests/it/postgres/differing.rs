//! Machines that are not all alike: other providers, other clocks.

use super::check;
use super::faults::deceived;
use super::faults::forget_role;
use super::fleet;
use super::machine;
use super::outside;
use super::server::Server;
use crate::process::Home;
use crate::world::variables;

#[tokio::test]
async fn a_provider_that_one_machine_lacks_is_left_to_another() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    let lacking = Home::new(variables(&outside.bucket));
    let config = machine(&outside, &database.url, "two", "");
    assert!(config.contains("[provider.sim]"), "{config}");
    lacking.configure(&config.replace("[provider.sim]", "[provider.other]"));
    let two = lacking.start().await;
    outside.add(4).await;
    two.says("provider sim is not configured here").await;
    let status = lacking.prints(&["status"], "wait for provider sim").await;
    check(&status, "OK   nothing is at risk");
    check(&outside.home.done(&["status"]).await, "4 watched");
    let one = outside.home.start().await;
    outside.archived(&one).await;
    for (daemon, home) in [(one, &outside.home), (two, &lacking)] {
        let log = daemon.stop().await;
        assert!(!log.contains("not archived yet"), "{log}");
        home.hear(&log);
    }
    let export = outside.home.done(&["manifest", "export"]).await;
    assert!(!export.contains("not configured here"), "{export}");
    outside.assert_all_safe();
}

/// The server's clock, moved by so much.
fn clock(moved: &str) -> String {
    format!(
        "statement_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
        AS $$ SELECT pg_catalog.statement_timestamp() + interval '{moved}' $$"
    )
}

#[tokio::test]
async fn machines_whose_clocks_are_behind_archive_everything_once() {
    let (server, outside) = (Server::shared(), outside().await);
    let database = server.database();
    let url = deceived(&server, &database, &clock("2 hours"));
    outside.home.configure(&machine(&outside, &url, "one", ""));
    let second = Home::new(variables(&outside.bucket));
    second.configure(&machine(&outside, &url, "two", ""));
    let (one, two) = tokio::join!(outside.home.start(), second.start());
    one.says("behind the manifest's").await;
    outside.add(6).await;
    outside.archived(&one).await;
    let checked = outside.home.run(&["check"]).await;
    check(&checked.stdout, "warn  clock");
    check(&checked.stdout, " behind the manifest's");
    for (daemon, home) in [(one, &outside.home), (two, &second)] {
        let log = daemon.stop().await;
        assert!(!log.contains("lease was lost"), "{log}");
        home.hear(&log);
    }
    outside.assert_all_safe();
    forget_role(&server, &database);
}

#[tokio::test]
async fn a_machine_whose_clock_is_ahead_looks_later_and_says_so() {
    let (server, outside) = (Server::shared(), outside().await);
    let database = server.database();
    let url = deceived(&server, &database, &clock("-2 hours"));
    outside.home.configure(&machine(&outside, &url, "one", ""));
    let daemon = outside.home.start().await;
    daemon.says("ahead of the manifest's").await;
    outside.add(1).await;
    let status = outside.home.done(&["status", "--json"]).await;
    check(&status, "\"watching\":1");
    outside.home.hear(&daemon.stop().await);

    // With the right time again the task is due, and nothing was lost by it.
    outside
        .home
        .configure(&machine(&outside, &database.url, "one", ""));
    let daemon = outside.home.start().await;
    outside.archived(&daemon).await;
    let log = daemon.stop().await;
    assert!(!log.contains("the manifest's: tasks"), "{log}");
    outside.home.hear(&log);
    outside.assert_all_safe();
    forget_role(&server, &database);
}
