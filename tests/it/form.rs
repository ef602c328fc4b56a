//! What forms are told of a field is what is checked of it: by the calls that create, update and
//! check destinations, and in the same words.

use launchdarkly_connector::{
    pb::{
        self, credential_check::Outcome, destination::Config, validate_credentials_request::Target,
    },
    sandbox::fixtures::{CLIENT_SIDE_ID, WRITER_TOKEN},
};
use proptest::{
    prelude::*,
    test_runner::{Config as Runs, TestRunner},
};
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::test_service::{Client, ORGANIZATION, TestService, destination};

const TOKEN: &str = "launch_darkly.access_token";
const CLIENT_ID: &str = "launch_darkly.client_side_id";

/// What is wrong with a value, in the words of one call; none if it is taken.
type Verdict = Option<String>;

/// The settings of a destination, sound but for one field.
fn settings(field: &str, value: &str) -> pb::LaunchDarklyConfig {
    let value_of = |name: &str, sound: &str| (if name == field { value } else { sound }).to_owned();
    pb::LaunchDarklyConfig {
        access_token: value_of(TOKEN, WRITER_TOKEN),
        client_side_id: value_of(CLIENT_ID, CLIENT_SIDE_ID),
        ..Default::default()
    }
}

fn with(field: &str, value: &str) -> pb::Destination {
    pb::Destination {
        config: Some(Config::LaunchDarkly(settings(field, value))),
        ..destination(WRITER_TOKEN)
    }
}

fn verdict<T>(field: &str, answer: Result<T, Status>) -> Verdict {
    let status = answer.err()?;
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "INVALID_FIELD");
    let violations = &details.bad_request().unwrap().field_violations;
    assert_eq!(violations.len(), 1);
    assert_eq!(violations[0].field, format!("destination.{field}"));
    Some(violations[0].description.clone())
}

async fn created(client: &mut Client, field: &str, value: &str) -> Verdict {
    let request = pb::CreateDestinationRequest {
        parent: ORGANIZATION.into(),
        destination: Some(with(field, value)),
        validate_only: true,
        ..Default::default()
    };
    verdict(field, client.create_destination(request).await)
}

async fn updated(client: &mut Client, name: &str, field: &str, value: &str) -> Verdict {
    let request = pb::UpdateDestinationRequest {
        destination: Some(pb::Destination {
            name: name.into(),
            ..with(field, value)
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec![field.into()],
        }),
        validate_only: true,
        ..Default::default()
    };
    verdict(field, client.update_destination(request).await)
}

/// Why the check of credentials refuses a value, and in which words.
async fn checked(client: &mut Client, field: &str, value: &str) -> Option<(String, String)> {
    use tonic_types::RpcStatusExt;
    let request = pb::ValidateCredentialsRequest {
        target: Some(Target::LaunchDarkly(settings(field, value))),
    };
    let report = client.validate_credentials(request).await.unwrap();
    let mut checks = report.into_inner().checks.into_iter();
    let check = checks.find(|check| check.field == field).unwrap();
    let error = check.error.clone()?;
    assert_eq!(check.outcome(), Outcome::Failed);
    let reason = error.get_details_error_info().unwrap().reason;
    Some((reason, error.message))
}

async fn published(client: &mut Client, field: &str) -> pb::ActionField {
    let request = pb::DescribeActionsRequest::default();
    let described = client.describe_actions(request).await.unwrap();
    let actions = described.into_inner().actions;
    let fields = actions
        .into_iter()
        .flat_map(|action| action.destination_fields);
    fields.into_iter().find(|f| f.path == field).unwrap()
}

/// Whether a form takes a value that knows nothing but what is published.
fn form_takes(field: &pb::ActionField, value: &str) -> bool {
    let pattern = regex::Regex::new(&format!("^(?:{})$", field.pattern)).unwrap();
    let longest = usize::try_from(field.max_length).unwrap();
    pattern.is_match(value) && value.chars().count() <= longest
}

/// A message's field by its path, as JSON would have it.
fn value_at(destination: &pb::Destination, path: &str) -> Option<Value> {
    let pool = DescriptorPool::decode(pb::DESCRIPTOR_SET).unwrap();
    let kind = pool.get_message_by_name("cdp.destinations.v1.Destination");
    let mut message = DynamicMessage::new(kind.unwrap());
    message.transcode_from(destination).unwrap();
    let mut value = Value::Message(message);
    for name in path.split('.') {
        let field = value.as_message().unwrap().clone();
        let found = field.get_field_by_name(name)?;
        value = found.into_owned();
    }
    Some(value)
}

/// The schema of an action, its masks and what is sent back agree: a field that is added to one is
/// added to all.
#[tokio::test]
async fn every_field_of_a_form_can_be_updated_and_is_sent_back_unless_it_is_secret() {
    let service = TestService::start().await;
    let mut client = service.client.clone();
    let name = format!("{ORGANIZATION}/destinations/vip");
    let create = pb::CreateDestinationRequest {
        parent: ORGANIZATION.into(),
        destination_id: "vip".into(),
        destination: Some(destination(WRITER_TOKEN)),
        ..Default::default()
    };
    let created = client.create_destination(create).await.unwrap();
    let created = created.into_inner();
    let request = pb::DescribeActionsRequest::default();
    let described = client.describe_actions(request).await.unwrap();
    let actions = described.into_inner().actions;
    for field in actions.into_iter().flat_map(|a| a.destination_fields) {
        let path = &field.path;
        let refused = updated(&mut client, &name, path, "x").await;
        let is_mask = refused.is_none_or(|words| !words.contains("cannot be updated"));
        assert!(is_mask, "{path}");
        let value = value_at(&created, path).unwrap_or_else(|| panic!("{path} is no field"));
        let is_secret = field.r#type() == pb::action_field::Type::Secret;
        let nothing = matches!(&value, Value::String(text) if text.is_empty());
        assert_eq!(nothing, is_secret, "{path}: {value}");
    }
}

/// What people paste around a value.
const BEFORE: &[&str] = &[
    "",
    "api-",
    "sdk-",
    "mob-",
    "sdk",
    "m",
    "Bearer ",
    "Authorization: ",
    "\"",
    "“",
    " ",
];
const BEHIND: &[&str] = &["", "\"", "'", "\n", " ", "\u{200b}", "\u{a0}"];

fn pasted() -> impl Strategy<Value = String> {
    let middle = prop_oneof![
        3 => "[a-f0-9]{0,24}",
        2 => "[a-z0-9_\\-]{1,12}",
        1 => "[!-~]{0,8}",
        1 => "\\PC{0,6}",
        1 => "(a|é|😀){60,68}",
        1 => "a{505,515}",
    ];
    let one_of = prop::sample::select::<&str>;
    (one_of(BEFORE), middle, one_of(BEHIND))
        .prop_map(|(before, middle, behind)| format!("{before}{middle}{behind}"))
}

#[test]
fn a_value_is_taken_exactly_when_what_is_published_takes_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = runtime.block_on(TestService::start());
    let mut client = service.client.clone();
    let name = runtime.block_on(service.create("vip"));
    for path in [TOKEN, CLIENT_ID] {
        let field = runtime.block_on(published(&mut client, path));
        let mut runner = TestRunner::new(Runs::with_cases(200));
        let run = runner.run(&pasted(), |value| {
            let mut client = client.clone();
            let (created, updated) = runtime.block_on(async {
                let created = created(&mut client, path, &value).await;
                (created, updated(&mut client, &name, path, &value).await)
            });
            prop_assert_eq!(created.is_none(), form_takes(&field, &value));
            prop_assert_eq!(&created, &updated);
            if let Some(words) = created {
                let checked = runtime.block_on(checked(&mut client, path, &value));
                prop_assert_eq!(checked.map(|(_, message)| message), Some(words));
            }
            Ok(())
        });
        run.unwrap();
    }
}

#[tokio::test]
async fn what_people_paste_by_mistake_is_named_alike_by_every_call() {
    let service = TestService::start().await;
    let mut client = service.client.clone();
    let name = service.create("vip").await;
    let long = "a".repeat(600);
    for (field, value, reason) in [
        (TOKEN, "", "TOKEN_EMPTY"),
        (TOKEN, "Bearer api-0001", "TOKEN_HAS_SCHEME"),
        (TOKEN, "\"api-0001\"", "TOKEN_IS_QUOTED"),
        (TOKEN, "'api-0001'", "TOKEN_IS_QUOTED"),
        (TOKEN, "sdk-0001", "TOKEN_IS_SDK_KEY"),
        (TOKEN, "mob-0001", "TOKEN_IS_MOBILE_KEY"),
        (TOKEN, "api-0001\n", "TOKEN_HAS_WHITE_SPACE"),
        (TOKEN, "api-\u{200b}0001", "TOKEN_HAS_ILLEGAL_CHARACTERS"),
        (TOKEN, &long, "TOKEN_TOO_LONG"),
        (CLIENT_ID, "", "CLIENT_SIDE_ID_EMPTY"),
        (
            CLIENT_ID,
            "65f0a000-0000-0000-0000-000000000000",
            "CLIENT_SIDE_ID_HAS_DASH",
        ),
        (CLIENT_ID, "my-project", "CLIENT_SIDE_ID_HAS_DASH"),
        (CLIENT_ID, "sdk-0001", "CLIENT_SIDE_ID_IS_SDK_KEY"),
        (CLIENT_ID, "mob-0001", "CLIENT_SIDE_ID_IS_MOBILE_KEY"),
        (CLIENT_ID, "api-0001", "CLIENT_SIDE_ID_IS_ACCESS_TOKEN"),
        (CLIENT_ID, "\"65f0a000\"", "CLIENT_SIDE_ID_IS_QUOTED"),
        (CLIENT_ID, &long, "CLIENT_SIDE_ID_TOO_LONG"),
    ] {
        let (found, words) = checked(&mut client, field, value).await.unwrap();
        assert_eq!(found, reason, "{value}");
        assert_eq!(
            created(&mut client, field, value).await.as_ref(),
            Some(&words)
        );
        let updated = updated(&mut client, &name, field, value).await;
        assert_eq!(updated, Some(words), "{value}");
    }
}
