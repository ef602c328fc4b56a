//! What is plainly wrong with credentials before anyone is asked.

use super::advice::{self, Advice};
use crate::{domain::ClientSideId, secret::AccessToken};

/// Start of SDK keys, as LaunchDarkly documents.
const SDK_KEY: &str = "sdk-";
/// Start of mobile keys, as LaunchDarkly documents.
const MOBILE_KEY: &str = "mob-";
/// Start of access tokens: convention only, so nothing is refused for lacking it.
const ACCESS_TOKEN: &str = "api-";

/// What is wrong with the form of an access token.
pub(super) fn access_token(token: &AccessToken) -> Option<Advice> {
    let token = token.expose();
    let trimmed = token.trim();
    if trimmed.is_empty() {
        Some(advice::TOKEN_EMPTY)
    } else if trimmed.starts_with(SDK_KEY) {
        Some(advice::TOKEN_IS_SDK_KEY)
    } else if trimmed.starts_with(MOBILE_KEY) {
        Some(advice::TOKEN_IS_MOBILE_KEY)
    } else if trimmed.len() < token.len() {
        Some(advice::TOKEN_HAS_WHITE_SPACE)
    } else if !token.bytes().all(|b| b.is_ascii_graphic()) {
        Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)
    } else {
        None
    }
}

/// What is wrong with the form of a client-side ID.
pub(super) fn client_side_id(id: &ClientSideId) -> Option<Advice> {
    let id = id.as_str();
    let trimmed = id.trim();
    if trimmed.is_empty() {
        Some(advice::CLIENT_SIDE_ID_EMPTY)
    } else if trimmed.starts_with(SDK_KEY) {
        Some(advice::CLIENT_SIDE_ID_IS_SDK_KEY)
    } else if trimmed.starts_with(MOBILE_KEY) {
        Some(advice::CLIENT_SIDE_ID_IS_MOBILE_KEY)
    } else if trimmed.starts_with(ACCESS_TOKEN) {
        Some(advice::CLIENT_SIDE_ID_IS_ACCESS_TOKEN)
    } else if trimmed.len() < id.len() {
        Some(advice::CLIENT_SIDE_ID_HAS_WHITE_SPACE)
    } else if id.contains('-') {
        Some(advice::CLIENT_SIDE_ID_HAS_DASH)
    } else if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        // Ours, not LaunchDarkly's: none has been seen with others, and it goes into a path.
        Some(advice::CLIENT_SIDE_ID_HAS_ILLEGAL_CHARACTERS)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_token_is_named() {
        for (token, expected) in [
            ("api-00000000-0000-4000-8000-000000000001", None),
            ("a-token-of-another-form", None),
            ("Bearer api-1", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
            ("", Some(advice::TOKEN_EMPTY)),
            (" \n", Some(advice::TOKEN_EMPTY)),
            ("sdk-1", Some(advice::TOKEN_IS_SDK_KEY)),
            (" sdk-1", Some(advice::TOKEN_IS_SDK_KEY)),
            ("mob-1", Some(advice::TOKEN_IS_MOBILE_KEY)),
            (" api-1", Some(advice::TOKEN_HAS_WHITE_SPACE)),
            ("api-1\n", Some(advice::TOKEN_HAS_WHITE_SPACE)),
            ("api-1\u{a0}", Some(advice::TOKEN_HAS_WHITE_SPACE)),
            ("api\r\nx: y", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
            ("api-1 2", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
            ("api-é", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
            ("api-\u{7f}1", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
        ] {
            let found = access_token(&AccessToken::new(token.into()));
            assert_eq!(found, expected, "{token:?}");
        }
    }

    #[test]
    fn what_is_not_a_client_side_id_is_named() {
        for (id, expected) in [
            ("5a0000000000000000000001", None),
            ("some_ID", None),
            ("", Some(advice::CLIENT_SIDE_ID_EMPTY)),
            ("sdk-1", Some(advice::CLIENT_SIDE_ID_IS_SDK_KEY)),
            ("mob-1", Some(advice::CLIENT_SIDE_ID_IS_MOBILE_KEY)),
            ("api-1", Some(advice::CLIENT_SIDE_ID_IS_ACCESS_TOKEN)),
            ("5a01 ", Some(advice::CLIENT_SIDE_ID_HAS_WHITE_SPACE)),
            ("my-project", Some(advice::CLIENT_SIDE_ID_HAS_DASH)),
            ("../x", Some(advice::CLIENT_SIDE_ID_HAS_ILLEGAL_CHARACTERS)),
            ("5a?01", Some(advice::CLIENT_SIDE_ID_HAS_ILLEGAL_CHARACTERS)),
        ] {
            assert_eq!(
                client_side_id(&ClientSideId::new(id.into())),
                expected,
                "{id:?}"
            );
        }
    }
}
