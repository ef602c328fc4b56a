use std::time::{Duration, SystemTime};

use tonic_types::RpcStatusExt;

use super::*;
use crate::{
    domain::{
        CONTEXT_KEY_FIELD, Choice, ClientSideId, DestinationUid, DisplayName, Finding, Mapping,
        Pattern, Revision,
    },
    secret::AccessToken,
    server::check,
};

fn stored() -> Destination {
    let mapping = FieldMapping {
        field: CONTEXT_KEY_FIELD.into(),
        sources: ["user_id".to_owned(), "email".to_owned()].into(),
        transforms: vec![
            Transform::Nfc,
            Transform::Trim,
            Transform::Lowercase,
            Transform::Sha256Hex,
        ],
    };
    Destination {
        name: "organizations/acme/destinations/vip".parse().unwrap(),
        uid: DestinationUid::generate(),
        display_name: DisplayName::new("VIP").unwrap(),
        action: "send-identifiers".into(),
        connection: Connection {
            access_token: AccessToken::new("api-canary-1234".into()),
            client_side_id: ClientSideId::new("5f0c".into()),
            instance: Instance::Federal,
        },
        mapping: Mapping::check(vec![mapping]).unwrap(),
        state: DestinationState::CredentialsRejected,
        create_time: SystemTime::UNIX_EPOCH + Duration::from_micros(1_000_001),
        update_time: SystemTime::UNIX_EPOCH + Duration::from_secs(2),
        revision: Revision(3),
    }
}

#[test]
fn a_destination_goes_out_whole_but_for_its_token() {
    let stored = stored();
    let out = destination(&stored);
    assert!(!format!("{out:?}").contains("canary"));
    let times = [out.create_time.unwrap(), out.update_time.unwrap()];
    assert_eq!(times.map(|t| (t.seconds, t.nanos)), [(1, 1_000), (2, 0)]);
    let Some(pb::destination::Config::LaunchDarkly(config)) = &out.config else {
        panic!("no config")
    };
    assert_eq!(config.access_token, "");
    assert_eq!(config.obfuscated_access_token, "1234");
    assert_eq!(config.client_side_id, "5f0c");
    assert_eq!(
        config.instance(),
        pb::launch_darkly_config::Instance::Federal
    );
    assert_eq!(out.state(), pb::destination::State::CredentialsRejected);
    assert_eq!(out.etag, stored.etag().0);
    assert_eq!(out.uid, stored.uid.to_string());
    assert_eq!(
        (
            out.name.as_str(),
            out.display_name.as_str(),
            out.action.as_str()
        ),
        (
            "organizations/acme/destinations/vip",
            "VIP",
            "send-identifiers"
        )
    );
    let back = check::all(|v| check::mapping(out.field_mappings, "m", v)).unwrap();
    assert_eq!(back, stored.mapping);
}

#[test]
fn an_action_goes_out_with_all_it_takes_to_draw_a_form() {
    let field = ActionField {
        path: "launch_darkly.instance",
        display_name: "Instance",
        description: "where",
        kind: FieldType::Choice(vec![Choice {
            value: "INSTANCE_EU",
            display_name: "EU",
        }]),
        required: true,
        pattern: Some(Pattern::new("^x$")),
        max_length: 9,
        remedy: |_| "write x".to_owned(),
        placeholder: "x",
        default_value: "y",
        help_uri: "https://example.org",
    };
    let out = action(&Action {
        id: "send",
        display_name: "Send",
        description: "Sends.",
        destination_fields: vec![field.clone()],
        mapping_fields: vec![],
        activation_fields: vec![ActionField {
            kind: FieldType::Secret,
            ..field
        }],
        operations: vec![Operation::Add, Operation::Remove],
    });
    assert_eq!(out.operations, [1, 2]);
    assert_eq!(
        out.activation_fields[0].r#type(),
        pb::action_field::Type::Secret
    );
    let drawn = &out.destination_fields[0];
    assert_eq!(drawn.r#type(), pb::action_field::Type::Choice);
    assert_eq!(drawn.choices[0].value, "INSTANCE_EU");
    assert_eq!(
        (drawn.required, drawn.max_length, drawn.pattern.as_str()),
        (true, 9, "^x$")
    );
}

#[test]
fn a_report_is_valid_as_long_as_nothing_failed() {
    let finding = Finding {
        reason: "ROLE_UNKNOWN",
        message: "the token has a custom role".into(),
    };
    let check = |kind, outcome| Check {
        kind,
        outcome,
        field: "launch_darkly.access_token",
    };
    let of = |outcome| {
        report(CredentialReport {
            checks: vec![
                check(CheckKind::AccessToken, CheckOutcome::Passed),
                check(CheckKind::WritePermission, outcome),
            ],
            facts: CredentialFacts {
                account_id: Some("a-1".into()),
                service_token: Some(true),
                ..CredentialFacts::default()
            },
        })
    };
    let unknown = of(CheckOutcome::Unknown(finding.clone()));
    assert!(unknown.valid);
    assert_eq!(unknown.checks[0].error, None);
    let error = unknown.checks[1].error.as_ref().unwrap();
    assert_eq!(
        error.get_details_error_info().unwrap().reason,
        "ROLE_UNKNOWN"
    );
    let facts = unknown.facts.unwrap();
    assert_eq!(
        (facts.account_id.as_str(), facts.service_token),
        ("a-1", true)
    );
    let failed = of(CheckOutcome::Failed(finding));
    assert!(!failed.valid);
    assert_eq!(
        failed.checks[1].outcome(),
        pb::credential_check::Outcome::Failed
    );
    assert!(of(CheckOutcome::Skipped).valid);
}

#[test]
fn the_transforms_of_the_contract_are_those_of_the_domain() {
    use pb::field_mapping::Transform as Pb;
    let numbers = 1..=i32::try_from(Transform::ALL.len() + 1).unwrap();
    let contract = numbers.filter_map(|number| Pb::try_from(number).ok());
    let contract: Vec<_> = contract.map(|each| each.as_str_name()).collect();
    let domain: Vec<_> = Transform::ALL
        .iter()
        .map(|each| each.contract_name())
        .collect();
    assert_eq!(contract, domain);
}
