//! The control interface for people and tests: `/_sandbox/` shows and changes the sandbox.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::{get, post, put},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    FaultPlan, Flag, RateLimits, Sandbox,
    api_error::ApiError,
    fixtures::{CLIENT_SIDE_ID, FLAG, MOBILE_KEY, SDK_KEY, SEGMENT, WRITER_TOKEN},
};

/// Calls shown at once unless asked otherwise: what a terminal takes.
const CALLS_SHOWN: u64 = 100;

const INDEX: &str = "\
A look-alike of LaunchDarkly for development and tests. Not LaunchDarkly, and nothing here is real.

REST API (Authorization: <access token>)
  POST /api/v2/segment-targets/{integration}
  GET  /api/v2/caller-identity
  GET  /api/v2/tokens/{id}
  GET  /api/v2/projects?expand=environments&limit=20&offset=0
  GET  /api/v2/projects/{key}/environments?limit=20&offset=0
  GET  /api/v2/versions

Server-side SDKs (Authorization: <SDK key>)
  GET  /all
  GET  /sdk/latest-all
  GET  /sdk/flags, /sdk/flags/{flag}, /sdk/segments/{segment}   (as the SDK for PHP asks)
  POST /bulk, /diagnostic

Mobile SDKs (Authorization: <mobile key>)
  GET     /msdk/evalx/contexts/{base64 context}, /meval/{base64 context}, /mping
  REPORT  /msdk/evalx/context, /meval
  POST    /mobile, /mobile/events, /mobile/events/bulk, /mobile/events/diagnostic

SDKs of browsers
  GET     /sdk/evalx/{clientSideId}/contexts/{base64 context}, /eval/{clientSideId}/{base64 context}
  REPORT  /sdk/evalx/{clientSideId}/context, /eval/{clientSideId}
  GET     /ping/{clientSideId}, /sdk/goals/{clientSideId}
  POST    /events/bulk/{clientSideId}, /events/diagnostic/{clientSideId}

With REPORT the context is the body. Both kinds give reasons if asked with ?withReasons=true; the
paths of older SDKs, users/ and user instead of contexts/ and context, are the same.

The sandbox itself
  GET               /_sandbox/segments
  GET               /_sandbox/segments/{clientSideId}/{segment}
  GET               /_sandbox/calls?after=0&limit=100        (without after: the latest)
  PUT               /_sandbox/flags/{clientSideId}/{flag}
                        {\"segment\":\"zeotap-vip\",\"on\":true}
  GET, PUT, DELETE  /_sandbox/faults
                        {\"latency_ms\":50,\"mishaps\":[{\"how\":{\"status\":503},\"rate\":0.2}]}
  GET, PUT, DELETE  /_sandbox/limits
                        {\"global\":50,\"route\":20}
  POST              /_sandbox/reset

Faults, of which each may be left out
  path_prefix       which calls are harmed; /api/v2/segment-targets/ unless told
  latency_ms, jitter_ms, seed
  clock_ahead_ms    how far LaunchDarkly's clock is ahead: Date, X-Ratelimit-Reset of every answer
  refused_keys      members for which a whole call is refused with 400
  max_body_bytes, max_members
                    larger calls are answered 413
  mishaps           a list; the first that is drawn happens:
    how             \"hang\", \"reset\", {\"redirect\":\"http://...\"}, or one of these with a status, as
                    {\"status\":503}: status (LaunchDarkly's error; 2xx without a body), empty,
                    json, text, page (HTML), garbage, huge (100 MiB), drip (a byte a second)
    rate, calls     the share of calls, from 0 to 1; how many calls until it is over
    when            \"instead\" (of applying the call), \"after_applying\"
    account, environment, segment
                    the account ID, client-side ID, cohort ID whose calls alone it hits
";

pub(super) fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/", get(front_page))
        .route("/_sandbox/segments", get(segments))
        .route("/_sandbox/segments/{environment}/{key}", get(segment))
        .route("/_sandbox/calls", get(calls))
        .route("/_sandbox/flags/{environment}/{flag}", put(put_flag))
        .route(
            "/_sandbox/faults",
            get(faults).put(put_faults).delete(delete_faults),
        )
        .route(
            "/_sandbox/limits",
            get(limits).put(put_limits).delete(delete_limits),
        )
        .route("/_sandbox/reset", post(reset))
}

async fn front_page(State(sandbox): State<Sandbox>) -> String {
    let integrations = sandbox.options().integrations.iter();
    let integrations: Vec<_> = integrations.map(|each| each.key.as_str()).collect();
    let integrations = integrations.join("\n                   ");
    format!(
        "{INDEX}
What there is
  access token     {WRITER_TOKEN} (others: launchdarkly-connector sandbox)
  client-side ID   {CLIENT_SIDE_ID}
  SDK key          {SDK_KEY}
  mobile key       {MOBILE_KEY}
  integrations     {integrations}
  flag             {FLAG}, true for members of the segment {SEGMENT}
"
    )
}

async fn segments(State(sandbox): State<Sandbox>) -> Json<Value> {
    let state = sandbox.lock();
    let segments: Vec<_> = state
        .segments
        .by_environment()
        .map(|(environment, segment)| {
            json!({"environment": environment, "key": segment.key, "name": segment.name,
                "kind": segment.kind, "version": segment.version, "members": segment.members.len()})
        })
        .collect();
    Json(json!({ "segments": segments }))
}

async fn segment(
    State(sandbox): State<Sandbox>,
    Path((environment, key)): Path<(String, String)>,
) -> Result<Json<super::Segment>, ApiError> {
    sandbox
        .segment(&environment, &key)
        .map(Json)
        .ok_or_else(ApiError::not_found)
}

#[derive(Deserialize)]
struct CallRange {
    after: Option<u64>,
    limit: Option<u64>,
}

/// The calls after a number, or the latest.
async fn calls(State(sandbox): State<Sandbox>, Query(window): Query<CallRange>) -> Json<Value> {
    let state = sandbox.lock();
    let limit = window.limit.unwrap_or(CALLS_SHOWN);
    let latest = state.calls.last().saturating_sub(limit);
    let log = state.calls.after(window.after.unwrap_or(latest));
    let calls: Vec<_> = log.zip(0..limit).map(|(call, _)| call).collect();
    Json(json!({"totals": state.calls.totals(), "calls": calls}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FlagTarget {
    segment: String,
    #[serde(default = "is_on")]
    on: bool,
}

fn is_on() -> bool {
    true
}

async fn put_flag(
    State(sandbox): State<Sandbox>,
    Path((environment, key)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, ApiError> {
    let FlagTarget { segment, on } = read(&body)?;
    if sandbox.options().world.environment(&environment).is_none() {
        return Err(ApiError::not_found());
    }
    sandbox.put_flag(&environment, Flag { key, segment, on });
    Ok(StatusCode::NO_CONTENT)
}

async fn faults(State(sandbox): State<Sandbox>) -> Json<FaultPlan> {
    Json(sandbox.faults())
}

async fn put_faults(
    State(sandbox): State<Sandbox>,
    body: Bytes,
) -> Result<Json<FaultPlan>, ApiError> {
    sandbox.set_faults(read(&body)?);
    Ok(Json(sandbox.faults()))
}

async fn delete_faults(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.set_faults(FaultPlan::default());
    StatusCode::NO_CONTENT
}

async fn limits(State(sandbox): State<Sandbox>) -> Json<RateLimits> {
    Json(sandbox.limits())
}

async fn put_limits(
    State(sandbox): State<Sandbox>,
    body: Bytes,
) -> Result<Json<RateLimits>, ApiError> {
    sandbox.set_limits(read(&body)?);
    Ok(Json(sandbox.limits()))
}

async fn delete_limits(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.set_limits(RateLimits::default());
    StatusCode::NO_CONTENT
}

async fn reset(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.reset();
    StatusCode::NO_CONTENT
}

/// JSON whatever `Content-Type` says: `curl -d` says it is a form.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(ApiError::invalid)
}
