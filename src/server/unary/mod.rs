//! The unary calls: they describe actions, check credentials and manage destinations.
//!
//! Each method takes and returns wire messages; [`service`](super::service) wraps them for tonic.
//! A request is checked as a whole before anything is looked up. The [`Caller`] turns the names in it
//! into authorized ones; the registry takes no others. Where a request names no organization, as to
//! check unsaved credentials, the [`vendor`] module requires the caller's permission instead.

mod create;
mod edit;
mod fields;
mod idempotency;
mod list;
mod mask;
mod page;
mod update;
mod vendor;

use std::sync::Arc;

use self::vendor::Vendor;
use crate::{
    domain::{
        Authorized, Caller, CredentialChecker, CredentialReport, Destination, DestinationName,
        Etag, Manage, PermissionType, View,
    },
    pb,
    registry::{self, Registry},
    server::{check, convert, status::Failure},
};

/// Answers the unary calls; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct UnaryCalls {
    registry: Registry,
    vendor: Vendor,
}

impl UnaryCalls {
    /// Answers from a registry and a vendor.
    #[must_use]
    pub(crate) fn new(registry: Registry, vendor: Arc<dyn CredentialChecker>) -> Self {
        Self {
            registry,
            vendor: Vendor::new(vendor),
        }
    }

    /// Gets one destination.
    ///
    /// # Errors
    /// A bad name, or none of that name.
    pub(crate) async fn get_destination(
        &self,
        caller: &Caller,
        request: pb::GetDestinationRequest,
    ) -> Result<pb::Destination, Failure> {
        let name = name::<View>(caller, &request.name)?;
        let found = self.look_up(&name).await?;
        Ok(convert::destination(&found))
    }

    /// Deletes a destination and its secret.
    ///
    /// # Errors
    /// A bad name, another etag, or none of that name unless that is allowed.
    pub(crate) async fn delete_destination(
        &self,
        caller: &Caller,
        request: pb::DeleteDestinationRequest,
    ) -> Result<(), Failure> {
        let name = name(caller, &request.name)?;
        let deleted = self.registry.delete(&name, etag(request.etag)).await;
        match deleted {
            Ok(true) => Ok(()),
            Ok(false) if request.allow_missing => Ok(()),
            Ok(false) => Err(Failure::DestinationNotFound(name.into_inner())),
            Err(registry::Error::Conflict) => Err(Failure::EtagMismatch(name.into_inner())),
            Err(error) => Err(store_failure(error)),
        }
    }

    /// Checks credentials, stored or not; bad ones are an answer and no error. A stored destination
    /// whose credentials were refused is active again if no check fails.
    ///
    /// # Errors
    /// Nothing to check, no such destination, LaunchDarkly cannot be asked, or the store fails.
    pub(crate) async fn validate_credentials(
        &self,
        caller: &Caller,
        request: pb::ValidateCredentialsRequest,
    ) -> Result<pb::ValidateCredentialsResponse, Failure> {
        use pb::validate_credentials_request::Target;
        let report = match request.target {
            Some(Target::Name(name)) => {
                let name = self::name(caller, &name)?;
                self.validate_stored(&name).await?
            }
            Some(Target::LaunchDarkly(config)) => {
                let allowed = caller.unscoped().ok_or(Failure::PermissionDenied)?;
                let unsaved =
                    check::all(|noted| check::unsaved_connection(config, "launch_darkly", noted))?;
                self.vendor.check_credentials(&allowed, &unsaved).await?
            }
            None => return Err(Failure::invalid("target", "set name or launch_darkly")),
        };
        Ok(convert::report(report))
    }

    async fn validate_stored(
        &self,
        name: &Authorized<DestinationName, Manage>,
    ) -> Result<CredentialReport, Failure> {
        let found = self.look_up(name).await?;
        let report = self.vendor.check_credentials(name, &found.connection);
        let report = report.await?;
        if report.is_valid() {
            let reactivated = self.registry.reactivate(name, found).await;
            reactivated.map_err(store_failure)?;
        }
        Ok(report)
    }

    async fn look_up(
        &self,
        name: &Authorized<DestinationName, impl PermissionType>,
    ) -> Result<Destination, Failure> {
        let found = self.read(name).await?;
        found.ok_or_else(|| Failure::DestinationNotFound(DestinationName::clone(name)))
    }

    async fn read(
        &self,
        name: &Authorized<DestinationName, impl PermissionType>,
    ) -> Result<Option<Destination>, Failure> {
        self.registry.get(name).await.map_err(store_failure)
    }
}

/// The name of a request that has no other field to check.
fn name<P: PermissionType>(
    caller: &Caller,
    name: &str,
) -> Result<Authorized<DestinationName, P>, Failure> {
    check::all(|noted| noted.authorized("name", caller.destination(name)))
}

/// The caller's etag; none when empty.
fn etag(etag: String) -> Option<Etag> {
    (!etag.is_empty()).then_some(Etag(etag))
}

/// The failure that a caller gets for an error of the store, which is logged here alone.
pub(super) fn store_failure(error: registry::Error) -> Failure {
    tracing::error!(%error, "the store failed");
    match error {
        registry::Error::Unavailable(_) => Failure::StoreUnavailable,
        // The callers handle the first three where they can come.
        registry::Error::Exists
        | registry::Error::Conflict
        | registry::Error::DuplicateRequest
        | registry::Error::Unsupported(_)
        | registry::Error::BrokenOff
        | registry::Error::Corrupt(_) => Failure::Internal,
    }
}

#[cfg(test)]
pub(crate) mod tests;
