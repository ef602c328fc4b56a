//! The sandbox as a caller meets it, without a socket.

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode, header},
};
use base64::{Engine, prelude::BASE64_URL_SAFE};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{
    fixtures::*,
    manifest::tests::{REGISTERED, kind_field, manifest, request},
    *,
};

const TARGETS: &str = "/api/v2/segment-targets/zeotap";
/// A window that has not ended since the epoch, so that no test straddles two.
const ENDLESS_MS: u64 = u64::MAX;

pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
}

impl Reply {
    fn header(&self, name: &str) -> u64 {
        self.headers[name].to_str().unwrap().parse().unwrap()
    }
}

pub(super) async fn call(sandbox: &Sandbox, line: &str, token: &str, body: Value) -> Reply {
    let (method, path) = line.split_once(' ').unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, token)
        .body(match body {
            Value::Null => Body::empty(),
            body => Body::from(body.to_string()),
        })
        .unwrap();
    let response = sandbox.router().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1024 * 1024).await.unwrap();
    Reply {
        status: parts.status,
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    }
}

pub(super) async fn get(sandbox: &Sandbox, path: &str, token: &str) -> Reply {
    call(sandbox, &format!("GET {path}"), token, Value::Null).await
}

fn update(action: &str, environment: &str, keys: &[&str]) -> Value {
    let members: Vec<_> = keys
        .iter()
        .map(|key| json!({ "integration_distinct_id": key }))
        .collect();
    json!({"action": action, "parameters": {
        "integration_project_id": environment, "integration_cohort_id": "vip",
        "integration_cohort_name": "VIP", "members": members}})
}

pub(super) async fn send(sandbox: &Sandbox, action: &str, keys: &[&str]) -> Reply {
    let body = update(action, CLIENT_SIDE_ID, keys);
    call(sandbox, &format!("POST {TARGETS}"), WRITER_TOKEN, body).await
}

fn members(sandbox: &Sandbox) -> Vec<String> {
    sandbox
        .members(CLIENT_SIDE_ID, SEGMENT)
        .into_iter()
        .collect()
}

#[tokio::test]
async fn each_token_may_do_what_its_role_allows() {
    // token, role shown, status of: its own entry, projects, a write
    let table = [
        (WRITER_TOKEN, Some("writer"), [200, 200, 204]),
        (READER_TOKEN, Some("reader"), [200, 200, 403]),
        (ADMIN_TOKEN, Some("admin"), [200, 200, 204]),
        (SERVICE_TOKEN, Some("writer"), [200, 200, 204]),
        (CUSTOM_WRITER_TOKEN, None, [200, 200, 204]),
        (CUSTOM_READER_TOKEN, None, [200, 200, 403]),
        (UNREADABLE_TOKEN, None, [403, 200, 204]),
        (NO_PROJECTS_TOKEN, Some("writer"), [200, 403, 204]),
        (OTHER_ACCOUNT_TOKEN, Some("writer"), [200, 200, 403]),
    ];
    let sandbox = Sandbox::default();
    for (token, role, statuses) in table {
        let identity = get(&sandbox, "/api/v2/caller-identity", token).await.body;
        let id = identity["tokenId"].as_str().unwrap();
        let entry = get(&sandbox, &format!("/api/v2/tokens/{id}"), token).await;
        let projects = get(&sandbox, "/api/v2/projects", token).await;
        let body = update("add_members", CLIENT_SIDE_ID, &["a"]);
        let write = call(&sandbox, &format!("POST {TARGETS}"), token, body).await;
        let seen = [&entry, &projects, &write].map(|reply| reply.status.as_u16());
        assert_eq!(
            (seen, entry.body["role"].as_str()),
            (statuses, role),
            "{id}"
        );
        assert_eq!(identity["serviceToken"], token == SERVICE_TOKEN);
    }
}

#[tokio::test]
async fn a_call_that_is_refused_names_its_reason_and_changes_nothing() {
    let good = || update("add_members", CLIENT_SIDE_ID, &["a"]);
    let bearer = format!("Bearer {WRITER_TOKEN}");
    let singular = "POST /api/v2/segment-target/zeotap";
    let unregistered = "POST /api/v2/segment-targets/acme";
    let get_targets = format!("GET {TARGETS}");
    let targets = format!("POST {TARGETS}");
    let elsewhere = |id| update("add_members", id, &["a"]);
    let nameless = json!({"action": "add_members"});
    let table = [
        (targets.as_str(), "", good(), 401, "unauthorized"),
        (&targets, "api-unknown", good(), 401, "unauthorized"),
        (&targets, &bearer, good(), 401, "unauthorized"),
        (&targets, READER_TOKEN, good(), 403, "forbidden"),
        (singular, WRITER_TOKEN, good(), 404, "not_found"),
        (unregistered, WRITER_TOKEN, good(), 404, "not_found"),
        (
            &get_targets,
            WRITER_TOKEN,
            good(),
            405,
            "method_not_allowed",
        ),
        (&targets, WRITER_TOKEN, nameless, 400, "invalid_request"),
        (
            &targets,
            WRITER_TOKEN,
            elsewhere(UNKNOWN_CLIENT_SIDE_ID),
            403,
            "forbidden",
        ),
        (
            &targets,
            WRITER_TOKEN,
            elsewhere(OTHER_ACCOUNT_CLIENT_SIDE_ID),
            403,
            "forbidden",
        ),
    ];
    let sandbox = Sandbox::default();
    for (line, token, body, status, code) in table {
        let reply = call(&sandbox, line, token, body).await;
        assert_eq!(reply.status, status, "{line}");
        assert_eq!(reply.body["code"], code, "{line}");
    }
    let segments = get(&sandbox, "/_sandbox/segments", "").await.body;
    assert_eq!(segments, json!({"segments": []}));
    assert!(sandbox.calls().iter().all(|call| call.applied.is_none()));
}

#[tokio::test]
async fn an_environment_on_the_last_page_of_both_lists_is_found_by_following_links() {
    let sandbox = Sandbox::default();
    let mut ids = vec![];
    let mut projects = Some("/api/v2/projects?expand=environments".to_owned());
    while let Some(page) = projects {
        let list = get(&sandbox, &page, READER_TOKEN).await.body;
        assert_eq!(list["totalCount"], 24);
        for project in list["items"].as_array().unwrap() {
            let mut environments = project["environments"].clone();
            loop {
                let items = environments["items"].as_array().unwrap();
                ids.extend(
                    items
                        .iter()
                        .map(|item| item["_id"].as_str().unwrap().to_owned()),
                );
                let Some(next) = next_page(&environments) else {
                    break;
                };
                environments = get(&sandbox, &next, READER_TOKEN).await.body;
            }
        }
        // The next page is asked for as a client would: with its own expansion.
        projects = next_page(&list).map(|next| format!("{next}&expand=environments"));
    }
    let known: Vec<_> = fixtures::world().accounts[0]
        .projects
        .iter()
        .flat_map(|project| &project.environments)
        .map(|environment| environment.client_side_id.clone())
        .collect();
    assert_eq!(ids, known);
    let refused = get(&sandbox, "/api/v2/projects?limit=x", READER_TOKEN).await;
    assert_eq!(refused.status, 400);
}

fn next_page(list: &Value) -> Option<String> {
    Some(list["_links"]["next"]["href"].as_str()?.to_owned())
}

#[tokio::test]
async fn anyone_may_ask_whether_a_client_side_id_exists() {
    let sandbox = Sandbox::default();
    for (id, status) in [
        (CLIENT_SIDE_ID, 200),
        (OTHER_ACCOUNT_CLIENT_SIDE_ID, 200),
        (UNKNOWN_CLIENT_SIDE_ID, 404),
    ] {
        for method in ["GET", "HEAD"] {
            let reply = call(
                &sandbox,
                &format!("{method} /sdk/goals/{id}"),
                "",
                Value::Null,
            )
            .await;
            assert_eq!(reply.status, status);
            assert_eq!(reply.headers["access-control-allow-origin"], "*");
        }
    }
    let path = format!("/sdk/goals/{CLIENT_SIDE_ID}");
    assert_eq!(get(&sandbox, &path, "").await.body, json!([]));
    let asked_first = call(&sandbox, &format!("OPTIONS {path}"), "", Value::Null).await;
    assert_eq!(asked_first.status, 204);
    assert_eq!(asked_first.headers["access-control-allow-headers"], "*");
}

#[tokio::test]
async fn the_account_hears_what_is_left_of_its_window_until_429() {
    let sandbox = Sandbox::new(SandboxOptions {
        limits: RateLimits {
            global: 3,
            route: 2,
            window_ms: ENDLESS_MS,
            ..RateLimits::default()
        },
        ..SandboxOptions::default()
    });
    let before = now_ms();
    let mut seen = vec![];
    for path in [
        "versions",
        "versions",
        "versions",
        "caller-identity",
        "caller-identity",
    ] {
        let reply = get(&sandbox, &format!("/api/v2/{path}"), READER_TOKEN).await;
        assert!(reply.header("x-ratelimit-reset") > before);
        let left = reply.header("x-ratelimit-global-remaining");
        seen.push((
            reply.status.as_u16(),
            left,
            reply.header("x-ratelimit-route-remaining"),
        ));
    }
    assert_eq!(
        seen,
        [
            (200, 2, 1),
            (200, 1, 0),
            (429, 0, 0),
            (429, 0, 1),
            (429, 0, 0)
        ]
    );
    let other = get(&sandbox, "/api/v2/versions", OTHER_ACCOUNT_TOKEN).await;
    assert_eq!(other.status, 200);
    let raised = call(&sandbox, "PUT /_sandbox/limits", "", json!({"global": 50})).await;
    assert_eq!(raised.body["window_ms"], 10_000);
    assert_eq!(
        get(&sandbox, "/api/v2/versions", READER_TOKEN).await.status,
        200
    );
}

#[tokio::test]
async fn an_address_over_its_limit_is_told_how_many_seconds_to_wait() {
    let sandbox = Sandbox::default();
    let limits = json!({"window_ms": ENDLESS_MS, "ip": {"calls": 1, "retry_after_s": 7}});
    call(&sandbox, "PUT /_sandbox/limits", "", limits).await;
    assert_eq!(
        get(&sandbox, "/api/v2/versions", READER_TOKEN).await.status,
        200
    );
    let refused = get(&sandbox, "/api/v2/versions", READER_TOKEN).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (429, 7)
    );
    assert!(!refused.headers.contains_key("x-ratelimit-reset"));
}

#[tokio::test]
async fn one_refused_key_leaves_its_neighbours_out_too() {
    let sandbox = Sandbox::default();
    let faults = json!({"refused_keys": ["bad"], "max_members": 3});
    call(&sandbox, "PUT /_sandbox/faults", "", faults).await;
    assert_eq!(
        send(&sandbox, "add_members", &["a", "bad"]).await.status,
        400
    );
    assert_eq!(
        send(&sandbox, "add_members", &["a", "b", "c", "d"])
            .await
            .status,
        413
    );
    assert!(members(&sandbox).is_empty());
    assert_eq!(send(&sandbox, "add_members", &["a", "b"]).await.status, 204);
    assert_eq!(members(&sandbox), ["a", "b"]);
}

#[tokio::test]
async fn an_ambiguous_failure_was_applied_and_a_plain_one_was_not() {
    let sandbox = Sandbox::default();
    let status = FaultKind::Status(StatusCode::INTERNAL_SERVER_ERROR);
    sandbox.set_faults(FaultPlan {
        faults: vec![
            Fault::new(status.clone()).for_calls(1),
            Fault::new(status).for_calls(1).after_applying(),
        ],
        ..FaultPlan::default()
    });
    assert_eq!(send(&sandbox, "add_members", &["a"]).await.status, 500);
    assert!(members(&sandbox).is_empty());
    assert_eq!(send(&sandbox, "add_members", &["b"]).await.status, 500);
    assert_eq!(members(&sandbox), ["b"]);
    assert_eq!(send(&sandbox, "remove_members", &["b"]).await.status, 204);
    let log = sandbox.calls();
    let noted: Vec<_> = log
        .iter()
        .map(|call| (call.status, call.fault, call.applied))
        .collect();
    assert_eq!(
        noted,
        [
            (Some(500), Some("status"), None),
            (Some(500), Some("status"), Some(1)),
            (Some(204), None, Some(2)),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn answers_may_be_late_foul_endless_or_lead_astray() {
    let sandbox = Sandbox::default();
    let fault = |how: Value| json!({"latency_ms": 400, "mishaps": [{"how": how, "calls": 1}]});
    let started = tokio::time::Instant::now();
    for (how, status, location, least, most) in [
        (json!({"garbage": 200}), 200, None, 1, 100),
        (json!({"huge": 500}), 500, None, 100 << 20, 100 << 20),
        (json!({"drip": 200}), 200, None, 3_600, 3_600),
        (
            json!({"redirect": "http://127.0.0.1:9/"}),
            307,
            Some("http://127.0.0.1:9/"),
            0,
            0,
        ),
    ] {
        call(&sandbox, "PUT /_sandbox/faults", "", fault(how)).await;
        let request = Request::post(TARGETS)
            .header(header::AUTHORIZATION, WRITER_TOKEN)
            .body(Body::from(
                update("add_members", CLIENT_SIDE_ID, &["a"]).to_string(),
            ))
            .unwrap();
        let response = sandbox.router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        let to = response
            .headers()
            .get(header::LOCATION)
            .map(|to| to.to_str().unwrap());
        assert_eq!(to, location);
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        assert!((least..=most).contains(&bytes.len()), "{}", bytes.len());
    }
    let waited = Duration::from_millis(4 * 400) + Duration::from_secs(3_599);
    assert_eq!(started.elapsed().as_secs(), waited.as_secs());
    assert!(members(&sandbox).is_empty());
}

#[tokio::test]
async fn an_answer_that_is_not_launchdarklys_comes_in_the_form_asked_for() {
    let sandbox = Sandbox::default();
    // how, content type, what the body starts with
    let table = [
        ("status", 200, "", ""),
        ("status", 421, "application/json", "{\"code\":"),
        ("page", 200, "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("page", 403, "text/html; charset=utf-8", "<!DOCTYPE html>"),
        ("text", 502, "text/plain; charset=utf-8", "this answer"),
        ("json", 201, "application/json", "{\"asked_for\":true}"),
        ("empty", 403, "", ""),
    ];
    for (how, status, content_type, start) in table {
        let faults = json!({"mishaps": [{"how": {how: status}}]});
        let put = call(&sandbox, "PUT /_sandbox/faults", "", faults).await;
        assert_eq!(put.status, 200, "{}", put.body);
        let request = Request::post(TARGETS).body(Body::empty()).unwrap();
        let response = sandbox.router().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 1024).await.unwrap();
        assert_eq!(parts.status, status, "{how}");
        let seen = parts.headers.get(header::CONTENT_TYPE);
        let seen = seen.map_or("", |seen| seen.to_str().unwrap());
        assert_eq!(seen, content_type, "{how}");
        assert!(bytes.starts_with(start.as_bytes()), "{how}: {bytes:?}");
        assert_eq!(bytes.is_empty(), start.is_empty(), "{how}: {bytes:?}");
        assert_eq!(sandbox.calls().last().unwrap().fault, Some(how));
    }
}

#[tokio::test]
async fn a_fault_of_one_environment_or_segment_spares_the_others() {
    let sandbox = Sandbox::default();
    let unavailable = || Fault::new(FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE));
    let post = |environment, cohort: &'static str| {
        let mut body = update("add_members", environment, &["a"]);
        body["parameters"]["integration_cohort_id"] = cohort.into();
        body
    };
    for (fault, statuses) in [
        (
            unavailable().of_environment(CLIENT_SIDE_ID),
            [503, 503, 204],
        ),
        (unavailable().of_segment("vip"), [503, 204, 503]),
        (
            unavailable()
                .of_environment(CLIENT_SIDE_ID)
                .of_segment("vip"),
            [503, 204, 204],
        ),
    ] {
        sandbox.set_faults(FaultPlan {
            faults: vec![fault],
            ..FaultPlan::default()
        });
        let line = format!("POST {TARGETS}");
        let mut seen = vec![];
        for body in [
            post(CLIENT_SIDE_ID, "vip"),
            post(CLIENT_SIDE_ID, "new"),
            post(TEST_CLIENT_SIDE_ID, "vip"),
        ] {
            let reply = call(&sandbox, &line, WRITER_TOKEN, body).await;
            seen.push(reply.status.as_u16());
        }
        assert_eq!(seen, statuses);
        // A body that cannot be read is refused for what it is.
        let unreadable = json!({"parameters": {"integration_project_id": CLIENT_SIDE_ID}});
        let reply = call(&sandbox, &line, WRITER_TOKEN, unreadable).await;
        assert_eq!(reply.status, 400);
    }
}

#[tokio::test]
async fn launchdarklys_clock_may_be_ahead_or_behind() {
    let sandbox = Sandbox::default();
    for ahead_ms in [0, 3_600_000, -3_600_000, i64::MAX, i64::MIN] {
        let faults = json!({"clock_ahead_ms": ahead_ms});
        call(&sandbox, "PUT /_sandbox/faults", "", faults).await;
        let least = now_ms().saturating_add_signed(ahead_ms);
        let answer = get(&sandbox, "/api/v2/versions", READER_TOKEN).await;
        let most = now_ms().saturating_add_signed(ahead_ms);
        let reset = answer.header("x-ratelimit-reset");
        assert!((least..=most.saturating_add(10_000)).contains(&reset));
        for reply in [
            answer,
            get(&sandbox, "/api/v2/nowhere", "").await,
            get(&sandbox, &format!("/sdk/goals/{CLIENT_SIDE_ID}"), "").await,
        ] {
            let date = reply.headers[header::DATE].to_str().unwrap();
            let date = httpdate::parse_http_date(date).unwrap();
            let date_ms = date.duration_since(UNIX_EPOCH).unwrap().as_millis();
            let year_9999_ms = 253_402_300_799_000;
            let whole_seconds = |ms: u64| u128::from(ms) / 1_000 * 1_000;
            let expected = whole_seconds(least).min(year_9999_ms)..=most.into();
            assert!(expected.contains(&date_ms), "{ahead_ms}: {date_ms}");
        }
    }
}

#[tokio::test]
async fn the_log_says_who_came_when_and_where_to_but_shows_no_token() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    let context = "eyJrZXkiOiJhbm4ifQ";
    let path = format!("/sdk/evalx/{CLIENT_SIDE_ID}/contexts/{context}");
    assert_eq!(get(&sandbox, &path, "").await.body[FLAG]["value"], true);
    let log = get(&sandbox, "/_sandbox/calls", "").await.body;
    let first = &log["calls"][0];
    assert_eq!(first["path"], TARGETS);
    assert_eq!(first["action"], "add_members");
    assert_eq!(first["segment"], SEGMENT);
    assert_eq!(first["kind"], "user");
    assert_eq!(first["keys"], json!(["ann"]));
    assert_eq!(log["totals"]["statuses"], json!({"200": 1, "204": 1}));
    assert!(!log.to_string().contains("api-0") && !log.to_string().contains(context));
    assert!(!format!("{:?}", sandbox.calls()).contains("ann"));
    for (query, numbers) in [
        ("after=1", vec![2]),
        ("limit=1", vec![2]),
        ("after=0&limit=1", vec![1]),
    ] {
        let window = get(&sandbox, &format!("/_sandbox/calls?{query}"), "")
            .await
            .body;
        let calls = window["calls"].as_array().unwrap().iter();
        let seen: Vec<_> = calls.map(|call| call["number"].as_i64().unwrap()).collect();
        assert_eq!(seen, numbers, "{query}");
    }
}

#[tokio::test]
async fn a_flag_for_another_segment_can_be_added_while_it_runs() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    let put = |id| format!("PUT /_sandbox/flags/{id}/new-menu");
    let target = json!({"segment": SEGMENT});
    assert_eq!(
        call(&sandbox, &put(CLIENT_SIDE_ID), "", target.clone())
            .await
            .status,
        204
    );
    assert_eq!(
        call(&sandbox, &put(UNKNOWN_CLIENT_SIDE_ID), "", target)
            .await
            .status,
        404
    );
    let poll = get(&sandbox, "/sdk/latest-all", SDK_KEY).await.body;
    assert!(poll["flags"]["new-menu"].is_object() && poll["flags"][FLAG].is_object());
    assert_eq!(poll["segments"][SEGMENT]["included"], json!(["ann"]));
    let other = get(&sandbox, "/sdk/latest-all", TEST_SDK_KEY).await.body;
    assert!(other["flags"]["new-menu"].is_null() && other["segments"] == json!({}));
    assert_eq!(
        get(&sandbox, "/sdk/latest-all", WRITER_TOKEN).await.status,
        401
    );
}

#[tokio::test]
async fn the_front_page_names_what_there_is() {
    let sandbox = Sandbox::default();
    let request = Request::get("/").body(Body::empty()).unwrap();
    let response = sandbox.router().oneshot(request).await.unwrap();
    let page = to_bytes(response.into_body(), 1024 * 1024).await.unwrap();
    let page = String::from_utf8(page.to_vec()).unwrap();
    for word in [
        CLIENT_SIDE_ID,
        SDK_KEY,
        MOBILE_KEY,
        WRITER_TOKEN,
        FLAG,
        "/msdk/evalx/context",
        "clock_ahead_ms",
        "segment",
        "integrations     zeotap\n",
    ] {
        assert!(page.contains(word), "{word}");
    }
    assert!(page.lines().all(|line| line.len() <= 100), "too wide");
}

#[tokio::test]
async fn a_reset_returns_to_the_settings() {
    let sandbox = Sandbox::default();
    send(&sandbox, "add_members", &["ann"]).await;
    sandbox.set_limits(RateLimits {
        global: 0,
        ..RateLimits::default()
    });
    sandbox.set_faults(FaultPlan {
        latency_ms: 1,
        ..FaultPlan::default()
    });
    call(&sandbox, "POST /_sandbox/reset", "", Value::Null).await;
    assert!(members(&sandbox).is_empty());
    assert_eq!(sandbox.totals(), Totals::default());
    assert_eq!(
        (sandbox.limits(), sandbox.faults()),
        (RateLimits::default(), FaultPlan::default())
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    let sandbox = Sandbox::new(SandboxOptions {
        max_body_bytes: 300,
        ..SandboxOptions::default()
    });
    assert_eq!(send(&sandbox, "add_members", &["a"]).await.status, 204);
    let reply = send(&sandbox, "add_members", &["x".repeat(300).as_str()]).await;
    assert_eq!(reply.status, 413);
    let fault = json!({"max_body_bytes": 10});
    call(&sandbox, "PUT /_sandbox/faults", "", fault).await;
    assert_eq!(send(&sandbox, "add_members", &["a"]).await.status, 413);
}

#[tokio::test]
async fn observers_are_told_of_each_applied_call_in_order_and_of_no_other() {
    let sandbox = Sandbox::default();
    let (told, heard) = std::sync::mpsc::channel();
    sandbox.observe(move |applied| {
        let Applied { environment, .. } = *applied;
        let keys = applied.keys.to_vec();
        told.send((
            environment.to_owned(),
            applied.segment.clone(),
            applied.adds,
            keys,
        ))
        .unwrap();
    });
    sandbox.set_faults(FaultPlan {
        refused_keys: Hidden(["bad".to_owned()].into()),
        faults: vec![
            Fault::new(FaultKind::Status(StatusCode::BAD_GATEWAY)).for_calls(1),
            Fault::new(FaultKind::Status(StatusCode::BAD_GATEWAY))
                .for_calls(1)
                .after_applying(),
        ],
        ..FaultPlan::default()
    });
    send(&sandbox, "add_members", &["failed"]).await;
    send(&sandbox, "add_members", &["a", "b"]).await;
    send(&sandbox, "add_members", &["a", "bad"]).await;
    sandbox.reset();
    send(&sandbox, "remove_members", &["b"]).await;
    let all: Vec<_> = heard.try_iter().collect();
    let told = |adds, keys: &[&str]| {
        let keys: Vec<_> = keys.iter().map(|&key| key.to_owned()).collect();
        (CLIENT_SIDE_ID.to_owned(), SEGMENT.to_owned(), adds, keys)
    };
    assert_eq!(all, [told(true, &["a", "b"]), told(false, &["b"])]);
}

/// A sandbox with every registered integration.
fn with_every_integration() -> Sandbox {
    let integration = |key: &str| Integration {
        key: key.into(),
        manifest: manifest(key),
    };
    Sandbox::new(SandboxOptions {
        integrations: REGISTERED.map(integration).to_vec(),
        ..SandboxOptions::default()
    })
}

/// Sends what an integration would; of this kind, if it is not `user`.
async fn send_as(sandbox: &Sandbox, integration: &str, kind: &str, body: Option<Value>) -> Reply {
    let mut body = body.unwrap();
    if kind != "user" {
        body[kind_field(integration).unwrap()] = kind.into();
    }
    let line = format!("POST /api/v2/segment-targets/{integration}");
    call(sandbox, &line, WRITER_TOKEN, body).await
}

fn target(sandbox: &Sandbox, segment: &str) {
    let flag = Flag {
        key: FLAG.into(),
        segment: segment.into(),
        on: true,
    };
    sandbox.put_flag(CLIENT_SIDE_ID, flag);
}

/// What a browser is told of the flag.
async fn value_for(sandbox: &Sandbox, context: &Value) -> bool {
    let context = BASE64_URL_SAFE.encode(context.to_string());
    let path = format!("/sdk/evalx/{CLIENT_SIDE_ID}/contexts/{context}");
    let told = get(sandbox, &path, "").await;
    told.body[FLAG]["value"].as_bool().unwrap()
}

#[tokio::test]
async fn every_registered_integration_flips_a_flag_for_contexts_of_its_kind_alone() {
    for key in REGISTERED {
        for kind in ["user", "account"] {
            if kind != "user" && kind_field(key).is_none() {
                continue;
            }
            let sandbox = with_every_integration();
            let segment = format!("{key}-vip");
            target(&sandbox, &segment);
            let add = request(key, &["acme", "other"], &[]);
            let status = send_as(&sandbox, key, kind, add).await.status;
            assert!(matches!(status.as_u16(), 200 | 204), "{key}: {status}");
            let single = |kind: &str, key: &str| json!({"kind": kind, "key": key});
            let multi = |account: &str, user: &str| json!({"kind": "multi", "account": {"key": account}, "user": {"key": user}});
            let is_of = |asked: &str| kind == asked;
            for (context, expected) in [
                (single("user", "acme"), is_of("user")),
                (single("account", "acme"), is_of("account")),
                (single("device", "acme"), false),
                (multi("acme", "ann"), is_of("account")),
                (multi("zeta", "acme"), is_of("user")),
                (multi("zeta", "ann"), false),
            ] {
                let value = value_for(&sandbox, &context).await;
                assert_eq!(value, expected, "{key} {kind} {context}");
            }
            let server = get(&sandbox, "/sdk/latest-all", SDK_KEY).await.body;
            let told = &server["segments"][&segment];
            let (included, of_kinds) = match kind {
                "user" => (json!(["acme", "other"]), json!([])),
                _ => (
                    json!([]),
                    json!([{"contextKind": kind, "values": ["acme", "other"]}]),
                ),
            };
            assert_eq!(told["included"], included, "{key}");
            assert_eq!(told["includedContexts"], of_kinds, "{key}");

            let remove = request(key, &[], &["acme"]);
            send_as(&sandbox, key, kind, remove).await;
            assert!(!value_for(&sandbox, &single(kind, "acme")).await, "{key}");
            assert!(value_for(&sandbox, &single(kind, "other")).await, "{key}");
            if let Some(both) = request(key, &["acme"], &["other"]) {
                send_as(&sandbox, key, kind, Some(both)).await;
                assert!(value_for(&sandbox, &single(kind, "acme")).await, "{key}");
                assert!(!value_for(&sandbox, &single(kind, "other")).await, "{key}");
            }
        }
    }
}

#[tokio::test]
async fn a_call_of_another_kind_than_its_segment_is_refused() {
    let sandbox = with_every_integration();
    let add = |key| request("fulcrum", &[key], &["gone"]);
    let first = send_as(&sandbox, "fulcrum", "account", add("acme")).await;
    assert_eq!(first.status, 204);
    for kind in ["user", "device"] {
        let refused = send_as(&sandbox, "fulcrum", kind, add("ann")).await;
        assert_eq!(refused.status, 400);
        assert_eq!(refused.body["code"], "invalid_request");
    }
    let segment = sandbox.segment(CLIENT_SIDE_ID, "fulcrum-vip").unwrap();
    assert_eq!((&*segment.kind, segment.members.len()), ("account", 1));
    // The segment of another integration has a kind of its own.
    let other = request("hightouch", &["ann"], &[]);
    assert_eq!(
        send_as(&sandbox, "hightouch", "user", other).await.status,
        204
    );
    let list = get(&sandbox, "/_sandbox/segments", "").await.body;
    let kinds: Vec<_> = list["segments"].as_array().unwrap().iter().collect();
    let kinds: Vec<_> = kinds.iter().map(|each| each["kind"].as_str()).collect();
    assert_eq!(kinds, [Some("account"), Some("user")]);
    let path = format!("/_sandbox/segments/{CLIENT_SIDE_ID}/fulcrum-vip");
    assert_eq!(get(&sandbox, &path, "").await.body["kind"], "account");
    // A reset forgets the kind with the segment.
    sandbox.reset();
    let again = send_as(&sandbox, "fulcrum", "device", add("ann")).await;
    assert_eq!(again.status, 204);
}

#[tokio::test]
async fn a_manifest_with_a_response_body_is_answered_with_it() {
    let sandbox = with_every_integration();
    let add = || request("heap-inbound", &["ann"], &[]);
    let done = send_as(&sandbox, "heap-inbound", "user", add()).await;
    assert_eq!(done.status, 200);
    let place = "https://app.launchdarkly.com/journeys/production/segments/heap-inbound-vip";
    assert_eq!(
        done.body,
        json!({"projectId": "journeys", "environmentId": "production",
            "segmentId": "heap-inbound-vip", "segmentUrl": place, "status": "success"})
    );
    let mut wrong = add().unwrap();
    wrong["heap"]["data"]["segment"]["name"] = Value::Null;
    let refused = send_as(&sandbox, "heap-inbound", "user", Some(wrong)).await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.body["status"], "failure");
    assert_eq!(
        refused.body["error"],
        json!({"code": 400,
            "message": "/heap/data/segment/name must be a text that is not empty"})
    );
    // Who is refused is not yet read.
    let line = "POST /api/v2/segment-targets/heap-inbound";
    let unauthorized = call(&sandbox, line, "", add().unwrap()).await;
    assert_eq!(unauthorized.body["code"], "unauthorized");

    let key = "example-synced-segment-integration2";
    let done = send_as(&sandbox, key, "account", request(key, &["acme"], &[])).await;
    assert_eq!(done.body["contextKind"], "account");
    // What would not be JSON is a failure of LaunchDarkly's, after the call was carried out.
    let mut quoted = request(key, &["zeta"], &[]).unwrap();
    quoted["environmentId"] = json!("\\");
    let failed = send_as(&sandbox, key, "account", Some(quoted)).await;
    assert_eq!(failed.status, 500);
    let members = sandbox.members(CLIENT_SIDE_ID, &format!("{key}-vip"));
    assert_eq!(members.len(), 2);
}

#[tokio::test]
async fn log_listeners_and_faults_know_each_segment_of_a_call() {
    let sandbox = with_every_integration();
    let (told, heard) = std::sync::mpsc::channel();
    sandbox.observe(move |applied| {
        let keys = applied.keys.join(",");
        let kind = applied.kind.to_owned();
        told.send((applied.segment.clone(), kind, applied.adds, keys))
            .unwrap();
    });
    let member = |cohort: &str, user: &str, value: bool| json!({"cohortId": cohort, "cohortName": cohort, "userId": user, "value": value});
    let body = json!({"environmentId": CLIENT_SIDE_ID, "batch": [
        member("vip", "a", true), member("new", "b", false), member("vip", "c", true),
        member("vip", "d", false)]});
    let key = "segment-audiences";
    let done = send_as(&sandbox, key, "account", Some(body.clone())).await;
    assert_eq!(done.status, 204);
    let (vip, new) = ("segment-audiences-vip", "segment-audiences-new");
    let part = |segment: &str, adds, keys: &str| {
        (
            segment.to_owned(),
            "account".to_owned(),
            adds,
            keys.to_owned(),
        )
    };
    assert_eq!(
        heard.try_iter().collect::<Vec<_>>(),
        [
            part(vip, true, "a,c"),
            part(vip, false, "d"),
            part(new, false, "b")
        ]
    );
    let log = get(&sandbox, "/_sandbox/calls", "").await.body;
    let call = &log["calls"][0];
    assert_eq!(call["segment"], vip);
    assert_eq!(call["segments"], json!([vip, new]));
    assert_eq!(call["kind"], "account");
    assert_eq!(call["action"], Value::Null);
    assert_eq!(
        (&call["members"], &call["removals"]),
        (&json!(4), &json!(2))
    );
    for (cohort, status) in [("vip", 503), ("new", 503), ("old", 204)] {
        let unavailable = Fault::new(FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE));
        sandbox.set_faults(FaultPlan {
            faults: vec![unavailable.of_segment(cohort)],
            ..FaultPlan::default()
        });
        let reply = send_as(&sandbox, key, "account", Some(body.clone())).await;
        assert_eq!(reply.status, status, "{cohort}");
    }
}
