//! Histories that look odd, and keep every promise.

use super::judge;

#[track_caller]
fn passes(text: &str) {
    if let Err(kinds) = judge(text) {
        panic!("refused for {kinds:?}:\n{text}");
    }
}

#[test]
fn a_superseded_record_is_ok_by_the_later_one() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         a#1 sent 3: add k
         a#1 sent 4: remove k
         applied remove k
         a#1 result 1: OK
         a#1 result 4: OK
         a#1 result 3: OK
         a#1 result 2: OK
         a#1 committed 4
         a#1 ended OK
         final",
    );
}

#[test]
fn a_call_that_failed_after_it_was_applied_is_applied_again() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         applied add k
         a#1 sent 2: remove k
         applied remove k
         applied remove k
         a#1 result 1: OK
         a#1 result 2: OK
         final",
    );
}

#[test]
fn a_stream_that_resumes_applies_again_what_the_older_one_had_applied() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         a#1 sent 3: add k
         applied add k
         a#1 result 1: OK
         a#1 committed 1
         applied remove k
         applied add k
         a#1 result 3: OK
         a#1 ended lost
         a#2 opened
         a#2 sent 2: remove k
         applied remove k
         a#2 result 2: OK
         a#2 committed 2
         a#2 sent 3: add k
         applied add k
         a#2 result 3: OK
         a#2 committed 3
         a#2 ended OK
         final k",
    );
}

#[test]
fn an_older_stream_may_be_heard_after_a_newer_one_has_opened() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         applied add k
         applied remove k
         a#2 opened
         a#1 result 1: OK
         a#2 sent 1: add k
         applied add k
         a#1 result 2: OK
         a#1 committed 2
         a#1 ended Unavailable STREAM_SUPERSEDED
         a#2 sent 2: remove k
         applied remove k
         a#2 result 1: OK
         a#2 result 2: OK
         a#2 ended OK
         final",
    );
}

#[test]
fn a_record_that_ran_into_its_time_out_may_be_applied_or_not() {
    for applied in ["applied remove k", ""] {
        let end = if applied.is_empty() { "k" } else { "" };
        passes(&format!(
            "a#1 opened
             a#1 sent 1: add k
             applied add k
             a#1 result 1: OK
             a#1 sent 2: remove k
             {applied}
             a#1 result 2: DELIVERY_TIMEOUT
             a#1 committed 2
             a#1 ended OK
             final {end}"
        ));
    }
}

#[test]
fn a_time_out_in_the_middle_is_overtaken() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         a#1 result 1: DELIVERY_TIMEOUT
         a#1 result 2: DELIVERY_TIMEOUT
         applied remove k
         a#1 sent 3: add k
         applied add k
         a#1 result 3: OK
         final k",
    );
}

#[test]
fn a_rejected_record_leaves_what_was_before() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 result 1: OK
         a#1 sent 2: remove k
         a#1 sent 3: add bad
         a#1 result 3: REJECTED_BY_DESTINATION
         a#1 result 2: REJECTED_BY_DESTINATION
         a#1 committed 3
         final k",
    );
}

#[test]
fn two_records_that_ask_for_the_same_cannot_be_told_apart() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         a#1 sent 2: remove k
         applied remove k
         a#1 sent 3: add k
         applied add k
         a#1 result 1: OK
         a#1 result 2: OK
         final k",
    );
}

#[test]
fn a_connection_may_break_after_the_last_result() {
    passes(
        "a#1 opened
         a#1 sent 1: add k
         applied add k
         a#1 result 1: OK
         a#1 committed 1
         a#1 ended lost
         final k",
    );
}

#[test]
fn a_stream_that_never_opened_may_end() {
    passes(
        "a#1 ended lost
         a#2 ended Unavailable SERVER_DRAINING
         a#3 opened
         a#3 ended OK
         final",
    );
}

#[test]
fn results_without_a_record_in_the_prefix_commit_nothing() {
    passes(
        "a#1 opened
         a#1 sent 7: add k
         a#1 sent 8: add l
         applied add l
         a#1 result 8: OK
         a#1 committed 6
         applied add k
         a#1 result 7: OK
         a#1 committed 8
         final k l",
    );
}

#[test]
fn an_unfinished_log_ends_where_some_stream_left_it() {
    // The newer stream had no OK yet, so what the older one was told still counts.
    for (applied, end) in [("", ""), ("applied add k", "k")] {
        passes(&format!(
            "a#1 opened
             a#1 sent 1: add k
             a#1 sent 2: remove k
             applied remove k
             a#1 result 2: OK
             a#1 ended lost
             a#2 opened
             a#2 sent 1: add k
             {applied}
             a#2 ended lost
             final {end}"
        ));
    }
}

#[test]
fn logs_share_calls_and_not_keys() {
    let summary = judge(
        "a#1 opened
         b#1 opened
         a#1 sent 1: add k
         b#1 sent 1: add l
         applied add k l
         b#1 result 1: OK
         a#1 result 1: DELIVERY_TIMEOUT
         a#1 ended lost
         a#2 opened
         a#2 sent 1: add k
         final k l",
    )
    .unwrap();
    assert_eq!((summary.records, summary.sent, summary.settled), (2, 3, 2));
    assert_eq!((summary.streams, summary.keys), (3, 2));
    assert_eq!((summary.calls, summary.applied), (1, 2));
    assert_eq!(summary.failed["DELIVERY_TIMEOUT"], 1);
}
