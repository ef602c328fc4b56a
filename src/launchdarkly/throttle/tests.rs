//! Which calls share a pace, in paused time.

use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::{
    domain::{Instance, TransientError},
    launchdarkly::testing,
};

const MOMENT: Duration = Duration::from_millis(1);
const HOLD: Duration = Duration::from_secs(5);

fn connection(token: &str) -> Connection {
    testing::connection(token, "5a01")
}

fn throttle(calls: u16) -> Throttle {
    Throttle::new(NonZeroU16::new(calls).unwrap())
}

fn retry_after(wait: Duration) -> Feedback {
    Feedback {
        wait: Some(wait),
        ..Feedback::failure(Instant::now(), TransientError::RateLimited)
    }
}

async fn ready(throttle: &Throttle, connection: &Connection) -> Slot {
    let segment = SegmentId::new("vip").unwrap();
    throttle.ready(connection, &segment, Attempt::First).await
}

/// Whether a call may start within a moment; it ends at once.
async fn goes(throttle: &Throttle, connection: &Connection) -> bool {
    timeout(MOMENT, ready(throttle, connection)).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_reported_while_it_lasts_and_to_its_account_only() {
    let (throttle, acme) = (throttle(1), connection("acme"));
    assert_eq!(throttle.hold(&acme), None);
    throttle.observe(&acme, &retry_after(HOLD));
    assert_eq!(
        throttle.hold(&acme).unwrap().error,
        TransientError::RateLimited
    );
    assert_eq!(throttle.hold(&connection("other")), None);
    assert!(goes(&throttle, &connection("other")).await);
    tokio::time::advance(2 * HOLD).await;
    assert_eq!(throttle.hold(&acme), None);
}

#[tokio::test(start_paused = true)]
async fn tokens_of_one_account_share_its_pace_once_both_are_known() {
    let (throttle, one, two) = (throttle(1), connection("one"), connection("two"));
    let _slot = ready(&throttle, &one).await;
    throttle.identify(&one, Some("acme"));
    assert!(goes(&throttle, &two).await);
    throttle.identify(&two, Some("acme"));
    assert!(!goes(&throttle, &two).await);
    throttle.observe(&two, &retry_after(HOLD));
    assert!(throttle.hold(&one).is_some());
}

#[tokio::test(start_paused = true)]
async fn accounts_of_other_names_or_instances_stay_apart() {
    let (throttle, one, other) = (throttle(1), connection("one"), connection("other"));
    let elsewhere = Connection {
        instance: Instance::Federal,
        ..connection("one")
    };
    throttle.observe(&elsewhere, &retry_after(HOLD));
    assert_eq!(throttle.hold(&one), None);
    tokio::time::advance(2 * HOLD).await;
    throttle.identify(&one, Some("acme"));
    throttle.identify(&other, Some("umbrella"));
    throttle.identify(&elsewhere, Some("acme"));
    let _slot = ready(&throttle, &one).await;
    assert!(goes(&throttle, &other).await && goes(&throttle, &elsewhere).await);
}

#[tokio::test(start_paused = true)]
async fn the_later_hold_of_two_tokens_is_that_of_their_account() {
    for (first, second) in [(1, 3), (3, 1)] {
        let (throttle, one, two) = (throttle(8), connection("one"), connection("two"));
        throttle.observe(&one, &retry_after(HOLD * first));
        throttle.observe(&two, &retry_after(HOLD * second));
        throttle.identify(&one, Some("acme"));
        throttle.identify(&two, Some("acme"));
        let until = throttle.hold(&one).unwrap().until;
        assert!(until >= Instant::now() + HOLD * 3);
        assert_eq!(throttle.hold(&two).unwrap().until, until);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_inherits_the_hold_of_the_one_it_replaces_in_its_environment_only() {
    let (throttle, before) = (throttle(8), connection("before"));
    throttle.observe(&before, &retry_after(HOLD));
    let elsewhere = testing::connection("elsewhere", "5a02");
    throttle.replace(&before, &elsewhere);
    assert_eq!(throttle.hold(&elsewhere), None);
    let after = connection("after");
    throttle.replace(&before, &after);
    assert_eq!(throttle.hold(&after), throttle.hold(&before));
    assert!(!goes(&throttle, &after).await);
    tokio::time::advance(2 * HOLD).await;
    assert!(goes(&throttle, &after).await);
}

#[tokio::test(start_paused = true)]
async fn a_call_keeps_the_slot_it_had_before_its_token_was_identified() {
    let (throttle, one, two) = (throttle(1), connection("one"), connection("two"));
    throttle.identify(&one, Some("acme"));
    let slot = ready(&throttle, &two).await;
    throttle.identify(&two, Some("acme"));
    let _new = ready(&throttle, &two).await;
    drop(slot);
    assert!(!goes(&throttle, &one).await);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_identified_by_one_query_a_minute_while_there_is_spare_capacity() {
    let (throttle, acme) = (throttle(8), connection("acme"));
    assert!(!throttle.asks_for_owner(&acme), "it has not been used");
    drop(ready(&throttle, &acme).await);
    throttle.observe(&acme, &retry_after(HOLD));
    assert!(!throttle.asks_for_owner(&acme), "it has a hold");
    tokio::time::advance(2 * HOLD).await;
    assert!(throttle.asks_for_owner(&acme));
    assert!(!throttle.asks_for_owner(&acme));
    tokio::time::advance(IDENTIFY_AGAIN).await;
    assert!(throttle.asks_for_owner(&acme));
    tokio::time::advance(IDENTIFY_AGAIN).await;
    throttle.identify(&acme, None);
    assert!(!throttle.asks_for_owner(&acme));
}

#[tokio::test(start_paused = true)]
async fn a_known_account_stays_when_a_later_answer_does_not_disclose_it() {
    let (throttle, one, two) = (throttle(1), connection("one"), connection("two"));
    throttle.identify(&one, Some("acme"));
    throttle.identify(&one, None);
    throttle.identify(&two, Some("acme"));
    let _slot = ready(&throttle, &one).await;
    assert!(!goes(&throttle, &two).await);
}

#[tokio::test(start_paused = true)]
async fn idle_accounts_are_forgotten_but_none_that_is_busy_or_held() {
    let (throttle, busy, held) = (throttle(1), connection("busy"), connection("held"));
    let _slot = ready(&throttle, &busy).await;
    throttle.observe(&held, &retry_after(HOLD));
    for n in 0..10 * SWEEP_ABOVE {
        let idle = connection(&n.to_string());
        drop(ready(&throttle, &idle).await);
        throttle.identify(&idle, Some(&(n / 2).to_string()));
    }
    assert!(throttle.accounts().by_token.len() <= SWEEP_ABOVE + 1);
    assert!(throttle.accounts().by_id.len() <= SWEEP_ABOVE + 1);
    assert!(!goes(&throttle, &busy).await);
    assert!(throttle.hold(&held).is_some());
}

#[test]
fn debug_shows_no_token() {
    let throttle = throttle(1);
    drop(throttle.account(&connection("api-canary")));
    assert!(!format!("{throttle:?}").contains("canary"));
}
