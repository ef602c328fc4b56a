//! Request validation: every violation is collected with the path of its field.
//!
//! A check gets a value and the path of its field. It returns the checked value; or it notes the
//! violation in [`Violations`] and returns `None`, so that the other fields are still checked. No
//! value is changed silently: white space around a token is refused, not removed.

use std::fmt;

use uuid::Uuid;

use super::status::{Failure, Violation};
use crate::{
    domain::{
        AccessError, Action, Authorized, ClientSideId, Connection, DisplayName, FieldMapping,
        Instance, Mapping, MappingError, Transform,
    },
    pb::{
        self, field_mapping::Transform as PbTransform, launch_darkly_config::Instance as PbInstance,
    },
    secret::AccessToken,
};

/// Most sources, and most transforms, of one mapping. Ours: each record may be looked up under
/// every source, and pays for every transform.
const MAX_MAPPING_PARTS: usize = 32;
/// Longest name of an identifier, in bytes. Ours: a record that fails names some.
const MAX_SOURCE_NAME: usize = 256;

/// The violations of a request, collected so that the caller learns all at once.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    noted: Vec<Violation>,
    is_denied: bool,
}

impl Violations {
    pub(crate) fn note(&mut self, field: impl Into<String>, description: impl fmt::Display) {
        self.noted.push(Violation::new(field, description));
    }

    /// The parsed value; or none, with a note of the error.
    pub(crate) fn ok_or_note<T>(
        &mut self,
        field: &str,
        parsed: Result<T, impl fmt::Display>,
    ) -> Option<T> {
        parsed.map_err(|error| self.note(field, error)).ok()
    }

    /// An authorized name; or none, with a note of the error.
    pub(crate) fn authorized<N, P>(
        &mut self,
        field: &str,
        name: Result<Authorized<N, P>, AccessError>,
    ) -> Option<Authorized<N, P>> {
        match name {
            Err(AccessError::Denied) => {
                self.is_denied = true;
                None
            }
            name => self.ok_or_note(field, name),
        }
    }

    /// The checked request, if nothing was noted. A caller without the permission does not learn
    /// what is wrong with the request.
    pub(crate) fn finish<T>(self, checked: Option<T>) -> Result<T, Failure> {
        match checked {
            _ if self.is_denied => Err(Failure::PermissionDenied),
            Some(checked) if self.noted.is_empty() => Ok(checked),
            _ => Err(Failure::InvalidFields(self.noted)),
        }
    }
}

/// Runs a check and fails with everything it noted.
pub(crate) fn all<T>(check: impl FnOnce(&mut Violations) -> Option<T>) -> Result<T, Failure> {
    let mut violations = Violations::default();
    let checked = check(&mut violations);
    violations.finish(checked)
}

/// The id that makes a retry safe, if the caller set one.
pub(crate) fn request_id(id: &str, violations: &mut Violations) -> Option<Uuid> {
    if id.is_empty() {
        return None;
    }
    let parsed = Uuid::try_parse(id).ok();
    // Clients that forget to draw one send this, and would collide with each other.
    let drawn = parsed.filter(|id| !id.is_nil());
    violations.ok_or_note(
        "request_id",
        drawn.ok_or("must be a UUID, a new one for each request"),
    )
}

pub(crate) fn display_name(
    name: &str,
    path: &str,
    violations: &mut Violations,
) -> Option<DisplayName> {
    let rule = "must be 1 to 63 characters, not blank, without control characters";
    violations.ok_or_note(path, DisplayName::new(name).ok_or(rule))
}

/// The id of one of the vendor's actions.
pub(crate) fn action(
    id: &str,
    known: &[Action],
    path: &str,
    violations: &mut Violations,
) -> Option<String> {
    let found = known.iter().find(|action| action.id == id);
    let rule = || {
        let ids: Vec<_> = known.iter().map(|action| action.id).collect();
        format!("must be one of: {}", ids.join(", "))
    };
    let found = violations.ok_or_note(path, found.ok_or_else(rule));
    found.map(|action| action.id.to_owned())
}

/// Checks a destination's value against the published rules of its field.
pub(crate) fn in_form(
    value: &str,
    field: &str,
    known: &[Action],
    violations: &mut Violations,
) -> Option<()> {
    let checked = match Action::destination_field(known, field) {
        Some(field) => field.check(value),
        None => Err("no action has this field".to_owned()),
    };
    violations.ok_or_note(&format!("destination.{field}"), checked)
}

pub(crate) fn instance(number: i32, path: &str, violations: &mut Violations) -> Option<Instance> {
    let instance = match PbInstance::try_from(number) {
        Ok(PbInstance::Unspecified | PbInstance::Commercial) => Ok(Instance::Commercial),
        Ok(PbInstance::Eu) => Ok(Instance::Eu),
        Ok(PbInstance::Federal) => Ok(Instance::Federal),
        Err(_) => Err("must be one of: INSTANCE_COMMERCIAL, INSTANCE_EU, INSTANCE_FEDERAL"),
    };
    violations.ok_or_note(path, instance)
}

/// Settings that are checked with LaunchDarkly and not stored. Their form is not checked here:
/// telling what is wrong with it, if only that nothing is there, is what that check is for.
pub(crate) fn unsaved_connection(
    config: pb::LaunchDarklyConfig,
    path: &str,
    violations: &mut Violations,
) -> Option<Connection> {
    let instance = instance(config.instance, &format!("{path}.instance"), violations);
    Some(Connection {
        access_token: AccessToken::new(config.access_token),
        client_side_id: ClientSideId::new(config.client_side_id),
        instance: instance?,
    })
}

/// A mapping, of a destination or of an activation.
pub(crate) fn mapping(
    mappings: Vec<pb::FieldMapping>,
    path: &str,
    violations: &mut Violations,
) -> Option<Mapping> {
    let mut fields = Vec::with_capacity(mappings.len());
    for (index, mapping) in mappings.into_iter().enumerate() {
        fields.push(field_mapping(
            mapping,
            &format!("{path}[{index}]"),
            violations,
        ));
    }
    match Mapping::check(fields) {
        Ok(mapping) => Some(mapping),
        Err(errors) => {
            for error in errors {
                violations.note(mapping_path(&error, path), error);
            }
            None
        }
    }
}

fn field_mapping(
    mapping: pb::FieldMapping,
    path: &str,
    violations: &mut Violations,
) -> FieldMapping {
    let too_many = format!("must be at most {MAX_MAPPING_PARTS}");
    if mapping.sources.len() > MAX_MAPPING_PARTS {
        violations.note(format!("{path}.sources"), &too_many);
    }
    if mapping.transforms.len() > MAX_MAPPING_PARTS {
        violations.note(format!("{path}.transforms"), &too_many);
    }
    for (index, source) in mapping.sources.iter().enumerate() {
        if source.len() > MAX_SOURCE_NAME {
            let rule = format!("must be at most {MAX_SOURCE_NAME} bytes long");
            violations.note(format!("{path}.sources[{index}]"), rule);
        }
    }
    let mut transforms = Vec::with_capacity(mapping.transforms.len());
    for (index, number) in mapping.transforms.iter().enumerate() {
        transforms.extend(transform(
            *number,
            &format!("{path}.transforms[{index}]"),
            violations,
        ));
    }
    FieldMapping {
        field: mapping.field,
        sources: mapping.sources.into(),
        transforms,
    }
}

fn transform(number: i32, path: &str, violations: &mut Violations) -> Option<Transform> {
    let name = PbTransform::try_from(number).map(|transform| transform.as_str_name());
    let mut all = Transform::ALL.iter().copied();
    let transform = all.find(|transform| Ok(transform.contract_name()) == name);
    let names = || Transform::listed(Transform::contract_name);
    violations.ok_or_note(
        path,
        transform.ok_or_else(|| format!("must be one of: {}", names())),
    )
}

fn mapping_path(error: &MappingError, path: &str) -> String {
    match error {
        MappingError::UnknownField { index } | MappingError::DuplicateField { index } => {
            format!("{path}[{index}].field")
        }
        MappingError::NoSources { index } => format!("{path}[{index}].sources"),
        MappingError::BlankSource {
            index,
            source_index,
        }
        | MappingError::UnseenInSource {
            index,
            source_index,
            ..
        } => format!("{path}[{index}].sources[{source_index}]"),
        MappingError::MissingField => path.to_owned(),
    }
}

#[cfg(test)]
mod tests;
