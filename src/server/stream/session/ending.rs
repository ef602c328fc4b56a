//! The end of a session: known results and the status go out, and the last calls end.

use std::time::Duration;

use tracing::info;

use super::exchange::{Session, send};
use crate::server::stream::{
    accounting::StreamAccounting,
    outbox::Outbox,
    responses::{ResponseSender, SessionEnd},
};

/// How long a client that does not read may hold up the last results. Ours: the sender resends the
/// records whose results it has not read.
const FINAL_RESULTS_TIMEOUT: Duration = Duration::from_secs(5);

impl Session {
    /// Ends the stream: nothing new is started, known results and the status go out, and the
    /// lease is released only once the last call has ended.
    pub(super) async fn end(self, end: SessionEnd, responses: ResponseSender) {
        let Self {
            inbound,
            records,
            lease,
            outbox,
            ..
        } = self;
        // A body that is not read any more must not wait for the budget.
        drop(inbound);
        log(&end, records.accounting.ledger().committed());
        let (accounting, mut settled) = records.abandon();
        // A successor does not wait until this stream's client has read the rest.
        let calls_end = async {
            while settled.recv().await.is_some() {}
            if let Some(lease) = lease {
                lease.release().await;
            }
        };
        // What calls carry stays reserved until they end, whether or not the client is still there.
        let ((), accounting) =
            tokio::join!(calls_end, send_rest(end, accounting, outbox, responses));
        drop(accounting);
    }
}

fn log(end: &SessionEnd, committed: i64) {
    match end {
        SessionEnd::Complete => info!(committed, "stream ends"),
        SessionEnd::Gone => info!(committed, "client is gone"),
        SessionEnd::Failed(failure) => info!(reason = failure.reason().as_str(), "stream fails"),
        SessionEnd::Unreadable(status) => info!(code = ?status.code(), "request cannot be read"),
    }
}

/// Sends known results to a client that is there, and the status; returns the accounting.
async fn send_rest(
    end: SessionEnd,
    mut accounting: StreamAccounting,
    mut outbox: Outbox,
    responses: ResponseSender,
) -> StreamAccounting {
    let results = async {
        while accounting.ledger().has_news() || !outbox.is_empty() {
            let Ok(permit) = responses.reserve().await else {
                return;
            };
            send(permit, &mut outbox, &mut accounting);
        }
    };
    // A client that does not read finds the status all the same.
    tokio::time::timeout(FINAL_RESULTS_TIMEOUT, results)
        .await
        .ok();
    responses.end(end);
    accounting
}
