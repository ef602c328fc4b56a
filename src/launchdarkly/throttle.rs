//! Who may call now: each account's limit of concurrent calls and the moment it must wait for.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU16,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::digest;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use super::pace::{Feedback, Hold, Pace};
use crate::domain::{Connection, Slot};

/// How many accounts are remembered before those that nobody needs are looked for. Some 200
/// bytes each, so the number matters little; it must only not grow for ever.
const SWEEP_ABOVE: usize = 256;

/// Lets calls go at the pace of their accounts.
pub(super) struct Throttle {
    calls_per_account: NonZeroU16,
    accounts: Mutex<Accounts>,
}

struct Accounts {
    by_key: HashMap<AccountKey, Arc<Account>>,
    /// Size at which to sweep next: twice what the last sweep had to leave, so that sweeping
    /// costs little however many accounts are in use.
    sweep_above: usize,
}

/// Names an account. LaunchDarkly limits accounts, but a token does not tell whose it is; until
/// that is known, each token counts as an account. Never the token itself: a digest.
#[derive(Clone, PartialEq, Eq, Hash)]
struct AccountKey(Vec<u8>);

impl AccountKey {
    fn of(connection: &Connection) -> Self {
        let token = connection.access_token.expose().as_bytes();
        Self(digest::digest(&digest::SHA256, token).as_ref().to_vec())
    }
}

struct Account {
    /// Fair: whoever asked first gets the next slot.
    slots: Arc<Semaphore>,
    pace: Mutex<Pace>,
}

impl Account {
    fn new(calls: NonZeroU16) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(calls.get().into())),
            pace: Mutex::default(),
        }
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        lock(&self.pace)
    }

    /// Waits out every hold, also those that come while it waits. Cancel safe.
    async fn wait(&self) {
        loop {
            let departure = self.pace().departure(Instant::now(), fastrand::f64());
            match departure {
                Some(at) => sleep_until(at).await,
                None => return,
            }
        }
    }
}

impl Throttle {
    /// Lets each account have `calls_per_account` calls under way.
    pub(super) fn new(calls_per_account: NonZeroU16) -> Self {
        Self {
            calls_per_account,
            accounts: Mutex::new(Accounts {
                by_key: HashMap::new(),
                sweep_above: SWEEP_ABOVE,
            }),
        }
    }

    /// Waits until a call of this connection's account may start.
    ///
    /// Those who wait for a moment hold their slots meanwhile, so that no more than the limit
    /// leave when it comes; the rest follow as answers come back. Cancel safe: the place in the
    /// queue is lost, and the slot with it.
    pub(super) async fn ready(&self, connection: &Connection) -> Slot {
        let account = self.account(connection);
        let permit = Arc::clone(&account.slots)
            .acquire_owned()
            .await
            .expect("an account's semaphore is never closed");
        account.wait().await;
        // The account goes along, so that it is not forgotten while it has calls under way.
        Slot::holding((permit, account))
    }

    /// What holds this connection's account back.
    pub(super) fn hold(&self, connection: &Connection) -> Option<Hold> {
        let account = {
            let accounts = lock(&self.accounts);
            Arc::clone(accounts.by_key.get(&AccountKey::of(connection))?)
        };
        account.pace().hold(Instant::now())
    }

    /// Learns from a call.
    pub(super) fn observe(&self, connection: &Connection, feedback: &Feedback) {
        self.account(connection)
            .pace()
            .observe(Instant::now(), feedback, fastrand::f64());
    }

    fn account(&self, connection: &Connection) -> Arc<Account> {
        let mut accounts = lock(&self.accounts);
        accounts.sweep(Instant::now());
        let account = accounts
            .by_key
            .entry(AccountKey::of(connection))
            .or_insert_with(|| Arc::new(Account::new(self.calls_per_account)));
        Arc::clone(account)
    }
}

impl Accounts {
    /// Forgets the accounts that nobody uses and nothing holds back, once there are many.
    fn sweep(&mut self, now: Instant) {
        if self.by_key.len() <= self.sweep_above {
            return;
        }
        self.by_key.retain(|_, account| {
            Arc::strong_count(account) > 1 || account.pace().hold(now).is_some()
        });
        self.sweep_above = SWEEP_ABOVE.max(2 * self.by_key.len());
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle")
            .field("calls_per_account", &self.calls_per_account)
            .field("accounts", &lock(&self.accounts).by_key.len())
            .finish()
    }
}

/// What these locks guard is whole between any two statements, so poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::{
        domain::{ClientSideId, Instance, Trouble},
        secret::AccessToken,
    };

    const MOMENT: Duration = Duration::from_millis(1);
    const HOLD: Duration = Duration::from_secs(5);

    fn connection(token: &str) -> Connection {
        Connection {
            access_token: AccessToken::new(token.into()),
            client_side_id: ClientSideId::new("5a01".into()),
            instance: Instance::Commercial,
        }
    }

    fn throttle(calls: u16) -> Throttle {
        Throttle::new(NonZeroU16::new(calls).unwrap())
    }

    fn told_to_wait() -> Feedback {
        Feedback {
            trouble: Some(Trouble::RateLimited),
            wait: Some(HOLD),
            latency: MOMENT,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_has_so_many_calls_under_way_and_no_more() {
        let (throttle, acme) = (throttle(2), connection("acme"));
        let first = throttle.ready(&acme).await;
        let _second = throttle.ready(&acme).await;
        assert!(timeout(MOMENT, throttle.ready(&acme)).await.is_err());
        let _others = throttle.ready(&connection("other")).await;
        drop(first);
        assert!(timeout(MOMENT, throttle.ready(&acme)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_give_up_waiting_take_no_slot_with_them() {
        let (throttle, acme) = (throttle(1), connection("acme"));
        throttle.observe(&acme, &told_to_wait());
        assert!(timeout(MOMENT, throttle.ready(&acme)).await.is_err());
        assert!(timeout(2 * HOLD, throttle.ready(&acme)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_for_the_same_moment_leave_after_it_at_different_times() {
        let (throttle, acme) = (throttle(16), connection("acme"));
        let start = Instant::now();
        throttle.observe(&acme, &told_to_wait());
        let leave = async || {
            let _slot = throttle.ready(&acme).await;
            start.elapsed()
        };
        let left = futures_util::future::join_all((0..16).map(|_| leave())).await;
        assert!(left.iter().all(|after| *after >= HOLD), "{left:?}");
        let distinct: std::collections::BTreeSet<_> = left.iter().collect();
        assert!(distinct.len() > 8, "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_that_comes_while_waiting_is_waited_for_too() {
        let (throttle, acme) = (throttle(1), connection("acme"));
        throttle.observe(&acme, &told_to_wait());
        let start = Instant::now();
        let mut waiting = std::pin::pin!(throttle.ready(&acme));
        assert!(timeout(HOLD / 2, &mut waiting).await.is_err());
        throttle.observe(&acme, &told_to_wait());
        waiting.await;
        assert!(start.elapsed() >= HOLD / 2 + HOLD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_reported_while_it_lasts_and_to_its_account_only() {
        let (throttle, acme) = (throttle(1), connection("acme"));
        assert_eq!(throttle.hold(&acme), None);
        throttle.observe(&acme, &told_to_wait());
        assert_eq!(throttle.hold(&acme).unwrap().trouble, Trouble::RateLimited);
        assert_eq!(throttle.hold(&connection("other")), None);
        tokio::time::advance(2 * HOLD).await;
        assert_eq!(throttle.hold(&acme), None);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_accounts_are_forgotten_but_none_that_is_busy_or_held() {
        let (throttle, busy, held) = (throttle(1), connection("busy"), connection("held"));
        let _slot = throttle.ready(&busy).await;
        throttle.observe(&held, &told_to_wait());
        for n in 0..10 * SWEEP_ABOVE {
            drop(throttle.ready(&connection(&n.to_string())).await);
        }
        assert!(lock(&throttle.accounts).by_key.len() <= SWEEP_ABOVE + 1);
        assert!(timeout(MOMENT, throttle.ready(&busy)).await.is_err());
        assert!(throttle.hold(&held).is_some());
    }

    #[test]
    fn debug_shows_no_token() {
        let throttle = throttle(1);
        drop(throttle.account(&connection("api-canary")));
        assert!(!format!("{throttle:?}").contains("canary"));
    }
}
