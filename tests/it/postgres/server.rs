//! A private `PostgreSQL` for tests: made of the machine's own package in a temporary folder, on a unix socket alone.
//!
//! One server serves a whole run, whether its tests are threads or processes, and each test has a database of its own.
//! A guardian beside it stops the server and removes its data once nobody holds the lock of its users any more, which
//! the system lets go for whoever dies, in whatever way.

use std::fs::File;
use std::hash::DefaultHasher;
use std::hash::Hash as _;
use std::hash::Hasher as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

/// The server's superuser.
const ROLE: &str = "reelvault";

/// What the server is told: nothing of it outlives the run, so nothing needs to reach the disk.
const SETTINGS: &str = "listen_addresses = ''
fsync = off
full_page_writes = off
max_connections = 300
shared_buffers = '64MB'
";

/// Who gets in: everybody on the socket, but one role needs its password.
const DOORS: &str = "local all locked scram-sha-256
local all all trust
";

/// Waits until nobody uses the server for `$3` seconds, stops it and removes its data.
const GUARDIAN: &str = r#"
exec 9<>"$1/users"
idle=0
while [ "$idle" -lt "$3" ]; do
    sleep 1
    if flock -n -x 9; then
        idle=$((idle + 1))
        [ "$idle" -lt "$3" ] && flock -u 9
    else
        idle=0
    fi
done
kill -QUIT "$(head -n 1 "$1/data/postmaster.pid")" 2>/dev/null
while [ -e "$1/s/.s.PGSQL.5432.lock" ] && kill -0 "$(head -n 1 "$1/s/.s.PGSQL.5432.lock")" 2>/dev/null; do sleep 0.1; done
rm -rf "$1/data" "$1/s"
[ "$2" = own ] && rm -rf "$1"
exit 0
"#;

/// A running server. It goes when the last value of it in any process has gone.
pub(crate) struct Server {
    home: PathBuf,
    /// Held shared for as long as the server is used.
    _users: File,
}

impl Server {
    /// The server of the run.
    pub(crate) fn shared() -> Self {
        let mut hasher = DefaultHasher::new();
        env!("CARGO_MANIFEST_DIR").hash(&mut hasher);
        let name = format!("reelvault-pg-{:08x}", hasher.finish() >> 32);
        Self::at(std::env::temp_dir().join(name), "shared")
    }

    /// A server that a test may stop, start and lock up as it likes.
    pub(crate) fn own() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("reelvault-pg-{}-{count}", std::process::id());
        Self::at(std::env::temp_dir().join(name), "own")
    }

    fn at(home: PathBuf, kind: &str) -> Self {
        std::fs::create_dir_all(&home).unwrap();
        let open = |name: &str| {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false);
            options.open(home.join(name)).unwrap()
        };
        let users = open("users");
        // Waits for a guardian that is just clearing away.
        users.lock_shared().unwrap();
        let starting = open("starting");
        starting.lock().unwrap();
        let server = Self {
            home,
            _users: users,
        };
        if !server.answers() {
            server.make();
            server.start();
            server.guard(kind);
        }
        drop(starting);
        server
    }

    /// A new database, as a URL.
    pub(crate) fn database(&self) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("test_{}_{count}", std::process::id());
        run("createdb", &["-h", &self.socket(), "-U", ROLE, &name]);
        let url = format!("postgres://{ROLE}@/{name}?host={}", self.socket());
        Database {
            url,
            name,
            socket: self.socket(),
        }
    }

    /// A new database whose texts have another encoding.
    pub(crate) fn database_in(&self, encoding: &str) -> Database {
        let database = self.database();
        let name = &database.name;
        self.sql("postgres", &format!("DROP DATABASE {name}"));
        let make = format!("CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0");
        self.sql("postgres", &make);
        database
    }

    /// Runs SQL as the superuser and gives what it printed, one row a line.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        run(
            "psql",
            &[
                "-h",
                &self.socket(),
                "-U",
                ROLE,
                "-d",
                database,
                "-AtXqc",
                sql,
            ],
        )
    }

    /// Lets the server run.
    pub(crate) fn start(&self) {
        let data = self.data();
        let log = self.home.join("s/log");
        let options = format!("-k {}", self.socket());
        self.as_server(
            "pg_ctl",
            &[
                "start",
                "-w",
                "-D",
                &data,
                "-l",
                &log.to_string_lossy(),
                "-o",
                &options,
            ],
        );
    }

    /// Stops it at once, as a crash would.
    pub(crate) fn stop(&self) {
        self.as_server(
            "pg_ctl",
            &["stop", "-w", "-m", "immediate", "-D", &self.data()],
        );
    }

    /// The folder of the socket.
    pub(crate) fn socket(&self) -> String {
        self.home.join("s").to_string_lossy().into_owned()
    }

    fn data(&self) -> String {
        self.home.join("data").to_string_lossy().into_owned()
    }

    fn answers(&self) -> bool {
        let mut command = Command::new(program("pg_isready"));
        command.args(["-q", "-h", &self.socket()]);
        command.status().unwrap().success()
    }

    /// Makes an empty cluster.
    fn make(&self) {
        for folder in ["data", "s"] {
            let path = self.home.join(folder);
            std::fs::remove_dir_all(&path).ok();
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
            if let Some(user) = other_user() {
                let status = Command::new("chown").arg(user).arg(&path).status();
                assert!(status.unwrap().success());
            }
        }
        let data = self.data();
        self.as_server(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                ROLE,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
        );
        let append = |name: &str, text: &str| {
            let path = self.home.join("data").join(name);
            let before = std::fs::read_to_string(&path).unwrap();
            std::fs::write(&path, format!("{text}{before}")).unwrap();
        };
        append("postgresql.conf", "");
        let settings = self.home.join("data/postgresql.auto.conf");
        std::fs::write(settings, SETTINGS).unwrap();
        append("pg_hba.conf", DOORS);
    }

    fn guard(&self, kind: &str) {
        let patience = if kind == "own" { "1" } else { "10" };
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", GUARDIAN, "guardian"]);
        command.arg(&self.home).args([kind, patience]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        drop(command.spawn().unwrap());
    }

    /// Runs as the user that the server runs as, which must not be root.
    fn as_server(&self, name: &str, arguments: &[&str]) {
        let mut command = match other_user() {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(program(name));
                command
            }
            None => Command::new(program(name)),
        };
        // The server keeps what it inherits; a pipe would never end.
        let said = self.home.join(format!("said.{name}"));
        let file = File::create(&said).unwrap();
        command
            .current_dir("/")
            .args(arguments)
            .stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let status = command.status().unwrap();
        let said = std::fs::read_to_string(said).unwrap();
        assert!(status.success(), "{name}: {said}");
    }
}

/// A database of one test; it is dropped with the value.
pub(crate) struct Database {
    /// As `manifest.url` wants it.
    pub(crate) url: String,
    /// Its name.
    pub(crate) name: String,
    socket: String,
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut command = Command::new(program("dropdb"));
        command.args(["-f", "-h", &self.socket, "-U", ROLE, &self.name]);
        // A server that a test has stopped takes its databases with it.
        command.stderr(Stdio::null()).status().ok();
    }
}

/// Whom the server runs as, where we are root.
fn other_user() -> Option<&'static str> {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let has_own = users.lines().any(|line| line.starts_with("postgres:"));
    is_root.then_some(if has_own { "postgres" } else { "nobody" })
}

/// A program of the newest `PostgreSQL` on this machine.
fn program(name: &str) -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(name)))
        })
        .filter(|(_, path)| path.exists())
        .collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || {
        std::env::split_paths(&path)
            .map(|folder: PathBuf| Path::new(&folder).join(name))
            .find(|path| path.exists())
    };
    let found = found.pop().map(|(_, path)| path).or_else(on_path);
    found.unwrap_or_else(|| {
        panic!("no {name} on this machine: install postgresql, as `make test` does")
    })
}

/// What a program of the client prints.
fn run(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program(name));
    let output = command.args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
