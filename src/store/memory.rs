//! Keeps destinations in memory: a disk for simulations, which know of no real one.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Cursor, Error, ListQuery, Once, Page, RETENTION, Remembered, Store,
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
    requests: BTreeMap<(OrganizationId, Uuid), Kept>,
}

struct Kept {
    remembered: Remembered,
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
        // Every critical section checks first and writes last: the tables are whole.
        Ok(self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tables {
    fn check_new(&self, organization: &OrganizationId, once: Option<&Once>) -> Result<(), Error> {
        let known = once.is_some_and(|once| {
            let key = (organization.clone(), once.request_id);
            self.requests.contains_key(&key)
        });
        if known {
            Err(Error::Remembered)
        } else {
            Ok(())
        }
    }

    fn remember(&mut self, destination: &Destination, once: Option<&Once>) {
        let Some(once) = once else { return };
        // The time of the change is the time of its request, as in every store.
        let at = destination.update_time;
        self.requests
            .retain(|_, kept| micros(at) <= micros(kept.at + RETENTION));
        let kept = Kept {
            remembered: Remembered {
                fingerprint: once.fingerprint,
                name: destination.name.clone(),
                uid: destination.uid,
            },
            at,
        };
        let key = (destination.name.organization.clone(), once.request_id);
        self.requests.insert(key, kept);
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, destination: &Destination, once: Option<&Once>) -> Result<(), Error> {
        let mut tables = self.tables()?;
        tables.check_new(&destination.name.organization, once)?;
        match tables.destinations.entry(destination.name.clone()) {
            Entry::Occupied(_) => return Err(Error::Exists),
            Entry::Vacant(place) => drop(place.insert(in_micros(destination))),
        }
        tables.remember(destination, once);
        Ok(())
    }

    async fn get(&self, name: &DestinationName) -> Result<Option<Destination>, Error> {
        Ok(self.tables()?.destinations.get(name).cloned())
    }

    async fn list(&self, query: &ListQuery) -> Result<Page, Error> {
        let text = query.display_name.as_deref().map(fold);
        let wanted = |destination: &&Destination| {
            destination.name.organization == query.organization
                && text
                    .as_ref()
                    .is_none_or(|text| fold(destination.display_name.as_str()).contains(text))
                && query
                    .after
                    .is_none_or(|after| place(&Cursor::of(destination)) < place(&after))
        };
        let tables = self.tables()?;
        let mut found: Vec<_> = tables
            .destinations
            .values()
            .filter(wanted)
            .cloned()
            .collect();
        found.sort_by_key(|destination| std::cmp::Reverse(place(&Cursor::of(destination))));
        Ok(Page::first(found, query.limit.max(1)))
    }

    async fn replace(
        &self,
        destination: &Destination,
        expected: Revision,
        once: Option<&Once>,
    ) -> Result<(), Error> {
        let mut tables = self.tables()?;
        tables.check_new(&destination.name.organization, once)?;
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
        tables.remember(destination, once);
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

    async fn recall(
        &self,
        organization: &OrganizationId,
        request_id: Uuid,
    ) -> Result<Option<Remembered>, Error> {
        let tables = self.tables()?;
        let kept = tables.requests.get(&(organization.clone(), request_id));
        Ok(kept.map(|kept| kept.remembered.clone()))
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

/// Its place in a list, which shows the greatest first.
fn place(cursor: &Cursor) -> (i64, DestinationUid) {
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
    use crate::store::suite::{Place, destination, store_suite};

    #[async_trait]
    impl Place for MemoryStore {
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
