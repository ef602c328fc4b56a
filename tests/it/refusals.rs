//! Refusals of LaunchDarkly: what each refuses, for how long, and what streams are told.

use std::time::Duration;

use http::StatusCode;
use launchdarkly_connector::{
    pb::{
        self, notice, send_identifiers_request::Message as In,
        send_identifiers_response::Message as Out,
    },
    sandbox::{
        Fault, FaultKind, FaultPlan, Sandbox,
        fixtures::{OTHER_ACCOUNT_CLIENT_SIDE_ID, READER_TOKEN, WRITER_TOKEN},
    },
    store::MemoryStore,
};
use tonic::Code;
use tonic_types::StatusExt;

use crate::{
    in_memory::Service,
    test_service::{Client, ORGANIZATION, Stream, TestService, destination, open, open_into},
};

const REJECTED: pb::destination::State = pb::destination::State::CredentialsRejected;
const ACTIVE: pb::destination::State = pb::destination::State::Active;

/// So many deliveries are answered with this status.
fn deliveries(status: StatusCode, calls: u64) -> FaultPlan {
    FaultPlan {
        faults: vec![Fault::new(FaultKind::Status(status)).for_calls(calls)],
        ..FaultPlan::default()
    }
}

/// As well, but questions count too.
fn any_calls(status: StatusCode, calls: u64) -> FaultPlan {
    FaultPlan {
        path_prefix: "/api/v2/".into(),
        ..deliveries(status, calls)
    }
}

fn questions(sandbox: &Sandbox) -> usize {
    let calls = sandbox.calls();
    let asks = |path: &str| path == "/api/v2/caller-identity";
    calls.iter().filter(|call| asks(&call.path)).count()
}

async fn create(client: &Client, token: &str) -> String {
    create_in(client, destination(token)).await
}

async fn create_in(client: &Client, destination: pb::Destination) -> String {
    let request = pb::CreateDestinationRequest {
        parent: ORGANIZATION.into(),
        destination_id: "vip".into(),
        destination: Some(destination),
        ..Default::default()
    };
    let created = client.clone().create_destination(request).await;
    created.unwrap().into_inner().name
}

async fn get(client: &Client, name: &str) -> pb::Destination {
    let request = pb::GetDestinationRequest { name: name.into() };
    let found = client.clone().get_destination(request).await;
    found.unwrap().into_inner()
}

async fn validate(client: &Client, name: &str) -> pb::ValidateCredentialsResponse {
    let target = pb::validate_credentials_request::Target::Name(name.into());
    let request = pb::ValidateCredentialsRequest {
        target: Some(target),
    };
    let checked = client.clone().validate_credentials(request).await;
    checked.unwrap().into_inner()
}

async fn stream(client: &Client, opening: pb::OpenStream) -> Stream {
    let mut stream = Stream::start(client.clone()).await;
    stream.send(In::Open(opening)).await;
    match stream.next().await {
        Ok(Some(Out::Opened(_))) => stream,
        other => panic!("not opened: {other:?}"),
    }
}

/// Has a record delivered.
async fn deliver(client: &Client, name: &str) {
    let stream = stream(client, open(name)).await;
    stream.add(&["a"]).await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert_eq!(answers.results().into_values().collect::<Vec<_>>(), [None]);
}

/// Has a record refused; the stream's status.
async fn refused(client: &Client, opening: pb::OpenStream) -> tonic::Status {
    let mut stream = stream(client, opening).await;
    stream.add(&["a"]).await;
    stream.end().await.1.expect_err("the stream fails")
}

fn reason(status: &tonic::Status) -> String {
    assert_eq!(status.code(), Code::FailedPrecondition);
    crate::test_service::reason(status)
}

#[tokio::test]
async fn a_single_401_condemns_nobody_and_is_told() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service
        .sandbox
        .set_faults(deliveries(StatusCode::UNAUTHORIZED, 1));
    let mut stream = service.open(&name).await;
    stream.add(&["a", "b"]).await;
    let notice = |message| match message {
        Out::Notice(notice) => Some(notice),
        _ => None,
    };
    let told = stream.next_of(notice).await;
    assert_eq!(told.state(), notice::State::Unreachable);
    assert!(told.message.contains("401"), "{}", told.message);
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert_eq!(answers.results().len(), 2);
    assert_eq!(service.members(), ["a", "b"]);
    assert_eq!(get(&service.client, &name).await.state(), ACTIVE);
}

#[tokio::test]
async fn a_refused_destination_is_active_again_once_it_is_validated() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    // A delivery, and the question about it.
    service
        .sandbox
        .set_faults(any_calls(StatusCode::UNAUTHORIZED, 2));
    let status = refused(&service.client, open(&name)).await;
    assert_eq!(reason(&status), "CREDENTIALS_REJECTED");
    let rejected = get(&service.client, &name).await;
    assert_eq!(rejected.state(), REJECTED);

    assert!(validate(&service.client, &name).await.valid);
    let active = get(&service.client, &name).await;
    assert_eq!(active.state(), ACTIVE);
    assert_ne!(active.etag, rejected.etag);
    let micros = |at: &pb::Destination| at.update_time.map(|at| (at.seconds, at.nanos));
    assert!(micros(&active) > micros(&rejected));
    assert_eq!(active.create_time, rejected.create_time);
    deliver(&service.client, &name).await;
    // What is active stays as it is.
    validate(&service.client, &name).await;
    assert_eq!(get(&service.client, &name).await, active);
}

#[tokio::test]
async fn a_token_that_cannot_write_is_refused_at_once_and_stays_so() {
    let service = TestService::start().await;
    let name = create(&service.client, READER_TOKEN).await;
    let status = refused(&service.client, open(&name)).await;
    assert_eq!(reason(&status), "CREDENTIALS_REJECTED");
    assert!(!validate(&service.client, &name).await.valid);
    assert_eq!(get(&service.client, &name).await.state(), REJECTED);
}

#[tokio::test]
async fn a_wrong_client_side_id_is_named_as_a_cause() {
    let service = TestService::start().await;
    let mut elsewhere = destination(WRITER_TOKEN);
    if let Some(pb::destination::Config::LaunchDarkly(config)) = &mut elsewhere.config {
        config.client_side_id = OTHER_ACCOUNT_CLIENT_SIDE_ID.into();
    }
    let name = create_in(&service.client, elsewhere).await;
    let status = refused(&service.client, open(&name)).await;
    assert_eq!(reason(&status), "CREDENTIALS_REJECTED");
    let message = status.message();
    assert!(message.contains("client-side ID"), "{message}");
    assert!(!message.contains("update its access token"), "{message}");
}

#[tokio::test]
async fn a_forbidden_segment_ends_its_own_streams_and_says_what_to_do() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut well = service.open_with(open_into(&name, "well")).await;
    well.add(&["a"]).await;
    well.committed(1).await;
    service
        .sandbox
        .set_faults(deliveries(StatusCode::FORBIDDEN, 1));
    let status = refused(&service.client, open_into(&name, "guarded")).await;
    assert_eq!(reason(&status), "SEGMENT_REJECTED");
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["segment_id"], "guarded");
    assert_eq!(metadata["cause"], "PERMISSION");
    let message = status.message();
    for named in ["approval", "role", "client-side ID"] {
        assert!(message.contains(named), "{message}");
    }
    well.add(&["b"]).await;
    well.finish().await.1.unwrap();
    assert_eq!(get(&service.client, &name).await.state(), ACTIVE);
}

#[tokio::test]
async fn a_destination_whose_segments_are_forbidden_one_after_another_is_refused() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service
        .sandbox
        .set_faults(deliveries(StatusCode::FORBIDDEN, 2));
    let first = refused(&service.client, open_into(&name, "one")).await;
    assert_eq!(reason(&first), "SEGMENT_REJECTED");
    let second = refused(&service.client, open_into(&name, "two")).await;
    assert_eq!(reason(&second), "CREDENTIALS_REJECTED");
    assert_eq!(get(&service.client, &name).await.state(), REJECTED);
}

/// A service in paused time, with a destination whose credentials are refused.
async fn with_a_refused_destination(sandbox: &Sandbox, disk: &MemoryStore) -> (Service, String) {
    let service = Service::start(sandbox, disk, |_| {}).await;
    let name = create(&service.client(), WRITER_TOKEN).await;
    sandbox.set_faults(any_calls(StatusCode::UNAUTHORIZED, 2));
    let status = refused(&service.client(), open(&name)).await;
    assert_eq!(reason(&status), "CREDENTIALS_REJECTED");
    assert_eq!(get(&service.client(), &name).await.state(), REJECTED);
    (service, name)
}

/// Longer than the longest first wait before a destination is asked about again, and what follows.
const SOON: Duration = Duration::from_secs(125);

#[tokio::test(start_paused = true)]
async fn a_refused_destination_is_asked_about_again_by_itself() {
    let (sandbox, disk) = (Sandbox::default(), MemoryStore::default());
    let (service, name) = with_a_refused_destination(&sandbox, &disk).await;
    let rejected = get(&service.client(), &name).await;
    tokio::time::sleep(SOON).await;
    let active = get(&service.client(), &name).await;
    assert_eq!(active.state(), ACTIVE);
    assert_ne!(active.etag, rejected.etag);
    deliver(&service.client(), &name).await;
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_destination_is_asked_about_again_after_a_restart() {
    let (sandbox, disk) = (Sandbox::default(), MemoryStore::default());
    let (service, name) = with_a_refused_destination(&sandbox, &disk).await;
    service.stop().await;
    let next = Service::start(&sandbox, &disk, |_| {}).await;
    assert_eq!(get(&next.client(), &name).await.state(), REJECTED);
    tokio::time::sleep(SOON).await;
    assert_eq!(get(&next.client(), &name).await.state(), ACTIVE);
    deliver(&next.client(), &name).await;
    next.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_destination_is_not_asked_about() {
    let (sandbox, disk) = (Sandbox::default(), MemoryStore::default());
    let (service, name) = with_a_refused_destination(&sandbox, &disk).await;
    let asked = questions(&sandbox);
    let request = pb::DeleteDestinationRequest {
        name,
        ..Default::default()
    };
    service.client().delete_destination(request).await.unwrap();
    tokio::time::sleep(10 * SOON).await;
    assert_eq!(questions(&sandbox), asked);
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_that_stays_refused_costs_few_questions() {
    let (sandbox, disk) = (Sandbox::default(), MemoryStore::default());
    let (service, name) = with_a_refused_destination(&sandbox, &disk).await;
    sandbox.set_faults(any_calls(StatusCode::UNAUTHORIZED, u64::MAX));
    let asked = questions(&sandbox);
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    // Every half hour at most, and six until it is as seldom.
    let more = questions(&sandbox) - asked;
    assert!((24..=54).contains(&more), "{more}");
    assert_eq!(get(&service.client(), &name).await.state(), REJECTED);
    service.stop().await;
}

#[tokio::test(start_paused = true)]
async fn conflicts_without_end_are_told_within_seconds_and_named_in_the_failure() {
    let sandbox = Sandbox::default();
    let service = Service::start(&sandbox, &MemoryStore::default(), |_| {}).await;
    let client = service.client();
    let name = create(&client, WRITER_TOKEN).await;
    sandbox.set_faults(deliveries(StatusCode::CONFLICT, u64::MAX));
    let timeout = prost_types::Duration {
        seconds: 15,
        nanos: 0,
    };
    let opening = pb::OpenStream {
        delivery_timeout: Some(timeout),
        ..open(&name)
    };
    let mut stream = stream(&client, opening).await;
    stream.add(&["a"]).await;
    let began = tokio::time::Instant::now();
    let told = match stream.next().await {
        Ok(Some(Out::Notice(notice))) => notice,
        other => panic!("{other:?}"),
    };
    assert_eq!(told.state(), notice::State::Conflicting);
    assert!(told.message.contains("409"), "{}", told.message);
    assert!(told.retry_time.is_some());
    assert!(began.elapsed() < Duration::from_secs(6));
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert_eq!(answers.notices, [], "once is enough");
    let error = answers.acks[0].results[0].error.clone().unwrap();
    assert_eq!(answers.results()[&1].as_deref(), Some("DELIVERY_TIMEOUT"));
    assert!(error.message.contains("409"), "{}", error.message);
    service.stop().await;
}
