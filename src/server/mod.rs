//! The gRPC edge: what comes in from the wire, and what goes back out.

pub(crate) mod budget;
mod check;
pub mod control;
mod convert;
mod fences;
pub mod health;
pub(crate) mod intake;
mod notice;
mod opening;
pub(crate) mod prompt;
mod protocol;
pub mod reflection;
pub mod scrape;
pub mod service;
mod session;
pub mod status;
pub mod streams;
