//! A destination: a configured connection that streams deliver through.

use std::{fmt, time::SystemTime};

use super::{DestinationName, DestinationUid, Mapping, NAME_PATTERN, change::is_longer};
use crate::secret::AccessToken;

/// Longest display name, in characters (the contract's limit).
const MAX_DISPLAY_NAME: u16 = 63;

/// A destination as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Where it is.
    pub name: DestinationName,
    /// Which it is, for ever.
    pub uid: DestinationUid,
    /// What people call it.
    pub display_name: DisplayName,
    /// Id of the action it performs.
    pub action: String,
    /// Its connection to the vendor.
    pub connection: Connection,
    /// How records become the action's fields.
    pub mapping: Mapping,
    /// Whether it can be used.
    pub state: DestinationState,
    /// When it was created.
    pub create_time: SystemTime,
    /// When it last changed.
    pub update_time: SystemTime,
    /// How often it changed.
    pub revision: Revision,
}

/// What a caller chooses of a destination.
#[derive(Debug, Clone)]
pub struct DestinationSettings {
    /// What people call it.
    pub display_name: DisplayName,
    /// Id of the action it performs.
    pub action: String,
    /// Its connection to the vendor.
    pub connection: Connection,
    /// How records become the action's fields.
    pub mapping: Mapping,
}

impl DestinationSettings {
    /// A new destination of this name.
    #[must_use]
    pub fn into_destination(self, name: DestinationName, now: SystemTime) -> Destination {
        Destination {
            name,
            uid: DestinationUid::generate(),
            display_name: self.display_name,
            action: self.action,
            connection: self.connection,
            mapping: self.mapping,
            state: DestinationState::Active,
            create_time: now,
            update_time: now,
            revision: Revision::FIRST,
        }
    }
}

impl Destination {
    /// The freshness tag of this revision.
    #[must_use]
    pub fn etag(&self) -> Etag {
        Etag::of(self.uid, self.revision)
    }
}

/// Counts a destination's changes; rises with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl Revision {
    /// The revision of a new destination.
    pub const FIRST: Self = Self(1);

    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A freshness tag, opaque to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etag(pub String);

impl Etag {
    /// The tag of one revision of a destination.
    #[must_use]
    pub fn of(uid: DestinationUid, revision: Revision) -> Self {
        // The uid makes tags of a destination re-created under the same name differ. Its second
        // half, where the random part is: the first is the same for all of a millisecond.
        let (_, tail) = uid.0.as_u64_pair();
        Self(format!("{tail:x}-{}", revision.0))
    }
}

/// Whether a destination can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DestinationState {
    /// Ready.
    Active,
    /// The vendor last refused the credentials.
    CredentialsRejected,
}

/// A human name of 1 to 63 characters without control characters, of which one can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisplayName(String);

impl DisplayName {
    /// Checks a display name.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = !is_longer(name, MAX_DISPLAY_NAME) && NAME_PATTERN.is_match(name);
        fits.then(|| Self(name.to_owned()))
    }

    /// A name that was checked when it was stored: what callers are refused today must not make a
    /// destination useless that was taken before. `None` if it is none.
    #[must_use]
    pub fn stored(name: &str) -> Option<Self> {
        (!name.is_empty()).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A connection to the vendor: the environment, and the token that authenticates the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Authenticates the calls.
    pub access_token: AccessToken,
    /// Which environment.
    pub client_side_id: ClientSideId,
    /// Which of the vendor's instances.
    pub instance: Instance,
}

impl Connection {
    /// Whether both lead to one environment, and so to one account, though not as the same caller.
    #[must_use]
    pub fn is_same_environment(&self, other: &Self) -> bool {
        self.client_side_id == other.client_side_id && self.instance == other.instance
    }
}

/// The client-side ID of an environment: public, names project and environment at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientSideId(String);

impl ClientSideId {
    /// Wraps a client-side ID, whatever its form: that is for its [`ActionField`] to check.
    ///
    /// [`ActionField`]: super::ActionField
    #[must_use]
    pub fn new(id: String) -> Self {
        Self(id)
    }

    /// The ID.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientSideId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One of the vendor's separate instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Instance {
    /// The commercial one.
    #[default]
    Commercial,
    /// The European Union's.
    Eu,
    /// The United States federal one.
    Federal,
}
