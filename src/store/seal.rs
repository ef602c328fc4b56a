//! Encryption at rest: a destination's secrets are sealed by AES-256-GCM-SIV, bound to the
//! destination.
//!
//! The destination's uid is authenticated with the secrets, so sealed secrets that are moved to
//! another row do not open there. GCM-SIV keeps its promises even if two random nonces meet.

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use super::keys::{KeyId, KeyRing};
use crate::domain::DestinationUid;

/// Secrets as they are stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) key_id: KeyId,
    /// The nonce, then the ciphertext with its tag.
    pub(super) bytes: Vec<u8>,
}

/// Why sealed secrets do not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("sealed with key {0}, which the keys file does not have")]
    UnknownKey(KeyId),
    #[error(
        "key {0} does not open them: they were changed, or come from another destination, or the \
         keys file has another key under this id"
    )]
    Refused(KeyId),
}

impl KeyRing {
    /// Seals with the newest key.
    pub(super) fn seal(&self, uid: DestinationUid, secrets: &[u8]) -> Sealed {
        let key = self.newest();
        // Room for the tag from the start: growing would leave the plaintext behind.
        let mut ciphertext = Vec::with_capacity(secrets.len() + AES_256_GCM_SIV.tag_len());
        ciphertext.extend_from_slice(secrets);
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(uid.0.as_bytes()), &mut ciphertext)
            .expect("secrets are far below the cipher's limit, and random bytes are at hand");
        Sealed {
            key_id: key.id.clone(),
            bytes: [nonce.as_ref(), ciphertext.as_slice()].concat(),
        }
    }

    /// Opens with the key that sealed.
    pub(super) fn open(
        &self,
        uid: DestinationUid,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let key = self
            .get(&sealed.key_id)
            .ok_or_else(|| SealError::UnknownKey(sealed.key_id.clone()))?;
        let refused = || SealError::Refused(sealed.key_id.clone());
        let (nonce, ciphertext) = sealed
            .bytes
            .split_first_chunk::<NONCE_LEN>()
            .ok_or_else(refused)?;
        let mut opened = Zeroizing::new(ciphertext.to_vec());
        let length = key
            .cipher
            .open_in_place(
                Nonce::assume_unique_for_key(*nonce),
                Aad::from(uid.0.as_bytes()),
                &mut opened,
            )
            .map_err(|_| refused())?
            .len();
        opened.truncate(length);
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use std::str;

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
            .chain(&mut flipped.bytes)
            .nth(bit / 8)
            .map(|byte| *byte ^= 1 << (bit % 8))?;
        flipped.key_id = KeyId::new(str::from_utf8(&id).ok()?)?;
        Some(flipped)
    }

    fn bits(sealed: &Sealed) -> usize {
        8 * (sealed.key_id.as_str().len() + sealed.bytes.len())
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens_again_after_a_rotation(uid in uid(), secrets in "\\PC{0,80}") {
            let sealed = ring(&[OLD]).seal(uid, secrets.as_bytes());
            let opened = ring(&[OLD, NEW]).open(uid, &sealed);
            prop_assert_eq!(opened, Ok(Zeroizing::new(secrets.into_bytes())));
        }

        #[test]
        fn any_flipped_bit_is_refused(uid in uid(), secrets in "\\PC{0,40}") {
            // The id k-1 is one bit from k-0, and has a key too.
            let ring = ring(&[NEW, OLD]);
            let sealed = ring.seal(uid, secrets.as_bytes());
            for bit in 0..bits(&sealed) {
                if let Some(flipped) = flip(&sealed, bit) {
                    prop_assert!(ring.open(uid, &flipped).is_err(), "bit {}", bit);
                }
            }
        }

        #[test]
        fn sealed_secrets_do_not_open_in_another_row(a in uid(), b in uid()) {
            prop_assume!(a != b);
            let ring = ring(&[OLD]);
            let sealed = ring.seal(a, b"api-canary");
            prop_assert_eq!(ring.open(b, &sealed), Err(SealError::Refused(sealed.key_id)));
        }
    }

    #[test]
    fn wrong_and_unknown_keys_are_told_apart() {
        let uid = DestinationUid::generate();
        let sealed = ring(&[OLD]).seal(uid, b"api-canary");
        let id = sealed.key_id.clone();
        let wrong = ring(&[WRONG]).open(uid, &sealed);
        assert_eq!(wrong, Err(SealError::Refused(id.clone())));
        let unknown = ring(&[NEW]).open(uid, &sealed);
        assert_eq!(unknown, Err(SealError::UnknownKey(id)));
    }

    #[test]
    fn the_newest_key_seals_and_never_twice_alike() {
        let ring = ring(&[OLD, NEW]);
        let uid = DestinationUid::generate();
        let (a, b) = (ring.seal(uid, b"api-x"), ring.seal(uid, b"api-x"));
        assert_eq!(a.key_id.as_str(), "k-1");
        let (nonce, other_nonce) = (&a.bytes[..NONCE_LEN], &b.bytes[..NONCE_LEN]);
        assert_ne!(nonce, other_nonce);
        assert_ne!(a.bytes[NONCE_LEN..], b.bytes[NONCE_LEN..]);
    }
}
