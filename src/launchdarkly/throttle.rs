//! Throttle: finds the account that a call counts for. Each account of LaunchDarkly has one pace.
//!
//! | a token's account is | from | until |
//! |---|---|---|
//! | its own entry | its first call | it is identified |
//! | the entry of its account's ID | a credential check or a query of its own returned the ID | it is forgotten |
//!
//! A token that is identified second joins the account of the first; the later of the two holds
//! remains. Calls under way keep their permits. A token that replaces another of the same
//! environment inherits its server hold at once, before it is identified; what breakers and other
//! parts of the pace have learned is not inherited.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU16,
    sync::{Arc, Weak},
    time::Duration,
};

use aws_lc_rs::digest;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    account::Account,
    pace::{CallTarget, Feedback, Pace},
};
use crate::domain::{Attempt, Connection, Hold, PaceState, SegmentId, Slot};

/// How many tokens are remembered before unused ones are forgotten. Some 500 bytes each, so the
/// number matters little; it must only be bounded.
const SWEEP_ABOVE: usize = 256;
/// Shortest time between two queries for the account of a token. Ours: a query that fails costs a
/// call a minute.
const IDENTIFY_AGAIN: Duration = Duration::from_secs(60);

/// Admits calls at the pace of their accounts.
pub(super) struct Throttle {
    calls_per_account: NonZeroU16,
    accounts: Mutex<Accounts>,
}

struct Accounts {
    by_token: HashMap<IdentityDigest, TokenEntry>,
    /// The accounts with a known ID; their tokens and calls keep them alive.
    by_id: HashMap<IdentityDigest, Weak<Account>>,
    /// Size at which to sweep next: twice what the last sweep had to leave, so that sweeping
    /// costs little however many accounts are in use.
    sweep_above: usize,
}

struct TokenEntry {
    account: Arc<Account>,
    owner: TokenOwner,
}

/// The account that a token belongs to.
#[derive(PartialEq, Eq)]
enum TokenOwner {
    /// Not known; a query may ask for it from a moment on.
    Unknown { ask_after: Instant },
    /// The account of this ID.
    Known(IdentityDigest),
    /// LaunchDarkly does not disclose it.
    Undisclosed,
}

/// Names a token or an account: a digest, so that no token is kept, and all are of one size.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct IdentityDigest([u8; digest::SHA256_OUTPUT_LEN]);

impl fmt::Debug for IdentityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityDigest(…)")
    }
}

impl IdentityDigest {
    /// The instances are separate: a token or an ID of one means nothing in another, and an outage
    /// of one need not affect another.
    fn of(connection: &Connection, name: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(format!("{:?}/", connection.instance).as_bytes());
        context.update(name.as_bytes());
        let digest = context.finish();
        Self(
            digest
                .as_ref()
                .try_into()
                .expect("a SHA-256 digest has its length"),
        )
    }

    pub(super) fn of_token(connection: &Connection) -> Self {
        Self::of(connection, connection.access_token.expose())
    }
}

impl Throttle {
    /// Lets each account have at most `calls_per_account` calls under way.
    pub(super) fn new(calls_per_account: NonZeroU16) -> Self {
        Self {
            calls_per_account,
            accounts: Mutex::new(Accounts {
                by_token: HashMap::new(),
                by_id: HashMap::new(),
                sweep_above: SWEEP_ABOVE,
            }),
        }
    }

    /// Waits until a delivery of this connection's account may start. Cancel safe: the position in
    /// the queue is lost.
    pub(super) async fn ready(
        &self,
        connection: &Connection,
        segment: &SegmentId,
        attempt: Attempt,
    ) -> Slot {
        let account = self.account(connection);
        let target = CallTarget::new(connection, segment);
        // The slot keeps the account alive while it has calls under way.
        Slot::holding(account.ready(target, attempt).await)
    }

    /// Waits until a query of this connection's account may start. Cancel safe, as
    /// [`ready`](Self::ready) is.
    pub(super) async fn ready_for_query(&self, connection: &Connection) -> Slot {
        let account = self.account(connection);
        Slot::holding(account.ready_for_query().await)
    }

    /// The hold on calls of this connection's environment.
    pub(super) fn hold(&self, connection: &Connection) -> Option<Hold> {
        self.known(connection)?.hold(&connection.client_side_id)
    }

    /// The hold that LaunchDarkly asked of this connection's account. An open breaker is none: it
    /// lets probes pass.
    pub(super) fn server_hold(&self, connection: &Connection) -> Option<Hold> {
        self.known(connection)?.server_hold()
    }

    /// If both connections lead to one environment, both tokens belong to one account: `after`
    /// inherits the server hold of `before`, though it is not identified yet.
    pub(super) fn replace(&self, before: &Connection, after: &Connection) {
        if !before.is_same_environment(after) {
            return;
        }
        if let Some(known) = self.known(before) {
            self.account(after).inherit(&known);
        }
    }

    /// Most members to put into a call of this connection's account, if a limit is known.
    pub(super) fn max_members(&self, connection: &Connection) -> Option<usize> {
        self.known(connection)?.max_members()
    }

    /// No more than so many members seem to fit into a call of this connection's account.
    pub(super) fn learn_max_members(&self, connection: &Connection, members: usize) {
        self.account(connection).learn_max_members(members);
    }

    /// The pace of this connection's account and environment; none if nothing is known yet.
    pub(super) fn state(&self, connection: &Connection) -> Option<PaceState> {
        Some(self.known(connection)?.pace(&connection.client_side_id))
    }

    /// Learns from a call.
    pub(super) fn observe(&self, connection: &Connection, feedback: &Feedback) {
        self.account(connection).observe(feedback);
    }

    /// Whether to ask now for the account of this connection's token: it is not known, was not
    /// asked for recently, and the query would delay no delivery.
    pub(super) fn asks_for_owner(&self, connection: &Connection) -> bool {
        let now = Instant::now();
        let mut accounts = self.accounts();
        let Some(token) = accounts
            .by_token
            .get_mut(&IdentityDigest::of_token(connection))
        else {
            return false;
        };
        let due = matches!(token.owner, TokenOwner::Unknown { ask_after } if ask_after <= now);
        let asks = due && token.account.has_spare_capacity(&connection.client_side_id);
        if asks {
            let ask_after = now + IDENTIFY_AGAIN;
            token.owner = TokenOwner::Unknown { ask_after };
        }
        asks
    }

    /// Learns the account of this connection's token; none if LaunchDarkly does not disclose it.
    pub(super) fn identify(&self, connection: &Connection, account_id: Option<&str>) {
        // Makes sure that the token is known.
        drop(self.account(connection));
        let owner = account_id.map(|id| IdentityDigest::of(connection, id));
        self.accounts()
            .assign(&IdentityDigest::of_token(connection), owner);
    }

    fn known(&self, connection: &Connection) -> Option<Arc<Account>> {
        let accounts = self.accounts();
        let token = accounts
            .by_token
            .get(&IdentityDigest::of_token(connection))?;
        Some(Arc::clone(&token.account))
    }

    fn account(&self, connection: &Connection) -> Arc<Account> {
        let now = Instant::now();
        let mut accounts = self.accounts();
        accounts.sweep();
        let token = accounts
            .by_token
            .entry(IdentityDigest::of_token(connection))
            .or_insert_with(|| TokenEntry {
                account: Arc::new(Account::new(Pace::new(self.calls_per_account, now))),
                owner: TokenOwner::Unknown { ask_after: now },
            });
        Arc::clone(&token.account)
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock()
    }
}

impl Accounts {
    fn assign(&mut self, token: &IdentityDigest, owner: Option<IdentityDigest>) {
        let Some(token) = self.by_token.get_mut(token) else {
            return;
        };
        let Some(owner) = owner else {
            // An account that is known already stays.
            if matches!(token.owner, TokenOwner::Unknown { .. }) {
                token.owner = TokenOwner::Undisclosed;
            }
            return;
        };
        match self.by_id.get(&owner).and_then(Weak::upgrade) {
            Some(account) if Arc::ptr_eq(&account, &token.account) => {}
            Some(account) => {
                account.inherit(&token.account);
                token.account = account;
            }
            None => {
                let account = Arc::downgrade(&token.account);
                self.by_id.insert(owner.clone(), account);
            }
        }
        token.owner = TokenOwner::Known(owner);
    }

    /// Forgets the tokens of accounts that are unused and have no hold, once there are many.
    fn sweep(&mut self) {
        if self.by_token.len() <= self.sweep_above {
            return;
        }
        let mut tokens: HashMap<*const Account, usize> = HashMap::new();
        for token in self.by_token.values() {
            *tokens.entry(Arc::as_ptr(&token.account)).or_default() += 1;
        }
        self.by_token.retain(|_, token| {
            let account = &token.account;
            let in_use = Arc::strong_count(account) > tokens[&Arc::as_ptr(account)];
            if !in_use && account.account_hold().is_none() {
                // One reference goes with this token.
                tokens.entry(Arc::as_ptr(account)).and_modify(|n| *n -= 1);
                return false;
            }
            true
        });
        self.by_id.retain(|_, account| account.strong_count() > 0);
        self.sweep_above = SWEEP_ABOVE.max(2 * self.by_token.len());
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("calls_per_account", &self.calls_per_account)
            .field("tokens", &self.accounts().by_token.len())
            .finish()
    }
}

#[cfg(test)]
mod tests;
