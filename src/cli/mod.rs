//! The commands.
pub mod send;
