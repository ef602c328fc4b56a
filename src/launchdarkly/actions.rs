//! What can be done with LaunchDarkly, in enough words to draw the forms from.

use crate::domain::{
    Action, ActionField, CONTEXT_KEY_FIELD, Choice, FieldType, MAX_ACCESS_TOKEN_BYTES,
    MAX_CLIENT_SIDE_ID_BYTES, MAX_CONTEXT_KEY_BYTES, Operation, SEGMENT_ID_PATTERN,
};

/// Visible ASCII without spaces: what can stand in a header. Tokens need not begin
/// with `api-`: that is a convention.
const ACCESS_TOKEN_PATTERN: &str = "^[!-~]+$";
/// No dashes, as LaunchDarkly documents; 24 hexadecimal digits are a convention.
const CLIENT_SIDE_ID_PATTERN: &str = "^[A-Za-z0-9_]+$";
/// Anything on one line that is not blank.
const SEGMENT_NAME_PATTERN: &str = r"^.*\S.*$";
/// The domain's limits, which a test compares.
const SEGMENT_ID_LENGTH: u16 = 128;
const SEGMENT_NAME_LENGTH: u16 = 256;

/// Every action, in a stable order.
pub(super) fn all() -> Vec<Action> {
    vec![Action {
        id: "send-identifiers",
        display_name: "Send Identifiers to LaunchDarkly in realtime",
        description: "Puts each member of a journey into a LaunchDarkly segment, or takes them \
                      out of it, within moments.",
        destination_fields: vec![access_token(), client_side_id(), instance()],
        mapping_fields: vec![context_key()],
        activation_fields: vec![segment_name(), segment_id()],
        operations: vec![Operation::Add, Operation::Remove],
    }]
}

/// A limit in bytes as one in characters: the values that are accepted are ASCII, or near it.
fn limit(bytes: usize) -> u16 {
    u16::try_from(bytes).unwrap_or(u16::MAX)
}

fn access_token() -> ActionField {
    ActionField {
        path: "launch_darkly.access_token",
        display_name: "Access token",
        description: "An API access token of your LaunchDarkly account. In LaunchDarkly, open \
                      Organization settings > Authorization > Access tokens and create a token \
                      with the role Writer; a service token is best, since it goes on working \
                      when the person who created it leaves. LaunchDarkly shows it only once.",
        kind: FieldType::Secret,
        required: true,
        pattern: ACCESS_TOKEN_PATTERN.to_owned(),
        max_length: limit(MAX_ACCESS_TOKEN_BYTES),
        placeholder: "api-00000000-0000-0000-0000-000000000000",
        default_value: "",
        help_uri: "https://launchdarkly.com/docs/home/account/api-create",
    }
}

fn client_side_id() -> ActionField {
    ActionField {
        path: "launch_darkly.client_side_id",
        display_name: "Client-side ID",
        description: "The client-side ID of the environment whose segments are to be filled. In \
                      LaunchDarkly, open the help menu, choose SDK keys, and copy the \
                      client-side ID of the environment: not its SDK key, mobile key or name.",
        kind: FieldType::Text,
        required: true,
        pattern: CLIENT_SIDE_ID_PATTERN.to_owned(),
        max_length: limit(MAX_CLIENT_SIDE_ID_BYTES),
        placeholder: "000000000000000000000000",
        default_value: "",
        help_uri: "https://launchdarkly.com/docs/home/account/environment/keys",
    }
}

fn instance() -> ActionField {
    ActionField {
        path: "launch_darkly.instance",
        display_name: "LaunchDarkly instance",
        description: "The address at which you sign in to LaunchDarkly.",
        kind: FieldType::Choice(vec![
            Choice {
                value: "INSTANCE_COMMERCIAL",
                display_name: "Commercial (app.launchdarkly.com)",
            },
            Choice {
                value: "INSTANCE_EU",
                display_name: "EU (app.eu.launchdarkly.com), has no synced segments",
            },
            Choice {
                value: "INSTANCE_FEDERAL",
                display_name: "Federal (app.launchdarkly.us), has no synced segments",
            },
        ]),
        required: false,
        pattern: String::new(),
        max_length: 0,
        placeholder: "INSTANCE_COMMERCIAL",
        default_value: "INSTANCE_COMMERCIAL",
        help_uri: "https://launchdarkly.com/docs/home/infrastructure/eu",
    }
}

fn context_key() -> ActionField {
    ActionField {
        path: CONTEXT_KEY_FIELD,
        display_name: "Context key",
        description: "The identifier by which your application names a person to LaunchDarkly: \
                      the key of contexts of kind user. It must be the very same, in upper and \
                      lower case too, or hashed alike.",
        kind: FieldType::Text,
        required: true,
        pattern: String::new(),
        // Bytes there, characters here: this never refuses what the server takes.
        max_length: limit(MAX_CONTEXT_KEY_BYTES),
        placeholder: "user-1234",
        default_value: "",
        help_uri: "https://launchdarkly.com/docs/home/flags/built-in-attributes",
    }
}

fn segment_name() -> ActionField {
    ActionField {
        path: "activation.segment_name",
        display_name: "Segment name",
        description: "The name of the segment as people see it in LaunchDarkly.",
        kind: FieldType::Text,
        required: true,
        pattern: SEGMENT_NAME_PATTERN.to_owned(),
        max_length: SEGMENT_NAME_LENGTH,
        placeholder: "VIP customers",
        default_value: "",
        help_uri: "https://launchdarkly.com/docs/home/flags/zeotap",
    }
}

fn segment_id() -> ActionField {
    ActionField {
        path: "activation.segment_id",
        display_name: "Segment ID",
        description: "An ID of your choice that stays the same for the life of the segment. \
                      LaunchDarkly creates the segment when the first member arrives under an ID \
                      that it does not know. Letters, digits, dots, dashes and underscores.",
        kind: FieldType::Text,
        required: true,
        pattern: SEGMENT_ID_PATTERN.to_owned(),
        max_length: SEGMENT_ID_LENGTH,
        placeholder: "vip-customers",
        default_value: "",
        help_uri: "https://launchdarkly.com/docs/home/flags/synced-segments",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{SegmentId, SegmentRef};

    fn fields() -> Vec<ActionField> {
        let one = |a: Action| [a.destination_fields, a.mapping_fields, a.activation_fields];
        all().into_iter().flat_map(one).flatten().collect()
    }

    fn matches(pattern: &str, value: &str) -> bool {
        regex::Regex::new(pattern).unwrap().is_match(value)
    }

    #[test]
    fn every_placeholder_is_accepted_by_its_own_field() {
        for field in fields() {
            let value = field.placeholder;
            assert!(!value.is_empty(), "{}", field.path);
            assert!(matches(&field.pattern, value), "{}", field.path);
            let fits = field.max_length == 0 || value.len() <= field.max_length.into();
            assert!(fits, "{}", field.path);
            if let FieldType::Choice(choices) = &field.kind {
                let offered = |value| choices.iter().any(|choice| choice.value == value);
                assert!(
                    offered(value) && offered(field.default_value),
                    "{}",
                    field.path
                );
            }
        }
    }

    #[test]
    fn every_field_explains_itself() {
        for field in fields() {
            assert!(!field.display_name.is_empty(), "{}", field.path);
            assert!(field.description.ends_with('.'), "{}", field.path);
            assert!(!field.description.contains("  "), "{}", field.path);
            assert!(field.help_uri.starts_with("https://"), "{}", field.path);
        }
    }

    #[test]
    fn lengths_are_those_of_the_domain() {
        let id = |length: u16| SegmentId::new(&"a".repeat(length.into()));
        assert!(id(SEGMENT_ID_LENGTH).is_ok() && id(SEGMENT_ID_LENGTH + 1).is_err());
        let name =
            |length: u16| SegmentRef::new(SegmentId::new("a").unwrap(), &"é".repeat(length.into()));
        assert!(name(SEGMENT_NAME_LENGTH).is_ok() && name(SEGMENT_NAME_LENGTH + 1).is_err());
        assert_eq!(usize::from(context_key().max_length), MAX_CONTEXT_KEY_BYTES);
    }

    proptest! {
        #[test]
        fn no_form_refuses_a_name_that_the_domain_takes(name in "[ a-zé\u{a0}\u{2028}!]{0,6}") {
            let id = SegmentId::new("a").unwrap();
            if SegmentRef::new(id, &name).is_ok() {
                prop_assert!(matches(SEGMENT_NAME_PATTERN, &name));
            }
        }
    }
}
