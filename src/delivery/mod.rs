//! SegmentCall: how changes become calls, and calls become verdicts.
//!
//! Knows nothing of gRPC, HTTP or a vendor's JSON. A stream opens a [`LaneHandle`] at the
//! [`Dispatcher`] and submits changes, each with its [`Ack`]; the lane of that destination and
//! segment collects, calls and settles.
//!
//! What holds, whatever fails:
//!
//! - an ack is settled exactly once, and dropping it settles it as deferred;
//! - a key is in at most one call at a time, so its changes are applied in order;
//! - lanes are per destination, and destinations belong to one organization.

mod ack;
mod batch;
mod batch_delivery;
mod bisect;
mod concurrency;
mod lane;
mod lanes;
mod live;
mod permissions;
mod streak;

pub use ack::{Ack, AckIssuer, DeferralCause, DeliveryAttempts, SettledRecord, Verdict};
pub use lane::{DeliveryHealth, LaneSettings};
pub use lanes::{Dispatcher, LaneHandle};
pub use live::{LiveDestination, LiveDestinations, LiveState, RefusedCredentials};
