//! The exchange on an open stream: the loop that moves records in and results out.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tonic::{Status, Streaming};
use tracing::{debug, info};

use super::{SessionEnd, draining, send_status};
use crate::{
    delivery::{
        AckIssuer, DeferralCause, DeliveryHealth, LaneHandle, LiveDestination, SettledRecord,
    },
    domain::{ContextKey, DestinationName, Mapping, Operation, SegmentId},
    pb::{
        self, send_identifiers_request::Message as In, send_identifiers_response::Message as Out,
    },
    server::{
        edge::inbound_body::InboundBody,
        status::Failure,
        stream::{
            acceptor::StreamContext,
            accounting::{FAILURE_COST, StreamAccounting},
            fences::Fence,
            ledger,
            lifetime::{Lifetime, WakeAction},
            notice::{notice, wall},
            opening::{self, AdmittedStream, Opening},
        },
    },
};

/// How long a client that does not read may hold up the last results. Ours: the sender will
/// resend what it has not been told.
const FINAL_RESULTS_TIMEOUT: Duration = Duration::from_secs(5);
/// What a record costs in memory beside its key while it waits in a lane: its entry in the open
/// batch, its ack, its places in map and queue, and their spare room, added up and rounded up.
const RECORD_COST: usize = 384;
/// Verdicts taken from the channel at once.
const VERDICT_CHUNK: usize = 1024;

/// An open stream.
pub(super) struct Session {
    destination: DestinationName,
    segment: SegmentId,
    mapping: Mapping,
    validate_only: bool,
    delivery_timeout: Duration,
    live: LiveDestination,
    lane: LaneHandle,
    health: watch::Receiver<DeliveryHealth>,
    fence: Option<Fence>,
    acks: AckIssuer,
    settled: mpsc::UnboundedReceiver<SettledRecord>,
    accounting: StreamAccounting,
    inbound_body: InboundBody,
    /// Beside acks: `opened`, `drain` and notices; one each per change.
    outbox: VecDeque<Out>,
    half_closed: bool,
    process_drain: watch::Receiver<Option<Instant>>,
    lifetime: Lifetime,
}

enum SessionEvent<'a> {
    Gone,
    Superseded,
    DestinationChanged,
    Settled(Vec<SettledRecord>),
    Reservation(mpsc::Permit<'a, pb::SendIdentifiersResponse>),
    HealthChanged,
    ProcessDrains(Instant),
    Woken,
    Received(Result<Option<pb::SendIdentifiersRequest>, Status>),
}

impl Session {
    pub(super) fn new(
        context: &StreamContext,
        opening: Opening,
        admitted: AdmittedStream,
        inbound_body: InboundBody,
    ) -> Self {
        let limits = &context.limits;
        let AdmittedStream {
            mapping,
            live,
            lane,
            fence,
        } = admitted;
        let (acks, settled) = AckIssuer::new(opening.delivery_timeout);
        let opened = pb::StreamOpened {
            max_batch_records: i32::try_from(limits.max_batch_records).unwrap_or(i32::MAX),
            max_in_flight_records: i32::try_from(limits.max_in_flight_records).unwrap_or(i32::MAX),
        };
        let mut health = lane.health();
        let counted = || context.metrics.tally(&opening.destination.to_string());
        let tally = (!opening.validate_only).then(counted);
        let mut outbox = VecDeque::from([Out::Opened(opened)]);
        // A stream that joins a lane in trouble should hear of it.
        let current = *health.borrow_and_update();
        outbox
            .extend((current != DeliveryHealth::Delivering).then(|| Out::Notice(notice(current))));
        Self {
            destination: opening.destination,
            segment: opening.segment.id,
            mapping,
            validate_only: opening.validate_only,
            delivery_timeout: opening.delivery_timeout,
            live,
            health,
            lane,
            fence,
            acks,
            settled,
            accounting: StreamAccounting::new(limits, tally),
            inbound_body,
            outbox,
            half_closed: false,
            process_drain: context.drain.clone(),
            lifetime: Lifetime::new(limits, fastrand::f64(), Instant::now()),
        }
    }

    pub(super) async fn run(
        &mut self,
        inbound: &mut Streaming<pb::SendIdentifiersRequest>,
        outbound: &mpsc::Sender<pb::SendIdentifiersResponse>,
    ) -> SessionEnd {
        while !self.is_complete() {
            let step = match self.next_event(inbound, outbound).await {
                SessionEvent::Gone => Err(SessionEnd::Gone),
                SessionEvent::Superseded => Err(self.superseded()),
                SessionEvent::DestinationChanged => self.follow_destination(),
                SessionEvent::Settled(settled) => self.settle(settled),
                SessionEvent::Reservation(permit) => {
                    send(permit, &mut self.outbox, &mut self.accounting);
                    Ok(())
                }
                SessionEvent::HealthChanged => {
                    let health = *self.health.borrow_and_update();
                    self.notify(health);
                    Ok(())
                }
                SessionEvent::ProcessDrains(deadline) => {
                    self.lifetime.drain_until(deadline, draining());
                    self.ask_to_move(deadline);
                    Ok(())
                }
                SessionEvent::Woken => self.wake(),
                SessionEvent::Received(message) => self.receive(message),
            };
            if let Err(end) = step {
                return end;
            }
        }
        SessionEnd::Complete
    }

    async fn next_event<'a>(
        &mut self,
        inbound: &mut Streaming<pb::SendIdentifiersRequest>,
        outbound: &'a mpsc::Sender<pb::SendIdentifiersResponse>,
    ) -> SessionEvent<'a> {
        let has_news = self.accounting.ledger().has_news() || !self.outbox.is_empty();
        let reads = !self.half_closed && self.accounting.ledger().has_room();
        let drains = !self.lifetime.is_draining();
        let wake = self.lifetime.next_wake();
        let mut settled = Vec::new();
        tokio::select! {
            // Whatever ends the stream comes first. Results go out before more records come in,
            // so that a fast sender cannot keep them back.
            biased;
            () = outbound.closed() => SessionEvent::Gone,
            () = superseded(self.fence.as_ref()) => SessionEvent::Superseded,
            () = self.live.changed() => SessionEvent::DestinationChanged,
            _ = self.settled.recv_many(&mut settled, VERDICT_CHUNK) => SessionEvent::Settled(settled),
            Ok(permit) = outbound.reserve(), if has_news => SessionEvent::Reservation(permit),
            Ok(()) = self.health.changed() => SessionEvent::HealthChanged,
            deadline = asked_to_drain(&mut self.process_drain), if drains => {
                SessionEvent::ProcessDrains(deadline)
            }
            () = tokio::time::sleep_until(wake) => SessionEvent::Woken,
            // Cancel safe: a message in parts stays in tonic's decoder.
            message = inbound.message(), if reads => SessionEvent::Received(message),
        }
    }

    fn is_complete(&self) -> bool {
        self.half_closed
            && self.accounting.ledger().is_settled()
            && !self.accounting.ledger().has_news()
            && self.outbox.is_empty()
    }

    /// Tells how delivery goes. A client that does not read finds only the newest state.
    fn notify(&mut self, health: DeliveryHealth) {
        if matches!(self.outbox.back(), Some(Out::Notice(_))) {
            self.outbox.pop_back();
        }
        self.outbox.push_back(Out::Notice(notice(health)));
    }

    fn superseded(&self) -> SessionEnd {
        let stream_id = self
            .fence
            .as_ref()
            .map(Fence::stream_id)
            .unwrap_or_default();
        SessionEnd::Failed(Failure::StreamSuperseded(stream_id.to_owned()))
    }

    fn follow_destination(&mut self) -> Result<(), SessionEnd> {
        opening::usable(&self.live, &self.destination).map_err(SessionEnd::Failed)
    }

    /// Takes verdicts in. A record that cannot have one ends the stream.
    fn settle(&mut self, settled: Vec<SettledRecord>) -> Result<(), SessionEnd> {
        let mut deferred = None;
        for SettledRecord { sequence, verdict } in settled {
            match ledger::outcome(verdict, self.delivery_timeout) {
                Ok(outcome) => self.accounting.settle(sequence, outcome),
                Err(cause) => deferred = Some(cause),
            }
        }
        self.accounting.publish();
        self.lifetime.note_activity(Instant::now());
        match deferred {
            None => Ok(()),
            Some(cause) => Err(SessionEnd::Failed(self.failure(cause))),
        }
    }

    /// Notes the verdicts that are there already.
    fn settle_rest(&mut self) {
        while let Ok(SettledRecord { sequence, verdict }) = self.settled.try_recv() {
            if let Ok(outcome) = ledger::outcome(verdict, self.delivery_timeout) {
                self.accounting.settle(sequence, outcome);
            }
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
        let is_settled = self.accounting.ledger().is_settled();
        match self.lifetime.wake(Instant::now(), is_settled) {
            WakeAction::Continue => {}
            WakeAction::Drain(deadline) => self.ask_to_move(deadline),
            WakeAction::End(failure) => return Err(SessionEnd::Failed(failure)),
        }
        Ok(())
    }

    /// Asks the client to move, and hurries what it has sent.
    fn ask_to_move(&mut self, deadline: Instant) {
        debug!("stream drains");
        let deadline = Some(wall(deadline));
        self.outbox.push_back(Out::Drain(pb::Drain { deadline }));
        self.lane.flush();
    }

    fn receive(
        &mut self,
        message: Result<Option<pb::SendIdentifiersRequest>, Status>,
    ) -> Result<(), SessionEnd> {
        self.lifetime.note_activity(Instant::now());
        match message {
            Ok(Some(pb::SendIdentifiersRequest {
                message: Some(In::Batch(batch)),
            })) => self.take(batch).map_err(SessionEnd::Failed),
            Ok(Some(_)) => Err(SessionEnd::Failed(Failure::StreamProtocol(
                "every message after the first must be `batch`".into(),
            ))),
            Ok(None) if self.inbound_body.half_closed() => {
                self.half_closed = true;
                self.lane.flush();
                Ok(())
            }
            Ok(None) => Err(SessionEnd::Gone),
            Err(status) => Err(SessionEnd::Unreadable(status)),
        }
    }

    /// Numbers a batch and hands each of its records on, or rejects it alone.
    fn take(&mut self, batch: pb::IdentifierBatch) -> Result<(), Failure> {
        let mut sequence = self.accounting.admit(&batch)?;
        let (mut cost, mut submitted, mut failed) = (0, 0, 0);
        for record in batch.records {
            match self.change(&record) {
                Ok((key, operation)) if !self.validate_only => {
                    cost += RECORD_COST + key.as_str().len();
                    submitted += 1;
                    self.lane.submit(key, operation, self.acks.issue(sequence));
                }
                Ok(_) => self.accounting.settle(sequence, None),
                Err(failure) => {
                    cost += FAILURE_COST;
                    failed += 1;
                    self.accounting.settle(sequence, Some(failure));
                }
            }
            sequence += 1;
        }
        let room = self.inbound_body.keep(cost);
        self.accounting.keep(sequence - 1, submitted, failed, room);
        self.accounting.publish();
        Ok(())
    }

    fn change(&self, record: &pb::IdentifierRecord) -> Result<(ContextKey, Operation), Failure> {
        let operation = ledger::operation(record)?;
        Ok((self.mapping.context_key(&record.identifiers)?, operation))
    }

    /// Ends the stream: known results and the status go out, nothing new is started, and the
    /// fence falls only once the last call has ended.
    pub(super) async fn end(
        mut self,
        end: SessionEnd,
        outbound: mpsc::Sender<pb::SendIdentifiersResponse>,
        ending: oneshot::Sender<Result<(), Status>>,
    ) {
        self.acks.abandon();
        self.lane.sweep();
        let committed = self.accounting.ledger().committed();
        match &end {
            SessionEnd::Complete => info!(committed, "stream ends"),
            SessionEnd::Gone => info!(committed, "client is gone"),
            SessionEnd::Failed(failure) => {
                info!(reason = failure.reason().as_str(), "stream fails")
            }
            SessionEnd::Unreadable(status) => {
                info!(code = ?status.code(), "request cannot be read")
            }
        }
        self.settle_rest();
        self.accounting.publish();
        let Self {
            acks,
            lane,
            mut settled,
            fence,
            accounting,
            outbox,
            ..
        } = self;
        drop((acks, lane));
        // A successor need not wait until this one's client has read the rest.
        let calls_end = async {
            while settled.recv().await.is_some() {}
            drop(fence);
        };
        let send_final_results = send_final_results(end, accounting, outbox, outbound, ending);
        // What calls carry takes its room until they end, whoever is there to hear of it.
        let ((), accounting) = tokio::join!(calls_end, send_final_results);
        drop(accounting);
    }
}

/// Sends what comes next: what is said beside acks, and then the results.
fn send(
    permit: mpsc::Permit<'_, pb::SendIdentifiersResponse>,
    outbox: &mut VecDeque<Out>,
    accounting: &mut StreamAccounting,
) {
    let message = outbox
        .pop_front()
        .or_else(|| accounting.report().map(Out::Ack));
    if message.is_some() {
        permit.send(pb::SendIdentifiersResponse { message });
    }
}

/// Sends known results to a client that is there, and the status; returns the books.
async fn send_final_results(
    end: SessionEnd,
    mut accounting: StreamAccounting,
    mut outbox: VecDeque<Out>,
    outbound: mpsc::Sender<pb::SendIdentifiersResponse>,
    ending: oneshot::Sender<Result<(), Status>>,
) -> StreamAccounting {
    let results = async {
        while accounting.ledger().has_news() || !outbox.is_empty() {
            let Ok(permit) = outbound.reserve().await else {
                return;
            };
            send(permit, &mut outbox, &mut accounting);
        }
    };
    // A client that does not read will find the status all the same.
    tokio::time::timeout(FINAL_RESULTS_TIMEOUT, results)
        .await
        .ok();
    send_status(end, ending);
    accounting
}

async fn superseded(fence: Option<&Fence>) {
    match fence {
        Some(fence) => fence.superseded().await,
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
        // Whoever could ask is gone.
        None => std::future::pending().await,
    }
}
