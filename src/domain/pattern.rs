//! Patterns of values: regular expressions that forms publish and the server checks.

use regex::Regex;

/// What values look like, in RE2's syntax, and written so that it means the same to Java, and to
/// JavaScript with the flag `u` or `v` (as browsers read patterns of inputs).
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// Reads a pattern that stands in the code.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        assert!(
            pattern.starts_with('^') && pattern.ends_with('$'),
            "a pattern is of whole values"
        );
        Self(Regex::new(pattern).expect("patterns are written in the code, and tests read them"))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether a value looks like this.
    #[must_use]
    pub fn is_match(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}
