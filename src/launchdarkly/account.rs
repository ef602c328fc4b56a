//! Admission of the calls of one account: it holds the waiting callers, and grants permits.
//!
//! The [pace](super::pace) decides which call may start when. Every change asks it again: a new
//! waiting call, an observed answer, a permit that is given back. Where time alone may change the
//! decision, one of the waiting callers, the timekeeper, sleeps until then and asks. There is no
//! task of its own for that. The caller that asks grants every permit that the pace allows, also
//! those of other callers.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, oneshot},
    time::{Instant, sleep_until},
};

use super::pace::{Admission, AdmittedCall, CallRequest, CallTarget, Feedback, Pace, Ticket};
use crate::domain::{Attempt, ClientSideId, Hold, PaceState};

/// One account of LaunchDarkly.
#[derive(Debug)]
pub(super) struct Account {
    state: Mutex<AccountState>,
    /// The caller that holds this lock is the timekeeper.
    timekeeper: AsyncMutex<()>,
    /// Tells the timekeeper that the moment to ask again may have changed.
    changed: Notify,
}

#[derive(Debug)]
struct AccountState {
    pace: Pace,
    /// Where each waiting call gets its permit.
    waiting: HashMap<Ticket, oneshot::Sender<CallPermit>>,
}

/// Permission for one call. It counts among the calls under way until it is dropped.
#[derive(Debug)]
pub(super) struct CallPermit {
    account: Arc<Account>,
    call: AdmittedCall,
}

impl Drop for CallPermit {
    fn drop(&mut self) {
        self.account.state().pace.leave(&self.call);
        self.account.reconsider();
    }
}

/// A caller that waits for a permit. Dropping it withdraws the call.
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
            timekeeper: AsyncMutex::default(),
            changed: Notify::new(),
        }
    }

    /// Waits until a delivery may start. Cancel safe: the position in the queue is lost, and a
    /// permit that was granted is given back.
    pub(super) async fn ready(
        self: &Arc<Self>,
        target: CallTarget,
        attempt: Attempt,
    ) -> CallPermit {
        self.wait(CallRequest::Delivery(target, attempt)).await
    }

    /// Waits until a query may start. Cancel safe, as [`ready`](Self::ready) is.
    pub(super) async fn ready_for_query(self: &Arc<Self>) -> CallPermit {
        self.wait(CallRequest::Query).await
    }

    async fn wait(self: &Arc<Self>, request: CallRequest) -> CallPermit {
        let mut waiting = self.enqueue(request);
        tokio::select! {
            // A permit that was granted is used.
            biased;
            Ok(permit) = &mut waiting.granted => permit,
            _guard = self.timekeeper.lock() => self.keep_time(&mut waiting.granted).await,
        }
    }

    fn enqueue(self: &Arc<Self>, request: CallRequest) -> WaitingCall<'_> {
        let (grant, granted) = oneshot::channel();
        let mut state = self.state();
        let ticket = state.pace.enqueue(request, Instant::now());
        state.waiting.insert(ticket, grant);
        drop(state);
        self.reconsider();
        WaitingCall {
            account: self,
            ticket,
            granted,
        }
    }

    /// After any change: grants what the pace allows now, and makes the timekeeper ask when to try
    /// again.
    fn reconsider(self: &Arc<Self>) {
        self.grant_permits();
        self.changed.notify_one();
    }

    /// As the timekeeper, grants permits to any caller until its own is granted.
    async fn keep_time(
        self: &Arc<Self>,
        granted: &mut oneshot::Receiver<CallPermit>,
    ) -> CallPermit {
        loop {
            let next = self.grant_permits();
            tokio::select! {
                // With its own permit, the caller is the timekeeper no longer. Otherwise the pace
                // is asked again, so the order of the rest does not matter.
                biased;
                Ok(permit) = &mut *granted => return permit,
                () = self.changed.notified() => {}
                () = until(next) => {}
            }
        }
    }

    /// Grants every permit that the pace allows. Returns when to ask again, if nothing happens
    /// before.
    fn grant_permits(self: &Arc<Self>) -> Option<Instant> {
        loop {
            let (grant, call) = {
                let mut state = self.state();
                match state.pace.admit(Instant::now(), fastrand::f64()) {
                    Admission::Go(ticket, call) => (state.waiting.remove(&ticket), call),
                    Admission::Wait(at) => return Some(at),
                    Admission::Full => return None,
                }
            };
            let permit = CallPermit {
                account: Arc::clone(self),
                call,
            };
            // A caller that has just stopped waiting drops the permit; the lock is free by then.
            drop(grant.map(|grant| grant.send(permit)));
        }
    }

    /// Learns from a call.
    pub(super) fn observe(self: &Arc<Self>, feedback: &Feedback) {
        let random = fastrand::f64();
        self.state().pace.observe(Instant::now(), feedback, random);
        self.reconsider();
    }

    /// The pace of an environment's calls now.
    pub(super) fn pace(&self, environment: &ClientSideId) -> PaceState {
        self.state().pace.state(environment, Instant::now())
    }

    /// The hold on calls of an environment now.
    pub(super) fn hold(&self, environment: &ClientSideId) -> Option<Hold> {
        self.state().pace.hold(environment, Instant::now())
    }

    /// The hold on all calls now.
    pub(super) fn account_hold(&self) -> Option<Hold> {
        self.state().pace.account_hold(Instant::now())
    }

    /// The hold that LaunchDarkly asked for. An open breaker is none: it lets probes pass.
    pub(super) fn server_hold(&self) -> Option<Hold> {
        self.state().pace.server_hold(Instant::now())
    }

    /// Whether a call of low priority would delay no delivery now.
    pub(super) fn has_spare_capacity(&self, environment: &ClientSideId) -> bool {
        self.state()
            .pace
            .has_spare_capacity(environment, Instant::now())
    }

    /// Most members to put into a call, if a limit is known.
    pub(super) fn max_members(&self) -> Option<usize> {
        self.state().pace.max_members(Instant::now())
    }

    /// No more than so many members seem to fit into a call.
    pub(super) fn learn_max_members(&self, members: usize) {
        self.state().pace.learn_max_members(members, Instant::now());
    }

    /// Takes over the server hold of another account entry that turned out to be this account.
    pub(super) fn inherit(&self, other: &Self) {
        // One lock after the other: two at once could wait for each other.
        let hold = other.server_hold();
        if let Some(hold) = hold
            && !std::ptr::eq(self, other)
        {
            // No call may start sooner because of it, and the pace is asked before any starts.
            self.state().pace.inherit(hold);
        }
    }

    fn state(&self) -> MutexGuard<'_, AccountState> {
        self.state.lock()
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
