//! How requests of every registered integration are read, and which manifests are refused.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{parser, *};
use crate::sandbox::{fixtures::CLIENT_SIDE_ID, segments::CohortUpdate};

/// The registered integrations.
pub(in crate::sandbox) const REGISTERED: [&str; 12] = [
    "amplitude",
    "census-synced-segments",
    "example-synced-segment-integration1",
    "example-synced-segment-integration2",
    "fulcrum",
    "heap-inbound",
    "hightouch",
    "rudderstack",
    "segment-audiences",
    "sumatra-synced-segments",
    "tealium-synced-segments",
    "zeotap",
];

fn source(key: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    fs::read_to_string(path.join(format!("{key}.json"))).unwrap()
}

pub(in crate::sandbox) fn manifest(key: &str) -> Manifest {
    Manifest::read(&source(key)).unwrap()
}

fn read(key: &str, request: &Value) -> Result<SegmentUpdate, InvalidUpdate> {
    manifest(key).update(request.to_string().as_bytes())
}

/// A request of the cohort `vip` as each integration sends it. None if it cannot ask for both in
/// one call.
pub(in crate::sandbox) fn request(key: &str, added: &[&str], removed: &[&str]) -> Option<Value> {
    let all = [added, removed].concat();
    let words = |add: &str, remove: &str| {
        let word = if removed.is_empty() { add } else { remove };
        let is_mixed = !added.is_empty() && !removed.is_empty();
        (!is_mixed).then(|| word.to_owned())
    };
    let objects = |name: &str, keys: &[&str]| -> Vec<_> {
        keys.iter().map(|key| json!({ name: key })).collect()
    };
    let request = match key {
        "amplitude" | "segment-audiences" => {
            let member = |key| {
                json!({"userId": key, "cohortId": "vip", "cohortName": "VIP",
                    "value": added.contains(key)})
            };
            json!({"environmentId": CLIENT_SIDE_ID, "batch": all.iter().map(member).collect::<Vec<_>>()})
        }
        "census-synced-segments" => {
            let member = |key| {
                json!({"user_id": key, "cohort_id": "vip", "cohort_name": "VIP",
                    "value": added.contains(key)})
            };
            json!({"environment_id": CLIENT_SIDE_ID, "batch": all.iter().map(member).collect::<Vec<_>>()})
        }
        "example-synced-segment-integration1" => json!({
            "customer_config": {"fields": [{"value": {"id": CLIENT_SIDE_ID}}]},
            "data": {"segment": {"id": "vip", "name": "VIP"},
                "add": objects("id", added), "remove": objects("id", removed)}}),
        "example-synced-segment-integration2" => json!({
            "action": words("add_members", "remove_members")?,
            "parameters": {"mixpanel_project_id": CLIENT_SIDE_ID, "mixpanel_cohort_id": "vip",
                "mixpanel_cohort_name": "VIP",
                "members": objects("mixpanel_distinct_id", &all)}}),
        "fulcrum" | "sumatra-synced-segments" => json!({
            "environmentId": CLIENT_SIDE_ID, "cohortId": "vip", "cohortName": "VIP",
            "cohortUrl": "https://cdp.example/vip",
            "included": {"add": objects("id", added), "remove": objects("id", removed)}}),
        "heap-inbound" => json!({
            "parameters": {"environment_id": CLIENT_SIDE_ID},
            "heap": {"data": {"segment": {"id": "vip", "name": "VIP"},
                "add": objects("id", added), "remove": objects("id", removed)}}}),
        "hightouch" => json!({
            "environmentId": CLIENT_SIDE_ID, "cohortId": "vip", "cohortName": "VIP",
            "action": words("add", "remove")?,
            "members": objects("integration_distinct_id", &all)}),
        "rudderstack" => json!({
            "environmentId": CLIENT_SIDE_ID, "cohortId": "vip", "cohortName": "VIP",
            "listData": {"add": objects("id", added), "remove": objects("id", removed)}}),
        // The registered pattern takes the word that is meant to remove for one that adds.
        "tealium-synced-segments" => json!({
            "action": words("add_member", "anything_else")?,
            "parameters": {"tealium_project_id": CLIENT_SIDE_ID, "tealium_cohort_id": "vip",
                "tealium_cohort_name": "VIP", "members": objects("member_id", &all)}}),
        "zeotap" => json!({
            "action": words("add_members", "remove_members")?,
            "parameters": {"integration_project_id": CLIENT_SIDE_ID, "integration_cohort_id": "vip",
                "integration_cohort_name": "VIP",
                "members": objects("integration_distinct_id", &all)}}),
        other => panic!("{other} is not registered"),
    };
    Some(request)
}

/// Where a request may name a context kind.
pub(in crate::sandbox) fn kind_field(key: &str) -> Option<&'static str> {
    match key {
        "census-synced-segments" => Some("context_kind"),
        "example-synced-segment-integration2"
        | "fulcrum"
        | "hightouch"
        | "rudderstack"
        | "segment-audiences"
        | "sumatra-synced-segments" => Some("contextKind"),
        _ => None,
    }
}

/// The changes of the one segment that it updates: `+a` adds a, `-a` removes it.
fn changes(key: &str, update: &SegmentUpdate) -> Vec<String> {
    let segments: Vec<_> = update.segments(key).collect();
    let [(segment, cohort)] = segments.as_slice() else {
        panic!("{key}: {} segments", segments.len());
    };
    assert_eq!(*segment, format!("{key}-vip"));
    shown(cohort)
}

fn shown(cohort: &CohortUpdate) -> Vec<String> {
    let sign = |adds| if adds { '+' } else { '-' };
    let changes = cohort.changes.iter();
    changes
        .map(|change| format!("{}{}", sign(change.adds), change.key))
        .collect()
}

#[test]
fn additions_and_removals_of_every_registered_integration_are_read() {
    for key in REGISTERED {
        for (added, removed, expected) in [
            (vec!["a", "b"], vec![], vec!["+a", "+b"]),
            (vec![], vec!["a", "b"], vec!["-a", "-b"]),
            (vec!["a"], vec!["b", "c"], vec!["+a", "-b", "-c"]),
        ] {
            let Some(request) = request(key, &added, &removed) else {
                let has_a_word = matches!(manifest(key).membership, Membership::Word { .. });
                assert!(has_a_word, "{key}: a word says one thing of all members");
                continue;
            };
            let update = read(key, &request).unwrap();
            assert_eq!(changes(key, &update), expected, "{key}");
            assert_eq!(
                (&*update.environment, &*update.kind),
                (CLIENT_SIDE_ID, "user")
            );
            let cohort = &update.cohort;
            assert_eq!((&*cohort.id, &*cohort.name), ("vip", "VIP"), "{key}");
        }
    }
}

#[test]
fn a_context_kind_is_read_where_the_manifest_has_a_place_for_it() {
    for key in REGISTERED {
        let whole = request(key, &["a"], &[]).unwrap();
        let with = |field: &str, kind: Value| {
            let mut request = whole.clone();
            request[field] = kind;
            read(key, &request).map(|update| update.kind)
        };
        let Some(field) = kind_field(key) else {
            for field in ["contextKind", "context_kind"] {
                assert_eq!(with(field, json!("account")).unwrap(), "user", "{key}");
            }
            continue;
        };
        for kind in ["account", "user", "A.b_c-1", "Kind"] {
            assert_eq!(with(field, json!(kind)).unwrap(), kind, "{key}");
        }
        for none in [Value::Null, json!("")] {
            assert_eq!(with(field, none).unwrap(), "user", "{key}");
        }
        let refused = Err(InvalidUpdate::NoKind(format!("/{field}")));
        for wrong in [
            json!("kind"),
            json!("multi"),
            json!("a b"),
            json!("ä"),
            json!(5),
            json!(false),
            json!({}),
        ] {
            assert_eq!(with(field, wrong.clone()), refused, "{key} {wrong}");
        }
    }
}

/// The pointers of all texts in a request but for those that may be left out.
fn required(key: &str, request: &Value) -> Vec<String> {
    let optional = |pointer: &str| {
        // A member without a cohort of its own is of that of the call.
        pointer.ends_with("/cohortUrl") || pointer.starts_with("/batch/1/cohort")
    };
    let mut found = vec![];
    let mut next = vec![(String::new(), request)];
    while let Some((at, value)) = next.pop() {
        match value {
            Value::Object(fields) => {
                next.extend(
                    fields
                        .iter()
                        .map(|(name, value)| (format!("{at}/{name}"), value)),
                );
            }
            Value::Array(items) => {
                let items = items.iter().enumerate();
                next.extend(items.map(|(index, value)| (format!("{at}/{index}"), value)));
            }
            _ if optional(&at) => {}
            _ => found.push(at),
        }
    }
    assert!(found.len() >= 5, "{key}: {found:?}");
    found
}

#[test]
fn a_missing_or_wrong_part_refuses_the_whole_call_and_is_named() {
    for key in REGISTERED {
        let whole = request(key, &["a", "b"], &[]).unwrap();
        for pointer in required(key, &whole) {
            // A number is no text, and neither it nor an empty text is true or false.
            for wrong in [Value::Null, json!(""), json!(5)] {
                let mut request = whole.clone();
                *request.pointer_mut(&pointer).unwrap() = wrong;
                let refusal = read(key, &request).unwrap_err().to_string();
                let named = format!("{pointer} must");
                assert!(refusal.starts_with(&named), "{key} {pointer}: {refusal}");
            }
        }
        let not_json = manifest(key).update(b"not json");
        assert_eq!(not_json, Err(InvalidUpdate::NotJson));
        for other in [json!([]), json!({}), json!("text"), json!({"a": [whole]})] {
            assert!(read(key, &other).is_err(), "{key} {other}");
        }
    }
}

#[test]
fn one_of_two_lists_may_be_missing_but_not_both() {
    for (key, parent) in [
        ("example-synced-segment-integration1", "/data"),
        ("fulcrum", "/included"),
        ("heap-inbound", "/heap/data"),
        ("rudderstack", "/listData"),
        ("sumatra-synced-segments", "/included"),
    ] {
        let whole = request(key, &["a"], &["b"]).unwrap();
        let without = |names: &[&str]| {
            let mut request = whole.clone();
            let lists = request.pointer_mut(parent).unwrap();
            for name in names {
                lists.as_object_mut().unwrap().remove(*name).unwrap();
            }
            read(key, &request)
        };
        assert_eq!(changes(key, &without(&["add"]).unwrap()), ["-b"]);
        assert_eq!(changes(key, &without(&["remove"]).unwrap()), ["+a"]);
        let (add, remove) = (format!("{parent}/add"), format!("{parent}/remove"));
        let refused = Err(InvalidUpdate::NoLists(add, remove.clone()));
        assert_eq!(without(&["add", "remove"]), refused, "{key}");
        for wrong in [json!({}), json!("a"), json!(false)] {
            let mut request = whole.clone();
            *request.pointer_mut(&remove).unwrap() = wrong;
            let refused = Err(InvalidUpdate::NoList(remove.clone()));
            assert_eq!(read(key, &request), refused, "{key}");
        }
        let empty = request(key, &[], &[]).unwrap();
        let update = read(key, &empty).unwrap();
        let (segment, _) = update.segments(key).next().unwrap();
        assert_eq!(segment, format!("{key}-undefined"));
    }
}

#[test]
fn the_one_list_must_be_there() {
    for (key, list) in [
        ("amplitude", "/batch"),
        ("census-synced-segments", "/batch"),
        ("example-synced-segment-integration2", "/parameters/members"),
        ("hightouch", "/members"),
        ("segment-audiences", "/batch"),
        ("tealium-synced-segments", "/parameters/members"),
        ("zeotap", "/parameters/members"),
    ] {
        for wrong in [Value::Null, json!({}), json!("")] {
            let mut request = request(key, &["a"], &[]).unwrap();
            *request.pointer_mut(list).unwrap() = wrong;
            let refusal = read(key, &request).unwrap_err();
            // Where the cohort is that of the first member, it is missed first.
            let is_named = refusal == InvalidUpdate::NoList(list.into())
                || (list == "/batch" && matches!(refusal, InvalidUpdate::NoText(_)));
            assert!(is_named, "{key}: {refusal}");
        }
    }
}

#[test]
fn a_word_that_the_pattern_does_not_match_removes() {
    let adding: [(&str, &[&str]); 4] = [
        (
            "example-synced-segment-integration2",
            &["members", "add_members"],
        ),
        ("hightouch", &["add"]),
        ("tealium-synced-segments", &["add_member", "remove_member"]),
        ("zeotap", &["members", "add_members"]),
    ];
    let words = [
        "members",
        "add_members",
        "remove_members",
        "add_member",
        "remove_member",
        "add",
        "remove",
        "Add",
        " add",
        "add\n",
        "xadd_members",
        "add_members2",
        "0",
    ];
    for (key, adding) in adding {
        for word in words {
            let mut request = request(key, &["a"], &[]).unwrap();
            request["action"] = word.into();
            let update = read(key, &request).unwrap();
            let expected = if adding.contains(&word) { "+a" } else { "-a" };
            assert_eq!(changes(key, &update), [expected], "{key} {word:?}");
            assert_eq!(update.action.as_deref(), Some(word));
        }
    }
}

#[test]
fn a_member_may_name_a_cohort_of_its_own() {
    let member = |id: Value, name: &str, user: &str, value: bool| json!({"cohortId": id, "cohortName": name, "userId": user, "value": value});
    let request = json!({"environmentId": CLIENT_SIDE_ID, "contextKind": "account", "batch": [
        member(json!("vip"), "VIP", "a", true),
        member(json!("new"), "New", "b", true),
        member(json!(""), "", "c", false),
        member(Value::Null, "", "d", true),
        member(json!("new"), "Newer", "a", false),
    ]});
    let update = read("segment-audiences", &request).unwrap();
    let found: Vec<_> = update
        .segments("segment-audiences")
        .map(|(key, cohort)| (key, shown(cohort)))
        .collect();
    let vip = ["+a", "-c", "+d"].map(str::to_owned).to_vec();
    let new = ["+b", "-a"].map(str::to_owned).to_vec();
    assert_eq!(
        found,
        [
            ("segment-audiences-vip".to_owned(), vip),
            ("segment-audiences-new".to_owned(), new)
        ]
    );
    assert_eq!(update.cohort_ids().len(), 2);
    let mut wrong = request.clone();
    wrong["batch"][1]["cohortId"] = json!(7);
    assert_eq!(
        read("segment-audiences", &wrong),
        Err(InvalidUpdate::NoText("/batch/1/cohortId".into()))
    );
}

#[test]
fn the_manifest_that_every_sandbox_has_is_the_registered_one() {
    let built_in = Integration::zeotap();
    let registered = manifest(&built_in.key);
    assert_eq!(
        format!("{:?}", built_in.manifest),
        format!("{registered:?}")
    );
}

const PARSER: &str = "/capabilities/syncedSegment/requestParser";

/// Changes the manifest of `key`; answers what is said of it.
fn refusal(key: &str, change: impl Fn(&mut Value)) -> String {
    let mut manifest: Value = serde_json::from_str(&source(key)).unwrap();
    change(manifest.pointer_mut("/capabilities/syncedSegment").unwrap());
    parser::manifest(&manifest).unwrap_err().to_string()
}

#[test]
fn a_manifest_that_cannot_be_used_is_refused_with_a_pointer_to_what_is_wrong() {
    let without = |key: &str, pointer: &'static str| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        refusal(key, move |capability| {
            let parent = capability.pointer_mut(parent).unwrap();
            parent.as_object_mut().unwrap().remove(name).unwrap();
        })
    };
    let with = |key: &str, pointer: &'static str, value: Value| {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        refusal(key, move |capability| {
            capability.pointer_mut(parent).unwrap()[name] = value.clone();
        })
    };
    for (key, pointer) in [
        ("zeotap", "/requestParser"),
        ("zeotap", "/requestParser/environmentIdPath"),
        ("zeotap", "/requestParser/cohortIdPath"),
        ("zeotap", "/requestParser/cohortNamePath"),
        ("zeotap", "/requestParser/memberArrayPath"),
        ("zeotap", "/requestParser/arrayInclusion/path"),
        ("zeotap", "/requestParser/arrayInclusion/matcher"),
        ("zeotap", "/requestParser/memberArrayParser"),
        ("zeotap", "/requestParser/memberArrayParser/memberIdPath"),
        ("fulcrum", "/requestParser/addMemberArrayPath"),
        ("fulcrum", "/requestParser/removeMemberArrayPath"),
        (
            "amplitude",
            "/requestParser/memberArrayParser/booleanMembershipPath",
        ),
    ] {
        let said = without(key, pointer);
        let expected = format!("/capabilities/syncedSegment{pointer}: is missing");
        assert_eq!(said, expected);
    }
    for (key, pointer, value, problem) in [
        (
            "zeotap",
            "/requestParser/cohortIdPath",
            json!("id"),
            "JSON pointer",
        ),
        (
            "fulcrum",
            "/requestParser/contextKindPath",
            json!(5),
            "must be a text",
        ),
        (
            "fulcrum",
            "/requestParser/cohortUrlPath",
            json!(""),
            "must be a text",
        ),
        (
            "zeotap",
            "/requestParser/contextKindsPath",
            json!("/kind"),
            "is not known",
        ),
        (
            "zeotap",
            "/requestParser/memberArrayParser/id",
            json!("/id"),
            "is not known",
        ),
        (
            "zeotap",
            "/requestParser/arrayInclusion",
            json!([]),
            "must be an object",
        ),
        (
            "zeotap",
            "/requestParser/arrayInclusion/matcher",
            json!("("),
            "regular expression",
        ),
        (
            "zeotap",
            "/jsonResponseBody",
            json!("{{#each members}}"),
            "is not known",
        ),
        ("zeotap", "/jsonResponseBody", json!({}), "must be a text"),
    ] {
        let said = with(key, pointer, value);
        let start = format!("/capabilities/syncedSegment{pointer}: ");
        assert!(said.starts_with(&start) && said.contains(problem), "{said}");
    }
    // What has no place of its own is said of the parser.
    let said = with("zeotap", "/requestParser/addMemberArrayPath", json!("/add"));
    assert!(said.starts_with(PARSER) && said.contains("leave"), "{said}");
    let said = refusal("zeotap", |capability| {
        let parser = capability["requestParser"].as_object_mut().unwrap();
        parser.remove("memberArrayPath");
        parser.remove("arrayInclusion");
    });
    assert!(said.starts_with(PARSER) && said.contains("give"), "{said}");
    for (text, start) in [
        ("{", "not JSON: "),
        ("[]", ": must be an object"),
        ("{}", "/capabilities: is missing"),
        (
            r#"{"capabilities":{"trigger":{}}}"#,
            "/capabilities/syncedSegment: is missing",
        ),
    ] {
        let said = Manifest::read(text).unwrap_err().to_string();
        assert!(said.starts_with(start), "{said}");
    }
}

#[test]
fn a_template_is_filled_in_and_makes_json() {
    let request = json!({"environmentId": "e<1>", "none": null, "list": [{"n": 0.5}]});
    let filled = |source: &str, error_message: &str| {
        let template = Template::read(source)?;
        template.response(ResponseValues {
            request_body: &request,
            status_code: if error_message.is_empty() { 200 } else { 400 },
            error_message,
            project_key: "project",
            environment_key: "production",
            segment_key: "acme-vip",
        })
    };
    for (source, on_success, on_failure) in [
        (r#"{"a": 1}"#, json!({"a": 1}), json!({"a": 1})),
        (
            r#"{"a": "{{requestBody.environmentId}}", "b": {{ statusCode }} }"#,
            json!({"a": "e&lt;1&gt;", "b": 200}),
            json!({"a": "e&lt;1&gt;", "b": 400}),
        ),
        (
            r#"["{{{requestBody.environmentId}}}", {{requestBody.list.0.n}}, "{{no.thing}}"]"#,
            json!(["e<1>", 0.5, ""]),
            json!(["e<1>", 0.5, ""]),
        ),
        (
            r#"{ {{#if errorMessage}}"e": "{{{errorMessage}}}"{{else}}"s": "{{segmentKey}}"{{/if}} }"#,
            json!({"s": "acme-vip"}),
            json!({"e": "/cohortId's"}),
        ),
        (
            r#"[{{#if requestBody.list}}1{{#if errorMessage}},2{{/if}}{{/if}}]"#,
            json!([1]),
            json!([1, 2]),
        ),
        (
            r#"["{{projectKey}}", "{{environmentKey}}"{{#if requestBody.none}}, 3{{/if}}]"#,
            json!(["project", "production"]),
            json!(["project", "production"]),
        ),
    ] {
        assert_eq!(filled(source, ""), Ok(on_success), "{source}");
        assert_eq!(filled(source, "/cohortId's"), Ok(on_failure), "{source}");
    }
    for wrong in [
        "",
        "{",
        r#"{"a": {{statusCode}}}"#,
        r#"{"a": "{{statusCode"}"#,
        r#"{"a": "{{{errorMessage}}"}"#,
        r#"{"a": "{{lookup a b}}"}"#,
        r#"{"a": "{{}}"}"#,
        r#"{"a": 1 {{else}} }"#,
        r#"{"a": 1 {{/if}} }"#,
        r#"{"a": 1 {{#if errorMessage}} }"#,
        r#"{"a": 1 {{#if errorMessage}}{{else}}{{else}}{{/if}} }"#,
        // JSON only if the call is carried out.
        r#"{"a": 1 {{#if errorMessage}}, {{/if}} }"#,
    ] {
        assert!(Template::read(wrong).is_err(), "{wrong}");
    }
}
