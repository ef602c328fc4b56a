//! How the parts of a pace act together.

use super::*;

const DOWN: TransientError = TransientError::Status(503);
const SECOND: Duration = Duration::from_secs(1);

fn pace(max_calls: u16, now: Instant) -> Pace {
    Pace::new(NonZeroU16::new(max_calls).unwrap(), now)
}

/// The answer to a call that does not wait.
#[derive(Debug, PartialEq)]
enum Answer {
    Go(AdmittedCall),
    Wait(Instant),
    Full,
}

fn ask(pace: &mut Pace, now: Instant, request: CallRequest) -> Answer {
    let ticket = pace.enqueue(request, now);
    let answer = match pace.admit(now, 0.0) {
        Admission::Go(_, call) => return Answer::Go(call),
        Admission::Wait(at) => Answer::Wait(at),
        Admission::Full => Answer::Full,
    };
    pace.withdraw(ticket);
    answer
}

fn vip() -> CallTarget {
    CallTarget::of("env", "vip")
}

fn admit(pace: &mut Pace, now: Instant, attempt: Attempt) -> Answer {
    ask(pace, now, CallRequest::Delivery(vip(), attempt))
}

fn granted(answer: Answer) -> AdmittedCall {
    match answer {
        Answer::Go(call) => call,
        other => panic!("{other:?}"),
    }
}

fn admitted(pace: &mut Pace, now: Instant) -> AdmittedCall {
    granted(admit(pace, now, Attempt::First))
}

/// Two segments of one environment fail alternately, so many times in all.
fn fail(pace: &mut Pace, now: Instant, times: u32) {
    for n in 0..times {
        let of = CallTarget::of("env", if n % 2 == 0 { "vip" } else { "gold" });
        pace.observe(now, &Feedback::failure(now, DOWN).of(&of), 0.0);
    }
}

fn held(pace: &Pace, now: Instant) -> Option<Hold> {
    pace.hold(&vip().environment, now)
}

fn limit_of(pace: &Pace) -> usize {
    let own = pace.environments.limit(&vip().environment);
    own.min(pace.concurrency.limit())
}

#[test]
fn calls_under_way_occupy_slots_until_they_leave() {
    let now = Instant::now();
    let mut pace = pace(2, now);
    let first = admitted(&mut pace, now);
    let _second = admitted(&mut pace, now);
    assert_eq!(admit(&mut pace, now, Attempt::First), Answer::Full);
    pace.leave(&first);
    let _third = admitted(&mut pace, now);
}

#[test]
fn a_limit_of_one_grows_again() {
    let mut now = Instant::now();
    let mut pace = pace(8, now);
    for _ in 0..3 {
        now += Duration::from_secs(1);
        let feedback = Feedback::failure(now, TransientError::TimedOut);
        pace.observe(now, &feedback, 0.5);
    }
    assert_eq!(limit_of(&pace), 1);
    for _ in 0..20 {
        let call = admitted(&mut pace, now);
        // The call itself is made a little later than it is admitted.
        let started = now + Duration::from_millis(1);
        now += Duration::from_millis(100);
        pace.observe(now, &Feedback::success(started), 0.5);
        pace.leave(&call);
    }
    assert!(limit_of(&pace) > 1, "{pace:?}");
}

#[test]
fn a_conflict_is_neither_a_failure_nor_a_reason_to_grow() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    for error in [TransientError::Conflict, TransientError::RateLimited] {
        fail(&mut pace, now, 7);
        pace.observe(now, &Feedback::failure(now, error), 0.0);
        fail(&mut pace, now, 7);
        assert_eq!(held(&pace, now), None, "{error:?} ends a run of failures");
    }
    let limit = limit_of(&pace);
    let _taken: Vec<_> = (0..limit).map(|_| admitted(&mut pace, now)).collect();
    pace.observe(now, &Feedback::failure(now, TransientError::Conflict), 0.0);
    assert_eq!(limit_of(&pace), limit);
}

#[test]
fn an_open_breaker_is_reported_as_a_hold_and_lets_one_probe_pass() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    fail(&mut pace, now, 8);
    let hold = held(&pace, now).unwrap();
    assert_eq!(hold.error, DOWN);
    assert_eq!(pace.server_hold(now), None);
    assert_eq!(
        admit(&mut pace, now, Attempt::First),
        Answer::Wait(hold.until)
    );
    let probe = admitted(&mut pace, hold.until);
    let other = admit(&mut pace, hold.until, Attempt::First);
    assert!(matches!(other, Answer::Wait(at) if at > hold.until));
    pace.leave(&probe);
    let _other = admitted(&mut pace, hold.until);
    pace.observe(hold.until, &Feedback::success(hold.until), 0.0);
    assert_eq!(held(&pace, hold.until), None);
}

#[test]
fn an_open_breaker_lets_queries_pass_and_they_delay_no_probe() {
    let now = Instant::now();
    let mut pace = pace(4, now);
    let _straggler = admitted(&mut pace, now);
    fail(&mut pace, now, 8);
    let due = held(&pace, now).unwrap().until;
    assert_eq!(limit_of(&pace), 1);
    let mut queries = Vec::new();
    for _ in 0..2 {
        let call = granted(ask(&mut pace, now, CallRequest::Query));
        queries.push(call);
    }
    let probe = admitted(&mut pace, due);
    assert_eq!(
        ask(&mut pace, due, CallRequest::Query),
        Answer::Full,
        "the operator's bound"
    );
    queries.iter().for_each(|query| pace.leave(query));
    let other = admit(&mut pace, due, Attempt::First);
    assert!(matches!(other, Answer::Wait(at) if at > due), "one probe");
    pace.leave(&probe);
}

#[test]
fn a_query_waits_out_the_server_hold_and_is_no_first_attempt() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    for _ in 0..5 {
        let call = granted(ask(&mut pace, now, CallRequest::Query));
        pace.leave(&call);
    }
    assert!(pace.retry_budget.affords(now).is_err());
    let hold = Hold {
        until: now + SECOND,
        error: TransientError::RateLimited,
    };
    pace.inherit(hold);
    assert_eq!(
        ask(&mut pace, now, CallRequest::Query),
        Answer::Wait(hold.until)
    );
}

#[test]
fn a_run_of_deliveries_makes_retries_free_and_a_429_ends_it() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    let answers = |pace: &mut Pace, kind, times: u32| {
        let success = Feedback {
            kind,
            ..Feedback::success(now)
        };
        (0..times).for_each(|_| pace.observe(now, &success, 0.0));
    };
    answers(&mut pace, CallKind::Query, 16);
    assert!(pace.retry_budget.affords(now).is_err());
    for (error, ends) in [
        (TransientError::Conflict, false),
        (TransientError::RateLimited, true),
        (DOWN, true),
    ] {
        answers(&mut pace, CallKind::Delivery(vip()), 16);
        assert!(pace.retry_budget.affords(now).is_ok());
        pace.observe(now, &Feedback::failure(now, error), 0.0);
        assert_eq!(pace.retry_budget.affords(now).is_err(), ends, "{error:?}");
    }
}

#[test]
fn an_answered_query_says_nothing_about_deliveries() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    fail(&mut pace, now, 8);
    let query = Feedback {
        kind: CallKind::Query,
        ..Feedback::success(now)
    };
    pace.observe(now, &query, 0.0);
    assert!(held(&pace, now).is_some());
}

#[test]
fn a_failed_query_says_nothing_about_deliveries_unless_it_met_a_429() {
    let errors = [DOWN, TransientError::TimedOut, TransientError::Connection];
    for (error, lowers) in errors
        .map(|error| (error, false))
        .into_iter()
        .chain([(TransientError::RateLimited, true)])
    {
        let now = Instant::now();
        let mut pace = pace(8, now);
        let limit = limit_of(&pace);
        let query = Feedback {
            kind: CallKind::Query,
            ..Feedback::failure(now, error)
        };
        (0..20).for_each(|_| pace.observe(now, &query, 0.0));
        assert_eq!(held(&pace, now), None, "{error:?}");
        assert_eq!(limit_of(&pace) < limit, lowers, "{error:?}");
    }
}

#[test]
fn five_first_attempts_pay_for_one_retry() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    for _ in 0..5 {
        assert!(matches!(
            admit(&mut pace, now, Attempt::Retry),
            Answer::Wait(_)
        ));
        let call = admitted(&mut pace, now);
        pace.leave(&call);
    }
    let call = granted(admit(&mut pace, now, Attempt::Retry));
    pace.leave(&call);
    assert!(matches!(
        admit(&mut pace, now, Attempt::Retry),
        Answer::Wait(_)
    ));
}

#[test]
fn an_account_has_spare_capacity_without_a_hold_and_with_calls_left() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    assert!(pace.has_spare_capacity(&vip().environment, now));
    let two_left = Feedback {
        remaining: Some(Remaining {
            calls: 2,
            until_reset: SECOND,
        }),
        ..Feedback::success(now)
    };
    pace.observe(now, &two_left, 0.0);
    assert!(pace.has_spare_capacity(&vip().environment, now));
    let _taken = admitted(&mut pace, now);
    assert!(!pace.has_spare_capacity(&vip().environment, now));
    let later = now + 2 * SECOND;
    assert!(pace.has_spare_capacity(&vip().environment, later));
    fail(&mut pace, later, 8);
    assert!(!pace.has_spare_capacity(&vip().environment, later));
}

#[test]
fn an_inherited_hold_counts_if_it_is_the_later() {
    let now = Instant::now();
    let mut pace = pace(8, now);
    for (inherited, counts) in [(5, 5), (3, 5), (9, 9)] {
        let hold = Hold {
            until: now + SECOND * inherited,
            error: TransientError::RateLimited,
        };
        pace.inherit(hold);
        assert_eq!(held(&pace, now).unwrap().until, now + SECOND * counts);
    }
}
