//! Transport hardening, and the services of others that stand beside the contract.

pub(crate) mod first_byte;
pub mod health;
pub(crate) mod inbound_body;
pub(crate) mod memory;
pub mod reflection;
pub mod scrape;
