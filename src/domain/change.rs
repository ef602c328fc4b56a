//! Changes: the context key and the operation that a record asks for.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::visibility::{self, InvisibleCharacter};

/// Longest context key, in characters. LaunchDarkly publishes no limit; this one is ours: long
/// enough for any identifier or hash, short enough that 1,000 of them stay near 1 MiB in ASCII,
/// and below 4 MiB in any script.
pub const MAX_CONTEXT_KEY_CHARS: u16 = 1024;

/// Room that is made for a key before it is known; longer ones only make the text grow.
const TYPICAL_KEY_BYTES: usize = 40;

/// Whether a member enters or leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Put the member into the segment.
    Add,
    /// Take the member out of it.
    Remove,
}

/// The key that identifies a member's context; cheap to clone, and hidden from `Debug`. It is a part of
/// a text that the keys of one message share.
#[derive(Clone)]
pub struct ContextKey {
    text: Arc<str>,
    start: u32,
    end: u32,
}

/// Collects the keys of one message.
#[derive(Default)]
pub struct ContextKeys {
    text: String,
    ends: Vec<u32>,
}

impl ContextKeys {
    /// For about so many keys.
    #[must_use]
    pub fn with_capacity(keys: usize) -> Self {
        Self {
            text: String::with_capacity(keys * TYPICAL_KEY_BYTES),
            ends: Vec::with_capacity(keys),
        }
    }

    /// Checks a value and adds it; it is used as it is, white space around it included.
    ///
    /// # Errors
    /// What is wrong with it. Nothing is added.
    pub fn push(&mut self, value: &str) -> Result<(), KeyError> {
        if is_longer(value, MAX_CONTEXT_KEY_CHARS) {
            return Err(KeyError::TooLong);
        }
        KeyError::unless_seen(value)?;
        self.text.push_str(value);
        let end = u32::try_from(self.text.len());
        self.ends
            .push(end.expect("a message is far smaller than 4 GiB"));
        Ok(())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Takes out all but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        let end = self.ends.last().map_or(0, |end| *end as usize);
        self.text.truncate(end);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }
}

impl IntoIterator for ContextKeys {
    type Item = ContextKey;
    type IntoIter = ContextKeysIter;

    /// The keys, in the order in which they were added.
    fn into_iter(self) -> ContextKeysIter {
        ContextKeysIter {
            text: self.text.into(),
            start: 0,
            ends: self.ends.into_iter(),
        }
    }
}

/// The keys of one message, in order.
pub struct ContextKeysIter {
    text: Arc<str>,
    start: u32,
    ends: std::vec::IntoIter<u32>,
}

impl Iterator for ContextKeysIter {
    type Item = ContextKey;

    fn next(&mut self) -> Option<ContextKey> {
        let end = self.ends.next()?;
        let start = std::mem::replace(&mut self.start, end);
        let text = Arc::clone(&self.text);
        Some(ContextKey { text, start, end })
    }
}

impl fmt::Debug for ContextKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKeys([{} redacted])", self.len())
    }
}

impl fmt::Debug for ContextKeysIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKeysIter([{} redacted])", self.ends.len())
    }
}

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
        let mut keys = ContextKeys::default();
        keys.push(value)?;
        Ok(keys.into_iter().next().expect("one was added"))
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text[self.start as usize..self.end as usize]
    }
}

impl PartialEq for ContextKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for ContextKey {}

impl Hash for ContextKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for ContextKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ContextKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
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
