//! Observer: the port through which the service reports calls, paces and verdicts.
//!
//! The core and the client of LaunchDarkly report what has happened and know nothing of what is
//! done with it. [`crate::metrics`] is the first to listen.

use std::{fmt, time::Duration};

use super::{
    CallOutcome, Connection, ContextKey, DestinationUid, Operation, SegmentCall, SegmentId,
    TransientError, Verdict,
};

/// Listens to what happens. Each method is called where it happens, and must return at once. A
/// method that an observer does not implement does nothing.
pub trait Observer: Send + Sync + fmt::Debug + 'static {
    /// A call that counts for an account has ended, with an answer or without; `took` is its
    /// duration. A call that its caller gave up is not reported.
    fn called(&self, _call: EndedCall<'_>, _took: Duration) {}

    /// The pace of this connection's account or environment has changed after a call. Changes that
    /// time alone brings are not reported.
    fn paced(&self, _connection: &Connection, _pace: PaceState) {}

    /// A change has its verdict. Records that never became a change are not reported. A change whose
    /// stream has ended is reported only if a call that was under way then gives it its verdict.
    fn settled(&self, _change: &SettledChange<'_>) {}
}

/// Listens to nothing.
impl Observer for () {}

/// A call that has ended.
#[derive(Debug, Clone, Copy)]
pub enum EndedCall<'a> {
    /// A call that changes a segment.
    Segment {
        /// What it asked for.
        call: &'a SegmentCall,
        /// What became of it.
        outcome: CallOutcome,
    },
    /// A query.
    Query {
        /// The connection of the call.
        connection: &'a Connection,
        /// Why it should be tried again; none if it was answered for good.
        error: Option<TransientError>,
    },
}

impl<'a> EndedCall<'a> {
    /// The connection of the call.
    #[must_use]
    pub fn connection(&self) -> &'a Connection {
        match self {
            Self::Segment { call, .. } => &call.connection,
            Self::Query { connection, .. } => connection,
        }
    }
}

/// What an account's calls are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaceState {
    /// Most calls that the account may have under way now.
    pub concurrency: usize,
    /// Why no call of the environment starts now; none if nothing holds calls back.
    pub held_for: Option<TransientError>,
}

/// A change that has its verdict.
#[derive(Debug, Clone, Copy)]
pub struct SettledChange<'a> {
    /// Of which destination.
    pub destination: DestinationUid,
    /// Of which segment.
    pub segment: &'a SegmentId,
    /// The member.
    pub key: &'a ContextKey,
    /// In or out.
    pub operation: Operation,
    /// What became of it.
    pub verdict: Verdict,
}
