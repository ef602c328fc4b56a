//! Changes: the context key and the operation that a record asks for.

use std::{fmt, sync::Arc};

use super::visibility::{self, InvisibleCharacter};

/// Longest context key, in characters. LaunchDarkly publishes no limit; this one is ours: long
/// enough for any identifier or hash, short enough that 1,000 of them stay near 1 MiB in ASCII,
/// and below 4 MiB in any script.
pub const MAX_CONTEXT_KEY_CHARS: u16 = 1024;

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
    /// Nothing but white space and invisible characters.
    #[error("is empty after trimming")]
    Blank,
    /// Too long.
    #[error("is longer than {MAX_CONTEXT_KEY_CHARS} characters")]
    TooLong,
    /// It holds an invisible character.
    #[error(transparent)]
    InvisibleCharacter(#[from] InvisibleCharacter),
}

impl KeyError {
    /// Checks that a reader sees a value, and all of it.
    ///
    /// # Errors
    /// What cannot be seen.
    pub(super) fn unless_seen(value: &str) -> Result<(), Self> {
        if visibility::is_blank(value) {
            return Err(Self::Blank);
        }
        visibility::first_unseen(value).map_or(Ok(()), |unseen| Err(unseen.into()))
    }
}

impl ContextKey {
    /// Checks a value; it is used as it is, white space around it included.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(value: &str) -> Result<Self, KeyError> {
        if is_longer(value, MAX_CONTEXT_KEY_CHARS) {
            return Err(KeyError::TooLong);
        }
        KeyError::unless_seen(value)?;
        Ok(Self(value.into()))
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

/// Whether a value has more characters than so many. For most values their bytes alone decide.
pub(crate) fn is_longer(value: &str, chars: u16) -> bool {
    value.len() > chars.into() && value.chars().count() > chars.into()
}
