//! The exchange on an open stream: an event loop that moves records in and results out.

use futures_util::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tracing::debug;

use super::{draining, records::SessionRecords};
use crate::{
    delivery::{DeferralCause, DeliveryHealth, LiveDestination, SettledRun},
    domain::{DestinationName, SegmentId},
    pb::{self, send_identifiers_response::Message as Out},
    server::{
        status::Failure,
        stream::{
            accounting::StreamAccounting,
            context::StreamContext,
            fences::Lease,
            inbound::{Inbound, Received},
            lifetime::{Lifetime, WakeAction},
            opening::{self, AdmittedStream, Opening},
            outbox::Outbox,
            responses::{ResponseSender, SessionEnd},
        },
    },
};

/// An open stream.
pub(super) struct Session {
    destination: DestinationName,
    segment: SegmentId,
    live: LiveDestination,
    health: watch::Receiver<DeliveryHealth>,
    pub(super) lease: Option<Box<dyn Lease>>,
    pub(super) records: SessionRecords,
    pub(super) inbound: Inbound,
    pub(super) outbox: Outbox,
    process_drain: watch::Receiver<Option<Instant>>,
    lifetime: Lifetime,
}

enum SessionEvent<'a> {
    Gone,
    Superseded,
    DestinationChanged,
    Settled(Vec<SettledRun>),
    Writable(mpsc::Permit<'a, pb::SendIdentifiersResponse>),
    HealthChanged,
    ProcessDrains(Instant),
    Woken,
    Received(Result<Received, SessionEnd>),
}

impl Session {
    pub(super) fn new(
        context: &StreamContext,
        opening: Opening,
        admitted: AdmittedStream,
        inbound: Inbound,
    ) -> Self {
        let limits = &context.limits;
        let AdmittedStream {
            mapping,
            live,
            lane,
            lease,
        } = admitted;
        let opened = pb::StreamOpened {
            max_batch_records: i32::try_from(limits.max_batch_records).unwrap_or(i32::MAX),
            max_in_flight_records: i32::try_from(limits.max_in_flight_records).unwrap_or(i32::MAX),
        };
        let mut health = lane.health();
        // A stream that joins a lane that does not deliver gets a notice at once.
        let outbox = Outbox::new(opened, *health.borrow_and_update());
        let counted = || context.metrics.tally(&opening.destination.to_string());
        let accounting = StreamAccounting::new(limits, (!opening.validate_only).then(counted));
        let records = SessionRecords::new(lane, mapping, accounting, &opening);
        Self {
            destination: opening.destination.into_inner(),
            segment: opening.segment.id,
            live,
            health,
            lease,
            records,
            inbound,
            outbox,
            process_drain: context.drain.clone(),
            lifetime: Lifetime::new(limits, fastrand::f64(), Instant::now()),
        }
    }

    /// Handles events until the stream is complete or must end.
    pub(super) async fn run(&mut self, responses: &ResponseSender) -> SessionEnd {
        while !self.is_complete() {
            let event = self.next_event(responses).await;
            if let Err(end) = self.handle(event) {
                return end;
            }
        }
        // Half-closed → ending.
        SessionEnd::Complete
    }

    async fn next_event<'a>(&mut self, responses: &'a ResponseSender) -> SessionEvent<'a> {
        let ledger = self.records.accounting.ledger();
        let has_news = ledger.has_news() || !self.outbox.is_empty();
        let reads = !self.inbound.is_half_closed() && ledger.is_window_open();
        let drains = !self.lifetime.is_draining();
        let wake = self.lifetime.next_wake();
        // Biased, so that what ends the stream comes first, and results go out before more records
        // come in: a fast sender cannot keep them back. Every branch is cancel safe.
        tokio::select! {
            biased;
            // The client went away: no response can reach it.
            () = responses.closed() => SessionEvent::Gone,
            // A newer stream took over: this one must not start another call.
            () = superseded(self.lease.as_deref()) => SessionEvent::Superseded,
            // The destination got a new revision, was refused, or was deleted.
            () = self.live.changed() => SessionEvent::DestinationChanged,
            // Records got their verdicts.
            verdicts = self.records.verdicts() => SessionEvent::Settled(verdicts),
            // The connection takes another message. Only waited for while there is one.
            Ok(permit) = responses.reserve(), if has_news => SessionEvent::Writable(permit),
            // Delivery goes better or worse.
            Ok(()) = self.health.changed() => SessionEvent::HealthChanged,
            // The process stops. A stream that drains already keeps its own deadline.
            deadline = asked_to_drain(&mut self.process_drain), if drains => {
                SessionEvent::ProcessDrains(deadline)
            }
            // The stream is old, idle, or at the end of its drain.
            () = tokio::time::sleep_until(wake) => SessionEvent::Woken,
            // A message arrives. Backpressure: while the window is full, none is read.
            received = self.inbound.next(), if reads => SessionEvent::Received(received),
        }
    }

    fn handle(&mut self, event: SessionEvent<'_>) -> Result<(), SessionEnd> {
        match event {
            SessionEvent::Gone => Err(SessionEnd::Gone),
            SessionEvent::Superseded => Err(self.superseded()),
            SessionEvent::DestinationChanged => {
                opening::usable(&self.live, &self.destination).map_err(SessionEnd::Failed)
            }
            SessionEvent::Settled(verdicts) => self.take_verdicts(verdicts),
            SessionEvent::Writable(permit) => {
                send(permit, &mut self.outbox, &mut self.records.accounting);
                Ok(())
            }
            SessionEvent::HealthChanged => {
                self.outbox.notify(*self.health.borrow_and_update());
                Ok(())
            }
            // Open → draining: the process stops.
            SessionEvent::ProcessDrains(deadline) => {
                self.lifetime.drain_until(deadline, draining());
                self.ask_to_move(deadline);
                Ok(())
            }
            SessionEvent::Woken => self.wake(),
            SessionEvent::Received(received) => self.receive(received?),
        }
    }

    /// Every record has a result, and the client has been sent all there is.
    fn is_complete(&self) -> bool {
        let ledger = self.records.accounting.ledger();
        self.inbound.is_half_closed()
            && ledger.is_settled()
            && !ledger.has_news()
            && self.outbox.is_empty()
    }

    fn superseded(&self) -> SessionEnd {
        let key = self.lease.as_ref().map(|lease| lease.key());
        let stream_id = key.map(|key| key.stream_id.clone()).unwrap_or_default();
        SessionEnd::Failed(Failure::StreamSuperseded(stream_id))
    }

    /// Takes verdicts in. A record that cannot have a result ends the stream.
    fn take_verdicts(&mut self, verdicts: Vec<SettledRun>) -> Result<(), SessionEnd> {
        self.lifetime.note_activity(Instant::now());
        let deferred = self.records.record_verdicts(verdicts);
        match deferred.map_err(SessionEnd::Failed)? {
            None => Ok(()),
            Some(cause) => Err(SessionEnd::Failed(self.failure(cause))),
        }
    }

    fn failure(&self, cause: DeferralCause) -> Failure {
        match cause {
            DeferralCause::Credentials => Failure::CredentialsRejected(self.destination.clone()),
            DeferralCause::Segment => Failure::SegmentRejected(self.segment.clone()),
            DeferralCause::Permission => Failure::SegmentForbidden(self.segment.clone()),
            DeferralCause::Deleted => Failure::DestinationDeleted(self.destination.clone()),
            DeferralCause::Abandoned => Failure::Internal,
        }
    }

    fn wake(&mut self) -> Result<(), SessionEnd> {
        let is_settled = self.records.accounting.ledger().is_settled();
        match self.lifetime.wake(Instant::now(), is_settled) {
            WakeAction::Continue => {}
            // Open → draining: the stream is old or idle.
            WakeAction::Drain(deadline) => self.ask_to_move(deadline),
            // Draining → ending: the client has not moved in time.
            WakeAction::End(failure) => return Err(SessionEnd::Failed(failure)),
        }
        Ok(())
    }

    /// Asks the client to move, and hurries what it has sent.
    fn ask_to_move(&mut self, deadline: Instant) {
        debug!("stream drains");
        self.outbox.drain(deadline);
        self.records.submitter.flush();
    }

    /// Takes in a message, and those behind it that have come already: a wake-up costs more than a
    /// small message.
    fn receive(&mut self, mut received: Received) -> Result<(), SessionEnd> {
        self.lifetime.note_activity(Instant::now());
        let taken = loop {
            match received {
                Received::Batch(batch) => {
                    if let Err(end) = self.records.take(&batch) {
                        break Err(end);
                    }
                }
                // Open or draining → half-closed.
                Received::HalfClosed => break Ok(()),
                Received::Open(_) | Received::Nothing => {
                    let rule = "every message after the first must be `batch`";
                    break Err(SessionEnd::Failed(Failure::StreamProtocol(rule.into())));
                }
            }
            if !self.records.takes_more() {
                break Ok(());
            }
            match self.inbound.next().now_or_never() {
                None => break Ok(()),
                Some(Err(end)) => break Err(end),
                Some(Ok(next)) => received = next,
            }
        };
        // Also what came before a message that ends the stream.
        self.records.hand_over(&self.inbound);
        if self.inbound.is_half_closed() {
            // What was sent leaves at once.
            self.records.submitter.flush();
        }
        taken
    }
}

/// Sends the next message: the outbox first, and then results.
pub(super) fn send(
    permit: mpsc::Permit<'_, pb::SendIdentifiersResponse>,
    outbox: &mut Outbox,
    accounting: &mut StreamAccounting,
) {
    let message = outbox.pop().or_else(|| accounting.report().map(Out::Ack));
    if message.is_some() {
        permit.send(pb::SendIdentifiersResponse { message });
    }
}

async fn superseded(lease: Option<&dyn Lease>) {
    match lease {
        Some(lease) => lease.superseded().await,
        None => std::future::pending().await,
    }
}

async fn asked_to_drain(drain: &mut watch::Receiver<Option<Instant>>) -> Instant {
    let asked = drain
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|asked| *asked);
    match asked {
        Some(deadline) => deadline,
        // The sender is gone, so the process asks no more.
        None => std::future::pending().await,
    }
}
