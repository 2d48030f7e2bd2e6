//! A task API that writes down what it is sent, byte for byte, and answers what it is told to.

use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// A request as it came, its body freed of chunks.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) line: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    /// The values of a header.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        let values = self.head.lines().filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        values.collect()
    }
}

/// What it answers to a request: all bytes of an answer.
type Answering = Box<dyn Fn(&Received) -> Vec<u8> + Send + Sync>;

/// The API, for as long as this lives.
pub(crate) struct Upstream {
    pub(crate) url: String,
    received: Arc<Mutex<Vec<Received>>>,
    /// Answers wait for this while it is there.
    gate: Arc<Mutex<Option<Arc<Notify>>>>,
    _serving: JoinSet<()>,
}

impl Upstream {
    /// Answers with what `answer` makes of each request.
    pub(crate) async fn new(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let received = Arc::new(Mutex::new(Vec::new()));
        let gate: Arc<Mutex<Option<Arc<Notify>>>> = Arc::default();
        let answer: Arc<Answering> = Arc::new(Box::new(answer));
        let mut serving = JoinSet::new();
        let (writes, waits) = (Arc::clone(&received), Arc::clone(&gate));
        serving.spawn(async move {
            let mut talking = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                talking.spawn(talk(
                    stream,
                    Arc::clone(&writes),
                    Arc::clone(&waits),
                    Arc::clone(&answer),
                ));
            }
        });
        Self {
            url,
            received,
            gate,
            _serving: serving,
        }
    }

    /// What came so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// The only request that came.
    pub(crate) fn only(&self) -> Received {
        let received = self.received();
        assert_eq!(received.len(), 1, "{received:#?}");
        received.into_iter().next().unwrap()
    }

    /// Holds all answers back until this is notified.
    pub(crate) fn hold(&self) -> Arc<Notify> {
        let gate = Arc::new(Notify::new());
        *self.gate.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    /// Waits until so many requests have come.
    pub(crate) async fn has_received(&self, count: usize) {
        let waiting = async {
            while self.received().len() < count {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await;
        waited.unwrap_or_else(|_| panic!("{:#?}", self.received()));
    }
}

async fn talk(
    mut stream: TcpStream,
    received: Arc<Mutex<Vec<Received>>>,
    gate: Arc<Mutex<Option<Arc<Notify>>>>,
    answer: Arc<Answering>,
) {
    let mut bytes = Vec::new();
    while let Some(request) = receive(&mut stream, &mut bytes).await {
        received.lock().unwrap().push(request.clone());
        let gate = gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let answer = answer(&request);
        let is_last = find(&answer, b"Connection: close").is_some();
        if stream.write_all(&answer).await.is_err() || is_last {
            return;
        }
    }
}

/// The next request; none where the connection ends before one is whole.
async fn receive(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(at) = find(bytes, b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, bytes).await?;
    };
    let head: Vec<u8> = bytes.drain(..end).collect();
    let head = String::from_utf8(head).unwrap();
    let (line, head) = head.split_once("\r\n").unwrap();
    let mut request = Received {
        line: line.to_owned(),
        head: head.to_owned(),
        body: Vec::new(),
    };
    let length = request
        .header("content-length")
        .first()
        .map(|length| length.parse::<usize>().unwrap());
    let is_chunked = request.header("transfer-encoding") == ["chunked"];
    assert!(!(is_chunked && length.is_some()), "{request:?}");
    if is_chunked {
        loop {
            let size = loop {
                if let Some(at) = find(bytes, b"\r\n") {
                    break at;
                }
                more(stream, bytes).await?;
            };
            let size: Vec<u8> = bytes.drain(..size + 2).collect();
            let size =
                usize::from_str_radix(std::str::from_utf8(&size).unwrap().trim(), 16).unwrap();
            while bytes.len() < size + 2 {
                more(stream, bytes).await?;
            }
            request.body.extend(bytes.drain(..size));
            bytes.drain(..2);
            if size == 0 {
                return Some(request);
            }
        }
    }
    while bytes.len() < length.unwrap_or(0) {
        more(stream, bytes).await?;
    }
    request.body = bytes.drain(..length.unwrap_or(0)).collect();
    Some(request)
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut piece = vec![0; 64 * 1024];
    let read = stream
        .read(&mut piece)
        .await
        .ok()
        .filter(|read| *read > 0)?;
    bytes.extend_from_slice(&piece[..read]);
    Some(())
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// An answer with JSON.
pub(crate) fn json(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
