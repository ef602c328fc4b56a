//! Registry: the one owner of destinations, of those stored and the live ones. Its callers need
//! [authorized](Authorized) names, whose type holds the permission that a method needs.
//!
//! Every change is stored and published to the streams and lanes that watch the destination; this
//! happens here and nowhere else. It is first stored and then published, but for a refusal that a
//! lane meets: that ends streams at once, whether or not the store answers.
//!
//! | change | made by | published as |
//! |---|---|---|
//! | a destination is created | [`create`](Registry::create) | nothing: no stream has it yet |
//! | it is replaced | [`replace`](Registry::replace) | its new connection, or its refused state |
//! | it is deleted | [`delete`](Registry::delete) | deleted |
//! | LaunchDarkly refuses its credentials | a lane | refused at once; stored by [`RefusalRecorder`] |
//! | they are accepted again | [`reactivate`](Registry::reactivate) | its connection |
//!
//! Another server on the same database would make changes that are not published here. A change
//! feed of the database would call `Registry::publish`.

pub(crate) mod recheck;
mod refusals;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::{Instrument, error, info};
use uuid::Uuid;

use crate::{
    clock,
    delivery::{LiveDestination, LiveDestinations, LiveState},
    domain::{
        Authorized, Deliver, Destination, DestinationName, DestinationSettings, DestinationState,
        DestinationUid, Etag, Manage, OrganizationId, PermissionType, Revision, View,
    },
    metrics::Metrics,
    store::{Page, Store},
};

pub(crate) use self::refusals::RefusalRecorder;
pub(crate) use crate::store::{
    CompletedRequest, Cursor, Entry, Error, Fingerprint, IdempotencyKey, ListQuery,
};

#[cfg(test)]
pub(crate) mod testing {
    //! What tests of what stands on the registry put below it.

    pub(crate) use crate::store::{Store, troubled::TroubledStore};
}

/// How long a read waits until a refusal is recorded in the store. As long as a writer waits for the
/// lock of a database.
const RECORDING_TIMEOUT: Duration = Duration::from_secs(2);

/// Stores destinations and publishes their changes to streams; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Registry {
    store: Arc<dyn Store>,
    live: Arc<LiveDestinations>,
    /// Counts what was published, so that a change between a read and a subscription is noticed.
    published: Arc<AtomicU64>,
    metrics: Metrics,
}

impl Registry {
    /// A registry over a store, and what stores the refusals that lanes meet; that must run.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn Store>, metrics: Metrics) -> (Self, RefusalRecorder) {
        let (live, refused) = LiveDestinations::new();
        let registry = Self {
            store,
            live,
            published: Arc::default(),
            metrics,
        };
        let recorder = RefusalRecorder::new(registry.clone(), refused);
        (registry, recorder)
    }

    /// Gets a destination. Any permission is enough, since changes and deliveries read it too.
    ///
    /// A stream may have reported refused credentials before that is stored. Then this waits until
    /// it is, so that state and etag agree with the report.
    ///
    /// # Errors
    /// The store's failure, also if it cannot store the refusal.
    pub(crate) async fn get(
        &self,
        name: &Authorized<DestinationName, impl PermissionType>,
    ) -> Result<Option<Destination>, Error> {
        let found = self.store.get(name).await?;
        let Some(Destination {
            uid,
            revision,
            state: DestinationState::Active,
            ..
        }) = found
        else {
            return Ok(found);
        };
        if !self.live.are_credentials_refused(uid, revision) {
            return Ok(found);
        }
        let recorded = self.live.superseded(uid, revision);
        if tokio::time::timeout(RECORDING_TIMEOUT, recorded)
            .await
            .is_err()
        {
            let waiting = "a refusal of credentials is not stored yet".to_owned();
            return Err(Error::Unavailable(waiting));
        }
        self.store.get(name).await
    }

    /// Gets a destination for use, and subscribes to its changes: none after what is returned is
    /// missed.
    ///
    /// # Errors
    /// The store's failure.
    pub(crate) async fn open(
        &self,
        name: &Authorized<DestinationName, Deliver>,
    ) -> Result<Option<(Destination, LiveDestination)>, Error> {
        loop {
            let published = self.published.load(Ordering::SeqCst);
            let Some(found) = self.store.get(name).await? else {
                return Ok(None);
            };
            let live = self.live.watch(found.uid);
            // A change that was published before the subscription reached no subscriber: read
            // again.
            if self.published.load(Ordering::SeqCst) == published {
                let state = live_state(&found);
                self.live.publish(found.uid, found.revision, state);
                return Ok(Some((found, live)));
            }
        }
    }

    /// Lists an organization's destinations, newest first.
    ///
    /// # Errors
    /// The store's failure.
    pub(crate) async fn list(
        &self,
        organization: &Authorized<OrganizationId, View>,
        query: &ListQuery,
    ) -> Result<Page, Error> {
        self.store.list(organization, query).await
    }

    /// Finds what a request of this organization did. It is known for 48 hours at least.
    ///
    /// # Errors
    /// The store's failure.
    pub(crate) async fn find_request(
        &self,
        organization: &Authorized<OrganizationId, Manage>,
        request_id: Uuid,
    ) -> Result<Option<CompletedRequest>, Error> {
        self.store.find_request(organization, request_id).await
    }

    /// Stores a new destination.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::DuplicateRequest`], or the store's failure.
    pub(crate) async fn create(
        &self,
        name: &Authorized<DestinationName, Manage>,
        settings: DestinationSettings,
        key: Option<&IdempotencyKey>,
    ) -> Result<Destination, Error> {
        let name = DestinationName::clone(name);
        let destination = settings.into_destination(name, clock::now_in_micros());
        self.store.create(&destination, key).await?;
        Ok(destination)
    }

    /// Stores the next revision of a destination that is still at revision `expected`, and
    /// publishes it.
    ///
    /// # Errors
    /// [`Error::Conflict`], [`Error::DuplicateRequest`], or the store's failure.
    pub(crate) async fn replace(
        &self,
        name: &Authorized<DestinationName, Manage>,
        next: Destination,
        expected: Revision,
        key: Option<IdempotencyKey>,
    ) -> Result<(), Error> {
        let this = self.clone();
        let next = Destination {
            name: DestinationName::clone(name),
            ..next
        };
        to_its_end(async move {
            this.store.replace(&next, expected, key.as_ref()).await?;
            this.publish(|live| live.publish(next.uid, next.revision, live_state(&next)));
            Ok(())
        })
        .await
    }

    /// Deletes a destination and its secrets, and ends its streams; `false` if there is none of
    /// that name.
    ///
    /// # Errors
    /// [`Error::Conflict`], or the store's failure.
    pub(crate) async fn delete(
        &self,
        name: &Authorized<DestinationName, Manage>,
        etag: Option<Etag>,
    ) -> Result<bool, Error> {
        let (this, name) = (self.clone(), DestinationName::clone(name));
        to_its_end(async move {
            let Some(uid) = this.store.delete(&name, etag.as_ref()).await? else {
                return Ok(false);
            };
            this.publish(|live| live.publish_deleted(uid));
            this.metrics.forget(&name.to_string());
            Ok(true)
        })
        .await
    }

    /// Makes a destination active that is still as it was found, with its credentials refused; its
    /// new revision, if so.
    ///
    /// # Errors
    /// The store's failure.
    pub(crate) async fn reactivate(
        &self,
        name: &Authorized<DestinationName, Manage>,
        found: Destination,
    ) -> Result<Option<Revision>, Error> {
        if found.name != **name || found.state != DestinationState::CredentialsRejected {
            return Ok(None);
        }
        self.reactivate_refused(found).await
    }

    async fn reactivate_refused(&self, found: Destination) -> Result<Option<Revision>, Error> {
        let this = self.clone();
        to_its_end(async move {
            let state = LiveState::Active(Arc::new(found.connection));
            let active = DestinationState::Active;
            let next = this.set_state(found.uid, found.revision, active, state);
            let next = next.await?;
            if next.is_some() {
                info!(destination = %found.name, "credentials are no longer refused");
            }
            Ok(next)
        })
        .await
    }

    /// Whether the store answers.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        self.store.ping().await
    }

    /// Stores and publishes the state of a destination that is still at `seen`; its new revision,
    /// if so.
    async fn set_state(
        &self,
        uid: DestinationUid,
        seen: Revision,
        state: DestinationState,
        live: LiveState,
    ) -> Result<Option<Revision>, Error> {
        let at = clock::now_in_micros();
        if !self.store.set_state(uid, seen, state, at).await? {
            return Ok(None);
        }
        self.publish(|directory| directory.publish(uid, seen.next(), live));
        Ok(Some(seen.next()))
    }

    /// Makes a stored change known to the streams and lanes of its destination.
    fn publish(&self, change: impl FnOnce(&LiveDestinations)) {
        // Counted first: a subscription that comes too late for it must see the count.
        self.published.fetch_add(1, Ordering::SeqCst);
        change(&self.live);
    }
}

/// What streams may do with a destination as it is stored.
fn live_state(destination: &Destination) -> LiveState {
    match destination.state {
        DestinationState::Active => LiveState::Active(Arc::new(destination.connection.clone())),
        DestinationState::CredentialsRejected => LiveState::Rejected,
    }
}

/// Runs a change to its end even if the caller goes away: once it is stored, it must be published.
/// Awaited here; without a caller it ends by itself, the store's calls being bounded.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let task = tokio::spawn(change.in_current_span());
    task.await.unwrap_or_else(|error| {
        error!(%error, "a change of a destination broke off");
        Err(Error::BrokenOff)
    })
}

#[cfg(test)]
mod tests;
