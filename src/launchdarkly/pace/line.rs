//! Who waits for a call, and who is looked at first.
//!
//! Environments take turns, so that one with many segments waits no shorter than one with a
//! single one. In an environment there are two lines, one of first attempts and one of repeated
//! ones, which take turns as well: a repeated attempt waits behind one first attempt and not
//! behind all, and where repeats cannot be afforded, first attempts pass. In a line, who came first
//! is looked at first. Questions go before all: they are few, and somebody waits for each.

use std::collections::VecDeque;

use super::Origin;
use crate::domain::{Attempt, ClientSideId, SegmentId};

/// Names somebody in line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::launchdarkly) struct Ticket(u64);

/// What somebody waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::launchdarkly) enum Wish {
    /// To change a segment.
    Delivery(Origin, Attempt),
    /// To ask something.
    Question,
}

/// What keeps somebody from leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Go,
    /// Something that others in the same line do not have: look at the next.
    NotThisSegment,
    /// Something that all in the same line have.
    NotThisLine,
}

/// Everybody in line.
#[derive(Debug, Default)]
pub(super) struct Line {
    tickets: u64,
    questions: VecDeque<Ticket>,
    /// Environments with somebody in line; whose turn it is comes first.
    turns: VecDeque<Queue>,
}

#[derive(Debug)]
struct Queue {
    environment: ClientSideId,
    first: VecDeque<Waiter>,
    again: VecDeque<Waiter>,
    /// What left last: the other is looked at first.
    last: Attempt,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    segment: SegmentId,
}

impl Queue {
    fn of(environment: ClientSideId) -> Self {
        Self {
            environment,
            first: VecDeque::new(),
            again: VecDeque::new(),
            last: Attempt::Again,
        }
    }

    fn line(&mut self, attempt: Attempt) -> &mut VecDeque<Waiter> {
        match attempt {
            Attempt::First => &mut self.first,
            Attempt::Again => &mut self.again,
        }
    }

    fn order(&self) -> [Attempt; 2] {
        match self.last {
            Attempt::First => [Attempt::Again, Attempt::First],
            Attempt::Again => [Attempt::First, Attempt::Again],
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.again.is_empty()
    }

    /// Takes the first that may go out of its line.
    fn choose(
        &mut self,
        may: &mut impl FnMut(&ClientSideId, &SegmentId, Attempt) -> Verdict,
    ) -> Option<(Waiter, Attempt)> {
        for attempt in self.order() {
            let environment = self.environment.clone();
            let line = self.line(attempt);
            for place in 0..line.len() {
                match may(&environment, &line[place].segment, attempt) {
                    Verdict::NotThisSegment => {}
                    Verdict::NotThisLine => break,
                    Verdict::Go => {
                        let waiter = line.remove(place)?;
                        self.last = attempt;
                        return Some((waiter, attempt));
                    }
                }
            }
        }
        None
    }
}

impl Line {
    /// Somebody takes the last place.
    pub(super) fn enter(&mut self, wish: Wish) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        match wish {
            Wish::Question => self.questions.push_back(ticket),
            Wish::Delivery(origin, attempt) => {
                let segment = origin.segment;
                let waiter = Waiter { ticket, segment };
                self.queue(origin.environment)
                    .line(attempt)
                    .push_back(waiter);
            }
        }
        ticket
    }

    fn queue(&mut self, environment: ClientSideId) -> &mut Queue {
        let known = self
            .turns
            .iter()
            .position(|queue| queue.environment == environment);
        let place = known.unwrap_or_else(|| {
            self.turns.push_back(Queue::of(environment));
            self.turns.len() - 1
        });
        &mut self.turns[place]
    }

    /// Somebody waits no longer.
    pub(super) fn withdraw(&mut self, ticket: Ticket) {
        self.questions.retain(|waiting| *waiting != ticket);
        for queue in &mut self.turns {
            queue.first.retain(|waiter| waiter.ticket != ticket);
            queue.again.retain(|waiter| waiter.ticket != ticket);
        }
        self.turns.retain(|queue| !queue.is_empty());
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.questions.is_empty() && self.turns.is_empty()
    }

    /// Takes the first question out.
    pub(super) fn next_question(&mut self) -> Option<Ticket> {
        self.questions.pop_front()
    }

    /// Takes out the first that `may` go; its environment has the last turn then.
    pub(super) fn choose(
        &mut self,
        mut may: impl FnMut(&ClientSideId, &SegmentId, Attempt) -> Verdict,
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

    fn enter(line: &mut Line, environment: &str, segment: &str, attempt: Attempt) {
        line.enter(Wish::Delivery(Origin::of(environment, segment), attempt));
    }

    fn enter_all(line: &mut Line, environment: &str, segments: &[&str]) {
        for segment in segments {
            enter(line, environment, segment, Attempt::First);
        }
    }

    /// Who leaves, in order, if everybody may.
    fn order(line: &mut Line) -> Vec<String> {
        let next = || {
            let (_, origin, _) = line.choose(|_, _, _| Verdict::Go)?;
            Some(format!("{}/{}", origin.environment, origin.segment))
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn environments_take_turns_however_many_segments_they_have() {
        let mut line = Line::default();
        enter_all(&mut line, "a", &["1", "2", "3", "4"]);
        enter_all(&mut line, "b", &["1", "2"]);
        assert_eq!(order(&mut line), ["a/1", "b/1", "a/2", "b/2", "a/3", "a/4"]);
        assert!(line.is_empty());
    }

    #[test]
    fn a_repeat_waits_behind_one_first_attempt() {
        let mut line = Line::default();
        enter_all(&mut line, "a", &["1", "2", "3"]);
        enter(&mut line, "a", "again", Attempt::Again);
        assert_eq!(order(&mut line), ["a/1", "a/again", "a/2", "a/3"]);
    }

    #[test]
    fn who_may_not_go_is_passed_by_those_whom_it_does_not_concern() {
        let mut line = Line::default();
        enter(&mut line, "a", "full", Attempt::First);
        enter(&mut line, "a", "free", Attempt::First);
        enter(&mut line, "b", "1", Attempt::First);
        let chosen = line.choose(|_, segment, _| match segment.as_str() {
            "full" => Verdict::NotThisSegment,
            _ => Verdict::Go,
        });
        assert_eq!(chosen.unwrap().1, Origin::of("a", "free"));
        let chosen = line.choose(|environment, _, _| match environment.as_str() {
            "a" => Verdict::NotThisLine,
            _ => Verdict::Go,
        });
        assert_eq!(chosen.unwrap().1, Origin::of("b", "1"));
        assert_eq!(order(&mut line), ["a/full"]);
    }

    #[test]
    fn who_has_left_the_line_is_not_chosen() {
        let mut line = Line::default();
        let gone = line.enter(Wish::Delivery(Origin::of("a", "1"), Attempt::First));
        let question = line.enter(Wish::Question);
        line.withdraw(gone);
        assert!(!line.is_empty());
        assert_eq!(line.next_question(), Some(question));
        assert!(line.is_empty());
    }
}
