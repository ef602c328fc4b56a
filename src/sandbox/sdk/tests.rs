//! What each kind of SDK is told, without a socket.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
    response::Response,
};
use base64::{Engine, prelude::BASE64_URL_SAFE};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{SandboxState, feed::Message};
use crate::sandbox::{
    Flag, Integration, Sandbox,
    fixtures::{
        CLIENT_SIDE_ID, FLAG, MOBILE_KEY, SDK_KEY, SEGMENT, TEST_MOBILE_KEY,
        UNKNOWN_CLIENT_SIDE_ID, WRITER_TOKEN,
    },
    tests::{call, get, send},
};

/// Nothing in a test without a socket takes as long.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn add(state: &mut SandboxState, environment: &str, cohort: &str, key: &str) {
    let update = json!({"action": "add_members", "parameters": {
        "integration_project_id": environment, "integration_cohort_id": cohort,
        "integration_cohort_name": cohort, "members": [{"integration_distinct_id": key}]}});
    let manifest = Integration::zeotap().manifest;
    let update = manifest.update(update.to_string().as_bytes()).unwrap();
    state.segments.apply("zeotap", &update).unwrap();
}

pub(super) fn events(news: &[Message]) -> Vec<&'static str> {
    news.iter().map(|message| message.event).collect()
}

fn context(key: &str) -> Value {
    json!({"kind": "user", "key": key})
}

/// The request of `GET PATH/{context}` or `REPORT PATH`.
fn asking(line: &str, key: &str, authorization: &str) -> Request<Body> {
    let (method, path) = line.split_once(' ').unwrap();
    let context = context(key).to_string();
    let request = Request::builder()
        .method(method)
        .header(header::AUTHORIZATION, authorization);
    if method == "REPORT" {
        let request = request.header(header::CONTENT_TYPE, "application/json; charset=utf-8");
        return request.uri(path).body(context.into()).unwrap();
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let encoded = BASE64_URL_SAFE.encode(context);
    let uri = format!("{path}/{encoded}?{query}");
    request.uri(uri).body(Body::empty()).unwrap()
}

async fn answer(sandbox: &Sandbox, request: Request<Body>) -> Response {
    sandbox.router().oneshot(request).await.unwrap()
}

async fn json_of(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 1024 * 1024).await.unwrap();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

async fn ask(sandbox: &Sandbox, line: &str, key: &str, authorization: &str) -> Value {
    let response = answer(sandbox, asking(line, key, authorization)).await;
    assert_eq!(response.status(), 200, "{line}");
    json_of(response).await
}

/// Paths of a client-side ID stand as they are sent.
fn with_id(path: &str) -> String {
    path.replace("ID", CLIENT_SIDE_ID)
}

const POLLS: [(&str, &str); 8] = [
    ("GET /msdk/evalx/contexts", MOBILE_KEY),
    ("GET /msdk/evalx/users", MOBILE_KEY),
    ("REPORT /msdk/evalx/context", MOBILE_KEY),
    ("REPORT /msdk/evalx/user", MOBILE_KEY),
    ("GET /sdk/evalx/ID/contexts", ""),
    ("GET /sdk/evalx/ID/users", ""),
    ("REPORT /sdk/evalx/ID/context", ""),
    ("REPORT /sdk/evalx/ID/user", ""),
];

const STREAMS: [(&str, &str); 4] = [
    ("GET /meval", MOBILE_KEY),
    ("REPORT /meval", MOBILE_KEY),
    ("GET /eval/ID", ""),
    ("REPORT /eval/ID", ""),
];

#[tokio::test]
async fn mobile_and_browser_sdks_are_told_the_same_by_get_and_by_report() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    for (line, key) in POLLS {
        let line = with_id(line);
        let ann = ask(&sandbox, &line, "ann", key).await;
        assert_eq!(ann[FLAG]["value"], true, "{line}");
        assert_eq!(ann[FLAG]["variation"], 0, "{line}");
        let bob = ask(&sandbox, &line, "bob", key).await;
        assert_eq!(bob[FLAG]["value"], false, "{line}");
    }
    let other_environment = "GET /msdk/evalx/contexts";
    let elsewhere = ask(&sandbox, other_environment, "ann", TEST_MOBILE_KEY).await;
    assert_eq!(elsewhere[FLAG]["value"], false);
    // No context may stand in the log, whatever the path.
    let log = get(&sandbox, "/_sandbox/calls?after=1", "").await.body;
    let encoded = BASE64_URL_SAFE.encode(context("ann").to_string());
    assert!(!log.to_string().contains(&encoded), "{log}");
}

#[tokio::test]
async fn streams_send_everything_then_what_changes() {
    let sandbox = Sandbox::default();
    for (line, key) in STREAMS {
        let line = with_id(line);
        let response = answer(&sandbox, asking(&line, "ann", key)).await;
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "text/event-stream"
        );
        let mut stream = response.into_body().into_data_stream();
        let mut heard = async |event: &str, value: bool| {
            let message = tokio::time::timeout(DEADLINE, stream.next()).await;
            let message = message.expect("an event").unwrap().unwrap();
            let message = String::from_utf8(message.to_vec()).unwrap();
            let start = format!("event: {event}\ndata: {{");
            assert!(message.starts_with(&start), "{line}: {message}");
            assert!(
                message.contains(&format!(r#""value":{value}"#)),
                "{message}"
            );
            assert!(!message.contains("reason"), "{message}");
        };
        heard("put", false).await;
        send(&sandbox, "add_members", &["ann"]).await;
        heard("patch", true).await;
        send(&sandbox, "remove_members", &["ann"]).await;
        heard("patch", false).await;
    }
}

#[tokio::test]
async fn old_sdks_are_told_when_to_ask_again() {
    let sandbox = Sandbox::default();
    for (path, key) in [("/mping", MOBILE_KEY), ("/ping/ID", "")] {
        let request = Request::get(with_id(path)).header(header::AUTHORIZATION, key);
        let response = answer(&sandbox, request.body(Body::empty()).unwrap()).await;
        let mut stream = response.into_body().into_data_stream();
        for change in ["add_members", "remove_members"] {
            let ping = tokio::time::timeout(DEADLINE, stream.next()).await;
            let ping = ping.expect("a ping").unwrap().unwrap();
            assert!(ping.starts_with(b"event: ping\n"), "{ping:?}");
            send(&sandbox, change, &["ann"]).await;
        }
    }
}

#[tokio::test]
async fn reasons_are_told_to_those_who_ask() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    let rule = json!({"kind": "RULE_MATCH", "ruleIndex": 0, "ruleId": "members"});
    for (line, key) in POLLS {
        let line = with_id(line);
        for (person, reason) in [("ann", &rule), ("bob", &json!({"kind": "FALLTHROUGH"}))] {
            let asked = format!("{line}?withReasons=true");
            let told = ask(&sandbox, &asked, person, key).await;
            assert_eq!(told[FLAG]["reason"], *reason, "{line}");
            assert_eq!(told[FLAG].get("trackReason"), None, "{line}");
            for unasked in ["", "?withReasons=false", "?h=1"] {
                let told = ask(&sandbox, &format!("{line}{unasked}"), person, key).await;
                assert_eq!(told[FLAG].get("reason"), None, "{line}{unasked}");
            }
        }
    }
    let path = format!("PUT /_sandbox/flags/{CLIENT_SIDE_ID}/{FLAG}");
    let off = json!({"segment": SEGMENT, "on": false});
    assert_eq!(call(&sandbox, &path, "", off).await.status, 204);
    let line = "REPORT /msdk/evalx/context?withReasons=true";
    let told = ask(&sandbox, line, "ann", MOBILE_KEY).await;
    assert_eq!(told[FLAG]["value"], false);
    assert_eq!(told[FLAG]["reason"], json!({"kind": "OFF"}));
    let flag = get(&sandbox, &format!("/sdk/flags/{FLAG}"), SDK_KEY).await;
    assert_eq!(flag.body["on"], false);
}

#[tokio::test]
async fn the_sdk_for_php_asks_for_one_flag_and_one_segment() {
    let sandbox = Sandbox::default();
    let segment = format!("/sdk/segments/{SEGMENT}");
    assert_eq!(get(&sandbox, &segment, SDK_KEY).await.status, 404);
    send(&sandbox, "add_members", &["ann"]).await;
    let segment = get(&sandbox, &segment, SDK_KEY).await.body;
    assert_eq!(segment["included"], json!(["ann"]));
    let flag = get(&sandbox, &format!("/sdk/flags/{FLAG}"), SDK_KEY)
        .await
        .body;
    assert_eq!(flag["rules"][0]["clauses"][0]["values"], json!([SEGMENT]));
    let flags = get(&sandbox, "/sdk/flags", SDK_KEY).await.body;
    assert_eq!(flags, json!({FLAG: flag}));
    let everything = get(&sandbox, "/sdk/latest-all", SDK_KEY).await.body;
    assert_eq!(
        everything,
        json!({"flags": flags, "segments": {SEGMENT: segment}})
    );
    for unknown in ["/sdk/flags/unknown", "/sdk/segments/unknown"] {
        assert_eq!(get(&sandbox, unknown, SDK_KEY).await.status, 404);
    }
}

#[tokio::test]
async fn what_an_sdk_has_already_is_not_sent_again() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    let segment = format!("/sdk/segments/{SEGMENT}");
    let flag = format!("/sdk/flags/{FLAG}");
    let by_sdk_key = ["/sdk/latest-all", "/sdk/flags", &flag, &segment].map(|path| {
        let request = Request::get(path).header(header::AUTHORIZATION, SDK_KEY);
        (path.to_owned(), request.body(Body::empty()).unwrap())
    });
    let by_context = POLLS.map(|(line, key)| {
        let line = with_id(line);
        let request = asking(&line, "ann", key);
        (line, request)
    });
    for (line, request) in by_sdk_key.into_iter().chain(by_context) {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, 1024).await.unwrap();
        let first = Request::from_parts(parts.clone(), Body::from(body.clone()));
        let first = answer(&sandbox, first).await;
        let mut again = Request::from_parts(parts, Body::from(body));
        let etag = first.headers()[header::ETAG].clone();
        again
            .headers_mut()
            .insert(header::IF_NONE_MATCH, etag.clone());
        let again = answer(&sandbox, again).await;
        assert_eq!(
            (first.status(), again.status()),
            (StatusCode::OK, StatusCode::NOT_MODIFIED),
            "{line}"
        );
        assert_eq!(again.headers()[header::ETAG], etag);
        assert_eq!(json_of(again).await, Value::Null, "{line}");
    }
    let before = get(&sandbox, "/sdk/latest-all", SDK_KEY).await.headers;
    send(&sandbox, "add_members", &["bob"]).await;
    let after = get(&sandbox, "/sdk/latest-all", SDK_KEY).await.headers;
    assert_ne!(before[header::ETAG], after[header::ETAG]);
}

#[tokio::test]
async fn each_key_opens_its_own_endpoints_alone() {
    let sandbox = Sandbox::default();
    let server = [
        "GET /all",
        "GET /sdk/latest-all",
        "GET /sdk/flags",
        "GET /sdk/flags/vip-banner",
        "GET /sdk/segments/zeotap-vip",
        "POST /bulk",
        "POST /diagnostic",
    ];
    for line in server {
        for wrong in ["", MOBILE_KEY, CLIENT_SIDE_ID, WRITER_TOKEN, "sdk-unknown"] {
            let reply = call(&sandbox, line, wrong, Value::Null).await;
            assert_eq!(reply.status, 401, "{line} {wrong}");
            assert_eq!(reply.body["code"], "unauthorized", "{line} {wrong}");
        }
    }
    let events = ["", "/events", "/events/bulk", "/events/diagnostic"];
    let mobile = events.map(|path| format!("POST /mobile{path}"));
    let pings = ["GET /mping".to_owned()];
    for line in mobile.iter().chain(&pings) {
        for wrong in ["", SDK_KEY, CLIENT_SIDE_ID, "mob-unknown"] {
            let reply = call(&sandbox, line, wrong, Value::Null).await;
            assert_eq!(reply.status, 401, "{line} {wrong}");
        }
    }
    for (line, key) in POLLS.into_iter().chain(STREAMS) {
        let (wrong, status) = match key {
            "" => (line.replace("ID", UNKNOWN_CLIENT_SIDE_ID), 404),
            _ => (line.to_owned(), 401),
        };
        let refused = answer(&sandbox, asking(&wrong, "ann", SDK_KEY)).await;
        assert_eq!(refused.status(), status, "{wrong}");
    }
}

#[tokio::test]
async fn events_of_every_sdk_are_taken() {
    let sandbox = Sandbox::default();
    for (path, key) in [
        ("/bulk", SDK_KEY),
        ("/diagnostic", SDK_KEY),
        ("/mobile", MOBILE_KEY),
        ("/mobile/events", MOBILE_KEY),
        ("/mobile/events/bulk", MOBILE_KEY),
        ("/mobile/events/diagnostic", MOBILE_KEY),
        ("/events/bulk/ID", ""),
        ("/events/diagnostic/ID", ""),
    ] {
        let line = format!("POST {}", with_id(path));
        let reply = call(&sandbox, &line, key, json!([])).await;
        assert_eq!(reply.status, 202, "{line}");
    }
    let unknown = format!("POST /events/bulk/{UNKNOWN_CLIENT_SIDE_ID}");
    assert_eq!(call(&sandbox, &unknown, "", json!([])).await.status, 404);
}

#[tokio::test]
async fn a_question_that_is_none_is_refused() {
    let sandbox = Sandbox::default();
    let report = "REPORT /msdk/evalx/context";
    let untyped = call(&sandbox, report, MOBILE_KEY, context("ann")).await;
    assert_eq!(untyped.status, 415);
    let nobody = answer(&sandbox, asking(report, "", MOBILE_KEY)).await;
    assert_eq!(nobody.status(), 400);
    let nobody = answer(&sandbox, asking("GET /meval", "", MOBILE_KEY)).await;
    assert_eq!(nobody.status(), 400);
    for line in [
        "GET /msdk/evalx/context",
        "POST /meval",
        "REPORT /sdk/latest-all",
    ] {
        let reply = call(&sandbox, line, MOBILE_KEY, Value::Null).await;
        assert_eq!(reply.status, 405, "{line}");
        assert_eq!(reply.body["code"], "method_not_allowed", "{line}");
    }
    // Browsers ask first, for REPORT too.
    let line = format!("OPTIONS /eval/{CLIENT_SIDE_ID}");
    let asked = call(&sandbox, &line, "", Value::Null).await;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.headers[header::ACCESS_CONTROL_ALLOW_METHODS], "*");
}

#[tokio::test]
async fn a_flag_is_off_for_everyone_until_it_is_turned_on() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    for on in [false, true] {
        sandbox.put_flag(
            CLIENT_SIDE_ID,
            Flag {
                key: FLAG.into(),
                segment: SEGMENT.into(),
                on,
            },
        );
        let line = with_id("REPORT /sdk/evalx/ID/context");
        let told = ask(&sandbox, &line, "ann", "").await;
        assert_eq!(told[FLAG]["value"], on);
    }
}
