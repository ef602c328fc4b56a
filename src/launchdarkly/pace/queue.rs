//! Wait queues of one account: which of the waiting calls starts next.
//!
//! Environments are served round robin, so that an environment with many segments gets no more
//! turns than one with a single segment. Each environment has two FIFO queues: first attempts and
//! retries. They alternate, so a retry waits for at most one first attempt. A retry that the budget
//! does not fund is skipped, and never blocks first attempts. Queries start before all deliveries:
//! they are few, and a caller waits for each.

use std::collections::VecDeque;

use super::CallTarget;
use crate::domain::{Attempt, ClientSideId, SegmentId};

/// Identifies a waiting call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::launchdarkly) struct Ticket(u64);

/// What a waiting call is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::launchdarkly) enum CallRequest {
    /// To change a segment.
    Delivery(CallTarget, Attempt),
    /// To ask something.
    Query,
}

/// Whether a waiting call may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Eligibility {
    /// It may.
    Go,
    /// No call of its segment may: the next call in the same queue is asked about.
    SkipSegment,
    /// No call in the same queue may: the next queue is asked about.
    SkipQueue,
}

/// All waiting calls of an account.
#[derive(Debug, Default)]
pub(super) struct WaitQueue {
    tickets: u64,
    queries: VecDeque<Ticket>,
    /// Environments with a waiting call, in round-robin order. The first one has the next turn.
    round_robin: VecDeque<EnvironmentQueue>,
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
                    Eligibility::SkipSegment => {}
                    Eligibility::SkipQueue => break,
                    Eligibility::Go => {
                        let call = waiting.remove(position)?;
                        self.last = attempt;
                        return Some((call, attempt));
                    }
                }
            }
        }
        None
    }
}

impl WaitQueue {
    /// A call begins to wait, behind all others of its queue.
    pub(super) fn enqueue(&mut self, request: CallRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        match request {
            CallRequest::Query => self.queries.push_back(ticket),
            CallRequest::Delivery(target, attempt) => {
                let segment = target.segment;
                let call = QueuedCall { ticket, segment };
                self.queue(target.environment)
                    .attempts(attempt)
                    .push_back(call);
            }
        }
        ticket
    }

    fn queue(&mut self, environment: ClientSideId) -> &mut EnvironmentQueue {
        let known = self
            .round_robin
            .iter()
            .position(|queue| queue.environment == environment);
        let position = known.unwrap_or_else(|| {
            self.round_robin
                .push_back(EnvironmentQueue::of(environment));
            self.round_robin.len() - 1
        });
        &mut self.round_robin[position]
    }

    /// A call waits no longer.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.queries.retain(|waiting| *waiting != ticket);
        for queue in &mut self.round_robin {
            queue.first.retain(|call| call.ticket != ticket);
            queue.retries.retain(|call| call.ticket != ticket);
        }
        self.round_robin.retain(|queue| !queue.is_empty());
    }

    /// Whether no call waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queries.is_empty() && self.round_robin.is_empty()
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
    ) -> Option<(Ticket, CallTarget, Attempt)> {
        for turn in 0..self.round_robin.len() {
            let Some((call, attempt)) = self.round_robin[turn].choose(&mut may) else {
                continue;
            };
            let queue = self.round_robin.remove(turn)?;
            let target = CallTarget {
                environment: queue.environment.clone(),
                segment: call.segment,
            };
            if !queue.is_empty() {
                self.round_robin.push_back(queue);
            }
            return Some((call.ticket, target, attempt));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enqueue(queue: &mut WaitQueue, environment: &str, segment: &str, attempt: Attempt) {
        queue.enqueue(CallRequest::Delivery(
            CallTarget::of(environment, segment),
            attempt,
        ));
    }

    fn enqueue_all(queue: &mut WaitQueue, environment: &str, segments: &[&str]) {
        for segment in segments {
            enqueue(queue, environment, segment, Attempt::First);
        }
    }

    /// The calls that start, in order, if every call may.
    fn order(queue: &mut WaitQueue) -> Vec<String> {
        order_if(queue, |_| Eligibility::Go)
    }

    /// The calls that start, in order, if these attempts may.
    fn order_if(queue: &mut WaitQueue, may: impl Fn(Attempt) -> Eligibility) -> Vec<String> {
        let next = || {
            let (_, target, _) = queue.choose(|_, _, attempt| may(attempt))?;
            Some(format!("{}/{}", target.environment, target.segment))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn environments_take_turns_however_many_segments_they_have() {
        let mut queue = WaitQueue::default();
        enqueue_all(&mut queue, "a", &["1", "2", "3", "4"]);
        enqueue_all(&mut queue, "b", &["1", "2"]);
        assert_eq!(
            order(&mut queue),
            ["a/1", "b/1", "a/2", "b/2", "a/3", "a/4"]
        );
        assert!(queue.is_empty());
    }

    #[test]
    fn a_retry_waits_behind_one_first_attempt() {
        let mut queue = WaitQueue::default();
        enqueue_all(&mut queue, "a", &["1", "2", "3"]);
        enqueue(&mut queue, "a", "again", Attempt::Retry);
        assert_eq!(order(&mut queue), ["a/1", "a/again", "a/2", "a/3"]);
    }

    #[test]
    fn first_attempts_overtake_retries_that_may_not_start() {
        let mut queue = WaitQueue::default();
        enqueue_all(&mut queue, "a", &["1", "2", "3"]);
        enqueue(&mut queue, "a", "again", Attempt::Retry);
        let first_alone = |attempt| match attempt {
            Attempt::First => Eligibility::Go,
            Attempt::Retry => Eligibility::SkipQueue,
        };
        assert_eq!(order_if(&mut queue, first_alone), ["a/1", "a/2", "a/3"]);
        assert_eq!(order(&mut queue), ["a/again"]);
    }

    #[test]
    fn calls_overtake_a_segment_or_environment_that_may_not_start() {
        let mut queue = WaitQueue::default();
        enqueue(&mut queue, "a", "full", Attempt::First);
        enqueue(&mut queue, "a", "free", Attempt::First);
        enqueue(&mut queue, "b", "1", Attempt::First);
        let chosen = queue.choose(|_, segment, _| match segment.as_str() {
            "full" => Eligibility::SkipSegment,
            _ => Eligibility::Go,
        });
        assert_eq!(chosen.unwrap().1, CallTarget::of("a", "free"));
        let chosen = queue.choose(|environment, _, _| match environment.as_str() {
            "a" => Eligibility::SkipQueue,
            _ => Eligibility::Go,
        });
        assert_eq!(chosen.unwrap().1, CallTarget::of("b", "1"));
        assert_eq!(order(&mut queue), ["a/full"]);
    }

    #[test]
    fn a_withdrawn_call_is_not_chosen() {
        let mut queue = WaitQueue::default();
        let gone = queue.enqueue(CallRequest::Delivery(
            CallTarget::of("a", "1"),
            Attempt::First,
        ));
        let query = queue.enqueue(CallRequest::Query);
        queue.withdraw(gone);
        assert!(!queue.is_empty());
        assert_eq!(queue.next_query(), Some(query));
        assert!(queue.is_empty());
    }
}
