//! What LaunchDarkly's SDKs read, so that a real one sees a flag flip.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::{get, post},
};
use futures_util::{Stream, stream};
use serde_json::{Map, Value, json};

use super::{
    Sandbox, State as SandboxState,
    door::{authorization, is_rest},
    flags::{segment_json, user_key},
    refusal::Refusal,
    world::Environment,
};

/// SDKs give a silent stream up after five minutes; proxies earlier.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/all", get(server_stream))
        .route("/sdk/latest-all", get(server_poll))
        .route("/sdk/goals/{environment}", get(goals))
        .route(
            "/sdk/evalx/{environment}/contexts/{context}",
            get(client_poll),
        )
        .route("/eval/{environment}/{context}", get(client_stream))
        .route("/bulk", post(events))
        .route("/diagnostic", post(events))
        .route("/events/{*rest}", post(events))
}

/// Browser SDKs call from any page, and ask first. It lies around all routes, so that refusals of
/// the router are readable there too; the REST API is not for browsers.
pub(super) async fn for_browsers(request: Request, next: Next) -> Response {
    if is_rest(request.uri().path()) {
        return next.run(request).await;
    }
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    let any = HeaderValue::from_static("*");
    let headers = response.headers_mut();
    for name in [
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
    ] {
        headers.insert(name, any.clone());
    }
    response
}

/// Tells that a client-side ID exists, to anyone.
async fn goals(
    State(sandbox): State<Sandbox>,
    Path(environment): Path<String>,
) -> Result<Json<Value>, Refusal> {
    known(&sandbox, &environment)?;
    Ok(Json(json!([])))
}

/// Events are taken and forgotten.
async fn events() -> StatusCode {
    StatusCode::ACCEPTED
}

async fn server_poll(
    State(sandbox): State<Sandbox>,
    headers: HeaderMap,
) -> Result<Json<Value>, Refusal> {
    let environment = environment_of(&sandbox, &headers)?;
    let SandboxState {
        flags, segments, ..
    } = &*sandbox.lock();
    Ok(Json(
        flags.everything(&environment.client_side_id, segments),
    ))
}

async fn server_stream(
    State(sandbox): State<Sandbox>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let mut view = ServerView::of(&environment_of(&sandbox, &headers)?.client_side_id);
    Ok(feed(sandbox.clone(), move |state| view.news(state)))
}

async fn client_poll(
    State(sandbox): State<Sandbox>,
    Path((environment, context)): Path<(String, String)>,
) -> Result<Json<Map<String, Value>>, Refusal> {
    let view = ClientView::of(&sandbox, environment, &context)?;
    let values = view.evaluate(&sandbox.lock());
    Ok(Json(values))
}

async fn client_stream(
    State(sandbox): State<Sandbox>,
    Path((environment, context)): Path<(String, String)>,
) -> Result<impl IntoResponse, Refusal> {
    let mut view = ClientView::of(&sandbox, environment, &context)?;
    Ok(feed(sandbox.clone(), move |state| view.news(state)))
}

fn environment_of<'a>(
    sandbox: &'a Sandbox,
    headers: &HeaderMap,
) -> Result<&'a Environment, Refusal> {
    authorization(headers)
        .and_then(|sdk_key| sandbox.settings().world.environment_of_sdk_key(sdk_key))
        .ok_or_else(Refusal::unauthorized)
}

fn known(sandbox: &Sandbox, environment: &str) -> Result<(), Refusal> {
    match sandbox.settings().world.environment(environment) {
        Some(_) => Ok(()),
        None => Err(Refusal::not_found()),
    }
}

/// A stream of what is new since the last look. Changes between two looks become one message, so
/// a slow reader holds nothing up and nothing piles up for it.
fn feed(
    sandbox: Sandbox,
    mut news: impl FnMut(&SandboxState) -> Vec<Message> + Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let activity = sandbox.0.activity.subscribe();
    let first = VecDeque::from(news(&sandbox.lock()));
    let messages = stream::unfold(
        (first, activity, news),
        move |(mut waiting, mut activity, mut news)| {
            let sandbox = sandbox.clone();
            async move {
                while waiting.is_empty() {
                    activity.changed().await.ok()?;
                    waiting.extend(news(&sandbox.lock()));
                }
                let message = waiting.pop_front()?;
                Some((Ok(message.into()), (waiting, activity, news)))
            }
        },
    );
    Sse::new(messages).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

/// One event of a stream.
#[derive(Debug, PartialEq)]
struct Message {
    event: &'static str,
    data: Value,
}

impl From<Message> for Event {
    fn from(Message { event, data }: Message) -> Self {
        Event::default().event(event).data(data.to_string())
    }
}

/// What a server-side SDK has been told.
#[derive(Debug)]
struct ServerView {
    environment: String,
    epoch: Option<u64>,
    versions: BTreeMap<String, u64>,
}

impl ServerView {
    fn of(environment: &str) -> Self {
        Self {
            environment: environment.to_owned(),
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
        let everything = state.flags.everything(&self.environment, &state.segments);
        vec![Message {
            event: "put",
            data: json!({"path": "/", "data": everything}),
        }]
    }
}

/// What a client-side SDK has been told.
#[derive(Debug)]
struct ClientView {
    environment: String,
    user: Option<String>,
    epoch: Option<u64>,
    values: Map<String, Value>,
}

impl ClientView {
    fn of(sandbox: &Sandbox, environment: String, context: &str) -> Result<Self, Refusal> {
        known(sandbox, &environment)?;
        let user = user_key(context).map_err(|_| Refusal::invalid("invalid context"))?;
        Ok(Self {
            environment,
            user,
            epoch: None,
            values: Map::new(),
        })
    }

    fn evaluate(&self, state: &SandboxState) -> Map<String, Value> {
        state
            .flags
            .evaluate(&self.environment, &state.segments, self.user.as_deref())
    }

    /// Everything at first and in a new epoch, then each flag whose value is another.
    fn news(&mut self, state: &SandboxState) -> Vec<Message> {
        let now = self.evaluate(state);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{
        Settings,
        fixtures::{CLIENT_SIDE_ID, FLAG, TEST_CLIENT_SIDE_ID},
        segments::Order,
    };

    fn add(state: &mut SandboxState, environment: &str, cohort: &str, key: &str) {
        let order = json!({"action": "add_members", "parameters": {
            "integration_project_id": environment, "integration_cohort_id": cohort,
            "integration_cohort_name": cohort, "members": [{"integration_distinct_id": key}]}});
        let order = Order::read(order.to_string().as_bytes()).unwrap();
        state.segments.apply("zeotap", &order);
    }

    fn events(news: &[Message]) -> Vec<&'static str> {
        news.iter().map(|message| message.event).collect()
    }

    #[test]
    fn a_server_sdk_hears_each_change_of_its_environment_once() {
        let settings = Settings::default();
        let mut state = SandboxState::new(&settings);
        let mut view = ServerView::of(CLIENT_SIDE_ID);
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
        state.reset(&settings);
        assert_eq!(events(&view.news(&state)), ["put"]);
    }

    #[test]
    fn a_client_sdk_hears_only_changes_of_its_own_value() {
        let mut state = SandboxState::new(&Settings::default());
        let mut view = ClientView {
            environment: CLIENT_SIDE_ID.into(),
            user: Some("ann".into()),
            epoch: None,
            values: Map::new(),
        };
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
}
