//! Fault-injecting store for tests: the real store, with failures on request.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::SystemTime,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{
    CompletedRequest, Entry, Error, IdempotencyKey, KeyRing, ListQuery, Page, SqliteStore, Store,
    Unreadable,
};
use crate::domain::{
    Destination, DestinationName, DestinationState, DestinationUid, Etag, OrganizationId, Revision,
};

/// An SQLite store, and what may happen to its callers.
#[derive(Debug)]
pub(crate) struct TroubledStore {
    inner: SqliteStore,
    /// Every call fails.
    pub(crate) is_down: AtomicBool,
    /// So many replacements come to find that another change came first.
    pub(crate) races: AtomicU32,
    /// A newer version has written every destination.
    pub(crate) is_newer: AtomicBool,
    /// Reads by name answer only while there is a permit of this.
    pub(crate) reads: Semaphore,
    /// How many reads by name have found out what they will answer.
    pub(crate) held_reads: AtomicU32,
    /// Deletions answer only with a permit of this.
    pub(crate) answers: Semaphore,
    /// Deleted with the store.
    _folder: tempfile::TempDir,
}

impl TroubledStore {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: KeyRing = KeyRing::generate_line().parse().unwrap();
        let file = folder.path().join("connector.db");
        let address = format!("sqlite:{}", file.display());
        Self {
            inner: SqliteStore::open(&address, keys).await.unwrap(),
            is_down: AtomicBool::new(false),
            races: AtomicU32::new(0),
            is_newer: AtomicBool::new(false),
            reads: Semaphore::new(1),
            held_reads: AtomicU32::new(0),
            // More than a test deletes.
            answers: Semaphore::new(100),
            _folder: folder,
        }
    }

    fn open(&self) -> Result<&SqliteStore, Error> {
        if self.is_down.load(Ordering::Relaxed) {
            return Err(Error::Unavailable("the disk is on fire".into()));
        }
        Ok(&self.inner)
    }
}

#[async_trait]
impl Store for TroubledStore {
    async fn create(
        &self,
        destination: &Destination,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        self.open()?.create(destination, key).await
    }

    async fn get(&self, name: &DestinationName) -> Result<Option<Destination>, Error> {
        let found = self.open()?.get(name).await;
        self.held_reads.fetch_add(1, Ordering::Relaxed);
        drop(self.reads.acquire().await);
        found
    }

    async fn list(&self, organization: &OrganizationId, query: &ListQuery) -> Result<Page, Error> {
        let mut page = self.open()?.list(organization, query).await?;
        if self.is_newer.load(Ordering::Relaxed) {
            let entries = page.entries.into_iter();
            page.entries = entries.map(|entry| entry.and_then(unsupported)).collect();
        }
        Ok(page)
    }

    async fn replace(
        &self,
        destination: &Destination,
        expected: Revision,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        let race = self.races.load(Ordering::Relaxed);
        if race > 0 {
            self.races.store(race - 1, Ordering::Relaxed);
            let at = destination.update_time;
            self.inner
                .set_state(
                    destination.uid,
                    expected,
                    DestinationState::CredentialsRejected,
                    at,
                )
                .await?;
        }
        self.open()?.replace(destination, expected, key).await
    }

    async fn delete(
        &self,
        name: &DestinationName,
        etag: Option<&Etag>,
    ) -> Result<Option<DestinationUid>, Error> {
        let deleted = self.open()?.delete(name, etag).await?;
        self.answers.acquire().await.unwrap().forget();
        Ok(deleted)
    }

    async fn find(&self, uid: DestinationUid) -> Result<Option<Destination>, Error> {
        self.open()?.find(uid).await
    }

    async fn list_rejected(
        &self,
        after: Option<DestinationUid>,
        limit: u16,
    ) -> Result<Vec<DestinationUid>, Error> {
        self.open()?.list_rejected(after, limit).await
    }

    async fn set_state(
        &self,
        uid: DestinationUid,
        seen: Revision,
        state: DestinationState,
        at: SystemTime,
    ) -> Result<bool, Error> {
        self.open()?.set_state(uid, seen, state, at).await
    }

    async fn find_request(
        &self,
        organization: &OrganizationId,
        request_id: Uuid,
    ) -> Result<Option<CompletedRequest>, Error> {
        self.open()?.find_request(organization, request_id).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.open()?.ping().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn unsupported(destination: Destination) -> Entry {
    Err(Box::new(Unreadable {
        name: destination.name.to_string(),
        uid: destination.uid,
        display_name: destination.display_name.as_str().to_owned(),
        create_time: destination.create_time,
        update_time: destination.update_time,
        revision: destination.revision,
        error: Error::Unsupported("unknown instance".to_owned()),
    }))
}
