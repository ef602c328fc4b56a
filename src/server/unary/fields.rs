//! Writable fields of a destination: one table, from which masks, checks and the paths in errors
//! are made.
//!
//! The fields of a connection are also described to forms, by an [`Action`](crate::domain::Action)
//! under the same paths. Tests compare the two lists, and check that no field that is secret is sent
//! back.

use std::iter;

use crate::pb::{self, destination::Config};

/// A field that can be replaced by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    DisplayName,
    Action,
    AccessToken,
    ClientSideId,
    Instance,
    Mapping,
}

impl Field {
    pub(super) const ALL: &[Self] = &[
        Self::DisplayName,
        Self::Action,
        Self::AccessToken,
        Self::ClientSideId,
        Self::Instance,
        Self::Mapping,
    ];

    /// Where it is in the JSON of a destination.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::DisplayName => "display_name",
            Self::Action => "action",
            Self::AccessToken => "launch_darkly.access_token",
            Self::ClientSideId => "launch_darkly.client_side_id",
            Self::Instance => "launch_darkly.instance",
            Self::Mapping => "field_mappings",
        }
    }

    /// Where it is in a request.
    pub(super) fn request_path(self) -> String {
        format!("destination.{}", self.path())
    }

    /// Whether a message has a value for it. A token is never sent back to callers, so its absence
    /// means that it stays.
    pub(super) fn is_populated(self, destination: &pb::Destination) -> bool {
        let config = destination.config.as_ref();
        let config = config.map(|Config::LaunchDarkly(config)| config);
        match self {
            Self::DisplayName => !destination.display_name.is_empty(),
            Self::Action => !destination.action.is_empty(),
            Self::AccessToken => config.is_some_and(|c| !c.access_token.is_empty()),
            Self::ClientSideId => config.is_some_and(|c| !c.client_side_id.is_empty()),
            Self::Instance => config.is_some_and(|c| c.instance != 0),
            Self::Mapping => !destination.field_mappings.is_empty(),
        }
    }

    /// The message that the field is in, if that is not the destination itself.
    fn group(self) -> Option<&'static str> {
        self.path().split_once('.').map(|(group, _)| group)
    }
}

/// What a mask may name: everything, a group of fields, or one.
pub(super) fn mask_paths() -> impl Iterator<Item = &'static str> {
    let mut last = None;
    let paths = Field::ALL.iter().flat_map(move |field| {
        let group = field.group();
        let new = group.filter(|_| group != last);
        last = group;
        new.into_iter().chain([field.path()])
    });
    iter::once("*").chain(paths)
}

/// The fields that a path of a mask names; none for any other path.
pub(super) fn named(path: &str) -> Vec<Field> {
    let is_named = |field: &Field| {
        path == "*" || path == field.path() || field.group().is_some_and(|group| path == group)
    };
    Field::ALL.iter().copied().filter(is_named).collect()
}
