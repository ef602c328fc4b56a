//! Waiting in line for the pace of one account.
//!
//! Two lines, both fair: first attempts wait in one, repeated attempts in the other. Whoever is
//! first in a line goes to the turnstile, a repeated attempt once it is paid for: so one which
//! cannot be afforded yet stands in no first attempt's way, and one that is paid for waits behind
//! one first attempt and not behind all of them. At the turnstile one of the two asks the pace,
//! alone, until it may go. A question waits with the first attempts, unless it may go at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::{Mutex as Turnstile, MutexGuard as Turn, Notify},
    time::{Instant, sleep_until},
};

use super::pace::{Admission, Departure, Feedback, Hold, Pace};
use crate::domain::Attempt;

/// One account of LaunchDarkly.
#[derive(Debug)]
pub(super) struct Account {
    pace: Mutex<Pace>,
    first: Turnstile<()>,
    again: Turnstile<()>,
    turnstile: Turnstile<()>,
    /// Tells whoever is first in line that the pace may have changed.
    changed: Notify,
}

/// A place among the calls under way; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    account: Arc<Account>,
    departure: Departure,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.account.pace().leave(&self.departure);
        self.account.changed.notify_one();
    }
}

/// The head of a line. What it has paid is refunded when it is dropped before its call is made.
/// Until then it keeps its turn: were other repeated attempts to pay meanwhile, all that came
/// while the account had to wait would leave together afterwards.
#[derive(Debug)]
struct Head<'a> {
    paid: Option<&'a Account>,
    _turn: Turn<'a, ()>,
}

impl Head<'_> {
    fn spend(mut self) {
        self.paid = None;
    }
}

impl Drop for Head<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.paid {
            account.pace().refund();
        }
    }
}

impl Account {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace: Mutex::new(pace),
            first: Turnstile::default(),
            again: Turnstile::default(),
            turnstile: Turnstile::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until a call may start. Cancel safe: the place in the queue is lost, and whatever
    /// was taken is given back.
    pub(super) async fn ready(self: &Arc<Self>, attempt: Attempt) -> Place {
        let head = match attempt {
            Attempt::First => Head {
                paid: None,
                _turn: self.first.lock().await,
            },
            Attempt::Again => self.afford().await,
        };
        let _turn = self.turnstile.lock().await;
        let departure = self
            .admitted(|pace, now, unit| pace.admit(now, attempt, unit))
            .await;
        // From here on nothing is awaited, so nothing that was taken can be lost.
        head.spend();
        self.place(departure)
    }

    /// Waits until a question may be asked. Cancel safe, as [`ready`](Self::ready) is.
    pub(super) async fn ready_to_ask(self: &Arc<Self>) -> Place {
        let ask = |pace: &mut Pace, now, unit| pace.admit_question(now, unit);
        // Past those whom only an open breaker holds back.
        let at_once = ask(&mut self.pace(), Instant::now(), fastrand::f64());
        if let Admission::Go(departure) = at_once {
            return self.place(departure);
        }
        let _head = self.first.lock().await;
        let _turn = self.turnstile.lock().await;
        let departure = self.admitted(ask).await;
        self.place(departure)
    }

    fn place(self: &Arc<Self>, departure: Departure) -> Place {
        Place {
            account: Arc::clone(self),
            departure,
        }
    }

    async fn afford(&self) -> Head<'_> {
        let turn = self.again.lock().await;
        loop {
            let asked = self.pace().afford(Instant::now());
            match asked {
                Ok(()) => {
                    return Head {
                        paid: Some(self),
                        _turn: turn,
                    };
                }
                // A first attempt may pay meanwhile; the floor alone takes no longer than this.
                Err(at) => sleep_until(at).await,
            }
        }
    }

    /// Asks the pace until it lets go.
    async fn admitted(&self, ask: impl Fn(&mut Pace, Instant, f64) -> Admission) -> Departure {
        loop {
            let admission = ask(&mut self.pace(), Instant::now(), fastrand::f64());
            match admission {
                Admission::Go(departure) => return departure,
                Admission::Wait(at) => tokio::select! {
                    // Either way the pace is asked again, so the order does not matter.
                    biased;
                    () = self.changed.notified() => {}
                    () = sleep_until(at) => {}
                },
                Admission::Full => self.changed.notified().await,
            }
        }
    }

    /// Learns from a call.
    pub(super) fn observe(&self, feedback: &Feedback) {
        self.pace()
            .observe(Instant::now(), feedback, fastrand::f64());
        self.changed.notify_one();
    }

    /// What holds calls back now.
    pub(super) fn hold(&self) -> Option<Hold> {
        self.pace().hold(Instant::now())
    }

    /// What it was told to wait for now; not a breaker, which lets probes pass.
    pub(super) fn told_to_wait(&self) -> Option<Hold> {
        self.pace().told_to_wait(Instant::now())
    }

    /// Whether a call of no urgency would take nothing from deliveries now.
    pub(super) fn is_at_ease(&self) -> bool {
        self.pace().is_at_ease(Instant::now())
    }

    /// Takes over what an account was told that turned out to be this one.
    pub(super) fn inherit(&self, other: &Self) {
        // One lock after the other: two at once could wait for each other.
        let told = other.told_to_wait();
        if let Some(hold) = told {
            self.pace().inherit(hold);
            self.changed.notify_one();
        }
    }

    /// What the lock guards is whole between any two statements, so poison means nothing.
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
