//! Server-side SDKs, which evaluate flags themselves: all flags and segments of an environment.

use std::collections::BTreeMap;

use axum::{
    Router,
    extract::{Path, State as Shared},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    SandboxState,
    credential::BySdkKey,
    etag,
    feed::{Message, feed},
};
use crate::sandbox::{Sandbox, api_error::ApiError, flags::segment_json};

pub(super) fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/all", get(stream))
        .route("/sdk/latest-all", get(poll))
        .route("/sdk/flags", get(flags))
        .route("/sdk/flags/{key}", get(flag))
        .route("/sdk/segments/{key}", get(segment))
}

async fn stream(
    Shared(sandbox): Shared<Sandbox>,
    BySdkKey(environment): BySdkKey,
) -> impl IntoResponse {
    let mut view = ServerFeed::of(environment);
    feed(sandbox, move |state| view.news(state))
}

async fn poll(
    Shared(sandbox): Shared<Sandbox>,
    BySdkKey(environment): BySdkKey,
    headers: HeaderMap,
) -> Response {
    let everything = everything(&sandbox.lock(), &environment);
    etag::json(&headers, &everything)
}

/// The SDK for PHP, which keeps nothing in memory, asks for what it needs.
async fn flags(
    Shared(sandbox): Shared<Sandbox>,
    BySdkKey(environment): BySdkKey,
    headers: HeaderMap,
) -> Response {
    let flags = sandbox.lock().flags.all(&environment);
    etag::json(&headers, &Value::Object(flags))
}

async fn flag(
    Shared(sandbox): Shared<Sandbox>,
    BySdkKey(environment): BySdkKey,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let flag = sandbox.lock().flags.one(&environment, &key);
    let flag = flag.ok_or_else(ApiError::not_found)?;
    Ok(etag::json(&headers, &flag))
}

async fn segment(
    Shared(sandbox): Shared<Sandbox>,
    BySdkKey(environment): BySdkKey,
    Path(key): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let segment = sandbox.segment(&environment, &key);
    let segment = segment.ok_or_else(ApiError::not_found)?;
    Ok(etag::json(&headers, &segment_json(&segment)))
}

fn everything(state: &SandboxState, environment: &str) -> Value {
    state.flags.everything(environment, &state.segments)
}

/// What an SDK has been told.
#[derive(Debug)]
struct ServerFeed {
    environment: String,
    epoch: Option<u64>,
    versions: BTreeMap<String, u64>,
}

impl ServerFeed {
    fn of(environment: String) -> Self {
        Self {
            environment,
            epoch: None,
            versions: BTreeMap::new(),
        }
    }

    /// Everything at first and in a new epoch, then each segment whose version rose.
    fn news(&mut self, state: &SandboxState) -> Vec<Message> {
        let whole = self.epoch.replace(state.epoch) != Some(state.epoch);
        if whole {
            self.versions.clear();
        }
        let patches: Vec<_> = state
            .segments
            .within(&self.environment)
            .filter(|each| self.versions.insert(each.key.clone(), each.version) != Some(each.version))
            .map(|each| Message {
                event: "patch",
                data: json!({"path": format!("/segments/{}", each.key), "data": segment_json(each)}),
            })
            .collect();
        if !whole {
            return patches;
        }
        vec![Message {
            event: "put",
            data: json!({"path": "/", "data": everything(state, &self.environment)}),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{add, events},
        *,
    };
    use crate::sandbox::{
        SandboxOptions,
        fixtures::{CLIENT_SIDE_ID, TEST_CLIENT_SIDE_ID},
    };

    #[test]
    fn an_sdk_hears_each_change_of_its_environment_once() {
        let options = SandboxOptions::default();
        let mut state = SandboxState::new(&options);
        let mut view = ServerFeed::of(CLIENT_SIDE_ID.into());
        add(&mut state, CLIENT_SIDE_ID, "old", "ann");
        let first = view.news(&state);
        assert_eq!(events(&first), ["put"]);
        assert_eq!(
            first[0].data["data"]["segments"]["zeotap-old"]["included"],
            json!(["ann"])
        );
        add(&mut state, TEST_CLIENT_SIDE_ID, "vip", "ann");
        assert_eq!(view.news(&state), []);
        add(&mut state, CLIENT_SIDE_ID, "vip", "ann");
        let news = view.news(&state);
        assert_eq!(news[0].data["path"], "/segments/zeotap-vip");
        assert_eq!((events(&news), view.news(&state)), (vec!["patch"], vec![]));
        state.reset(&options);
        assert_eq!(events(&view.news(&state)), ["put"]);
    }
}
