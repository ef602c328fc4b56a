//! The edge: transport hardening, and the standard services beside the contract.

pub(crate) mod first_byte;
pub(crate) mod health;
pub(crate) mod inbound_body;
pub(crate) mod memory;
pub(crate) mod reflection;
pub(crate) mod scrape;
pub(crate) mod tls;
