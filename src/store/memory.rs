//! In-memory store, for tests and simulations.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use uuid::Uuid;

use super::{
    CompletedRequest, Cursor, Error, IdempotencyKey, ListQuery, Page, RETENTION, Store,
    row::{fold, micros, time},
};
use crate::domain::{
    Destination, DestinationName, DestinationState, DestinationUid, Etag, OrganizationId, Revision,
};

/// Destinations in this process' memory. Calls are answered at once, in the order they are made.
#[derive(Default)]
pub struct MemoryStore {
    tables: Arc<Mutex<Tables>>,
    closed: AtomicBool,
}

#[derive(Default)]
struct Tables {
    destinations: BTreeMap<DestinationName, Destination>,
    requests: BTreeMap<(OrganizationId, Uuid), TimedRequest>,
}

struct TimedRequest {
    request: CompletedRequest,
    at: SystemTime,
}

impl MemoryStore {
    /// Opens the same data once more, as a process does that is started anew.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self {
            tables: Arc::clone(&self.tables),
            closed: AtomicBool::new(false),
        }
    }

    fn tables(&self) -> Result<MutexGuard<'_, Tables>, Error> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::Unavailable("it is closed".into()));
        }
        Ok(self.tables.lock())
    }
}

impl Tables {
    fn check_new(
        &self,
        organization: &OrganizationId,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        let known = key.is_some_and(|key| {
            let key = (organization.clone(), key.request_id);
            self.requests.contains_key(&key)
        });
        if known {
            Err(Error::DuplicateRequest)
        } else {
            Ok(())
        }
    }

    fn insert_request(&mut self, destination: &Destination, key: Option<&IdempotencyKey>) {
        let Some(key) = key else { return };
        // The time of the change is the time of its request, as in every store.
        let at = destination.update_time;
        self.requests
            .retain(|_, each| micros(at) <= micros(each.at + RETENTION));
        let request = CompletedRequest {
            fingerprint: key.fingerprint,
            name: destination.name.clone(),
            uid: destination.uid,
        };
        let key = (destination.name.organization.clone(), key.request_id);
        self.requests.insert(key, TimedRequest { request, at });
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(
        &self,
        destination: &Destination,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        let mut tables = self.tables()?;
        tables.check_new(&destination.name.organization, key)?;
        match tables.destinations.entry(destination.name.clone()) {
            Entry::Occupied(_) => return Err(Error::Exists),
            Entry::Vacant(free) => drop(free.insert(in_micros(destination))),
        }
        tables.insert_request(destination, key);
        Ok(())
    }

    async fn get(&self, name: &DestinationName) -> Result<Option<Destination>, Error> {
        Ok(self.tables()?.destinations.get(name).cloned())
    }

    async fn list(&self, organization: &OrganizationId, query: &ListQuery) -> Result<Page, Error> {
        let text = query.display_name.as_deref().map(fold);
        let after = query.after.map(list_key);
        let is_wanted = |each: &&Destination| {
            let display_name = each.display_name.as_str();
            each.name.organization == *organization
                && text
                    .as_ref()
                    .is_none_or(|text| fold(display_name).contains(text))
        };
        let tables = self.tables()?;
        let all = tables.destinations.values();
        let mut entries: Vec<_> = all.filter(is_wanted).cloned().map(Ok).collect();
        let key = |entry: &_| list_key(Cursor::after(entry));
        entries.retain(|entry| after.is_none_or(|after| key(entry) < after));
        entries.sort_by_key(|entry| Reverse(key(entry)));
        Ok(Page::first(entries, query.limit.max(1)))
    }

    async fn replace(
        &self,
        destination: &Destination,
        expected: Revision,
        key: Option<&IdempotencyKey>,
    ) -> Result<(), Error> {
        let mut tables = self.tables()?;
        tables.check_new(&destination.name.organization, key)?;
        let there = tables
            .destinations
            .get_mut(&destination.name)
            .filter(|there| there.uid == destination.uid && there.revision == expected)
            .ok_or(Error::Conflict)?;
        *there = Destination {
            // Pages are found by it.
            create_time: there.create_time,
            ..in_micros(destination)
        };
        tables.insert_request(destination, key);
        Ok(())
    }

    async fn delete(
        &self,
        name: &DestinationName,
        etag: Option<&Etag>,
    ) -> Result<Option<DestinationUid>, Error> {
        let mut tables = self.tables()?;
        let Some(there) = tables.destinations.get(name) else {
            return Ok(None);
        };
        if etag.is_some_and(|etag| there.etag() != *etag) {
            return Err(Error::Conflict);
        }
        Ok(tables.destinations.remove(name).map(|gone| gone.uid))
    }

    async fn find(&self, uid: DestinationUid) -> Result<Option<Destination>, Error> {
        let tables = self.tables()?;
        let mut all = tables.destinations.values();
        Ok(all.find(|there| there.uid == uid).cloned())
    }

    async fn list_rejected(
        &self,
        after: Option<DestinationUid>,
        limit: u16,
    ) -> Result<Vec<DestinationUid>, Error> {
        let tables = self.tables()?;
        let rejected = tables
            .destinations
            .values()
            .filter(|there| there.state == DestinationState::CredentialsRejected)
            .map(|there| there.uid);
        let mut uids: Vec<_> = rejected
            .filter(|uid| after.is_none_or(|after| *uid > after))
            .collect();
        uids.sort_unstable();
        uids.truncate(limit.into());
        Ok(uids)
    }

    async fn set_state(
        &self,
        uid: DestinationUid,
        seen: Revision,
        state: DestinationState,
        at: SystemTime,
    ) -> Result<bool, Error> {
        let mut tables = self.tables()?;
        let there = tables
            .destinations
            .values_mut()
            .find(|there| there.uid == uid && there.revision == seen);
        let Some(there) = there else {
            return Ok(false);
        };
        there.state = state;
        there.revision = seen.next();
        there.update_time = whole_micros(at);
        Ok(true)
    }

    async fn find_request(
        &self,
        organization: &OrganizationId,
        request_id: Uuid,
    ) -> Result<Option<CompletedRequest>, Error> {
        let tables = self.tables()?;
        let found = tables.requests.get(&(organization.clone(), request_id));
        Ok(found.map(|found| found.request.clone()))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.tables().map(|_| ())
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// What a list is ordered by, the greatest first.
fn list_key(cursor: Cursor) -> (i64, DestinationUid) {
    (cursor.created_micros, cursor.uid)
}

fn in_micros(destination: &Destination) -> Destination {
    Destination {
        create_time: whole_micros(destination.create_time),
        update_time: whole_micros(destination.update_time),
        ..destination.clone()
    }
}

fn whole_micros(at: SystemTime) -> SystemTime {
    time(micros(at)).expect("what was a time before is one in microseconds")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::suite::{Storage, destination, store_suite};

    #[async_trait]
    impl Storage for MemoryStore {
        async fn open(&self) -> Arc<dyn Store> {
            Arc::new(self.reopen())
        }
    }

    store_suite!(MemoryStore::default());

    #[tokio::test]
    async fn a_closed_store_is_unavailable_and_its_data_is_not_lost() {
        let (store, there) = (MemoryStore::default(), destination("a"));
        store.create(&there, None).await.unwrap();
        store.close().await;
        let refused = store.get(&there.name).await;
        assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
        let found = store.reopen().get(&there.name).await.unwrap();
        assert_eq!(found, Some(there));
    }
}
