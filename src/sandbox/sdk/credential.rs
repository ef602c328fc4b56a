//! Authentication of SDKs: the environment of a key.

use axum::{
    extract::{FromRequestParts, RawPathParams},
    http::request::Parts,
};

use crate::sandbox::{Sandbox, api_error::ApiError, auth::authorization, world::Environment};

/// The client-side ID of the environment whose SDK key is in `Authorization`.
pub(super) struct BySdkKey(pub(super) String);

/// The client-side ID of the environment whose mobile key is in `Authorization`.
pub(super) struct ByMobileKey(pub(super) String);

/// A client-side ID in the path that exists. It is public: no key is needed.
pub(super) struct ById(pub(super) String);

impl FromRequestParts<Sandbox> for BySdkKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, sandbox: &Sandbox) -> Result<Self, ApiError> {
        let world = &sandbox.options().world;
        by_key(parts, |key| world.environment_of_sdk_key(key)).map(Self)
    }
}

impl FromRequestParts<Sandbox> for ByMobileKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, sandbox: &Sandbox) -> Result<Self, ApiError> {
        let world = &sandbox.options().world;
        by_key(parts, |key| world.environment_of_mobile_key(key)).map(Self)
    }
}

impl FromRequestParts<Sandbox> for ById {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, sandbox: &Sandbox) -> Result<Self, ApiError> {
        let id = path_part(parts, sandbox, "environment").await?;
        id.filter(|id| sandbox.options().world.environment(id).is_some())
            .map(Self)
            .ok_or_else(ApiError::not_found)
    }
}

/// A named part of the path, if the route has it.
pub(super) async fn path_part(
    parts: &mut Parts,
    sandbox: &Sandbox,
    name: &str,
) -> Result<Option<String>, ApiError> {
    let path = RawPathParams::from_request_parts(parts, sandbox)
        .await
        .map_err(|_| ApiError::not_found())?;
    let part = path.iter().find(|(key, _)| *key == name);
    Ok(part.map(|(_, value)| value.to_owned()))
}

fn by_key<'a>(
    parts: &Parts,
    find: impl Fn(&str) -> Option<&'a Environment>,
) -> Result<String, ApiError> {
    authorization(&parts.headers)
        .and_then(find)
        .map(|environment| environment.client_side_id.clone())
        .ok_or_else(ApiError::unauthorized)
}
