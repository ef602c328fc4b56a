//! Call stack: one attempt at a call, through time-out, transport and classification, with feedback
//! to the pace.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use tokio::time::{Instant, timeout_at};

use super::{
    body::{self, Body},
    classify::{self, RateHeaders},
    pace::{CallKind, CallTarget, Feedback},
    throttle::Throttle,
    transport::Transport,
};
use crate::{
    clock,
    domain::{CallOutcome, Connection, EndedCall, Observer, SegmentCall, TransientError},
    secret::AccessToken,
};

/// Selects the version of the API, whatever version a token was created for.
const API_VERSION: HeaderName = HeaderName::from_static("ld-api-version");
/// The version that the shapes in [`super::wire`] are of.
const VERSION: HeaderValue = HeaderValue::from_static("20240415");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a call needs beside its request: the pace that learns from its answer, its time-out, its
/// transport, and the observer that is told of its end.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) throttle: Throttle,
    pub(super) attempt_timeout: Duration,
    pub(super) transport: Box<dyn Transport>,
    pub(super) observer: Option<Arc<dyn Observer>>,
}

/// The head of an answer, with its body still to come.
#[derive(Debug)]
pub(super) struct VendorResponse {
    pub(super) status: StatusCode,
    pub(super) rate_headers: RateHeaders,
    pub(super) body: Body,
    /// When the attempt's time is over.
    pub(super) deadline: Instant,
}

impl Stack {
    /// Sends a query, and lets the account's pace learn from its result. The caller holds a slot of
    /// the account; only [`identify`](super::identify) needs none. Ends within the attempt's
    /// time-out; cancel safe.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        request: Request<Bytes>,
    ) -> Result<VendorResponse, TransientError> {
        let started = Instant::now();
        let answer = self.send(request).await;
        let feedback = query_feedback(&answer, started);
        let error = transient_error(&answer);
        self.learn(&feedback, EndedCall::Query { connection, error });
        answer
    }

    /// Makes a call that changes a segment, and lets the pace learn from what becomes of it. The
    /// caller holds a slot of the account. Ends within the attempt's time-out; cancel safe.
    pub(super) async fn deliver(&self, call: &SegmentCall, request: Request<Bytes>) -> CallOutcome {
        let started = Instant::now();
        let answer = self.send(request).await;
        let none = Feedback {
            kind: CallKind::Delivery(CallTarget::new(&call.connection, &call.segment.id)),
            started,
            error: None,
            wait: None,
            remaining: None,
        };
        let (outcome, feedback) = match answer {
            Ok(answer) => judged(answer, none).await,
            Err(error) => {
                let outcome = CallOutcome::Retry {
                    error,
                    retry_after: None,
                };
                let error = Some(error);
                (outcome, Feedback { error, ..none })
            }
        };
        self.learn(&feedback, EndedCall::Segment { call, outcome });
        outcome
    }

    /// Reports a call that has ended to the account's pace and to the observer.
    fn learn(&self, feedback: &Feedback, ended: EndedCall<'_>) {
        let connection = ended.connection();
        let Some(observer) = &self.observer else {
            return self.throttle.observe(connection, feedback);
        };
        let before = self.throttle.state(connection);
        self.throttle.observe(connection, feedback);
        let after = self.throttle.state(connection);
        observer.called(ended, feedback.started.elapsed());
        if let Some(after) = after
            && before != Some(after)
        {
            observer.paced(connection, after);
        }
    }

    /// Sends a request, and shows no pace what becomes of it. By itself it is for requests that
    /// name no account. Ends within the attempt's time-out; cancel safe.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<VendorResponse, TransientError> {
        let started = Instant::now();
        let deadline = started + self.attempt_timeout;
        let answer = match timeout_at(deadline, self.transport.send(request)).await {
            Ok(Ok(response)) => Ok(VendorResponse {
                status: response.status(),
                rate_headers: RateHeaders::read(response.headers(), clock::now()),
                body: response.into_body(),
                deadline,
            }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TransientError::TimedOut),
        };
        let head = answer.as_ref().ok();
        tracing::debug!(
            status = head.map(|answer| answer.status.as_u16()),
            error = transient_error(&answer).map(tracing::field::display),
            wait = head
                .and_then(|answer| answer.rate_headers.wait(answer.status))
                .map(tracing::field::debug),
            latency = ?started.elapsed(),
            "called LaunchDarkly"
        );
        answer
    }
}

fn transient_error(answer: &Result<VendorResponse, TransientError>) -> Option<TransientError> {
    match answer {
        Ok(answer) => classify::transient_error(answer.status),
        Err(error) => Some(*error),
    }
}

/// What an answer to a delivery means, for the lane and for the pace.
async fn judged(answer: VendorResponse, none: Feedback) -> (CallOutcome, Feedback) {
    let VendorResponse {
        status,
        rate_headers,
        body,
        deadline,
    } = answer;
    // The body of a success is read to its end.
    let form = if status.is_success() {
        body::form(body, deadline).await
    } else {
        body::form_of_refusal(body, deadline).await
    };
    let outcome = classify::outcome(status, &rate_headers, form);
    let error = match outcome {
        CallOutcome::Retry { error, .. } => Some(error),
        _ => None,
    };
    let feedback = Feedback {
        error,
        wait: rate_headers.wait(status),
        remaining: rate_headers.remaining(),
        ..none
    };
    (outcome, feedback)
}

fn query_feedback(answer: &Result<VendorResponse, TransientError>, started: Instant) -> Feedback {
    let none = Feedback {
        kind: CallKind::Query,
        started,
        error: None,
        wait: None,
        remaining: None,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            return Feedback {
                error: Some(*error),
                ..none
            };
        }
    };
    // A query takes another route than deliveries: the limit of its route is not theirs.
    let rate_headers = answer.rate_headers.of_account();
    let remaining = rate_headers.remaining();
    if answer.rate_headers.is_limit_of_route(answer.status) {
        return Feedback { remaining, ..none };
    }
    Feedback {
        error: classify::transient_error(answer.status),
        wait: rate_headers.wait(answer.status),
        remaining,
        ..none
    }
}

/// Something that stands in a request and cannot be written as HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cannot be written as a header or an address")]
pub(super) struct Unwritable;

/// A call of the REST API, as the holder of a token.
pub(super) fn authorized(
    method: Method,
    uri: &str,
    token: &AccessToken,
    body: Bytes,
) -> Result<Request<Bytes>, Unwritable> {
    // Bare, without a scheme: that is how LaunchDarkly reads it.
    let mut token = HeaderValue::from_str(token.expose()).map_err(|_| Unwritable)?;
    token.set_sensitive(true);
    let mut request = anonymous(method, uri, body)?;
    request.headers_mut().insert(AUTHORIZATION, token);
    Ok(request)
}

/// A call that needs no token.
pub(super) fn anonymous(
    method: Method,
    uri: &str,
    body: Bytes,
) -> Result<Request<Bytes>, Unwritable> {
    Request::builder()
        .method(method)
        .uri(uri)
        .header(API_VERSION, VERSION)
        .header(CONTENT_TYPE, JSON)
        .header(ACCEPT, JSON)
        .body(body)
        .map_err(|_| Unwritable)
}
