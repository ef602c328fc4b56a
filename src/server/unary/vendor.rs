//! What callers may ask of the vendor, and with which permission.

use std::sync::Arc;

use crate::domain::{
    Action, Authorized, Connection, CredentialChecker, CredentialReport, CredentialsUnavailable,
    Manage, View,
};

/// The vendor, behind the permissions of callers; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Vendor(Arc<dyn CredentialChecker>);

impl Vendor {
    pub(super) fn new(vendor: Arc<dyn CredentialChecker>) -> Self {
        Self(vendor)
    }

    /// The actions, for a caller to see.
    pub(super) fn describe(&self, _: &Authorized<(), View>) -> &[Action] {
        self.0.actions()
    }

    /// The actions that requests are checked against. That happens before a caller is refused, and
    /// tells a refused one nothing.
    pub(super) fn known_actions(&self) -> &[Action] {
        self.0.actions()
    }

    /// Checks credentials: those of a destination that may be managed, or unsaved ones.
    ///
    /// # Errors
    /// The vendor cannot be asked.
    pub(super) async fn check_credentials<N: Sync>(
        &self,
        _: &Authorized<N, Manage>,
        connection: &Connection,
    ) -> Result<CredentialReport, CredentialsUnavailable> {
        self.0.check_credentials(connection).await
    }
}
