//! A fleet over one Postgres: several daemons, and everything that can be wrong with the server.

mod differing;
mod faults;
mod moving;
mod pooler;
pub(crate) mod server;

use reelvault::simulator;
use reelvault::simulator::bucket::Effect;
use reelvault::simulator::bucket::Fault;
use reelvault::simulator::bucket::Operation;
use reelvault::units::ByteSize;
use reelvault::units::Span;

use self::server::Database;
use self::server::Server;
use crate::fleet::machine;
use crate::process::Home;
use crate::process::Outside;
use crate::world::variables;

/// What one connection gets of a file in a second: a file takes a second and a half.
const RATE: ByteSize = ByteSize::mib(8);

/// Files of three parts that come no faster than [`RATE`].
async fn outside() -> Outside {
    let config = simulator::Config {
        size: ByteSize::mib(12),
        ..simulator::Config::at_once()
    };
    let outside = Outside::new(config, "videos").await;
    outside.simulator.limit_rate(Some(RATE));
    outside
}

/// The outside with its own folder as the machine `one`.
pub(crate) async fn fleet(server: &Server) -> (Outside, Database) {
    let (outside, database) = (outside().await, server.database());
    let config = machine(&outside, &database.url, "one", "");
    outside.home.configure(&config);
    (outside, database)
}

/// A second machine of the same fleet.
fn beside(outside: &Outside, database: &Database, name: &str) -> Home {
    let home = Home::new(variables(&outside.bucket));
    home.configure(&machine(outside, &database.url, name, ""));
    home
}

/// A file in the folder of a home, as `manifest.url` wants it.
fn file(home: &Home, name: &str) -> String {
    format!("sqlite:{}", home.path().join(name).display())
}

/// The arguments of a move.
fn migrate<'a>(from: &'a str, to: &'a str) -> [&'a str; 6] {
    ["manifest", "migrate", "--from", from, "--to", to]
}

#[tokio::test]
async fn two_machines_archive_everything_once() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    let second = beside(&outside, &database, "two");
    let (one, two) = tokio::join!(outside.home.start(), second.start());
    outside.add(12).await;
    outside.archived(&one).await;
    let status = outside.home.done(&["status"]).await;
    assert!(status.contains("2 machines: one, two"), "{status}");
    let verified = outside.home.done(&["manifest", "verify", "--deep"]).await;
    assert!(verified.contains("12 good"), "{verified}");
    for (daemon, home) in [(one, &outside.home), (two, &second)] {
        let log = daemon.stop().await;
        assert!(log.contains("archived"), "idle beside a busy one: {log}");
        home.hear(&log);
    }
    let status = outside.home.done(&["status"]).await;
    assert!(!status.contains("machines:"), "{status}");
    outside.assert_all_safe();
}

#[tokio::test]
async fn what_a_dead_machine_held_is_finished_by_another() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    outside.add(6).await;
    let one = outside.home.start().await;
    outside.bucket.reached(Operation::UploadPart, 2).await;
    outside.home.hear(&one.kill().await);
    let second = beside(&outside, &database, "two");
    let two = second.start().await;
    outside.archived(&two).await;
    second.hear(&two.stop().await);
    outside.assert_all_safe();
}

#[tokio::test]
async fn a_frozen_machine_that_wakes_changes_nothing() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    outside.add(6).await;
    let one = outside.home.start().await;
    outside.bucket.reached(Operation::UploadPart, 2).await;
    one.signal("STOP");
    let second = beside(&outside, &database, "two");
    let two = second.start().await;
    outside.archived(&two).await;
    one.signal("CONT");
    one.says("the lease was lost").await;
    outside.home.hear(&one.stop().await);
    second.hear(&two.stop().await);
    outside.assert_all_safe();
}

#[tokio::test]
async fn whoever_lost_its_lease_opens_no_upload() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    // The second try keeps the name of the first, and so writes nothing before it opens an upload.
    let bucket = &outside.bucket;
    let create = Operation::CreateMultipartUpload;
    bucket.plant(Fault::new(create, Effect::INTERNAL_ERROR));
    outside.add(1).await;
    let daemon = outside.home.start().await;
    bucket.reached(create, 1).await;
    let late = Effect::Delay(Span::from_secs(1));
    bucket.plant(Fault::new(Operation::HeadObject, late));
    let heads = bucket.count(Operation::HeadObject);
    bucket.reached(Operation::HeadObject, heads + 1).await;
    // Somebody else claims it, and dies.
    let claim = "UPDATE assets SET lease_token = lease_token + 1, lease_owner = 'other/1',
        lease_expires_at = FLOOR(EXTRACT(EPOCH FROM clock_timestamp()) * 1000) + 4000";
    server.sql(&database.name, claim);
    outside.archived(&daemon).await;
    outside.home.hear(&daemon.stop().await);
    assert_eq!(
        bucket.count(create),
        2,
        "one that was refused, and its owner's"
    );
    outside.assert_all_safe();
}

#[tokio::test]
async fn a_name_is_one_machines_and_a_dead_ones_is_taken_over() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    let one = outside.home.start().await;
    let twin = beside(&outside, &database, "one");
    let refused = twin.run(&["run"]).await;
    assert_eq!(refused.code, 11, "{refused:?}");
    assert!(
        refused
            .stderr
            .contains("another machine works on this manifest as \"one\"")
            && refused.stderr.contains("hint:  "),
        "{refused:?}"
    );
    one.kill().await;
    let again = outside.home.start().await;
    again.stop().await;
}

#[tokio::test]
async fn whoever_arrives_waits_for_rows_that_a_frozen_machine_has_locked() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    outside.add(1).await;
    // What an earlier run of this machine had, in a transaction that does not move.
    let earlier = "UPDATE tasks SET lease_owner = 'one/earlier', lease_expires_at = 9000000000000";
    server.sql(&database.name, earlier);
    let frozen = "SELECT id FROM tasks FOR UPDATE; SELECT pg_sleep(60)";
    let mut frozen = std::process::Command::new("psql")
        .args([
            "-h",
            &server.socket(),
            "-U",
            "reelvault",
            "-d",
            &database.name,
            "-c",
            frozen,
        ])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let holders =
        "FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";
    while server.sql(&database.name, &format!("SELECT count(*) {holders}")) != "1\n" {
        assert!(frozen.try_wait().unwrap().is_none());
    }
    let home = beside(&outside, &database, "one");
    let mut arriving = tokio::task::JoinSet::new();
    arriving.spawn(async move { home.start().await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    // The server ends a wait after five seconds: what is waited for here is the second one.
    let mut waited = 0;
    let mut was_waiting = false;
    while waited < 2 {
        let is_waiting = server.sql(&database.name, waits) != "0\n";
        waited += usize::from(is_waiting && !was_waiting);
        was_waiting = is_waiting;
        assert!(arriving.try_join_next().is_none(), "nothing was in its way");
        tokio::task::yield_now().await;
    }
    server.sql(
        &database.name,
        &format!("SELECT pg_terminate_backend(pid) {holders}"),
    );
    frozen.wait().unwrap();
    let daemon = arriving.join_next().await.unwrap().unwrap();
    outside.archived(&daemon).await;
    daemon.stop().await;
    outside.assert_all_safe();
}

#[tokio::test]
async fn a_server_that_dies_under_a_daemon_costs_time_and_nothing_else() {
    let server = Server::own();
    let (outside, _database) = fleet(&server).await;
    outside.add(6).await;
    let daemon = outside.home.start().await;
    outside.bucket.reached(Operation::UploadPart, 2).await;
    let away = tokio::time::Instant::now();
    server.stop();
    daemon.says("cannot reach postgres://").await;
    // What was under way is finished and waits with its outcome.
    daemon.says("the manifest does not take an outcome").await;
    assert!(outside.bucket.objects().len() < 6, "too late to stop");
    daemon.says("failed to claim work").await;
    server.start();
    outside.archived(&daemon).await;
    let log = daemon.says("the manifest answers again").await;
    // Five stages, each of which looks every second, say it once and then now and then.
    let said = log.matches("failed to claim work").count();
    let most = 5 * (1 + away.elapsed().as_secs() / 10);
    assert!(u64::try_from(said).unwrap() <= most, "{said}: {log}");
    let log = daemon.stop().await;
    assert!(!log.contains("panicked"), "{log}");
    outside.home.hear(&log);
    outside.assert_all_safe();
}

#[tokio::test]
async fn a_daemon_that_is_not_let_in_yet_ends_when_it_is_told_to() {
    let server = Server::shared();
    let (outside, _database) = fleet(&server).await;
    outside.home.start().await.kill().await;
    let daemon = outside.home.spawn();
    daemon.says("waiting whether it is heard of again").await;
    outside.home.hear(&daemon.stop().await);
}

#[track_caller]
fn check(said: &str, part: &str) {
    assert!(said.contains(part), "{said}");
}

/// Starts a daemon that cannot work, and gives what it said.
async fn refused(outside: &Outside, url: &str, more: &str) -> String {
    let config = machine(outside, url, "one", more);
    // What it is refused for may show after it listens, and others listen where daemons do.
    let door = "server.listen = \"127.0.0.1:0\"";
    outside.home.configure(&format!("{door}\n{config}"));
    let outcome = outside.home.run(&["run"]).await;
    assert_eq!(outcome.code, 11, "{outcome:?}");
    assert!(outcome.stderr.contains("hint:  "), "{outcome:?}");
    assert!(!outcome.stderr.contains("canary"), "{outcome:?}");
    outcome.stderr
}

#[tokio::test]
async fn a_server_that_cannot_be_used_is_told_with_what_to_do() {
    let server = Server::shared();
    let (outside, database) = fleet(&server).await;
    let socket = server.socket();
    let away = "postgres://reelvault@/reelvault?host=/nonexistent";
    check(&refused(&outside, away, "").await, "cannot reach");
    let checked = outside.home.run(&["check"]).await;
    assert_eq!(checked.code, 11, "{checked:?}");
    let unknown = format!("postgres://reelvault@/unknown?host={socket}");
    let said = refused(&outside, &unknown, "").await;
    check(
        &said,
        "does not let us in: database \"unknown\" does not exist",
    );

    let (name, locked) = (&database.name, format!("locked_{}", std::process::id()));
    server.sql(
        name,
        &format!("CREATE ROLE {locked} LOGIN CONNECTION LIMIT 0"),
    );
    let full = format!("postgres://{locked}@/{name}?host={socket}");
    check(&refused(&outside, &full, "").await, "too many connections");
    server.sql(name, &format!("DROP ROLE {locked}"));

    let read_only = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    server.sql(name, &read_only);
    check(
        &refused(&outside, &database.url, "").await,
        "takes no writes",
    );
    let writable = format!("ALTER DATABASE {name} RESET default_transaction_read_only");
    server.sql("postgres", &writable);

    server.sql(name, "CREATE TABLE tasks (id INTEGER)");
    let said = refused(&outside, &database.url, "").await;
    check(
        &said,
        "no manifest: another program has tasks there\nhint:  manifest.url must name a database",
    );
    server.sql(name, "DROP TABLE tasks");

    let latin = server.database_in("LATIN1");
    let said = refused(&outside, &latin.url, "").await;
    check(&said, "has the encoding LATIN1");
    check(&said, "ENCODING 'UTF8' TEMPLATE template0");
    let added = outside.home.run(&["add", "task-unified-1-x"]).await;
    assert_eq!(added.code, 11, "{added:?}");

    // With all of that mended it works.
    outside
        .home
        .configure(&machine(&outside, &database.url, "one", ""));
    let checked = outside.home.done(&["check"]).await;
    check(&checked, "will be made at the first start");
    outside.home.start().await.stop().await;
    outside.home.done(&["check"]).await;

    // Who can read all of it, and write nothing, has nothing to wait for.
    server.sql("postgres", &read_only);
    check(
        &refused(&outside, &database.url, "").await,
        "takes no writes",
    );
    let checked = outside.home.run(&["check"]).await;
    assert_eq!(checked.code, 11, "{checked:?}");
    check(&checked.stdout, "takes no writes");
    outside.home.done(&["status"]).await;
    server.sql("postgres", &writable);
}

#[tokio::test]
async fn a_wrong_password_and_a_newer_schema_are_refused() {
    let server = Server::own();
    let (outside, database) = fleet(&server).await;
    let name = &database.name;
    server.sql(
        name,
        "CREATE ROLE locked SUPERUSER LOGIN PASSWORD 'sk-canary-provider'",
    );
    let locked = format!("postgres://locked@/{name}?host={}", server.socket());
    let wrong = refused(&outside, &locked, "password = { env = \"TOKEN\" }\n").await;
    assert!(wrong.contains("password authentication failed"), "{wrong}");
    let right = "password = { env = \"SIM_KEY\" }\n";
    outside
        .home
        .configure(&machine(&outside, &locked, "one", right));
    outside.home.start().await.stop().await;

    server.sql(name, "INSERT INTO reelvault_schema VALUES (99, 0)");
    let newer = refused(&outside, &locked, right).await;
    assert!(newer.contains("manifest has schema 99"), "{newer}");
}
