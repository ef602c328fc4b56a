//! Analytics events of SDKs, which are accepted and dropped.

use axum::{Router, http::StatusCode, routing::post};

use super::credential::{ById, ByMobileKey, BySdkKey};
use crate::sandbox::Sandbox;

pub(super) fn routes() -> Router<Sandbox> {
    Router::new()
        .route("/bulk", post(of_server))
        .route("/diagnostic", post(of_server))
        .route("/mobile", post(of_mobile))
        .route("/mobile/events", post(of_mobile))
        .route("/mobile/events/bulk", post(of_mobile))
        .route("/mobile/events/diagnostic", post(of_mobile))
        .route("/events/bulk/{environment}", post(of_browser))
        .route("/events/diagnostic/{environment}", post(of_browser))
}

async fn of_server(_: BySdkKey) -> StatusCode {
    StatusCode::ACCEPTED
}

async fn of_mobile(_: ByMobileKey) -> StatusCode {
    StatusCode::ACCEPTED
}

async fn of_browser(_: ById) -> StatusCode {
    StatusCode::ACCEPTED
}
