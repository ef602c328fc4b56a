//! Catalog of actions: what can be done with LaunchDarkly, in enough words to draw the forms from.

use super::credentials::{
    format::{
        ACCESS_TOKEN_PATTERN, CLIENT_SIDE_ID_PATTERN, MAX_ACCESS_TOKEN_CHARS,
        MAX_CLIENT_SIDE_ID_CHARS,
    },
    mistakes,
};
use crate::domain::{
    ACTIVATION_CONTEXT_KIND, Action, ActionField, CONTEXT_KEY_FIELD, CONTEXT_KIND_PATTERN, Choice,
    ContextKey, ContextKind, ContextKindError, FieldType, MAX_CONTEXT_KEY_CHARS,
    MAX_CONTEXT_KIND_CHARS, MAX_SEGMENT_ID_CHARS, MAX_SEGMENT_NAME_CHARS, NAME_PATTERN, Operation,
    SEGMENT_ID_PATTERN, SegmentError,
};

/// Every action, in a stable order. A context kind is offered if requests can name it.
pub(super) fn all(names_context_kind: bool) -> Vec<Action> {
    let mut activation_fields = vec![segment_name(), segment_id()];
    if names_context_kind {
        activation_fields.push(context_kind());
    }
    vec![Action {
        id: "send-identifiers",
        display_name: "Send Identifiers to LaunchDarkly in realtime",
        description: "Puts each member of a journey into a LaunchDarkly segment, or takes them \
                      out of it, within moments.",
        destination_fields: vec![access_token(), client_side_id(), instance()],
        mapping_fields: vec![context_key()],
        activation_fields,
        operations: vec![Operation::Add, Operation::Remove],
    }]
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
        pattern: Some(ACCESS_TOKEN_PATTERN.clone()),
        max_length: MAX_ACCESS_TOKEN_CHARS,
        remedy: |token| mistakes::why_no_access_token(token).message.to_owned(),
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
        pattern: Some(CLIENT_SIDE_ID_PATTERN.clone()),
        max_length: MAX_CLIENT_SIDE_ID_CHARS,
        remedy: |id| mistakes::why_no_client_side_id(id).message.to_owned(),
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
        pattern: None,
        max_length: 0,
        remedy: |_| "must be one of the choices".to_owned(),
        placeholder: "INSTANCE_COMMERCIAL",
        default_value: "INSTANCE_COMMERCIAL",
        help_uri: "https://launchdarkly.com/docs/home/infrastructure/eu",
    }
}

fn context_key() -> ActionField {
    ActionField {
        path: CONTEXT_KEY_FIELD,
        display_name: "Context key",
        description: "The identifier by which your application names a member to LaunchDarkly: \
                      the key of a context, of kind user unless the activation names another \
                      kind. It must be the very same, in upper and lower case too, or hashed \
                      alike.",
        kind: FieldType::Text,
        required: true,
        // What a record holds is judged with the record.
        pattern: None,
        max_length: MAX_CONTEXT_KEY_CHARS,
        remedy: |key| ContextKey::new(key).map_or_else(|e| e.to_string(), |_| String::new()),
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
        pattern: Some(NAME_PATTERN.clone()),
        max_length: MAX_SEGMENT_NAME_CHARS,
        remedy: |_| SegmentError::Name.to_string(),
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
        pattern: Some(SEGMENT_ID_PATTERN.clone()),
        max_length: MAX_SEGMENT_ID_CHARS,
        remedy: |_| SegmentError::Id.to_string(),
        placeholder: "vip-customers",
        default_value: "",
        help_uri: "https://launchdarkly.com/docs/home/flags/synced-segments",
    }
}

fn context_kind() -> ActionField {
    ActionField {
        path: ACTIVATION_CONTEXT_KIND,
        display_name: "Context kind",
        description: "What the members are, as your application names their kind to \
                      LaunchDarkly, such as user or account. All members of a segment are of one \
                      kind. It stays the same for the life of the segment.",
        kind: FieldType::Text,
        required: false,
        pattern: Some(CONTEXT_KIND_PATTERN.clone()),
        max_length: MAX_CONTEXT_KIND_CHARS,
        remedy: |_| ContextKindError.to_string(),
        placeholder: "account",
        default_value: ContextKind::DEFAULT,
        help_uri: "https://launchdarkly.com/docs/home/flags/context-kinds",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{SegmentId, SegmentRef};

    fn fields() -> Vec<ActionField> {
        let one = |a: Action| [a.destination_fields, a.mapping_fields, a.activation_fields];
        all(true).into_iter().flat_map(one).flatten().collect()
    }

    #[test]
    fn every_placeholder_is_accepted_by_its_own_field() {
        for field in fields() {
            let value = field.placeholder;
            assert!(!value.is_empty(), "{}", field.path);
            assert!(field.accepts(value), "{}", field.path);
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
    fn a_context_kind_is_offered_exactly_if_requests_can_name_it() {
        for offered in [false, true] {
            let actions = all(offered);
            let field = Action::activation_field(&actions, ACTIVATION_CONTEXT_KIND);
            assert_eq!(field.is_some(), offered);
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

    fn no_longer(field: &ActionField, unit: &str) -> bool {
        let long = |chars: u16| unit.repeat(chars.into());
        field.accepts(&long(field.max_length)) && !field.accepts(&long(field.max_length + 1))
    }

    #[test]
    fn lengths_are_in_characters() {
        assert!(no_longer(&access_token(), "a") && no_longer(&client_side_id(), "a"));
        assert!(no_longer(&segment_id(), "a") && no_longer(&segment_name(), "é"));
        assert!(no_longer(&context_kind(), "a"));
        assert!(no_longer(&context_key(), "é"));
    }

    proptest! {
        #[test]
        fn no_access_token_is_taken_that_is_another_key_or_cannot_be_in_a_header(
            token in "(s|sd|sdk|sdk-|m|mo|mob|mob-|api-|Sdk-)?[a-z0-9_.,()\\[\\]\\\\^*\\-]{0,5}|[ -~é]{0,6}"
        ) {
            let legal = |c: char| c.is_ascii_graphic() && !['"', '\'', '`'].contains(&c);
            let is_key = token.starts_with("sdk-") || token.starts_with("mob-");
            let fits = !token.is_empty() && token.chars().all(legal) && !is_key;
            prop_assert_eq!(access_token().accepts(&token), fits);
        }

        #[test]
        fn forms_take_the_segments_that_streams_take(
            text in "[ a-zA-Z0-9_.\\-é\u{a0}\u{2028}\u{200b}\u{200f}\u{85}\n!]{0,6}"
        ) {
            let id = SegmentId::new(&text);
            prop_assert_eq!(segment_id().check(&text), id.map(drop).map_err(|e| e.to_string()));
            let named = SegmentRef::new(SegmentId::new("a").unwrap(), ContextKind::default(), &text);
            let named = named.map(drop).map_err(|e| e.to_string());
            prop_assert_eq!(segment_name().check(&text), named);
            let kind = ContextKind::new(&text);
            prop_assert_eq!(context_kind().check(&text), kind.map(drop).map_err(|e| e.to_string()));
        }

        #[test]
        fn no_form_refuses_a_key_that_the_domain_takes(
            key in "[ a-zé\u{200b}\u{200d}\u{fe0f}\u{600}]{0,6}|(a|é|😀){1020,1028}"
        ) {
            prop_assert!(ContextKey::new(&key).is_err() || context_key().accepts(&key));
        }
    }
}
