//! One lane: the task that delivers to one segment of one destination.
//!
//! | the lane | leaves when |
//! |---|---|
//! | collects | the batch is full, has lingered or is flushed, and its back-off is over |
//! | waits for a slot | the client is ready; changes still coalesce meanwhile |
//! | calls | the call's report is in; disjoint keys may be in other calls |
//! | retires | no handle, no change and no call is left |

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tracing::{debug, info, warn};

use super::{
    ack::Ack,
    batch::{Batch, BatchPolicy},
    batch_delivery::{BatchDelivery, DeliveryEnd, DeliveryReport},
    bisect::RefusalHistory,
    concurrency::CallConcurrency,
    lanes::{LaneDirectory, LaneKey},
    live::{LiveDestination, LiveState},
    observed::LaneObserver,
    streak::Streak,
};
use crate::{
    backoff::Backoff,
    domain::{
        Attempt, CallLimits, Connection, ContextKey, DeferralCause, Hold, Operation,
        OperationsPerCall, Refusal, Revision, SegmentClient, SegmentRef, Slot, TransientError,
    },
};

/// Delay between a lane's attempts while the vendor is in trouble. It starts near one round
/// trip, and ends early: what spares a vendor in trouble is the client, in which all lanes of
/// an account wait; a long delay on top would only notice its recovery late.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(2),
};
/// How often overdue records are looked for; also how late a time-out may be reported.
const EXPIRY_TICK: Duration = Duration::from_secs(1);
/// How long a change waits to fill a call while another call is under way: as long as that takes,
/// since its end lets the batch leave anyway, but not behind one that hangs. Ours: an ordinary
/// call takes a tenth of it.
const LINGER_BESIDE_CALL: Duration = Duration::from_millis(500);
/// How long a segment that was accepted before may be refused until that is believed. Ours: what
/// stands between may say once what LaunchDarkly does not mean, while it is being changed.
const UNCONFIRMED_REFUSAL_PERIOD: Duration = Duration::from_secs(5);
/// How long nothing but conflicts may come before people are told. One by itself is ordinary.
const CONFLICT_NOTICE_DELAY: Duration = Duration::from_secs(3);
/// Commands taken from the inbox at once.
const INBOX_CHUNK: usize = 1024;

/// How lanes batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneSettings {
    /// How long a change may wait for others to fill its call, in a lane with no call under way.
    pub linger: Duration,
}

/// How delivery to the vendor goes, for people who watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryHealth {
    /// Calls succeed, or none were needed yet.
    Delivering,
    /// The vendor limits the rate.
    Throttled {
        /// When the next attempt is due.
        until: Instant,
    },
    /// The vendor reports nothing but conflicts with other changes of the segment.
    Conflicting {
        /// When the next attempt is due.
        until: Instant,
    },
    /// The vendor cannot be reached or fails.
    Unreachable {
        /// When the next attempt is due.
        until: Instant,
        /// What went wrong last.
        error: TransientError,
    },
}

impl fmt::Display for DeliveryHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |until: &Instant| {
            until
                .saturating_duration_since(Instant::now())
                .as_secs_f32()
        };
        match self {
            Self::Delivering => f.write_str("going on"),
            Self::Throttled { until } => write!(f, "throttled for {:.1} s", wait(until)),
            Self::Conflicting { until } => {
                write!(f, "held up for {:.1} s by conflicts", wait(until))
            }
            Self::Unreachable { until, error } => {
                write!(f, "held up for {:.1} s, since {error}", wait(until))
            }
        }
    }
}

impl DeliveryHealth {
    fn held(Hold { until, error }: Hold) -> Self {
        match error {
            TransientError::RateLimited => Self::Throttled { until },
            TransientError::Conflict => Self::Conflicting { until },
            _ => Self::Unreachable { until, error },
        }
    }

    fn is_same_state(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// What streams tell a lane.
#[derive(Debug)]
pub(super) enum LaneCommand {
    /// Deliver this change.
    Submit {
        key: ContextKey,
        operation: Operation,
        ack: Ack,
    },
    /// Use this name for the segment.
    Rename(SegmentRef),
    /// A stream waits for its results: do not linger.
    Flush,
    /// A stream is gone: forget its changes.
    Sweep,
    /// A handle is gone: perhaps it was the last.
    Close,
}

/// The lane's own side.
pub(super) struct Lane {
    key: LaneKey,
    client: Arc<dyn SegmentClient>,
    live: LiveDestination,
    segment: SegmentRef,
    directory: Arc<LaneDirectory>,
    /// Bounded by the windows of the streams that submit.
    inbox: mpsc::UnboundedReceiver<LaneCommand>,
    health: watch::Sender<DeliveryHealth>,
    batch: Batch,
    concurrency: CallConcurrency,
    /// Awaited by the lane itself, before it retires.
    calls: JoinSet<DeliveryReport>,
    /// Resolves when the client lets the next call start.
    ready: Option<BoxFuture<'static, Slot>>,
    linger: Duration,
    /// What the next call may carry, as the client last told.
    limits: CallLimits,
    /// What its calls have met so far in the environment that it delivers to.
    history: RefusalHistory,
    /// What the target was when it was last followed.
    followed: Option<(Revision, Arc<Connection>)>,
    failures: u32,
    not_before: Instant,
    last_error: Option<TransientError>,
    /// Nothing but conflicts.
    conflicts: Streak,
    /// Refusals of a segment that was accepted before.
    refusals: Streak,
    next_expiry: Instant,
    closing: bool,
}

enum LaneEvent {
    Reported(DeliveryReport),
    DestinationChanged,
    Ready(Slot),
    Commands(Vec<LaneCommand>),
    Woken,
}

impl Lane {
    #[expect(clippy::too_many_arguments, reason = "called once, by the directory")]
    pub(super) fn new(
        key: LaneKey,
        settings: LaneSettings,
        client: Arc<dyn SegmentClient>,
        live: LiveDestination,
        segment: SegmentRef,
        directory: Arc<LaneDirectory>,
        inbox: mpsc::UnboundedReceiver<LaneCommand>,
        health: watch::Sender<DeliveryHealth>,
        observer: LaneObserver,
    ) -> Self {
        Self {
            key,
            client,
            live,
            segment,
            directory,
            inbox,
            health,
            batch: Batch::new(observer),
            concurrency: CallConcurrency::new(),
            calls: JoinSet::new(),
            ready: None,
            linger: settings.linger,
            // The client tells them as soon as the destination is followed.
            limits: CallLimits {
                max_members: usize::MAX,
                operations: OperationsPerCall::One,
            },
            history: RefusalHistory::default(),
            followed: None,
            failures: 0,
            not_before: Instant::now(),
            last_error: None,
            conflicts: Streak::default(),
            refusals: Streak::default(),
            next_expiry: Instant::now() + EXPIRY_TICK,
            closing: false,
        }
    }

    /// Runs until nobody needs the lane.
    pub(super) async fn run(mut self) {
        debug!("lane starts");
        while !self.retires() {
            if let Some(connection) = self.follow_destination() {
                self.request_slot(connection);
            }
            match self.next_event().await {
                LaneEvent::Reported(report) => self.handle_report(report),
                // It is followed before whatever comes next.
                LaneEvent::DestinationChanged => {}
                LaneEvent::Ready(slot) => self.start_call(slot),
                LaneEvent::Commands(commands) => {
                    commands.into_iter().for_each(|c| self.handle_command(c))
                }
                LaneEvent::Woken => self.expire(),
            }
        }
        debug!("lane retires");
    }

    async fn next_event(&mut self) -> LaneEvent {
        let wake = self.wake_time();
        let mut commands = Vec::new();
        tokio::select! {
            // Reports first: they free keys and slots. The target before a departure: a call
            // must not leave with a token known to be refused.
            biased;
            Some(ended) = self.calls.join_next() => match ended {
                Ok(report) => LaneEvent::Reported(report),
                Err(error) => unreported(error).await,
            },
            () = self.live.changed() => LaneEvent::DestinationChanged,
            slot = resolve(&mut self.ready) => LaneEvent::Ready(slot),
            _ = self.inbox.recv_many(&mut commands, INBOX_CHUNK) => LaneEvent::Commands(commands),
            () = tokio::time::sleep_until(wake) => LaneEvent::Woken,
        }
    }

    fn handle_command(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Submit {
                key,
                operation,
                ack,
            } => {
                self.batch.push(key, operation, ack, Instant::now());
            }
            LaneCommand::Rename(segment) => self.segment = segment,
            LaneCommand::Flush => self.batch.flush(),
            LaneCommand::Sweep => self.batch.sweep(),
            LaneCommand::Close => self.closing = true,
        }
    }

    /// While a call is under way, half-full calls beside it would only cost more of them.
    fn rule(&self) -> BatchPolicy {
        let linger = if self.calls.is_empty() {
            self.linger
        } else {
            self.linger.max(LINGER_BESIDE_CALL)
        };
        BatchPolicy {
            linger,
            limits: self.limits,
        }
    }

    /// When to look again if nothing else happens.
    fn wake_time(&mut self) -> Instant {
        if self.batch.is_empty() {
            // Nothing to expire and nothing to send; whatever comes, wakes.
            return Instant::now() + Duration::from_secs(3600);
        }
        let now = Instant::now();
        let departs =
            (self.ready.is_none() && self.calls.len() < self.concurrency.size()).then(|| {
                self.batch
                    .due(self.rule(), now)
                    .map(|due| due.max(self.not_before))
            });
        departs
            .flatten()
            .unwrap_or(self.next_expiry)
            .min(self.next_expiry)
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if now >= self.next_expiry {
            self.report_hold();
            self.batch.expire(now, self.last_error);
            self.next_expiry = now + EXPIRY_TICK;
        }
    }

    /// A lane in line has no answer of its own to learn from that the client began to hold calls
    /// back: its streams hear of it all the same.
    fn report_hold(&mut self) {
        let (Some(_), Some((_, connection))) = (&self.ready, &self.followed) else {
            return;
        };
        if let Some(hold) = self.client.hold(connection) {
            self.report_transient_error(hold);
        }
    }

    /// Queues for a slot as soon as there is something to send.
    fn request_slot(&mut self, connection: Arc<Connection>) {
        let now = Instant::now();
        let due = self
            .batch
            .due(self.rule(), now)
            .is_some_and(|due| due <= now);
        let may = self.ready.is_none()
            && self.calls.len() < self.concurrency.size()
            && now >= self.not_before;
        if due && may {
            if let Some(hold) = self.client.hold(&connection) {
                self.report_transient_error(hold);
            }
            let (client, segment) = (Arc::clone(&self.client), self.key.1.clone());
            let attempt = if self.batch.repeats(self.rule(), now) {
                Attempt::Retry
            } else {
                Attempt::First
            };
            self.ready = Some(Box::pin(async move {
                client.ready(&connection, &segment, attempt).await
            }));
        }
    }

    /// Seals a batch and sends it off.
    fn start_call(&mut self, slot: Slot) {
        let now = Instant::now();
        // A target that has changed in this very moment is followed first.
        let followed = self.followed.clone();
        let Some((revision, connection)) = followed.filter(|(r, _)| self.live.is_in_force(*r))
        else {
            return;
        };
        self.batch.expire(now, self.last_error);
        self.limits = self.client.limits(&connection);
        let Some(sealed) = self.batch.seal(self.rule(), now) else {
            return;
        };
        let call = BatchDelivery {
            client: Arc::clone(&self.client),
            live: self.live.clone(),
            connection,
            revision,
            segment: self.segment.clone(),
            history: self.history,
        };
        self.calls.spawn(call.run(slot, sealed));
    }

    /// Takes in what a call left behind.
    fn handle_report(&mut self, report: DeliveryReport) {
        let DeliveryReport {
            keys,
            left,
            end,
            applied,
            history,
            revision,
        } = report;
        self.batch.release(&keys);
        self.batch.restore(left);
        self.history.merge(history);
        if applied {
            self.succeeded(revision);
        }
        match end {
            DeliveryEnd::Judged | DeliveryEnd::Outdated => {}
            DeliveryEnd::Later { error, retry_after } => self.retry_later(error, retry_after),
            DeliveryEnd::Held(hold) => self.back_off_until(hold),
            DeliveryEnd::CredentialsRefused => self.refuse_credentials(revision),
            // If the destination has changed meanwhile, the rest goes out by what it says now.
            DeliveryEnd::Refused(refusal) if self.live.is_in_force(revision) => {
                self.refused(refusal, revision);
            }
            DeliveryEnd::Refused(_) => {}
        }
    }

    fn succeeded(&mut self, revision: Revision) {
        self.failures = 0;
        self.concurrency.succeeded();
        self.last_error = None;
        self.conflicts.end();
        self.refusals.end();
        self.live.permit(revision, &self.key.1);
        self.report_health(DeliveryHealth::Delivering);
    }

    fn refuse_credentials(&self, revision: Revision) {
        // If they have been rotated meanwhile, the rest goes out with the new ones.
        if self.live.refuse_credentials(revision) {
            warn!("credentials were refused");
        }
    }

    /// The segment is refused. If it was accepted before, that is not believed at once.
    fn refused(&mut self, refusal: Refusal, revision: Revision) {
        if self.history.proven && self.refusals.go_on(Instant::now()) < UNCONFIRMED_REFUSAL_PERIOD {
            return self.retry_later(TransientError::Unconfirmed(refusal), None);
        }
        warn!(?refusal, "segment was refused");
        self.refusals.end();
        // Whoever comes back may have had it mended.
        self.history.reset();
        if refusal != Refusal::Forbidden {
            self.batch.defer(DeferralCause::Segment);
        } else if self.live.forbid(revision, &self.key.1) {
            self.refuse_credentials(revision);
        } else {
            self.batch.defer(DeferralCause::Permission);
        }
    }

    fn retry_later(&mut self, error: TransientError, retry_after: Option<Duration>) {
        if error == TransientError::Conflict {
            self.concurrency.conflicted();
        }
        let delay = BACKOFF.delay(self.failures, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        let wait = delay.max(retry_after.unwrap_or_default());
        self.back_off_until(Hold {
            until: Instant::now() + wait,
            error,
        });
    }

    fn back_off_until(&mut self, Hold { until, error }: Hold) {
        self.not_before = self.not_before.max(until);
        // A call that was about to leave waits too, and may be a repeated one by then.
        self.ready = None;
        self.report_transient_error(Hold {
            until: self.not_before,
            error,
        });
    }

    fn report_transient_error(&mut self, hold: Hold) {
        self.last_error = Some(hold.error);
        if hold.error == TransientError::Conflict {
            if self.conflicts.go_on(Instant::now()) < CONFLICT_NOTICE_DELAY {
                return;
            }
        } else {
            self.conflicts.end();
        }
        self.report_health(DeliveryHealth::held(hold));
    }

    fn report_health(&self, health: DeliveryHealth) {
        self.health.send_if_modified(|known| {
            let changed = !known.is_same_state(&health);
            if changed {
                info!("delivery is {health} now");
            }
            *known = health;
            changed
        });
    }

    /// Takes note of what the target is now, and returns how it can be called. One that cannot be
    /// defers all that waits.
    fn follow_destination(&mut self) -> Option<Arc<Connection>> {
        let cause = match self.live.current() {
            (revision, LiveState::Active(connection)) => {
                let now = (revision, Arc::clone(&connection));
                match self.followed.replace(now) {
                    Some((known, _)) if known == revision => {}
                    Some((_, before)) => self.switch_connection(&before, &connection),
                    None => self.limits = self.client.limits(&connection),
                }
                return Some(connection);
            }
            (_, LiveState::Rejected) => DeferralCause::Credentials,
            (_, LiveState::Deleted) => DeferralCause::Deleted,
        };
        self.ready = None;
        self.batch.defer(cause);
        None
    }

    fn switch_connection(&mut self, before: &Connection, now: &Connection) {
        // What waits for a slot waits with the credentials of before.
        self.ready = None;
        self.refusals.end();
        if !before.is_same_environment(now) {
            self.history.reset();
        }
        self.client.connection_replaced(before, now);
        self.limits = self.client.limits(now);
    }

    fn retires(&mut self) -> bool {
        self.closing && self.batch.is_empty() && self.calls.is_empty() && self.inbox.is_empty() && {
            // Until the next handle is closed there is nothing new to ask.
            self.closing = false;
            self.directory.retire(&self.key)
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Only a panic gets here unretired: the next stream must find no dead lane.
        self.directory.forget(&self.key, &self.health);
    }
}

/// What a call means that brought no report. Nobody aborts calls but the runtime, when the process
/// ends with some under way; then this task is about to end as well.
async fn unreported(error: JoinError) -> LaneEvent {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}

/// Awaits a future that is kept between turns of the loop, so that waiting in line is not
/// started over whenever something else happens. Cancel safe: the future stays in its place.
async fn resolve(ready: &mut Option<BoxFuture<'static, Slot>>) -> Slot {
    match ready {
        Some(waiting) => {
            let slot = waiting.await;
            *ready = None;
            slot
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
