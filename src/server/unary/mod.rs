//! The unary calls: describing actions, checking credentials, and keeping destinations.
//!
//! Each method takes and returns wire messages; [`service`](super::service) wraps them for tonic.
//! A request is checked as a whole before anything is looked up.

mod create;
mod edit;
mod idempotency;
mod list;
mod mask;
mod page;
mod revive;
mod update;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::Instrument;

pub use revive::Again;

use crate::{
    clock,
    delivery::{LiveDestinations, LiveState, RefusedCredentials},
    domain::{
        CredentialChecker, CredentialReport, Destination, DestinationName, DestinationState, Etag,
    },
    metrics::Metrics,
    pb,
    server::{check, convert, status::Failure},
    store::{self, Store},
};

/// Answers the unary calls; cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    store: Arc<dyn Store>,
    vendor: Arc<dyn CredentialChecker>,
    /// Where running streams learn what became of their destination.
    live: Arc<LiveDestinations>,
    metrics: Metrics,
}

impl Control {
    /// Puts the calls on a store and a vendor.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        vendor: Arc<dyn CredentialChecker>,
        live: Arc<LiveDestinations>,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            vendor,
            live,
            metrics,
        }
    }

    /// Gets one destination.
    ///
    /// # Errors
    /// A bad name, or none of that name.
    pub async fn get_destination(
        &self,
        request: pb::GetDestinationRequest,
    ) -> Result<pb::Destination, Failure> {
        let name = check::all(|noted| noted.keep("name", request.name.parse()))?;
        let found = self.look_up(&name).await?;
        Ok(convert::destination(&found))
    }

    /// Deletes a destination and its secret.
    ///
    /// # Errors
    /// A bad name, another etag, or none of that name unless that is allowed.
    pub async fn delete_destination(
        &self,
        request: pb::DeleteDestinationRequest,
    ) -> Result<(), Failure> {
        let control = self.clone();
        to_its_end(async move { control.delete(request).await }).await
    }

    async fn delete(&self, request: pb::DeleteDestinationRequest) -> Result<(), Failure> {
        let name: DestinationName = check::all(|noted| noted.keep("name", request.name.parse()))?;
        let etag = etag(request.etag);
        match self.store.delete(&name, etag.as_ref()).await {
            Ok(Some(uid)) => {
                self.live.publish_deleted(uid);
                self.metrics.forget(&name.to_string());
            }
            Ok(None) if request.allow_missing => {}
            Ok(None) => return Err(Failure::DestinationNotFound(name)),
            Err(store::Error::Conflict) => return Err(Failure::EtagMismatch(name)),
            Err(error) => return Err(store_failure(error)),
        }
        Ok(())
    }

    /// Checks credentials, stored or not; bad ones are an answer and no error. A stored destination
    /// whose credentials were refused is active again if no check fails.
    ///
    /// # Errors
    /// Nothing to check, no such destination, LaunchDarkly cannot be asked, or the store fails.
    pub async fn validate_credentials(
        &self,
        request: pb::ValidateCredentialsRequest,
    ) -> Result<pb::ValidateCredentialsResponse, Failure> {
        use pb::validate_credentials_request::Target;
        let report = match request.target {
            Some(Target::Name(name)) => {
                let name = check::all(|noted| noted.keep("name", name.parse()))?;
                self.validate_stored(&name).await?
            }
            Some(Target::LaunchDarkly(config)) => {
                let unsaved =
                    check::all(|noted| check::unsaved_connection(config, "launch_darkly", noted))?;
                self.vendor.check_credentials(&unsaved).await?
            }
            None => return Err(Failure::invalid("target", "set name or launch_darkly")),
        };
        Ok(convert::report(report))
    }

    async fn validate_stored(&self, name: &DestinationName) -> Result<CredentialReport, Failure> {
        let found = self.look_up(name).await?;
        let report = self.vendor.check_credentials(&found.connection).await?;
        if report.is_valid() {
            self.revive(found).await?;
        }
        Ok(report)
    }

    async fn look_up(&self, name: &DestinationName) -> Result<Destination, Failure> {
        let found = self.read(name).await?;
        found.ok_or_else(|| Failure::DestinationNotFound(name.clone()))
    }

    /// Reads one destination. That its credentials were refused is known a moment before it is
    /// stored: whoever was told by a stream must not find it active, nor its etag change under him.
    async fn read(&self, name: &DestinationName) -> Result<Option<Destination>, Failure> {
        let found = self.store.get(name).await.map_err(store_failure)?;
        match found {
            Some(Destination {
                uid,
                revision,
                state: DestinationState::Active,
                ..
            }) if self
                .live
                .are_credentials_refused(RefusedCredentials { uid, revision }) =>
            {
                let state = DestinationState::CredentialsRejected;
                let stored = self.store.set_state(uid, revision, state, clock::now());
                stored.await.map_err(store_failure)?;
                self.store.get(name).await.map_err(store_failure)
            }
            found => Ok(found),
        }
    }
}

/// What streams may do with a destination as it is stored.
pub(crate) fn live_state(destination: &Destination) -> LiveState {
    match destination.state {
        DestinationState::Active => LiveState::Active(Arc::new(destination.connection.clone())),
        DestinationState::CredentialsRejected => LiveState::Rejected,
    }
}

/// The caller's etag; none when empty.
fn etag(etag: String) -> Option<Etag> {
    (!etag.is_empty()).then_some(Etag(etag))
}

/// The time to stamp on a destination, in the microseconds that lists are ordered by: what a call
/// answers is then what a later one reads back.
fn stamp() -> SystemTime {
    whole_micros(clock::now())
}

fn whole_micros(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let surplus = Duration::from_nanos((since.subsec_nanos() % 1_000).into());
    SystemTime::UNIX_EPOCH + (since - surplus)
}

/// Runs a change to its end even if the caller goes away: once it is stored, the streams must hear
/// of it. Awaited here; without a caller it ends by itself, the store's calls being bounded.
async fn to_its_end<T: Send + 'static>(
    change: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let task = tokio::spawn(change.in_current_span());
    task.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a change of a destination broke off");
        Err(Failure::Internal)
    })
}

/// What a caller hears of the store's failures, which are logged here and only here.
pub(crate) fn store_failure(error: store::Error) -> Failure {
    tracing::error!(%error, "the store failed");
    match error {
        store::Error::Unavailable(_) => Failure::StoreUnavailable,
        // The callers handle the first three where they can come.
        store::Error::Exists
        | store::Error::Conflict
        | store::Error::DuplicateRequest
        | store::Error::Unsupported(_)
        | store::Error::Corrupt(_) => Failure::Internal,
    }
}

#[cfg(test)]
pub(crate) mod tests;
