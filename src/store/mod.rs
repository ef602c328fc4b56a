//! Store: the persistence of destinations.
//!
//! [`Store`] is what the rest of the service sees; each database is one implementation. Every
//! operation is atomic: a failed call leaves nothing half-written.

mod keys;
#[cfg(any(test, feature = "testing"))]
mod memory;
mod row;
mod seal;
mod secrets;
mod settings;
mod sqlite;
mod stored;
#[cfg(test)]
pub(crate) mod suite;
#[cfg(test)]
pub(crate) mod troubled;

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use uuid::Uuid;

use crate::domain::{
    Destination, DestinationName, DestinationState, DestinationUid, Etag, OrganizationId, Revision,
};

#[cfg(any(test, feature = "testing"))]
pub use self::memory::MemoryStore;
pub use self::{
    keys::{KeyRing, KeyRingError},
    sqlite::{OpenError, SqliteStore},
};

/// How long a request's idempotency key is kept at least. The contract promises 24 hours; as much
/// again leaves room for a wall clock that is set forward.
const RETENTION: Duration = Duration::from_hours(48);

/// Keeps destinations; their times lose what is finer than a microsecond.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Keeps a new destination, and with it the key of the request that creates it.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken, [`Error::DuplicateRequest`] if the key is known.
    async fn create(
        &self,
        destination: &Destination,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error>;

    /// Gets a destination by its name.
    async fn get(&self, name: &DestinationName) -> Result<Option<Destination>, Error>;

    /// Lists an organization's destinations, newest first. One that cannot be read does not hide
    /// the others.
    async fn list(&self, organization: &OrganizationId, query: &ListQuery) -> Result<Page, Error>;

    /// Replaces a destination that is still at revision `expected`, and keeps the key of the
    /// request with it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has another revision or is gone, [`Error::DuplicateRequest`] if
    /// the key is known.
    async fn replace(
        &self,
        destination: &Destination,
        expected: Revision,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error>;

    /// Deletes a destination and its secret; `None` if there is none of that name.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has another tag than `etag`.
    async fn delete(
        &self,
        name: &DestinationName,
        etag: Option<&Etag>,
    ) -> Result<Option<DestinationUid>, Error>;

    /// Gets a destination by its uid.
    async fn find(&self, uid: DestinationUid) -> Result<Option<Destination>, Error>;

    /// Lists destinations of all organizations whose credentials were refused, by their uids: at
    /// most `limit`, from the one after `after` on.
    async fn list_rejected(
        &self,
        after: Option<DestinationUid>,
        limit: u16,
    ) -> Result<Vec<DestinationUid>, Error>;

    /// Changes the state of a destination that is still at `seen`; returns whether it was. Raises
    /// the revision.
    async fn set_state(
        &self,
        uid: DestinationUid,
        seen: Revision,
        state: DestinationState,
        at: SystemTime,
    ) -> Result<bool, Error>;

    /// Finds what a request of this organization did. It is known for [`RETENTION`] at least, and
    /// until later requests have made the store delete it.
    async fn find_request(
        &self,
        organization: &OrganizationId,
        request_id: Uuid,
    ) -> Result<Option<CompletedRequest>, Error>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), Error>;

    /// Notes where this process serves, for the error of a second process that opens the same
    /// store. A store that cannot be shared ignores it.
    fn serving_at(&self, _address: SocketAddr) {}

    /// Waits for calls under way and lets the database go; later calls are unavailable.
    async fn close(&self);
}

/// Identifies a request that must take effect once, however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Chosen by the caller.
    pub request_id: Uuid,
    /// Distinguishes another body under the same id.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of a request's encoded body. The body may hold a token; tokens are random enough
/// that their digest gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What a request did that took effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedRequest {
    /// Its body's digest.
    pub fingerprint: Fingerprint,
    /// The destination it created or changed; it may have changed again, or be gone.
    pub name: DestinationName,
    /// Distinguishes a later destination of the same name.
    pub uid: DestinationUid,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Only those whose display name holds this text, in any case.
    pub display_name: Option<String>,
    /// Only those after this one, in list order.
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: u16,
}

/// A position in a list: the last entry of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Its creation time, in microseconds since the epoch.
    pub created_micros: i64,
    /// Its uid, which orders destinations of the same microsecond.
    pub uid: DestinationUid,
}

impl Cursor {
    /// The position after an entry.
    #[must_use]
    pub fn after(entry: &Entry) -> Self {
        let (create_time, uid) = match entry {
            Ok(destination) => (destination.create_time, destination.uid),
            Err(unreadable) => (unreadable.create_time, unreadable.uid),
        };
        Self {
            created_micros: row::micros(create_time),
            uid,
        }
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct Page {
    /// In list order.
    pub entries: Vec<Entry>,
    /// Where the next page starts; none after the last.
    pub next: Option<Cursor>,
}

/// One destination of a list.
pub type Entry = Result<Destination, Box<Unreadable>>;

/// What is known of a destination that cannot be read. It can be deleted.
#[derive(Debug)]
pub struct Unreadable {
    /// The name as it is stored.
    pub name: String,
    /// Which it is.
    pub uid: DestinationUid,
    /// The display name as it is stored.
    pub display_name: String,
    /// When it was created.
    pub create_time: SystemTime,
    /// When it last changed.
    pub update_time: SystemTime,
    /// How often it changed.
    pub revision: Revision,
    /// [`Error::Corrupt`] or [`Error::Unsupported`].
    pub error: Error,
}

impl Page {
    /// The first `limit` of what was found; one more than that means that there is a next page.
    fn first(mut entries: Vec<Entry>, limit: u16) -> Self {
        let more = entries.len() > usize::from(limit);
        entries.truncate(usize::from(limit));
        let next = entries.last().filter(|_| more).map(Cursor::after);
        Self { entries, next }
    }
}

/// What can go wrong, by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Choose another id.
    #[error("a destination of this name exists")]
    Exists,
    /// Read it again and decide anew.
    #[error("the destination has changed or is gone")]
    Conflict,
    /// Another request of the same id took effect first: [`Store::find_request`] says what it did.
    #[error("a request of this id was made before")]
    DuplicateRequest,
    /// Try again later; an operator can fix it.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A destination is whole, but holds words that this version of the program does not know.
    #[error(
        "a newer version of this program wrote the destination {0}; start that version, or delete \
         the destination"
    )]
    Unsupported(String),
    /// A change did not run to its end; whether it took effect is not known.
    #[error("a change of a destination broke off")]
    BrokenOff,
    /// A destination is damaged. An operator can restore a backup, or delete it.
    #[error("a stored destination cannot be read: {0}")]
    Corrupt(String),
}
