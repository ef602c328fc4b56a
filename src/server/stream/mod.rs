//! `SendIdentifiers`: from an accepted stream to its status.

pub mod acceptor;
mod accounting;
mod fences;
pub(in crate::server) mod inbound;
mod ledger;
mod lifetime;
mod notice;
mod opening;
mod outbox;
pub(in crate::server) mod responses;
mod session;
mod submitter;
