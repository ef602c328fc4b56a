//! Lane: the task that delivers to one segment, of one context kind, of one destination.
//!
//! | the lane | until |
//! |---|---|
//! | collects | the batch is due (it fills a call, has lingered or is flushed) and the back-off is over |
//! | waits for a slot | the client gives one; changes go on coalescing meanwhile |
//! | calls | the call's report is in; calls with other keys may overlap |
//! | retires | no handle, no change and no call is left |
//!
//! A lane applies no backpressure of its own: the windows of its streams bound what it holds.

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinError, JoinSet},
    time::Instant,
};
use tracing::{debug, warn};

use super::{
    batch::{Batch, BatchPolicy},
    batch_delivery::{BatchDelivery, DeliveryEnd, DeliveryReport},
    bisect::RefusalHistory,
    concurrency::CallConcurrency,
    directory::{LaneCommand, LaneDirectory, LaneKey},
    health::{DeliveryHealth, HealthReporter},
    live::{LiveDestination, LiveState},
    observed::LaneObserver,
    retry::RetrySchedule,
    streak::Streak,
};
use crate::domain::{
    Attempt, CallLimits, Connection, DeferralCause, Hold, OperationsPerCall, Refusal, Revision,
    SegmentClient, SegmentRef, Slot, TransientError,
};

/// How often overdue records are looked for; also how late a time-out may be reported.
const EXPIRY_TICK: Duration = Duration::from_secs(1);
/// How long a change waits to fill a call while another call is under way. That call's end lets the
/// batch leave anyway, and this bounds the wait behind a call that hangs. Ours: an ordinary call
/// takes a tenth of it.
const LINGER_BESIDE_CALL: Duration = Duration::from_millis(500);
/// How long a segment that was accepted before must be refused until the refusal counts. Ours: a
/// proxy that is being changed may refuse once what LaunchDarkly accepts.
const UNCONFIRMED_REFUSAL_PERIOD: Duration = Duration::from_secs(5);
/// Longest sleep of a lane that has nothing to do; whatever comes, wakes it.
const IDLE: Duration = Duration::from_secs(3600);
/// Commands taken from the inbox at once.
const INBOX_CHUNK: usize = 1024;

/// How lanes batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneSettings {
    /// How long a change may wait for others to fill its call, in a lane with no call under way.
    pub linger: Duration,
}

/// The lane's own side.
pub(super) struct Lane {
    key: LaneKey,
    client: Arc<dyn SegmentClient>,
    destination: LiveDestination,
    segment: SegmentRef,
    directory: Arc<LaneDirectory>,
    /// Bounded by the windows of the streams that submit.
    inbox: mpsc::UnboundedReceiver<LaneCommand>,
    health: HealthReporter,
    batch: Batch,
    concurrency: CallConcurrency,
    /// Awaited by the lane itself, before it retires.
    calls: JoinSet<DeliveryReport>,
    /// Waits for the slot of the next call.
    slot: Option<BoxFuture<'static, Slot>>,
    linger: Duration,
    /// What the next call may carry, by the client's last answer.
    limits: CallLimits,
    /// Successes and refusals so far, in the environment that the lane delivers to.
    history: RefusalHistory,
    /// What the destination was when it was last followed.
    followed: Option<(Revision, Arc<Connection>)>,
    retry: RetrySchedule,
    /// Refusals of a segment that was accepted before.
    refusals: Streak,
    next_expiry: Instant,
    closing: bool,
    observer: LaneObserver,
}

enum LaneEvent {
    Reported(DeliveryReport),
    DestinationChanged,
    SlotGiven(Slot),
    Commands(Vec<LaneCommand>),
    Woken,
}

impl Lane {
    #[expect(clippy::too_many_arguments, reason = "called once, by the dispatcher")]
    pub(super) fn new(
        key: LaneKey,
        settings: LaneSettings,
        client: Arc<dyn SegmentClient>,
        destination: LiveDestination,
        segment: SegmentRef,
        directory: Arc<LaneDirectory>,
        inbox: mpsc::UnboundedReceiver<LaneCommand>,
        health: watch::Sender<DeliveryHealth>,
        observer: LaneObserver,
    ) -> Self {
        let now = Instant::now();
        Self {
            key,
            client,
            destination,
            segment,
            directory,
            inbox,
            health: HealthReporter::new(health),
            batch: Batch::new(observer.clone()),
            observer,
            concurrency: CallConcurrency::new(),
            calls: JoinSet::new(),
            slot: None,
            linger: settings.linger,
            // The client is asked as soon as the destination is followed.
            limits: CallLimits {
                max_members: usize::MAX,
                operations: OperationsPerCall::One,
            },
            history: RefusalHistory::default(),
            followed: None,
            retry: RetrySchedule::new(now),
            refusals: Streak::default(),
            next_expiry: now + EXPIRY_TICK,
            closing: false,
        }
    }

    /// Runs until no stream needs the lane.
    pub(super) async fn run(mut self) {
        debug!("lane starts");
        while !self.retires() {
            if let Some(connection) = self.follow_destination() {
                self.request_slot(connection);
            }
            match self.next_event().await {
                LaneEvent::Reported(report) => self.handle_report(report),
                // The next turn of the loop follows it, before anything else happens.
                LaneEvent::DestinationChanged => {}
                LaneEvent::SlotGiven(slot) => self.start_call(slot),
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
            biased;
            // A report frees keys, and lets another call overlap, so reports come first.
            Some(ended) = self.calls.join_next() => match ended {
                Ok(report) => LaneEvent::Reported(report),
                Err(error) => unreported(error).await,
            },
            // The destination comes before a slot: no call may start with a token that is known to
            // be refused.
            () = self.destination.changed() => LaneEvent::DestinationChanged,
            // A slot comes before new changes: the account waits for the call, and changes that
            // are not read yet leave with the next one.
            slot = resolve(&mut self.slot) => LaneEvent::SlotGiven(slot),
            // New changes, flushes, streams that have gone.
            _ = self.inbox.recv_many(&mut commands, INBOX_CHUNK) => LaneEvent::Commands(commands),
            // The batch becomes due, the back-off ends, or a time-out may have passed.
            () = tokio::time::sleep_until(wake) => LaneEvent::Woken,
        }
    }

    fn handle_command(&mut self, command: LaneCommand) {
        match command {
            LaneCommand::Submit(changes) => {
                let now = Instant::now();
                for change in changes {
                    self.batch.push(change, now);
                }
            }
            LaneCommand::Rename(segment) => self.segment = segment,
            LaneCommand::Flush => self.batch.flush(),
            LaneCommand::Sweep => self.batch.sweep(),
            LaneCommand::Close => self.closing = true,
        }
    }

    /// While a call is under way, a half-full call beside it would only be one more call.
    fn policy(&self) -> BatchPolicy {
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

    /// Whether the lane neither waits for a slot already nor has all the calls that may overlap.
    fn may_request_slot(&self) -> bool {
        self.slot.is_none() && self.calls.len() < self.concurrency.size()
    }

    /// When to look again if nothing else happens.
    fn wake_time(&self) -> Instant {
        let now = Instant::now();
        if self.batch.is_empty() {
            return now + IDLE;
        }
        let due = self.batch.due(self.policy(), now);
        let due = due.filter(|_| self.may_request_slot());
        due.map_or(self.next_expiry, |due| {
            due.max(self.retry.not_before()).min(self.next_expiry)
        })
    }

    fn expire(&mut self) {
        let now = Instant::now();
        if now >= self.next_expiry {
            self.report_hold();
            self.batch.expire(now, self.health.last_error());
            self.next_expiry = now + EXPIRY_TICK;
        }
    }

    /// Reports a hold that began while the lane waits for a slot: no answer of its own would.
    fn report_hold(&mut self) {
        let (Some(_), Some((_, connection))) = (&self.slot, &self.followed) else {
            return;
        };
        if let Some(hold) = self.client.hold(connection) {
            self.health.held(hold);
        }
    }

    /// Collects → waits for a slot: the batch is due, the back-off is over, and one more call may
    /// overlap.
    fn request_slot(&mut self, connection: Arc<Connection>) {
        let now = Instant::now();
        let policy = self.policy();
        let due = self.batch.due(policy, now).is_some_and(|due| due <= now);
        if !due || !self.may_request_slot() || now < self.retry.not_before() {
            return;
        }
        if let Some(hold) = self.client.hold(&connection) {
            self.health.held(hold);
        }
        let attempt = if self.batch.is_retry(policy, now) {
            Attempt::Retry
        } else {
            Attempt::First
        };
        let (client, segment) = (Arc::clone(&self.client), self.key.segment.clone());
        self.slot = Some(Box::pin(async move {
            client.ready(&connection, &segment, attempt).await
        }));
    }

    /// Waits for a slot → calls: seals the batch and sends it.
    fn start_call(&mut self, slot: Slot) {
        let now = Instant::now();
        // A destination that has changed in this very moment is followed first.
        let followed = self.followed.clone();
        let in_force = |(revision, _): &(Revision, _)| self.destination.is_in_force(*revision);
        let Some((revision, connection)) = followed.filter(in_force) else {
            return;
        };
        self.batch.expire(now, self.health.last_error());
        // Another lane's call may have met a limit since.
        self.limits = self.client.limits(&connection);
        let Some(sealed) = self.batch.seal(self.policy(), now) else {
            return;
        };
        let call = BatchDelivery {
            client: Arc::clone(&self.client),
            destination: self.destination.clone(),
            connection,
            revision,
            segment: self.segment.clone(),
            history: self.history,
            observer: self.observer.clone(),
        };
        self.calls.spawn(call.run(slot, sealed));
    }

    /// Calls → collects: handles the result of a batch delivery.
    fn handle_report(&mut self, report: DeliveryReport) {
        let DeliveryReport {
            slots,
            left,
            end,
            applied,
            history,
            revision,
        } = report;
        self.batch.end_call(slots, left);
        self.history.merge(history);
        if applied {
            self.succeeded(revision);
        }
        match end {
            // The rest is due at once, by the current state of the destination.
            DeliveryEnd::Completed | DeliveryEnd::Outdated => {}
            DeliveryEnd::RetryLater { error, retry_after } => self.retry_later(error, retry_after),
            DeliveryEnd::Held(hold) => self.back_off(hold),
            DeliveryEnd::CredentialsRefused => self.refuse_credentials(revision),
            // If the destination has changed meanwhile, the rest is due by its current state.
            DeliveryEnd::Refused(refusal) if self.destination.is_in_force(revision) => {
                self.refused(refusal, revision);
            }
            DeliveryEnd::Refused(_) => {}
        }
    }

    fn succeeded(&mut self, revision: Revision) {
        self.retry.succeeded();
        self.concurrency.succeeded();
        self.refusals.end();
        self.destination.permit(revision, &self.key.segment);
        self.health.delivering();
    }

    fn refuse_credentials(&self, revision: Revision) {
        // If they have been rotated meanwhile, the rest is delivered with the new ones.
        if self.destination.refuse_credentials(revision) {
            warn!("credentials were refused");
        }
    }

    /// The segment is refused. If it was accepted before, the refusal counts only once it has
    /// lasted.
    fn refused(&mut self, refusal: Refusal, revision: Revision) {
        let now = Instant::now();
        if self.history.has_succeeded && self.refusals.extend(now) < UNCONFIRMED_REFUSAL_PERIOD {
            return self.retry_later(TransientError::Unconfirmed(refusal), None);
        }
        warn!(?refusal, "segment was refused");
        self.refusals.end();
        // By the time a stream comes back, the cause may be gone.
        self.history.reset();
        if refusal != Refusal::Forbidden {
            self.batch.defer(DeferralCause::Segment);
        } else if self.destination.forbid(revision, &self.key.segment) {
            self.refuse_credentials(revision);
        } else {
            self.batch.defer(DeferralCause::Permission);
        }
    }

    fn retry_later(&mut self, error: TransientError, retry_after: Option<Duration>) {
        if error == TransientError::Conflict {
            self.concurrency.conflicted();
        }
        let until = self.retry.failed(retry_after, Instant::now());
        self.back_off(Hold { until, error });
    }

    /// Any state → collects, with no slot asked for before the hold is over.
    fn back_off(&mut self, hold: Hold) {
        // The call that waited for a slot waits as well, and may be a retry by then.
        self.slot = None;
        let hold = self.retry.wait_for(hold);
        self.health.held(hold);
    }

    /// Follows the current state of the destination, and returns its connection. If it cannot be
    /// called, all waiting changes are deferred.
    fn follow_destination(&mut self) -> Option<Arc<Connection>> {
        let cause = match self.destination.current() {
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
        self.slot = None;
        self.batch.defer(cause);
        None
    }

    fn switch_connection(&mut self, before: &Connection, now: &Connection) {
        // The awaited slot would belong to the old token.
        self.slot = None;
        self.refusals.end();
        if !before.is_same_environment(now) {
            self.history.reset();
        }
        self.client.connection_replaced(before, now);
        self.limits = self.client.limits(now);
    }

    /// Collects → retires, unless a handle has been opened meanwhile.
    fn retires(&mut self) -> bool {
        self.closing && self.batch.is_empty() && self.calls.is_empty() && self.inbox.is_empty() && {
            // The directory need not be asked again until the next handle is closed.
            self.closing = false;
            self.directory.retire(&self.key)
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // After a panic the lane is still in the directory: the next stream must not find it.
        self.directory.forget(&self.key, self.health.sender());
    }
}

/// What a call means that brought no report. A panic is the lane's as well. Only the runtime aborts
/// a call, when the process ends; then this task is about to end, too.
async fn unreported(error: JoinError) -> LaneEvent {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}

/// Awaits a slot across iterations of the loop: other events do not cost the call its position in
/// the queue. Cancel safe: the future stays in `waiting`.
async fn resolve(waiting: &mut Option<BoxFuture<'static, Slot>>) -> Slot {
    match waiting {
        Some(slot) => {
            let slot = slot.await;
            *waiting = None;
            slot
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
