//! Where metrics are read: `GET /metrics`, over plain HTTP.

use std::io;

use axum::{
    Router, extract::State, http::header::CONTENT_TYPE, response::IntoResponse, routing,
    serve::Listener,
};
use tokio::net::{TcpListener, TcpStream};

use super::prompt::Prompt;
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
    axum::serve(Prompting(listener), router).await
}

/// A listener whose connections must speak up.
struct Prompting(TcpListener);

impl Listener for Prompting {
    type Io = Prompt<TcpStream>;
    type Addr = <TcpListener as Listener>::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Rests after a failure, and logs it.
        let (connection, address) = Listener::accept(&mut self.0).await;
        (Prompt::new(connection), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Listener::local_addr(&self.0)
    }
}

async fn scrape(State(metrics): State<Metrics>) -> impl IntoResponse {
    ([(CONTENT_TYPE, OPEN_METRICS)], metrics.text())
}
