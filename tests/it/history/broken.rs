//! Histories broken by hand: each must be refused, for its own reason.

use super::judge;
use crate::support::history::Kind::{self, *};

#[track_caller]
fn refused(text: &str, expected: &[Kind]) {
    let judged = judge(text);
    assert_eq!(
        judged.as_ref().err().map(Vec::as_slice),
        Some(expected),
        "{judged:?}"
    );
}

#[test]
fn a_key_that_nobody_sent_is_a_phantom() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k stranger",
        &[Phantom],
    );
}

#[test]
fn an_operation_that_nobody_sent_is_a_phantom() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         applied remove k",
        &[Phantom],
    );
}

#[test]
fn an_application_before_its_record_was_sent_is_a_phantom() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied remove k
         a#1 sent 2: remove k",
        &[Phantom],
    );
}

#[test]
fn an_ok_for_what_was_never_applied_is_a_loss() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: add l
         applied add l
         a#1 result 1: OK",
        &[Loss],
    );
}

#[test]
fn an_ok_of_a_later_record_is_not_earned_by_an_earlier_one() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         applied add k
         a#1 result 1: OK
         a#1 result 2: OK",
        &[Loss],
    );
}

#[test]
fn an_ok_is_not_earned_by_a_record_sent_after_the_application() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 sent 2: remove k
         a#1 sent 3: add k
         a#1 result 3: OK",
        &[Loss],
    );
}

#[test]
fn an_ok_is_not_earned_by_what_an_older_stream_had_applied() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 ended lost
         a#2 opened
         a#2 sent 1: add k
         a#2 result 1: OK",
        &[Loss],
    );
}

#[test]
fn an_older_record_applied_after_a_newer_one_is_out_of_order() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         applied remove k
         applied add k",
        &[Order],
    );
}

#[test]
fn an_ok_tells_which_record_was_applied_and_an_older_one_may_not_follow() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         a#1 sent 3: add k
         applied add k
         a#1 result 3: OK
         applied remove k",
        &[Order],
    );
}

#[test]
fn nothing_of_an_older_stream_is_applied_once_a_newer_one_is_open() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove l
         a#2 opened
         applied add k
         a#2 sent 1: add k
         applied remove l",
        &[Fence, Fence],
    );
}

#[test]
fn a_rejected_record_is_not_applied() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: add k
         applied add k
         a#1 result 1: REJECTED_BY_DESTINATION
         a#1 result 2: REJECTED_BY_DESTINATION",
        &[Rejected],
    );
}

#[test]
fn a_record_has_one_result_in_a_stream() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 result 1: OK
         a#1 result 1: OK",
        &[OneResult],
    );
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 result 1: OK
         a#1 result 1: DELIVERY_TIMEOUT",
        &[OneResult],
    );
}

#[test]
fn a_record_that_was_not_sent_has_no_result() {
    let sent = "a#1 opened
                a#1 sent 5: add k
                applied add k\n";
    for result in [
        "a#1 result 4: OK",
        "a#1 result 6: OK",
        "a#2 result 5: OK",
        "b#1 result 5: OK",
    ] {
        refused(&format!("{sent}{result}"), &[OneResult]);
    }
}

#[test]
fn a_committed_prefix_has_all_its_results() {
    refused(
        "a#1 opened
         a#1 sent 4: add k
         a#1 sent 5: add l
         applied add l
         a#1 result 5: OK
         a#1 committed 5",
        &[Prefix],
    );
    // Those of an older stream do not count.
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 result 1: OK
         a#2 opened
         a#2 sent 1: add k
         a#2 committed 1",
        &[Prefix],
    );
}

#[test]
fn a_committed_prefix_never_falls() {
    let good = "a#1 opened
                a#1 sent 4: add k
                a#1 sent 5: add l
                applied add k l
                a#1 result 4: OK
                a#1 result 5: OK
                a#1 committed 5\n";
    refused(&format!("{good} a#1 committed 4"), &[Prefix]);
    refused(
        "a#1 opened\n a#1 sent 4: add k\n a#1 committed 2",
        &[Prefix],
    );
}

#[test]
fn a_stream_with_open_records_does_not_end_ok() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: add l
         applied add k l
         a#1 result 1: OK
         a#1 ended OK",
        &[Complete],
    );
}

#[test]
fn a_member_that_its_last_ok_does_not_allow_has_not_converged() {
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         applied remove k
         a#1 result 1: OK
         a#1 result 2: OK
         final k",
        &[Replay, Converged],
    );
    // Lost again behind the back of the calls that were seen.
    refused(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 result 1: OK
         final",
        &[Replay, Converged],
    );
    // An old call that lands last.
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 ended lost
         a#2 opened
         a#2 sent 1: add k
         a#2 sent 2: remove k
         applied remove k
         a#2 result 1: OK
         a#2 result 2: OK
         applied add k
         final k",
        &[Order, Converged],
    );
}

#[test]
fn the_members_at_the_end_are_those_that_were_applied() {
    // Either is allowed by the results, but only one by what was applied.
    refused(
        "a#1 opened
         a#1 sent 1: add k
         a#1 result 1: DELIVERY_TIMEOUT
         final k",
        &[Replay],
    );
}

#[test]
fn what_no_executor_does_is_malformed() {
    let open = "a#1 opened\n a#1 sent 1: add k\n";
    for more in [
        "b#1 opened\n b#1 sent 1: add k",
        "a#1 sent 3: add l",
        "a#2 opened\n a#2 sent 1: remove k",
        "a#2 opened\n a#2 sent 1: add l",
        "a#2 opened\n a#2 sent 1: add k\n a#2 opened",
        "b#1 sent 1: add l",
        "a#1 ended lost\n a#1 sent 2: add l",
        "a#1 ended lost\n a#1 ended lost",
        "a#1 ended lost\n a#1 result 1: DELIVERY_TIMEOUT",
        "final\n a#1 ended lost",
        "a#1 result 1: DELIVERY_TIMEOUT\n a#1 committed 1\n a#2 opened\n a#2 sent 3: add l",
    ] {
        refused(&format!("{open}{more}"), &[Malformed]);
    }
}
