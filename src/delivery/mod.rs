//! Delivery: how changes become calls, and calls become verdicts.
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
mod bisect;
mod call;
mod lane;
mod lanes;
mod permissions;
mod streak;
mod target;
mod window;

pub use ack::{Ack, Cause, Settled, Tickets, Tried, Verdict};
pub use lane::{Health, Settings};
pub use lanes::{Dispatcher, LaneHandle};
pub use target::{Condemned, Target, TargetState, Targets};
