//! A LaunchDarkly to work against: answers as the real one, shows what it was told, fails on demand.
//!
//! It shares no types with the client on purpose: a misreading of LaunchDarkly in one of them must
//! not be repeated by the other, or no test would see it.
//!
//! - The decisions are plain data and functions: [`world`], [`segments`], [`flags`], [`faults`],
//!   [`rate_limit`], [`calls`], and who is told of them, [`observer`].
//! - HTTP lies around them: every call passes the [`door`] (log, limits, faults) to [`api`]
//!   (REST) or [`sdk`] (what LaunchDarkly's SDKs read); [`control`] is the way in for people and
//!   tests, under `/_sandbox/`; [`serve`] holds the connections.
//!
//! Assumptions about LaunchDarkly that nothing documents each stand as a named constant in [`api`]
//! or [`segments`].

mod api;
mod calls;
mod control;
mod door;
mod faults;
pub mod fixtures;
mod flags;
mod hidden;
mod mishaps;
mod observer;
mod rate_limit;
mod refusal;
mod sdk;
mod segments;
mod serve;
#[cfg(test)]
mod tests;
mod world;

use std::{
    collections::BTreeSet,
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{Router, middleware, serve::Listener};
use tokio::sync::watch;

use crate::clock;

pub use self::{
    calls::{Call, Totals},
    faults::{Faults, How, Mishap, When},
    hidden::Hidden,
    observer::Applied,
    rate_limit::{IpLimit, Limits},
    segments::Segment,
    serve::Wire,
    world::{Account, Denial, Environment, Owner, Project, Rights, Role, Token, World},
};

/// Far above what peers send (4 MB); it only keeps memory bounded.
const MOST_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What a sandbox starts with, and returns to when it is reset.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who exists.
    pub world: World,
    /// The integrations that are registered, by key.
    pub integrations: Vec<String>,
    /// The flags that every environment has.
    pub flags: Vec<Flag>,
    /// What goes wrong from the start.
    pub faults: Faults,
    /// How many calls are answered.
    pub limits: Limits,
    /// Longer request bodies are answered 413.
    pub max_body_bytes: usize,
}

/// A boolean flag that is true for the members of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// The flag's key.
    pub key: String,
    /// The key of the segment that it targets, `{integration}-{cohort id}`.
    pub segment: String,
    /// Whether it is on; a flag that is off is false for everyone.
    pub on: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            world: fixtures::world(),
            integrations: vec![fixtures::INTEGRATION.into()],
            flags: vec![Flag {
                key: fixtures::FLAG.into(),
                segment: fixtures::SEGMENT.into(),
                on: true,
            }],
            faults: Faults::default(),
            limits: Limits::default(),
            max_body_bytes: MOST_BODY_BYTES,
        }
    }
}

/// A running look-alike; clones are handles to the same one.
#[derive(Clone)]
pub struct Sandbox(Arc<Inner>);

struct Inner {
    settings: Settings,
    state: Mutex<State>,
    /// Told of every arrival, answer and change. It holds no value, so slow listeners miss nothing
    /// that they cannot read from the state.
    activity: watch::Sender<()>,
}

/// All that changes.
struct State {
    segments: segments::Segments,
    flags: flags::Flags,
    deck: faults::Deck,
    meter: rate_limit::Meter,
    calls: calls::CallLog,
    observers: observer::Observers,
    /// Rises when SDKs must forget what they were told: a new flag, a reset.
    epoch: u64,
}

impl State {
    fn new(settings: &Settings) -> Self {
        let mut flags = flags::Flags::default();
        for environment in settings.world.environments() {
            for flag in settings.flags.iter().cloned() {
                flags.put(&environment.client_side_id, flag);
            }
        }
        Self {
            segments: segments::Segments::default(),
            flags,
            deck: faults::Deck::new(settings.faults.clone()),
            meter: rate_limit::Meter::new(settings.limits.clone()),
            calls: calls::CallLog::default(),
            observers: observer::Observers::default(),
            epoch: 0,
        }
    }

    /// Keeps the counters that others compare with what they saw before.
    fn reset(&mut self, settings: &Settings) {
        let fresh = Self::new(settings);
        self.segments.clear();
        self.calls.clear();
        self.flags = fresh.flags;
        self.deck = fresh.deck;
        self.meter = fresh.meter;
        self.epoch += 1;
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Makes a sandbox that answers nobody yet.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Inner {
            state: Mutex::new(State::new(&settings)),
            settings,
            activity: watch::Sender::new(()),
        }))
    }

    /// Answers as a service inside the process. A reset fault breaks the body here; over
    /// [`Sandbox::serve`] it drops the connection.
    pub fn router(&self) -> Router {
        let observed = api::routes()
            .merge(sdk::routes())
            .fallback(api::not_found)
            .method_not_allowed_fallback(api::method_not_allowed)
            .layer(middleware::from_fn(sdk::for_browsers))
            .layer(middleware::from_fn_with_state(self.clone(), door::pass));
        observed.merge(control::routes()).with_state(self.clone())
    }

    /// Answers on a listener, of a real network or another, until `shutdown` is done, then drops every connection: open streams
    /// and hung calls too.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve<L>(
        self,
        listener: L,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()>
    where
        L: Listener,
        L::Io: Wire,
        L::Addr: fmt::Debug,
    {
        serve::run(self.router(), listener, shutdown).await
    }

    /// The members of a segment, by client-side ID and segment key; none if it does not exist.
    pub fn members(&self, environment: &str, segment: &str) -> BTreeSet<String> {
        self.segment(environment, segment)
            .map(|segment| segment.members.0)
            .unwrap_or_default()
    }

    /// A segment, by client-side ID and segment key.
    pub fn segment(&self, environment: &str, segment: &str) -> Option<Segment> {
        self.lock().segments.get(environment, segment).cloned()
    }

    /// The calls that the log still holds, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.after(0).cloned().collect()
    }

    /// Counts since the start or the last reset.
    pub fn totals(&self) -> Totals {
        self.lock().calls.totals().clone()
    }

    /// The faults as they stand, with what is left of counted mishaps.
    pub fn faults(&self) -> Faults {
        self.lock().deck.faults().clone()
    }

    /// Replaces all faults; the draw starts again from their seed.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().deck = faults::Deck::new(faults);
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.lock().meter.limits.clone()
    }

    /// Replaces the limits; what was counted in the running window stays counted.
    pub fn set_limits(&self, limits: Limits) {
        self.lock().meter.limits = limits;
    }

    /// Adds a flag to one environment, points it to another segment, or turns it on or off.
    pub fn put_flag(&self, environment: &str, flag: Flag) {
        let mut state = self.lock();
        state.flags.put(environment, flag);
        state.epoch += 1;
        drop(state);
        self.announce();
    }

    /// Returns to the settings: no segments, no calls, the first faults, limits and flags.
    pub fn reset(&self) {
        self.lock().reset(&self.0.settings);
        self.announce();
    }

    /// Has `observer` told of every segment-targets call that is applied from now on, in the order
    /// in which they are applied and before they are answered; also after a reset.
    ///
    /// It runs while the sandbox's state is locked: it must be quick, must not panic, and must
    /// not come back to the sandbox.
    pub fn observe(&self, observer: impl Fn(&Applied<'_>) + Send + Sync + 'static) {
        self.lock().observers.add(observer);
    }

    /// Waits until the sandbox is as wanted; it looks after every arrival, answer and change.
    /// Cancellation safe. It waits for ever if that never happens: give it a deadline.
    pub async fn until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let mut activity = self.0.activity.subscribe();
        while !is_so(self) {
            activity
                .changed()
                .await
                .expect("the sender lives in the sandbox, which self keeps");
        }
    }

    /// LaunchDarkly's own clock, which a fault may set wrong.
    fn launchdarkly_ms(&self) -> u64 {
        let ahead_ms = self.lock().deck.faults().clock_ahead_ms;
        now_ms().saturating_add_signed(ahead_ms)
    }

    fn announce(&self) {
        self.0.activity.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0
            .state
            .lock()
            .expect("nothing panics while it holds the state")
    }

    fn settings(&self) -> &Settings {
        &self.0.settings
    }
}

/// The wall clock as the log writes it.
fn now_ms() -> u64 {
    u64::try_from(clock::epoch_millis(clock::now())).unwrap_or_default()
}
