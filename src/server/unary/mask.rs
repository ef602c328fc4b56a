//! Update masks: which parts of a destination an update replaces.

use prost_types::FieldMask;

use super::edit::Part;
use crate::{
    pb::{self, destination::Config},
    server::check::Violations,
};

/// What a mask may name.
pub(super) const PATHS: &[(&str, &[Part])] = &[
    ("*", Part::ALL),
    ("display_name", &[Part::DisplayName]),
    ("action", &[Part::Action]),
    ("launch_darkly", Part::CONNECTION),
    ("launch_darkly.access_token", &[Part::AccessToken]),
    ("launch_darkly.client_side_id", &[Part::ClientSideId]),
    ("launch_darkly.instance", &[Part::Instance]),
    ("field_mappings", &[Part::FieldMappings]),
];

/// The parts that an update replaces: those that the mask names, or every populated one if it
/// names none.
pub(super) fn parts(
    mask: Option<&FieldMask>,
    destination: &pb::Destination,
    noted: &mut Violations,
) -> Vec<Part> {
    match mask {
        Some(mask) if !mask.paths.is_empty() => named(&mask.paths, noted),
        _ => populated(destination),
    }
}

fn named(paths: &[String], noted: &mut Violations) -> Vec<Part> {
    let mut parts = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        match PATHS.iter().find(|(known, _)| known == path) {
            Some((_, named)) => parts.extend_from_slice(named),
            None => noted.note(format!("update_mask.paths[{index}]"), rule()),
        }
    }
    parts
}

fn rule() -> String {
    let known: Vec<_> = PATHS.iter().map(|(path, _)| *path).collect();
    format!("cannot be updated; must be one of: {}", known.join(", "))
}

/// A token is never sent back to callers, so its absence means that it stays.
fn populated(destination: &pb::Destination) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut add = |part, is_populated: bool| parts.extend(is_populated.then_some(part));
    add(Part::DisplayName, !destination.display_name.is_empty());
    add(Part::Action, !destination.action.is_empty());
    add(Part::FieldMappings, !destination.field_mappings.is_empty());
    if let Some(Config::LaunchDarkly(config)) = &destination.config {
        add(Part::AccessToken, !config.access_token.is_empty());
        add(Part::ClientSideId, !config.client_side_id.is_empty());
        add(Part::Instance, config.instance != 0);
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    /// The server's to set, or the destination's identity.
    const FIXED: [&str; 7] = [
        "name",
        "uid",
        "state",
        "create_time",
        "update_time",
        "etag",
        "launch_darkly.obfuscated_access_token",
    ];

    fn message(name: &str) -> DescriptorProto {
        let set = FileDescriptorSet::decode(pb::DESCRIPTOR_SET).unwrap();
        let mut messages = set.file.into_iter().flat_map(|file| file.message_type);
        messages.find(|message| message.name() == name).unwrap()
    }

    fn fields(name: &str, prefix: &str) -> Vec<String> {
        let fields = message(name).field;
        fields
            .iter()
            .map(|f| format!("{prefix}{}", f.name()))
            .collect()
    }

    #[test]
    fn every_field_of_a_destination_is_either_updatable_or_fixed() {
        let mut contract: BTreeSet<_> = fields("Destination", "").into_iter().collect();
        contract.extend(fields("LaunchDarklyConfig", "launch_darkly."));
        let updatable = PATHS.iter().map(|(path, _)| *path).filter(|p| *p != "*");
        let known: Vec<_> = updatable.chain(FIXED).map(str::to_owned).collect();
        assert_eq!(known.len(), contract.len());
        assert_eq!(known.into_iter().collect::<BTreeSet<_>>(), contract);
    }

    #[test]
    fn a_path_that_cannot_be_updated_is_answered_with_those_that_can() {
        for path in FIXED
            .into_iter()
            .chain(["", "displayName", "field_mappings.sources"])
        {
            let mask = FieldMask {
                paths: vec!["action".into(), path.into()],
            };
            let mut noted = Violations::default();
            parts(Some(&mask), &pb::Destination::default(), &mut noted);
            let failure = noted.finish(Some(())).unwrap_err().to_string();
            assert!(
                failure.starts_with("update_mask.paths[1]: "),
                "{path}: {failure}"
            );
            assert!(failure.contains("launch_darkly.client_side_id"), "{path}");
            assert!(!failure.contains("paths[0]"), "{path}");
        }
    }
}
