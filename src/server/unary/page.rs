//! Page tokens: opaque to callers, and good only for the query that they came from.
//!
//! A token is a tag and a position. The tag is a digest over query and position, so a token of
//! another query, or one that was tampered with, is recognized. It is no
//! secret: a caller that forges it moves within what that caller may list anyway.

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Bytes of the digest that are kept: chance collisions are out of reach, tokens stay short.
const TAG: usize = 16;

/// The token for what follows `position` in `query`.
pub(super) fn seal(query: &[&str], position: &[u8]) -> String {
    let tag = tag(query, position);
    URL_SAFE_NO_PAD.encode([&tag, position].concat())
}

/// The position of a token that [`seal`] made for this query.
pub(super) fn open<const N: usize>(query: &[&str], token: &str) -> Option<[u8; N]> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (found, position) = bytes.split_at_checked(TAG)?;
    (found == tag(query, position)).then_some(position.try_into().ok()?)
}

fn tag(query: &[&str], position: &[u8]) -> [u8; TAG] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in query {
        // Lengths keep ("a", "bc") and ("ab", "c") apart.
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.update(position);
    let mut tag = [0; TAG];
    tag.copy_from_slice(&hash.finish().as_ref()[..TAG]);
    tag
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUERY: &[&str] = &["list", "organizations/acme", "vip"];

    #[test]
    fn a_token_opens_with_its_own_query_alone() {
        let token = seal(QUERY, b"position");
        assert_eq!(open(QUERY, &token), Some(*b"position"));
        assert_eq!(
            open::<8>(&["list", "organizations/acme", "vi"], &token),
            None
        );
        assert_eq!(
            open::<8>(&["list", "organizations/acmev", "ip"], &token),
            None
        );
        assert_eq!(open::<7>(QUERY, &token), None);
    }

    proptest! {
        #[test]
        fn a_token_with_any_character_changed_is_refused(at in 0usize..32, to in "[A-Za-z0-9_=.-]") {
            let token = seal(QUERY, b"position");
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert_eq!(open::<8>(QUERY, &changed), None);
        }

        #[test]
        fn arbitrary_text_is_refused(token in "\\PC{0,64}") {
            prop_assert_eq!(open::<8>(QUERY, &token), None);
        }
    }
}
