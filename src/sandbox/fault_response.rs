//! The response that a fault puts in the place of LaunchDarkly's.

use std::{convert::Infallible, future, time::Duration};

use axum::{
    Json,
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio_stream::wrappers::IntervalStream;

use super::{api_error::ApiError, connections::Cut, faults::FaultKind};

/// 100 MiB in chunks of 64 KiB.
const HUGE_CHUNKS: usize = 1_600;
static HUGE_CHUNK: [u8; 64 * 1024] = [b' '; 64 * 1024];

const PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Welcome</title></head>\
    <body><h1>Please sign in to use this network</h1></body></html>\n";

/// An hour, so that no stream is endless.
const DRIPS: usize = 3_600;
const DRIP_PAUSE: Duration = Duration::from_secs(1);

/// Answers, or never does: a hang lasts until the caller or the server drops the connection.
/// Cancellation safe.
pub(super) async fn enact(how: FaultKind, connection: Option<Cut>) -> Response {
    match how {
        FaultKind::Status(status) => failure(status),
        FaultKind::Hang => future::pending().await,
        FaultKind::Reset => reset(connection).await,
        FaultKind::Redirect(to) => redirect(&to),
        FaultKind::Page(status) => (status, Html(PAGE)).into_response(),
        FaultKind::Text(status) => (status, "this answer was asked for\n").into_response(),
        FaultKind::Json(status) => (status, Json(json!({"asked_for": true}))).into_response(),
        FaultKind::Empty(status) => status.into_response(),
        FaultKind::Garbage(status) => {
            (status, json_type(), &b"\x00\xff{\"code\":<html>"[..]).into_response()
        }
        FaultKind::Huge(status) => (status, json_type(), huge()).into_response(),
        FaultKind::Drip(status) => (status, json_type(), drip()).into_response(),
    }
}

fn failure(status: StatusCode) -> Response {
    if status.is_success() {
        status.into_response()
    } else {
        ApiError::new(status, "this failure was asked for").into_response()
    }
}

async fn reset(connection: Option<Cut>) -> Response {
    match connection {
        Some(connection) => {
            connection.cut();
            future::pending().await
        }
        // Without a connection of ours, a body that breaks off is the nearest thing.
        None => Body::from_stream(stream::once(async {
            Err::<Bytes, _>(std::io::Error::from(std::io::ErrorKind::ConnectionReset))
        }))
        .into_response(),
    }
}

fn redirect(to: &str) -> Response {
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

fn huge() -> Body {
    let chunk = Ok::<_, Infallible>(Bytes::from_static(&HUGE_CHUNK));
    Body::from_stream(stream::repeat(chunk).take(HUGE_CHUNKS))
}

fn drip() -> Body {
    let ticks = IntervalStream::new(tokio::time::interval(DRIP_PAUSE)).take(DRIPS);
    Body::from_stream(ticks.map(|_| Ok::<_, Infallible>(Bytes::from_static(b" "))))
}

fn json_type() -> [(header::HeaderName, &'static str); 1] {
    [(header::CONTENT_TYPE, "application/json")]
}
