//! The caller of an RPC, and what that caller may do.
//!
//! The seam for identity and access control: a resource name that a request holds is parsed and
//! authorized in one step, and only an [`Authorized`] name opens the registry. A name that was not
//! checked is a type error there. The permission is not part of the type: each method must ask for
//! the one that it needs. A method that names no organization has nothing to authorize.

use std::{fmt, ops::Deref};

use super::{DestinationId, DestinationName, NameError, OrganizationId};

/// What a call does to an organization's destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Reads them.
    View,
    /// Changes them, or checks their credentials.
    Manage,
    /// Delivers records through them.
    Deliver,
}

/// The caller of one method, identified where its request comes in.
#[derive(Debug, Clone)]
pub struct Caller {
    may: fn(&OrganizationId, Permission) -> bool,
}

/// A resource name that its caller may use as the call does. Only a [`Caller`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized<N>(N);

/// Why a name is not authorized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// It is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The caller may not do this.
    #[error("the caller may not do this")]
    Denied,
}

impl Caller {
    /// The caller of a server that identifies none: it may do everything.
    #[must_use]
    pub const fn local() -> Self {
        Self { may: |_, _| true }
    }

    /// A caller who may do what `may` says.
    #[cfg(test)]
    pub(crate) fn with(may: fn(&OrganizationId, Permission) -> bool) -> Self {
        Self { may }
    }

    /// Authorizes `organizations/{organization}`.
    ///
    /// # Errors
    /// No such name, or no permission.
    pub fn organization(
        &self,
        parent: &str,
        permission: Permission,
    ) -> Result<Authorized<OrganizationId>, AccessError> {
        let organization = OrganizationId::parse_parent(parent)?;
        self.check(&organization, permission)?;
        Ok(Authorized(organization))
    }

    /// Authorizes `organizations/{organization}/destinations/{destination}`.
    ///
    /// # Errors
    /// No such name, or no permission.
    pub fn destination(
        &self,
        name: &str,
        permission: Permission,
    ) -> Result<Authorized<DestinationName>, AccessError> {
        let name: DestinationName = name.parse()?;
        self.check(&name.organization, permission)?;
        Ok(Authorized(name))
    }

    fn check(
        &self,
        organization: &OrganizationId,
        permission: Permission,
    ) -> Result<(), AccessError> {
        if (self.may)(organization, permission) {
            Ok(())
        } else {
            Err(AccessError::Denied)
        }
    }
}

impl Authorized<OrganizationId> {
    /// The name of one of the organization's destinations.
    #[must_use]
    pub fn destination(&self, destination: DestinationId) -> Authorized<DestinationName> {
        Authorized(DestinationName {
            organization: self.0.clone(),
            destination,
        })
    }
}

impl Authorized<DestinationName> {
    /// The organization whose destination it is.
    #[must_use]
    pub fn organization(&self) -> Authorized<OrganizationId> {
        Authorized(self.0.organization.clone())
    }
}

impl<N> Authorized<N> {
    /// The name alone.
    #[must_use]
    pub fn into_inner(self) -> N {
        self.0
    }
}

impl<N> Deref for Authorized<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.0
    }
}

impl<N: fmt::Display> fmt::Display for Authorized<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_authorized_for_its_organization_and_its_use() {
        let caller = Caller::with(|organization, permission| {
            organization.as_str() == "acme" && permission == Permission::View
        });
        let vip = "organizations/acme/destinations/vip";
        let viewed = caller.destination(vip, Permission::View).unwrap();
        assert_eq!(viewed.to_string(), vip);
        let denied = Err(AccessError::Denied);
        assert_eq!(caller.destination(vip, Permission::Manage), denied);
        let other = "organizations/other/destinations/vip";
        assert_eq!(caller.destination(other, Permission::View), denied);
        let organization = caller.organization("organizations/other", Permission::View);
        assert_eq!(organization, Err(AccessError::Denied));
        let malformed = caller.destination("vip", Permission::View);
        assert_eq!(malformed, Err(NameError::Destination.into()));
    }
}
