//! Wakes between machines: an empty word that there may be work, sent after the data is durable, heard by all.
//!
//! A word that is lost costs a second: every driver looks by itself that often.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_postgres::AsyncMessage;
use tokio_postgres::Connection;
use tokio_postgres::NoTls;

use super::connect::Way;

/// The channel's name.
const CHANNEL: &str = "reelvault_work";

/// What is written within this time goes out as one word, and what is heard within it wakes once.
const GATHER: Duration = Duration::from_millis(50);

/// The wait before another try to listen, after the connection was lost.
const AGAIN: Duration = Duration::from_secs(2);

/// Verbs after which another stage, here or elsewhere, may have something to do at once.
const STIRRING: [&str; 9] = [
    "learn",
    "learn_link",
    "hear",
    "revive",
    "observe",
    "observe_all",
    "retry",
    "replay",
    "enable_endpoints",
];

/// The two ends of the wire.
#[derive(Debug)]
pub(super) struct Wakes {
    said: Arc<Notify>,
    heard: watch::Sender<u64>,
    ends: std::sync::Mutex<JoinSet<()>>,
}

impl Wakes {
    /// Begins to speak and to listen, where that is wanted.
    pub(super) fn start(way: &Way, pool: &Pool, is_wanted: bool) -> Self {
        let (heard, _) = watch::channel(0);
        let said = Arc::new(Notify::new());
        let mut ends = JoinSet::new();
        if is_wanted {
            ends.spawn(speak(pool.clone(), Arc::clone(&said)));
            ends.spawn(listen(way.clone(), heard.clone()));
        }
        Self {
            said,
            heard,
            ends: std::sync::Mutex::new(ends),
        }
    }

    /// Says that a verb is done.
    pub(super) fn done(&self, verb: &str) {
        if STIRRING.contains(&verb) {
            self.said.notify_one();
        }
    }

    /// Changes when another machine said something.
    pub(super) fn heard(&self) -> watch::Receiver<u64> {
        self.heard.subscribe()
    }

    /// Falls silent.
    pub(super) fn stop(&self) {
        let mut ends = self
            .ends
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ends.abort_all();
    }
}

async fn speak(pool: Pool, said: Arc<Notify>) {
    loop {
        said.notified().await;
        tokio::time::sleep(GATHER).await;
        // A word that cannot be said is not worth a line: the verbs themselves say when the server is away.
        if let Ok(client) = pool.get().await {
            let word = format!("NOTIFY {CHANNEL}");
            client.batch_execute(&word).await.ok();
        }
    }
}

async fn listen(way: Way, heard: watch::Sender<u64>) {
    loop {
        // One that cannot be had is not worth a line: the verbs themselves say when the server is away.
        match &way.tls {
            Some(tls) => {
                if let Ok((client, connection)) = way.config.connect(tls.clone()).await {
                    hear(client, connection, &heard).await;
                }
            }
            None => {
                if let Ok((client, connection)) = way.config.connect(NoTls).await {
                    hear(client, connection, &heard).await;
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Listens until the connection ends.
async fn hear<S, T>(
    client: tokio_postgres::Client,
    mut connection: Connection<S, T>,
    heard: &watch::Sender<u64>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let register = format!("LISTEN {CHANNEL}");
    let mut registering = std::pin::pin!(client.batch_execute(&register));
    let mut is_registered = false;
    loop {
        // Every arm is cancel-safe: a pinned future polled by reference, and a poll that keeps its state outside.
        tokio::select! {
            done = &mut registering, if !is_registered => {
                if done.is_err() {
                    return;
                }
                is_registered = true;
                // What was said before is not said again.
                heard.send_modify(|count| *count = count.wrapping_add(1));
            }
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(_))) => {
                    heard.send_modify(|count| *count = count.wrapping_add(1));
                }
                // A foreign enum: what else a server says unasked is for its own log.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    }
}
