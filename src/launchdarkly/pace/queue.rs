//! Wait queues of one account: which of the waiting calls starts next.
//!
//! Environments take turns, so that an environment with many segments gets no more turns than one
//! with a single segment. Each environment has two FIFO queues: first attempts and retries. They
//! take turns too, so a retry waits for at most one first attempt. A retry that the budget does not
//! fund is skipped, and never blocks first attempts. Queries start before all deliveries: they are
//! few, and a caller waits for each.

use std::collections::VecDeque;

use super::Origin;
use crate::domain::{Attempt, ClientSideId, SegmentId};

/// Identifies a waiting call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::launchdarkly) struct Ticket(u64);

/// What a call is wanted for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::launchdarkly) enum CallRequest {
    /// To change a segment.
    Delivery(Origin, Attempt),
    /// To ask something.
    Query,
}

/// Whether a waiting call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eligibility {
    /// It may.
    Go,
    /// An obstacle of its segment: the next call in the same queue may still start.
    NotThisSegment,
    /// An obstacle of every call in the same queue.
    NotThisQueue,
}

/// All waiting calls of an account.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    tickets: u64,
    queries: VecDeque<Ticket>,
    /// Environments with a waiting call. The first one has the next turn.
    turns: VecDeque<EnvironmentQueue>,
}

#[derive(Debug)]
struct EnvironmentQueue {
    environment: ClientSideId,
    first: VecDeque<QueuedCall>,
    retries: VecDeque<QueuedCall>,
    /// The kind that started last: the other kind is tried first.
    last: Attempt,
}

#[derive(Debug)]
struct QueuedCall {
    ticket: Ticket,
    segment: SegmentId,
}

impl EnvironmentQueue {
    fn of(environment: ClientSideId) -> Self {
        Self {
            environment,
            first: VecDeque::new(),
            retries: VecDeque::new(),
            last: Attempt::Retry,
        }
    }

    fn attempts(&mut self, attempt: Attempt) -> &mut VecDeque<QueuedCall> {
        match attempt {
            Attempt::First => &mut self.first,
            Attempt::Retry => &mut self.retries,
        }
    }

    fn order(&self) -> [Attempt; 2] {
        match self.last {
            Attempt::First => [Attempt::Retry, Attempt::First],
            Attempt::Retry => [Attempt::First, Attempt::Retry],
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.retries.is_empty()
    }

    /// Takes out the first call that may start.
    fn choose(
        &mut self,
        may: &mut impl FnMut(&ClientSideId, &SegmentId, Attempt) -> Eligibility,
    ) -> Option<(QueuedCall, Attempt)> {
        for attempt in self.order() {
            let environment = self.environment.clone();
            let waiting = self.attempts(attempt);
            for position in 0..waiting.len() {
                match may(&environment, &waiting[position].segment, attempt) {
                    Eligibility::NotThisSegment => {}
                    Eligibility::NotThisQueue => break,
                    Eligibility::Go => {
                        let waiter = waiting.remove(position)?;
                        self.last = attempt;
                        return Some((waiter, attempt));
                    }
                }
            }
        }
        None
    }
}

impl WaitQueue {
    /// A call begins to wait, behind all others of its queue.
    pub(super) fn enter(&mut self, request: CallRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        match request {
            CallRequest::Query => self.queries.push_back(ticket),
            CallRequest::Delivery(origin, attempt) => {
                let segment = origin.segment;
                let waiter = QueuedCall { ticket, segment };
                self.queue(origin.environment)
                    .attempts(attempt)
                    .push_back(waiter);
            }
        }
        ticket
    }

    fn queue(&mut self, environment: ClientSideId) -> &mut EnvironmentQueue {
        let known = self
            .turns
            .iter()
            .position(|queue| queue.environment == environment);
        let position = known.unwrap_or_else(|| {
            self.turns.push_back(EnvironmentQueue::of(environment));
            self.turns.len() - 1
        });
        &mut self.turns[position]
    }

    /// A call waits no longer.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.queries.retain(|waiting| *waiting != ticket);
        for queue in &mut self.turns {
            queue.first.retain(|waiter| waiter.ticket != ticket);
            queue.retries.retain(|waiter| waiter.ticket != ticket);
        }
        self.turns.retain(|queue| !queue.is_empty());
    }

    /// Whether no call waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.turns.is_empty()
    }

    /// Takes the first query out.
    pub(super) fn next_query(&mut self) -> Option<Ticket> {
        self.queries.pop_front()
    }

    /// Takes out the first call for which `may` says that it may start. Its environment has the
    /// last turn then.
    pub(super) fn choose(
        &mut self,
        mut may: impl FnMut(&ClientSideId, &SegmentId, Attempt) -> Eligibility,
    ) -> Option<(Ticket, Origin, Attempt)> {
        for turn in 0..self.turns.len() {
            let Some((waiter, attempt)) = self.turns[turn].choose(&mut may) else {
                continue;
            };
            let queue = self.turns.remove(turn)?;
            let origin = Origin {
                environment: queue.environment.clone(),
                segment: waiter.segment,
            };
            if !queue.is_empty() {
                self.turns.push_back(queue);
            }
            return Some((waiter.ticket, origin, attempt));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(line: &mut WaitQueue, environment: &str, segment: &str, attempt: Attempt) {
        line.enter(CallRequest::Delivery(
            Origin::of(environment, segment),
            attempt,
        ));
    }

    fn enter_all(line: &mut WaitQueue, environment: &str, segments: &[&str]) {
        for segment in segments {
            enter(line, environment, segment, Attempt::First);
        }
    }

    /// The calls that start, in order, if every call may.
    fn order(line: &mut WaitQueue) -> Vec<String> {
        order_if(line, |_| Eligibility::Go)
    }

    /// The calls that start, in order, if these attempts may.
    fn order_if(line: &mut WaitQueue, may: impl Fn(Attempt) -> Eligibility) -> Vec<String> {
        let next = || {
            let (_, origin, _) = line.choose(|_, _, attempt| may(attempt))?;
            Some(format!("{}/{}", origin.environment, origin.segment))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn environments_take_turns_however_many_segments_they_have() {
        let mut line = WaitQueue::default();
        enter_all(&mut line, "a", &["1", "2", "3", "4"]);
        enter_all(&mut line, "b", &["1", "2"]);
        assert_eq!(order(&mut line), ["a/1", "b/1", "a/2", "b/2", "a/3", "a/4"]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_repeat_waits_behind_one_first_attempt() {
        let mut line = WaitQueue::default();
        enter_all(&mut line, "a", &["1", "2", "3"]);
        enter(&mut line, "a", "again", Attempt::Retry);
        assert_eq!(order(&mut line), ["a/1", "a/again", "a/2", "a/3"]);
    }

    #[test]
    fn first_attempts_pass_repeats_that_may_not_go() {
        let mut line = WaitQueue::default();
        enter_all(&mut line, "a", &["1", "2", "3"]);
        enter(&mut line, "a", "again", Attempt::Retry);
        let first_alone = |attempt| match attempt {
            Attempt::First => Eligibility::Go,
            Attempt::Retry => Eligibility::NotThisQueue,
        };
        assert_eq!(order_if(&mut line, first_alone), ["a/1", "a/2", "a/3"]);
        assert_eq!(order(&mut line), ["a/again"]);
    }

    #[test]
    fn who_may_not_go_is_passed_by_those_whom_it_does_not_concern() {
        let mut line = WaitQueue::default();
        enter(&mut line, "a", "full", Attempt::First);
        enter(&mut line, "a", "free", Attempt::First);
        enter(&mut line, "b", "1", Attempt::First);
        let chosen = line.choose(|_, segment, _| match segment.as_str() {
            "full" => Eligibility::NotThisSegment,
            _ => Eligibility::Go,
        });
        assert_eq!(chosen.unwrap().1, Origin::of("a", "free"));
        let chosen = line.choose(|environment, _, _| match environment.as_str() {
            "a" => Eligibility::NotThisQueue,
            _ => Eligibility::Go,
        });
        assert_eq!(chosen.unwrap().1, Origin::of("b", "1"));
        assert_eq!(order(&mut line), ["a/full"]);
    }

    #[test]
    fn who_has_left_the_line_is_not_chosen() {
        let mut line = WaitQueue::default();
        let gone = line.enter(CallRequest::Delivery(Origin::of("a", "1"), Attempt::First));
        let query = line.enter(CallRequest::Query);
        line.withdraw(gone);
        assert!(!line.is_empty());
        assert_eq!(line.next_query(), Some(query));
        assert!(line.is_empty());
    }
}
