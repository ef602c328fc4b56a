//! Segment calls over real sockets.

use std::{
    io,
    num::NonZeroU16,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::response::{IntoResponse, Response};
use tokio::time::{Instant, timeout};
use tracing_subscriber::util::SubscriberInitExt;

use super::{
    Client, ClientSettings,
    renewal::Renewal,
    testing::{Call, Relay, Server, connection, endless, json, page, stalling, status},
    transport::Http,
};
use crate::domain::{
    Attempt, CallOutcome, Connection, ContextKey, ContextKind, CredentialChecker, EndedCall,
    Member, Observer, Operation, PaceState, Refusal, SegmentCall, SegmentClient, SegmentId,
    SegmentRef, Slot, TransientError,
};

/// Far longer than anything here takes, and shorter than an attempt may.
const LONG: Duration = Duration::from_secs(5);

fn delivery(connection: Connection, keys: &[&str]) -> SegmentCall {
    SegmentCall {
        connection: Arc::new(connection),
        segment: segment("vip"),
        members: keys.iter().map(|key| added(key)).collect(),
    }
}

fn segment(id: &str) -> SegmentRef {
    SegmentRef::new(SegmentId::new(id).unwrap(), ContextKind::default(), "VIP").unwrap()
}

fn added(key: &str) -> Member {
    Member {
        key: ContextKey::new(key).unwrap(),
        operation: Operation::Add,
    }
}

fn to_acme() -> SegmentCall {
    delivery(connection("api-acme", "5a01"), &["u-1"])
}

async fn deliver(client: &Client, delivery: &SegmentCall) -> CallOutcome {
    let slot = ready(client, &delivery.connection).await;
    client.apply(slot, delivery).await
}

fn retry(error: TransientError) -> CallOutcome {
    CallOutcome::Retry {
        error,
        retry_after: None,
    }
}

async fn ready(client: &Client, connection: &Arc<Connection>) -> Slot {
    let segment = SegmentId::new("vip").unwrap();
    client.ready(connection, &segment, Attempt::First).await
}

#[tokio::test]
async fn a_call_carries_what_launchdarkly_reads() {
    let server = Server::start(|_| status(204));
    let client = Client::new(server.settings()).unwrap();
    assert_eq!(deliver(&client, &to_acme()).await, CallOutcome::Applied);

    let [call] = server.calls().try_into().unwrap();
    let header = |name: &str| call.headers[name].to_str().unwrap();
    assert_eq!(call.method, http::Method::POST);
    assert_eq!(call.path, "/api/v2/segment-targets/zeotap");
    assert_eq!(header("authorization"), "api-acme");
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("ld-api-version"), "20240415");
    assert!(header("user-agent").starts_with("launchdarkly-connector/"));
    let body: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
    assert_eq!(body["action"], "add_members");
    assert_eq!(body["parameters"]["integration_project_id"], "5a01");
}

#[tokio::test]
async fn a_redirect_is_tried_again_and_its_target_never_called() {
    let target = Server::start(|_| status(204));
    for code in [301, 302, 303, 307, 308] {
        let location = format!("{}/elsewhere", target.endpoint);
        let server = Server::start(move |_| {
            let code = http::StatusCode::from_u16(code).unwrap();
            Some((code, [("location", location.clone())]).into_response())
        });
        let client = Client::new(server.settings()).unwrap();
        let intercepted = retry(TransientError::Intercepted(code));
        assert_eq!(deliver(&client, &to_acme()).await, intercepted, "{code}");
    }
    assert!(target.calls().is_empty());
}

#[tokio::test]
async fn a_success_has_no_body_or_json_and_a_refusal_is_what_it_is_however_long_or_slow() {
    let object = |_| json(serde_json::json!({"taken": 1}));
    let refused = CallOutcome::Refused(Refusal::Payload);
    let cases = [
        (status as fn(u16) -> _, 200, CallOutcome::Applied),
        (status, 202, CallOutcome::Applied),
        (object, 200, CallOutcome::Applied),
        (page, 200, retry(TransientError::Intercepted(200))),
        (endless, 200, retry(TransientError::Intercepted(200))),
        (stalling, 200, retry(TransientError::TimedOut)),
        (page, 403, retry(TransientError::Intercepted(403))),
        (page, 401, retry(TransientError::Intercepted(401))),
        (page, 404, retry(TransientError::Intercepted(404))),
        (endless, 400, refused),
        (stalling, 400, refused),
    ];
    for (answer, code, expected) in cases {
        let server = Server::start(move |_| answer(code));
        let client = Client::new(ClientSettings {
            attempt_timeout: Duration::from_secs(2),
            ..server.settings()
        });
        let client = client.unwrap();
        let outcome = timeout(LONG, deliver(&client, &to_acme())).await;
        assert_eq!(outcome, Ok(expected), "{code}");
    }
}

#[tokio::test]
async fn no_answer_is_a_time_out_and_no_connection_is_told_apart() {
    let server = Server::start(|_| None);
    let mut settings = ClientSettings {
        attempt_timeout: Duration::from_millis(200),
        ..server.settings()
    };
    let client = Client::new(settings.clone()).unwrap();
    assert_eq!(
        deliver(&client, &to_acme()).await,
        retry(TransientError::TimedOut)
    );

    drop(server);
    settings.attempt_timeout = LONG;
    let client = Client::new(settings).unwrap();
    assert_eq!(
        deliver(&client, &to_acme()).await,
        retry(TransientError::Connection)
    );
}

/// Calls a server over HTTP/2, as LaunchDarkly is called, through a relay.
async fn over_relay(server: &Server, renewal: Renewal) -> (Relay, Client) {
    let relay = Relay::start(&server.endpoint).await;
    let settings = ClientSettings {
        url: Some(relay.endpoint.clone()),
        attempt_timeout: Duration::from_millis(300),
        ..ClientSettings::default()
    };
    let transport = Box::new(Http::over_http2(renewal));
    (relay, Client::over(transport, settings))
}

#[tokio::test]
async fn a_connection_that_has_died_in_silence_costs_one_attempt() {
    let server = Server::start(acmes);
    let (relay, client) = over_relay(&server, Renewal::default()).await;
    for _ in 0..2 {
        assert_eq!(deliver(&client, &to_acme()).await, CallOutcome::Applied);
    }
    client.identification_ended().await;
    assert_eq!(relay.connections(), 1);
    relay.mute();
    assert_eq!(
        deliver(&client, &to_acme()).await,
        retry(TransientError::TimedOut)
    );
    assert_eq!(deliver(&client, &to_acme()).await, CallOutcome::Applied);
}

#[tokio::test]
async fn a_call_that_is_slow_on_a_connection_that_works_does_not_cost_the_connection() {
    // One environment never answers; the other does, meanwhile, over the same connection.
    let server = Server::start(|call| {
        let body = String::from_utf8_lossy(&call.body);
        if body.contains("5a02") {
            None
        } else {
            acmes(call)
        }
    });
    let (relay, client) = over_relay(&server, Renewal::default()).await;
    let slow = delivery(connection("api-acme", "5a02"), &["u-1"]);
    assert_eq!(deliver(&client, &to_acme()).await, CallOutcome::Applied);
    let quick = async {
        let is_slow = |call: &Call| String::from_utf8_lossy(&call.body).contains("5a02");
        while !server.calls().iter().any(is_slow) {
            tokio::task::yield_now().await;
        }
        deliver(&client, &to_acme()).await
    };
    let (slow, quick) = tokio::join!(deliver(&client, &slow), quick);
    assert_eq!(quick, CallOutcome::Applied);
    assert_eq!(slow, retry(TransientError::TimedOut));
    assert_eq!(deliver(&client, &to_acme()).await, CallOutcome::Applied);
    assert_eq!(relay.connections(), 1);
}

#[tokio::test]
async fn connections_that_are_old_misdirected_or_only_fail_are_replaced() {
    let long = Duration::from_secs(300);
    let renewal = |life, failing| Renewal { life, failing };
    for (code, renewal, connections) in [
        (204, renewal(long, long), 1),
        (204, renewal(Duration::ZERO, long), 2),
        (503, renewal(long, long), 1),
        (503, renewal(long, Duration::ZERO), 2),
        (421, renewal(long, long), 2),
    ] {
        let server = Server::start(move |call| match call.method {
            http::Method::POST => status(code),
            _ => None,
        });
        let (relay, client) = over_relay(&server, renewal).await;
        for _ in 0..2 {
            deliver(&client, &to_acme()).await;
        }
        let deliveries = server.calls().into_iter();
        let deliveries = deliveries.filter(|call| call.method == http::Method::POST);
        assert_eq!(deliveries.count(), 2, "{code} {renewal:?}");
        // The query for the token's account may use a connection of its own.
        let queries = usize::from(code == 204 && renewal.life.is_zero());
        let seen = relay.connections();
        assert!(
            (connections..=connections + queries).contains(&seen),
            "{code} {renewal:?}: {seen}"
        );
    }
}

#[tokio::test]
async fn after_a_429_the_account_is_left_alone_until_the_stated_time() {
    let server = Server::start(|_| {
        let headers = [("retry-after", "60")];
        Some((http::StatusCode::TOO_MANY_REQUESTS, headers).into_response())
    });
    let client = Client::new(server.settings()).unwrap();
    let (start, acme) = (Instant::now(), to_acme());
    assert_eq!(client.hold(&acme.connection), None);
    let first = deliver(&client, &acme).await;
    let limited = |wait: Duration| CallOutcome::Retry {
        error: TransientError::RateLimited,
        retry_after: Some(wait),
    };
    assert_eq!(first, limited(Duration::from_secs(60)));

    let hold = client.hold(&acme.connection).unwrap();
    assert!(hold.until >= start + Duration::from_secs(60));
    assert_eq!(hold.error, TransientError::RateLimited);
    // A slot from before does not help: nothing is sent.
    let again = client.apply(Slot::free(), &acme).await;
    assert_eq!(again, CallOutcome::Held(hold));
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_success_with_nothing_remaining_holds_the_next_call_back() {
    let server = Server::start(|_| {
        let headers = [("x-ratelimit-route-remaining", "0")];
        Some((http::StatusCode::NO_CONTENT, headers).into_response())
    });
    let client = Client::new(server.settings()).unwrap();
    let acme = to_acme();
    assert_eq!(deliver(&client, &acme).await, CallOutcome::Applied);
    assert!(client.hold(&acme.connection).is_some());
}

/// An observer of calls and paces.
#[derive(Debug, Default)]
struct Observed {
    outcomes: Mutex<Vec<CallOutcome>>,
    queries: Mutex<Vec<Option<TransientError>>>,
    paces: Mutex<Vec<PaceState>>,
}

impl Observer for Observed {
    fn called(&self, call: EndedCall<'_>, took: Duration) {
        assert!(took < LONG);
        match call {
            EndedCall::Segment { outcome, .. } => self.outcomes.lock().unwrap().push(outcome),
            EndedCall::Query { error, .. } => self.queries.lock().unwrap().push(error),
        }
    }

    fn paced(&self, _: &Connection, pace: PaceState) {
        self.paces.lock().unwrap().push(pace);
    }
}

#[tokio::test]
async fn an_observer_is_told_of_each_call_that_ends_and_of_a_pace_that_changes() {
    let server = Server::start(|call| match call.method {
        http::Method::POST => {
            let headers = [("retry-after", "60")];
            Some((http::StatusCode::TOO_MANY_REQUESTS, headers).into_response())
        }
        _ => status(401),
    });
    let observed = Arc::new(Observed::default());
    let client = Client::new(server.settings()).unwrap();
    let client = client.observed_by(Arc::clone(&observed) as _);
    let standing = client.check_credentials(&to_acme().connection).await;
    assert!(!standing.unwrap().is_valid());
    assert_eq!(observed.queries.lock().unwrap()[0], None);
    assert_eq!(*observed.paces.lock().unwrap(), []);
    let outcome = deliver(&client, &to_acme()).await;
    assert_eq!(*observed.outcomes.lock().unwrap(), [outcome]);
    // Half of the four that it had.
    let pace = PaceState {
        concurrency: 2,
        held_for: Some(TransientError::RateLimited),
    };
    assert_eq!(*observed.paces.lock().unwrap(), [pace]);
}

/// Answers deliveries, and says of every token that it is acme's.
fn acmes(call: &Call) -> Option<Response> {
    if call.method == http::Method::POST {
        status(204)
    } else {
        json(serde_json::json!({"accountId": "acme"}))
    }
}

fn queries(server: &Server) -> usize {
    let of_identity = |call: &&Call| call.path == "/api/v2/caller-identity";
    server.calls().iter().filter(of_identity).count()
}

/// A client with room for one call at a time.
fn narrow(server: &Server) -> Client {
    Client::new(ClientSettings {
        max_calls_per_account: NonZeroU16::MIN,
        ..server.settings()
    })
    .unwrap()
}

#[tokio::test]
async fn a_token_that_works_is_asked_about_once_and_joins_its_accounts_pace() {
    let server = Server::start(acmes);
    let client = narrow(&server);
    let (one, two) = (to_acme(), delivery(connection("api-two", "5a02"), &["u-2"]));
    for _ in 0..2 {
        for delivery in [&one, &two] {
            assert_eq!(deliver(&client, delivery).await, CallOutcome::Applied);
            client.identification_ended().await;
        }
    }
    assert_eq!(queries(&server), 2);
    let _slot = ready(&client, &one.connection).await;
    let other = ready(&client, &two.connection);
    assert!(timeout(Duration::from_millis(50), other).await.is_err());
}

#[tokio::test]
async fn a_token_is_not_asked_about_before_it_works_nor_again_at_once() {
    for (first, expected) in [(503, 0), (204, 1)] {
        let server = Server::start(move |call| {
            let is_delivery = call.method == http::Method::POST;
            status(if is_delivery { first } else { 500 })
        });
        let client = Client::new(server.settings()).unwrap();
        for _ in 0..2 {
            deliver(&client, &to_acme()).await;
            client.identification_ended().await;
        }
        assert_eq!(queries(&server), expected);
    }
}

#[tokio::test]
async fn a_credential_check_tells_the_account() {
    let server = Server::start(acmes);
    let client = narrow(&server);
    let one = Arc::new(connection("api-one", "5a01"));
    let two = Arc::new(connection("api-two", "5a01"));
    for token in [&one, &two] {
        drop(client.check_credentials(token).await);
    }
    let _slot = ready(&client, &one).await;
    let other = ready(&client, &two);
    assert!(timeout(Duration::from_millis(50), other).await.is_err());
}

#[tokio::test]
async fn a_call_gives_its_slot_back() {
    let server = Server::start(|_| status(503));
    let client = Client::new(ClientSettings {
        max_calls_per_account: NonZeroU16::MIN,
        ..server.settings()
    })
    .unwrap();
    for _ in 0..3 {
        let outcome = timeout(LONG, deliver(&client, &to_acme())).await.unwrap();
        assert!(matches!(outcome, CallOutcome::Retry { .. }));
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_without_a_call() {
    let server = Server::start(|_| status(204));
    let client = Client::new(server.settings()).unwrap();
    let nobody = delivery(connection("api-acme", "5a01"), &[]);
    let payload = CallOutcome::Refused(Refusal::Payload);
    assert_eq!(deliver(&client, &nobody).await, payload);
    let split = delivery(connection("api\r\nx: y", "5a01"), &["u-1"]);
    let credentials = CallOutcome::Refused(Refusal::Unauthorized);
    assert_eq!(deliver(&client, &split).await, credentials);
    assert!(server.calls().is_empty());
}

#[test]
fn a_client_for_launchdarkly_itself_can_be_made() {
    if let Err(error) = Client::new(ClientSettings::default()) {
        // The machine's to mend, not the code's.
        assert!(error.to_string().contains("No CA certificates"), "{error}");
    }
}

/// Everything written while a test listens.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Vec<u8>>>);

impl io::Write for Heard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_token_nor_identifier_nor_body_is_logged_even_at_trace() {
    let heard = Heard::default();
    let writer = heard.clone();
    let _listening = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .set_default();
    for code in [200, 400, 401, 500] {
        // A callsite that another test reached just before this subscriber was set is cached as
        // disabled. The cache is rebuilt, so that the next round logs it.
        tracing::callsite::rebuild_interest_cache();
        let server = Server::start(move |_| {
            let code = http::StatusCode::from_u16(code).unwrap();
            Some((code, "canary-body").into_response())
        });
        let canary = delivery(connection("api-canary-token", "5a01"), &["canary-key"]);
        let over_http1 = Client::new(server.settings()).unwrap();
        let http2 = Http::over_http2(Renewal::default());
        let over_http2 = Client::over(Box::new(http2), server.settings());
        for client in [over_http1, over_http2] {
            deliver(&client, &canary).await;
            drop(client.check_credentials(&canary.connection).await);
            tracing::info!(?client, ?canary, "shown");
        }
        drop(server.calls().pop().expect("the server was called"));
    }
    let log = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
    // What is listened to does speak: this client, the pool below it, and both protocols.
    for source in ["called LaunchDarkly", "hyper_util", "reqwest", "h2::"] {
        assert!(log.contains(source), "nothing heard of {source}");
    }
    assert!(!log.contains("canary-token"), "{log}");
    assert!(!log.contains("canary-key"), "{log}");
    assert!(!log.contains("canary-body"), "{log}");
}
