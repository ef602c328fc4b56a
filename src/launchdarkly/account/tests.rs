//! Waiting in line, in paused time.

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

fn tell_to_wait(account: &Arc<Account>) {
    account.observe(&Feedback {
        wait: Some(HOLD),
        ..Feedback::failure(Instant::now(), TransientError::RateLimited)
    });
}

/// Segments fail in turns, so many times in all.
fn fail(account: &Arc<Account>, times: u32) {
    for n in 0..times {
        let of = Origin::of("env", if n % 2 == 0 { "vip" } else { "gold" });
        account.observe(&Feedback::failure(Instant::now(), DOWN).of(&of));
    }
}

async fn ready(account: &Arc<Account>, attempt: Attempt) -> CallPermit {
    account.ready(Origin::of("env", "vip"), attempt).await
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
async fn whoever_asked_first_goes_first() {
    let account = account(1);
    let order = Mutex::new(Vec::new());
    let calls = (0..5).map(async |n| {
        let _place = ready(&account, Attempt::First).await;
        order.lock().push(n);
        tokio::time::sleep(MOMENT).await;
    });
    join_all(calls).await;
    assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn those_who_give_up_waiting_take_no_place_with_them() {
    let account = account(1);
    tell_to_wait(&account);
    assert!(!goes(&account, Attempt::First).await);
    let left = timeout(2 * HOLD, ready(&account, Attempt::First)).await;
    assert!(left.is_ok());
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_for_the_same_moment_leave_after_it_at_different_times() {
    let account = account(16);
    let start = Instant::now();
    tell_to_wait(&account);
    let left = join_all((0..16).map(async |_| {
        let _place = ready(&account, Attempt::First).await;
        start.elapsed()
    }))
    .await;
    assert!(left.iter().all(|after| *after >= HOLD), "{left:?}");
    let distinct: std::collections::BTreeSet<_> = left.iter().collect();
    assert!(distinct.len() > 8, "{left:?}");
    assert!(
        left.iter().all(|after| *after < HOLD + HOLD / 2),
        "{left:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_comes_while_waiting_is_waited_for_too() {
    let account = account(1);
    tell_to_wait(&account);
    let start = Instant::now();
    let mut waiting = std::pin::pin!(ready(&account, Attempt::First));
    assert!(timeout(HOLD / 2, &mut waiting).await.is_err());
    tell_to_wait(&account);
    drop(waiting.await);
    assert!(start.elapsed() >= HOLD / 2 + HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_attempt_that_cannot_be_afforded_waits_and_lets_first_ones_by() {
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
async fn a_repeated_attempt_that_is_given_up_has_paid_nothing() {
    let account = account(1);
    tokio::time::advance(110 * MOMENT).await;
    let taken = ready(&account, Attempt::First).await;
    assert!(!goes(&account, Attempt::Retry).await);
    drop(taken);
    assert!(goes(&account, Attempt::Retry).await);
    assert!(!goes(&account, Attempt::Retry).await);
}

#[tokio::test(start_paused = true)]
async fn a_dead_vendor_is_probed_now_and_then_and_a_success_frees_all() {
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
async fn a_question_passes_those_who_wait_for_a_dead_vendor_and_takes_no_probe() {
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
async fn a_question_that_must_wait_has_its_turn() {
    let account = account(8);
    tell_to_wait(&account);
    let mut waiting = std::pin::pin!(account.ready_for_query());
    assert!(timeout(HOLD, &mut waiting).await.is_err());
    assert!(timeout(HOLD, waiting).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_lets_another_take_its_place() {
    let account = account(16);
    fail(&account, 8);
    let probe = ready(&account, Attempt::First).await;
    assert!(!goes(&account, Attempt::First).await);
    drop(probe);
    assert!(goes(&account, Attempt::First).await);
}

#[tokio::test(start_paused = true)]
async fn repeats_that_came_while_the_account_had_to_wait_do_not_leave_together() {
    let account = account(200);
    account.observe(&Feedback {
        wait: Some(4 * HOLD),
        ..Feedback::failure(Instant::now(), TransientError::RateLimited)
    });
    let left = Mutex::new(Vec::new());
    let calls = (0..200).map(async |_| {
        let _place = ready(&account, Attempt::Retry).await;
        left.lock().push(Instant::now());
    });
    join_all(calls).await;
    let left = left.lock();
    let first = left[0];
    let at_once = left
        .iter()
        .filter(|at| **at < first + Duration::from_secs(1));
    // Ten a second, what may be saved, and the one that stood in line.
    let at_once = at_once.count();
    assert!(at_once <= 14, "{at_once} left within a second");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_is_paid_for_waits_behind_one_first_attempt_and_not_behind_all() {
    let account = account(1);
    tokio::time::advance(110 * MOMENT).await;
    let taken = ready(&account, Attempt::First).await;
    let order = Mutex::new(Vec::new());
    let attempts = std::iter::repeat_n(Attempt::First, 40).chain([Attempt::Retry]);
    let calls = attempts.map(async |attempt| {
        let _place = ready(&account, attempt).await;
        order.lock().push(attempt);
        tokio::time::sleep(MOMENT).await;
    });
    let free = async {
        tokio::time::sleep(MOMENT).await;
        drop(taken);
    };
    tokio::join!(join_all(calls), free);
    let order = order.lock();
    let repeat = order.iter().position(|attempt| *attempt == Attempt::Retry);
    assert_eq!(repeat, Some(1));
}

/// A call that never ends, of one environment, for each place that it may take.
async fn hang(account: &Arc<Account>, environment: &str) -> Vec<CallPermit> {
    let mut places = Vec::new();
    for segment in 0.. {
        let origin = Origin::of(environment, &segment.to_string());
        match timeout(MOMENT, account.ready(origin, Attempt::First)).await {
            Ok(place) => places.push(place),
            Err(_) => break,
        }
    }
    places
}

#[tokio::test(start_paused = true)]
async fn an_environment_that_hangs_leaves_a_place_to_its_neighbour() {
    let account = account(8);
    let neighbour = || account.ready(Origin::of("well", "vip"), Attempt::First);
    drop(neighbour().await);
    let hanging = hang(&account, "sick").await;
    assert!(!hanging.is_empty());
    for _ in 0..100 {
        let place = timeout(MOMENT, neighbour()).await;
        assert!(place.is_ok(), "beside {} that hang", hanging.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_hangs_leaves_a_place_to_its_neighbour() {
    let account = account(8);
    let of = |segment| account.ready(Origin::of("env", segment), Attempt::First);
    drop(of("well").await);
    let mut hanging = Vec::new();
    while let Ok(place) = timeout(MOMENT, of("sick")).await {
        hanging.push(place);
    }
    assert!(!hanging.is_empty());
    assert!(timeout(MOMENT, of("well")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_behind_a_crowd_of_another_environment_has_the_next_turn() {
    let account = account(1);
    let taken = ready(&account, Attempt::First).await;
    let order = Mutex::new(Vec::new());
    let origins = (0..20).map(|n| Origin::of("fair_share", &n.to_string()));
    let calls = origins
        .chain([Origin::of("single", "vip")])
        .map(async |origin| {
            let environment = origin.environment.clone();
            let _place = account.ready(origin, Attempt::First).await;
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
async fn whoever_stops_waiting_in_the_very_moment_gives_its_place_back() {
    let account = account(1);
    for _ in 0..100 {
        let taken = ready(&account, Attempt::First).await;
        let mut waiting = Box::pin(ready(&account, Attempt::First));
        assert!(timeout(MOMENT, &mut waiting).await.is_err());
        // The next in line has the watch and hands the place to whoever is before it.
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
