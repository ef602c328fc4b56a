//! The service as each integration that is registered with LaunchDarkly, and context kinds.

use std::fs;

use launchdarkly_connector::{
    pb::{self, identifier_record::Operation},
    sandbox::fixtures::CLIENT_SIDE_ID,
};
use launchdarkly_server_sdk::ContextBuilder;
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    sandbox_sdk::{Mode, watch_flag},
    test_service::{TestService, manifest_file, open, record, soon},
};

/// Of which the sandbox has a flag for the segment `vip`, and whose manifest can name a context kind.
const NAMES_KINDS: &str = "rudderstack";

/// What each integration's requests can say: context kinds; additions beside removals.
const REGISTERED: [(&str, bool, bool); 12] = [
    ("amplitude", false, true),
    ("census-synced-segments", true, true),
    ("example-synced-segment-integration1", false, true),
    ("example-synced-segment-integration2", true, false),
    ("fulcrum", true, true),
    ("heap-inbound", false, true),
    ("hightouch", true, false),
    ("rudderstack", true, true),
    ("segment-audiences", true, true),
    ("sumatra-synced-segments", true, true),
    ("tealium-synced-segments", false, false),
    ("zeotap", false, false),
];

fn of_kind(destination: &str, kind: &str) -> pb::OpenStream {
    let mut open = open(destination);
    open.activation.as_mut().unwrap().context_kind = kind.into();
    open
}

async fn activation_fields(service: &TestService) -> Vec<String> {
    let asked = pb::DescribeActionsRequest::default();
    let described = service.client.clone().describe_actions(asked).await;
    let action = described.unwrap().into_inner().actions.remove(0);
    let fields = action.activation_fields.into_iter();
    fields.map(|field| field.path).collect()
}

#[tokio::test]
async fn every_registered_integration_delivers_what_was_meant() {
    let files = fs::read_dir(manifest_file("any").parent().unwrap()).unwrap();
    assert_eq!(files.count(), REGISTERED.len(), "a manifest is not tested");
    for (integration, names_kinds, mixes) in REGISTERED {
        let service = TestService::start_as(integration).await;
        let name = service.create("vip").await;
        let kind = if names_kinds { "account" } else { "user" };
        let segment = format!("{integration}-vip");

        let mut stream = service.open_with(of_kind(&name, kind)).await;
        stream.add(&["ann", "bob"]).await;
        stream.committed(2).await;
        let before = service.deliveries().len();
        let both = [("ann", Operation::Remove), ("cid", Operation::Add)];
        stream
            .batch(both.map(|(key, operation)| record(key, operation)).into())
            .await;
        let (answers, ended) = stream.finish().await;
        ended.unwrap();

        assert!(
            answers.results().values().all(Option::is_none),
            "{integration}"
        );
        let calls = service.deliveries().len() - before;
        assert_eq!(calls, if mixes { 1 } else { 2 }, "{integration}");
        let segment = service.sandbox.segment(CLIENT_SIDE_ID, &segment).unwrap();
        let members: Vec<_> = segment.members.iter().map(String::as_str).collect();
        assert_eq!(
            (segment.kind.as_str(), segment.name.as_str(), members),
            (kind, "VIP", vec!["bob", "cid"]),
            "{integration}"
        );
        let offered = activation_fields(&service).await;
        let is_offered = offered.contains(&"activation.context_kind".to_owned());
        assert_eq!(is_offered, names_kinds, "{integration}");
    }
}

#[tokio::test]
async fn a_context_kind_that_requests_cannot_name_is_refused_with_its_field() {
    for (integration, kind) in [
        ("zeotap", "account"),
        (NAMES_KINDS, "multi"),
        (NAMES_KINDS, "a b"),
    ] {
        let service = TestService::start_as(integration).await;
        let name = service.create("vip").await;
        let mut stream = service.stream().await;
        let open = of_kind(&name, kind);
        stream
            .send(pb::send_identifiers_request::Message::Open(open))
            .await;
        let (_, ended) = stream.end().await;
        let status = ended.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{kind}");
        let violations = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<_> = violations.iter().map(|each| each.field.as_str()).collect();
        assert_eq!(fields, ["open.activation.context_kind"], "{kind}");
        assert!(service.deliveries().is_empty());
    }
}

#[tokio::test]
async fn segments_of_one_id_and_two_kinds_do_not_meet() {
    let service = TestService::start_as(NAMES_KINDS).await;
    let name = service.create("vip").await;
    let mut users = service.open_with(of_kind(&name, "user")).await;
    let accounts = service.open_with(of_kind(&name, "account")).await;
    // Each key is once a user and once an account: no change is in the other's place.
    users.add(&["ann"]).await;
    users.committed(1).await;
    accounts.remove(&["ann"]).await;
    let (answers, ended) = accounts.finish().await;
    ended.unwrap();
    // All members of a synced segment are of one kind: LaunchDarkly refuses the second.
    assert!(answers.results()[&1].is_some());
    let kinds = service
        .deliveries()
        .into_iter()
        .map(|call| call.kind.unwrap());
    let kinds: Vec<_> = kinds.collect();
    assert_eq!(kinds[0], "user");
    assert!(kinds[1..].iter().all(|kind| kind == "account"), "{kinds:?}");
    assert_eq!(
        service
            .sandbox
            .members(CLIENT_SIDE_ID, "rudderstack-vip")
            .len(),
        1
    );
}

#[tokio::test]
async fn an_sdk_sees_the_flag_flip_for_an_account_of_a_journey() {
    let service = TestService::start_as(NAMES_KINDS).await;
    let name = service.create("vip").await;
    let account = ContextBuilder::new("initech")
        .kind("account")
        .build()
        .unwrap();
    let user = ContextBuilder::new("initech").build().unwrap();
    let watch = |context| watch_flag(service.sandbox_url.clone(), Mode::Streaming, context);
    let (mut of_account, mut of_user) = (watch(account), watch(user));
    assert_eq!(soon("the flag", of_account.recv()).await, Some(false));
    assert_eq!(soon("the flag", of_user.recv()).await, Some(false));

    let mut stream = service.open_with(of_kind(&name, "account")).await;
    stream.add(&["initech"]).await;
    stream.committed(1).await;
    assert_eq!(soon("the flag flips", of_account.recv()).await, Some(true));
    stream.remove(&["initech"]).await;
    stream.committed(2).await;
    assert_eq!(
        soon("the flag flips back", of_account.recv()).await,
        Some(false)
    );
    assert!(
        of_user.try_recv().is_err(),
        "a user of the same key is no member"
    );
    stream.finish().await.1.unwrap();
}
