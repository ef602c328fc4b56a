//! Context kinds: what sort of thing a context key identifies.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use super::{Pattern, change::is_longer};

/// Longest context kind, in characters. LaunchDarkly publishes no limit; this one is ours.
pub const MAX_CONTEXT_KIND_CHARS: u16 = 128;
/// Words of LaunchDarkly's alphabet that name no kind: its SDKs use them for something else.
const RESERVED: [&str; 2] = ["kind", "multi"];
/// What a context kind matches: LaunchDarkly's alphabet for kinds, but for the reserved words.
pub static CONTEXT_KIND_PATTERN: LazyLock<Pattern> = LazyLock::new(|| {
    let [kind, multi] = RESERVED.map(all_but);
    Pattern::new(&format!(r"^(?:[A-Za-jlno-z0-9._\-]{ANY}*|{kind}|{multi})$"))
});

const ANY: &str = r"[A-Za-z0-9._\-]";

/// Matches what begins like `word`, but not the word itself. RE2 cannot look ahead, so what may
/// follow each letter is written out.
fn all_but(word: &str) -> String {
    let (first, others) = word.split_at(1);
    let rest = others
        .bytes()
        .rev()
        .fold(format!("{ANY}+"), |rest, letter| {
            let (before, after) = (char::from(letter - 1), char::from(letter + 1));
            let letter = char::from(letter);
            format!(r"(?:[A-Za-{before}{after}-z0-9._\-]{ANY}*|{letter}{rest})?")
        });
    format!("{first}{rest}")
}

/// The kind of a segment's members, such as `user` or `account`. All members of a segment are of
/// one kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContextKind(Arc<str>);

/// A text that names no context kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to {MAX_CONTEXT_KIND_CHARS} characters of A-Z a-z 0-9 . _ - and neither `kind` nor `multi`"
)]
pub struct ContextKindError;

impl ContextKind {
    /// The kind that LaunchDarkly takes where none is named.
    pub const DEFAULT: &str = "user";

    /// Checks a kind against [`CONTEXT_KIND_PATTERN`].
    ///
    /// # Errors
    /// It does not match, or is too long.
    pub fn new(kind: &str) -> Result<Self, ContextKindError> {
        let fits = !is_longer(kind, MAX_CONTEXT_KIND_CHARS) && CONTEXT_KIND_PATTERN.is_match(kind);
        fits.then(|| Self(kind.into())).ok_or(ContextKindError)
    }

    /// The kind.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ContextKind {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for ContextKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn kinds_are_of_launchdarklys_alphabet_and_no_reserved_word(
            kind in "(k|ki|kin|kind|m|mu|mul|mult|multi|x)?[a-zA-Z0-9_.\\-/ é\n]{0,3}(-{124})?"
        ) {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
            let reserved = kind == "kind" || kind == "multi";
            let fits = (1..=128).contains(&kind.len()) && kind.bytes().all(legal) && !reserved;
            prop_assert_eq!(ContextKind::new(&kind).is_ok(), fits);
        }
    }

    #[test]
    fn the_default_is_a_kind() {
        assert_eq!(ContextKind::new("user"), Ok(ContextKind::default()));
    }
}
