//! `SendIdentifiers`: from an accepted stream to its status.

pub mod acceptor;
mod accounting;
mod fences;
mod ledger;
mod lifetime;
mod notice;
mod opening;
mod session;
