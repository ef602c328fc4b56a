//! Circuit breaker: after a run of failures, only probes are made.
//!
//! Each environment has one over its segments, and the account has one over its environments. A
//! segment or environment that fails alone says nothing of the others. So a breaker opens only if
//! the failures of the run come from several of them, or if no connection can be made. For one
//! segment that fails alone there is its lane's back-off.
//!
//! | state | left when |
//! |---|---|
//! | closed | calls of several failed [`FAILURES_TO_OPEN`] times in a row → open |
//! | open | a call succeeded → closed |
//!
//! While it is open, a probe may start every now and then, less often after each probe that failed.
//! That is what other breakers call half-open.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    domain::{Hold, TransientError},
};

/// Failures in a row that open it. Where every second call fails by chance, a run of eight
/// comes once in 500 calls, so that half a vendor is still used. A dead one is called eight times
/// before the breaker opens.
const FAILURES_TO_OPEN: u32 = 8;
/// Between probes: the first after about a second; later ones still so close together that a
/// recovery is noticed within seconds.
const PROBES: Backoff = Backoff {
    first: Duration::from_millis(1500),
    longest: Duration::from_secs(4),
};
/// Most probes under way at once. Beside a probe that hangs, others can be made. With three, one is
/// made every few seconds even if each takes the ten seconds of an attempt; more would teach no
/// more.
const PROBES_AT_ONCE: usize = 3;
/// How far ahead the reported hold ends while the most probes are under way. No call waits by it:
/// the next probe may start when one of them has ended. About what an answer takes.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The breaker over calls of several `K`.
#[derive(Debug)]
pub(super) struct CircuitBreaker<K> {
    state: BreakerState<K>,
    /// When the breaker last opened or closed. A call that began earlier says nothing about now.
    changed: Option<Instant>,
    /// Numbers the probes, so that the late end of one does not end another.
    probes: u64,
}

#[derive(Debug)]
enum BreakerState<K> {
    Closed(FailureRun<K>),
    Open(OpenBreaker),
}

/// Failures in a row.
#[derive(Debug)]
struct FailureRun<K> {
    length: u32,
    /// The first two distinct targets of the failures.
    targets: [Option<K>; 2],
}

#[derive(Debug)]
struct OpenBreaker {
    error: TransientError,
    next_probe: Instant,
    failed_probes: u32,
    /// Probes under way, in order of their start: at most [`PROBES_AT_ONCE`].
    probes: Vec<Probe>,
}

/// A call that the open breaker let through, to see whether the vendor works again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    number: u64,
    started: Instant,
}

/// Whether a call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerDecision {
    /// It may: the breaker is closed.
    Allow,
    /// It may, as a probe: the breaker is open, and a probe is due.
    AllowAsProbe,
    /// It may not: the next probe is due then.
    NotBefore(Instant),
    /// It may not: the most probes are under way.
    TooManyProbes,
}

impl<K: Clone + PartialEq> FailureRun<K> {
    fn none() -> Self {
        Self {
            length: 0,
            targets: [None, None],
        }
    }

    fn add(&mut self, target: &K) {
        self.length = self.length.saturating_add(1);
        match &self.targets {
            [None, _] => self.targets[0] = Some(target.clone()),
            [Some(first), None] if first != target => self.targets[1] = Some(target.clone()),
            _ => {}
        }
    }

    fn has_several_targets(&self) -> bool {
        self.targets[1].is_some()
    }
}

impl<K: Clone + PartialEq> CircuitBreaker<K> {
    pub(super) fn new() -> Self {
        Self {
            state: BreakerState::Closed(FailureRun::none()),
            changed: None,
            probes: 0,
        }
    }

    /// Whether a call may start at `now`.
    pub(super) fn decide(&self, now: Instant) -> BreakerDecision {
        match &self.state {
            BreakerState::Closed(_) => BreakerDecision::Allow,
            BreakerState::Open(open) if open.probes.len() >= PROBES_AT_ONCE => {
                BreakerDecision::TooManyProbes
            }
            BreakerState::Open(open) if now < open.next_probe => {
                BreakerDecision::NotBefore(open.next_probe)
            }
            BreakerState::Open(_) => BreakerDecision::AllowAsProbe,
        }
    }

    /// Open → open, with one more probe under way: a call starts that was [let
    /// through](Self::decide), and the next probe is due later. Closed → closed: the call is no
    /// probe. `random` is drawn from `0.0..1.0`.
    pub(super) fn start(&mut self, now: Instant, random: f64) -> Option<Probe> {
        let BreakerState::Open(open) = &mut self.state else {
            return None;
        };
        self.probes += 1;
        let probe = Probe {
            number: self.probes,
            started: now,
        };
        open.probes.push(probe);
        open.next_probe = now + PROBES.delay(open.failed_probes.saturating_add(1), random);
        Some(probe)
    }

    /// Open → closed: a call succeeded, so the vendor works again. Closed → closed: the run of
    /// failures ends.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if matches!(self.state, BreakerState::Open(_)) {
            self.changed = Some(now);
        }
        self.state = BreakerState::Closed(FailureRun::none());
    }

    /// Closed → open: a call failed, and the run of failures is long enough and concerns all.
    /// Closed → closed: the run is one failure longer. Open → open: see [`OpenBreaker::failed`].
    ///
    /// The call of `target` began at `started`; `random` is drawn from `0.0..1.0`.
    pub(super) fn failed(
        &mut self,
        target: &K,
        started: Instant,
        now: Instant,
        error: TransientError,
        random: f64,
    ) {
        match &mut self.state {
            // The call began before the breaker closed, and failed for the cause of then.
            BreakerState::Closed(_) if self.changed.is_some_and(|changed| started < changed) => {}
            BreakerState::Closed(run) => {
                run.add(target);
                // Without any connection, no other call would succeed either.
                let concerns_all = run.has_several_targets() || error == TransientError::Connection;
                if run.length >= FAILURES_TO_OPEN && concerns_all {
                    self.open(now, error, random);
                }
            }
            BreakerState::Open(open) => open.failed(started, now, error, random),
        }
    }

    /// Closed → open: too many failures in a row. The first probe is due after a delay.
    fn open(&mut self, now: Instant, error: TransientError, random: f64) {
        self.changed = Some(now);
        self.state = BreakerState::Open(OpenBreaker {
            error,
            next_probe: now + PROBES.delay(0, random),
            failed_probes: 0,
            probes: Vec::new(),
        });
    }

    /// Open → open, with one probe less: it was given up without an answer, so the next is due at
    /// once. A probe with an answer is [no longer there](OpenBreaker::failed).
    pub(super) fn ended(&mut self, probe: Probe) {
        if let BreakerState::Open(open) = &mut self.state
            && open.remove_probe(|known| *known == probe).is_some()
        {
            open.next_probe = probe.started;
        }
    }

    /// What holds calls back at `now`.
    pub(super) fn hold(&self, now: Instant) -> Option<Hold> {
        let BreakerState::Open(open) = &self.state else {
            return None;
        };
        let until = match self.decide(now) {
            BreakerDecision::TooManyProbes => now + PROBE_TIME,
            _ => open.next_probe,
        };
        let error = open.error;
        (now < until).then_some(Hold { until, error })
    }
}

impl OpenBreaker {
    /// Open → open, with one probe less: it failed, so the next is due after a longer delay.
    fn failed(&mut self, started: Instant, now: Instant, error: TransientError, random: f64) {
        // Calls that are no probes began before the breaker opened, and change nothing.
        if self
            .remove_probe(|probe| probe.started <= started)
            .is_some()
        {
            self.failed_probes = self.failed_probes.saturating_add(1);
            self.next_probe = now + PROBES.delay(self.failed_probes, random);
            self.error = error;
        }
    }

    fn remove_probe(&mut self, matches: impl Fn(&Probe) -> bool) -> Option<Probe> {
        // The latest that matches: a call begins after its own probe was let through.
        let index = self.probes.iter().rposition(matches)?;
        Some(self.probes.remove(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(10);
    const DOWN: TransientError = TransientError::Status(503);

    fn breaker() -> CircuitBreaker<u8> {
        CircuitBreaker::new()
    }

    /// Calls of two targets fail alternately, so many in all.
    fn fail(breaker: &mut CircuitBreaker<u8>, now: Instant, times: u32) {
        (0..times).for_each(|n| breaker.failed(&u8::from(n % 2 == 0), now, now, DOWN, 0.0));
    }

    /// A breaker that has just opened, and the time.
    fn opened() -> (CircuitBreaker<u8>, Instant) {
        let (mut breaker, now) = (breaker(), Instant::now());
        fail(&mut breaker, now, FAILURES_TO_OPEN);
        (breaker, now)
    }

    fn next_probe(breaker: &CircuitBreaker<u8>, now: Instant) -> Instant {
        match breaker.decide(now) {
            BreakerDecision::NotBefore(at) => at,
            other => panic!("{other:?}"),
        }
    }

    fn probe(breaker: &mut CircuitBreaker<u8>, now: Instant) -> Probe {
        assert_eq!(breaker.decide(now), BreakerDecision::AllowAsProbe);
        breaker.start(now, 0.0).unwrap()
    }

    #[test]
    fn only_an_unbroken_run_of_failures_opens_it() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..5 {
            fail(&mut breaker, now, FAILURES_TO_OPEN - 1);
            assert_eq!(breaker.decide(now), BreakerDecision::Allow);
            breaker.succeeded(now);
        }
        fail(&mut breaker, now, FAILURES_TO_OPEN);
        let hold = breaker.hold(now).unwrap();
        assert_eq!(hold.error, DOWN);
        assert_eq!(hold.until, next_probe(&breaker, now));
    }

    #[test]
    fn one_failing_origin_does_not_open_it_until_a_second_fails() {
        let (mut breaker, now) = (breaker(), Instant::now());
        (0..10 * FAILURES_TO_OPEN).for_each(|_| breaker.failed(&1, now, now, DOWN, 0.0));
        assert_eq!(breaker.decide(now), BreakerDecision::Allow);
        breaker.failed(&2, now, now, DOWN, 0.0);
        assert!(breaker.hold(now).is_some());
    }

    #[test]
    fn connections_that_cannot_be_made_open_it_whatever_the_target() {
        let (mut breaker, now) = (breaker(), Instant::now());
        (0..FAILURES_TO_OPEN)
            .for_each(|_| breaker.failed(&1, now, now, TransientError::Connection, 0.0));
        assert!(breaker.hold(now).is_some());
    }

    #[test]
    fn a_successful_probe_closes_it() {
        let (mut breaker, now) = opened();
        let due = next_probe(&breaker, now);
        probe(&mut breaker, due);
        assert!(breaker.hold(due).is_some());
        breaker.succeeded(due + MOMENT);
        assert_eq!(breaker.decide(due + MOMENT), BreakerDecision::Allow);
        assert_eq!(breaker.hold(due + MOMENT), None);
    }

    #[test]
    fn a_hanging_probe_does_not_delay_the_next_but_three_are_the_most() {
        let (mut breaker, now) = opened();
        let mut at = next_probe(&breaker, now);
        let first = probe(&mut breaker, at);
        for _ in 1..PROBES_AT_ONCE {
            at = next_probe(&breaker, at);
            probe(&mut breaker, at);
        }
        let much_later = at + 2 * PROBES.longest;
        assert_eq!(breaker.decide(much_later), BreakerDecision::TooManyProbes);
        assert!(breaker.hold(much_later).is_some());
        // It times out.
        breaker.failed(&1, first.started, much_later, DOWN, 0.0);
        breaker.ended(first);
        let next = next_probe(&breaker, much_later);
        assert!(next > much_later);
        probe(&mut breaker, next);
    }

    #[test]
    fn failed_probes_get_less_frequent_down_to_one_in_four_seconds() {
        let (mut breaker, mut now) = opened();
        let mut waits = Vec::new();
        for _ in 0..5 {
            let due = next_probe(&breaker, now);
            waits.push((due - now).as_millis());
            let probe = probe(&mut breaker, due);
            now = due + MOMENT;
            breaker.failed(&1, due, now, DOWN, 0.0);
            breaker.ended(probe);
        }
        assert_eq!(waits, [750, 1500, 2000, 2000, 2000]);
    }

    #[test]
    fn a_probe_that_is_given_up_frees_its_own_slot_and_no_other() {
        let (mut breaker, now) = opened();
        let due = next_probe(&breaker, now);
        let given_up = probe(&mut breaker, due);
        breaker.ended(given_up);
        let other = probe(&mut breaker, due);
        breaker.ended(given_up);
        next_probe(&breaker, due);
        breaker.ended(other);
        probe(&mut breaker, due);
    }

    #[test]
    fn calls_from_before_it_opened_neither_delay_nor_reopen_it() {
        let (mut breaker, now) = opened();
        let due = next_probe(&breaker, now);
        breaker.failed(&1, now - MOMENT, now + MOMENT, DOWN, 1.0);
        assert_eq!(next_probe(&breaker, now + MOMENT), due);
        let probe = probe(&mut breaker, due);
        let later = next_probe(&breaker, due);
        breaker.failed(&1, now - MOMENT, due, DOWN, 1.0);
        assert_eq!(next_probe(&breaker, due), later);
        breaker.succeeded(due + MOMENT);
        breaker.ended(probe);
        (0..FAILURES_TO_OPEN).for_each(|n| {
            let of = u8::from(n % 2 == 0);
            breaker.failed(&of, now, due + MOMENT, DOWN, 0.0);
        });
        assert_eq!(breaker.decide(due + MOMENT), BreakerDecision::Allow);
    }
}
