use super::*;
use crate::domain::{ActionField, FieldType, Pattern};

/// What a check notes, as `path: description`.
fn noted<T>(check: impl FnOnce(&mut Violations) -> Option<T>) -> Vec<String> {
    match all(check) {
        Ok(_) => Vec::new(),
        Err(Failure::InvalidFields(violations)) => violations
            .into_iter()
            .map(|v| format!("{}: {}", v.field, v.description))
            .collect(),
        Err(other) => panic!("{other:?}"),
    }
}

fn paths<T>(check: impl FnOnce(&mut Violations) -> Option<T>) -> Vec<String> {
    let noted = noted(check);
    let path = |line: &String| line.split(": ").next().map(str::to_owned);
    noted.iter().filter_map(path).collect()
}

/// One action with the one field that is checked here.
fn known() -> [Action; 1] {
    let token = ActionField {
        path: "launch_darkly.access_token",
        display_name: "Access token",
        description: "A token.",
        kind: FieldType::Secret,
        required: true,
        pattern: Some(Pattern::new("^[!-~]+$")),
        max_length: 20,
        remedy: |value| format!("has {} characters; copy it again", value.chars().count()),
        placeholder: "api-1",
        default_value: "",
        help_uri: "https://example.org",
    };
    [Action {
        id: "send",
        display_name: "Send",
        description: "Sends.",
        destination_fields: vec![token],
        mapping_fields: vec![],
        activation_fields: vec![],
        operations: vec![],
    }]
}

const TOKEN: &str = "launch_darkly.access_token";

#[test]
fn a_token_is_refused_rather_than_changed_in_the_words_of_its_field() {
    let canary = "api-canary";
    let long = "é".repeat(21);
    for token in [
        "",
        " api-canary",
        "api-canary\n",
        "api\u{7}canary",
        "api-canaryé",
        &long,
    ] {
        let noted = noted(|v| in_form(token, TOKEN, &known(), v));
        let words = format!("has {} characters; copy it again", token.chars().count());
        let expected = format!("destination.launch_darkly.access_token: {words}");
        assert_eq!(noted, [expected]);
    }
    assert_eq!(all(|v| in_form(canary, TOKEN, &known(), v)), Ok(()));
}

#[test]
fn a_value_that_no_form_asks_for_is_refused() {
    let noted = noted(|v| in_form("5f0c", "launch_darkly.client_side_id", &known(), v));
    assert_eq!(
        noted,
        ["destination.launch_darkly.client_side_id: no action has this field"]
    );
}

#[test]
fn settings_to_be_checked_may_have_any_form() {
    let config = |access_token: &str, client_side_id: &str, instance| pb::LaunchDarklyConfig {
        access_token: access_token.to_owned(),
        client_side_id: client_side_id.to_owned(),
        instance,
        ..Default::default()
    };
    let odd = config(" sdk-1 ", "with-a-dash ", 2);
    let checked = all(|v| unsaved_connection(odd, "launch_darkly", v)).unwrap();
    assert_eq!(checked.access_token.expose(), " sdk-1 ");
    assert_eq!(checked.instance, Instance::Eu);
    let long = "x".repeat(513);
    for text in ["", &long] {
        assert!(all(|v| unsaved_connection(config(text, text, 0), "launch_darkly", v)).is_ok());
    }
    assert_eq!(
        paths(|v| unsaved_connection(config(&long, &long, 9), "launch_darkly", v)),
        ["launch_darkly.instance"]
    );
}

#[test]
fn a_request_id_is_a_uuid_that_someone_drew() {
    let read = |id: &'static str| paths(move |v| Some(request_id(id, v)));
    assert_eq!(read("00000000-0000-0000-0000-000000000000"), ["request_id"]);
    assert_eq!(read("again"), ["request_id"]);
    assert!(read("").is_empty());
    assert!(read("4b1f4a0e-7d52-4b0f-9a53-0c6a7f0e4f11").is_empty());
}

#[test]
fn every_problem_of_a_mapping_is_noted_at_its_path() {
    let mapping_of = |field: &str, sources: Vec<String>, transforms| pb::FieldMapping {
        field: field.to_owned(),
        sources,
        transforms,
    };
    let many = vec!["id".to_owned(); MAX_MAPPING_PARTS + 1];
    let mappings = vec![
        mapping_of(
            "context_key",
            vec!["user_id".into(), " ".into(), "e\u{200B}mail".into()],
            vec![4, 0, 99],
        ),
        mapping_of("kind", vec![], vec![1; MAX_MAPPING_PARTS + 1]),
        mapping_of("context_key", many, vec![]),
        mapping_of("context_key", vec!["x".repeat(MAX_SOURCE_NAME + 1)], vec![]),
    ];
    let mut found = paths(|v| mapping(mappings, "m", v));
    found.sort();
    assert_eq!(
        found,
        [
            "m[0].sources[1]",
            "m[0].sources[2]",
            "m[0].transforms[1]",
            "m[0].transforms[2]",
            "m[1].field",
            "m[1].sources",
            "m[1].transforms",
            "m[2].field",
            "m[2].sources",
            "m[3].field",
            "m[3].sources[0]",
        ]
    );
    assert_eq!(paths(|v| mapping(vec![], "m", v)), ["m"]);
}
