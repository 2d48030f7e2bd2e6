//! A future that is polled again at once when it has woken itself.
//!
//! What reads a download and what writes it are parts of one task, and with each frame the one wakes the other. A
//! scheduler takes that for new work: it queues the task and wakes a thread that might have time for it. Here they go on
//! by turns until both wait for something outside.

use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use futures::task::AtomicWaker;
use tokio::task::coop::has_budget_remaining;

/// Turns before others on the same thread have theirs, should nothing else end them.
const TURNS_MAX: usize = 64;

const RESTING: u8 = 0;
const POLLED: u8 = 1;
const RUNG: u8 = 2;

/// Runs `future`, which may be many in one, turn after turn.
pub(crate) async fn in_rounds<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    poll_fn(|cx| {
        bell.outside.register(cx.waker());
        for _ in 0..TURNS_MAX {
            bell.state.store(POLLED, Ordering::SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
            if polled.is_ready() || bell.rests() {
                return polled;
            }
            // Until others had their turn nothing would move.
            if !has_budget_remaining() {
                break;
            }
        }
        bell.state.store(RESTING, Ordering::SeqCst);
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

#[derive(Default)]
struct Bell {
    state: AtomicU8,
    outside: AtomicWaker,
}

impl Bell {
    /// Whether nobody rang while the future was polled. From then on, who rings wakes the task.
    fn rests(&self) -> bool {
        let rests =
            self.state
                .compare_exchange(POLLED, RESTING, Ordering::SeqCst, Ordering::SeqCst);
        rests.is_ok()
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let rung = self
            .state
            .compare_exchange(POLLED, RUNG, Ordering::SeqCst, Ordering::SeqCst);
        if rung == Err(RESTING) {
            self.outside.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    /// Counts how often a scheduler hears of it.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Wakes itself so many times.
    async fn turns(turns: usize) {
        for _ in 0..turns {
            let mut is_first = true;
            poll_fn(|cx| {
                if std::mem::take(&mut is_first) {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
        }
    }

    #[test]
    fn what_wakes_itself_goes_on_and_lets_others_have_their_turn_now_and_then() {
        let check = |count: usize, polls: usize| {
            let counted = Arc::new(Counted::default());
            let waker = Waker::from(Arc::clone(&counted));
            let mut future = pin!(in_rounds(turns(count)));
            let mut polled = 1;
            while future
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                assert_eq!(counted.0.load(Ordering::SeqCst), polled);
                polled += 1;
            }
            assert_eq!(polled, polls);
        };
        check(0, 1);
        check(TURNS_MAX - 1, 1);
        check(TURNS_MAX, 2);
        check(TURNS_MAX * 3, 4);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_that_comes_from_outside_is_missed() {
        let (give, mut take) = tokio::sync::mpsc::channel(1);
        let (back, mut echo) = tokio::sync::mpsc::channel(1);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            for number in 0..20_000_usize {
                give.send(number).await.unwrap();
                assert_eq!(echo.recv().await, Some(number));
            }
        });
        let taking = in_rounds(async {
            while let Some(number) = take.recv().await {
                turns(number % 3).await;
                back.send(number).await.unwrap();
            }
        });
        tokio::time::timeout(Duration::from_mins(1), taking)
            .await
            .unwrap();
        tasks.join_all().await;
    }

    #[tokio::test]
    async fn who_has_used_up_its_budget_waits_for_its_next_turn() {
        let permits = tokio::sync::Semaphore::new(1);
        let mut greedy = pin!(async {
            for _ in 0..10_000 {
                drop(permits.acquire().await.unwrap());
            }
        });
        let (inner, mut outer) = (std::cell::Cell::new(0), 0);
        let mut rounds = pin!(in_rounds(poll_fn(|cx| {
            inner.set(inner.get() + 1);
            greedy.as_mut().poll(cx)
        })));
        poll_fn(|cx| {
            outer += 1;
            rounds.as_mut().poll(cx)
        })
        .await;
        assert!(outer > 10, "it gave way only {outer} times");
        assert_eq!(inner.get(), outer);
    }
}
