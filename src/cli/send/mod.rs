//! `send`.
pub mod input;
pub mod window;
