//! What the simulator's own tests ask it with: a client that reports what came, however it ended.

use std::sync::Arc;
use std::sync::Mutex;

use axum::http::HeaderMap;
use axum::http::StatusCode;
use reqwest::Client;
use serde_json::Value;

use crate::chance::Dice;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::simulator::Config;
use crate::simulator::Simulator;
use crate::units::Span;

/// A test that reads more than this has found a bug.
const BODY_BYTES_MAX: usize = 32 << 20;

/// What came back.
pub(super) struct Came {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    /// Whether the body ended as it should.
    pub(super) is_whole: bool,
}

impl Came {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(super) fn client() -> Client {
    let builder = Client::builder().no_proxy().tls_certs_only([]);
    let builder = builder.redirect(reqwest::redirect::Policy::none());
    builder.build().unwrap()
}

pub(super) async fn get(url: &str) -> Came {
    send(client().get(url)).await.unwrap()
}

pub(super) async fn get_range(url: &str, range: &str) -> Came {
    send(client().get(url).header("range", range))
        .await
        .unwrap()
}

/// A call of the API with a key.
pub(super) async fn call(simulator: &Simulator, path: &str) -> Came {
    let url = format!("{}{path}", simulator.base_url());
    send(client().get(url).bearer_auth("key")).await.unwrap()
}

pub(super) async fn post(simulator: &Simulator, path: &str, body: &Value) -> Came {
    let url = format!("{}{path}", simulator.base_url());
    send(client().post(url).bearer_auth("key").json(body))
        .await
        .unwrap()
}

pub(super) async fn send(request: reqwest::RequestBuilder) -> Result<Came, reqwest::Error> {
    let mut answer = request.send().await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut body = Vec::new();
    let is_whole = loop {
        assert!(body.len() <= BODY_BYTES_MAX, "endless");
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break true,
            Err(_) => break false,
        }
    };
    Ok(Came {
        status,
        headers,
        body,
        is_whole,
    })
}

/// A clock that a test moves.
#[derive(Clone)]
pub(super) struct Hands(Arc<Mutex<Timestamp>>);

impl Hands {
    /// The instant at which the provider's page created its task.
    pub(super) const START: i64 = 1_774_857_405;

    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Timestamp::from_unix_seconds(
            Self::START,
        ))))
    }

    pub(super) fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Clock::new(move || *now.lock().unwrap())
    }

    pub(super) fn pass(&self, span: Span) {
        let mut now = self.0.lock().unwrap();
        *now = now.plus(span);
    }
}

pub(super) async fn start(config: Config, hands: &Hands) -> Simulator {
    super::start(config, hands.clock(), Dice::seeded(1))
        .await
        .unwrap()
}
