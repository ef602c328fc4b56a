//! Where destinations are kept.
//!
//! [`Store`] is what the rest of the house sees; each database is one implementation. All of an
//! operation happens or none of it: a failed call leaves nothing half-written.

mod keys;
mod mapping;
mod memory;
mod row;
mod seal;
mod sqlite;
#[cfg(test)]
pub(crate) mod suite;

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

pub use self::{
    keys::{KeyFileError, KeyId, KeyRing, KeyRingError, LineError, LineProblem},
    memory::MemoryStore,
    sqlite::{OpenError, OpenProblem, SqliteStore},
};

/// How long a request is remembered. The contract promises 24 hours; as much again leaves room
/// for a wall clock that is set forward.
const RETENTION: Duration = Duration::from_hours(48);

/// Keeps destinations; their times lose what is finer than a microsecond.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Keeps a new destination, and remembers `once` with it.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken.
    async fn create(&self, destination: &Destination, once: Option<&Once>) -> Result<(), Error>;

    /// Gets a destination by its name.
    async fn get(&self, name: &DestinationName) -> Result<Option<Destination>, Error>;

    /// Lists an organization's destinations, newest first.
    async fn list(&self, query: &ListQuery) -> Result<Page, Error>;

    /// Replaces a destination that is still at revision `expected`, and remembers `once` with it.
    ///
    /// # Errors
    /// [`Error::Conflict`] if it has another revision or is gone.
    async fn replace(
        &self,
        destination: &Destination,
        expected: Revision,
        once: Option<&Once>,
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

    /// What was remembered for a request of this organization in the last 24 hours or more.
    async fn recall(
        &self,
        organization: &OrganizationId,
        request_id: Uuid,
    ) -> Result<Option<Remembered>, Error>;

    /// Whether the store answers.
    async fn ping(&self) -> Result<(), Error>;

    /// Notes where this process serves, for a second one that is refused the same store. One that
    /// nobody shares has nobody to tell.
    fn serving_at(&self, _address: SocketAddr) {}

    /// Waits for calls under way and lets the database go; later calls are unavailable.
    async fn close(&self);
}

/// A request that must take effect once, however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Once {
    /// The caller's id for it.
    pub request_id: Uuid,
    /// Tells another body under the same id.
    pub fingerprint: Fingerprint,
}

/// SHA-256 of a request's encoded body. The body may hold a token; tokens are random enough
/// that their digest gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

/// What a remembered request did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// Its body's digest.
    pub fingerprint: Fingerprint,
    /// The destination it made or changed; it may have changed again, or be gone.
    pub name: DestinationName,
    /// Its uid, to tell a later one of the same name.
    pub uid: DestinationUid,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Whose destinations.
    pub organization: OrganizationId,
    /// Only those whose display name holds this text, in any case.
    pub display_name: Option<String>,
    /// Only those after this one, in list order.
    pub after: Option<Cursor>,
    /// At most this many.
    pub limit: u16,
}

/// A place in a list: the last destination of the page before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Its creation time, in microseconds since the epoch.
    pub created_micros: i64,
    /// Its uid, which orders destinations of the same microsecond.
    pub uid: DestinationUid,
}

impl Cursor {
    /// The place of a destination.
    #[must_use]
    pub fn of(destination: &Destination) -> Self {
        Self {
            created_micros: row::micros(destination.create_time),
            uid: destination.uid,
        }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In list order.
    pub destinations: Vec<Destination>,
    /// Where the next page starts; none after the last.
    pub next: Option<Cursor>,
}

impl Page {
    /// The first `limit` of what was found; one more than that tells that there is a next page.
    fn first(mut destinations: Vec<Destination>, limit: u16) -> Self {
        let more = destinations.len() > usize::from(limit);
        destinations.truncate(usize::from(limit));
        let next = destinations.last().filter(|_| more).map(Cursor::of);
        Self { destinations, next }
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
    /// Another request of the same id came first: [`Store::recall`] it.
    #[error("a request of this id was made before")]
    Remembered,
    /// Try again later; the operator's to mend.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored cannot be read back; the operator's to mend.
    #[error("a stored destination cannot be read: {0}")]
    Corrupt(String),
}
