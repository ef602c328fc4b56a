//! Field edits of a destination: each writable field is checked and replaced on its own.

use std::time::SystemTime;

use super::fields::Field;
use crate::{
    domain::{
        Action, ClientSideId, Connection, Destination, DestinationSettings, DestinationState,
        DisplayName, Instance, Mapping,
    },
    pb::{self, destination::Config},
    secret::AccessToken,
    server::check::{self, Violations},
};

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
    /// Takes the fields asked for from `destination`. Where one is malformed, that is noted and the
    /// field is left out.
    pub(super) fn check(
        destination: pb::Destination,
        fields: &[Field],
        actions: &[Action],
        noted: &mut Violations,
    ) -> Self {
        let config = match destination.config {
            Some(Config::LaunchDarkly(config)) => config,
            // Its fields are then found missing one by one, each at its path.
            None => pb::LaunchDarklyConfig::default(),
        };
        let path = |field: Field| fields.contains(&field).then(|| field.request_path());
        let form = |field: Field, value: &str, noted: &mut Violations| {
            let is_asked_for = fields.contains(&field);
            is_asked_for.then(|| check::in_form(value, field.path(), actions, noted))?
        };
        Self {
            display_name: path(Field::DisplayName)
                .and_then(|path| check::display_name(&destination.display_name, &path, noted)),
            action: path(Field::Action)
                .and_then(|path| check::action(&destination.action, actions, &path, noted)),
            access_token: form(Field::AccessToken, &config.access_token, noted)
                .map(|()| AccessToken::new(config.access_token)),
            client_side_id: form(Field::ClientSideId, &config.client_side_id, noted)
                .map(|()| ClientSideId::new(config.client_side_id)),
            instance: path(Field::Instance)
                .and_then(|path| check::instance(config.instance, &path, noted)),
            mapping: path(Field::Mapping)
                .and_then(|path| check::mapping(destination.field_mappings, &path, noted)),
        }
    }

    /// The settings of a new destination, if every field is there.
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
