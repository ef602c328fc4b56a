//! Resource names: organizations, destinations, and their ids.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// Longest organization id, in characters. Ours: room for a UUID or a DNS label.
const MAX_ORGANIZATION: usize = 63;
/// Longest destination id, in characters (AIP-122's resource id, a DNS label).
const MAX_DESTINATION: usize = 63;

/// Why a resource name or id is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not an organization's name.
    #[error("must have the form organizations/{{organization}}, with 1 to 63 of A-Z a-z 0-9 . _ -")]
    Organization,
    /// Not a destination's name.
    #[error("must have the form organizations/{{organization}}/destinations/{{destination}}")]
    Destination,
    /// Not a destination id.
    #[error("must be 1 to 63 characters of a-z 0-9 -, start with a letter and not end with a dash")]
    DestinationId,
}

/// An organization of the calling platform.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganizationId(String);

impl OrganizationId {
    /// Parses `organizations/{organization}`.
    ///
    /// # Errors
    /// [`NameError::Organization`] for any other form.
    pub fn parse_parent(parent: &str) -> Result<Self, NameError> {
        let id = parent
            .strip_prefix("organizations/")
            .ok_or(NameError::Organization)?;
        Self::parse(id)
    }

    fn parse(id: &str) -> Result<Self, NameError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let fits = (1..=MAX_ORGANIZATION).contains(&id.len()) && id.bytes().all(legal);
        fits.then(|| Self(id.to_owned()))
            .ok_or(NameError::Organization)
    }

    /// The id alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "organizations/{}", self.0)
    }
}

/// A destination's id within its organization: `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationId(String);

impl DestinationId {
    /// The id alone.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A new generated id: `d-` and a UUID.
    #[must_use]
    pub fn generate() -> Self {
        Self(format!("d-{}", Uuid::new_v4()))
    }
}

impl FromStr for DestinationId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        let bytes = id.as_bytes();
        let legal = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let fits = (1..=MAX_DESTINATION).contains(&id.len())
            && bytes[0].is_ascii_lowercase()
            && bytes.iter().all(legal)
            && !id.ends_with('-');
        fits.then(|| Self(id.to_owned()))
            .ok_or(NameError::DestinationId)
    }
}

/// `organizations/{organization}/destinations/{destination}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationName {
    /// The organization that owns it.
    pub organization: OrganizationId,
    /// The destination within that organization.
    pub destination: DestinationId,
}

impl FromStr for DestinationName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let (parent, destination) = name
            .split_once("/destinations/")
            .ok_or(NameError::Destination)?;
        Ok(Self {
            organization: OrganizationId::parse_parent(parent)
                .map_err(|_| NameError::Destination)?,
            destination: destination.parse().map_err(|_| NameError::Destination)?,
        })
    }
}

impl fmt::Display for DestinationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/destinations/{}",
            self.organization, self.destination.0
        )
    }
}

/// The permanent identity of a destination. A destination that is re-created under the same name
/// has another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestinationUid(pub Uuid);

impl DestinationUid {
    /// A new uid; sorts by creation time.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for DestinationUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_name_reads_back_as_written() {
        let name = "organizations/acme/destinations/vip-1";
        assert_eq!(name.parse::<DestinationName>().unwrap().to_string(), name);
    }

    #[test]
    fn malformed_names_are_refused() {
        for name in [
            "",
            "organizations/acme",
            "organizations//destinations/a",
            "organizations/a/destinations/",
            "organizations/a/destinations/-a",
            "organizations/a/destinations/a-",
            "organizations/a/destinations/A",
            "organizations/a/destinations/a/b",
            "organizations/a/destinations/a/destinations/b",
            "/organizations/a/destinations/b",
        ] {
            assert_eq!(
                name.parse::<DestinationName>(),
                Err(NameError::Destination),
                "{name}"
            );
        }
    }

    #[test]
    fn generated_ids_are_legal() {
        let id = DestinationId::generate();
        assert_eq!(id.as_str().parse::<DestinationId>().as_ref(), Ok(&id));
    }
}
