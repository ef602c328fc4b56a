//! How an access token is sealed at rest: AES-256-GCM-SIV, bound to its destination.
//!
//! The destination's uid is authenticated with the token, so a sealed token that is moved to
//! another row does not open there. GCM-SIV keeps its promises even if two random nonces meet.

use std::str;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use super::keys::{KeyId, KeyRing};
use crate::{domain::DestinationUid, secret::AccessToken};

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) key_id: KeyId,
    pub(super) nonce: [u8; NONCE_LEN],
    /// With the tag at its end.
    pub(super) ciphertext: Vec<u8>,
}

/// Why a sealed token does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("it is sealed with key {0}, which the keys file does not have")]
    UnknownKey(KeyId),
    #[error(
        "key {0} does not open it: it was changed, or comes from another destination, or the \
         keys file has another key under this id"
    )]
    Refused(KeyId),
}

impl KeyRing {
    /// Seals with the newest key.
    pub(super) fn seal(&self, uid: DestinationUid, token: &AccessToken) -> Sealed {
        let key = self.newest();
        let token = token.expose().as_bytes();
        // Room for the tag from the start: growing would leave the plaintext behind.
        let mut ciphertext = Vec::with_capacity(token.len() + AES_256_GCM_SIV.tag_len());
        ciphertext.extend_from_slice(token);
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(uid.0.as_bytes()), &mut ciphertext)
            .expect("a token is far below the cipher's limit, and random bytes are at hand");
        Sealed {
            key_id: key.id.clone(),
            nonce: *nonce.as_ref(),
            ciphertext,
        }
    }

    /// Opens with the key that sealed.
    pub(super) fn open(
        &self,
        uid: DestinationUid,
        sealed: &Sealed,
    ) -> Result<AccessToken, SealError> {
        let key = self
            .get(&sealed.key_id)
            .ok_or_else(|| SealError::UnknownKey(sealed.key_id.clone()))?;
        let refused = || SealError::Refused(sealed.key_id.clone());
        let mut opened = Zeroizing::new(sealed.ciphertext.clone());
        let token = key
            .cipher
            .open_in_place(
                Nonce::assume_unique_for_key(sealed.nonce),
                Aad::from(uid.0.as_bytes()),
                &mut opened,
            )
            .map_err(|_| refused())?;
        let token = str::from_utf8(token).map_err(|_| refused())?;
        Ok(AccessToken::new(token.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn ring(lines: &[&str]) -> KeyRing {
        lines.join("\n").parse().unwrap()
    }

    const OLD: &str = "k-0 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "k-1 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    /// The id of `OLD` over the secret of `NEW`.
    const WRONG: &str = "k-0 AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn uid() -> impl Strategy<Value = DestinationUid> {
        any::<u128>().prop_map(|n| DestinationUid(Uuid::from_u128(n)))
    }

    /// Flips one bit of all that is stored; `None` if that leaves no key id.
    fn flip(sealed: &Sealed, bit: usize) -> Option<Sealed> {
        let mut id = sealed.key_id.as_str().as_bytes().to_vec();
        let mut flipped = sealed.clone();
        id.iter_mut()
            .chain(&mut flipped.nonce)
            .chain(&mut flipped.ciphertext)
            .nth(bit / 8)
            .map(|byte| *byte ^= 1 << (bit % 8))?;
        flipped.key_id = KeyId::new(str::from_utf8(&id).ok()?)?;
        Some(flipped)
    }

    fn bits(sealed: &Sealed) -> usize {
        8 * (sealed.key_id.as_str().len() + sealed.nonce.len() + sealed.ciphertext.len())
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again_after_a_rotation(uid in uid(), token in "\\PC{0,80}") {
            let token = AccessToken::new(token);
            let sealed = ring(&[OLD]).seal(uid, &token);
            prop_assert_eq!(ring(&[OLD, NEW]).open(uid, &sealed), Ok(token));
        }

        #[test]
        fn any_flipped_bit_is_refused(uid in uid(), token in "\\PC{0,40}") {
            // The id k-1 is one bit from k-0, and has a key too.
            let ring = ring(&[NEW, OLD]);
            let sealed = ring.seal(uid, &AccessToken::new(token));
            for bit in 0..bits(&sealed) {
                if let Some(flipped) = flip(&sealed, bit) {
                    prop_assert!(ring.open(uid, &flipped).is_err(), "bit {}", bit);
                }
            }
        }

        #[test]
        fn a_sealed_token_does_not_open_in_another_row(a in uid(), b in uid()) {
            prop_assume!(a != b);
            let ring = ring(&[OLD]);
            let sealed = ring.seal(a, &AccessToken::new("api-canary".into()));
            prop_assert_eq!(ring.open(b, &sealed), Err(SealError::Refused(sealed.key_id)));
        }
    }

    #[test]
    fn wrong_and_unknown_keys_are_told_apart() {
        let uid = DestinationUid::generate();
        let sealed = ring(&[OLD]).seal(uid, &AccessToken::new("api-canary".into()));
        let id = sealed.key_id.clone();
        let wrong = ring(&[WRONG]).open(uid, &sealed);
        assert_eq!(wrong, Err(SealError::Refused(id.clone())));
        let unknown = ring(&[NEW]).open(uid, &sealed);
        assert_eq!(unknown, Err(SealError::UnknownKey(id)));
    }

    #[test]
    fn the_newest_key_seals_and_never_twice_alike() {
        let ring = ring(&[OLD, NEW]);
        let (uid, token) = (DestinationUid::generate(), AccessToken::new("api-x".into()));
        let (a, b) = (ring.seal(uid, &token), ring.seal(uid, &token));
        assert_eq!(a.key_id.as_str(), "k-1");
        assert_ne!(a.nonce, b.nonce);
        assert_ne!(a.ciphertext, b.ciphertext);
    }
}
