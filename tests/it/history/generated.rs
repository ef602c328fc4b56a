//! Histories of a small engine that keeps every rule, and what becomes of them when one event is
//! tampered with.

#![allow(
    clippy::ptr_arg,
    reason = "every way to spoil a history has the same form"
)]

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;

use crate::support::history::{Ending, Event, Incarnation, Kind, Operation, Outcome, check};

const KEYS: [&str; 3] = ["k", "l", "m"];
const BAD_KEY: &str = "bad";
const TIMEOUT: &str = "DELIVERY_TIMEOUT";

/// A server and its client in one, for one log: what it does next is drawn.
struct Engine {
    random: fastrand::Rng,
    events: Vec<Event>,
    log: Vec<(&'static str, Operation)>,
    members: BTreeSet<String>,
    stream: u32,
    /// Place of the stream's first record, of the next to send, and of the next to commit.
    first: usize,
    next: usize,
    committed: usize,
    /// By place from `first`.
    results: Vec<Option<Outcome>>,
    /// Places without a verdict.
    pending: Vec<usize>,
    /// Verdicts that were not heard yet.
    verdicts: Vec<(usize, Outcome)>,
}

impl Engine {
    fn run(seed: u64, records: usize) -> Vec<Event> {
        let mut random = fastrand::Rng::with_seed(seed);
        let log = (0..records)
            .map(|_| {
                let key = match random.usize(..8) {
                    0 => BAD_KEY,
                    other => KEYS[other % KEYS.len()],
                };
                let operations = [Operation::Add, Operation::Remove];
                (key, operations[random.usize(..2)])
            })
            .collect();
        let mut engine = Self {
            random,
            events: Vec::new(),
            log,
            members: BTreeSet::new(),
            stream: 0,
            first: 0,
            next: 0,
            committed: 0,
            results: Vec::new(),
            pending: Vec::new(),
            verdicts: Vec::new(),
        };
        engine.open();
        while engine.committed < engine.log.len() {
            engine.step();
        }
        engine.end(Ending::Ok);
        let members = std::mem::take(&mut engine.members);
        engine.events.push(Event::Final { members });
        engine.events
    }

    fn step(&mut self) {
        match self.random.usize(..20) {
            0 if self.random.bool() => {
                self.end(Ending::Lost);
                self.open();
            }
            1 => self.time_out(),
            2..=8 => self.send(),
            9..=12 => self.call(),
            13..=17 => self.hear(),
            _ => self.commit(),
        }
    }

    fn by(&self) -> Incarnation {
        Incarnation {
            log: Arc::from("a"),
            number: self.stream,
        }
    }

    fn open(&mut self) {
        self.stream += 1;
        (self.first, self.next) = (self.committed, self.committed);
        self.results.clear();
        self.pending.clear();
        self.verdicts.clear();
        self.events.push(Event::Opened(self.by()));
    }

    fn end(&mut self, how: Ending) {
        let by = self.by();
        self.events.push(Event::Ended { by, how });
    }

    fn send(&mut self) {
        let Some(&(key, operation)) = self.log.get(self.next) else {
            return;
        };
        self.events.push(Event::Sent {
            by: self.by(),
            sequence: sequence(self.next),
            key: key.into(),
            operation,
        });
        self.pending.push(self.next);
        self.results.push(None);
        self.next += 1;
    }

    /// Calls for one pending key, whose newest record decides, and sometimes loses the answer.
    fn call(&mut self) {
        let Some(&place) = self.random.choice(&self.pending) else {
            return;
        };
        let key = self.log[place].0;
        let of_key: Vec<_> = self
            .pending
            .iter()
            .copied()
            .filter(|p| self.log[*p].0 == key)
            .collect();
        let outcome = if key == BAD_KEY {
            Outcome::Failed("REJECTED_BY_DESTINATION".into())
        } else {
            let operation = self.log[*of_key.last().unwrap()].1;
            self.apply(key, operation);
            Outcome::Ok
        };
        if self.random.usize(..4) > 0 {
            self.pending.retain(|place| !of_key.contains(place));
            self.verdicts
                .extend(of_key.into_iter().map(|place| (place, outcome.clone())));
        }
    }

    fn apply(&mut self, key: &str, operation: Operation) {
        match operation {
            Operation::Add => self.members.insert(key.to_owned()),
            Operation::Remove => self.members.remove(key),
        };
        let keys = vec![key.into()];
        self.events.push(Event::Applied { operation, keys });
    }

    fn time_out(&mut self) {
        if !self.pending.is_empty() {
            let place = self.pending.remove(0);
            self.verdicts.push((place, Outcome::Failed(TIMEOUT.into())));
        }
    }

    fn hear(&mut self) {
        if self.verdicts.is_empty() {
            return;
        }
        let which = self.random.usize(..self.verdicts.len());
        let (place, outcome) = self.verdicts.swap_remove(which);
        self.results[place - self.first] = Some(outcome.clone());
        self.events.push(Event::Result {
            by: self.by(),
            sequence: sequence(place),
            outcome,
        });
    }

    fn commit(&mut self) {
        let done = self.results[self.committed - self.first..].iter();
        let more = done.take_while(|result| result.is_some()).count();
        if more > 0 {
            self.committed += more;
            self.events.push(Event::Committed {
                by: self.by(),
                sequence: i64::try_from(self.committed).unwrap(),
            });
        }
    }
}

fn sequence(place: usize) -> i64 {
    i64::try_from(place).unwrap() + 1
}

/// One way to spoil a good history. Each answers what the checker must say, or nothing where
/// this history has no place for it.
type Spoil = fn(&mut Vec<Event>, &mut fastrand::Rng) -> Option<&'static [Kind]>;

const SPOILS: [(&str, Spoil); 12] = [
    ("forget what made a result OK", forget_applications),
    ("apply what nobody sent", apply_a_stranger),
    ("apply for an older stream", apply_behind_the_fence),
    (
        "swap the last two opposite applications of a key",
        swap_applications,
    ),
    ("answer twice", duplicate_a_result),
    ("answer nobody", forget_a_result),
    ("answer OK what was rejected", accept_the_rejected),
    ("apply what was rejected", apply_the_rejected),
    ("commit too much", commit_too_much),
    ("take a commit back", take_a_commit_back),
    ("forget that a record was sent", forget_a_record),
    ("lose a member at the end", flip_a_member),
];

/// The place of a random event of a kind.
fn any(events: &[Event], random: &mut fastrand::Rng, is: impl Fn(&Event) -> bool) -> Option<usize> {
    let places: Vec<_> = (0..events.len()).filter(|at| is(&events[*at])).collect();
    random.choice(places)
}

fn key_of(events: &[Event], wanted: i64) -> Arc<str> {
    let key = |event: &Event| match event {
        Event::Sent { sequence, key, .. } if *sequence == wanted => Some(Arc::clone(key)),
        _ => None,
    };
    events.iter().find_map(key).unwrap()
}

fn is_of(event: &Event, wanted: &str) -> bool {
    matches!(event, Event::Applied { keys, .. } if &*keys[0] == wanted)
}

fn is_ok(event: &Event) -> bool {
    matches!(
        event,
        Event::Result {
            outcome: Outcome::Ok,
            ..
        }
    )
}

fn forget_applications(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let ok = any(events, random, is_ok)?;
    let Event::Result { sequence, .. } = events[ok] else {
        unreachable!("only results are OK");
    };
    let key = key_of(events, sequence);
    let opened = events[..ok]
        .iter()
        .rposition(|event| matches!(event, Event::Opened(_)))?;
    let mut at = 0;
    events.retain(|event| {
        let gone = (opened..ok).contains(&at) && is_of(event, &key);
        at += 1;
        !gone
    });
    Some(&[Kind::Loss])
}

fn apply_a_stranger(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let at = random.usize(..events.len());
    let applied = Event::Applied {
        operation: Operation::Remove,
        keys: vec!["stranger".into()],
    };
    events.insert(at, applied);
    Some(&[Kind::Phantom])
}

fn apply_behind_the_fence(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let later = |event: &Event| matches!(event, Event::Opened(by) if by.number > 1);
    let at = any(events, random, later)?;
    let sent = any(&events[..at], random, |event| {
        matches!(event, Event::Sent { .. })
    })?;
    let Event::Sent { key, operation, .. } = events[sent].clone() else {
        unreachable!("only what was sent was asked for");
    };
    let keys = vec![key];
    events.insert(at + 1, Event::Applied { operation, keys });
    Some(&[Kind::Fence])
}

fn swap_applications(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let key = *random.choice(&KEYS)?;
    let operation = |at: usize| match &events[at] {
        Event::Applied { operation, .. } => *operation,
        _ => unreachable!("only applications are looked at"),
    };
    let places: Vec<_> = (0..events.len())
        .filter(|at| is_of(&events[*at], key))
        .collect();
    let &last = places.last()?;
    let &before = places
        .iter()
        .rev()
        .find(|at| operation(**at) != operation(last))?;
    events.swap(before, last);
    Some(&[Kind::Replay])
}

fn duplicate_a_result(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let at = any(events, random, |event| {
        matches!(event, Event::Result { .. })
    })?;
    events.insert(at, events[at].clone());
    Some(&[Kind::OneResult])
}

fn forget_a_result(events: &mut Vec<Event>, _: &mut fastrand::Rng) -> Option<&'static [Kind]> {
    // Of the last stream, which ends OK.
    let result = |event: &Event| matches!(event, Event::Result { .. });
    let opened = |event: &Event| matches!(event, Event::Opened(_));
    let at = events.iter().rposition(result)?;
    (events.iter().rposition(opened)? < at).then(|| events.remove(at))?;
    Some(&[Kind::Complete])
}

fn accept_the_rejected(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let rejected = |event: &Event| matches!(event, Event::Result { outcome: Outcome::Failed(why), .. } if &**why != TIMEOUT);
    let at = any(events, random, rejected)?;
    let Event::Result { outcome, .. } = &mut events[at] else {
        unreachable!("only results are rejected");
    };
    *outcome = Outcome::Ok;
    Some(&[Kind::Loss])
}

/// Right after the first record of the refused key in its stream, so that no other explains it.
fn apply_the_rejected(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let rejected = |event: &Event| matches!(event, Event::Result { outcome: Outcome::Failed(why), .. } if &**why != TIMEOUT);
    let result = any(events, random, rejected)?;
    let opened = |event: &Event| matches!(event, Event::Opened(_));
    let from = events[..result].iter().rposition(opened)?;
    let bad = |event: &Event| matches!(event, Event::Sent { key, .. } if &**key == BAD_KEY);
    let first = from + events[from..].iter().position(bad)?;
    let of_first = |event: &Event| match (event, &events[first]) {
        (
            Event::Result { by, sequence, .. },
            Event::Sent {
                by: of,
                sequence: first,
                ..
            },
        ) => (by, sequence) == (of, first),
        _ => false,
    };
    events
        .iter()
        .position(|event| rejected(event) && of_first(event))?;
    let Event::Sent { operation, .. } = events[first] else {
        unreachable!("only what was sent was asked for");
    };
    let keys = vec![BAD_KEY.into()];
    events.insert(first + 1, Event::Applied { operation, keys });
    Some(&[Kind::Rejected])
}

fn commit_too_much(events: &mut Vec<Event>, random: &mut fastrand::Rng) -> Option<&'static [Kind]> {
    let at = any(events, random, |event| matches!(event, Event::Sent { .. }))?;
    let Event::Sent { by, sequence, .. } = events[at].clone() else {
        unreachable!("only what was sent was asked for");
    };
    events.insert(at + 1, Event::Committed { by, sequence });
    Some(&[Kind::Prefix])
}

fn take_a_commit_back(
    events: &mut Vec<Event>,
    random: &mut fastrand::Rng,
) -> Option<&'static [Kind]> {
    let at = any(events, random, |event| {
        matches!(event, Event::Committed { .. })
    })?;
    let mut lower = events[at].clone();
    let Event::Committed { sequence, .. } = &mut lower else {
        unreachable!("only commits were asked for");
    };
    *sequence -= 1;
    events.insert(at + 1, lower);
    Some(&[Kind::Prefix])
}

fn forget_a_record(events: &mut Vec<Event>, random: &mut fastrand::Rng) -> Option<&'static [Kind]> {
    let ok = any(events, random, is_ok)?;
    let Event::Result { by, sequence, .. } = events[ok].clone() else {
        unreachable!("only results are OK");
    };
    let is_it = |event: &Event| matches!(event, Event::Sent { by: of, sequence: s, .. } if (of, *s) == (&by, sequence));
    let at = events.iter().position(is_it)?;
    events.remove(at);
    // The next one makes a gap; without a next one, the result is of nothing.
    Some(&[Kind::Malformed, Kind::OneResult])
}

fn flip_a_member(events: &mut Vec<Event>, random: &mut fastrand::Rng) -> Option<&'static [Kind]> {
    let key = (*random.choice(&KEYS)?).to_owned();
    let Some(Event::Final { members }) = events.last_mut() else {
        unreachable!("a run ends with its members");
    };
    if !members.remove(&key) {
        members.insert(key);
    }
    Some(&[Kind::Replay])
}

fn kinds(events: &[Event]) -> Vec<Kind> {
    match check(events) {
        Ok(_) => vec![],
        Err(violations) => violations.iter().map(|violation| violation.kind).collect(),
    }
}

fn story(events: &[Event]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

proptest! {
    // A failing case is printed in full, and names its seed.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_keeps_every_rule_passes(seed: u64, records in 1..60usize) {
        let events = Engine::run(seed, records);
        let judged = check(&events);
        prop_assert!(judged.is_ok(), "{judged:?}\n{}", story(&events));
        prop_assert_eq!(judged.unwrap().records, records);
    }

    #[test]
    fn whatever_is_tampered_with_is_refused(seed: u64, records in 1..60usize) {
        let good = Engine::run(seed, records);
        for (what, spoil) in SPOILS {
            let mut events = good.clone();
            if let Some(expected) = spoil(&mut events, &mut fastrand::Rng::with_seed(seed)) {
                let found = kinds(&events);
                let seen = expected.iter().any(|kind| found.contains(kind));
                prop_assert!(seen, "{what}: {found:?}, not {expected:?}\n{}", story(&events));
            }
        }
    }
}

#[test]
fn there_is_a_place_for_every_way_to_spoil() {
    for (what, spoil) in SPOILS {
        let found = (0..50).any(|seed| {
            let mut events = Engine::run(seed, 40);
            spoil(&mut events, &mut fastrand::Rng::with_seed(seed)).is_some()
        });
        assert!(found, "{what}");
    }
}
