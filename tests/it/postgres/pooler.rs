//! Daemons behind a pooler that gives out connections by the transaction.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use super::beside;
use super::check;
use super::file;
use super::machine;
use super::migrate;
use super::outside;
use super::refused;
use super::server::Database;
use super::server::Server;
use crate::process::Home;

/// What a daemon has to say of itself behind one.
const SETTING: &str = "pooler = true\n";

/// A running `PgBouncer` before the server of the run.
struct Pooler {
    child: Child,
    folder: TempDir,
}

impl Pooler {
    /// Starts one with further settings.
    async fn start(server: &Server, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let socket = server.socket();
        let settings = format!(
            "[databases]\n* = host={socket} port=5432\n[pgbouncer]\nlisten_addr =\nlisten_port = 6432
unix_socket_dir = {}\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n{more}",
            at.display(),
            at.join("users").display()
        );
        std::fs::write(at.join("users"), "\"reelvault\" \"\"\n").unwrap();
        std::fs::write(at.join("settings"), settings).unwrap();
        // It runs as the user whose the server's socket is, and never as root.
        std::fs::set_permissions(at, PermissionsExt::from_mode(0o777)).unwrap();
        let owner = std::fs::metadata(&socket).unwrap().uid();
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let program = program.into_iter().find(|path| Path::new(path).exists());
        let program = program.expect("no pgbouncer on this machine: `make test` installs it");
        let is_own = std::fs::metadata(at).unwrap().uid() == owner;
        let mut command = if is_own {
            Command::new(program)
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &owner.to_string(), "--clear-groups", program]);
            command
        };
        let log = std::fs::File::create(at.join("log")).unwrap();
        command.arg(at.join("settings")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let stands = async {
            while !at.join(".s.PGSQL.6432").exists() {
                let said = std::fs::read_to_string(at.join("log")).unwrap();
                assert!(child.try_wait().unwrap().is_none(), "{said}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let patience = Duration::from_secs(30);
        tokio::time::timeout(patience, stands).await.unwrap();
        Self { child, folder }
    }

    /// A database behind it, as `manifest.url` wants it.
    fn url(&self, database: &Database) -> String {
        format!(
            "postgres://reelvault@/{}?host={}&port=6432",
            database.name,
            self.folder.path().display()
        )
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[tokio::test]
async fn daemons_behind_a_pooler_archive_everything_once() {
    let (server, outside) = (Server::shared(), outside().await);
    let database = server.database();
    // Fewer connections than the daemons would open by themselves.
    let pooler = Pooler::start(&server, "default_pool_size = 3\n").await;
    let url = pooler.url(&database);
    outside
        .home
        .configure(&machine(&outside, &url, "one", SETTING));
    let second: Home = beside(&outside, &database, "two");
    second.configure(&machine(&outside, &url, "two", SETTING));
    let (one, two) = tokio::join!(outside.home.start(), second.start());
    outside.add(4).await;
    outside.archived(&one).await;
    let status = outside.home.done(&["status"]).await;
    check(&status, "2 machines: one, two");
    let listening = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND query ILIKE 'listen%'";
    assert_eq!(server.sql(&database.name, listening), "0\n");
    for (daemon, home) in [(one, &outside.home), (two, &second)] {
        let log = daemon.stop().await;
        for trouble in [" ERROR ", "prepared statement"] {
            assert!(!log.contains(trouble), "{log}");
        }
        home.hear(&log);
    }
    outside.assert_all_safe();

    // The manifest can be moved through it as well.
    let (file, fresh) = (file(&outside.home, "back.db"), server.database());
    for (from, to) in [(&url, &file), (&file, &pooler.url(&fresh))] {
        let moved = outside.home.done(&migrate(from, to)).await;
        check(&moved, "compared row by row");
    }
}

#[tokio::test]
async fn who_forgets_to_say_so_is_told() {
    let (server, outside) = (Server::shared(), outside().await);
    let database = server.database();
    let strict = Pooler::start(&server, "").await;
    let said = refused(&outside, &strict.url(&database), "").await;
    check(&said, "is behind a pooler");
    check(&said, "hint:  set manifest.pooler = true");

    // One that swallows the settings gives each transaction another connection, which knows nothing prepared.
    let lax =
        "ignore_startup_parameters = options\nserver_round_robin = 1\ndefault_pool_size = 4\n";
    let lax = Pooler::start(&server, lax).await;
    let url = lax.url(&database);
    outside.home.configure(&machine(&outside, &url, "one", ""));
    let daemon = outside.home.spawn();
    daemon.says("is behind a pooler").await;
    daemon.kill().await;
    outside
        .home
        .configure(&machine(&outside, &url, "one", SETTING));
    outside.add(2).await;
    let daemon = outside.home.start().await;
    outside.archived(&daemon).await;
    outside.home.hear(&daemon.stop().await);
    outside.assert_all_safe();
}
