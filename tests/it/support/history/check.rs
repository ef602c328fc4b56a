//! Whether a history keeps every promise of delivery.
//!
//! | rule | what it demands |
//! |---|---|
//! | [`Kind::Phantom`] | every applied key and operation was sent before |
//! | [`Kind::Rejected`] | a record that was rejected is not applied |
//! | [`Kind::Fence`] | after `Opened` of a newer stream, nothing of an older one is applied |
//! | [`Kind::Order`] | what is applied of a key by one stream can be given to records whose sequences never fall |
//! | [`Kind::Loss`] | when a record's OK is heard, it was applied by its own stream, or a later one of its key was |
//! | [`Kind::OneResult`] | a record has at most one result in each stream, and none that was not sent |
//! | [`Kind::Prefix`] | `committed` covers only records that have results, and never falls |
//! | [`Kind::Complete`] | a stream ends OK only if every record it sent has a result |
//! | [`Kind::Converged`] | at the end a key is where its last OK, or a later record that may have been applied, puts it |
//! | [`Kind::Replay`] | the applied calls, one after the other, give the members at the end |
//! | [`Kind::Malformed`] | the recorder's own side: see below |
//!
//! # What one bit shows
//!
//! An application says *add* or *remove* of a key, and not which record it was. So the checker
//! keeps, for each key and stream, every record that the last application can have been, and
//! takes away what each further application and each OK rules out ([`super::key`]). It passes a
//! history if, and only if, some in-order delivery explains it. Two additions of a key cannot be
//! told apart: an old one that lands late passes while a newer one is on its way, and must pass,
//! since nobody could see a difference in the segment. Tests that want to see most let the
//! operations of a key alternate. With every second record the opposite, any application that
//! comes after the OK of a later record shows unless it repeats that record's operation.
//!
//! # Where it is strict, and where it cannot be
//!
//! - `Opened` is noted when the client has read it, later than the server has sent it. What the
//!   older stream applies in between is not seen as a broken fence; whatever is seen is one.
//! - A result of an older stream that is read after a newer one has opened is judged by what its
//!   own stream had applied.
//! - A record that ran into its time-out may have been applied, then or never: its operation
//!   stays possible. One that was rejected (any other reason) must not have been, so refused keys
//!   must be refused for the whole of a run.
//! - A stream whose records all have results may still end in a failure: the connection can
//!   break after the last one. So *complete* is held in one direction.
//! - A stream that resumes re-sends records that have results already; each stream's results
//!   stand for themselves. At the end, the newest stream of a key speaks first: what an older one
//!   was told matters as far as the newer one has no OK.
//!
//! Malformed is a history that no run of a good executor gives: a key in two logs, a sequence
//! with two meanings, a gap, a stream that starts beyond what is committed, records of a stream
//! that is not open, anything after the end.
//!
//! Each event costs a look-up and moves pointers forward that never go back, so the whole is
//! linear in the history.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    Ending, Event, Incarnation, Operation, Outcome,
    key::{Progress, Unexplained},
    stream::Stream,
    violation::{Kind, Violation},
};

/// The reason of the one failure that leaves open whether the record was applied.
const MAY_BE_APPLIED: &str = "DELIVERY_TIMEOUT";

/// What a good history holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Records of all logs.
    pub(crate) records: usize,
    /// How often a record was sent.
    pub(crate) sent: usize,
    /// Records that have a result from some stream.
    pub(crate) settled: usize,
    /// Results that are not OK, by reason, over all streams.
    pub(crate) failed: BTreeMap<String, usize>,
    pub(crate) keys: usize,
    /// Streams that were opened.
    pub(crate) streams: usize,
    /// Calls that were applied.
    pub(crate) calls: usize,
    /// Members of those calls.
    pub(crate) applied: usize,
}

/// Judges a history.
///
/// # Errors
/// Every violation, in the order of the events that show them.
pub(crate) fn check(events: &[Event]) -> Result<Summary, Vec<Violation>> {
    let mut checker = Checker {
        rejected: rejections(events),
        ..Checker::default()
    };
    for (at, event) in events.iter().enumerate() {
        checker.at = at;
        checker.take(event);
    }
    if checker.violations.is_empty() {
        Ok(checker.summary())
    } else {
        Err(checker.violations)
    }
}

/// Records that were rejected, known beforehand: their applications come before their results.
fn rejections(events: &[Event]) -> HashSet<(&str, u32, i64)> {
    let rejected = |event| match event {
        &Event::Result {
            ref by,
            sequence,
            outcome: Outcome::Failed(ref reason),
        } if &**reason != MAY_BE_APPLIED => Some((&*by.log, by.number, sequence)),
        _ => None,
    };
    events.iter().filter_map(rejected).collect()
}

#[derive(Default)]
struct Checker<'a> {
    rejected: HashSet<(&'a str, u32, i64)>,
    logs: BTreeMap<&'a str, Log<'a>>,
    keys: HashMap<&'a str, Key<'a>>,
    members: BTreeSet<&'a str>,
    calls: usize,
    applied: usize,
    ended: bool,
    violations: Vec<Violation>,
    at: usize,
}

#[derive(Default)]
struct Log<'a> {
    /// What each sequence means, and whether some stream has its result.
    records: HashMap<i64, (&'a str, Operation, bool)>,
    /// In the order in which they opened.
    streams: Vec<Stream<'a>>,
    committed: Option<i64>,
}

struct Key<'a> {
    log: &'a str,
    /// By the streams that sent it, in the order in which they opened.
    streams: Vec<(u32, Sequences, Progress)>,
}

type Sequences = Vec<(i64, Operation)>;

impl<'a> Checker<'a> {
    fn take(&mut self, event: &'a Event) {
        if self.ended {
            self.note(Kind::Malformed, None, None, "something follows the end");
        }
        match event {
            Event::Opened(by) => self.open(by),
            Event::Sent {
                by,
                sequence,
                key,
                operation,
            } => self.send(by, *sequence, key, *operation),
            Event::Result {
                by,
                sequence,
                outcome,
            } => self.result(by, *sequence, outcome),
            Event::Committed { by, sequence } => self.commit(by, *sequence),
            Event::Ended { by, how } => self.end(by, how),
            Event::Applied { operation, keys } => {
                self.calls += 1;
                self.applied += keys.len();
                keys.iter().for_each(|key| self.apply(key, *operation));
            }
            Event::Final { members } => self.conclude(members),
        }
    }

    fn open(&mut self, by: &'a Incarnation) {
        let streams = &mut self.logs.entry(&by.log).or_default().streams;
        let newest = streams.last().map_or(0, |stream| stream.number);
        if by.number <= newest {
            let what = format!("{by} opens after #{newest}");
            return self.note(Kind::Malformed, Some(&by.log), None, what);
        }
        streams.push(Stream::new(by.number));
    }

    fn send(&mut self, by: &'a Incarnation, sequence: i64, key: &'a str, operation: Operation) {
        if let Err(what) = self.try_send(by, sequence, key, operation) {
            return self.note(Kind::Malformed, Some(&by.log), Some(key), what);
        }
        let rejected = self.rejected.contains(&(&*by.log, by.number, sequence));
        let streams = &mut self.keys.get_mut(key).expect("it was just put in").streams;
        // An older stream may still send while a newer one is open already.
        let place = streams.partition_point(|(number, ..)| *number < by.number);
        if streams
            .get(place)
            .is_none_or(|(number, ..)| *number != by.number)
        {
            let fresh = (by.number, Sequences::new(), Progress::default());
            streams.insert(place, fresh);
        }
        let (_, sequences, progress) = &mut streams[place];
        sequences.push((sequence, operation));
        progress.send(sequence, operation, rejected);
    }

    fn try_send(
        &mut self,
        by: &'a Incarnation,
        sequence: i64,
        key: &'a str,
        operation: Operation,
    ) -> Result<(), String> {
        let log = self.logs.entry(&by.log).or_default();
        let committed = log.committed;
        let stream = log
            .streams
            .iter_mut()
            .rev()
            .find(|stream| stream.number == by.number && !stream.ended)
            .ok_or_else(|| format!("{by} sends, and is not open"))?;
        let next = stream.next();
        if stream.records.is_empty() {
            if committed.is_some_and(|committed| sequence > committed + 1) {
                return Err(format!(
                    "{by} starts with {sequence}, beyond what is committed"
                ));
            }
            stream.first = sequence;
        } else if sequence != next {
            return Err(format!("{by} sends {sequence} in the place of {next}"));
        }
        stream.send(key);
        let meaning = log.records.entry(sequence);
        let (before, operation_before, _) = *meaning.or_insert((key, operation, false));
        if (before, operation_before) != (key, operation) {
            return Err(format!("{by} sends another record {sequence} than before"));
        }
        let owner = self.keys.entry(key).or_insert(Key {
            log: &by.log,
            streams: Vec::new(),
        });
        if owner.log != &*by.log {
            return Err(format!("{by} sends {key}, which belongs to {}", owner.log));
        }
        Ok(())
    }

    fn result(&mut self, by: &'a Incarnation, sequence: i64, outcome: &'a Outcome) {
        let Some(stream) = stream_of(&mut self.logs, by) else {
            let what = format!("{by} was not opened, and has a result");
            return self.note(Kind::OneResult, Some(&by.log), None, what);
        };
        let ended = stream.ended;
        let Some(record) = stream.record(sequence) else {
            let what = format!("{by} has a result of {sequence}, which it did not send");
            return self.note(Kind::OneResult, Some(&by.log), None, what);
        };
        let key = record.key;
        if ended {
            let what = format!("{by} has a result of {sequence} after its end");
            return self.note(Kind::Malformed, Some(&by.log), Some(key), what);
        }
        if record.outcome.replace(outcome).is_some() {
            let what = format!("{by} has two results of {sequence}");
            return self.note(Kind::OneResult, Some(&by.log), Some(key), what);
        }
        stream.results += 1;
        let log = self.logs.get_mut(&*by.log).expect("it has a stream");
        if let Some((_, _, settled)) = log.records.get_mut(&sequence) {
            *settled = true;
        }
        let confirmed = *outcome != Outcome::Ok
            || self
                .progress(key, by.number)
                .is_none_or(|progress| progress.confirm(sequence));
        if !confirmed {
            let what = format!(
                "{by} has an OK for {sequence}, but neither it nor a later {key} was applied"
            );
            self.note(Kind::Loss, Some(&by.log), Some(key), what);
        }
    }

    fn commit(&mut self, by: &'a Incarnation, sequence: i64) {
        let Some(stream) = stream_of(&mut self.logs, by) else {
            let what = format!("{by} was not opened, and commits");
            return self.note(Kind::Prefix, Some(&by.log), None, what);
        };
        let (floor, ceiling) = stream.committable();
        stream.committed = Some(sequence.max(floor));
        let log = self.logs.get_mut(&*by.log).expect("it has a stream");
        log.committed = log.committed.max(Some(sequence));
        if sequence < floor {
            let what = format!("{by} commits {sequence} after {floor}");
            self.note(Kind::Prefix, Some(&by.log), None, what);
        } else if sequence > ceiling {
            let what = format!("{by} commits {sequence}, but has all results only up to {ceiling}");
            self.note(Kind::Prefix, Some(&by.log), None, what);
        }
    }

    fn end(&mut self, by: &'a Incarnation, how: &Ending) {
        // One that was never opened may end: it was refused, or its connection broke.
        let Some(stream) = stream_of(&mut self.logs, by) else {
            return;
        };
        let twice = std::mem::replace(&mut stream.ended, true);
        let (sent, results) = (stream.records.len(), stream.results);
        if twice {
            let what = format!("{by} ends twice");
            self.note(Kind::Malformed, Some(&by.log), None, what);
        }
        if *how == Ending::Ok && results < sent {
            let what = format!("{by} ends OK with {results} results of {sent} records");
            self.note(Kind::Complete, Some(&by.log), None, what);
        }
    }

    fn apply(&mut self, key: &'a str, operation: Operation) {
        match operation {
            Operation::Add => self.members.insert(key),
            Operation::Remove => self.members.remove(key),
        };
        let Some(owner) = self.keys.get(key) else {
            let what = format!("{operation} of {key} is applied, which nobody sent");
            return self.note(Kind::Phantom, None, Some(key), what);
        };
        let log = owner.log;
        let sent = |(_, sequences, _): &(u32, Sequences, Progress)| {
            sequences.iter().any(|(_, sent)| *sent == operation)
        };
        let newest = self.logs[log].streams.last().map_or(0, |s| s.number);
        let why = match self.progress(key, newest) {
            Some(progress) => progress.apply(operation).err(),
            None => Some(Unexplained::NotSent),
        };
        let (kind, what) = match why {
            None => return,
            Some(Unexplained::NotSent) if self.keys[key].streams.iter().any(sent) => {
                (Kind::Fence, "only an older stream has sent")
            }
            Some(Unexplained::NotSent) => (Kind::Phantom, "nobody has sent"),
            Some(Unexplained::Rejected) => (Kind::Rejected, "was rejected"),
            Some(Unexplained::OutOfOrder) => (Kind::Order, "comes only before what was applied"),
        };
        let what = format!("{operation} of {key} is applied, which {what}");
        self.note(kind, Some(log), Some(key), what);
    }

    fn conclude(&mut self, members: &'a BTreeSet<String>) {
        self.ended = true;
        let members: BTreeSet<&str> = members.iter().map(String::as_str).collect();
        let differ: Vec<_> = members
            .symmetric_difference(&self.members)
            .copied()
            .collect();
        for key in differ {
            let what = format!("{key} is not at the end where the applied calls put it");
            self.note(Kind::Replay, None, Some(key), what);
        }
        let mut keys: Vec<_> = self.keys.keys().copied().collect();
        keys.extend(members.iter().filter(|key| !self.keys.contains_key(*key)));
        keys.sort_unstable();
        for key in keys {
            if !self.may_be(key, members.contains(key)) {
                let place = if members.contains(key) { "in" } else { "out" };
                let what = format!("{key} is {place} at the end, against its last results");
                let log = self.keys.get(key).map(|key| key.log);
                self.note(Kind::Converged, log, Some(key), what);
            }
        }
    }

    /// Whether results allow a key to be a member at the end, or not to be one. It looks at what
    /// was sent and heard alone, and not at what was applied.
    fn may_be(&self, key: &str, member: bool) -> bool {
        let Some(key) = self.keys.get(key) else {
            return !member;
        };
        let streams = &self.logs[key.log].streams;
        for (number, sequences, _) in key.streams.iter().rev() {
            let by_number = |stream: &&Stream<'_>| stream.number == *number;
            let stream = streams.iter().find(by_number).expect("it has sent the key");
            for (sequence, operation) in sequences.iter().rev() {
                let does = (*operation == Operation::Add) == member;
                match stream.outcome(*sequence) {
                    Some(Outcome::Ok) => return does,
                    Some(Outcome::Failed(reason)) if &**reason != MAY_BE_APPLIED => {}
                    Some(Outcome::Failed(_)) | None if does => return true,
                    Some(Outcome::Failed(_)) | None => {}
                }
            }
        }
        // Nothing was ever OK, and all began outside.
        !member
    }

    fn progress(&mut self, key: &str, number: u32) -> Option<&mut Progress> {
        let streams = &mut self.keys.get_mut(key)?.streams;
        let by_number = |(stream, ..): &&mut (u32, Sequences, Progress)| *stream == number;
        let (.., progress) = streams.iter_mut().rev().find(by_number)?;
        Some(progress)
    }

    fn note(&mut self, kind: Kind, log: Option<&str>, key: Option<&str>, what: impl Into<String>) {
        self.violations.push(Violation {
            at: self.at,
            kind,
            log: log.map(str::to_owned),
            key: key.map(str::to_owned),
            what: what.into(),
        });
    }

    fn summary(&self) -> Summary {
        let logs = || self.logs.values();
        let streams = || logs().flat_map(|log| &log.streams);
        let records = || logs().flat_map(|log| log.records.values());
        let mut failed = BTreeMap::new();
        for record in streams().flat_map(|stream| &stream.records) {
            if let Some(Outcome::Failed(reason)) = record.outcome {
                *failed.entry(reason.to_string()).or_default() += 1;
            }
        }
        Summary {
            records: records().count(),
            sent: streams().map(|stream| stream.records.len()).sum(),
            settled: records().filter(|(_, _, settled)| *settled).count(),
            failed,
            keys: self.keys.len(),
            streams: streams().count(),
            calls: self.calls,
            applied: self.applied,
        }
    }
}

fn stream_of<'s, 'a>(
    logs: &'s mut BTreeMap<&'a str, Log<'a>>,
    by: &Incarnation,
) -> Option<&'s mut Stream<'a>> {
    let streams = &mut logs.get_mut(&*by.log)?.streams;
    streams.iter_mut().rev().find(|s| s.number == by.number)
}
