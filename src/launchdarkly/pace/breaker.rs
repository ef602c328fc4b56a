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
//! | open | a call went well → closed; until then a probe may start every now and then, less often when one has failed |

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    backoff::Backoff,
    domain::{Hold, TransientError},
};

/// Failures in a row that open it. Where every second call fails by chance, a run of eight
/// comes once in 500 calls, so that half a vendor is still used; a dead one has been called
/// eight times when it is left alone.
const FAILURES_TO_OPEN: u32 = 8;
/// Between probes: the first after about a second; later ones still so close together that a
/// recovery is noticed within seconds.
const PROBES: Backoff = Backoff {
    first: Duration::from_millis(1500),
    longest: Duration::from_secs(4),
};
/// Most probes under way at once. Beside a probe that hangs, others can be made. With three, one is
/// made every few seconds even if each takes the ten seconds of an attempt; more would teach no more.
const PROBES_AT_ONCE: usize = 3;
/// How long a call is told to wait while all probes are under way: about what an answer takes.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The breaker over calls of several `K`.
#[derive(Debug)]
pub(super) struct CircuitBreaker<K> {
    state: BreakerState<K>,
    /// When the state last changed between open and closed: calls from before tell of before.
    changed: Option<Instant>,
    /// Counts probes, so that one that is given up late does not end another.
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
    /// Whose they are: one, or two of those.
    of: [Option<K>; 2],
}

#[derive(Debug)]
struct OpenBreaker {
    error: TransientError,
    next_probe: Instant,
    /// Probes that failed.
    failed: u32,
    /// At most [`PROBES_AT_ONCE`], by their begin.
    probing: Vec<Probe>,
}

/// A call that was let through to see whether the vendor is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    number: u64,
    started: Instant,
}

/// Whether a call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BreakerDecision {
    /// It may.
    Free,
    /// It may, as a probe.
    AsProbe,
    /// The next probe is due then.
    NotBefore(Instant),
    /// Enough probes are under way.
    AfterProbe,
}

impl<K: Clone + PartialEq> FailureRun<K> {
    fn none() -> Self {
        Self {
            length: 0,
            of: [None, None],
        }
    }

    fn add(&mut self, of: &K) {
        self.length = self.length.saturating_add(1);
        match &self.of {
            [None, _] => self.of[0] = Some(of.clone()),
            [Some(one), None] if one != of => self.of[1] = Some(of.clone()),
            _ => {}
        }
    }

    fn is_of_several(&self) -> bool {
        self.of[1].is_some()
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
            BreakerState::Closed(_) => BreakerDecision::Free,
            BreakerState::Open(open) if open.probing.len() >= PROBES_AT_ONCE => {
                BreakerDecision::AfterProbe
            }
            BreakerState::Open(open) if now < open.next_probe => {
                BreakerDecision::NotBefore(open.next_probe)
            }
            BreakerState::Open(_) => BreakerDecision::AsProbe,
        }
    }

    /// A call starts that had been [let through](Self::decide); `unit` is drawn from `0.0..1.0`.
    pub(super) fn start(&mut self, now: Instant, unit: f64) -> Option<Probe> {
        let BreakerState::Open(open) = &mut self.state else {
            return None;
        };
        self.probes += 1;
        let probe = Probe {
            number: self.probes,
            started: now,
        };
        open.probing.push(probe);
        open.next_probe = now + PROBES.delay(open.failed.saturating_add(1), unit);
        Some(probe)
    }

    /// A call was answered by a vendor that works.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if matches!(self.state, BreakerState::Open(_)) {
            self.changed = Some(now);
        }
        self.state = BreakerState::Closed(FailureRun::none());
    }

    /// A call of `of` that began at `started` met a vendor that does not; `unit` is drawn from
    /// `0.0..1.0`.
    pub(super) fn failed(
        &mut self,
        of: &K,
        started: Instant,
        now: Instant,
        error: TransientError,
        unit: f64,
    ) {
        match &mut self.state {
            BreakerState::Closed(_) if self.changed.is_some_and(|changed| started < changed) => {}
            BreakerState::Closed(run) => {
                run.add(of);
                // Without any connection, no other call would succeed either.
                let concerns_all = run.is_of_several() || error == TransientError::Connection;
                if run.length >= FAILURES_TO_OPEN && concerns_all {
                    self.open(now, error, unit);
                }
            }
            BreakerState::Open(open) => open.failed(started, now, error, unit),
        }
    }

    fn open(&mut self, now: Instant, error: TransientError, unit: f64) {
        self.changed = Some(now);
        self.state = BreakerState::Open(OpenBreaker {
            error,
            next_probe: now + PROBES.delay(0, unit),
            failed: 0,
            probing: Vec::new(),
        });
    }

    /// A probe has ended. If it has taught nothing, another may take its place at once.
    pub(super) fn ended(&mut self, probe: Probe) {
        if let BreakerState::Open(open) = &mut self.state
            && open.take(|known| *known == probe).is_some()
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
            BreakerDecision::AfterProbe => now + PROBE_TIME,
            _ => open.next_probe,
        };
        let error = open.error;
        (now < until).then_some(Hold { until, error })
    }
}

impl OpenBreaker {
    fn failed(&mut self, started: Instant, now: Instant, error: TransientError, unit: f64) {
        // Others are stragglers from before it opened.
        if self.take(|probe| probe.started <= started).is_some() {
            self.failed = self.failed.saturating_add(1);
            self.next_probe = now + PROBES.delay(self.failed, unit);
            self.error = error;
        }
    }

    fn take(&mut self, is_it: impl Fn(&Probe) -> bool) -> Option<Probe> {
        // The latest that fits: a call began after its own probe was let through.
        let place = self.probing.iter().rposition(is_it)?;
        Some(self.probing.remove(place))
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

    /// Calls of two fail in turns, so many in all.
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
        assert_eq!(breaker.decide(now), BreakerDecision::AsProbe);
        breaker.start(now, 0.0).unwrap()
    }

    #[test]
    fn only_an_unbroken_run_of_failures_opens_it() {
        let (mut breaker, now) = (breaker(), Instant::now());
        for _ in 0..5 {
            fail(&mut breaker, now, FAILURES_TO_OPEN - 1);
            assert_eq!(breaker.decide(now), BreakerDecision::Free);
            breaker.succeeded(now);
        }
        fail(&mut breaker, now, FAILURES_TO_OPEN);
        let hold = breaker.hold(now).unwrap();
        assert_eq!(hold.error, DOWN);
        assert_eq!(hold.until, next_probe(&breaker, now));
    }

    #[test]
    fn one_that_fails_alone_opens_nothing_until_a_second_joins() {
        let (mut breaker, now) = (breaker(), Instant::now());
        (0..10 * FAILURES_TO_OPEN).for_each(|_| breaker.failed(&1, now, now, DOWN, 0.0));
        assert_eq!(breaker.decide(now), BreakerDecision::Free);
        breaker.failed(&2, now, now, DOWN, 0.0);
        assert!(breaker.hold(now).is_some());
    }

    #[test]
    fn connections_that_cannot_be_made_open_it_whoever_wanted_them() {
        let (mut breaker, now) = (breaker(), Instant::now());
        (0..FAILURES_TO_OPEN)
            .for_each(|_| breaker.failed(&1, now, now, TransientError::Connection, 0.0));
        assert!(breaker.hold(now).is_some());
    }

    #[test]
    fn a_probe_that_went_well_closes_it() {
        let (mut breaker, now) = opened();
        let due = next_probe(&breaker, now);
        probe(&mut breaker, due);
        assert!(breaker.hold(due).is_some());
        breaker.succeeded(due + MOMENT);
        assert_eq!(breaker.decide(due + MOMENT), BreakerDecision::Free);
        assert_eq!(breaker.hold(due + MOMENT), None);
    }

    #[test]
    fn a_probe_that_hangs_keeps_the_next_from_nothing_but_three_are_enough() {
        let (mut breaker, now) = opened();
        let mut at = next_probe(&breaker, now);
        let first = probe(&mut breaker, at);
        for _ in 1..PROBES_AT_ONCE {
            at = next_probe(&breaker, at);
            probe(&mut breaker, at);
        }
        let much_later = at + 2 * PROBES.longest;
        assert_eq!(breaker.decide(much_later), BreakerDecision::AfterProbe);
        assert!(breaker.hold(much_later).is_some());
        // Its time is out.
        breaker.failed(&1, first.started, much_later, DOWN, 0.0);
        breaker.ended(first);
        let next = next_probe(&breaker, much_later);
        assert!(next > much_later);
        probe(&mut breaker, next);
    }

    #[test]
    fn probes_that_fail_come_ever_less_often_down_to_one_in_four_seconds() {
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
    fn a_probe_that_is_given_up_gives_its_place_back_but_never_anothers() {
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
        assert_eq!(breaker.decide(due + MOMENT), BreakerDecision::Free);
    }
}
