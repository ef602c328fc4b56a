//! launchdarkly-connector.
pub mod pb;
