//! Authentication: the caller of a call, by its access token.

use axum::http::{HeaderMap, header};

use super::{Sandbox, api_error::ApiError, world::Caller};

impl Sandbox {
    /// The caller, by the bare token in `Authorization`.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller<'_>, ApiError> {
        authorization(headers)
            .and_then(|token| self.options().world.caller(token))
            .ok_or_else(ApiError::unauthorized)
    }
}

/// The value of `Authorization`, as it stands: LaunchDarkly knows no schemes.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}
