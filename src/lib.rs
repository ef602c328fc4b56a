//! launchdarkly-connector.

pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delivery;
pub mod domain;
pub mod launchdarkly;
pub mod pb;
pub mod sandbox;
pub mod secret;
pub mod server;
pub mod store;
pub mod telemetry;
