//! What the service manager is told: ready, reloading, stopping, one line of status, and that we still move.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;

/// The longest status: what `systemctl status` shows in one line.
const STATUS_CHARS_MAX: usize = 200;

/// How often the watchdog is told of progress within the time after which it would restart us: one ping may be late
/// by a whole interval without harm.
const PINGS_WITHIN_LIMIT: u32 = 3;

/// The service manager. Outside of systemd, that is without `$NOTIFY_SOCKET`, every call does nothing.
///
/// No call fails: a daemon that archives is worth more than one that reports, and where reports are needed (the start,
/// the watchdog) systemd itself acts on their absence. The first failure is logged.
#[derive(Debug, Default)]
pub struct Systemd {
    failed: AtomicBool,
}

impl Systemd {
    /// A handle; there is no connection to open.
    pub fn new() -> Self {
        Self::default()
    }

    /// The daemon works: after the start, and again after a reload.
    pub fn ready(&self) {
        self.notify(&[NotifyState::Ready]);
    }

    /// A reload begins; [`Systemd::ready`] ends it, whether the new configuration was taken or the old one kept.
    pub fn reloading(&self) {
        // The two belong in one message, or systemd takes the reload as failed.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.notify(&[NotifyState::Reloading, now]),
            Err(error) => self.log_first(&error),
        }
    }

    /// The daemon stops.
    pub fn stopping(&self) {
        self.notify(&[NotifyState::Stopping]);
    }

    /// Shows `text` in `systemctl status`, as one line.
    pub fn status(&self, text: &str) {
        // A line end would begin another message to systemd.
        let line = text.chars().take(STATUS_CHARS_MAX);
        let line: String = line.map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.notify(&[NotifyState::Status(&line)]);
    }

    /// Tells the watchdog that the daemon made progress; to be called only when it did.
    pub fn ping(&self) {
        self.notify(&[NotifyState::Watchdog]);
    }

    /// How often to [`Systemd::ping`]; nothing where no watchdog waits for us.
    pub fn ping_interval(&self) -> Option<Duration> {
        let limit = sd_notify::watchdog_enabled()?;
        let interval = limit.checked_div(PINGS_WITHIN_LIMIT)?;
        (!interval.is_zero()).then_some(interval)
    }

    fn notify(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = tell(states) {
            self.log_first(&error);
        }
    }

    fn log_first(&self, error: &io::Error) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(%error, "cannot tell systemd what the daemon does; saying so only once");
        }
    }
}

/// Sends one message. A socket without a file, whose name begins with `@`, is one that the crate does not know.
fn tell(states: &[NotifyState<'_>]) -> io::Result<()> {
    let socket = std::env::var_os("NOTIFY_SOCKET").unwrap_or_default();
    let Some(name) = socket.as_encoded_bytes().strip_prefix(b"@") else {
        return sd_notify::notify(states);
    };
    let address = SocketAddr::from_abstract_name(name)?;
    let lines: Vec<String> = states.iter().map(|state| format!("{state}\n")).collect();
    UnixDatagram::unbound()?.send_to_addr(lines.concat().as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::process::Output;

    use super::*;

    /// Set for a test that another process runs, whose part in it is then the child's.
    const CHILD: &str = "REELVAULT_TEST_CHILD_OF_SYSTEMD";

    fn is_child() -> bool {
        std::env::var_os(CHILD).is_some()
    }

    /// Runs a test below once more, in a process of its own with systemd's variables.
    fn run(test: &str, socket: &Path, watchdog_usec: &str) -> Output {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg(format!("daemon::systemd::tests::{test}"))
            .env(CHILD, "1")
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", watchdog_usec)
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap()
    }

    #[track_caller]
    fn assert_passed(output: &Output) -> String {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}"
        );
        said
    }

    #[test]
    fn speaks_to_the_service_manager() {
        if is_child() {
            return speak();
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        hear(&UnixDatagram::bind(&path).unwrap(), &path);
        let name = format!("@reelvault-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name[1..]).unwrap();
        hear(
            &UnixDatagram::bind_addr(&address).unwrap(),
            Path::new(&name),
        );
    }

    fn hear(socket: &UnixDatagram, path: &Path) {
        socket.set_nonblocking(true).unwrap();
        assert_passed(&run("speaks_to_the_service_manager", path, "30000000"));
        let mut messages = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            messages.push(String::from_utf8(buffer[..length].to_vec()).unwrap());
        }
        let reload = messages.remove(3);
        assert_eq!(
            messages,
            [
                "READY=1\n".to_owned(),
                "STATUS=archiving 3 READY=1\n".to_owned(),
                format!("STATUS={}\n", "x".repeat(STATUS_CHARS_MAX)),
                "READY=1\n".to_owned(),
                "WATCHDOG=1\n".to_owned(),
                "STOPPING=1\n".to_owned(),
            ]
        );
        let micros = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(micros.trim_end().parse::<u64>().unwrap() > 0, "{reload}");
    }

    fn speak() {
        let systemd = Systemd::new();
        assert_eq!(systemd.ping_interval(), Some(Duration::from_secs(10)));
        systemd.ready();
        systemd.status("archiving 3\nREADY=1");
        systemd.status(&"x".repeat(4096));
        systemd.reloading();
        systemd.ready();
        systemd.ping();
        systemd.stopping();
    }

    #[test]
    fn a_deaf_service_manager_is_logged_once_and_harms_nothing() {
        if is_child() {
            return speak_to_nobody();
        }
        let folder = tempfile::tempdir().unwrap();
        let test = "a_deaf_service_manager_is_logged_once_and_harms_nothing";
        let output = run(test, &folder.path().join("absent"), "0");
        let said = assert_passed(&output);
        assert_eq!(said.matches("cannot tell systemd").count(), 1, "{said}");
    }

    fn speak_to_nobody() {
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::io::stdout)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let systemd = Systemd::new();
            assert_eq!(systemd.ping_interval(), None);
            systemd.ready();
            systemd.ping();
            systemd.stopping();
        });
    }
}
