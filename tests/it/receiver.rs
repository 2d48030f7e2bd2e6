//! An endpoint on loopback that keeps what it is told and answers as it is told to, down to the bytes.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderName;
use reelvault::clock::Clock;
use reelvault::http::standard_webhooks;
use reelvault::http::standard_webhooks::Distrust;
use reelvault::http::standard_webhooks::SigningKey;
use reelvault::secret::Secret;
use serde_json::Value;
use tokio::io::AsyncBufReadExt as _;
use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::io::BufReader;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a message may take before the test is hung.
const PATIENCE: Duration = Duration::from_secs(45);

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    /// The message's ID.
    pub(crate) fn id(&self) -> &str {
        &self.headers[standard_webhooks::ID]
    }

    /// What happened.
    pub(crate) fn kind(&self) -> String {
        self.json()["type"].as_str().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether this key signed it.
    pub(crate) fn verify(&self, key: &str, now: &Clock) -> Result<(), Distrust> {
        let headers: HeaderMap = self
            .headers
            .iter()
            .map(|(name, value)| {
                let name = name.parse::<HeaderName>().unwrap();
                (name, value.parse().unwrap())
            })
            .collect();
        let key = SigningKey::read(&Secret::new(key)).unwrap();
        standard_webhooks::verify(&[key], &headers, &self.body, now.now()).map(|_| ())
    }
}

/// How a request is answered.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// With these bytes.
    Bytes(Vec<u8>),
    /// Never.
    Hang,
    /// The connection is closed.
    Close,
}

impl Reply {
    /// A status and further headers, each with its line end.
    pub(crate) fn status(status: u16, headers: &str) -> Self {
        let head = format!(
            "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n{headers}\r\n"
        );
        Reply::Bytes(head.into_bytes())
    }
}

#[derive(Debug)]
struct Manner {
    next: VecDeque<Reply>,
    then: Reply,
}

/// The endpoint. It ends with the test.
pub(crate) struct Receiver {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    seen: watch::Receiver<Vec<Message>>,
    open_max: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Receiver {
    /// An endpoint that takes everything.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let manner = Arc::new(Mutex::new(Manner {
            next: VecDeque::new(),
            then: Reply::status(204, ""),
        }));
        let (seen_by, seen) = watch::channel(Vec::new());
        let open_max = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let (dealt, most) = (Arc::clone(&manner), Arc::clone(&open_max));
        serving.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                while open.try_join_next().is_some() {}
                open.spawn(answer(stream, Arc::clone(&dealt), seen_by.clone()));
                most.fetch_max(open.len(), Ordering::SeqCst);
            }
        });
        Self {
            address,
            manner,
            seen,
            open_max,
            _serving: serving,
        }
    }

    /// Its address with this path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers the next requests so.
    pub(crate) fn plant(&self, replies: impl IntoIterator<Item = Reply>) {
        self.manner.lock().unwrap().next.extend(replies);
    }

    /// Answers all further ones so.
    pub(crate) fn answer(&self, reply: Reply) {
        self.manner.lock().unwrap().then = reply;
    }

    /// Everything so far.
    pub(crate) fn messages(&self) -> Vec<Message> {
        self.seen.borrow().clone()
    }

    /// Waits until so many requests have come.
    pub(crate) async fn reached(&self, count: usize) -> Vec<Message> {
        let mut seen = self.seen.clone();
        let reached = seen.wait_for(|messages| messages.len() >= count);
        match tokio::time::timeout(PATIENCE, reached).await {
            Ok(reached) => reached.unwrap().clone(),
            Err(late) => panic!(
                "{} of {count} messages came, {late}",
                self.seen.borrow().len()
            ),
        }
    }

    /// How many connections were open at once at most.
    pub(crate) fn open_max(&self) -> usize {
        self.open_max.load(Ordering::SeqCst)
    }
}

async fn answer(stream: TcpStream, manner: Arc<Mutex<Manner>>, seen: watch::Sender<Vec<Message>>) {
    let mut stream = BufReader::new(stream);
    let Ok(message) = read(&mut stream).await else {
        return;
    };
    // Chosen before the test can know of the message.
    let reply = {
        let mut manner = manner.lock().unwrap();
        let next = manner.next.pop_front();
        next.unwrap_or_else(|| manner.then.clone())
    };
    seen.send_modify(|messages| messages.push(message));
    match reply {
        Reply::Bytes(bytes) => {
            // A client that has enough closes first.
            stream.write_all(&bytes).await.ok();
            stream.shutdown().await.ok();
        }
        Reply::Hang => std::future::pending().await,
        Reply::Close => {}
    }
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Message> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut first = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap(), first.next().unwrap());
    let headers: BTreeMap<String, String> = lines[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length");
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await?;
    Ok(Message {
        method,
        path,
        headers,
        body,
    })
}
