//! `keygen`: makes a key that seals access tokens.

use super::{Exit, say};
use crate::store::KeyRing;

/// Runs the command.
pub(super) fn run() -> Exit {
    say(KeyRing::generate_line().as_str());
    Exit::Done
}
