use proptest::prelude::*;

use super::*;

fn row(line: u64) -> InputRow {
    InputRow {
        line,
        end: line * 10,
        record: pb::IdentifierRecord {
            identifiers: [("user_id".to_owned(), line.to_string())].into(),
            operation: 0,
        },
    }
}

fn window(rows: u64, max_batch_records: i32, max_in_flight_records: i32) -> UnackedWindow {
    let mut window = UnackedWindow::default();
    (1..=rows).for_each(|line| window.push(row(line)));
    window.reopen(&pb::StreamOpened {
        max_batch_records,
        max_in_flight_records,
    });
    window
}

fn ack(committed_sequence: i64, runs: &[(i64, i64)]) -> pb::Ack {
    let results = runs
        .iter()
        .map(|&(first_sequence, last_sequence)| pb::RecordResult {
            first_sequence,
            last_sequence,
            error: None,
        });
    pb::Ack {
        committed_sequence,
        results: results.collect(),
        max_in_flight_records: None,
    }
}

fn batches(window: &mut UnackedWindow) -> Vec<(i64, usize)> {
    std::iter::from_fn(|| window.next_batch())
        .map(|batch| (batch.first_sequence.unwrap(), batch.records.len()))
        .collect()
}

fn lines(settled: &[SettledRow]) -> Vec<u64> {
    settled.iter().map(|settled| settled.line).collect()
}

#[test]
fn batches_fill_the_window_and_commits_open_it_again() {
    let mut window = window(10, 3, 7);
    assert_eq!(batches(&mut window), [(1, 3), (4, 3), (7, 1)]);
    // A result without a commit makes no room: the window counts from the last commit.
    window.settle(&ack(0, &[(3, 4)])).unwrap();
    assert_eq!(batches(&mut window), []);
    assert_eq!(
        lines(&window.settle(&ack(4, &[(1, 2)])).unwrap()),
        [1, 2, 3, 4]
    );
    assert_eq!(batches(&mut window), [(8, 3)]);
}

#[test]
fn a_new_stream_starts_behind_the_last_commit_and_forgets_other_results() {
    let mut window = window(6, 10, 10);
    assert_eq!(batches(&mut window), [(1, 6)]);
    window.settle(&ack(2, &[(1, 2), (4, 6)])).unwrap();
    window.reopen(&pb::StreamOpened {
        max_batch_records: 10,
        max_in_flight_records: 10,
    });
    assert_eq!(batches(&mut window), [(3, 4)]);
    let settled = window.settle(&ack(6, &[(3, 6)])).unwrap();
    assert_eq!(lines(&settled), [3, 4, 5, 6]);
    assert_eq!(window.end(), Ok(()));
}

#[test]
fn a_shrunken_window_holds_records_back() {
    let mut window = window(10, 2, 4);
    batches(&mut window);
    let shrink = pb::Ack {
        max_in_flight_records: Some(1),
        ..ack(2, &[(1, 2)])
    };
    window.settle(&shrink).unwrap();
    assert_eq!(batches(&mut window), []);
    window.settle(&ack(4, &[(3, 4)])).unwrap();
    assert_eq!(batches(&mut window), [(5, 1)]);
}

#[test]
fn large_records_leave_in_more_messages() {
    let mut window = UnackedWindow::default();
    for line in 1..=5 {
        let mut row = row(line);
        let long = "x".repeat(MAX_BATCH_BYTES / 2 - 100);
        row.record.identifiers.insert("long".into(), long);
        window.push(row);
    }
    window.reopen(&pb::StreamOpened {
        max_batch_records: 1_000,
        max_in_flight_records: 1_000,
    });
    assert_eq!(batches(&mut window), [(1, 2), (3, 2), (5, 1)]);
}

#[test]
fn a_failed_record_keeps_its_line_and_reason() {
    let mut window = window(2, 10, 10);
    batches(&mut window);
    let mut ack = ack(2, &[(1, 1), (2, 2)]);
    let details = tonic_types::ErrorDetails::with_error_info(
        "IDENTIFIER_MISSING",
        "destinations.cdp",
        std::collections::HashMap::new(),
    );
    let status = tonic::Status::new(tonic::Code::InvalidArgument, "none");
    ack.results[1].error = Some(tonic_types::pb::Status {
        code: 3,
        message: "none".into(),
        details: tonic_types::pb::Status::decode(
            <tonic::Status as tonic_types::StatusExt>::with_error_details(
                status.code(),
                status.message(),
                details,
            )
            .details(),
        )
        .unwrap()
        .details,
    });
    let settled = window.settle(&ack).unwrap();
    assert_eq!((settled[1].line, settled[1].end), (2, 20));
    assert_eq!(
        settled[1].verdict,
        Err(RowFailure {
            code: "INVALID_ARGUMENT".into(),
            reason: "IDENTIFIER_MISSING".into(),
            message: "none".into(),
        })
    );
}

#[test]
fn a_server_that_breaks_the_protocol_is_not_believed() {
    let broken = |first: &pb::Ack, second: &pb::Ack| {
        let mut window = window(5, 2, 4);
        batches(&mut window);
        window
            .settle(first)
            .and_then(|_| window.settle(second))
            .err()
    };
    let nothing = ack(0, &[]);
    let unasked = |first, last| Some(ProtocolViolation::Unasked { first, last });
    assert_eq!(broken(&nothing, &ack(0, &[(4, 5)])), unasked(4, 5));
    assert_eq!(broken(&nothing, &ack(0, &[(2, 1)])), unasked(2, 1));
    assert_eq!(
        broken(&ack(1, &[(1, 1)]), &ack(1, &[(1, 1)])),
        unasked(1, 1)
    );
    assert_eq!(
        broken(&ack(0, &[(2, 2)]), &ack(0, &[(2, 3)])),
        Some(ProtocolViolation::Twice(2))
    );
    let gap = ProtocolViolation::Gap {
        committed: 2,
        missing: 1,
    };
    assert_eq!(broken(&nothing, &ack(2, &[(2, 2)])), Some(gap));
    assert_eq!(broken(&nothing, &nothing), None);
    let mut window = window(2, 1, 1);
    batches(&mut window);
    assert_eq!(window.end(), Err(ProtocolViolation::Unanswered(1)));
}

/// What may happen between a sender and a correct server.
#[derive(Debug, Clone)]
enum Step {
    Read(u8),
    Send,
    /// The server answers one of the unanswered records.
    Answer(usize),
    /// The server commits what it can.
    Commit,
    Resize(i32),
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..20_u8).prop_map(Step::Read),
        4 => Just(Step::Send),
        8 => any::<usize>().prop_map(Step::Answer),
        3 => Just(Step::Commit),
        1 => (1..30).prop_map(Step::Resize),
        1 => Just(Step::Lose),
    ]
}

/// A server by the book: remembers nothing from one stream to the next.
#[derive(Debug, Default)]
struct ScriptedServer {
    next: Option<i64>,
    /// Received on this stream, and whether answered.
    received: std::collections::BTreeMap<i64, bool>,
    committed: i64,
    max_in_flight: i64,
    /// Every record ever taken in, by number: what it was.
    seen: std::collections::BTreeMap<i64, String>,
}

impl ScriptedServer {
    fn take(&mut self, batch: &pb::IdentifierBatch) {
        let first = batch.first_sequence.unwrap();
        if self.next.is_none() {
            self.committed = first - 1;
        }
        assert_eq!(*self.next.get_or_insert(first), first, "not the next");
        for (sequence, record) in (first..).zip(&batch.records) {
            let id = record.identifiers["user_id"].clone();
            let before = self.seen.insert(sequence, id.clone());
            assert!(before.is_none_or(|before| before == id), "renumbered");
            self.received.insert(sequence, false);
            self.next = Some(sequence + 1);
        }
        let beyond = self.next.unwrap() - 1 - self.committed;
        assert!(beyond <= self.max_in_flight, "past the window");
    }

    fn answer(&mut self, which: usize) -> Option<pb::Ack> {
        let open: Vec<_> = self.received.iter().filter(|(_, done)| !**done).collect();
        let sequence = *open.get(which.checked_rem(open.len())?)?.0;
        self.received.insert(sequence, true);
        Some(ack(self.committed, &[(sequence, sequence)]))
    }

    fn commit(&mut self) -> pb::Ack {
        while self.received.get(&(self.committed + 1)) == Some(&true) {
            self.committed += 1;
        }
        ack(self.committed, &[])
    }
}

proptest! {
    #[test]
    fn each_record_is_counted_once_whatever_is_lost(steps in prop::collection::vec(step(), 0..200)) {
        let opened = pb::StreamOpened { max_batch_records: 7, max_in_flight_records: 20 };
        let mut window = UnackedWindow::default();
        window.reopen(&opened);
        let mut server = ScriptedServer { max_in_flight: 20, ..ScriptedServer::default() };
        let mut read = 0;
        let mut counted = Vec::new();
        let given = steps.len();
        // Answers everything at the end, so that the history is complete.
        let rest = [Step::Send, Step::Answer(0), Step::Commit];
        for (n, step) in steps.into_iter().chain(rest.into_iter().cycle()).enumerate() {
            if n >= given && window.is_empty() {
                break;
            }
            let acks = match step {
                Step::Read(rows) => {
                    for _ in 0..rows {
                        read += 1;
                        window.push(row(read));
                    }
                    vec![]
                }
                Step::Send => {
                    let batch = window.next_batch();
                    batch.iter().for_each(|batch| server.take(batch));
                    vec![]
                }
                Step::Answer(which) => server.answer(which).into_iter().collect(),
                Step::Commit => vec![server.commit()],
                Step::Resize(records) => {
                    // A server that shrinks its window goes on taking what is on its way.
                    server.max_in_flight = server.max_in_flight.max(records.into());
                    vec![pb::Ack { max_in_flight_records: Some(records), ..ack(server.committed, &[]) }]
                }
                Step::Lose => {
                    window.reopen(&opened);
                    let seen = std::mem::take(&mut server.seen);
                    server = ScriptedServer { max_in_flight: 20, seen, ..ScriptedServer::default() };
                    vec![]
                }
            };
            for ack in acks {
                counted.extend(lines(&window.settle(&ack).unwrap()));
            }
        }
        prop_assert!(window.is_empty());
        prop_assert_eq!(window.end(), Ok(()));
        prop_assert_eq!(counted, (1..=read).collect::<Vec<_>>());
    }
}
