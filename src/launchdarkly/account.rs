//! Waiting in line for the pace of one account.
//!
//! The [pace](super::pace) says who may go when. It is asked whenever something has changed: by
//! whoever comes, learns or leaves. When time alone may change something, it is asked by one of
//! those who wait, who has the watch. Whoever asks hands out what it allows, to others as well.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Mutex as Watch, Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::pace::{Admission, AdmittedCall, CallRequest, Feedback, Origin, Pace, Ticket};
use crate::domain::{Attempt, ClientSideId, Hold, PaceState};

/// One account of LaunchDarkly.
#[derive(Debug)]
pub(super) struct Account {
    state: Mutex<AccountState>,
    watch: Watch<()>,
    /// Tells whoever has the watch that the moment to ask again may be another.
    changed: Notify,
}

#[derive(Debug)]
struct AccountState {
    pace: Pace,
    /// How those in line hear that they may go.
    waiting: HashMap<Ticket, oneshot::Sender<CallPermit>>,
}

/// A place among the calls under way; given back when dropped.
#[derive(Debug)]
pub(super) struct CallPermit {
    account: Arc<Account>,
    departure: AdmittedCall,
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.account.state().pace.leave(&self.departure);
        self.account.go_on();
    }
}

/// Somebody in line, who leaves it when dropped.
struct WaitingCall<'a> {
    account: &'a Arc<Account>,
    ticket: Ticket,
    granted: oneshot::Receiver<CallPermit>,
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        let mut state = self.account.state();
        if state.waiting.remove(&self.ticket).is_some() {
            state.pace.withdraw(self.ticket);
        }
    }
}

impl Account {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            state: Mutex::new(AccountState {
                pace,
                waiting: HashMap::new(),
            }),
            watch: Watch::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until a call may start. Cancel safe: the place in the queue is lost, and whatever
    /// was taken is given back.
    pub(super) async fn ready(self: &Arc<Self>, origin: Origin, attempt: Attempt) -> CallPermit {
        self.wait(CallRequest::Delivery(origin, attempt)).await
    }

    /// Waits until a query may be asked. Cancel safe, as [`ready`](Self::ready) is.
    pub(super) async fn ready_for_query(self: &Arc<Self>) -> CallPermit {
        self.wait(CallRequest::Query).await
    }

    async fn wait(self: &Arc<Self>, wish: CallRequest) -> CallPermit {
        let mut waiter = self.enter(wish);
        tokio::select! {
            // A place that was granted is taken.
            biased;
            Ok(place) = &mut waiter.granted => place,
            _watch = self.watch.lock() => self.keep_watch(&mut waiter.granted).await,
        }
    }

    fn enter(self: &Arc<Self>, wish: CallRequest) -> WaitingCall<'_> {
        let (grant, granted) = oneshot::channel();
        let mut state = self.state();
        let ticket = state.pace.enter(wish, Instant::now());
        state.waiting.insert(ticket, grant);
        drop(state);
        self.go_on();
        WaitingCall {
            account: self,
            ticket,
            granted,
        }
    }

    /// Something has changed: lets go whoever may now, and tells whoever has the watch when that
    /// is to be done again.
    fn go_on(self: &Arc<Self>) {
        self.admit();
        self.changed.notify_one();
    }

    /// Hands out places until one is one's own.
    async fn keep_watch(
        self: &Arc<Self>,
        granted: &mut oneshot::Receiver<CallPermit>,
    ) -> CallPermit {
        loop {
            let next = self.admit();
            tokio::select! {
                // Having a place ends the watch. Otherwise the pace is asked again, so the order
                // of the rest does not matter.
                biased;
                Ok(place) = &mut *granted => return place,
                () = self.changed.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// Lets go whoever may. Returns when to ask again, if nothing happens before.
    fn admit(self: &Arc<Self>) -> Option<Instant> {
        loop {
            let (grant, departure) = {
                let mut state = self.state();
                match state.pace.admit(Instant::now(), fastrand::f64()) {
                    Admission::Go(ticket, departure) => (state.waiting.remove(&ticket), departure),
                    Admission::Wait(at) => return Some(at),
                    Admission::Full => return None,
                }
            };
            let place = CallPermit {
                account: Arc::clone(self),
                departure,
            };
            // Who has just stopped waiting gives it back; the lock is free again by then.
            drop(grant.map(|grant| grant.send(place)));
        }
    }

    /// Learns from a call.
    pub(super) fn observe(self: &Arc<Self>, feedback: &Feedback) {
        let unit = fastrand::f64();
        self.state().pace.observe(Instant::now(), feedback, unit);
        self.go_on();
    }

    /// The pace of an environment's calls now.
    pub(super) fn pace(&self, environment: &ClientSideId) -> PaceState {
        self.state().pace.state(environment, Instant::now())
    }

    /// What holds calls of an environment back now.
    pub(super) fn hold(&self, environment: &ClientSideId) -> Option<Hold> {
        self.state().pace.hold(environment, Instant::now())
    }

    /// What holds all calls back now.
    pub(super) fn hold_of_account(&self) -> Option<Hold> {
        self.state().pace.hold_of_account(Instant::now())
    }

    /// What it was told to wait for now; not a breaker, which lets probes pass.
    pub(super) fn told_to_wait(&self) -> Option<Hold> {
        self.state().pace.told_to_wait(Instant::now())
    }

    /// Whether a call of no urgency would take nothing from deliveries now.
    pub(super) fn is_at_ease(&self, environment: &ClientSideId) -> bool {
        self.state().pace.is_at_ease(environment, Instant::now())
    }

    /// Most members to put into a call, if a limit is known.
    pub(super) fn max_members(&self) -> Option<usize> {
        self.state().pace.max_members(Instant::now())
    }

    /// No more than so many members seem to fit into a call.
    pub(super) fn learn_max_members(&self, members: usize) {
        self.state().pace.learn_max_members(members, Instant::now());
    }

    /// Takes over what an account was told that turned out to be this one.
    pub(super) fn inherit(&self, other: &Self) {
        // One lock after the other: two at once could wait for each other.
        let told = other.told_to_wait();
        if let Some(hold) = told
            && !std::ptr::eq(self, other)
        {
            // Nobody may go sooner for it, and whoever has the watch asks before letting go.
            self.state().pace.inherit(hold);
        }
    }

    /// What the lock guards is whole between any two statements, so poison means nothing.
    fn state(&self) -> MutexGuard<'_, AccountState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sleeps until a moment, or for ever.
async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
