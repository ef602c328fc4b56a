//! Bidirectional streaming, `SendIdentifiers`: from an accepted stream to its status.
//!
//! | module | answers |
//! |---|---|
//! | [`acceptor`] | may another stream open? |
//! | [`opening`] | what does `open` ask for, and may it have it? |
//! | [`fences`] | which stream of an id may write? |
//! | [`session`] | what happens next on a stream? |
//! | [`inbound`], [`outbox`], [`responses`] | what comes in, what waits to go out, how does it end? |
//! | [`lifetime`] | when does a stream drain and end by the clock? |
//! | [`submitter`] | how does a record become a change of a lane? |
//! | [`ledger`] | what has a result, and what is committed? |
//! | [`accounting`] | what do records hold of the memory budget, and what is counted? |

mod acceptor;
mod accounting;
mod context;
mod fences;
mod identifiers;
mod inbound;
mod ledger;
mod lifetime;
mod notice;
mod opening;
mod outbox;
mod responses;
mod session;
mod submitter;
#[cfg(test)]
mod testing;

pub(crate) use acceptor::StreamAcceptor;
pub(crate) use context::{StreamContext, StreamLimits};
pub(crate) use fences::{Fencing, InProcessFences};
pub(in crate::server) use inbound::Inbound;
pub(in crate::server) use responses::Responses;
