use std::{fs, path::Path, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    domain::{ContextKey, ContextKind, Member, Operation, SegmentId, SegmentRef},
    launchdarkly::testing::{connection, zeotap},
};

/// Every key under which LaunchDarkly has registered an integration with synced segments.
const REGISTERED: [&str; 12] = [
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

fn registered(key: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    let manifest = fs::read(root.join(format!("{key}.json"))).unwrap();
    serde_json::from_slice(&manifest).unwrap()
}

fn shape(manifest: &Value) -> Result<RequestShape, ManifestError> {
    RequestShape::from_manifest(manifest.to_string().as_bytes())
}

fn integration(manifest: &Value) -> Integration {
    Integration::new("any", shape(manifest).unwrap()).unwrap()
}

/// A manifest with this request parser.
fn manifest(parser: &Value) -> Value {
    json!({"capabilities": {"syncedSegment": {"requestParser": parser}}})
}

fn call(kind: &str, members: &[(&str, Operation)]) -> SegmentCall {
    let id = SegmentId::new("vip").unwrap();
    let kind = ContextKind::new(kind).unwrap();
    SegmentCall {
        connection: Arc::new(connection("api-x", "5a01")),
        segment: SegmentRef::new(id, kind, "VIP \"gold\"").unwrap(),
        members: members
            .iter()
            .map(|(key, operation)| Member {
                key: ContextKey::new(key).unwrap(),
                operation: *operation,
            })
            .collect(),
    }
}

/// What is read from a request: which changes, in which segment of which environment.
#[derive(Debug, PartialEq, Eq)]
struct Reading {
    environment: String,
    kind: String,
    /// Key, segment ID, segment name, and whether it enters.
    members: Vec<(String, String, String, bool)>,
}

impl Reading {
    /// What a call means.
    fn meant(call: &SegmentCall) -> Self {
        let segment = &call.segment;
        let member = |member: &Member| {
            let (id, name) = (segment.id.to_string(), segment.name().to_owned());
            let enters = member.operation == Operation::Add;
            (member.key.as_str().to_owned(), id, name, enters)
        };
        let mut members: Vec<_> = call.members.iter().map(member).collect();
        members.sort();
        Self {
            environment: call.connection.client_side_id.as_str().to_owned(),
            kind: segment.kind.to_string(),
            members,
        }
    }

    /// Reads a request by its manifest, as LaunchDarkly does: it shares nothing with the template.
    fn read(manifest: &Value, request: &Value) -> Self {
        let parser = &manifest["capabilities"]["syncedSegment"]["requestParser"];
        let member_parser = &parser["memberArrayParser"];
        let at = |value: &Value, pointer: &Value| -> Option<Value> {
            value.pointer(pointer.as_str()?).cloned()
        };
        let text = |value: &Value, pointer: &Value| -> Option<String> {
            let text = at(value, pointer)?.as_str().unwrap().to_owned();
            assert!(!text.is_empty());
            Some(text)
        };
        let listed = |pointer: &Value| -> Vec<Value> {
            let list = at(request, pointer).expect("a list");
            list.as_array().unwrap().clone()
        };
        let mut found = Vec::new();
        if let Some(word) = text(request, &parser["arrayInclusion"]["path"]) {
            let matcher = parser["arrayInclusion"]["matcher"].as_str().unwrap();
            let adds = regex::Regex::new(matcher).unwrap().is_match(&word);
            let all = listed(&parser["memberArrayPath"]);
            found.extend(all.into_iter().map(|each| (each, adds)));
        } else if parser["memberArrayPath"].is_string() {
            for each in listed(&parser["memberArrayPath"]) {
                let boolean = at(&each, &member_parser["booleanMembershipPath"]).unwrap();
                found.push((each, boolean.as_bool().unwrap()));
            }
        }
        for (pointer, adds) in [
            ("addMemberArrayPath", true),
            ("removeMemberArrayPath", false),
        ] {
            if parser[pointer].is_string() {
                let all = listed(&parser[pointer]);
                found.extend(all.into_iter().map(|each| (each, adds)));
            }
        }
        let of_member = |each: &Value, field: &str| {
            let own = text(each, &member_parser[field]);
            own.or_else(|| text(request, &parser[field])).unwrap()
        };
        let member = |(each, adds): (Value, bool)| {
            let key = text(&each, &member_parser["memberIdPath"]).unwrap();
            let id = of_member(&each, "cohortIdPath");
            (key, id, of_member(&each, "cohortNamePath"), adds)
        };
        let mut members: Vec<_> = found.into_iter().map(member).collect();
        members.sort();
        // What is named for the whole request is read too, and refused if it is missing.
        for field in ["cohortIdPath", "cohortNamePath"] {
            assert!(!parser[field].is_string() || text(request, &parser[field]).is_some());
        }
        Self {
            environment: text(request, &parser["environmentIdPath"]).unwrap(),
            kind: text(request, &parser["contextKindPath"]).unwrap_or("user".into()),
            members,
        }
    }
}

/// Writes a call and reads it back.
fn read_back(manifest: &Value, call: &SegmentCall) -> Reading {
    let body = integration(manifest).body(call).unwrap();
    Reading::read(manifest, &serde_json::from_slice(&body).unwrap())
}

#[test]
fn zeotaps_requests_are_these_bytes() {
    let members = [("u-1", Operation::Add), ("é\"2", Operation::Add)];
    let body = zeotap().body(&call("user", &members)).unwrap();
    assert_eq!(
        str::from_utf8(&body).unwrap(),
        r#"{"action":"add_members","parameters":{"integration_project_id":"5a01","integration_cohort_id":"vip","integration_cohort_name":"VIP \"gold\"","members":[{"integration_distinct_id":"u-1"},{"integration_distinct_id":"é\"2"}]}}"#
    );
    let body = zeotap()
        .body(&call("user", &[("u-1", Operation::Remove)]))
        .unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["action"], "remove_members");
}

#[test]
fn the_manifest_that_is_built_in_is_the_registered_one() {
    let registered = shape(&registered("zeotap")).unwrap();
    assert_eq!(zeotap().requests.template, registered.template);
}

#[test]
fn every_registered_integration_reads_what_was_meant() {
    for key in REGISTERED {
        let manifest = registered(key);
        let integration = integration(&manifest);
        let kinds: &[&str] = match integration.names_context_kind() {
            true => &["user", "account"],
            false => &["user"],
        };
        for kind in kinds {
            for operation in [Operation::Add, Operation::Remove] {
                let call = call(kind, &[("u-1", operation), ("u-2", operation)]);
                assert_eq!(read_back(&manifest, &call), Reading::meant(&call), "{key}");
            }
            let both = call(kind, &[("u-1", Operation::Add), ("u-2", Operation::Remove)]);
            match integration.operations() {
                OperationsPerCall::One => assert_eq!(integration.body(&both), None, "{key}"),
                OperationsPerCall::Mixed => {
                    assert_eq!(read_back(&manifest, &both), Reading::meant(&both), "{key}");
                }
            }
        }
    }
}

#[test]
fn a_call_that_no_request_can_say_is_not_written() {
    let zeotap = zeotap();
    assert_eq!(zeotap.body(&call("user", &[])), None);
    assert_eq!(
        zeotap.body(&call("account", &[("u", Operation::Add)])),
        None
    );
}

#[test]
fn an_integration_key_that_would_change_the_route_is_refused() {
    for key in ["", "../tokens", "a/b", "a?b", "a b"] {
        assert!(Integration::check_key(key).is_err(), "{key:?}");
    }
}

/// A manifest that names all of one way to say who enters.
fn whole() -> Value {
    json!({
        "environmentIdPath": "/env",
        "cohortIdPath": "/id",
        "cohortNamePath": "/name",
        "contextKindPath": "/kind",
        "memberArrayPath": "/members",
        "arrayInclusion": {"path": "/action", "matcher": "^add$"},
        "memberArrayParser": {"memberIdPath": "/key"},
    })
}

#[test]
fn a_manifest_that_cannot_be_used_is_refused_with_its_place() {
    let with = |changes: &[(&str, Value)]| {
        let mut parser = whole();
        for (field, value) in changes {
            let (parent, name) = field.rsplit_once('/').unwrap_or(("", field));
            let parent = if parent.is_empty() {
                "".to_owned()
            } else {
                format!("/{parent}")
            };
            parser.pointer_mut(&parent).unwrap()[name] = value.clone();
        }
        parser
    };
    let null = || Value::Null;
    let lists = [("memberArrayPath", null()), ("arrayInclusion", null())];
    let one_list = |list| with(&[&lists[..], &[(list, json!("/list"))]].concat());
    assert!(shape(&manifest(&whole())).is_ok());
    for (parser, field, says) in [
        (
            with(&[("environmentIdPath", null())]),
            "environmentIdPath",
            "is missing",
        ),
        (
            with(&[("environmentIdPath", json!(5))]),
            "environmentIdPath",
            "must be a text",
        ),
        (
            with(&[("environmentIdPath", json!("env"))]),
            "environmentIdPath",
            "no JSON pointer",
        ),
        (
            with(&[("cohortIdPath", null())]),
            "cohortIdPath",
            "is missing",
        ),
        (
            with(&[("cohortNamePath", json!("/id"))]),
            "cohortNamePath",
            "has the place of cohortIdPath",
        ),
        (
            with(&[("cohortNamePath", json!("/id/name"))]),
            "cohortNamePath",
            "has the place of cohortIdPath",
        ),
        (
            with(&[
                ("cohortIdPath", json!("/x/id")),
                ("cohortNamePath", json!("/x")),
            ]),
            "cohortNamePath",
            "has the place of cohortIdPath",
        ),
        (
            with(&[("memberArrayPath", json!("/env"))]),
            "memberArrayPath",
            "has the place of environmentIdPath",
        ),
        (
            with(&[("cohortIdPath", json!("/members/1/id"))]),
            "cohortIdPath",
            "leads into memberArrayPath",
        ),
        (
            with(&[("cohortIdPath", json!("/members/0/key"))]),
            "cohortIdPath",
            "has the place of memberArrayParser/memberIdPath",
        ),
        (
            with(&[("memberArrayPath", null())]),
            "memberArrayPath",
            "is missing",
        ),
        (
            with(&[("memberArrayParser", null())]),
            "memberArrayParser/memberIdPath",
            "is missing",
        ),
        (
            with(&[("memberArrayParser", json!("/key"))]),
            "memberArrayParser",
            "must be an object",
        ),
        (
            with(&[("arrayInclusion", null())]),
            "memberArrayParser/booleanMembershipPath",
            "a member leaves",
        ),
        (
            with(&[("arrayInclusion/path", null())]),
            "arrayInclusion/path",
            "is missing",
        ),
        (
            with(&[("arrayInclusion/matcher", null())]),
            "arrayInclusion/matcher",
            "is missing",
        ),
        (
            with(&[("arrayInclusion/matcher", json!("("))]),
            "arrayInclusion/matcher",
            "no regular expression",
        ),
        (
            with(&[("arrayInclusion/matcher", json!("^$"))]),
            "arrayInclusion/matcher",
            "nothing could be added",
        ),
        (
            with(&[("arrayInclusion/matcher", json!(".*"))]),
            "arrayInclusion/matcher",
            "nothing could be removed",
        ),
        (
            with(&[("memberArrayParser/booleanMembershipPath", json!("/in"))]),
            "memberArrayParser/booleanMembershipPath",
            "in another way than arrayInclusion/path",
        ),
        (
            with(&[("addMemberArrayPath", json!("/add"))]),
            "addMemberArrayPath",
            "in another way than arrayInclusion/path",
        ),
        (
            one_list("addMemberArrayPath"),
            "removeMemberArrayPath",
            "a member leaves",
        ),
        (
            one_list("removeMemberArrayPath"),
            "addMemberArrayPath",
            "a member enters",
        ),
        (with(&lists), "memberArrayPath", "is missing"),
    ] {
        let refused = shape(&manifest(&parser)).unwrap_err().to_string();
        let place = format!("/capabilities/syncedSegment/requestParser/{field}: ");
        assert!(
            refused.starts_with(&place) && refused.contains(says),
            "{parser}: {refused}"
        );
    }
}

#[test]
fn a_file_that_is_no_manifest_is_refused() {
    for (file, says) in [
        ("", "line 1, column 0: this is no JSON"),
        ("{\n,}", "line 2, column 1: this is no JSON"),
        (
            "{}",
            "/capabilities/syncedSegment/requestParser: is missing",
        ),
        (
            "[]",
            "/capabilities/syncedSegment/requestParser: is missing",
        ),
        (
            r#"{"capabilities":{"syncedSegment":{"requestParser":[]}}}"#,
            "/capabilities/syncedSegment/requestParser: must be an object",
        ),
    ] {
        let refused = RequestShape::from_manifest(file.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(refused.starts_with(says), "{file}: {refused}");
    }
}

/// Pointers that often share a prefix, lead through arrays, and hold what must be escaped.
fn pointer() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a", "b", "0", "1", "2", "01", "+1", "~0x", "y~1z", "", "\"q", "é",
    ]);
    prop::collection::vec(token, 1..4).prop_map(|tokens| format!("/{}", tokens.join("/")))
}

/// Manifests of every registered form.
fn manifests() -> impl Strategy<Value = Value> {
    let matcher = prop::sample::select(vec!["^add$", "^(in|add_x)$", "^(add_a|remove_a)$", "join"]);
    let form = prop_oneof![
        (pointer(), matcher).prop_map(|(path, matcher)| {
            json!({"memberArrayPath": "/a/m", "arrayInclusion": {"path": path, "matcher": matcher}})
        }),
        pointer().prop_map(|path| {
            json!({"memberArrayPath": "/a/m", "memberArrayParser": {"booleanMembershipPath": path}})
        }),
        (pointer(), pointer()).prop_map(
            |(add, remove)| json!({"addMemberArrayPath": add, "removeMemberArrayPath": remove})
        ),
    ];
    let of_member = (
        prop::option::of(pointer()),
        prop::option::of(pointer()),
        pointer(),
    );
    let of_request = (pointer(), pointer(), pointer(), prop::option::of(pointer()));
    // Into the list of members, as some have it.
    let into_list = prop::option::of((pointer(), pointer()));
    (
        form,
        of_request,
        of_member,
        into_list,
        prop::option::of(pointer()),
    )
        .prop_map(
            |(
                mut parser,
                (environment, id, name, kind),
                (own_id, own_name, key),
                into_list,
                list,
            )| {
                let into_list = into_list.filter(|_| parser["memberArrayPath"].is_string());
                if let (Some(list), true) = (list, parser["memberArrayPath"].is_string()) {
                    parser["memberArrayPath"] = json!(list);
                }
                let list = parser["memberArrayPath"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                parser["environmentIdPath"] = json!(environment);
                parser["contextKindPath"] = json!(kind);
                let member = &mut parser["memberArrayParser"];
                member["memberIdPath"] = json!(key);
                member["cohortIdPath"] = json!(own_id);
                member["cohortNamePath"] = json!(own_name);
                let (id, name) = match into_list {
                    Some((id, name)) => {
                        let own = |own: Option<String>, other| {
                            format!("{list}/0{}", own.unwrap_or(other))
                        };
                        (own(own_id, id), own(own_name, name))
                    }
                    None => (id, name),
                };
                parser["cohortIdPath"] = json!(id);
                parser["cohortNamePath"] = json!(name);
                manifest(&parser)
            },
        )
}

fn members() -> impl Strategy<Value = Vec<(String, Operation)>> {
    let operation = prop_oneof![Just(Operation::Add), Just(Operation::Remove)];
    prop::collection::btree_map("[a-z\"\\\\é/😀]{1,4}", operation, 1..6)
        .prop_map(|members| members.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, max_global_rejects: 200_000, ..ProptestConfig::default() })]

    /// Whatever is registered: what the manifest finds in a request is what was meant.
    #[test]
    fn a_request_says_what_was_meant_and_nothing_more(
        manifest in manifests(),
        members in members(),
        of_account in any::<bool>(),
    ) {
        // Places that exclude each other are refused; a test above says how.
        let shape = shape(&manifest);
        prop_assume!(shape.is_ok());
        let integration = Integration::new("any", shape.unwrap()).unwrap();
        let first = members[0].1;
        let one = integration.operations() == OperationsPerCall::One;
        let members: Vec<_> = members
            .iter()
            .map(|(key, operation)| (key.as_str(), if one { first } else { *operation }))
            .collect();
        let kind = if of_account && integration.names_context_kind() { "account" } else { "user" };
        let call = call(kind, &members);
        let body = integration.body(&call).unwrap();
        prop_assert_eq!(integration.body(&call), Some(body.clone()));
        let request = serde_json::from_slice(&body).unwrap();
        prop_assert_eq!(Reading::read(&manifest, &request), Reading::meant(&call));
    }
}
