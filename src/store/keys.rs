//! Keyring: the keys that seal secrets, read from a file. There is one key a line; the last line
//! seals, and all open.
//!
//! A line is `<key id> <base64 of 32 bytes>`; blank lines and lines that start with `#` are
//! skipped. Appending a line is thus how a key is rotated: what was sealed before still opens.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, RandomizedNonceKey},
    rand,
};
use base64::prelude::{BASE64_STANDARD, Engine};
use uuid::Uuid;
use zeroize::Zeroizing;

/// Length of a key, in bytes (AES-256).
const KEY_BYTES: usize = 32;
/// Longest key id, in characters. Ours: room for a UUID without dashes.
const MAX_KEY_ID: usize = 32;

/// Names a key beside what it sealed; no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyId(String);

impl KeyId {
    /// Checks an id: 1 to 32 of `a-z 0-9 -`.
    #[must_use]
    pub(super) fn new(id: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let fits = (1..=MAX_KEY_ID).contains(&id.len()) && id.bytes().all(legal);
        fits.then(|| Self(id.to_owned()))
    }

    #[must_use]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One or more sealing keys. `Debug` shows their ids alone; the crypto library wipes a key's
/// memory when it frees it.
pub struct KeyRing {
    /// In order of their lines; never empty.
    keys: Vec<SealingKey>,
}

pub(super) struct SealingKey {
    pub(super) id: KeyId,
    pub(super) cipher: RandomizedNonceKey,
}

/// Why a keys file cannot be used, and what to do about it. Holds no key material.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct KeyRingError(#[from] FileProblem);

#[derive(Debug, thiserror::Error)]
enum FileProblem {
    #[error(
        "there is no keys file {}: make one with `launchdarkly-connector keygen > {0}`, then \
         `chmod 600 {0}`", .path.display()
    )]
    Missing { path: PathBuf },
    #[error("the keys file {} cannot be read", .path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the keys file {} cannot be used", .path.display())]
    Unusable { path: PathBuf, source: KeyFileError },
}

/// Why a text is no key ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    #[error("it holds no key: append one with `launchdarkly-connector keygen`")]
    Empty,
    /// Every problem, in order of the lines.
    #[error("{}", join(.0))]
    Malformed(Vec<LineError>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// Counted from 1.
    pub line: usize,
    pub problem: LineProblem,
}

/// What can be wrong with a line. The line itself is not shown: it may hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    #[error("must be a key id, white space, and the base64 of {KEY_BYTES} bytes")]
    Form,
    #[error("the key id must be 1 to {MAX_KEY_ID} characters of a-z 0-9 -")]
    Id,
    #[error("the key is not base64, with its padding")]
    Base64,
    #[error("the key must be {KEY_BYTES} bytes")]
    Length,
    #[error("has the key id of line {0}; each key needs its own")]
    SameId(usize),
    /// Two lines hold one key, so that a rotation would be none.
    #[error("has the key of line {0} under another id; a new key comes from `keygen`")]
    SameKey(usize),
}

impl KeyRing {
    /// Reads a keys file.
    ///
    /// # Errors
    /// Everything that is wrong with it, and the way out.
    pub fn load(path: &Path) -> Result<Self, KeyRingError> {
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|source| unreadable(path, source))?;
        warn_if_others_can_read(path);
        let path = path.to_owned();
        let parsed = text.parse();
        Ok(parsed.map_err(|source| FileProblem::Unusable { path, source })?)
    }

    /// A line for a keys file, with a new random key under a new random id.
    #[must_use]
    pub fn generate_line() -> Zeroizing<String> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(secret.as_mut_slice()).expect("the operating system has random bytes");
        let encoded = Zeroizing::new(BASE64_STANDARD.encode(secret.as_slice()));
        let id = Uuid::new_v4().simple().to_string();
        Zeroizing::new(format!("k-{} {}", &id[..8], *encoded))
    }

    pub(super) fn newest(&self) -> &SealingKey {
        self.keys.last().expect("a key ring is never empty")
    }

    pub(super) fn get(&self, id: &KeyId) -> Option<&SealingKey> {
        self.keys.iter().find(|key| key.id == *id)
    }
}

impl FromStr for KeyRing {
    type Err = KeyFileError;

    fn from_str(text: &str) -> Result<Self, KeyFileError> {
        let mut lines: Vec<KeyLine> = Vec::new();
        let mut errors = Vec::new();
        for (index, text) in text.lines().enumerate() {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let number = index + 1;
            match KeyLine::parse(number, text).and_then(|line| line.distinct_from(&lines)) {
                Ok(line) => lines.push(line),
                Err(problems) => errors.extend(problems.into_iter().map(|problem| LineError {
                    line: number,
                    problem,
                })),
            }
        }
        match (lines.is_empty(), errors.is_empty()) {
            (_, false) => Err(KeyFileError::Malformed(errors)),
            (true, true) => Err(KeyFileError::Empty),
            (false, true) => Ok(Self {
                keys: lines.into_iter().map(KeyLine::into_key).collect(),
            }),
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| &key.id.0);
        f.write_str("KeyRing ")?;
        f.debug_list().entries(ids).finish()
    }
}

/// A parsed line.
struct KeyLine {
    number: usize,
    id: KeyId,
    secret: Zeroizing<Vec<u8>>,
}

impl KeyLine {
    fn parse(number: usize, text: &str) -> Result<Self, Vec<LineProblem>> {
        let mut words = text.split_whitespace();
        let (Some(id), Some(secret), None) = (words.next(), words.next(), words.next()) else {
            return Err(vec![LineProblem::Form]);
        };
        match (KeyId::new(id).ok_or(LineProblem::Id), decode(secret)) {
            (Ok(id), Ok(secret)) => Ok(Self { number, id, secret }),
            (id, secret) => Err(id.err().into_iter().chain(secret.err()).collect()),
        }
    }

    /// The line, unless it has the id or the key of an earlier one.
    fn distinct_from(self, earlier: &[Self]) -> Result<Self, Vec<LineProblem>> {
        let of = |same: &dyn Fn(&Self) -> bool| earlier.iter().find(|e| same(e)).map(|e| e.number);
        if let Some(number) = of(&|e| e.id == self.id) {
            Err(vec![LineProblem::SameId(number)])
        } else if let Some(number) = of(&|e| e.secret == self.secret) {
            Err(vec![LineProblem::SameKey(number)])
        } else {
            Ok(self)
        }
    }

    fn into_key(self) -> SealingKey {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM_SIV, &self.secret);
        SealingKey {
            id: self.id,
            cipher: cipher.expect("the secret has the cipher's key length"),
        }
    }
}

fn decode(secret: &str) -> Result<Zeroizing<Vec<u8>>, LineProblem> {
    let secret = BASE64_STANDARD.decode(secret).map(Zeroizing::new);
    let secret = secret.map_err(|_| LineProblem::Base64)?;
    (secret.len() == KEY_BYTES)
        .then_some(secret)
        .ok_or(LineProblem::Length)
}

fn join(errors: &[LineError]) -> String {
    let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

fn unreadable(path: &Path, source: io::Error) -> FileProblem {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => FileProblem::Missing { path },
        _ => FileProblem::Unreadable { path, source },
    }
}

#[cfg(unix)]
fn warn_if_others_can_read(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    /// Read permission of the group and of others.
    const READABLE: u32 = 0o044;
    if fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & READABLE != 0) {
        let path = path.display();
        tracing::warn!(%path, "other users can read the keys file: run `chmod 600` on it");
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_: &Path) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The base64 of 32 bytes of `byte`.
    fn secret(byte: u8) -> String {
        BASE64_STANDARD.encode([byte; KEY_BYTES])
    }

    #[test]
    fn the_last_line_seals_and_every_line_opens() {
        let text = format!(
            "# rotated in spring\r\nold {}\r\n\r\n  new\t{}\n",
            secret(1),
            secret(2)
        );
        let ring: KeyRing = text.parse().unwrap();
        assert_eq!(ring.newest().id.as_str(), "new");
        assert!(ring.get(&KeyId::new("old").unwrap()).is_some());
        assert_eq!(format!("{ring:?}"), r#"KeyRing ["old", "new"]"#);
    }

    #[test]
    fn every_problem_is_reported_with_its_line_and_without_the_key() {
        let (one, two) = (secret(1), secret(2));
        let lines = [
            format!("a {one}"),
            one.clone(),
            format!("a {two}"),
            format!("b {one}"),
            "UPPER c2hvcnQ=".into(),
            format!("c {}", one.trim_end_matches('=')),
            format!("d {one} trailing"),
        ];
        let error = lines.join("\n").parse::<KeyRing>().unwrap_err();
        let KeyFileError::Malformed(errors) = &error else {
            panic!("{error}");
        };
        let found: Vec<_> = errors.iter().map(|e| (e.line, e.problem)).collect();
        let expected = [
            (2, LineProblem::Form),
            (3, LineProblem::SameId(1)),
            (4, LineProblem::SameKey(1)),
            (5, LineProblem::Id),
            (5, LineProblem::Length),
            (6, LineProblem::Base64),
            (7, LineProblem::Form),
        ];
        assert_eq!(found, expected);
        assert!(!format!("{error} {error:?}").contains(&one[..8]));
    }

    #[test]
    fn a_generated_line_is_a_key_ring_and_no_two_are_alike() {
        let lines = [KeyRing::generate_line(), KeyRing::generate_line()];
        let ring: KeyRing = format!("{}\n{}\n", *lines[0], *lines[1]).parse().unwrap();
        assert_eq!(ring.keys.len(), 2);
    }

    #[test]
    fn a_missing_or_empty_file_says_how_to_make_a_key() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let missing = KeyRing::load(&path).unwrap_err().to_string();
        assert!(
            missing.contains(&format!("keygen > {}", path.display())),
            "{missing}"
        );
        fs::write(&path, "# none yet\n").unwrap();
        let empty = format!(
            "{:#}",
            anyhow::Error::from(KeyRing::load(&path).unwrap_err())
        );
        assert_eq!(empty.matches("keygen").count(), 1, "{empty}");
        fs::write(&path, &*KeyRing::generate_line()).unwrap();
        KeyRing::load(&path).unwrap();
    }
}
