//! SQLite store: destinations in one SQLite file.
//!
//! Writers queue for one connection, so they never find the file locked by each other; readers
//! have their own, and the write-ahead log lets them read beside a writer.

mod destinations;
mod fault;
mod lock;
mod open;
mod open_error;
mod requests;

use std::{net::SocketAddr, time::SystemTime};

use async_trait::async_trait;
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction};
use uuid::Uuid;

pub use self::open_error::OpenError;
use self::{fault::unavailable, lock::Lock};
use super::{CompletedRequest, Error, IdempotencyKey, KeyRing, ListQuery, Page, Store, row::Row};
use crate::domain::{
    Destination, DestinationName, DestinationState, DestinationUid, Etag, OrganizationId, Revision,
};

/// Destinations in an SQLite file, their secrets sealed.
#[derive(Debug)]
pub struct SqliteStore {
    /// A single connection, so that there is a single writer.
    writer: SqlitePool,
    readers: SqlitePool,
    keys: KeyRing,
    lock: Lock,
}

impl SqliteStore {
    /// Opens `sqlite:FILE`; makes the file if there is none, and brings an older one up to date.
    ///
    /// # Errors
    /// Why the file cannot be used, and the way out.
    pub async fn open(address: &str, keys: KeyRing) -> Result<Self, OpenError> {
        open::open(address, keys, open::BUSY_TIMEOUT).await
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        // Immediate: a transaction that first reads and then finds another process writing
        // could not be continued.
        let begun = self.writer.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(unavailable)
    }

    /// Removes sealed secrets that were deleted or replaced from the write-ahead log too, unless a
    /// reader still uses them; `secure_delete` removes them from the file itself.
    async fn scrub(&self) {
        let scrubbed = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)")
            .fetch_one(&self.writer)
            .await
            .and_then(|row| row.try_get::<i64, _>("busy"));
        match scrubbed {
            Ok(0) => {}
            Ok(_) => tracing::info!("a reader keeps former sealed secrets in the database's log"),
            // The change itself is committed, so the caller has no error.
            Err(error) => tracing::warn!(%error, "the database's log could not be written back"),
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn create(
        &self,
        destination: &Destination,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        let row = Row::of(destination, &self.keys);
        let mut tx = self.begin().await?;
        requests::insert(&mut tx, destination, key).await?;
        destinations::insert(&mut tx, &row).await?;
        tx.commit().await.map_err(unavailable)
    }

    async fn get(&self, name: &DestinationName) -> Result<Option<Destination>, Error> {
        let mut reader = self.readers.acquire().await.map_err(unavailable)?;
        let row = destinations::find(&mut reader, name).await?;
        row.map(|row| row.destination(&self.keys)).transpose()
    }

    async fn list(&self, organization: &OrganizationId, query: &ListQuery) -> Result<Page, Error> {
        let limit = query.limit.max(1);
        // One more than asked for shows whether there is a next page.
        let rows =
            destinations::list(&self.readers, organization, query, i64::from(limit) + 1).await?;
        let entries = rows.iter().map(|row| row.entry(&self.keys));
        Ok(Page::first(entries.collect::<Result<_, _>>()?, limit))
    }

    async fn replace(
        &self,
        destination: &Destination,
        expected: Revision,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        let row = Row::of(destination, &self.keys);
        let mut tx = self.begin().await?;
        requests::insert(&mut tx, destination, key).await?;
        destinations::update(&mut tx, &row, expected).await?;
        tx.commit().await.map_err(unavailable)?;
        self.scrub().await;
        Ok(())
    }

    async fn delete(
        &self,
        name: &DestinationName,
        etag: Option<&Etag>,
    ) -> Result<Option<DestinationUid>, Error> {
        let mut tx = self.begin().await?;
        let Some(row) = destinations::find(&mut tx, name).await? else {
            return Ok(None);
        };
        // Settings and secrets are not read: what cannot be read can be deleted.
        if let Some(etag) = etag
            && row.etag()? != *etag
        {
            return Err(Error::Conflict);
        }
        let uid = row.uid()?;
        destinations::delete(&mut tx, uid).await?;
        tx.commit().await.map_err(unavailable)?;
        self.scrub().await;
        Ok(Some(uid))
    }

    async fn find(&self, uid: DestinationUid) -> Result<Option<Destination>, Error> {
        let row = destinations::find_by_uid(&self.readers, uid).await?;
        row.map(|row| row.destination(&self.keys)).transpose()
    }

    async fn list_rejected(
        &self,
        after: Option<DestinationUid>,
        limit: u16,
    ) -> Result<Vec<DestinationUid>, Error> {
        destinations::list_rejected(&self.readers, after, limit).await
    }

    async fn set_state(
        &self,
        uid: DestinationUid,
        seen: Revision,
        state: DestinationState,
        at: SystemTime,
    ) -> Result<bool, Error> {
        destinations::set_state(&self.writer, uid, seen, state, at).await
    }

    async fn find_request(
        &self,
        organization: &OrganizationId,
        request_id: Uuid,
    ) -> Result<Option<CompletedRequest>, Error> {
        requests::find(&self.readers, organization, request_id).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let answer = sqlx::query("SELECT 1 FROM destinations LIMIT 1")
            .fetch_optional(&self.readers)
            .await;
        answer.map(|_| ()).map_err(unavailable)
    }

    fn serving_at(&self, address: SocketAddr) {
        self.lock.note(Some(address));
    }

    async fn close(&self) {
        self.readers.close().await;
        // The last one to close writes the write-ahead log back.
        self.writer.close().await;
        self.lock.release();
    }
}

#[cfg(test)]
mod tests;
