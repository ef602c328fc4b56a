//! Access token: a secret that cannot be printed by accident.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// Characters of a token that are shown, so that people can tell tokens apart.
const VISIBLE: usize = 4;

/// An access token; wiped from memory when dropped. Only [`expose`](Self::expose) shows it;
/// [`hint`](Self::hint) shows its last four characters.
#[derive(Clone)]
pub struct AccessToken(SecretString);

impl AccessToken {
    /// Wraps a token.
    #[must_use]
    pub fn new(token: String) -> Self {
        Self(SecretString::from(token))
    }

    /// The token itself, for the call that needs it. Never log or store what this returns.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The last four characters; empty when that would be half of the token or more.
    #[must_use]
    pub fn hint(&self) -> String {
        let count = self.expose().chars().count();
        if count <= 2 * VISIBLE {
            return String::new();
        }
        self.expose().chars().skip(count - VISIBLE).collect()
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken([redacted])")
    }
}

impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(
            self.expose().as_bytes(),
            other.expose().as_bytes(),
        )
        .is_ok()
    }
}

impl Eq for AccessToken {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_token() {
        let shown = format!("{:?}", AccessToken::new("api-canary-1234".into()));
        assert_eq!(shown, "AccessToken([redacted])");
    }

    #[test]
    fn hint_is_the_last_four_characters_unless_the_token_is_tiny() {
        assert_eq!(AccessToken::new("api-canary-1234".into()).hint(), "1234");
        assert_eq!(AccessToken::new("secret12".into()).hint(), "");
    }
}
