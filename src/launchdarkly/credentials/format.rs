//! Format of credentials: the pattern and the length that an access token and a client-side ID
//! have.

use std::sync::LazyLock;

use crate::domain::{Pattern, is_longer};

/// Longest access token, in characters. LaunchDarkly's have some 40; ours leaves room for another
/// form.
pub(in crate::launchdarkly) const MAX_ACCESS_TOKEN_CHARS: u16 = 512;
/// Longest client-side ID, in characters. LaunchDarkly's have 24.
pub(in crate::launchdarkly) const MAX_CLIENT_SIDE_ID_CHARS: u16 = 64;

/// The pattern of access tokens.
///
/// Visible ASCII, which can stand in a header, without quotation marks; and neither `sdk-` nor
/// `mob-` at the start, which are keys of another kind. That tokens begin with `api-` is a
/// convention. RE2 cannot look ahead, so what may follow each letter of those is written out.
pub(in crate::launchdarkly) static ACCESS_TOKEN_PATTERN: LazyLock<Pattern> =
    LazyLock::new(access_token_pattern);
/// The pattern of client-side IDs.
///
/// No dashes, as LaunchDarkly documents; 24 hexadecimal digits are a convention. That nothing else
/// stands in one is ours: none has been seen with it, and the ID goes into a path.
pub(in crate::launchdarkly) static CLIENT_SIDE_ID_PATTERN: LazyLock<Pattern> =
    LazyLock::new(|| Pattern::new("^[A-Za-z0-9_]+$"));

fn access_token_pattern() -> Pattern {
    let any = r"[!#-&\(-_a-~]*";
    let but_sdk = format!(
        r"s(?:[!#-&\(-_a-ce-~]{any}|d(?:[!#-&\(-_a-jl-~]{any}|k(?:[!#-&\(-,.-_a-~]{any})?)?)?"
    );
    let but_mob = format!(
        r"m(?:[!#-&\(-_a-np-~]{any}|o(?:[!#-&\(-_ac-~]{any}|b(?:[!#-&\(-,.-_a-~]{any})?)?)?"
    );
    let others = format!(r"[!#-&\(-_a-ln-rt-~]{any}");
    Pattern::new(&format!("^(?:{others}|{but_sdk}|{but_mob})$"))
}

/// Whether a text has the format of an access token.
pub(super) fn is_access_token(text: &str) -> bool {
    ACCESS_TOKEN_PATTERN.is_match(text) && !is_longer(text, MAX_ACCESS_TOKEN_CHARS)
}

/// Whether a text has the format of a client-side ID.
pub(super) fn is_client_side_id(text: &str) -> bool {
    CLIENT_SIDE_ID_PATTERN.is_match(text) && !is_longer(text, MAX_CLIENT_SIDE_ID_CHARS)
}
