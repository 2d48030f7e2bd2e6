//! A caller with one connection that stays: no client library stands between the clock and the socket.

use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use tokio::time::Instant;

use crate::daemon::KEY;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    host: String,
}

impl Wire {
    /// Connects to `host`.
    pub(crate) fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            host: host.to_owned(),
        })
    }

    /// Sends JSON and waits for the whole answer, which must be a good one; gives how long that took.
    pub(crate) fn post(&mut self, path: &str, body: &str) -> Result<Duration> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        let begun = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let answer = self.answer()?;
        let took = begun.elapsed();
        if !answer.starts_with("HTTP/1.1 200 ") {
            bail!("{answer}");
        }
        Ok(took)
    }

    fn answer(&mut self) -> Result<String> {
        let mut answer = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut piece)?;
            answer.extend_from_slice(piece.get(..read).unwrap_or_default());
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.to_ascii_lowercase();
                let length = length
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.context("an answer tells its length")?.parse()?;
                if body.len() >= length {
                    return Ok(text.into_owned());
                }
            }
            if read == 0 {
                bail!("the connection ended: {text}");
            }
        }
    }
}
