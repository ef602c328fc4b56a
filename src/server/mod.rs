//! The gRPC server: the contract's methods and streams, its errors, and the edge.
//!
//! | module | holds |
//! |---|---|
//! | [`edge`] | transport hardening: TLS, first bytes, request bodies, memory; health, reflection, metrics |
//! | [`service`] | the contract's methods, each handed to its module |
//! | [`unary`] | the calls that manage destinations and check credentials |
//! | [`stream`] | `SendIdentifiers` |
//! | [`status`] | every error, as a `google.rpc.Status` |

mod check;
mod convert;
pub(crate) mod edge;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod unary;
