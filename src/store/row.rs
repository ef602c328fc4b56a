//! A destination as a database's row, whichever the database: to and from the words of the house.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::{
    Error,
    keys::{KeyId, KeyRing},
    mapping,
    seal::Sealed,
};
use crate::{
    domain::{
        ClientSideId, Connection, Destination, DestinationName, DestinationState, DestinationUid,
        DisplayName, Instance, Revision,
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
    pub(super) action: String,
    pub(super) client_side_id: String,
    pub(super) instance: String,
    pub(super) mapping: String,
    pub(super) state: String,
    pub(super) revision: i64,
    pub(super) create_micros: i64,
    pub(super) update_micros: i64,
    pub(super) token_key_id: String,
    pub(super) token_nonce: Vec<u8>,
    pub(super) token_ciphertext: Vec<u8>,
}

impl Row {
    /// The row of a destination, its token sealed with the newest key.
    pub(super) fn of(destination: &Destination, keys: &KeyRing) -> Self {
        let Connection {
            access_token,
            client_side_id,
            instance,
        } = &destination.connection;
        let sealed = keys.seal(destination.uid, access_token);
        Self {
            uid: destination.uid.0.as_bytes().to_vec(),
            organization: destination.name.organization.as_str().to_owned(),
            id: destination.name.destination.as_str().to_owned(),
            display_name: destination.display_name.as_str().to_owned(),
            action: destination.action.clone(),
            client_side_id: client_side_id.as_str().to_owned(),
            instance: instance_word(*instance).to_owned(),
            mapping: mapping::to_text(&destination.mapping),
            state: state_word(destination.state).to_owned(),
            revision: destination.revision.0,
            create_micros: micros(destination.create_time),
            update_micros: micros(destination.update_time),
            token_key_id: sealed.key_id.as_str().to_owned(),
            token_nonce: sealed.nonce.to_vec(),
            token_ciphertext: sealed.ciphertext,
        }
    }

    /// The destination, checked anew and its token opened.
    pub(super) fn destination(&self, keys: &KeyRing) -> Result<Destination, Error> {
        let part = |what: &'static str| move || self.corrupt(what);
        Ok(Destination {
            name: self.name().ok_or_else(part("name"))?,
            uid: self.uid()?,
            display_name: DisplayName::stored(&self.display_name)
                .ok_or_else(part("display name"))?,
            action: self.action.clone(),
            connection: Connection {
                access_token: self.token(keys)?,
                client_side_id: ClientSideId::new(self.client_side_id.clone()),
                instance: instance(&self.instance).ok_or_else(part("instance"))?,
            },
            mapping: mapping::from_text(&self.mapping).ok_or_else(part("mapping"))?,
            state: state(&self.state).ok_or_else(part("state"))?,
            create_time: time(self.create_micros).ok_or_else(part("creation time"))?,
            update_time: time(self.update_micros).ok_or_else(part("update time"))?,
            revision: Revision(self.revision),
        })
    }

    pub(super) fn uid(&self) -> Result<DestinationUid, Error> {
        let uid = Uuid::from_slice(&self.uid).map_err(|_| self.corrupt("uid"))?;
        Ok(DestinationUid(uid))
    }

    pub(super) fn token(&self, keys: &KeyRing) -> Result<AccessToken, Error> {
        let sealed = self.sealed().ok_or_else(|| self.corrupt("sealed token"))?;
        keys.open(self.uid()?, &sealed)
            .map_err(|error| self.corrupt(&format!("access token: {error}")))
    }

    fn name(&self) -> Option<DestinationName> {
        self.written_name().parse().ok()
    }

    fn written_name(&self) -> String {
        format!(
            "organizations/{}/destinations/{}",
            self.organization, self.id
        )
    }

    fn sealed(&self) -> Option<Sealed> {
        Some(Sealed {
            key_id: KeyId::new(&self.token_key_id)?,
            nonce: self.token_nonce.as_slice().try_into().ok()?,
            ciphertext: self.token_ciphertext.clone(),
        })
    }

    fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt(format!("{}: {what}", self.written_name()))
    }
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

fn instance_word(instance: Instance) -> &'static str {
    match instance {
        Instance::Commercial => "commercial",
        Instance::Eu => "eu",
        Instance::Federal => "federal",
    }
}

fn instance(word: &str) -> Option<Instance> {
    let all = [Instance::Commercial, Instance::Eu, Instance::Federal];
    all.into_iter().find(|i| instance_word(*i) == word)
}

pub(super) fn state_word(state: DestinationState) -> &'static str {
    match state {
        DestinationState::Active => ACTIVE,
        DestinationState::CredentialsRejected => CREDENTIALS_REJECTED,
    }
}

fn state(word: &str) -> Option<DestinationState> {
    let all = [
        DestinationState::Active,
        DestinationState::CredentialsRejected,
    ];
    all.into_iter().find(|s| state_word(*s) == word)
}
