//! Where metrics are read: `GET /metrics`, over plain HTTP.

use std::io;

use axum::{Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What Prometheus accepts and `OpenMetrics` prescribes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers on a listener; ends only when dropped.
///
/// # Errors
/// If the listener fails.
pub async fn serve(listener: TcpListener, metrics: Metrics) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", routing::get(scrape))
        .with_state(metrics);
    axum::serve(listener, router).await
}

async fn scrape(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text())
}
