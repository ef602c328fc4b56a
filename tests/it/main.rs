//! One binary for all integration tests: a file per promise.
#![allow(
    clippy::unwrap_used,
    reason = "clippy's exception for tests does not reach their helpers"
)]

mod cli;
mod egress;
mod executor;
mod floors;
mod form;
mod history;
mod in_memory;
mod integrations;
mod interleavings;
mod journey;
mod metrics;
mod operator;
mod proxy;
mod refusals;
mod sandbox_http;
mod sandbox_sdk;
mod sending;
mod serving;
mod sim;
mod stream;
mod support;
mod test_service;
mod tls;
