//! LaunchDarkly's REST API, as far as the connector needs it.

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Sandbox,
    api_error::ApiError,
    calls::CallNumber,
    faults::ContentFault,
    manifest::{Integration, ResponseValues, Template},
    segments::SegmentUpdate,
    world::{Caller, Denial, Environment, Owner, Project, Role, SandboxAccount, Token},
};

const SEGMENT_TARGETS: &str = "/api/v2/segment-targets/";

/// LaunchDarkly documents that lists are paged by 20 unless asked otherwise.
const PAGE: usize = 20;
/// Assumption: no page is longer than this, however long it was asked for.
const MOST_PER_PAGE: usize = 100;

/// Assumption: an environment that is unknown, or another account's, is answered like one that the
/// token may not write, so that answers do not tell which client-side IDs exist.
const UNKNOWN_ENVIRONMENT: StatusCode = StatusCode::FORBIDDEN;

/// Assumption: LaunchDarkly documents that all members of a synced segment are of one context kind,
/// but not what becomes of a later call of another kind. It is refused as a whole.
const OTHER_KIND: StatusCode = StatusCode::BAD_REQUEST;

/// The one member of every account, the maker of all its tokens.
const MEMBER: &str = "0e0000000000000000000001";
/// The one custom role.
const CUSTOM_ROLE: &str = "0c0000000000000000000001";

type JsonResult = Result<Json<Value>, ApiError>;

pub(super) fn routes() -> Router<Sandbox> {
    Router::new()
        .route(
            "/api/v2/segment-targets/{integration}",
            post(segment_targets),
        )
        .route("/api/v2/caller-identity", get(caller_identity))
        .route("/api/v2/tokens/{id}", get(token))
        .route("/api/v2/projects", get(projects))
        .route("/api/v2/projects/{key}/environments", get(environments))
        .route("/api/v2/versions", get(versions))
}

/// The REST API, which alone is limited.
pub(super) fn is_rest(path: &str) -> bool {
    path.starts_with("/api/")
}

pub(super) async fn not_found() -> ApiError {
    ApiError::not_found()
}

pub(super) async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed")
}

async fn segment_targets(
    State(sandbox): State<Sandbox>,
    Path(integration): Path<String>,
    Extension(CallNumber(number)): Extension<CallNumber>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, ApiError> {
    let caller = sandbox.caller(&headers)?;
    let integration = sandbox
        .integration(&integration)
        .ok_or_else(ApiError::not_found)?;
    if !caller.token.role.writes() {
        return Err(ApiError::forbidden());
    }
    let outcome = sandbox.carry_out(number, integration, caller.account, &body);
    match integration.manifest.response() {
        None => outcome.map(|_| StatusCode::NO_CONTENT.into_response()),
        Some(template) => in_its_own_words(template, &body, outcome),
    }
}

/// Where the segment lies that a call has updated; of several the first.
struct Updated<'a> {
    project: &'a Project,
    environment: &'a Environment,
    segment: String,
}

/// The response that a manifest has a template of, for a failure too.
fn in_its_own_words(
    template: &Template,
    body: &[u8],
    outcome: Result<Updated<'_>, ApiError>,
) -> Result<Response, ApiError> {
    let status = match &outcome {
        Ok(_) => StatusCode::OK,
        Err(refusal) => refusal.status(),
    };
    let updated = outcome.as_ref().ok();
    let made = template.response(ResponseValues {
        request_body: &serde_json::from_slice(body).unwrap_or_default(),
        status_code: status.as_u16(),
        error_message: outcome.as_ref().err().map_or("", ApiError::message),
        project_key: updated.map_or("", |updated| &updated.project.key),
        environment_key: updated.map_or("", |updated| &updated.environment.key),
        segment_key: updated.map_or("", |updated| &updated.segment),
    });
    match made {
        Ok(made) => Ok((status, Json(made)).into_response()),
        Err(problem) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, problem)),
    }
}

impl Sandbox {
    /// The integration and what is asked of it, if this is a segment-targets call that can be read.
    pub(super) fn update(&self, path: &str, body: &[u8]) -> Option<(&Integration, SegmentUpdate)> {
        let integration = self.integration(path.strip_prefix(SEGMENT_TARGETS)?)?;
        Some((integration, integration.manifest.update(body).ok()?))
    }

    /// Notes what a call asked for that is answered by a fault, as far as it can be read.
    pub(super) fn describe(&self, number: u64, path: &str, body: &[u8]) {
        if let Some((integration, update)) = self.update(path, body) {
            let calls = &mut self.lock().calls;
            calls.describe(number, &integration.key, &update);
        }
    }

    /// All of a segment-targets call, or nothing.
    fn carry_out<'a>(
        &self,
        number: u64,
        integration: &Integration,
        account: &'a SandboxAccount,
        body: &[u8],
    ) -> Result<Updated<'a>, ApiError> {
        let update = integration.manifest.update(body);
        let update = update.map_err(ApiError::invalid)?;
        let key = &integration.key;
        self.lock().calls.describe(number, key, &update);
        let Some((project, environment)) = account.find(&update.environment) else {
            return Err(ApiError::new(UNKNOWN_ENVIRONMENT, "Unknown environment"));
        };
        self.apply(number, key, &update)?;
        let segment = update.segments(key).next().map(|(key, _)| key);
        Ok(Updated {
            project,
            environment,
            segment: segment.unwrap_or_default(),
        })
    }

    fn apply(
        &self,
        number: u64,
        integration: &str,
        update: &SegmentUpdate,
    ) -> Result<(), ApiError> {
        let path = format!("{SEGMENT_TARGETS}{integration}");
        let keys: Vec<_> = update.changes().map(|change| change.key.as_str()).collect();
        let mut state = self.lock();
        state
            .injector
            .weigh_members(&path, &keys)
            .map_err(|objection| match objection {
                ContentFault::RefusedKey => ApiError::invalid("a member was refused"),
                ContentFault::TooLarge => ApiError::too_large(),
            })?;
        state
            .segments
            .apply(integration, update)
            .map_err(|refusal| ApiError::new(OTHER_KIND, refusal))?;
        state.calls.apply(number, keys.len());
        state.listeners.tell(integration, update);
        drop(state);
        self.announce();
        Ok(())
    }
}

async fn caller_identity(State(sandbox): State<Sandbox>, headers: HeaderMap) -> JsonResult {
    let Caller { account, token } = sandbox.caller(&headers)?;
    let mut identity = json!({
        "accountId": account.id,
        "authKind": "token",
        "tokenKind": "auth",
        "tokenName": token.name,
        "tokenId": token.id,
        "serviceToken": token.owner == Owner::Service,
    });
    if token.owner == Owner::Member {
        identity["memberId"] = MEMBER.into();
    }
    Ok(Json(identity))
}

async fn token(
    State(sandbox): State<Sandbox>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> JsonResult {
    let caller = sandbox.caller(&headers)?;
    let mut tokens = caller.account.tokens.iter();
    let asked = tokens
        .find(|token| token.id == id)
        .ok_or_else(ApiError::not_found)?;
    let may_read = if asked.id == caller.token.id {
        !caller.is_denied(Denial::OwnEntry)
    } else {
        caller.token.role == Role::Admin
    };
    if may_read {
        Ok(Json(token_entry(asked)))
    } else {
        Err(ApiError::forbidden())
    }
}

fn token_entry(token: &Token) -> Value {
    let last_four = token.secret.len().saturating_sub(4);
    let mut entry = json!({
        "_id": token.id,
        "_links": {"self": link(&format!("/api/v2/tokens/{}", token.id))},
        "ownerId": MEMBER,
        "memberId": MEMBER,
        "name": token.name,
        "customRoleIds": [],
        "inlineRole": [],
        "token": token.secret.get(last_four..),
        "serviceToken": token.owner == Owner::Service,
        "defaultApiVersion": 20_240_415,
    });
    match token.role.name() {
        Some(role) => entry["role"] = role.into(),
        None => entry["customRoleIds"] = json!([CUSTOM_ROLE]),
    }
    entry
}

async fn versions(State(sandbox): State<Sandbox>, headers: HeaderMap) -> JsonResult {
    sandbox.caller(&headers)?;
    Ok(Json(json!({
        "validVersions": [20_191_212, 20_210_729, 20_220_603, 20_240_415],
        "latestVersion": 20_240_415,
        "currentVersion": 20_240_415,
    })))
}

/// What lists are asked with.
#[derive(Debug, Default, Deserialize)]
struct PageQuery {
    limit: Option<usize>,
    offset: Option<usize>,
    expand: Option<String>,
}

impl PageQuery {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(PAGE).clamp(1, MOST_PER_PAGE)
    }

    fn expands(&self, part: &str) -> bool {
        let parts = self.expand.as_deref().unwrap_or_default();
        parts.split(',').any(|each| each.trim() == part)
    }
}

async fn projects(
    State(sandbox): State<Sandbox>,
    headers: HeaderMap,
    asked: Result<Query<PageQuery>, QueryRejection>,
) -> JsonResult {
    let account = listing_account(&sandbox, &headers)?;
    let Query(asked) = asked.map_err(|_| ApiError::invalid("invalid query"))?;
    let list = page(&account.projects, "/api/v2/projects", &asked, |project| {
        let mut item = project_item(project);
        if asked.expands("environments") {
            item["environments"] = environment_page(project, &PageQuery::default());
        }
        item
    });
    Ok(Json(list))
}

async fn environments(
    State(sandbox): State<Sandbox>,
    Path(key): Path<String>,
    headers: HeaderMap,
    asked: Result<Query<PageQuery>, QueryRejection>,
) -> JsonResult {
    let account = listing_account(&sandbox, &headers)?;
    let Query(asked) = asked.map_err(|_| ApiError::invalid("invalid query"))?;
    let mut projects = account.projects.iter();
    let project = projects
        .find(|project| project.key == key)
        .ok_or_else(ApiError::not_found)?;
    Ok(Json(environment_page(project, &asked)))
}

fn listing_account<'a>(
    sandbox: &'a Sandbox,
    headers: &HeaderMap,
) -> Result<&'a SandboxAccount, ApiError> {
    let caller = sandbox.caller(headers)?;
    if caller.is_denied(Denial::Projects) {
        return Err(ApiError::forbidden());
    }
    Ok(caller.account)
}

fn environment_page(project: &Project, asked: &PageQuery) -> Value {
    let path = format!("/api/v2/projects/{}/environments", project.key);
    page(&project.environments, &path, asked, environment_item)
}

fn project_item(project: &Project) -> Value {
    json!({
        "_id": format!("project-{}", project.key),
        "_links": {"self": link(&format!("/api/v2/projects/{}", project.key))},
        "key": project.key,
        "name": project.name,
        "includeInSnippetByDefault": true,
        "tags": [],
    })
}

/// Holds the keys of SDKs, as LaunchDarkly's does: one more reason never to log such an answer.
fn environment_item(environment: &Environment) -> Value {
    json!({
        "_id": environment.client_side_id,
        "key": environment.key,
        "name": environment.name,
        "apiKey": environment.sdk_key,
        "mobileKey": environment.mobile_key,
        "color": "417505",
        "defaultTtl": 0,
        "secureMode": false,
        "tags": [],
    })
}

/// One page of a list, with the links to its neighbours that exist.
fn page<T>(all: &[T], path: &str, asked: &PageQuery, show: impl Fn(&T) -> Value) -> Value {
    let limit = asked.limit();
    let offset = asked.offset.unwrap_or(0);
    let at = |offset: usize| link(&format!("{path}?limit={limit}&offset={offset}"));
    let mut links = json!({"self": at(offset)});
    if offset.saturating_add(limit) < all.len() {
        links["next"] = at(offset + limit);
        links["last"] = at((all.len() - 1) / limit * limit);
    }
    if offset > 0 {
        links["prev"] = at(offset.saturating_sub(limit));
        links["first"] = at(0);
    }
    let items: Vec<_> = all.iter().skip(offset).take(limit).map(show).collect();
    json!({"_links": links, "items": items, "totalCount": all.len()})
}

fn link(href: &str) -> Value {
    json!({"href": href, "type": "application/json"})
}
