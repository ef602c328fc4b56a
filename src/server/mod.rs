//! The gRPC edge: what comes in from the wire, and what goes back out.

mod check;
pub mod control;
mod convert;
pub mod service;
pub mod status;
