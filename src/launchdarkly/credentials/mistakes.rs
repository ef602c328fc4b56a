//! Format check of credentials: the likeliest mistake, found without a call.

use super::{
    advice::{self, Advice},
    format::{
        MAX_ACCESS_TOKEN_CHARS, MAX_CLIENT_SIDE_ID_CHARS, is_access_token, is_client_side_id,
    },
};
use crate::{domain::ClientSideId, secret::AccessToken};

/// Start of SDK keys, as LaunchDarkly documents.
const SDK_KEY: &str = "sdk-";
/// Start of mobile keys, as LaunchDarkly documents.
const MOBILE_KEY: &str = "mob-";
/// Start of access tokens: convention only, so nothing is refused for lacking it.
const ACCESS_TOKEN: &str = "api-";

/// What stands before a token in a header, or is taken to.
const SCHEMES: [&str; 4] = ["authorization:", "bearer", "basic", "token"];
/// Straight, typographic and angular ones.
const QUOTATION_MARKS: [char; 13] = [
    '"', '\'', '`', '´', '“', '”', '„', '‘', '’', '‚', '«', '»', '\u{ff02}',
];

/// What is wrong with the format of an access token.
pub(super) fn access_token(token: &AccessToken) -> Option<Advice> {
    let token = token.expose();
    (!is_access_token(token)).then(|| why_no_access_token(token))
}

/// What is wrong with the format of a client-side ID.
pub(super) fn client_side_id(id: &ClientSideId) -> Option<Advice> {
    let id = id.as_str();
    (!is_client_side_id(id)).then(|| why_no_client_side_id(id))
}

/// The likeliest mistake behind a value that the field of access tokens refuses.
pub(in crate::launchdarkly) fn why_no_access_token(token: &str) -> Advice {
    let trimmed = token.trim();
    let bare = without_scheme(unquoted(trimmed));
    if bare.is_empty() {
        advice::TOKEN_EMPTY
    } else if bare.starts_with(SDK_KEY) {
        advice::TOKEN_IS_SDK_KEY
    } else if bare.starts_with(MOBILE_KEY) {
        advice::TOKEN_IS_MOBILE_KEY
    } else if unquoted(trimmed).len() < trimmed.len() {
        advice::TOKEN_IS_QUOTED
    } else if bare.len() < trimmed.len() {
        advice::TOKEN_HAS_SCHEME
    } else if trimmed.len() < token.len() {
        advice::TOKEN_HAS_WHITE_SPACE
    } else if trimmed.chars().count() > MAX_ACCESS_TOKEN_CHARS.into() {
        advice::TOKEN_TOO_LONG
    } else {
        advice::TOKEN_HAS_ILLEGAL_CHARACTERS
    }
}

/// The likeliest mistake behind a value that the field of client-side IDs refuses.
pub(in crate::launchdarkly) fn why_no_client_side_id(id: &str) -> Advice {
    let trimmed = id.trim();
    let bare = unquoted(trimmed);
    if bare.is_empty() {
        advice::CLIENT_SIDE_ID_EMPTY
    } else if bare.starts_with(SDK_KEY) {
        advice::CLIENT_SIDE_ID_IS_SDK_KEY
    } else if bare.starts_with(MOBILE_KEY) {
        advice::CLIENT_SIDE_ID_IS_MOBILE_KEY
    } else if without_scheme(bare).starts_with(ACCESS_TOKEN) {
        advice::CLIENT_SIDE_ID_IS_ACCESS_TOKEN
    } else if bare.len() < trimmed.len() {
        advice::CLIENT_SIDE_ID_IS_QUOTED
    } else if trimmed.len() < id.len() {
        advice::CLIENT_SIDE_ID_HAS_WHITE_SPACE
    } else if id.contains('-') {
        advice::CLIENT_SIDE_ID_HAS_DASH
    } else if trimmed.chars().count() > MAX_CLIENT_SIDE_ID_CHARS.into() {
        advice::CLIENT_SIDE_ID_TOO_LONG
    } else {
        advice::CLIENT_SIDE_ID_HAS_ILLEGAL_CHARACTERS
    }
}

/// Without quotation marks at either end: one alone is as wrong as a pair.
fn unquoted(text: &str) -> &str {
    text.trim_matches(QUOTATION_MARKS).trim()
}

/// Without the words that stand before a token in a header.
fn without_scheme(text: &str) -> &str {
    let after = SCHEMES.iter().find_map(|scheme| {
        let (head, rest) = text.split_at_checked(scheme.len())?;
        let ends = scheme.ends_with(':') || rest.starts_with(char::is_whitespace);
        (head.eq_ignore_ascii_case(scheme) && ends).then(|| rest.trim_start())
    });
    after.map_or(text, without_scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: &str = match std::str::from_utf8(&[b'a'; 513]) {
        Ok(long) => long,
        Err(_) => panic!(),
    };

    #[test]
    fn what_is_not_a_token_is_named() {
        for (token, expected) in [
            ("api-00000000-0000-4000-8000-000000000001", None),
            ("a-token-of-another-form", None),
            ("Bearer api-1", Some(advice::TOKEN_HAS_SCHEME)),
            ("bearer\tapi-1 ", Some(advice::TOKEN_HAS_SCHEME)),
            ("Authorization: api-1", Some(advice::TOKEN_HAS_SCHEME)),
            (
                "authorization: Bearer sdk-1",
                Some(advice::TOKEN_IS_SDK_KEY),
            ),
            ("Bearer ", Some(advice::TOKEN_HAS_WHITE_SPACE)),
            ("\"api-1\"", Some(advice::TOKEN_IS_QUOTED)),
            ("'api-1", Some(advice::TOKEN_IS_QUOTED)),
            ("“api-1” ", Some(advice::TOKEN_IS_QUOTED)),
            ("\"Bearer api-1\"", Some(advice::TOKEN_IS_QUOTED)),
            ("\"mob-1\"", Some(advice::TOKEN_IS_MOBILE_KEY)),
            ("\"\"", Some(advice::TOKEN_EMPTY)),
            ("api-\"1", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
            ("\u{200b}api-1", Some(advice::TOKEN_HAS_ILLEGAL_CHARACTERS)),
            (LONG, Some(advice::TOKEN_TOO_LONG)),
            // Not those keys, though they begin alike.
            ("sdk", None),
            ("sd-1", None),
            ("mobile", None),
            ("s", None),
            ("Bearer", None),
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
            ("'5a01'", Some(advice::CLIENT_SIDE_ID_IS_QUOTED)),
            ("\"sdk-1\"", Some(advice::CLIENT_SIDE_ID_IS_SDK_KEY)),
            ("Bearer api-1", Some(advice::CLIENT_SIDE_ID_IS_ACCESS_TOKEN)),
            (
                "\u{feff}5a01",
                Some(advice::CLIENT_SIDE_ID_HAS_ILLEGAL_CHARACTERS),
            ),
            (LONG, Some(advice::CLIENT_SIDE_ID_TOO_LONG)),
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
