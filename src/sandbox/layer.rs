//! The layer around every call: log, rate limits, latency, injected faults.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Sandbox,
    api::is_rest,
    api_error::ApiError,
    calls::{CallNumber, RecordedCall},
    connections::Cut,
    fault_response,
    faults::{CallTraits, Fault, FaultTiming},
    now_ms,
    rate_limit::{RateCheck, RemainingCalls},
    segments::SegmentUpdate,
};

/// 9999-12-31 23:59:59 UTC.
const LAST_SECOND: u64 = 253_402_300_799;

/// How a call ends.
enum CallEnd {
    Answer(Response),
    Fault(Fault),
}

/// Lets a call through, or not. If the caller hangs up this is dropped midway; the log then shows
/// the call without a status.
pub(super) async fn pass(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let number = sandbox.open(&parts);
    let connection = parts
        .extensions
        .get::<ConnectInfo<Cut>>()
        .map(|info| info.0.clone());
    let (budget, refusal) = sandbox.meter(&parts);
    let ending = match refusal {
        Some(response) => CallEnd::Answer(response),
        None => answer(&sandbox, number, parts, body, next).await,
    };
    let mut response = match ending {
        CallEnd::Answer(response) => {
            sandbox.close(number, Some(response.status()), None);
            response
        }
        CallEnd::Fault(Fault { how, .. }) => {
            sandbox.close(number, how.status(), Some(how.name()));
            fault_response::enact(how, connection).await
        }
    };
    if let Some(budget) = budget {
        budget.stamp(response.headers_mut());
    }
    // Without it the server would stamp the machine's time.
    let date = http_date(sandbox.launchdarkly_ms());
    response.headers_mut().insert(header::DATE, date);
    response
}

async fn answer(
    sandbox: &Sandbox,
    number: u64,
    mut parts: Parts,
    body: Body,
    next: Next,
) -> CallEnd {
    let body = match sandbox.read(parts.uri.path(), body).await {
        Ok(body) => body,
        Err(refusal) => return CallEnd::Answer(refusal.into_response()),
    };
    let aim = sandbox.aim(&parts, &body);
    let plan = sandbox.lock().injector.faults_of(parts.uri.path(), &aim);
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    if let Some(fault) = plan
        .fault
        .clone()
        .filter(|fault| fault.when == FaultTiming::Instead)
    {
        sandbox.describe(number, parts.uri.path(), &body);
        return CallEnd::Fault(fault);
    }
    parts.extensions.insert(CallNumber(number));
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    match plan.fault {
        // What would have been refused anyway is refused: nothing was applied.
        Some(fault) if response.status().is_success() => CallEnd::Fault(fault),
        _ => CallEnd::Answer(response),
    }
}

impl Sandbox {
    /// What faults may choose this call by. A body is read for it only if one of them asks.
    fn aim(&self, parts: &Parts, body: &[u8]) -> CallTraits {
        let caller = self.caller(&parts.headers).ok();
        let update = self
            .lock()
            .injector
            .looks_into_bodies()
            .then(|| self.update(parts.uri.path(), body))
            .flatten()
            .map(|(_, update)| update);
        CallTraits {
            account: caller.map(|caller| caller.account.id.clone()),
            segments: (update.as_ref()).map_or_else(BTreeSet::new, SegmentUpdate::cohort_ids),
            environment: update.map(|update| update.environment),
        }
    }

    fn open(&self, parts: &Parts) -> u64 {
        let number = self.lock().calls.open(RecordedCall {
            arrived_ms: now_ms(),
            method: parts.method.to_string(),
            path: shown_path(parts),
            ..RecordedCall::default()
        });
        self.announce();
        number
    }

    fn close(&self, number: u64, status: Option<StatusCode>, fault: Option<&'static str>) {
        let status = status.map(|status| status.as_u16());
        self.lock().calls.close(number, status, fault);
        self.announce();
    }

    /// Counts a REST call. The budget is that of the caller's account; callers without one are
    /// limited by address only.
    fn meter(&self, parts: &Parts) -> (Option<RemainingCalls>, Option<Response>) {
        if !is_rest(parts.uri.path()) {
            return (None, None);
        }
        let now_ms = self.launchdarkly_ms();
        let meter = &mut self.lock().meter;
        if let Err(seconds) = meter.count_address(now_ms) {
            let retry_after = [(header::RETRY_AFTER, seconds.to_string())];
            let refusal = (retry_after, ApiError::rate_limited()).into_response();
            return (None, Some(refusal));
        }
        let Ok(caller) = self.caller(&parts.headers) else {
            return (None, None);
        };
        match meter.count(&caller.account.id, &route(parts), now_ms) {
            RateCheck::Within(budget) => (Some(budget), None),
            RateCheck::Exceeded(budget) => {
                (Some(budget), Some(ApiError::rate_limited().into_response()))
            }
        }
    }

    async fn read(&self, path: &str, body: Body) -> Result<Bytes, ApiError> {
        // A caller that breaks off gets this answer too, and does not read it.
        let body = axum::body::to_bytes(body, self.options().max_body_bytes)
            .await
            .map_err(|_| ApiError::too_large())?;
        let weighed = self.lock().injector.weigh_body(path, body.len());
        weighed.map_err(|_| ApiError::too_large())?;
        Ok(body)
    }
}

/// The form of `Date`, which ends with the year 9999.
fn http_date(epoch_ms: u64) -> HeaderValue {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs((epoch_ms / 1_000).min(LAST_SECOND));
    HeaderValue::try_from(httpdate::fmt_http_date(at)).expect("a date is visible ASCII")
}

/// Limits are per route, whatever its parameters are.
fn route(parts: &Parts) -> String {
    // HEAD is answered by the route of GET.
    let method = if parts.method == Method::HEAD {
        &Method::GET
    } else {
        &parts.method
    };
    format!("{method} {}", matched(parts).unwrap_or_default())
}

/// A context in a path holds a person's key: the log shows the route instead.
fn shown_path(parts: &Parts) -> String {
    match matched(parts) {
        Some(route) if route.contains("{context}") => route.to_owned(),
        _ => parts.uri.path().to_owned(),
    }
}

fn matched(parts: &Parts) -> Option<&str> {
    parts
        .extensions
        .get::<MatchedPath>()
        .map(MatchedPath::as_str)
}
