//! Serialization of a destination's secrets: the JSON that is sealed. As in the
//! [settings](super::settings), a newer version of this program may write members that this one does
//! not know.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::stored::{self, StoredError};
use crate::secret::AccessToken;

/// Longest form of one byte in JSON: `\u0000`.
const ESCAPED: usize = 6;
/// At least as many bytes as the JSON has beside its values.
const JSON_OVERHEAD: usize = 64;

/// What column `secrets` holds under its seal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSecrets<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
}

/// Writes the secrets of a destination.
pub(super) fn to_json(access_token: &AccessToken) -> Zeroizing<Vec<u8>> {
    let access_token = access_token.expose();
    // Large enough from the start: growing would leave the plaintext behind.
    let room = JSON_OVERHEAD + ESCAPED * access_token.len();
    let mut json = Zeroizing::new(Vec::with_capacity(room));
    let secrets = StoredSecrets {
        access_token: access_token.into(),
    };
    serde_json::to_writer(&mut *json, &secrets).expect("text becomes JSON");
    json
}

/// Reads secrets. An error does not hold their text.
///
/// # Errors
/// If they are damaged, or hold words that are not known here.
pub(super) fn from_json(json: &[u8]) -> Result<AccessToken, StoredError> {
    let secrets: StoredSecrets<'_> = stored::from_json(json).map_err(|error| match error {
        StoredError::Damaged(_) => StoredError::Damaged("its secrets are no JSON".into()),
        StoredError::Unsupported(_) => StoredError::Unsupported("unknown kind of secret".into()),
    })?;
    Ok(AccessToken::new(secrets.access_token.into_owned()))
}
