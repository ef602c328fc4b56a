//! Delivery: how changes become segment calls, and outcomes of calls become verdicts of records.
//!
//! Uses nothing of gRPC, of HTTP or of a vendor's JSON; comments and texts may name LaunchDarkly. A
//! stream opens a [`LaneHandle`] at the [`Dispatcher`] and submits changes, each with its [`Ack`];
//! the lane of that destination, segment and context kind collects them, makes the calls and settles
//! the acks.
//!
//! What holds, whatever fails:
//!
//! - an ack is settled exactly once, and dropping it settles it as deferred;
//! - a key is in at most one call at a time, so its changes are applied in order. A call is
//!   idempotent: applying it twice leaves the segment as applying it once does, so that a retry
//!   after a lost answer is safe;
//! - lanes are per destination, and destinations belong to one organization.
//!
//! # When a call starts
//!
//! Two owners decide, and a call starts when both agree.
//!
//! | | the lane | the account, behind [`SegmentClient`](crate::domain::SegmentClient) |
//! |---|---|---|
//! | knows | the changes and deadlines of one segment, and the outcomes of its own calls | every answer to any call of the account |
//! | decides | whether the batch is due; how many of the lane's calls overlap; after a failure, the exponential back-off of this segment (`not_before`, `failures`), or the wait that the answer asked for | whether one more call of the account may start now: concurrency limit, rate window, circuit breakers, retry budget, fairness (`launchdarkly::pace`) |
//! | spares | one segment that fails by itself | an account or an environment that is limited or fails as a whole |
//! | tells the other | whether the call is a retry (`ready`), that a destination's connection was replaced (`connection_replaced`) | a slot (`ready`); a hold, for the streams to hear of (`hold`); a hold that has begun since the slot was given (`CallOutcome::Held`) |
//!
//! The lane does not compute what the account decides. It waits for a slot, or until the moment that
//! an outcome names, and keeps only copies of answers: the limits of its next call, and the hold that
//! its streams are told of.

mod ack;
mod arrivals;
mod batch;
mod batch_delivery;
mod bisect;
mod concurrency;
mod directory;
mod health;
mod lane;
mod lanes;
mod live;
mod observed;
mod permissions;
mod retry;
mod streak;

pub use ack::{Ack, AckIssuer, MessageAcks, SettledRun};
pub use batch::Change;
pub use health::DeliveryHealth;
pub use lane::LaneSettings;
pub use lanes::{Dispatcher, LaneHandle};
pub use live::{LiveDestination, LiveDestinations, LiveState, RefusedCredentials};

pub use crate::domain::{DeferralCause, DeliveryAttempts, Verdict};
