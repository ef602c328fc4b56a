//! Admission of waiting calls, in paused time.

use std::{num::NonZeroU16, time::Duration};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::*;
use crate::domain::TransientError;

const MOMENT: Duration = Duration::from_millis(1);
const HOLD: Duration = Duration::from_secs(5);
const DOWN: TransientError = TransientError::Status(503);

fn account(calls: u16) -> Arc<Account> {
    let calls = NonZeroU16::new(calls).unwrap();
    Arc::new(Account::new(Pace::new(calls, Instant::now())))
}

fn observe_retry_after(account: &Arc<Account>) {
    account.observe(&Feedback {
        wait: Some(HOLD),
        ..Feedback::failure(Instant::now(), TransientError::RateLimited)
    });
}

/// Segments fail alternately, so many times in all.
fn fail(account: &Arc<Account>, times: u32) {
    for n in 0..times {
        let of = CallTarget::of("env", if n % 2 == 0 { "vip" } else { "gold" });
        account.observe(&Feedback::failure(Instant::now(), DOWN).of(&of));
    }
}

async fn ready(account: &Arc<Account>, attempt: Attempt) -> CallPermit {
    account.ready(CallTarget::of("env", "vip"), attempt).await
}

/// Whether a call may start within a moment.
async fn goes(account: &Arc<Account>, attempt: Attempt) -> bool {
    timeout(MOMENT, ready(account, attempt)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_account_has_so_many_calls_under_way_and_no_more() {
    let account = account(2);
    let first = ready(&account, Attempt::First).await;
    let _second = ready(&account, Attempt::First).await;
    assert!(!goes(&account, Attempt::First).await);
    let mut waiting = std::pin::pin!(ready(&account, Attempt::First));
    assert!(timeout(MOMENT, &mut waiting).await.is_err());
    drop(first);
    assert!(timeout(MOMENT, waiting).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_start_in_order_of_arrival() {
    let account = account(1);
    let order = Mutex::new(Vec::new());
    let calls = (0..5).map(async |n| {
        let _permit = ready(&account, Attempt::First).await;
        order.lock().push(n);
        tokio::time::sleep(MOMENT).await;
    });
    join_all(calls).await;
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_stops_waiting_occupies_no_slot() {
    let account = account(1);
    observe_retry_after(&account);
    assert!(!goes(&account, Attempt::First).await);
    let started = timeout(2 * HOLD, ready(&account, Attempt::First)).await;
    assert!(started.is_ok());
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_for_the_same_moment_start_after_it_at_different_times() {
    let account = account(16);
    let start = Instant::now();
    observe_retry_after(&account);
    let started = join_all((0..16).map(async |_| {
        let _permit = ready(&account, Attempt::First).await;
        start.elapsed()
    }))
    .await;
    assert!(started.iter().all(|after| *after >= HOLD), "{started:?}");
    let distinct: std::collections::BTreeSet<_> = started.iter().collect();
    assert!(distinct.len() > 8, "{started:?}");
    assert!(
        started.iter().all(|after| *after < HOLD + HOLD / 2),
        "{started:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_comes_while_waiting_is_waited_for_too() {
    let account = account(1);
    observe_retry_after(&account);
    let start = Instant::now();
    let mut waiting = std::pin::pin!(ready(&account, Attempt::First));
    assert!(timeout(HOLD / 2, &mut waiting).await.is_err());
    observe_retry_after(&account);
    drop(waiting.await);
    assert!(start.elapsed() >= HOLD / 2 + HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_retry_above_the_budget_waits_and_first_attempts_overtake_it() {
    let account = account(8);
    let mut again = std::pin::pin!(ready(&account, Attempt::Retry));
    assert!(timeout(MOMENT, &mut again).await.is_err());
    assert!(goes(&account, Attempt::First).await);
    let start = Instant::now();
    drop(again.await);
    let waited = start.elapsed();
    assert!(waited > 50 * MOMENT && waited < 150 * MOMENT, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_stops_waiting_has_withdrawn_nothing() {
    let account = account(1);
    tokio::time::advance(110 * MOMENT).await;
    let taken = ready(&account, Attempt::First).await;
    assert!(!goes(&account, Attempt::Retry).await);
    drop(taken);
    assert!(goes(&account, Attempt::Retry).await);
    assert!(!goes(&account, Attempt::Retry).await);
}

#[tokio::test(start_paused = true)]
async fn a_dead_vendor_is_probed_now_and_then_and_a_success_closes_the_breaker() {
    let account = account(16);
    fail(&account, 8);
    let start = Instant::now();
    let probe = ready(&account, Attempt::First).await;
    let waited = start.elapsed();
    assert!(
        waited > 700 * MOMENT && waited < 1700 * MOMENT,
        "{waited:?}"
    );
    assert!(!goes(&account, Attempt::First).await);
    // The probe hangs, and so do those after it: three are enough.
    let mut probes = vec![probe];
    while let Ok(probe) = timeout(4 * HOLD, ready(&account, Attempt::First)).await {
        probes.push(probe);
    }
    assert_eq!(probes.len(), 3);
    account.observe(&Feedback::success(Instant::now()));
    drop(probes);
    assert!(goes(&account, Attempt::First).await);
    assert!(goes(&account, Attempt::First).await);
}

#[tokio::test(start_paused = true)]
async fn a_query_overtakes_calls_that_wait_for_the_breaker_and_is_no_probe() {
    let account = account(8);
    fail(&account, 8);
    let mut waiting = std::pin::pin!(ready(&account, Attempt::First));
    assert!(timeout(MOMENT, &mut waiting).await.is_err());
    let query = timeout(MOMENT, account.ready_for_query()).await.unwrap();
    // The query hangs, and the probe leaves when it is due.
    assert!(timeout(HOLD, waiting).await.is_ok());
    drop(query);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_must_wait_has_its_turn() {
    let account = account(8);
    observe_retry_after(&account);
    let mut waiting = std::pin::pin!(account.ready_for_query());
    assert!(timeout(HOLD, &mut waiting).await.is_err());
    assert!(timeout(HOLD, waiting).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_lets_another_start() {
    let account = account(16);
    fail(&account, 8);
    let probe = ready(&account, Attempt::First).await;
    assert!(!goes(&account, Attempt::First).await);
    drop(probe);
    assert!(goes(&account, Attempt::First).await);
}

#[tokio::test(start_paused = true)]
async fn retries_enqueued_during_a_hold_do_not_start_together() {
    let account = account(200);
    account.observe(&Feedback {
        wait: Some(4 * HOLD),
        ..Feedback::failure(Instant::now(), TransientError::RateLimited)
    });
    let started = Mutex::new(Vec::new());
    let calls = (0..200).map(async |_| {
        let _permit = ready(&account, Attempt::Retry).await;
        started.lock().push(Instant::now());
    });
    join_all(calls).await;
    let started = started.lock();
    let first = started[0];
    let at_once = started
        .iter()
        .filter(|at| **at < first + Duration::from_secs(1));
    // Ten a second, the largest balance, and the call at the head of the queue.
    let at_once = at_once.count();
    assert!(at_once <= 14, "{at_once} started within a second");
}

#[tokio::test(start_paused = true)]
async fn a_funded_retry_waits_behind_one_first_attempt_and_not_behind_all() {
    let account = account(1);
    tokio::time::advance(110 * MOMENT).await;
    let taken = ready(&account, Attempt::First).await;
    let order = Mutex::new(Vec::new());
    let attempts = std::iter::repeat_n(Attempt::First, 40).chain([Attempt::Retry]);
    let calls = attempts.map(async |attempt| {
        let _permit = ready(&account, attempt).await;
        order.lock().push(attempt);
        tokio::time::sleep(MOMENT).await;
    });
    let free = async {
        tokio::time::sleep(MOMENT).await;
        drop(taken);
    };
    tokio::join!(join_all(calls), free);
    let order = order.lock();
    let retry = order.iter().position(|attempt| *attempt == Attempt::Retry);
    assert_eq!(retry, Some(1));
}

/// Calls of one environment that never end, one for each slot that it may take.
async fn hang(account: &Arc<Account>, environment: &str) -> Vec<CallPermit> {
    let mut permits = Vec::new();
    for segment in 0.. {
        let target = CallTarget::of(environment, &segment.to_string());
        match timeout(MOMENT, account.ready(target, Attempt::First)).await {
            Ok(permit) => permits.push(permit),
            Err(_) => break,
        }
    }
    permits
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_hangs_leaves_a_slot_to_its_neighbour() {
    let account = account(8);
    let neighbour = || account.ready(CallTarget::of("well", "vip"), Attempt::First);
    drop(neighbour().await);
    let hanging = hang(&account, "sick").await;
    assert!(!hanging.is_empty());
    for _ in 0..100 {
        let permit = timeout(MOMENT, neighbour()).await;
        assert!(permit.is_ok(), "beside {} that hang", hanging.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_hangs_leaves_a_slot_to_its_neighbour() {
    let account = account(8);
    let of = |segment| account.ready(CallTarget::of("env", segment), Attempt::First);
    drop(of("well").await);
    let mut hanging = Vec::new();
    while let Ok(permit) = timeout(MOMENT, of("sick")).await {
        hanging.push(permit);
    }
    assert!(!hanging.is_empty());
    assert!(timeout(MOMENT, of("well")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_behind_many_of_another_environment_has_the_next_turn() {
    let account = account(1);
    let taken = ready(&account, Attempt::First).await;
    let order = Mutex::new(Vec::new());
    let targets = (0..20).map(|n| CallTarget::of("many", &n.to_string()));
    let calls = targets
        .chain([CallTarget::of("single", "vip")])
        .map(async |target| {
            let environment = target.environment.clone();
            let _permit = account.ready(target, Attempt::First).await;
            order.lock().push(environment);
            tokio::time::sleep(MOMENT).await;
        });
    let free = async {
        tokio::time::sleep(MOMENT).await;
        drop(taken);
    };
    tokio::join!(join_all(calls), free);
    let order = order.lock();
    let single = order.iter().position(|id| id.as_str() == "single");
    assert_eq!(single, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_stops_waiting_as_it_is_granted_gives_its_permit_back() {
    let account = account(1);
    for _ in 0..100 {
        let taken = ready(&account, Attempt::First).await;
        let mut waiting = Box::pin(ready(&account, Attempt::First));
        assert!(timeout(MOMENT, &mut waiting).await.is_err());
        // The next caller becomes the timekeeper, and grants the permit to the one before it.
        let next = tokio::spawn({
            let account = Arc::clone(&account);
            async move { drop(ready(&account, Attempt::First).await) }
        });
        tokio::task::yield_now().await;
        drop(taken);
        drop(waiting);
        next.await.unwrap();
    }
    assert!(goes(&account, Attempt::First).await);
}
