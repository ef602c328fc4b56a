//! Whether an account's calls are worth making at all: after a run of failures only probes are.
//!
//! | state | left when |
//! |---|---|
//! | closed | calls failed [`RUN`] times in a row → open |
//! | open, waiting | the next probe is due → probing, once a call wants to start |
//! | open, probing | the probe went well → closed; it failed → waiting, for longer; it was given up → waiting, and due |

use std::time::Duration;

use tokio::time::Instant;

use super::Hold;
use crate::{backoff::Backoff, domain::Trouble};

/// Failures in a row that open it. Where every second call fails by chance, a run of eight
/// comes once in 500 calls, so that half a vendor is still used; a dead one has been called
/// eight times when it is left alone.
const RUN: u32 = 8;
/// Between probes: the first after about a second; later ones still so close together that a
/// recovery is noticed within seconds.
const PROBES: Backoff = Backoff {
    first: Duration::from_millis(1500),
    longest: Duration::from_secs(4),
};
/// What those who ask are told while a probe is under way: about what an answer takes.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The breaker of one account.
#[derive(Debug)]
pub(super) struct Breaker {
    state: State,
    /// When the state last changed between open and closed: calls from before tell of before.
    changed: Option<Instant>,
    /// Counts probes, so that one that is given up late does not end another.
    probes: u64,
}

#[derive(Debug)]
enum State {
    Closed { run: u32 },
    Open(Open),
}

#[derive(Debug)]
struct Open {
    trouble: Trouble,
    next_probe: Instant,
    /// Probes that failed.
    failed: u32,
    probing: Option<Probe>,
}

/// A call that was let through to see whether the vendor is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    number: u64,
    started: Instant,
}

/// Whether a call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// It may.
    Free,
    /// It may, and it decides what follows.
    AsProbe(Probe),
    /// The next probe is due then.
    NotBefore(Instant),
    /// A probe is under way.
    AfterProbe,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            state: State::Closed { run: 0 },
            changed: None,
            probes: 0,
        }
    }

    /// Lets a call pass at `now`, or not.
    pub(super) fn pass(&mut self, now: Instant) -> Passage {
        let State::Open(open) = &mut self.state else {
            return Passage::Free;
        };
        if open.probing.is_some() {
            return Passage::AfterProbe;
        }
        if now < open.next_probe {
            return Passage::NotBefore(open.next_probe);
        }
        self.probes += 1;
        let probe = Probe {
            number: self.probes,
            started: now,
        };
        open.probing = Some(probe);
        Passage::AsProbe(probe)
    }

    /// A call was answered by a vendor that works.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if matches!(self.state, State::Open(_)) {
            self.changed = Some(now);
        }
        self.state = State::Closed { run: 0 };
    }

    /// A call that began at `started` met a vendor that does not; `unit` is drawn from `0.0..1.0`.
    pub(super) fn failed(&mut self, started: Instant, now: Instant, trouble: Trouble, unit: f64) {
        match &mut self.state {
            State::Closed { .. } if self.changed.is_some_and(|changed| started < changed) => {}
            State::Closed { run } if *run + 1 < RUN => *run += 1,
            State::Closed { .. } => {
                self.changed = Some(now);
                self.state = State::Open(Open {
                    trouble,
                    next_probe: now + PROBES.delay(0, unit),
                    failed: 0,
                    probing: None,
                });
            }
            State::Open(open) => {
                // Others are stragglers from before it opened.
                if open
                    .probing
                    .take_if(|probe| probe.started <= started)
                    .is_some()
                {
                    open.failed = open.failed.saturating_add(1);
                    open.next_probe = now + PROBES.delay(open.failed, unit);
                    open.trouble = trouble;
                }
            }
        }
    }

    /// A probe has ended, perhaps without an answer: then another may take its place.
    pub(super) fn ended(&mut self, probe: Probe) {
        if let State::Open(open) = &mut self.state {
            open.probing.take_if(|current| *current == probe);
        }
    }

    /// What holds calls back at `now`.
    pub(super) fn hold(&self, now: Instant) -> Option<Hold> {
        let State::Open(open) = &self.state else {
            return None;
        };
        let until = match open.probing {
            Some(_) => now + PROBE_TIME,
            None => open.next_probe,
        };
        let trouble = open.trouble;
        (now < until).then_some(Hold { until, trouble })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);
    const DOWN: Trouble = Trouble::Status(503);

    /// A breaker that has just opened, and the time.
    fn opened() -> (Breaker, Instant) {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        (0..RUN).for_each(|_| breaker.failed(now, now, DOWN, 0.0));
        (breaker, now)
    }

    fn next_probe(breaker: &mut Breaker, now: Instant) -> Instant {
        match breaker.pass(now) {
            Passage::NotBefore(at) => at,
            other => panic!("{other:?}"),
        }
    }

    fn as_probe(breaker: &mut Breaker, now: Instant) -> Probe {
        match breaker.pass(now) {
            Passage::AsProbe(probe) => probe,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_an_unbroken_run_of_failures_opens_it() {
        let (mut breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..5 {
            (1..RUN).for_each(|_| breaker.failed(now, now, DOWN, 0.0));
            assert_eq!(breaker.pass(now), Passage::Free);
            breaker.succeeded(now);
        }
        (0..RUN).for_each(|_| breaker.failed(now, now, DOWN, 0.0));
        let hold = breaker.hold(now).unwrap();
        assert_eq!(hold.trouble, DOWN);
        assert_eq!(hold.until, next_probe(&mut breaker, now));
    }

    #[test]
    fn one_probe_passes_at_a_time_and_its_success_closes_it() {
        let (mut breaker, now) = opened();
        let due = next_probe(&mut breaker, now);
        as_probe(&mut breaker, due);
        assert_eq!(breaker.pass(due), Passage::AfterProbe);
        assert!(breaker.hold(due).is_some());
        breaker.succeeded(due + MOMENT);
        assert_eq!(breaker.pass(due + MOMENT), Passage::Free);
        assert_eq!(breaker.hold(due + MOMENT), None);
    }

    #[test]
    fn probes_that_fail_come_ever_less_often_down_to_one_in_four_seconds() {
        let (mut breaker, mut now) = opened();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let due = next_probe(&mut breaker, now);
            waits.push((due - now).as_millis());
            as_probe(&mut breaker, due);
            now = due + MOMENT;
            breaker.failed(due, now, DOWN, 0.0);
        }
        assert_eq!(waits, [750, 1500, 2000, 2000, 2000]);
    }

    #[test]
    fn a_probe_that_is_given_up_gives_its_place_back_but_never_anothers() {
        let (mut breaker, now) = opened();
        let due = next_probe(&mut breaker, now);
        let given_up = as_probe(&mut breaker, due);
        breaker.ended(given_up);
        let other = as_probe(&mut breaker, due);
        breaker.ended(given_up);
        assert_eq!(breaker.pass(due), Passage::AfterProbe);
        breaker.ended(other);
        as_probe(&mut breaker, due);
    }

    #[test]
    fn calls_from_before_it_opened_neither_delay_nor_reopen_it() {
        let (mut breaker, now) = opened();
        let due = next_probe(&mut breaker, now);
        breaker.failed(now - MOMENT, now + MOMENT, DOWN, 1.0);
        assert_eq!(next_probe(&mut breaker, now + MOMENT), due);
        let probe = as_probe(&mut breaker, due);
        breaker.failed(now - MOMENT, due, DOWN, 1.0);
        assert_eq!(breaker.pass(due), Passage::AfterProbe);
        breaker.succeeded(due + MOMENT);
        breaker.ended(probe);
        (0..RUN).for_each(|_| breaker.failed(now, due + MOMENT, DOWN, 0.0));
        assert_eq!(breaker.pass(due + MOMENT), Passage::Free);
    }
}
