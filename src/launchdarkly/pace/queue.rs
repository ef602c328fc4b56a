//! Who waits for a call, and who is looked at first.
//!
//! EnvironmentPaces take turns, so that one with many segments waits no shorter than one with a
//! single one. In an environment there are two lines, one of first attempts and one of repeated
//! ones, which take turns as well: a repeated attempt waits behind one first attempt and not
//! behind all, and where repeats cannot be afforded, first attempts pass. In a line, who came first
//! is looked at first. Queries go before all: they are few, and somebody waits for each.

use std::collections::VecDeque;

use super::Origin;
use crate::domain::{Attempt, ClientSideId, SegmentId};

/// Names somebody in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::launchdarkly) struct Ticket(u64);

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::launchdarkly) enum CallRequest {
    /// To change a segment.
    Delivery(Origin, Attempt),
    /// To ask something.
    Query,
}

/// What keeps somebody from leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eligibility {
    /// Nothing.
    Go,
    /// Something that others in the same line do not have: look at the next.
    NotThisSegment,
    /// Something that all in the same line have.
    NotThisQueue,
}

/// Everybody in line.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    tickets: u64,
    queries: VecDeque<Ticket>,
    /// EnvironmentPaces with somebody in line; whose turn it is comes first.
    turns: VecDeque<EnvironmentQueue>,
}

#[derive(Debug)]
struct EnvironmentQueue {
    environment: ClientSideId,
    first: VecDeque<QueuedCall>,
    again: VecDeque<QueuedCall>,
    /// What left last: the other is looked at first.
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
            again: VecDeque::new(),
            last: Attempt::Retry,
        }
    }

    fn attempts(&mut self, attempt: Attempt) -> &mut VecDeque<QueuedCall> {
        match attempt {
            Attempt::First => &mut self.first,
            Attempt::Retry => &mut self.again,
        }
    }

    fn order(&self) -> [Attempt; 2] {
        match self.last {
            Attempt::First => [Attempt::Retry, Attempt::First],
            Attempt::Retry => [Attempt::First, Attempt::Retry],
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.again.is_empty()
    }

    /// Takes the first that may go out of its line.
    fn choose(
        &mut self,
        may: &mut impl FnMut(&ClientSideId, &SegmentId, Attempt) -> Eligibility,
    ) -> Option<(QueuedCall, Attempt)> {
        for attempt in self.order() {
            let environment = self.environment.clone();
            let waiting = self.attempts(attempt);
            for place in 0..waiting.len() {
                match may(&environment, &waiting[place].segment, attempt) {
                    Eligibility::NotThisSegment => {}
                    Eligibility::NotThisQueue => break,
                    Eligibility::Go => {
                        let waiter = waiting.remove(place)?;
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
    /// Somebody takes the last place.
    pub(super) fn enter(&mut self, wish: CallRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        match wish {
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
        let place = known.unwrap_or_else(|| {
            self.turns.push_back(EnvironmentQueue::of(environment));
            self.turns.len() - 1
        });
        &mut self.turns[place]
    }

    /// Somebody waits no longer.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.queries.retain(|waiting| *waiting != ticket);
        for queue in &mut self.turns {
            queue.first.retain(|waiter| waiter.ticket != ticket);
            queue.again.retain(|waiter| waiter.ticket != ticket);
        }
        self.turns.retain(|queue| !queue.is_empty());
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.turns.is_empty()
    }

    /// Takes the first query out.
    pub(super) fn next_query(&mut self) -> Option<Ticket> {
        self.queries.pop_front()
    }

    /// Takes out the first that `may` go; its environment has the last turn then.
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

    /// Who leaves, in order, if everybody may.
    fn order(line: &mut WaitQueue) -> Vec<String> {
        order_if(line, |_| Eligibility::Go)
    }

    /// Who leaves, in order, if these attempts may.
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
