//! Acknowledgement (ack): a record's claim to exactly one verdict.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use crate::domain::{DeferralCause, Verdict};

/// A verdict on its way back to the stream, for records in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledRun {
    /// The first record.
    pub first: i64,
    /// The last record, inclusive.
    pub last: i64,
    /// What became of each of them.
    pub verdict: Verdict,
}

#[cfg(test)]
impl SettledRun {
    /// Each record with its verdict.
    pub(crate) fn records(self) -> impl Iterator<Item = (i64, Verdict)> {
        (self.first..=self.last).map(move |sequence| (sequence, self.verdict))
    }
}

/// A record's claim to a verdict. It moves with the record, cannot be copied, and reports
/// *deferred* when dropped: no path through the code can forget a record.
pub struct Ack {
    sequence: i64,
    /// `None` once it is settled.
    message: Option<Arc<MessageTicket>>,
}

/// What the acks of one message share.
struct MessageTicket {
    deadline: Instant,
    stream: Arc<AckStream>,
}

struct AckStream {
    /// Bounded by the stream's window: at most one run per record in flight.
    verdicts: mpsc::UnboundedSender<SettledRun>,
    abandoned: AtomicBool,
}

impl AckStream {
    fn report(&self, run: SettledRun) {
        // The receiver is gone with its stream, which needs the verdict no longer.
        self.verdicts.send(run).ok();
    }
}

impl Ack {
    /// Gives the verdict.
    pub fn settle(self, verdict: Verdict) {
        Settlement::default().settle(self, verdict);
    }

    /// When the record's delivery time-out passes.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.ticket().deadline
    }

    /// Whether its stream is gone, so that no new call may be started for it.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.ticket().stream.abandoned.load(Ordering::Acquire)
    }

    fn ticket(&self) -> &MessageTicket {
        let message = self.message.as_ref();
        message.expect("an ack that can be reached is not settled")
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            message.stream.report(SettledRun {
                first: self.sequence,
                last: self.sequence,
                verdict: Verdict::Deferred(DeferralCause::Abandoned),
            });
        }
    }
}

impl fmt::Debug for Ack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ack")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// Settles acks. Those of records in a row that get the same verdict are reported as one run, at the
/// latest when this is dropped.
#[derive(Default)]
pub(super) struct Settlement(Option<(Arc<MessageTicket>, SettledRun)>);

impl Settlement {
    /// Gives the verdict.
    pub(super) fn settle(&mut self, mut ack: Ack, verdict: Verdict) {
        let Some(message) = ack.message.take() else {
            return;
        };
        let sequence = ack.sequence;
        if let Some((open, run)) = &mut self.0
            && run.last + 1 == sequence
            && run.verdict == verdict
            && Arc::ptr_eq(&open.stream, &message.stream)
        {
            run.last = sequence;
            return;
        }
        self.report();
        let run = SettledRun {
            first: sequence,
            last: sequence,
            verdict,
        };
        self.0 = Some((message, run));
    }

    fn report(&mut self) {
        if let Some((message, run)) = self.0.take() {
            message.stream.report(run);
        }
    }
}

impl Drop for Settlement {
    fn drop(&mut self) {
        self.report();
    }
}

impl fmt::Debug for Settlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0.as_ref().map(|(_, run)| run);
        f.debug_tuple("Settlement").field(&run).finish()
    }
}

/// Issues the acks of one stream.
///
/// The receiver that comes with it ends (`None`) once this and every ack are gone: that is how
/// a stream knows that nothing of it is under way any more.
pub struct AckIssuer {
    stream: Arc<AckStream>,
    timeout: Duration,
}

/// Issues the acks of one message, which have one deadline.
pub struct MessageAcks(Arc<MessageTicket>);

impl AckIssuer {
    /// Starts a stream whose records may each be tried for `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> (Self, mpsc::UnboundedReceiver<SettledRun>) {
        let (verdicts, settled) = mpsc::unbounded_channel();
        let stream = Arc::new(AckStream {
            verdicts,
            abandoned: AtomicBool::new(false),
        });
        (Self { stream, timeout }, settled)
    }

    /// The acks of one message. The delivery time-out of its records starts now.
    #[must_use]
    pub fn message(&self) -> MessageAcks {
        MessageAcks(Arc::new(MessageTicket {
            deadline: Instant::now() + self.timeout,
            stream: Arc::clone(&self.stream),
        }))
    }

    /// The ack of a message of one record.
    #[cfg(test)]
    pub(crate) fn issue(&self, sequence: i64) -> Ack {
        self.message().ack(sequence)
    }

    /// Says that the stream is gone: no new call may be started for its records.
    pub fn abandon(&self) {
        self.stream.abandoned.store(true, Ordering::Release);
    }
}

impl MessageAcks {
    /// The ack of one record.
    #[must_use]
    pub fn ack(&self, sequence: i64) -> Ack {
        Ack {
            sequence,
            message: Some(Arc::clone(&self.0)),
        }
    }
}

impl fmt::Debug for AckIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckIssuer")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MessageAcks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageAcks")
            .field("deadline", &self.0.deadline)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABANDONED: Verdict = Verdict::Deferred(DeferralCause::Abandoned);

    fn run(first: i64, last: i64, verdict: Verdict) -> SettledRun {
        SettledRun {
            first,
            last,
            verdict,
        }
    }

    #[tokio::test]
    async fn a_dropped_ack_reports_deferred_and_a_settled_one_reports_once() {
        let (acks, mut settled) = AckIssuer::new(Duration::from_secs(1));
        acks.issue(1).settle(Verdict::Delivered);
        drop(acks.issue(2));
        drop(acks);
        assert_eq!(settled.recv().await, Some(run(1, 1, Verdict::Delivered)));
        assert_eq!(settled.recv().await, Some(run(2, 2, ABANDONED)));
        assert_eq!(settled.recv().await, None);
    }

    #[tokio::test]
    async fn records_in_a_row_with_one_verdict_are_one_run_of_their_stream() {
        let (acks, mut settled) = AckIssuer::new(Duration::from_secs(1));
        let (others, mut others_settled) = AckIssuer::new(Duration::from_secs(1));
        let mut settlement = Settlement::default();
        let (one, two) = (acks.message(), acks.message());
        settlement.settle(one.ack(1), Verdict::Delivered);
        settlement.settle(one.ack(2), Verdict::Delivered);
        settlement.settle(two.ack(3), Verdict::Delivered);
        settlement.settle(two.ack(4), ABANDONED);
        settlement.settle(others.issue(5), ABANDONED);
        settlement.settle(two.ack(6), ABANDONED);
        settlement.settle(two.ack(8), ABANDONED);
        drop((settlement, one, two, acks, others));
        let mut runs = Vec::new();
        settled.recv_many(&mut runs, 9).await;
        let expected = [
            run(1, 3, Verdict::Delivered),
            run(4, 4, ABANDONED),
            run(6, 6, ABANDONED),
            run(8, 8, ABANDONED),
        ];
        assert_eq!(runs, expected);
        assert_eq!(others_settled.recv().await, Some(run(5, 5, ABANDONED)));
        assert_eq!(settled.recv().await, None);
    }
}
