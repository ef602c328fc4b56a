//! JSON pointers (RFC 6901), as manifests have them.

use std::fmt;

/// More levels than any request has; it bounds the recursion over a template.
const MAX_LEVELS: usize = 32;

/// The place of a value in a JSON document: never the whole document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer(Vec<String>);

/// Why a text is no pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum PointerError {
    #[error("is no JSON pointer: one begins with `/`, as `/parameters/members` does")]
    NoSlash,
    #[error("is no JSON pointer: after `~` comes 0 or 1")]
    Escape,
    #[error("points behind the end of an array (`-`), where no value is")]
    End,
    #[error("has more than {MAX_LEVELS} levels")]
    TooDeep,
}

impl Pointer {
    pub(super) fn read(text: &str) -> Result<Self, PointerError> {
        let tokens = text.strip_prefix('/').ok_or(PointerError::NoSlash)?;
        let tokens: Vec<_> = tokens.split('/').map(unescape).collect::<Result<_, _>>()?;
        if tokens.iter().any(|token| token == "-") {
            return Err(PointerError::End);
        }
        if tokens.len() > MAX_LEVELS {
            return Err(PointerError::TooDeep);
        }
        Ok(Self(tokens))
    }

    /// The names and indices on the way, from the outside in; there is at least one.
    pub(super) fn tokens(&self) -> &[String] {
        &self.0
    }

    /// The rest of the way from another place, if it leads through that.
    pub(super) fn beyond(&self, other: &Self) -> Option<&[String]> {
        self.0.strip_prefix(other.tokens())
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for token in &self.0 {
            write!(f, "/{}", token.replace('~', "~0").replace('/', "~1"))?;
        }
        Ok(())
    }
}

fn unescape(token: &str) -> Result<String, PointerError> {
    let mut parts = token.split('~');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escaped, rest) = match part.as_bytes().first() {
            Some(b'0') => ('~', &part[1..]),
            Some(b'1') => ('/', &part[1..]),
            _ => return Err(PointerError::Escape),
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_read_as_the_standard_has_it() {
        let pointer = Pointer::read("/a~1b/m~0n/0//~01").unwrap();
        assert_eq!(pointer.tokens(), ["a/b", "m~n", "0", "", "~1"]);
        assert_eq!(pointer.to_string(), "/a~1b/m~0n/0//~01");
    }

    #[test]
    fn what_points_nowhere_is_refused() {
        for (text, error) in [
            ("", PointerError::NoSlash),
            ("a/b", PointerError::NoSlash),
            ("$.a", PointerError::NoSlash),
            ("/a~", PointerError::Escape),
            ("/a~2", PointerError::Escape),
            ("/a/-", PointerError::End),
        ] {
            assert_eq!(Pointer::read(text), Err(error), "{text}");
        }
        assert_eq!(Pointer::read(&"/a".repeat(33)), Err(PointerError::TooDeep));
    }
}
