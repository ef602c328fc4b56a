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

/// A verdict on its way back to the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledRecord {
    /// Which record.
    pub sequence: i64,
    /// What became of it.
    pub verdict: Verdict,
}

/// A record's claim to a verdict. It moves with the record, cannot be copied, and reports
/// *deferred* when dropped: no path through the code can forget a record.
pub struct Ack {
    sequence: i64,
    deadline: Instant,
    stream: Arc<AckStream>,
    settled: bool,
}

struct AckStream {
    /// Bounded by the stream's window: one message per record in flight.
    verdicts: mpsc::UnboundedSender<SettledRecord>,
    abandoned: AtomicBool,
}

impl Ack {
    /// Gives the verdict.
    pub fn settle(mut self, verdict: Verdict) {
        self.send(verdict);
    }

    /// When the record's delivery time-out passes.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether its stream is gone, so that no new call may be started for it.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.stream.abandoned.load(Ordering::Acquire)
    }

    fn send(&mut self, verdict: Verdict) {
        self.settled = true;
        // The receiver is gone with its stream, which needs the verdict no longer.
        self.stream
            .verdicts
            .send(SettledRecord {
                sequence: self.sequence,
                verdict,
            })
            .ok();
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if !self.settled {
            self.send(Verdict::Deferred(DeferralCause::Abandoned));
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

/// Issues the acks of one stream.
///
/// The receiver that comes with it ends (`None`) once this and every ack are gone: that is how
/// a stream knows that nothing of it is under way any more.
pub struct AckIssuer {
    stream: Arc<AckStream>,
    timeout: Duration,
}

impl AckIssuer {
    /// Starts a stream whose records may each be tried for `timeout`.
    #[must_use]
    pub fn new(timeout: Duration) -> (Self, mpsc::UnboundedReceiver<SettledRecord>) {
        let (verdicts, settled) = mpsc::unbounded_channel();
        let stream = Arc::new(AckStream {
            verdicts,
            abandoned: AtomicBool::new(false),
        });
        (Self { stream, timeout }, settled)
    }

    /// The ack of one record, whose delivery time-out starts now.
    #[must_use]
    pub fn issue(&self, sequence: i64) -> Ack {
        Ack {
            sequence,
            deadline: Instant::now() + self.timeout,
            stream: Arc::clone(&self.stream),
            settled: false,
        }
    }

    /// Says that the stream is gone: no new call may be started for its records.
    pub fn abandon(&self) {
        self.stream.abandoned.store(true, Ordering::Release);
    }
}

impl fmt::Debug for AckIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckIssuer")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_ack_reports_deferred_and_a_settled_one_reports_once() {
        let (acks, mut settled) = AckIssuer::new(Duration::from_secs(1));
        acks.issue(1).settle(Verdict::Delivered);
        drop(acks.issue(2));
        drop(acks);
        let first = settled.recv().await.unwrap();
        assert_eq!(
            first,
            SettledRecord {
                sequence: 1,
                verdict: Verdict::Delivered
            }
        );
        let second = settled.recv().await.unwrap();
        assert_eq!(second.verdict, Verdict::Deferred(DeferralCause::Abandoned));
        assert_eq!(settled.recv().await, None);
    }
}
