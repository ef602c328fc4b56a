//! One binary for all integration tests: a file per promise.

mod sandbox_http;
mod sandbox_sdk;
