use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::{
    domain::{InvisibleCharacter, KeyError, RecordError},
    server::status::{Blame, Reason},
};

fn ledger() -> ResultLedger {
    ResultLedger::new(1000, 2000)
}

#[test]
fn numbering_starts_where_the_sender_says_and_then_counts() {
    let mut unset = ledger();
    assert_eq!(unset.admit(None, 3), Ok(1));
    assert_eq!(unset.admit(None, 1), Ok(4));
    assert_eq!(unset.admit(Some(5), 1), Ok(5));
    let mut resumed = ledger();
    assert_eq!(resumed.admit(Some(501), 2), Ok(501));
    assert_eq!(resumed.committed(), 500);
    assert_eq!(
        resumed.admit(Some(502), 1),
        Err(Failure::SequenceMismatch {
            expected: 503,
            got: 502
        })
    );
}

#[test]
fn batches_against_the_rules_are_refused_with_the_field() {
    for (first, records, field) in [
        (None, 1001, "batch.records"),
        (Some(0), 1, "batch.first_sequence"),
        (Some(0), 0, "batch.first_sequence"),
        (Some(-5), 1, "batch.first_sequence"),
        (Some(i64::MAX), 1, "batch.first_sequence"),
    ] {
        let Err(Failure::InvalidFields(violations)) = ledger().admit(first, records) else {
            panic!("{field} was accepted");
        };
        assert_eq!(violations[0].field, field);
    }
}

#[test]
fn a_heartbeat_takes_no_number_and_begins_the_numbering_only_if_it_says_where() {
    let mut silent = ledger();
    assert_eq!(silent.admit(None, 0), Ok(1));
    assert_eq!(silent.admit(Some(501), 2), Ok(501));
    assert_eq!(silent.admit(None, 0), Ok(503));
    assert_eq!(silent.admit(Some(503), 0), Ok(503));
    assert_eq!(silent.admit(None, 1), Ok(503));
    assert_eq!((silent.unsettled(), silent.committed()), (3, 500));
    let mut numbered = ledger();
    assert_eq!(numbered.admit(Some(501), 0), Ok(501));
    assert!(numbered.is_settled() && numbered.is_window_open());
    assert_eq!(numbered.admit(None, 1), Ok(501));
    assert_eq!(
        numbered.admit(Some(501), 0),
        Err(Failure::SequenceMismatch {
            expected: 502,
            got: 501
        })
    );
}

#[test]
fn heartbeats_are_answered_by_one_ack_once_the_numbers_have_begun() {
    let mut ledger = ledger();
    ledger.admit(None, 0).unwrap();
    assert!(!ledger.has_news());
    ledger.admit(Some(501), 0).unwrap();
    ledger.admit(None, 0).unwrap();
    let answer = pb::Ack {
        committed_sequence: 500,
        results: vec![],
        max_in_flight_records: None,
    };
    assert!(ledger.has_news());
    assert_eq!(ledger.report(), Some(answer));
    assert!(!ledger.has_news());
    // Results are an answer too.
    ledger.admit(None, 1).unwrap();
    ledger.admit(None, 0).unwrap();
    ledger.record_results(501..=501, Ok(())).unwrap();
    assert_eq!(ledger.report().unwrap().committed_sequence, 501);
    assert_eq!(ledger.report(), None);
}

#[test]
fn equal_neighbours_share_a_run_and_the_prefix_commits() {
    let mut ledger = ledger();
    ledger.admit(None, 6).unwrap();
    for sequence in [5, 1, 2, 6] {
        ledger.record_results(sequence..=sequence, Ok(())).unwrap();
    }
    let ack = ledger.report().unwrap();
    let runs: Vec<_> = ack
        .results
        .iter()
        .map(|run| (run.first_sequence, run.last_sequence))
        .collect();
    assert_eq!((runs, ack.committed_sequence), (vec![(1, 2), (5, 6)], 2));
    assert_eq!(ledger.report(), None);

    let refused = Failure::RejectedByDestination(Blame::Record);
    ledger.record_results(4..=4, Err(refused.clone())).unwrap();
    ledger.record_results(3..=3, Ok(())).unwrap();
    let ack = ledger.report().unwrap();
    assert_eq!((ack.results.len(), ack.committed_sequence), (2, 6));
    assert_eq!(ack.results[1].error, Some(refused.to_rpc()));
    assert!(ledger.is_settled());
}

#[test]
fn a_result_that_no_record_waits_for_is_refused_and_changes_nothing() {
    let mut ledger = ledger();
    let refuses = |ledger: &mut ResultLedger, sequence| {
        let before = format!("{ledger:?}");
        let refused = ledger.record_results(sequence..=sequence, Ok(()));
        assert_eq!(
            refused,
            Err(UnexpectedResult {
                first: sequence,
                last: sequence,
            })
        );
        assert_eq!(format!("{ledger:?}"), before);
    };
    refuses(&mut ledger, 1);
    ledger.admit(Some(10), 5).unwrap();
    for sequence in [10, 12, 13] {
        ledger.record_results(sequence..=sequence, Ok(())).unwrap();
    }
    // Before the first, not reported yet, never received.
    for sequence in [9, 10, 12, 13, 15] {
        refuses(&mut ledger, sequence);
    }
    // A run is refused as a whole if one of its records waits for nothing.
    for run in [9..=11, 11..=12, 14..=15, 12..=13, 11..=14, 8..=16] {
        let (first, last) = (*run.start(), *run.end());
        let refused = ledger.record_results(run, Ok(()));
        assert_eq!(refused, Err(UnexpectedResult { first, last }));
    }
    ledger.report();
    // Committed, and reported without being committed.
    for sequence in [10, 12, 13] {
        refuses(&mut ledger, sequence);
    }
    for sequence in [11, 14] {
        ledger.record_results(sequence..=sequence, Ok(())).unwrap();
    }
    assert!(ledger.is_settled());
}

#[test]
fn delivered_records_take_one_place_until_they_are_told() {
    let mut ledger = ResultLedger::new(1000, 10_000);
    ledger.admit(None, 1000).unwrap();
    for sequence in (1..=1000).step_by(2).chain((2..=1000).step_by(2)) {
        ledger.record_results(sequence..=sequence, Ok(())).unwrap();
    }
    assert_eq!(ledger.unreported.len(), 1);
    assert_eq!(ledger.report().unwrap().results.len(), 1);
}

#[test]
fn the_largest_ack_is_one_that_clients_accept() {
    let sources: Vec<_> = (0..32).map(|n| format!("{n:0>256}")).collect();
    let missing = Failure::from(RecordError::IdentifierMissing {
        sources: sources.into(),
        has_lookalike: true,
    });
    let invalid = Failure::from(RecordError::IdentifierInvalid {
        source_name: "x".repeat(256),
        reason: KeyError::InvisibleCharacter(InvisibleCharacter::Invisible('\u{E0FFF}')),
    });
    let mut ledger = ResultLedger::new(1000, 10_000);
    ledger.admit(None, 1000).unwrap();
    for sequence in 1..=1000 {
        let failure = if sequence % 2 == 0 {
            &missing
        } else {
            &invalid
        };
        ledger
            .record_results(sequence..=sequence, Err(failure.clone()))
            .unwrap();
    }
    let ack = ledger.report().unwrap();
    assert_eq!(ack.results.len(), 1000);
    assert!(ack.encoded_len() < 4 * 1024 * 1024, "{}", ack.encoded_len());
}

#[test]
fn the_window_counts_from_what_is_committed() {
    let mut ledger = ResultLedger::new(1000, 2);
    assert!(ledger.is_window_open());
    ledger.admit(Some(9), 2).unwrap();
    assert!(!ledger.is_window_open());
    ledger.record_results(10..=10, Ok(())).unwrap();
    ledger.report();
    assert!(!ledger.is_window_open(), "record 9 still blocks the prefix");
    ledger.record_results(9..=9, Ok(())).unwrap();
    ledger.report();
    assert!(ledger.is_window_open());
}

#[test]
fn an_operation_the_contract_does_not_have_rejects_the_record() {
    assert_eq!(operation(7).unwrap_err().reason(), Reason::InvalidField);
}

/// The order in which verdicts come: pieces of the records, in any order.
fn orders() -> impl Strategy<Value = Vec<i64>> {
    let pieces = prop::collection::vec(1..20usize, 60).prop_map(|lengths| {
        let (mut pieces, mut rest) = (Vec::new(), (0..60i64).collect::<Vec<_>>());
        for length in lengths {
            let taken = rest.drain(..length.min(rest.len())).collect::<Vec<_>>();
            pieces.extend((!taken.is_empty()).then_some(taken));
        }
        pieces
    });
    pieces.prop_shuffle().prop_map(|pieces| pieces.concat())
}

proptest! {
    /// However verdicts come in and whenever they are reported: every record is covered once,
    /// by its own outcome, and `committed_sequence` is exactly the settled prefix.
    #[test]
    fn every_record_is_covered_exactly_once(
        order in orders(),
        first in 1..1000i64,
        failing in prop::collection::btree_set(0..60i64, 0..20),
        report_every in 1..20usize,
    ) {
        let mut ledger = ledger();
        ledger.admit(Some(first), 60).unwrap();
        let mut seen = BTreeMap::new();
        let mut collect = |ledger: &mut ResultLedger| {
            let Some(ack) = ledger.report() else { return Ok(()) };
            for run in ack.results {
                for sequence in run.first_sequence..=run.last_sequence {
                    prop_assert!(seen.insert(sequence, run.error.is_some()).is_none());
                }
            }
            let prefix = (first..).take_while(|sequence| seen.contains_key(sequence)).count();
            let prefix = i64::try_from(prefix).unwrap();
            prop_assert_eq!(ack.committed_sequence, first - 1 + prefix);
            Ok(())
        };
        // Neighbours of one outcome come as a run, as lanes report them.
        let runs = order.chunk_by(|one, other| {
            one + 1 == *other && failing.contains(one) == failing.contains(other)
        });
        for (count, run) in runs.enumerate() {
            let fails = failing.contains(&run[0]);
            let refused = Failure::RejectedByDestination(Blame::Record);
            let outcome = if fails { Err(refused) } else { Ok(()) };
            let records = first + run[0]..=first + run[run.len() - 1];
            prop_assert_eq!(ledger.record_results(records, outcome), Ok(run.len()));
            if count % report_every == 0 {
                collect(&mut ledger)?;
            }
        }
        while ledger.has_news() {
            collect(&mut ledger)?;
        }
        prop_assert_eq!(ledger.committed(), first + 59);
        for offset in 0..60 {
            prop_assert_eq!(seen.get(&(first + offset)), Some(&failing.contains(&offset)));
        }
    }
}
