//! A simulator of LaunchDarkly: answers as the real one, records its calls, injects faults on demand.
//!
//! It shares no types with the client on purpose: a misreading of LaunchDarkly in one of them must
//! not be repeated by the other, or no test would see it.
//!
//! - The decisions are plain data and functions: [`world`], [`manifest`], [`segments`], [`flags`],
//!   [`faults`], [`rate_limit`], [`calls`], and the listeners of what is [`applied`].
//! - HTTP lies around them: every call passes the [`layer`] (log, limits, faults) to [`api`] (REST)
//!   or [`sdk`] (what LaunchDarkly's SDKs read); [`control`] is the interface for people and tests,
//!   under `/_sandbox/`; [`connections`] holds the connections.
//!
//! Assumptions about LaunchDarkly that nothing documents each stand as a named constant or an error in
//! [`api`], [`manifest`] or [`segments`].

mod api;
mod api_error;
mod applied;
mod auth;
mod calls;
mod connections;
mod context;
mod control;
mod fault_response;
mod faults;
pub mod fixtures;
mod flags;
mod hidden;
mod layer;
mod manifest;
mod rate_limit;
mod sdk;
mod segments;
#[cfg(test)]
mod tests;
mod world;

use std::{collections::BTreeSet, fmt, io, sync::Arc};

use axum::{Router, middleware, serve::Listener};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::clock;

pub use self::{
    applied::Applied,
    calls::{RecordedCall, Totals},
    connections::Wire,
    faults::{Fault, FaultKind, FaultPlan, FaultTiming},
    hidden::Hidden,
    manifest::{Integration, Manifest, ManifestError},
    rate_limit::{IpLimit, RateLimits},
    segments::Segment,
    world::{Denial, Environment, Owner, Project, Rights, Role, SandboxAccount, Token, World},
};

/// Far above what other senders of synced segments send (4 MB); it only keeps memory bounded.
const MOST_BODY_BYTES: usize = 16 * 1024 * 1024;

/// What a sandbox starts with, and returns to when it is reset.
#[derive(Clone, Debug)]
pub struct SandboxOptions {
    /// Accounts, tokens and environments.
    pub world: World,
    /// The integrations that are registered.
    pub integrations: Vec<Integration>,
    /// The flags that every environment has.
    pub flags: Vec<Flag>,
    /// What goes wrong from the start.
    pub faults: FaultPlan,
    /// How many calls are answered.
    pub limits: RateLimits,
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
    /// Whether it is on; a flag that is off is false for every context.
    pub on: bool,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self {
            world: fixtures::world(),
            integrations: vec![Integration::zeotap()],
            flags: vec![Flag {
                key: fixtures::FLAG.into(),
                segment: fixtures::SEGMENT.into(),
                on: true,
            }],
            faults: FaultPlan::default(),
            limits: RateLimits::default(),
            max_body_bytes: MOST_BODY_BYTES,
        }
    }
}

/// A running simulator; clones are handles to the same one.
#[derive(Clone)]
pub struct Sandbox(Arc<SandboxInner>);

struct SandboxInner {
    options: SandboxOptions,
    state: Mutex<SandboxState>,
    /// Wakes its listeners after every arrival, answer and change; they then read the state. It
    /// carries no value, so a slow listener that misses some wake-ups misses nothing.
    activity: watch::Sender<()>,
}

/// All that changes.
struct SandboxState {
    segments: segments::Segments,
    flags: flags::Flags,
    injector: faults::FaultInjector,
    meter: rate_limit::RateMeter,
    calls: calls::CallLog,
    listeners: applied::AppliedListeners,
    /// Rises when SDKs must forget what they were told: a new flag, a reset.
    epoch: u64,
}

impl SandboxState {
    fn new(options: &SandboxOptions) -> Self {
        let mut flags = flags::Flags::default();
        for environment in options.world.environments() {
            for flag in options.flags.iter().cloned() {
                flags.put(&environment.client_side_id, flag);
            }
        }
        Self {
            segments: segments::Segments::default(),
            flags,
            injector: faults::FaultInjector::new(options.faults.clone()),
            meter: rate_limit::RateMeter::new(options.limits.clone()),
            calls: calls::CallLog::default(),
            listeners: applied::AppliedListeners::default(),
            epoch: 0,
        }
    }

    /// Keeps the counters that others compare with what they saw before.
    fn reset(&mut self, options: &SandboxOptions) {
        let fresh = Self::new(options);
        self.segments.clear();
        self.calls.clear();
        self.flags = fresh.flags;
        self.injector = fresh.injector;
        self.meter = fresh.meter;
        self.epoch += 1;
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new(SandboxOptions::default())
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Makes a sandbox, not yet reachable.
    pub fn new(options: SandboxOptions) -> Self {
        Self(Arc::new(SandboxInner {
            state: Mutex::new(SandboxState::new(&options)),
            options,
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
            .layer(middleware::from_fn_with_state(self.clone(), layer::pass));
        observed.merge(control::routes()).with_state(self.clone())
    }

    /// Answers on a listener, of a real network or another, until `shutdown` is done. Then it drops
    /// every connection, open streams and hung calls too.
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
        connections::run(self.router(), listener, shutdown).await
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
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.lock().calls.after(0).cloned().collect()
    }

    /// Counts since the start or the last reset.
    pub fn totals(&self) -> Totals {
        self.lock().calls.totals().clone()
    }

    /// The faults as they stand, with what is left of counted faults.
    pub fn faults(&self) -> FaultPlan {
        self.lock().injector.plan().clone()
    }

    /// Replaces all faults; the draw starts again from their seed.
    pub fn set_faults(&self, faults: FaultPlan) {
        self.lock().injector = faults::FaultInjector::new(faults);
    }

    /// The limits in force.
    pub fn limits(&self) -> RateLimits {
        self.lock().meter.limits.clone()
    }

    /// Replaces the limits; what was counted in the running window stays counted.
    pub fn set_limits(&self, limits: RateLimits) {
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

    /// Returns to the options: no segments, no calls, the first faults, limits and flags.
    pub fn reset(&self) {
        self.lock().reset(&self.0.options);
        self.announce();
    }

    /// Has `listener` told of every segment-targets call that is applied from now on, in the order
    /// in which they are applied and before they are answered; also after a reset.
    ///
    /// It runs while the sandbox's state is locked: it must be quick, must not panic, and must
    /// not come back to the sandbox.
    pub fn observe(&self, listener: impl Fn(&Applied<'_>) + Send + Sync + 'static) {
        self.lock().listeners.add(listener);
    }

    /// Waits until the condition holds; it is checked after every arrival, answer and change.
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
        let ahead_ms = self.lock().injector.plan().clock_ahead_ms;
        now_ms().saturating_add_signed(ahead_ms)
    }

    fn announce(&self) {
        self.0.activity.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, SandboxState> {
        self.0.state.lock()
    }

    fn integration(&self, key: &str) -> Option<&Integration> {
        let mut integrations = self.0.options.integrations.iter();
        integrations.find(|integration| integration.key == key)
    }

    fn options(&self) -> &SandboxOptions {
        &self.0.options
    }
}

/// The wall clock as the log writes it.
fn now_ms() -> u64 {
    u64::try_from(clock::epoch_millis(clock::now())).unwrap_or_default()
}
