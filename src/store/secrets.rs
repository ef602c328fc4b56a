//! Serialization of a destination's secrets, before they are sealed: JSON, which may get new
//! members as that of the [settings](super::settings).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::stored::{self, StoredError};
use crate::secret::AccessToken;

/// Longest form of one byte in JSON: `\u0000`.
const ESCAPED: usize = 6;
/// More bytes than all words and signs around the values have.
const AROUND: usize = 64;

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
    let room = AROUND + ESCAPED * access_token.len();
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
