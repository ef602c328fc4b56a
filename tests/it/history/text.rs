//! Histories as text: what a failing test prints can be read again.

use std::sync::Arc;

use tonic::Code;

use crate::support::history::{Ending, Event, History, Incarnation, Operation, Outcome};

/// Reads the text form, one event a line; blank lines are passed over.
pub(super) fn parse(text: &str) -> Vec<Event> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(event).collect()
}

fn event(line: &str) -> Event {
    let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
    match head {
        "final" => Event::Final {
            members: rest.split_whitespace().map(str::to_owned).collect(),
        },
        "applied" => {
            let (operation, keys) = rest.split_once(' ').unwrap();
            Event::Applied {
                operation: operation_of(operation),
                keys: keys.split(' ').map(Arc::from).collect(),
            }
        }
        stream => of_stream(incarnation(stream), rest),
    }
}

fn of_stream(by: Incarnation, rest: &str) -> Event {
    let (verb, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match verb {
        "opened" => Event::Opened(by),
        "sent" => {
            let (sequence, record) = rest.split_once(": ").unwrap();
            let (operation, key) = record.split_once(' ').unwrap();
            Event::Sent {
                by,
                sequence: sequence.parse().unwrap(),
                key: key.into(),
                operation: operation_of(operation),
            }
        }
        "result" => {
            let (sequence, outcome) = rest.split_once(": ").unwrap();
            Event::Result {
                by,
                sequence: sequence.parse().unwrap(),
                outcome: match outcome {
                    "OK" => Outcome::Ok,
                    reason => Outcome::Failed(reason.into()),
                },
            }
        }
        "committed" => Event::Committed {
            by,
            sequence: rest.parse().unwrap(),
        },
        "ended" => Event::Ended {
            by,
            how: ending(rest),
        },
        other => panic!("no such event: {other}"),
    }
}

fn incarnation(text: &str) -> Incarnation {
    let (log, number) = text.rsplit_once('#').unwrap();
    Incarnation {
        log: log.into(),
        number: number.parse().unwrap(),
    }
}

fn operation_of(text: &str) -> Operation {
    match text {
        "add" => Operation::Add,
        "remove" => Operation::Remove,
        other => panic!("no such operation: {other}"),
    }
}

fn ending(text: &str) -> Ending {
    match text.split_once(' ') {
        None if text == "OK" => Ending::Ok,
        None => Ending::Lost,
        Some((code, reason)) => Ending::Status {
            code: match code {
                "Unavailable" => Code::Unavailable,
                other => panic!("no such code here: {other}"),
            },
            reason: reason.into(),
        },
    }
}

#[test]
fn what_is_printed_is_what_is_read() {
    let text = "\
a#1 opened
a#1 sent 7: add k
a#1 sent 8: remove l
applied add k l
a#1 result 7: OK
a#1 result 8: DELIVERY_TIMEOUT
a#1 committed 8
a#1 ended Unavailable SERVER_DRAINING
a#2 ended lost
a#3 ended OK
final k l
";
    let history = History::default();
    history.record_all(parse(text));
    assert_eq!(history.to_string(), text);
    let again = History::default();
    again.record_all(parse(&history.to_string()));
    assert_eq!(again, history);
    again.record(Event::Final { members: [].into() });
    assert_ne!(again, history);
}
