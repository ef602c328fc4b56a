//! The gRPC edge: what comes in from the wire, and what goes back out.

pub mod status;
