//! The caller of an RPC, and what that caller may do.
//!
//! The seam for identity and access control: every method takes a [`Caller`]. A resource name that a
//! request holds is parsed and authorized in one step, and only an [`Authorized`] name opens the
//! registry. The permission is part of its type, and each method of the registry says which one it
//! needs. So a check that is missing, or asks for another permission, does not compile:
//!
//! ```compile_fail,E0308
//! use launchdarkly_connector::domain::{AccessError, Authorized, Caller, DestinationName, Manage, View};
//!
//! fn delete(_: &Authorized<DestinationName, Manage>) {}
//!
//! let vip = "organizations/acme/destinations/vip";
//! let viewed = Caller::local().destination::<View>(vip)?;
//! delete(&viewed);
//! # Ok::<(), AccessError>(())
//! ```
//!
//! Where the name is passed on, its permission is inferred:
//!
//! ```
//! # use launchdarkly_connector::domain::{AccessError, Authorized, Caller, DestinationName, Manage};
//! # fn delete(_: &Authorized<DestinationName, Manage>) {}
//! # let vip = "organizations/acme/destinations/vip";
//! delete(&Caller::local().destination(vip)?);
//! # Ok::<(), AccessError>(())
//! ```
//!
//! A method that names no organization asks for its permission all the same, by [`Caller::unscoped`].

use std::{fmt, marker::PhantomData, ops::Deref};

use super::{DestinationId, DestinationName, NameError, OrganizationId};

/// What a call does to an organization's destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Reads them.
    View,
    /// Changes them, or checks credentials.
    Manage,
    /// Delivers records through them.
    Deliver,
}

/// A [`Permission`] as a type.
pub trait PermissionType: fmt::Debug + Clone + Send + Sync + 'static {
    /// The permission.
    const PERMISSION: Permission;
}

/// [`Permission::View`] as a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View;

/// [`Permission::Manage`] as a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manage;

/// [`Permission::Deliver`] as a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deliver;

impl PermissionType for View {
    const PERMISSION: Permission = Permission::View;
}

impl PermissionType for Manage {
    const PERMISSION: Permission = Permission::Manage;
}

impl PermissionType for Deliver {
    const PERMISSION: Permission = Permission::Deliver;
}

/// The caller of one method, identified where its request comes in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Without an organization: whether it may do so to what belongs to none.
    may: fn(Option<&OrganizationId>, Permission) -> bool,
}

/// A resource name that its caller may use with the permission `P`. Only a [`Caller`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorized<N, P>(N, PhantomData<P>);

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
    pub(crate) fn with(may: fn(Option<&OrganizationId>, Permission) -> bool) -> Self {
        Self { may }
    }

    /// Authorizes what belongs to no organization; none without permission.
    #[must_use]
    pub fn unscoped<P: PermissionType>(&self) -> Option<Authorized<(), P>> {
        (self.may)(None, P::PERMISSION).then_some(Authorized((), PhantomData))
    }

    /// Authorizes `organizations/{organization}`.
    ///
    /// # Errors
    /// No such name, or no permission.
    pub fn organization<P: PermissionType>(
        &self,
        parent: &str,
    ) -> Result<Authorized<OrganizationId, P>, AccessError> {
        let organization = OrganizationId::parse_parent(parent)?;
        self.check::<P>(&organization)?;
        Ok(Authorized(organization, PhantomData))
    }

    /// Authorizes `organizations/{organization}/destinations/{destination}`.
    ///
    /// # Errors
    /// No such name, or no permission.
    pub fn destination<P: PermissionType>(
        &self,
        name: &str,
    ) -> Result<Authorized<DestinationName, P>, AccessError> {
        let name: DestinationName = name.parse()?;
        self.check::<P>(&name.organization)?;
        Ok(Authorized(name, PhantomData))
    }

    fn check<P: PermissionType>(&self, organization: &OrganizationId) -> Result<(), AccessError> {
        if (self.may)(Some(organization), P::PERMISSION) {
            Ok(())
        } else {
            Err(AccessError::Denied)
        }
    }
}

impl<P> Authorized<OrganizationId, P> {
    /// The name of one of the organization's destinations.
    #[must_use]
    pub fn destination(&self, destination: DestinationId) -> Authorized<DestinationName, P> {
        let name = DestinationName {
            organization: self.0.clone(),
            destination,
        };
        Authorized(name, PhantomData)
    }
}

impl<P> Authorized<DestinationName, P> {
    /// The organization whose destination it is.
    #[must_use]
    pub fn organization(&self) -> Authorized<OrganizationId, P> {
        Authorized(self.0.organization.clone(), PhantomData)
    }
}

impl<N, P> Authorized<N, P> {
    /// The name alone.
    #[must_use]
    pub fn into_inner(self) -> N {
        self.0
    }
}

impl<N, P> Deref for Authorized<N, P> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.0
    }
}

impl<N: fmt::Display, P> fmt::Display for Authorized<N, P> {
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
            organization.is_some_and(|o| o.as_str() == "acme") && permission == Permission::View
        });
        let vip = "organizations/acme/destinations/vip";
        let viewed = caller.destination::<View>(vip).unwrap();
        assert_eq!(viewed.to_string(), vip);
        let denied = AccessError::Denied;
        assert_eq!(caller.destination::<Manage>(vip), Err(denied));
        assert_eq!(caller.destination::<Deliver>(vip), Err(denied));
        let other = "organizations/other/destinations/vip";
        assert_eq!(caller.destination::<View>(other), Err(denied));
        let organization = caller.organization::<View>("organizations/other");
        assert_eq!(organization, Err(denied));
        assert_eq!(caller.unscoped::<View>(), None);
        let malformed = caller.destination::<View>("vip");
        assert_eq!(malformed, Err(NameError::Destination.into()));
    }

    #[test]
    fn what_belongs_to_no_organization_is_authorized_for_its_use() {
        let caller = Caller::with(|organization, permission| {
            organization.is_none() && permission == Permission::View
        });
        assert!(caller.unscoped::<View>().is_some());
        assert_eq!(caller.unscoped::<Manage>(), None);
    }
}
