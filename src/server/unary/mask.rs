//! Update masks: which fields of a destination an update replaces.

use prost_types::FieldMask;

use super::fields::{self, Field};
use crate::{pb, server::check::Violations};

/// The fields that an update replaces: those that the mask names, or every populated one if it
/// names none.
pub(super) fn fields(
    mask: Option<&FieldMask>,
    destination: &pb::Destination,
    noted: &mut Violations,
) -> Vec<Field> {
    match mask {
        Some(mask) if !mask.paths.is_empty() => named(&mask.paths, noted),
        _ => {
            let all = Field::ALL.iter().copied();
            all.filter(|f| f.is_populated(destination)).collect()
        }
    }
}

fn named(paths: &[String], noted: &mut Violations) -> Vec<Field> {
    let mut all = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        let named = fields::named(path);
        if named.is_empty() {
            noted.note(format!("update_mask.paths[{index}]"), rule());
        }
        all.extend(named);
    }
    all
}

fn rule() -> String {
    let known: Vec<_> = fields::mask_paths().collect();
    format!("cannot be updated; must be one of: {}", known.join(", "))
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

    fn contract_fields(name: &str, prefix: &str) -> Vec<String> {
        let fields = message(name).field;
        fields
            .iter()
            .map(|f| format!("{prefix}{}", f.name()))
            .collect()
    }

    #[test]
    fn every_field_of_a_destination_is_either_updatable_or_fixed() {
        let mut contract: BTreeSet<_> = contract_fields("Destination", "").into_iter().collect();
        contract.extend(contract_fields("LaunchDarklyConfig", "launch_darkly."));
        let updatable = fields::mask_paths().filter(|p| *p != "*");
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
            super::fields(Some(&mask), &pb::Destination::default(), &mut noted);
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
