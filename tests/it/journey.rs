//! The whole journey over gRPC: from the form to a flag that flips in a real SDK.

use launchdarkly_connector::{
    pb::{self, credential_check::Outcome, validate_credentials_request::Target},
    sandbox::fixtures::{CLIENT_SIDE_ID, READER_TOKEN, UNKNOWN_CLIENT_SIDE_ID, WRITER_TOKEN},
};
use launchdarkly_server_sdk::ContextBuilder;

use crate::{
    sandbox_sdk::{Mode, watch_flag},
    test_service::{ORGANIZATION, TestService, destination, soon},
};

fn unsaved(token: &str, client_side_id: &str) -> pb::ValidateCredentialsRequest {
    pb::ValidateCredentialsRequest {
        target: Some(Target::LaunchDarkly(pb::LaunchDarklyConfig {
            access_token: token.into(),
            client_side_id: client_side_id.into(),
            ..Default::default()
        })),
    }
}

#[tokio::test]
async fn a_form_becomes_a_flag_that_flips() {
    let service = TestService::start().await;
    let mut client = service.client.clone();

    // The form is drawn from this alone, and what it shows as an example is accepted by it.
    let actions = client
        .describe_actions(pb::DescribeActionsRequest::default())
        .await;
    let action = actions.unwrap().into_inner().actions.remove(0);
    assert_eq!(
        action.display_name,
        "Send Identifiers to LaunchDarkly in realtime"
    );
    let fields = action
        .destination_fields
        .iter()
        .chain(&action.activation_fields);
    for field in fields.chain(&action.mapping_fields) {
        let pattern = regex::Regex::new(&format!("^(?:{})$", field.pattern)).unwrap();
        assert!(!field.display_name.is_empty() && !field.description.is_empty());
        assert!(
            field.pattern.is_empty() || pattern.is_match(&field.placeholder),
            "{}",
            field.path
        );
    }

    // Wrong credentials name the field; right ones tell what was found.
    let checks = [
        (
            READER_TOKEN,
            CLIENT_SIDE_ID,
            2,
            "launch_darkly.access_token",
        ),
        (
            WRITER_TOKEN,
            UNKNOWN_CLIENT_SIDE_ID,
            1,
            "launch_darkly.client_side_id",
        ),
        ("api-wrong", CLIENT_SIDE_ID, 0, "launch_darkly.access_token"),
    ];
    for (token, client_side_id, failing, field) in checks {
        let answer = client
            .validate_credentials(unsaved(token, client_side_id))
            .await;
        let answer = answer.unwrap().into_inner();
        assert!(!answer.valid);
        let check = &answer.checks[failing];
        assert_eq!(
            (check.outcome(), check.field.as_str()),
            (Outcome::Failed, field)
        );
        assert!(!check.error.as_ref().unwrap().message.is_empty());
    }
    let right = client
        .validate_credentials(unsaved(WRITER_TOKEN, CLIENT_SIDE_ID))
        .await;
    let right = right.unwrap().into_inner();
    assert!(right.valid);
    assert_eq!(right.facts.unwrap().environment_key, "production");

    // Created, and found again by its name; the token does not come back.
    let name = service.create("launchdarkly").await;
    let found = client.list_destinations(pb::ListDestinationsRequest {
        parent: ORGANIZATION.into(),
        filter: r#"display_name:"PRODUCTION""#.into(),
        ..Default::default()
    });
    let found = found.await.unwrap().into_inner().destinations.remove(0);
    assert_eq!(found.name, name);
    let Some(pb::destination::Config::LaunchDarkly(config)) = found.config else {
        panic!()
    };
    assert_eq!(
        (
            config.access_token.as_str(),
            config.obfuscated_access_token.as_str()
        ),
        ("", "0001")
    );
    let stored = pb::ValidateCredentialsRequest {
        target: Some(Target::Name(name.clone())),
    };
    assert!(
        client
            .validate_credentials(stored)
            .await
            .unwrap()
            .into_inner()
            .valid
    );

    // The journey runs, and LaunchDarkly's own SDK sees the flag flip and flip back.
    let ann = ContextBuilder::new("ann").build().unwrap();
    let mut flag = watch_flag(service.sandbox_url.clone(), Mode::Streaming, ann);
    assert_eq!(soon("the SDK starts", flag.recv()).await, Some(false));
    let mut stream = service.open(&name).await;
    stream.add(&["ann", "bob"]).await;
    stream.committed(2).await;
    assert_eq!(soon("the flag turns true", flag.recv()).await, Some(true));
    stream.remove(&["ann"]).await;
    stream.committed(3).await;
    assert_eq!(soon("the flag turns false", flag.recv()).await, Some(false));
    stream.finish().await.1.unwrap();
    assert_eq!(service.members(), ["bob"]);
}

#[tokio::test]
async fn a_dead_launchdarkly_is_unavailable_and_no_verdict_on_the_credentials() {
    let service = TestService::start_with(|settings| {
        // Nobody listens on the discard port.
        settings.launchdarkly.url = Some("http://127.0.0.1:9".parse().unwrap());
    })
    .await;
    let mut client = service.client.clone();
    let answer = client
        .validate_credentials(unsaved(WRITER_TOKEN, CLIENT_SIDE_ID))
        .await;
    let status = answer.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    assert_eq!(
        crate::test_service::reason(&status),
        "DESTINATION_UNAVAILABLE"
    );
}

#[tokio::test]
async fn a_request_id_makes_a_retry_safe_across_a_restart() {
    let service = TestService::start().await;
    let request = pb::CreateDestinationRequest {
        parent: ORGANIZATION.into(),
        destination: Some(destination(WRITER_TOKEN)),
        request_id: "5f0c1a3e-8f6b-4c47-9d53-2f1d5a4f7b10".into(),
        ..Default::default()
    };
    let mut client = service.client.clone();
    let first = client
        .create_destination(request.clone())
        .await
        .unwrap()
        .into_inner();
    let service = service.restart().await;
    let mut client = service.client.clone();
    let again = client
        .create_destination(request.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, first);
    let other = pb::CreateDestinationRequest {
        destination_id: "other".into(),
        ..request
    };
    let refused = client.create_destination(other).await.unwrap_err();
    assert_eq!(crate::test_service::reason(&refused), "REQUEST_ID_REUSED");
}
