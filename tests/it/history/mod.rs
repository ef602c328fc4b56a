//! The referee itself: does the history checker refuse what is broken, and pass what is not?

mod broken;
mod generated;
mod good;
mod text;

use crate::support::history::{Kind, Summary, check};

/// Judges a history in its text form; the kinds of the violations, in order.
fn judge(text: &str) -> Result<Summary, Vec<Kind>> {
    check(&text::parse(text)).map_err(|violations| violations.iter().map(|v| v.kind).collect())
}
