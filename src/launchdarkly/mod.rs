//! LaunchDarkly adapter: its HTTP API behind the ports of the domain.
//!
//! One attempt goes `slot of the account → hold check → authorization → time-out → transport →
//! classification`. These are plain functions around a [`transport::Transport`], since no layer but
//! the last is ever exchanged. Retries are not among them: the lane makes them, as it alone knows
//! how long each record may still be tried and what has superseded it. What an answer means is
//! decided by the functions of [`classify`], and when the next call may start by [`pace`]: plain
//! data that takes time and random draws as arguments.

mod account;
mod actions;
mod body;
mod classify;
mod client;
mod confirm;
mod credentials;
mod egress;
mod hosts;
mod identify;
mod integration;
mod pace;
mod renewal;
mod stack;
mod throttle;
mod transport;
mod wire;

pub use body::{Body, BrokenOff};
pub use client::{Client, ClientError, ClientSettings};
pub use credentials::advice;
pub use egress::{Egress, EgressProxy, EgressProxyError};
pub use hosts::{Endpoint, EndpointError};
pub use integration::{Integration, IntegrationKeyError, ManifestError, RequestShape};
pub use transport::{Transport, roots::Roots};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
