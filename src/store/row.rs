//! Database row of a destination, for any database.

use std::time::{Duration, SystemTime};

use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    Entry, Error, Unreadable,
    keys::{KeyId, KeyRing},
    seal::Sealed,
    secrets, settings,
    stored::StoredError,
};
use crate::{
    domain::{
        Connection, Destination, DestinationState, DestinationUid, DisplayName, Etag, Revision,
    },
    secret::AccessToken,
};

const ACTIVE: &str = "active";
pub(super) const CREDENTIALS_REJECTED: &str = "credentials_rejected";

/// The columns of table `destinations`.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub(super) uid: Vec<u8>,
    pub(super) organization: String,
    pub(super) id: String,
    pub(super) display_name: String,
    pub(super) settings: String,
    pub(super) state: String,
    pub(super) revision: i64,
    pub(super) create_micros: i64,
    pub(super) update_micros: i64,
    pub(super) secrets: Vec<u8>,
    pub(super) secrets_key_id: String,
}

impl Row {
    /// The row of a destination, its secrets sealed with the newest key.
    pub(super) fn of(destination: &Destination, keys: &KeyRing) -> Self {
        let secrets = secrets::to_json(&destination.connection.access_token);
        let sealed = keys.seal(destination.uid, &secrets);
        Self {
            uid: destination.uid.0.as_bytes().to_vec(),
            organization: destination.name.organization.as_str().to_owned(),
            id: destination.name.destination.as_str().to_owned(),
            display_name: destination.display_name.as_str().to_owned(),
            settings: settings::to_json(destination),
            state: state_word(destination.state).to_owned(),
            revision: destination.revision.0,
            create_micros: micros(destination.create_time),
            update_micros: micros(destination.update_time),
            secrets: sealed.bytes,
            secrets_key_id: sealed.key_id.as_str().to_owned(),
        }
    }

    /// The destination, with its secrets opened. Names, IDs and words are checked. Mapping and display
    /// name are taken as they are: they were checked when they were stored, and a stricter check of
    /// today must not make the destination unusable.
    pub(super) fn destination(&self, keys: &KeyRing) -> Result<Destination, Error> {
        self.read(keys).map_err(|error| self.unreadable(error))
    }

    /// The destination, or what is known of it if it cannot be read.
    pub(super) fn entry(&self, keys: &KeyRing) -> Result<Entry, Error> {
        let uid = self.uid()?;
        let unreadable = |error| Unreadable {
            name: self.name(),
            uid,
            display_name: self.display_name.clone(),
            create_time: time(self.create_micros).unwrap_or(SystemTime::UNIX_EPOCH),
            update_time: time(self.update_micros).unwrap_or(SystemTime::UNIX_EPOCH),
            revision: Revision(self.revision),
            error,
        };
        let destination = self.destination(keys);
        Ok(destination.map_err(|error| Box::new(unreadable(error))))
    }

    pub(super) fn uid(&self) -> Result<DestinationUid, Error> {
        self.read_uid().map_err(|error| self.unreadable(error))
    }

    /// Needs nothing but uid and revision to be readable.
    pub(super) fn etag(&self) -> Result<Etag, Error> {
        Ok(Etag::of(self.uid()?, Revision(self.revision)))
    }

    /// Whether the key that the row names opens its secrets, whatever they say.
    pub(super) fn opens_with(&self, keys: &KeyRing) -> bool {
        self.open(keys).is_ok()
    }

    fn read(&self, keys: &KeyRing) -> Result<Destination, StoredError> {
        let settings = settings::from_json(&self.settings)?;
        Ok(Destination {
            name: self.name().parse().map_err(|_| damaged("name"))?,
            uid: self.read_uid()?,
            display_name: DisplayName::stored(&self.display_name)
                .ok_or_else(|| damaged("display name"))?,
            action: settings.action,
            connection: Connection {
                access_token: self.access_token(keys)?,
                client_side_id: settings.client_side_id,
                instance: settings.instance,
            },
            mapping: settings.mapping,
            state: state(&self.state)?,
            create_time: time(self.create_micros).ok_or_else(|| damaged("creation time"))?,
            update_time: time(self.update_micros).ok_or_else(|| damaged("update time"))?,
            revision: Revision(self.revision),
        })
    }

    fn read_uid(&self) -> Result<DestinationUid, StoredError> {
        let uid = Uuid::from_slice(&self.uid).map_err(|_| damaged("uid"))?;
        Ok(DestinationUid(uid))
    }

    fn access_token(&self, keys: &KeyRing) -> Result<AccessToken, StoredError> {
        secrets::from_json(&self.open(keys)?)
    }

    fn open(&self, keys: &KeyRing) -> Result<Zeroizing<Vec<u8>>, StoredError> {
        let key_id = KeyId::new(&self.secrets_key_id).ok_or_else(|| damaged("key id"))?;
        let sealed = Sealed {
            key_id,
            bytes: self.secrets.clone(),
        };
        keys.open(self.read_uid()?, &sealed)
            .map_err(|error| damaged(&format!("secrets: {error}")))
    }

    /// The name as it is written, which need not be one.
    fn name(&self) -> String {
        let Self {
            organization, id, ..
        } = self;
        format!("organizations/{organization}/destinations/{id}")
    }

    fn unreadable(&self, error: StoredError) -> Error {
        let name = self.name();
        match error {
            StoredError::Damaged(what) => Error::Corrupt(format!("{name}: {what}")),
            StoredError::Unsupported(what) => Error::Unsupported(format!("{name}: {what}")),
        }
    }
}

fn damaged(what: &str) -> StoredError {
    StoredError::Damaged(what.to_owned())
}

/// Folds case away. To lower and then to upper case, one character at a time, so that letters
/// with several forms (`ς σ Σ`, `ß ẞ SS`) meet wherever they stand in a word.
pub(super) fn fold(text: &str) -> String {
    text.chars()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .collect()
}

/// Microseconds since the epoch; 0 before it.
pub(super) fn micros(at: SystemTime) -> i64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// The time that [`micros`] was made of.
pub(super) fn time(micros: i64) -> Option<SystemTime> {
    let since = Duration::from_micros(micros.try_into().ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

pub(super) fn state_word(state: DestinationState) -> &'static str {
    match state {
        DestinationState::Active => ACTIVE,
        DestinationState::CredentialsRejected => CREDENTIALS_REJECTED,
    }
}

fn state(word: &str) -> Result<DestinationState, StoredError> {
    match word {
        ACTIVE => Ok(DestinationState::Active),
        CREDENTIALS_REJECTED => Ok(DestinationState::CredentialsRejected),
        _ => Err(StoredError::Unsupported(format!("unknown state `{word}`"))),
    }
}
