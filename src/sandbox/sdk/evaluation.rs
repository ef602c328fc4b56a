//! Evaluation requests of client-side SDKs: environment, context, with or without reasons.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    SandboxState,
    context::{decode, keys},
    credential::{ById, ByMobileKey, path_part},
};
use crate::sandbox::{Sandbox, api_error::ApiError, context::ContextKeys, flags::Reasons};

/// The environment and the context of an evaluation.
#[derive(Debug)]
pub(super) struct EvaluationRequest {
    pub(super) environment: String,
    pub(super) context: ContextKeys,
    pub(super) reasons: Reasons,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EvaluationQuery {
    with_reasons: Option<String>,
}

impl EvaluationRequest {
    pub(super) fn answer(&self, state: &SandboxState) -> Map<String, Value> {
        state.flags.evaluate(
            &self.environment,
            &state.segments,
            &self.context,
            self.reasons,
        )
    }
}

impl FromRequest<Sandbox> for EvaluationRequest {
    type Rejection = ApiError;

    /// The environment is that of the path or, without one, that of the mobile key; the context
    /// stands in the path or, without one, is the body.
    async fn from_request(request: Request, sandbox: &Sandbox) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let environment = environment(&mut parts, sandbox).await?;
        let reasons = reasons(&parts);
        let context = match path_part(&mut parts, sandbox, "context").await? {
            Some(encoded) => decode(&encoded).map_err(|_| no_context())?,
            None => {
                require_json(&parts.headers)?;
                let body = Bytes::from_request(Request::new(body), sandbox).await;
                body.map_err(|_| no_context())?.into()
            }
        };
        Ok(Self {
            environment,
            context: keys(&context).map_err(|_| no_context())?,
            reasons,
        })
    }
}

async fn environment(parts: &mut Parts, sandbox: &Sandbox) -> Result<String, ApiError> {
    if path_part(parts, sandbox, "environment").await?.is_some() {
        let ById(id) = ById::from_request_parts(parts, sandbox).await?;
        return Ok(id);
    }
    let ByMobileKey(id) = ByMobileKey::from_request_parts(parts, sandbox).await?;
    Ok(id)
}

fn reasons(parts: &Parts) -> Reasons {
    match Query::<EvaluationQuery>::try_from_uri(&parts.uri) {
        Ok(Query(wishes)) if wishes.with_reasons.as_deref() == Some("true") => Reasons::Shown,
        _ => Reasons::Omitted,
    }
}

fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next());
    match content_type {
        Some(essence) if essence.trim().eq_ignore_ascii_case("application/json") => Ok(()),
        _ => Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Content-Type must be application/json",
        )),
    }
}

fn no_context() -> ApiError {
    ApiError::invalid("invalid context")
}
