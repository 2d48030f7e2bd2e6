//! Callbacks as a receiver sees them.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use url::Url;

use crate::model::task::TaskId;
use crate::simulator::Config;
use crate::simulator::Simulator;
use crate::simulator::probe::Hands;
use crate::simulator::probe::call;
use crate::simulator::probe::start;
use crate::simulator::tasks::Status;
use crate::simulator::tasks::Submission;

/// What a receiver got, and how it answers: with each of these in turn, then with 200.
struct Receiver {
    got: Arc<Mutex<Got>>,
    url: Url,
    _running: JoinSet<()>,
}

#[derive(Default)]
struct Got {
    answers: Vec<u16>,
    bodies: Vec<(Instant, Value)>,
}

impl Receiver {
    async fn new(answers: &[u16]) -> Self {
        let answers = answers.iter().rev().copied().collect();
        let got = Arc::new(Mutex::new(Got {
            answers,
            bodies: Vec::new(),
        }));
        let router = Router::new()
            .route("/hook", post(take))
            .with_state(Arc::clone(&got));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let mut running = JoinSet::new();
        running.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            got,
            url: url.parse().unwrap(),
            _running: running,
        }
    }

    fn bodies(&self) -> Vec<Value> {
        self.got
            .lock()
            .unwrap()
            .bodies
            .iter()
            .map(|(_, body)| body.clone())
            .collect()
    }

    /// The time from each try to the next.
    fn waits(&self) -> Vec<Duration> {
        let got = self.got.lock().unwrap();
        got.bodies
            .windows(2)
            .map(|pair| pair[1].0 - pair[0].0)
            .collect()
    }

    fn submit(&self, simulator: &Simulator) -> TaskId {
        let callback = Some(self.url.clone());
        simulator
            .submit(Submission {
                callback,
                ..Submission::video("m")
            })
            .unwrap()
    }
}

async fn take(State(got): State<Arc<Mutex<Got>>>, body: String) -> StatusCode {
    let mut got = got.lock().unwrap();
    got.bodies
        .push((Instant::now(), serde_json::from_str(&body).unwrap()));
    StatusCode::from_u16(got.answers.pop().unwrap_or(200)).unwrap()
}

#[tokio::test]
async fn the_end_of_a_task_is_told_once_with_the_task_s_answer() {
    let receiver = Receiver::new(&[]).await;
    let simulator = start(Config::default(), &Hands::new()).await;
    let id = receiver.submit(&simulator);
    simulator.push(&id, Status::Processing(50));
    simulator.push(&id, Status::Completed);
    let seen = simulator.seen_until(|seen| seen.callbacks_taken == 1).await;
    assert_eq!((seen.callbacks_sent, seen.callbacks_dropped), (1, 0));
    assert_eq!(
        receiver.bodies(),
        [call(&simulator, &format!("/v1/tasks/{id}")).await.json()]
    );

    // Another task's callback comes after; nothing of the first in between.
    simulator.push(&id, Status::Completed);
    let other = receiver.submit(&simulator);
    simulator.push(&other, Status::Cancelled);
    simulator.seen_until(|seen| seen.callbacks_taken == 2).await;
    let bodies = receiver.bodies();
    assert_eq!(bodies.len(), 2);
    assert_eq!(
        (&bodies[1]["id"], &bodies[1]["status"]),
        (&Value::from(other.as_str()), &Value::from("cancelled"))
    );
}

#[tokio::test]
async fn a_task_that_ends_by_the_clock_is_told_too() {
    let receiver = Receiver::new(&[]).await;
    let started = Instant::now();
    let clock = crate::clock::Clock::new(move || {
        crate::clock::Timestamp::from_unix_seconds(Hands::START).plus(started.elapsed().into())
    });
    let config = Config {
        spread: 0.0,
        speed: 600.0,
        ..Config::default()
    };
    let simulator = crate::simulator::start(config, clock, crate::chance::Dice::seeded(1));
    let simulator = simulator.await.unwrap();
    receiver.submit(&simulator);
    simulator.seen_until(|seen| seen.callbacks_taken == 1).await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_eq!(receiver.bodies()[0]["status"], "completed");
}

#[tokio::test]
async fn a_receiver_that_fails_gets_three_more_tries() {
    let receiver = Receiver::new(&[500, 302, 404]).await;
    let config = Config {
        speed: 20.0,
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    receiver.submit(&simulator);
    let seen = simulator.seen_until(|seen| seen.callbacks_taken == 1).await;
    assert_eq!((seen.callbacks_sent, seen.callbacks_dropped), (4, 0));
    let least = [1000, 2000, 4000].map(|wait| Duration::from_millis(wait / 20));
    let waits = receiver.waits();
    assert!(
        waits.iter().zip(least).all(|(wait, least)| *wait >= least),
        "{waits:?}"
    );
}

#[tokio::test]
async fn after_the_fourth_try_it_is_dropped() {
    let receiver = Receiver::new(&[500; 9]).await;
    let config = Config {
        speed: 1000.0,
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    let started = Instant::now();
    receiver.submit(&simulator);
    let seen = simulator
        .seen_until(|seen| seen.callbacks_dropped == 1)
        .await;
    assert_eq!((seen.callbacks_sent, receiver.bodies().len()), (4, 4));
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "the waits are scaled by speed"
    );
}

#[tokio::test]
async fn nobody_there_is_a_failure_like_any_other() {
    let receiver = Receiver::new(&[]).await;
    let config = Config {
        speed: 1000.0,
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    let free = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let gone = Some(format!("http://{free}/hook").parse().unwrap());
    simulator
        .submit(Submission {
            callback: gone,
            ..Submission::video("m")
        })
        .unwrap();
    let seen = simulator
        .seen_until(|seen| seen.callbacks_dropped == 1)
        .await;
    assert_eq!(seen.callbacks_sent, 4);
    assert_eq!(receiver.bodies(), Vec::<Value>::new());
}

#[tokio::test]
async fn lost_and_twin_callbacks() {
    let receiver = Receiver::new(&[]).await;
    let config = Config {
        script: "lost-callback=2,twin-callback".parse().unwrap(),
        ..Config::at_once()
    };
    let simulator = start(config, &Hands::new()).await;
    let ids: Vec<TaskId> = (0..4).map(|_| receiver.submit(&simulator)).collect();
    let seen = simulator
        .seen_until(|seen| seen.callbacks_taken + seen.callbacks_dropped == 5)
        .await;
    assert_eq!((seen.callbacks_dropped, seen.callbacks_taken), (2, 3));
    let mut told: Vec<String> = receiver
        .bodies()
        .iter()
        .map(|body| body["id"].to_string())
        .collect();
    assert_eq!(told.len(), 3);
    told.sort();
    told.dedup();
    assert_eq!(told.len(), 2, "one of {ids:?} was told twice");
}
