//! Verdicts: what became of a record.

use super::TransientError;

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The vendor accepted it, or a later record of its key that superseded it.
    Delivered,
    /// The vendor refused it in a call of its own.
    Rejected {
        /// Whether the vendor ever accepted a call of this lane. If not, the record may be valid
        /// and the request as such at fault.
        lane_has_succeeded: bool,
    },
    /// Its delivery time-out passed.
    TimedOut(DeliveryAttempts),
    /// It has no result, and stays with the sender.
    Deferred(DeferralCause),
}

/// What was tried for a record that could not be delivered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryAttempts {
    /// Calls that carried it.
    pub calls: u32,
    /// What went wrong last: in a call that carried the record, or, if none did, in another call of
    /// its lane; none if nothing has gone wrong since the last success.
    pub error: Option<TransientError>,
}

/// Why a record has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferralCause {
    /// The vendor refuses the destination's credentials.
    Credentials,
    /// The vendor refuses the segment, or the route to it.
    Segment,
    /// The vendor forbids the destination to change this segment.
    Permission,
    /// The destination was deleted.
    Deleted,
    /// The stream or the lane ended first.
    Abandoned,
}
