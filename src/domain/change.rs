//! What a record asks for: one context key, in or out of a segment.

use std::{fmt, sync::Arc};

/// Longest context key, in bytes. LaunchDarkly publishes no limit; this one is ours: long
/// enough for any identifier or hash, short enough that 1,000 of them stay near 1 MiB.
pub const MAX_CONTEXT_KEY_BYTES: usize = 1024;

/// Whether a member enters or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Put the member into the segment.
    Add,
    /// Take the member out of it.
    Remove,
}

/// The key that identifies a member's context; cheap to clone, and hidden from `Debug`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextKey(Arc<str>);

/// Why a value cannot be a context key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing but white space.
    #[error("is empty after trimming")]
    Blank,
    /// Too long.
    #[error("is longer than {MAX_CONTEXT_KEY_BYTES} bytes")]
    TooLong,
    /// Holds a control character.
    #[error("holds a control character")]
    Control,
}

impl ContextKey {
    /// Checks a value; it is used as it is, white space around it included.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(value: &str) -> Result<Self, KeyError> {
        if value.trim().is_empty() {
            Err(KeyError::Blank)
        } else if value.len() > MAX_CONTEXT_KEY_BYTES {
            Err(KeyError::TooLong)
        } else if value.chars().any(char::is_control) {
            Err(KeyError::Control)
        } else {
            Ok(Self(value.into()))
        }
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys identify people: a debug print in a log must not.
        f.write_str("ContextKey([redacted])")
    }
}
