//! The exchange on an open stream: the loop that moves records in and results out.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tonic::{Status, Streaming};
use tracing::{debug, info};

use super::{
    Ending,
    books::{Books, FAILURE_COST},
    draining, say_goodbye,
};
use crate::{
    delivery::{Cause, Health, LaneHandle, Settled, Target, Tickets},
    domain::{ContextKey, DestinationName, Mapping, Operation, SegmentId},
    pb::{
        self, send_identifiers_request::Message as In, send_identifiers_response::Message as Out,
    },
    server::{
        fences::Fence,
        intake::Intake,
        notice::{notice, wall},
        opening::{self, Admitted, Opening},
        protocol,
        status::{Expiry, Failure},
        streams::House,
    },
};

/// How long a client that does not read may hold up the last results. Ours: the sender will
/// resend what it has not been told.
const FAREWELL: Duration = Duration::from_secs(5);
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
    target: Target,
    lane: LaneHandle,
    health: watch::Receiver<Health>,
    fence: Option<Fence>,
    tickets: Tickets,
    settled: mpsc::UnboundedReceiver<Settled>,
    books: Books,
    intake: Intake,
    /// Beside acks: `opened`, `drain` and notices; one each per change.
    outbox: VecDeque<Out>,
    half_closed: bool,
    process_drain: watch::Receiver<Option<Instant>>,
    drain: Option<Drain>,
    expires: Instant,
    idle: Duration,
    idle_at: Instant,
    drain_timeout: Duration,
}

/// A stream that was asked to move.
#[derive(Clone)]
struct Drain {
    deadline: Instant,
    then: Failure,
}

enum Event<'a> {
    Gone,
    Superseded,
    TargetChanged,
    Settled(Vec<Settled>),
    Room(mpsc::Permit<'a, pb::SendIdentifiersResponse>),
    HealthChanged,
    ProcessDrains(Instant),
    Woken,
    Received(Result<Option<pb::SendIdentifiersRequest>, Status>),
}

impl Session {
    pub(super) fn new(house: &House, opening: Opening, admitted: Admitted, intake: Intake) -> Self {
        let limits = &house.limits;
        let Admitted {
            mapping,
            target,
            lane,
            fence,
        } = admitted;
        let (tickets, settled) = Tickets::new(opening.delivery_timeout);
        let now = Instant::now();
        // Up to 10 % either way, so that streams opened together do not all move together.
        let age = limits.age.mul_f64(0.9 + 0.2 * fastrand::f64());
        let opened = pb::StreamOpened {
            max_batch_records: i32::try_from(limits.batch_records).unwrap_or(i32::MAX),
            max_in_flight_records: i32::try_from(limits.in_flight_records).unwrap_or(i32::MAX),
        };
        let mut health = lane.health();
        let counted = || house.metrics.tally(&opening.destination.to_string());
        let tally = (!opening.validate_only).then(counted);
        let mut outbox = VecDeque::from([Out::Opened(opened)]);
        // A stream that joins a lane in trouble should hear of it.
        let current = *health.borrow_and_update();
        outbox.extend((current != Health::Delivering).then(|| Out::Notice(notice(current))));
        Self {
            destination: opening.destination,
            segment: opening.segment.id,
            mapping,
            validate_only: opening.validate_only,
            delivery_timeout: opening.delivery_timeout,
            target,
            health,
            lane,
            fence,
            tickets,
            settled,
            books: Books::new(limits, tally),
            intake,
            outbox,
            half_closed: false,
            process_drain: house.drain.clone(),
            drain: None,
            expires: now + age,
            idle: limits.idle,
            idle_at: now + limits.idle,
            drain_timeout: limits.drain,
        }
    }

    pub(super) async fn run(
        &mut self,
        inbound: &mut Streaming<pb::SendIdentifiersRequest>,
        outbound: &mpsc::Sender<pb::SendIdentifiersResponse>,
    ) -> Ending {
        while !self.is_complete() {
            let step = match self.next_event(inbound, outbound).await {
                Event::Gone => Err(Ending::Gone),
                Event::Superseded => Err(self.superseded()),
                Event::TargetChanged => self.follow_target(),
                Event::Settled(settled) => self.settle(settled),
                Event::Room(permit) => {
                    send(permit, &mut self.outbox, &mut self.books);
                    Ok(())
                }
                Event::HealthChanged => {
                    let health = *self.health.borrow_and_update();
                    self.notify(health);
                    Ok(())
                }
                Event::ProcessDrains(deadline) => {
                    self.drain(Drain {
                        deadline,
                        then: draining(),
                    });
                    Ok(())
                }
                Event::Woken => self.wake(),
                Event::Received(message) => self.receive(message),
            };
            if let Err(end) = step {
                return end;
            }
        }
        Ending::Complete
    }

    async fn next_event<'a>(
        &mut self,
        inbound: &mut Streaming<pb::SendIdentifiersRequest>,
        outbound: &'a mpsc::Sender<pb::SendIdentifiersResponse>,
    ) -> Event<'a> {
        let has_news = self.books.ledger().has_news() || !self.outbox.is_empty();
        let reads = !self.half_closed && self.books.ledger().has_room();
        let drains = self.drain.is_none();
        let wake = self.wake_time();
        let mut settled = Vec::new();
        tokio::select! {
            // Whatever ends the stream comes first. Results go out before more records come in,
            // so that a fast sender cannot keep them back.
            biased;
            () = outbound.closed() => Event::Gone,
            () = superseded(self.fence.as_ref()) => Event::Superseded,
            () = self.target.changed() => Event::TargetChanged,
            _ = self.settled.recv_many(&mut settled, VERDICT_CHUNK) => Event::Settled(settled),
            Ok(permit) = outbound.reserve(), if has_news => Event::Room(permit),
            Ok(()) = self.health.changed() => Event::HealthChanged,
            deadline = asked_to_drain(&mut self.process_drain), if drains => {
                Event::ProcessDrains(deadline)
            }
            () = tokio::time::sleep_until(wake) => Event::Woken,
            // Cancel safe: a message in parts stays in tonic's decoder.
            message = inbound.message(), if reads => Event::Received(message),
        }
    }

    fn is_complete(&self) -> bool {
        self.half_closed
            && self.books.ledger().is_settled()
            && !self.books.ledger().has_news()
            && self.outbox.is_empty()
    }

    /// Tells how delivery goes. A client that does not read finds only the newest state.
    fn notify(&mut self, health: Health) {
        if matches!(self.outbox.back(), Some(Out::Notice(_))) {
            self.outbox.pop_back();
        }
        self.outbox.push_back(Out::Notice(notice(health)));
    }

    fn superseded(&self) -> Ending {
        let stream_id = self
            .fence
            .as_ref()
            .map(Fence::stream_id)
            .unwrap_or_default();
        Ending::Failed(Failure::StreamSuperseded(stream_id.to_owned()))
    }

    fn follow_target(&mut self) -> Result<(), Ending> {
        opening::usable(&self.target, &self.destination).map_err(Ending::Failed)
    }

    /// Takes verdicts in. A record that cannot have one ends the stream.
    fn settle(&mut self, settled: Vec<Settled>) -> Result<(), Ending> {
        let mut deferred = None;
        for Settled { sequence, verdict } in settled {
            match protocol::outcome(verdict, self.delivery_timeout) {
                Ok(outcome) => self.books.settle(sequence, outcome),
                Err(cause) => deferred = Some(cause),
            }
        }
        self.books.publish();
        self.idle_at = Instant::now() + self.idle;
        match deferred {
            None => Ok(()),
            Some(cause) => Err(Ending::Failed(self.failure(cause))),
        }
    }

    /// Notes the verdicts that are there already.
    fn settle_rest(&mut self) {
        while let Ok(Settled { sequence, verdict }) = self.settled.try_recv() {
            if let Ok(outcome) = protocol::outcome(verdict, self.delivery_timeout) {
                self.books.settle(sequence, outcome);
            }
        }
    }

    fn failure(&self, cause: Cause) -> Failure {
        match cause {
            Cause::Credentials => Failure::CredentialsRejected(self.destination.clone()),
            Cause::Segment => Failure::SegmentRejected(self.segment.clone()),
            Cause::Permission => Failure::SegmentForbidden(self.segment.clone()),
            Cause::Deleted => Failure::DestinationDeleted(self.destination.clone()),
            Cause::Abandoned => Failure::Internal,
        }
    }

    fn wake_time(&self) -> Instant {
        match &self.drain {
            Some(drain) => drain.deadline,
            None => self.expires.min(self.idle_at),
        }
    }

    fn wake(&mut self) -> Result<(), Ending> {
        let now = Instant::now();
        if let Some(drain) = &self.drain {
            return Err(Ending::Failed(drain.then.clone()));
        }
        if now < self.expires && !self.books.ledger().is_settled() {
            // Waiting for LaunchDarkly is not idleness.
            self.idle_at = now + self.idle;
            return Ok(());
        }
        let expiry = if now >= self.expires {
            Expiry::Age
        } else {
            Expiry::Idle
        };
        let deadline = now + self.drain_timeout;
        self.drain(Drain {
            deadline,
            then: Failure::StreamExpired(expiry),
        });
        Ok(())
    }

    /// Asks the client to move, and hurries what it has sent.
    fn drain(&mut self, drain: Drain) {
        debug!("stream drains");
        let deadline = wall(drain.deadline);
        self.outbox.push_back(Out::Drain(pb::Drain {
            deadline: Some(deadline),
        }));
        self.drain = Some(drain);
        self.lane.flush();
    }

    fn receive(
        &mut self,
        message: Result<Option<pb::SendIdentifiersRequest>, Status>,
    ) -> Result<(), Ending> {
        self.idle_at = Instant::now() + self.idle;
        match message {
            Ok(Some(pb::SendIdentifiersRequest {
                message: Some(In::Batch(batch)),
            })) => self.take(batch).map_err(Ending::Failed),
            Ok(Some(_)) => Err(Ending::Failed(Failure::StreamProtocol(
                "every message after the first must be `batch`".into(),
            ))),
            Ok(None) if self.intake.half_closed() => {
                self.half_closed = true;
                self.lane.flush();
                Ok(())
            }
            Ok(None) => Err(Ending::Gone),
            Err(status) => Err(Ending::Unreadable(status)),
        }
    }

    /// Numbers a batch and hands each of its records on, or rejects it alone.
    fn take(&mut self, batch: pb::IdentifierBatch) -> Result<(), Failure> {
        let mut sequence = self.books.admit(&batch)?;
        let (mut cost, mut submitted, mut failed) = (0, 0, 0);
        for record in batch.records {
            match self.change(&record) {
                Ok((key, operation)) if !self.validate_only => {
                    cost += RECORD_COST + key.as_str().len();
                    submitted += 1;
                    self.lane
                        .submit(key, operation, self.tickets.issue(sequence));
                }
                Ok(_) => self.books.settle(sequence, None),
                Err(failure) => {
                    cost += FAILURE_COST;
                    failed += 1;
                    self.books.settle(sequence, Some(failure));
                }
            }
            sequence += 1;
        }
        let room = self.intake.keep(cost);
        self.books.keep(sequence - 1, submitted, failed, room);
        self.books.publish();
        Ok(())
    }

    fn change(&self, record: &pb::IdentifierRecord) -> Result<(ContextKey, Operation), Failure> {
        let operation = protocol::operation(record)?;
        Ok((self.mapping.context_key(&record.identifiers)?, operation))
    }

    /// Ends the stream: known results and the status go out, nothing new is started, and the
    /// fence falls only once the last call has ended.
    pub(super) async fn end(
        mut self,
        end: Ending,
        outbound: mpsc::Sender<pb::SendIdentifiersResponse>,
        ending: oneshot::Sender<Result<(), Status>>,
    ) {
        self.tickets.abandon();
        self.lane.sweep();
        let committed = self.books.ledger().committed();
        match &end {
            Ending::Complete => info!(committed, "stream ends"),
            Ending::Gone => info!(committed, "client is gone"),
            Ending::Failed(failure) => info!(reason = failure.reason().as_str(), "stream fails"),
            Ending::Unreadable(status) => info!(code = ?status.code(), "request cannot be read"),
        }
        self.settle_rest();
        self.books.publish();
        let Self {
            tickets,
            lane,
            mut settled,
            fence,
            books,
            outbox,
            ..
        } = self;
        drop((tickets, lane));
        // A successor need not wait until this one's client has read the rest.
        let calls_end = async {
            while settled.recv().await.is_some() {}
            drop(fence);
        };
        let farewell = farewell(end, books, outbox, outbound, ending);
        // What calls carry takes its room until they end, whoever is there to hear of it.
        let ((), books) = tokio::join!(calls_end, farewell);
        drop(books);
    }
}

/// Sends what comes next: what is said beside acks, and then the results.
fn send(
    permit: mpsc::Permit<'_, pb::SendIdentifiersResponse>,
    outbox: &mut VecDeque<Out>,
    books: &mut Books,
) {
    let message = outbox.pop_front().or_else(|| books.report().map(Out::Ack));
    if message.is_some() {
        permit.send(pb::SendIdentifiersResponse { message });
    }
}

/// Sends known results to a client that is there, and the status; returns the books.
async fn farewell(
    end: Ending,
    mut books: Books,
    mut outbox: VecDeque<Out>,
    outbound: mpsc::Sender<pb::SendIdentifiersResponse>,
    ending: oneshot::Sender<Result<(), Status>>,
) -> Books {
    let results = async {
        while books.ledger().has_news() || !outbox.is_empty() {
            let Ok(permit) = outbound.reserve().await else {
                return;
            };
            send(permit, &mut outbox, &mut books);
        }
    };
    // A client that does not read will find the status all the same.
    tokio::time::timeout(FAREWELL, results).await.ok();
    say_goodbye(end, ending);
    books
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
