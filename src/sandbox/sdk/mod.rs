//! The endpoints of LaunchDarkly's SDKs, so that a real one sees a flag flip.
//!
//! - [`server`]: SDKs that download flags and segments, by SDK key.
//! - [`client`]: SDKs that get the flags' values for one context: mobile ones by mobile key,
//!   those of browsers by client-side ID.
//! - [`events`]: what both report.

mod client;
mod context;
mod credential;
mod etag;
mod evaluation;
mod events;
mod feed;
mod server;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Sandbox, SandboxState, api::is_rest};

pub(super) fn routes() -> Router<Sandbox> {
    server::routes()
        .merge(client::routes())
        .merge(events::routes())
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
