//! Checks of credentials against a server that answers as LaunchDarkly would.

use std::{sync::Arc, time::Duration};

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::{advice, advice::Advice};
use crate::{
    domain::{
        Attempt, CheckKind, CheckOutcome, Connection, ContextKey, ContextKind, CredentialChecker,
        CredentialFacts, CredentialReport, Instance, Member, Operation, SegmentCall, SegmentClient,
        SegmentId, SegmentRef, TransientError,
    },
    launchdarkly::{
        Client, ClientSettings,
        testing::{
            Call, Server, connection, endless, json as reply, page as sign_in, stalling, status,
        },
    },
};

const TOKEN: &str = "api-00000000-0000-4000-8000-000000000001";
/// In the first project.
const NEAR: &str = "5a0001";
/// On the second page of environments of the project on the second page of projects.
const FAR: &str = "5a0025";
/// Another account's.
const ELSEWHERE: &str = "5b0001";
/// A token of no account.
const NOWHERE: &str = "5c0001";

fn environment(id: &str) -> Value {
    json!({"_id": id, "key": format!("key-{id}"), "name": format!("Name {id}"), "apiKey": "sdk-x"})
}

/// Page `offset` of a list, in pages of one.
fn page(items: &[Value], path: &str) -> Value {
    let offset: usize = path.rsplit_once("offset=").unwrap().1.parse().unwrap();
    let items: Vec<_> = items.iter().skip(offset).take(1).collect();
    json!({"items": items, "totalCount": 2})
}

fn project(key: &str, environments: &[&str]) -> Value {
    let first = environments.first().map(|id| environment(id));
    json!({
        "key": key,
        "name": key.to_uppercase(),
        "environments": {
            "items": Vec::from_iter(first),
            "totalCount": environments.len(),
            "_links": {"next": {"href": "http://127.0.0.1:1/never-called"}},
        },
    })
}

/// An account with two projects; what is asked for beyond it does not exist.
fn launchdarkly(call: &Call) -> Option<Response> {
    let projects = [project("web", &[NEAR]), project("shop", &["5a0024", FAR])];
    let path = call.path.as_str();
    match path.split('?').next().unwrap() {
        "/api/v2/caller-identity" => reply(json!({
            "accountId": "acme", "tokenId": "7e01", "tokenName": "connector", "serviceToken": true,
        })),
        "/api/v2/tokens/7e01" => reply(json!({"role": "writer"})),
        "/api/v2/projects" => reply(page(&projects, path)),
        "/api/v2/projects/shop/environments" => {
            reply(page(&[environment("5a0024"), environment(FAR)], path))
        }
        "/api/v2/projects/web/environments" => reply(json!({"items": [], "totalCount": 1})),
        "/sdk/goals/5a0001" | "/sdk/goals/5a0025" | "/sdk/goals/5b0001" => status(200),
        _ => status(404),
    }
}

/// [`launchdarkly`], except that `path` is answered by `answer`.
fn but(
    path: &'static str,
    answer: impl Fn() -> Option<Response> + Clone + Send + Sync + 'static,
) -> Server {
    Server::start(move |call| {
        if call.path.starts_with(path) {
            answer()
        } else {
            launchdarkly(call)
        }
    })
}

async fn checked(server: &Server, connection: &Connection) -> CredentialReport {
    let client = Client::new(server.settings()).unwrap();
    client.check_credentials(connection).await.unwrap()
}

/// `+` passed, `-` skipped, else the reason, with `?` if the check is open.
fn outcomes(report: &CredentialReport) -> [String; 3] {
    let kinds: Vec<_> = report.checks.iter().map(|check| check.kind).collect();
    use CheckKind::{AccessToken, ClientSideId, WritePermission};
    assert_eq!(kinds, [AccessToken, ClientSideId, WritePermission]);
    let shown = |outcome: &CheckOutcome| match outcome {
        CheckOutcome::Passed => "+".to_owned(),
        CheckOutcome::Skipped => "-".to_owned(),
        CheckOutcome::Failed(finding) => finding.reason.to_owned(),
        CheckOutcome::Unknown(finding) => format!("{}?", finding.reason),
    };
    [0, 1, 2].map(|i| shown(&report.checks[i].outcome))
}

fn maybe(advice: Advice) -> String {
    format!("{}?", advice.reason)
}

#[tokio::test]
async fn sound_credentials_pass_and_every_fact_is_told() {
    let server = Server::start(launchdarkly);
    let report = checked(&server, &connection(TOKEN, FAR)).await;
    assert_eq!(outcomes(&report), ["+", "+", "+"]);
    let some = |text: &str| Some(text.to_owned());
    let facts = CredentialFacts {
        account_id: some("acme"),
        token_name: some("connector"),
        token_role: some("writer"),
        service_token: Some(true),
        project_key: some("shop"),
        project_name: some("SHOP"),
        environment_key: some("key-5a0025"),
        environment_name: some("Name 5a0025"),
    };
    assert_eq!(report.facts, facts);
}

#[tokio::test]
async fn what_launchdarkly_refuses_to_the_token_is_told_with_its_reason() {
    let hidden = maybe(advice::CLIENT_SIDE_ID_HIDDEN_OR_ELSEWHERE);
    let unconfirmed = maybe(advice::ENVIRONMENT_UNCONFIRMED);
    let custom = || reply(json!({"role": "reader", "customRoleIds": ["x"]}));
    let failed = |advice: Advice| advice.reason.to_owned();
    let yes = || "+".to_owned();
    let skipped = || "-".to_owned();
    let identity = "/api/v2/caller-identity";
    let role = "/api/v2/tokens/";
    let projects = "/api/v2/projects?";
    for (server, id, expected) in [
        (
            but(identity, || status(401)),
            NEAR,
            [failed(advice::TOKEN_REJECTED), skipped(), skipped()],
        ),
        (
            but(identity, || status(403)),
            NEAR,
            [failed(advice::TOKEN_FORBIDDEN), skipped(), skipped()],
        ),
        (
            Server::start(launchdarkly),
            NOWHERE,
            [yes(), failed(advice::CLIENT_SIDE_ID_NOT_FOUND), skipped()],
        ),
        (
            Server::start(launchdarkly),
            ELSEWHERE,
            [
                yes(),
                failed(advice::CLIENT_SIDE_ID_NOT_IN_ACCOUNT),
                skipped(),
            ],
        ),
        (
            but(projects, || status(403)),
            NEAR,
            [yes(), hidden.clone(), unconfirmed],
        ),
        (
            but(role, custom),
            ELSEWHERE,
            [yes(), hidden, maybe(advice::ROLE_CUSTOM)],
        ),
        (
            but(role, || reply(json!({"role": "reader"}))),
            NEAR,
            [yes(), yes(), failed(advice::ROLE_CANNOT_WRITE)],
        ),
        (
            but(role, || status(403)),
            NEAR,
            [yes(), yes(), maybe(advice::ROLE_HIDDEN)],
        ),
    ] {
        let report = checked(&server, &connection(TOKEN, id)).await;
        assert_eq!(outcomes(&report), expected);
    }
}

#[tokio::test]
async fn an_instance_without_synced_segments_fails_and_marks_the_instance() {
    let server = Server::start(launchdarkly);
    let eu = Connection {
        instance: Instance::Eu,
        ..connection(TOKEN, NEAR)
    };
    let report = checked(&server, &eu).await;
    let reason = advice::SYNCED_SEGMENTS_UNAVAILABLE.reason;
    assert_eq!(outcomes(&report), ["+", "+", reason]);
    let fields: Vec<_> = report.checks.iter().map(|check| check.field).collect();
    let expected = [
        "launch_darkly.access_token",
        "launch_darkly.client_side_id",
        "launch_darkly.instance",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn a_token_of_the_very_environment_spares_the_search_and_of_another_does_not() {
    let server = Server::start(|call| match call.path.as_str() {
        "/api/v2/caller-identity" => reply(json!({
            "tokenId": "7e01", "environmentId": NEAR, "environmentName": "Own", "projectName": "P",
        })),
        _ => launchdarkly(call),
    });
    let own = checked(&server, &connection(TOKEN, NEAR)).await;
    assert_eq!(outcomes(&own), ["+", "+", "+"]);
    assert_eq!(own.facts.environment_name.as_deref(), Some("Own"));
    assert!(
        server
            .calls()
            .iter()
            .all(|call| !call.path.contains("projects"))
    );
    let other = checked(&server, &connection(TOKEN, FAR)).await;
    assert_eq!(other.facts.environment_name.as_deref(), Some("Name 5a0025"));
}

#[tokio::test]
async fn a_token_of_the_wrong_form_is_never_sent_and_both_fields_are_marked() {
    let server = Server::start(launchdarkly);
    let sdk_key = checked(&server, &connection("sdk-1", NEAR)).await;
    assert_eq!(
        outcomes(&sdk_key),
        [advice::TOKEN_IS_SDK_KEY.reason, "-", "-"]
    );
    let both = checked(&server, &connection(" api-1", "a-b")).await;
    let white_space = advice::TOKEN_HAS_WHITE_SPACE.reason;
    let dash = advice::CLIENT_SIDE_ID_HAS_DASH.reason;
    assert_eq!(outcomes(&both), [white_space, dash, "-"]);
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_client_side_id_of_the_wrong_form_fails_whatever_launchdarkly_says() {
    let dash = advice::CLIENT_SIDE_ID_HAS_DASH.reason;
    let malformed = connection(TOKEN, "my-project");
    let identity = "/api/v2/caller-identity";
    for (server, token) in [
        (Server::start(launchdarkly), "+".to_owned()),
        (
            but(identity, || status(401)),
            advice::TOKEN_REJECTED.reason.to_owned(),
        ),
        (
            but(identity, || status(503)),
            maybe(advice::TOKEN_NOT_CHECKED),
        ),
    ] {
        let report = checked(&server, &malformed).await;
        assert_eq!(outcomes(&report), [&token, dash, "-"]);
        assert_eq!(server.calls().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_is_none_says_nothing_about_the_credentials() {
    let garbage = || Some("<html>canary</html>".into_response());
    let moved = || Some((http::StatusCode::FOUND, [("location", "/")]).into_response());
    let identity = "/api/v2/caller-identity";
    for (server, error) in [
        (but(identity, || status(500)), TransientError::Status(500)),
        (but(identity, || status(404)), TransientError::Status(404)),
        (but(identity, || status(429)), TransientError::RateLimited),
        (but(identity, moved), TransientError::Intercepted(302)),
        (but(identity, garbage), TransientError::Intercepted(200)),
        (
            but(identity, || endless(200)),
            TransientError::Intercepted(200),
        ),
        (but(identity, || stalling(200)), TransientError::TimedOut),
        (but(identity, || None), TransientError::TimedOut),
        (
            but(identity, || sign_in(401)),
            TransientError::Intercepted(401),
        ),
        (
            but("/api/v2/tokens/", || sign_in(403)),
            TransientError::Intercepted(403),
        ),
        (
            but("/api/v2/tokens/", || status(502)),
            TransientError::Status(502),
        ),
        (
            but("/api/v2/projects?", garbage),
            TransientError::Intercepted(200),
        ),
        (
            but("/sdk/goals/", || status(503)),
            TransientError::Status(503),
        ),
    ] {
        let client = Client::new(ClientSettings {
            // Answers that do come get ample time; those that do not are waited for this long.
            attempt_timeout: Duration::from_secs(1),
            ..server.settings()
        });
        let verdict = client
            .unwrap()
            .check_credentials(&connection(TOKEN, ELSEWHERE))
            .await;
        assert_eq!(verdict.map_err(|error| error.error), Err(error));
    }
}

#[tokio::test]
async fn the_check_that_needs_no_token_gets_none() {
    let server = Server::start(launchdarkly);
    checked(&server, &connection(TOKEN, ELSEWHERE)).await;
    for call in server.calls() {
        let sent = call.headers.contains_key("authorization");
        assert_eq!(sent, !call.path.starts_with("/sdk/"), "{}", call.path);
    }
}

#[tokio::test]
async fn what_another_host_answers_holds_up_no_deliveries() {
    let limited = || {
        let wait = [("retry-after", "60")];
        Some((http::StatusCode::TOO_MANY_REQUESTS, wait).into_response())
    };
    let server = but("/sdk/goals/", limited);
    let client = Client::new(server.settings()).unwrap();
    let elsewhere = connection(TOKEN, ELSEWHERE);
    let error = client.check_credentials(&elsewhere).await.unwrap_err();
    assert_eq!(error.error, TransientError::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(60)));
    assert_eq!(client.hold(&elsewhere), None);
}

#[tokio::test]
async fn a_check_asks_even_while_failures_hold_back_deliveries() {
    let server = but("/api/v2/segment-targets/", || status(503));
    let client = Client::new(server.settings()).unwrap();
    let segment =
        |id| SegmentRef::new(SegmentId::new(id).unwrap(), ContextKind::default(), "VIP").unwrap();
    let mut delivery = SegmentCall {
        connection: Arc::new(connection(TOKEN, NEAR)),
        segment: segment("vip"),
        members: vec![Member {
            key: ContextKey::new("u-1").unwrap(),
            operation: Operation::Add,
        }],
    };
    // Of two segments: one that fails alone is left to its lane.
    let mut turn = ["vip", "gold"].into_iter().cycle();
    while client.hold(&delivery.connection).is_none() {
        delivery.segment = segment(turn.next().unwrap());
        let (connection, segment) = (&delivery.connection, &delivery.segment.id);
        let slot = client.ready(connection, segment, Attempt::First).await;
        client.apply(slot, &delivery).await;
    }
    let until = client.hold(&delivery.connection);
    // A delivery waits, and a query does not wait behind it.
    let waiting = client.ready(&delivery.connection, &delivery.segment.id, Attempt::First);
    let asked = client.check_credentials(&delivery.connection);
    let report = tokio::select! {
        biased;
        _ = waiting => panic!("a delivery passed an open breaker"),
        report = asked => report.unwrap(),
    };
    assert!(report.checks.len() > 1);
    assert_eq!(client.hold(&delivery.connection), until);
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let more = || reply(json!({"items": [{"key": "p", "name": "P"}], "totalCount": 1_000_000}));
    let server = but("/api/v2/projects?", more);
    let report = checked(&server, &connection(TOKEN, ELSEWHERE)).await;
    assert_eq!(
        outcomes(&report)[1],
        maybe(advice::ENVIRONMENTS_NOT_ALL_LISTED)
    );
    assert!(server.calls().len() < 60);
}
