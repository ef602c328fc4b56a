//! What happens to every call before and after it is answered: log, limits, latency, mishaps.

use std::time::{Duration, SystemTime};

use axum::{
    body::{Body, Bytes},
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{
    Sandbox, api,
    calls::Call,
    faults::{Aim, Mishap, When},
    mishaps, now_ms,
    rate_limit::{Budget, Reading},
    refusal::Refusal,
    serve::Cut,
    world::Caller,
};

/// 9999-12-31 23:59:59 UTC.
const LAST_SECOND: u64 = 253_402_300_799;

/// The number of a call in the log, for handlers that have more to note.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallNumber(pub(super) u64);

/// How a call ends.
enum Ending {
    Answer(Response),
    Mishap(Mishap),
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
        Some(response) => Ending::Answer(response),
        None => answer(&sandbox, number, parts, body, next).await,
    };
    let mut response = match ending {
        Ending::Answer(response) => {
            sandbox.close(number, Some(response.status()), None);
            response
        }
        Ending::Mishap(Mishap { how, .. }) => {
            sandbox.close(number, how.status(), Some(how.name()));
            mishaps::enact(how, connection).await
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
) -> Ending {
    let body = match sandbox.read(parts.uri.path(), body).await {
        Ok(body) => body,
        Err(refusal) => return Ending::Answer(refusal.into_response()),
    };
    let aim = sandbox.aim(&parts, &body);
    let plan = sandbox.lock().deck.plan(parts.uri.path(), &aim);
    if !plan.delay.is_zero() {
        tokio::time::sleep(plan.delay).await;
    }
    if let Some(mishap) = plan
        .mishap
        .clone()
        .filter(|mishap| mishap.when == When::Instead)
    {
        api::describe(sandbox, number, parts.uri.path(), &body);
        return Ending::Mishap(mishap);
    }
    parts.extensions.insert(CallNumber(number));
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    match plan.mishap {
        // What would have been refused anyway is refused: nothing was applied.
        Some(mishap) if response.status().is_success() => Ending::Mishap(mishap),
        _ => Ending::Answer(response),
    }
}

impl Sandbox {
    /// Who calls, by the bare token in `Authorization`.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller<'_>, Refusal> {
        authorization(headers)
            .and_then(|token| self.settings().world.caller(token))
            .ok_or_else(Refusal::unauthorized)
    }

    /// What mishaps may choose this call by. A body is read for it only if one of them asks.
    fn aim(&self, parts: &Parts, body: &[u8]) -> Aim {
        let caller = self.caller(&parts.headers).ok();
        let order = self
            .lock()
            .deck
            .looks_into_bodies()
            .then(|| api::order(parts.uri.path(), body))
            .flatten();
        let (environment, segment) = order
            .map(|(_, order)| (order.environment, order.cohort_id))
            .unzip();
        Aim {
            account: caller.map(|caller| caller.account.id.clone()),
            environment,
            segment,
        }
    }

    fn open(&self, parts: &Parts) -> u64 {
        let number = self.lock().calls.open(Call {
            arrived_ms: now_ms(),
            method: parts.method.to_string(),
            path: shown_path(parts),
            ..Call::default()
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
    fn meter(&self, parts: &Parts) -> (Option<Budget>, Option<Response>) {
        if !is_rest(parts.uri.path()) {
            return (None, None);
        }
        let now_ms = self.launchdarkly_ms();
        let meter = &mut self.lock().meter;
        if let Err(seconds) = meter.count_address(now_ms) {
            let retry_after = [(header::RETRY_AFTER, seconds.to_string())];
            let refusal = (retry_after, Refusal::rate_limited()).into_response();
            return (None, Some(refusal));
        }
        let Ok(caller) = self.caller(&parts.headers) else {
            return (None, None);
        };
        match meter.count(&caller.account.id, &route(parts), now_ms) {
            Reading::Within(budget) => (Some(budget), None),
            Reading::Exceeded(budget) => {
                (Some(budget), Some(Refusal::rate_limited().into_response()))
            }
        }
    }

    async fn read(&self, path: &str, body: Body) -> Result<Bytes, Refusal> {
        // A caller who breaks off gets this answer too, and does not hear it.
        let body = axum::body::to_bytes(body, self.settings().max_body_bytes)
            .await
            .map_err(|_| Refusal::too_large())?;
        let weighed = self.lock().deck.weigh_body(path, body.len());
        weighed.map_err(|_| Refusal::too_large())?;
        Ok(body)
    }
}

/// The form of `Date`, which ends with the year 9999.
fn http_date(epoch_ms: u64) -> HeaderValue {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs((epoch_ms / 1_000).min(LAST_SECOND));
    HeaderValue::try_from(httpdate::fmt_http_date(at)).expect("a date is visible ASCII")
}

/// The REST API, which alone is limited.
pub(super) fn is_rest(path: &str) -> bool {
    path.starts_with("/api/")
}

/// The value of `Authorization`, as it stands: LaunchDarkly knows no schemes.
pub(super) fn authorization(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Limits are per route, whatever stands in its parameters.
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
