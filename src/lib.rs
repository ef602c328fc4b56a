//! launchdarkly-connector.

pub mod backoff;
pub mod clock;
pub mod domain;
pub mod launchdarkly;
pub mod pb;
pub mod secret;
pub mod store;
