//! The courier: tells callback addresses of the end of their tasks, a few times, and then never again.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use reqwest::header;
use reqwest::redirect::Policy;
use tokio::task::JoinSet;

use crate::simulator::listen::pass_panic;
use crate::simulator::script::CallbackFault;
use crate::simulator::world::Delivery;
use crate::simulator::world::World;
use crate::units::Span;

/// A receiver has so long to answer with 2xx. Not scaled by speed: the receiver is real.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The waits before the second, third and fourth try; then the callback is dropped.
const WAITS: [Span; 3] = [Span::from_secs(1), Span::from_secs(2), Span::from_secs(4)];

/// So many callbacks are on their way at once; the others wait.
const DELIVERIES_MAX: usize = 64;

/// The clock need not go as tokio's timers do (a test may move it), so while a callback waits for its task to end, the
/// clock is looked at no more often than the first of these and no less often than the second.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(5);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(250);

/// What callbacks are sent with. The roots are compiled in, so that a machine without any can send too.
pub(super) fn client() -> io::Result<Client> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
    let roots: Vec<_> = roots
        .filter_map(|root| reqwest::Certificate::from_der(root).ok())
        .collect();
    Client::builder()
        .no_proxy()
        .tls_certs_only(roots)
        .redirect(Policy::none())
        .timeout(ANSWER_WITHIN)
        .user_agent(concat!("reelvault-simulator/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(io::Error::other)
}

/// Sends each callback when its task ends, for as long as it is polled.
pub(super) async fn run(world: Arc<World>, client: Client) {
    let mut deliveries = JoinSet::new();
    loop {
        // Asked for before the look, so that no poke between the look and the wait is missed.
        let poked = world.poke.notified();
        let (due, next) = world.take_callbacks();
        for delivery in due {
            while deliveries.len() >= DELIVERIES_MAX
                && let Some(ended) = deliveries.join_next().await
            {
                pass_panic(ended);
            }
            deliveries.spawn(carry(Arc::clone(&world), client.clone(), delivery));
        }
        let wait = next.map(|next| next.since(world.now()).as_duration());
        let wait = wait.map(|wait| wait.clamp(LOOK_AGAIN_MIN, LOOK_AGAIN_MAX));
        let time = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        // All arms are cancel-safe.
        tokio::select! {
            () = poked => {}
            () = time => {}
            Some(ended) = deliveries.join_next() => pass_panic(ended),
        }
    }
}

async fn carry(world: Arc<World>, client: Client, delivery: Delivery) {
    match delivery.fault {
        Some(CallbackFault::Lost) => world.count(|seen| seen.callbacks_dropped += 1),
        Some(CallbackFault::Twin) => {
            send(&world, &client, &delivery).await;
            send(&world, &client, &delivery).await;
        }
        None => send(&world, &client, &delivery).await,
    }
}

/// Tries until one try is answered with 2xx or there are no more.
async fn send(world: &World, client: &Client, delivery: &Delivery) {
    let waits = std::iter::once(Span::ZERO).chain(WAITS);
    for wait in waits {
        tokio::time::sleep(world.scaled(wait).as_duration()).await;
        world.count(|seen| seen.callbacks_sent += 1);
        let request = client
            .post(delivery.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .body(delivery.body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                world.count(|seen| seen.callbacks_taken += 1);
                return;
            }
            Ok(answer) => tracing::debug!(status = answer.status().as_u16(), "callback refused"),
            Err(error) => tracing::debug!(error = %error.without_url(), "callback not delivered"),
        }
    }
    world.count(|seen| seen.callbacks_dropped += 1);
}
