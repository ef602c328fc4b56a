//! The parts of a destination that callers choose, each checked and replaced on its own.

use std::time::SystemTime;

use crate::{
    domain::{
        Action, ClientSideId, Connection, Destination, DestinationSettings, DestinationState,
        DisplayName, Instance, Mapping,
    },
    pb::{self, destination::Config},
    secret::AccessToken,
    server::check::{self, Violations},
};

/// A part that can be replaced by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    DisplayName,
    Action,
    AccessToken,
    ClientSideId,
    Instance,
    FieldMappings,
}

impl Part {
    pub(super) const ALL: &[Self] = &[
        Self::DisplayName,
        Self::Action,
        Self::AccessToken,
        Self::ClientSideId,
        Self::Instance,
        Self::FieldMappings,
    ];

    /// What `launch_darkly` as a whole consists of.
    pub(super) const CONNECTION: &[Self] = &[Self::AccessToken, Self::ClientSideId, Self::Instance];
}

/// Checked new values; what is not there stays as it is.
#[derive(Debug, Default)]
pub(super) struct Edit {
    display_name: Option<DisplayName>,
    action: Option<String>,
    access_token: Option<AccessToken>,
    client_side_id: Option<ClientSideId>,
    instance: Option<Instance>,
    mapping: Option<Mapping>,
}

impl Edit {
    /// Takes the parts asked for from `destination`. Where one is malformed, that is noted and the
    /// part is left out.
    pub(super) fn check(
        destination: pb::Destination,
        parts: &[Part],
        actions: &[Action],
        noted: &mut Violations,
    ) -> Self {
        let mut edit = Self::default();
        let config = match destination.config {
            Some(Config::LaunchDarkly(config)) => config,
            // Its parts are then found missing one by one, each at its path.
            None => pb::LaunchDarklyConfig::default(),
        };
        if parts.contains(&Part::DisplayName) {
            let path = "destination.display_name";
            edit.display_name = check::display_name(&destination.display_name, path, noted);
        }
        if parts.contains(&Part::Action) {
            edit.action = check::action(&destination.action, actions, "destination.action", noted);
        }
        edit.check_connection(config, parts, actions, noted);
        if parts.contains(&Part::FieldMappings) {
            let path = "destination.field_mappings";
            edit.mapping = check::mapping(destination.field_mappings, path, noted);
        }
        edit
    }

    fn check_connection(
        &mut self,
        config: pb::LaunchDarklyConfig,
        parts: &[Part],
        actions: &[Action],
        noted: &mut Violations,
    ) {
        if parts.contains(&Part::AccessToken) {
            self.access_token = check::access_token(config.access_token, actions, noted);
        }
        if parts.contains(&Part::ClientSideId) {
            self.client_side_id = check::client_side_id(config.client_side_id, actions, noted);
        }
        if parts.contains(&Part::Instance) {
            let path = "destination.launch_darkly.instance";
            self.instance = check::instance(config.instance, path, noted);
        }
    }

    /// The settings of a new destination, if every part is there.
    pub(super) fn whole(self) -> Option<DestinationSettings> {
        Some(DestinationSettings {
            display_name: self.display_name?,
            action: self.action?,
            connection: Connection {
                access_token: self.access_token?,
                client_side_id: self.client_side_id?,
                instance: self.instance?,
            },
            mapping: self.mapping?,
        })
    }

    /// The next revision of `current`.
    pub(super) fn apply(&self, current: &Destination, now: SystemTime) -> Destination {
        let connection = self.new_connection(&current.connection);
        Destination {
            name: current.name.clone(),
            uid: current.uid,
            display_name: or_else(&self.display_name, &current.display_name),
            action: or_else(&self.action, &current.action),
            state: self.new_state(current, &connection),
            connection,
            mapping: or_else(&self.mapping, &current.mapping),
            create_time: current.create_time,
            update_time: now,
            revision: current.revision.next(),
        }
    }

    fn new_connection(&self, current: &Connection) -> Connection {
        Connection {
            access_token: or_else(&self.access_token, &current.access_token),
            client_side_id: or_else(&self.client_side_id, &current.client_side_id),
            instance: or_else(&self.instance, &current.instance),
        }
    }

    /// Credentials that changed deserve another chance. So does the same token given once more:
    /// its role may have been mended in LaunchDarkly.
    fn new_state(&self, current: &Destination, connection: &Connection) -> DestinationState {
        if self.access_token.is_some() || *connection != current.connection {
            DestinationState::Active
        } else {
            current.state
        }
    }
}

fn or_else<T: Clone>(new: &Option<T>, current: &T) -> T {
    new.as_ref().unwrap_or(current).clone()
}
