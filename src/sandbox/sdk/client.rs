//! Client-side SDKs, mobile and of browsers: each flag's value for one context.

use axum::{
    Json, Router,
    extract::{Request, State as Shared},
    handler::Handler,
    http::HeaderMap,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get},
};
use serde_json::{Map, Value, json};

use super::{
    SandboxState,
    credential::{ById, ByMobileKey},
    etag,
    evaluation::EvaluationRequest,
    feed::{Message, feed},
};
use crate::sandbox::{Sandbox, api};

/// Users are the contexts of older SDKs.
pub(super) fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/msdk/evalx/contexts/{context}", get(poll))
        .route("/msdk/evalx/users/{context}", get(poll))
        .route("/msdk/evalx/context", report(poll))
        .route("/msdk/evalx/user", report(poll))
        .route("/meval/{context}", get(stream))
        .route("/meval", report(stream))
        .route("/mping", get(mobile_pings))
        .route("/sdk/evalx/{environment}/contexts/{context}", get(poll))
        .route("/sdk/evalx/{environment}/users/{context}", get(poll))
        .route("/sdk/evalx/{environment}/context", report(poll))
        .route("/sdk/evalx/{environment}/user", report(poll))
        .route("/eval/{environment}/{context}", get(stream))
        .route("/eval/{environment}", report(stream))
        .route("/ping/{environment}", get(pings))
        .route("/sdk/goals/{environment}", get(goals))
}

/// A route for `REPORT`: a GET with a body, so that an address holds no context.
fn report<H, T>(handler: H) -> MethodRouter<Sandbox>
where
    H: Handler<T, Sandbox>,
    T: 'static,
{
    any(handler).layer(middleware::from_fn(only_report))
}

async fn only_report(request: Request, next: Next) -> Response {
    if request.method().as_str() == "REPORT" {
        next.run(request).await
    } else {
        api::method_not_allowed().await.into_response()
    }
}

async fn poll(
    Shared(sandbox): Shared<Sandbox>,
    headers: HeaderMap,
    question: EvaluationRequest,
) -> Response {
    let values = question.answer(&sandbox.lock());
    etag::json(&headers, &Value::Object(values))
}

async fn stream(
    Shared(sandbox): Shared<Sandbox>,
    question: EvaluationRequest,
) -> impl IntoResponse {
    let mut view = ClientFeed::of(question);
    feed(sandbox, move |state| view.news(state))
}

async fn mobile_pings(
    Shared(sandbox): Shared<Sandbox>,
    ByMobileKey(environment): ByMobileKey,
) -> impl IntoResponse {
    let mut pings = PingFeed::of(environment);
    feed(sandbox, move |state| pings.news(state))
}

async fn pings(Shared(sandbox): Shared<Sandbox>, ById(environment): ById) -> impl IntoResponse {
    let mut pings = PingFeed::of(environment);
    feed(sandbox, move |state| pings.news(state))
}

/// Confirms without a key that a client-side ID exists.
async fn goals(_: ById) -> Json<Value> {
    Json(json!([]))
}

/// What an SDK has been told.
#[derive(Debug)]
struct ClientFeed {
    question: EvaluationRequest,
    epoch: Option<u64>,
    values: Map<String, Value>,
}

impl ClientFeed {
    fn of(question: EvaluationRequest) -> Self {
        Self {
            question,
            epoch: None,
            values: Map::new(),
        }
    }

    /// Everything at first and in a new epoch, then each flag whose value is another.
    fn news(&mut self, state: &SandboxState) -> Vec<Message> {
        let now = self.question.answer(state);
        let before = std::mem::replace(&mut self.values, now.clone());
        if self.epoch.replace(state.epoch) != Some(state.epoch) {
            return vec![Message {
                event: "put",
                data: Value::Object(now),
            }];
        }
        now.into_iter()
            .filter(|(flag, new)| {
                before
                    .get(flag)
                    .is_none_or(|old| old["value"] != new["value"])
            })
            .map(|(flag, mut data)| {
                data["key"] = flag.into();
                Message {
                    event: "patch",
                    data,
                }
            })
            .collect()
    }
}

/// The last state announced to an SDK that polls after each ping.
#[derive(Debug)]
struct PingFeed {
    environment: String,
    heard: Option<(u64, Option<u64>)>,
}

impl PingFeed {
    fn of(environment: String) -> Self {
        Self {
            environment,
            heard: None,
        }
    }

    /// A ping at first, and when anything in the environment has changed.
    fn news(&mut self, state: &SandboxState) -> Vec<Message> {
        let segments = state.segments.within(&self.environment);
        let now = (state.epoch, segments.map(|each| each.version).max());
        if self.heard.replace(now) == Some(now) {
            return vec![];
        }
        vec![Message {
            event: "ping",
            data: json!({}),
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
        Flag, SandboxOptions,
        context::ContextKeys,
        fixtures::{CLIENT_SIDE_ID, FLAG, SEGMENT, TEST_CLIENT_SIDE_ID},
        flags::Reasons,
    };

    #[test]
    fn an_sdk_hears_only_changes_of_its_own_value() {
        let mut state = SandboxState::new(&SandboxOptions::default());
        let mut view = ClientFeed::of(EvaluationRequest {
            environment: CLIENT_SIDE_ID.into(),
            context: ContextKeys::from_iter([("user".into(), "ann".into())]),
            reasons: Reasons::Omitted,
        });
        let put = view.news(&state);
        assert_eq!(
            (put[0].event, &put[0].data[FLAG]["value"]),
            ("put", &json!(false))
        );
        add(&mut state, CLIENT_SIDE_ID, "vip", "bob");
        assert_eq!(view.news(&state), []);
        add(&mut state, CLIENT_SIDE_ID, "vip", "ann");
        let patch = view.news(&state);
        assert_eq!(patch[0].data["key"], FLAG);
        assert_eq!(patch[0].data["value"], true);
        assert!(patch[0].data["version"].as_u64() > put[0].data[FLAG]["version"].as_u64());
    }

    #[test]
    fn a_ping_comes_for_each_change_of_its_environment() {
        let sandbox = Sandbox::default();
        let mut pings = PingFeed::of(CLIENT_SIDE_ID.into());
        let mut heard = || events(&pings.news(&sandbox.lock()));
        assert_eq!(heard(), ["ping"]);
        add(&mut sandbox.lock(), TEST_CLIENT_SIDE_ID, "vip", "ann");
        assert_eq!(heard(), [""; 0]);
        for key in ["ann", "bob"] {
            add(&mut sandbox.lock(), CLIENT_SIDE_ID, "vip", key);
            assert_eq!(heard(), ["ping"], "{key}");
        }
        let off = Flag {
            key: FLAG.into(),
            segment: SEGMENT.into(),
            on: false,
        };
        sandbox.put_flag(CLIENT_SIDE_ID, off);
        assert_eq!(heard(), ["ping"]);
        sandbox.reset();
        assert_eq!(heard(), ["ping"]);
        assert_eq!(heard(), [""; 0]);
    }
}
