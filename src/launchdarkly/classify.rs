//! Classification of answers: what a status means, and what headers say about waiting.

use std::time::{Duration, SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{DATE, RETRY_AFTER},
};

use super::{body::Form, pace::Remaining};
use crate::{
    clock,
    domain::{CallOutcome, Refusal, TransientError},
};

/// Longest wait that a header may impose. LaunchDarkly's windows last ten seconds; a header
/// that asks for much more is more likely wrong than meant, and five minutes is the time that
/// a record is tried by default.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// How far two clocks that are kept in step may differ, an answer's way included. Ours: the spread
/// with which calls start after a hold.
const CLOCK_SLACK: Duration = Duration::from_millis(250);
/// Wait after a limit that no header dates: a tenth of LaunchDarkly's window.
const UNDATED_WAIT: Duration = Duration::from_secs(1);

/// What the headers of an answer say about waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct RateHeaders {
    /// `Retry-After`, a minimum.
    retry_after: Option<Duration>,
    /// Time left until `X-Ratelimit-Reset`; zero if that has passed.
    until_reset: Option<Duration>,
    /// Calls that remain of the account's limit.
    global: Option<u64>,
    /// Calls that remain of the limit on the route that was called.
    route: Option<u64>,
}

impl RateHeaders {
    /// Reads headers that came at `now`. What cannot be read counts as absent.
    pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
        // A reset is a moment by LaunchDarkly's clock.
        let now = their_now(headers, now);
        Self {
            // The form with a date is not used by LaunchDarkly, and ignored.
            retry_after: number(headers, RETRY_AFTER.as_str())
                .map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT)),
            until_reset: number(headers, "x-ratelimit-reset").map(|reset| until(reset, now)),
            global: number(headers, "x-ratelimit-global-remaining"),
            route: number(headers, "x-ratelimit-route-remaining"),
        }
    }

    /// How many calls like this one remain until the reset, if it is still to come.
    pub(super) fn remaining(&self) -> Option<Remaining> {
        let until_reset = self.until_reset.filter(|until| !until.is_zero())?;
        let calls = self.global.into_iter().chain(self.route).min()?;
        Some(Remaining { calls, until_reset })
    }

    /// Whether an answer of `status` met the limit of its route alone.
    pub(super) fn is_limit_of_route(&self, status: StatusCode) -> bool {
        status == StatusCode::TOO_MANY_REQUESTS
            && self.route == Some(0)
            && self.global.is_some_and(|calls| calls > 0)
            && self.retry_after.is_none()
    }

    /// What these headers say to calls of another route.
    pub(super) fn of_account(self) -> Self {
        Self {
            route: None,
            ..self
        }
    }

    /// How long the account must wait after an answer of `status` with these headers.
    ///
    /// A limit with a reset in the past waits for zero: its jitter is added where many wait.
    pub(super) fn wait(&self, status: StatusCode) -> Option<Duration> {
        let exhausted = self.global == Some(0) || self.route == Some(0);
        let limited = status == StatusCode::TOO_MANY_REQUESTS || exhausted;
        let dated = self.until_reset.max(self.retry_after);
        if limited {
            Some(dated.unwrap_or(UNDATED_WAIT))
        } else {
            self.retry_after
        }
    }
}

/// The time by LaunchDarkly's clock. `Date` is that time, cut off to whole seconds, when the answer
/// was sent. If it agrees with this machine's clock, this machine's is used, which is finer. If not,
/// `Date` is used: it is behind by up to a second, so a wait until a reset gets longer and not
/// shorter.
fn their_now(headers: &HeaderMap, now: SystemTime) -> SystemTime {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let Some(date) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else {
        return now;
    };
    let may_be_now = date..date + Duration::from_secs(1) + CLOCK_SLACK;
    if may_be_now.contains(&now) || may_be_now.contains(&(now + CLOCK_SLACK)) {
        now
    } else {
        date
    }
}

/// A header's value as digits; more digits than fit count as the most that fits.
fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    let text = headers.get(name)?.to_str().ok()?.trim();
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// From `now` to `reset` in epoch milliseconds.
fn until(reset: u64, now: SystemTime) -> Duration {
    let now = u64::try_from(clock::epoch_millis(now)).unwrap_or(0);
    Duration::from_millis(reset.saturating_sub(now)).min(MAX_WAIT)
}

/// What became of a call that changes a segment. Only the status counts, and whether the body is of
/// LaunchDarkly's form: the texts of live answers differ from what is documented.
pub(super) fn outcome(
    status: StatusCode,
    rate_headers: &RateHeaders,
    body: Result<Form, TransientError>,
) -> CallOutcome {
    match verdict(status, body) {
        Ok(()) => CallOutcome::Applied,
        Err(Unaccepted::TransientError(error)) => CallOutcome::Retry {
            error,
            // A wait of zero is no request to wait, and must not replace the lane's own back-off.
            retry_after: rate_headers.wait(status).filter(|wait| !wait.is_zero()),
        },
        Err(Unaccepted::Refusal(refusal)) => CallOutcome::Refused(refusal),
    }
}

enum Unaccepted {
    TransientError(TransientError),
    Refusal(Refusal),
}

fn verdict(status: StatusCode, body: Result<Form, TransientError>) -> Result<(), Unaccepted> {
    if let Some(error) = transient_error(status) {
        return Err(Unaccepted::TransientError(error));
    }
    let intercepted = Unaccepted::TransientError(TransientError::Intercepted(status.as_u16()));
    if status.is_success() {
        return match body {
            // LaunchDarkly says nothing, or JSON where an integration is registered so.
            Ok(Form::Empty | Form::Json) => Ok(()),
            Ok(Form::Other | Form::TooLong) => Err(intercepted),
            Err(error) => Err(Unaccepted::TransientError(error)),
        };
    }
    match body {
        // The size of a call is refused by whatever is in between as well.
        Ok(Form::Other) if status != StatusCode::PAYLOAD_TOO_LARGE => Err(intercepted),
        _ => Err(Unaccepted::Refusal(refusal(status))),
    }
}

/// Why a status is worth another try, whatever the body; none if it is not.
pub(super) fn transient_error(status: StatusCode) -> Option<TransientError> {
    match status.as_u16() {
        429 => Some(TransientError::RateLimited),
        409 => Some(TransientError::Conflict),
        // 421: on another connection, which the transport sees to.
        code @ (408 | 421 | 425) => Some(TransientError::Status(code)),
        // Never LaunchDarkly's: its API does not redirect and is no proxy.
        code @ (300..=399 | 407 | 511) => Some(TransientError::Intercepted(code)),
        code @ 500..=599 => Some(TransientError::Status(code)),
        _ => None,
    }
}

fn refusal(status: StatusCode) -> Refusal {
    match status.as_u16() {
        400 | 422 => Refusal::Payload,
        413 => Refusal::TooLarge,
        401 => Refusal::Unauthorized,
        403 => Refusal::Forbidden,
        // The route or the kind of call, not its members: 404, 405, 415, the unknown.
        _ => Refusal::Segment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn rate_headers(headers: &[(&'static str, &str)]) -> RateHeaders {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW);
        RateHeaders::read(&headers, now)
    }

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn every_status_has_its_outcome() {
        let retry = |error| CallOutcome::Retry {
            error,
            retry_after: None,
        };
        let intercepted = |code| retry(TransientError::Intercepted(code));
        for code in 200..600 {
            let judged = |body| outcome(status(code), &RateHeaders::default(), body);
            let (refusal, page) = match code {
                200..=299 => (CallOutcome::Applied, intercepted(code)),
                300..=399 | 407 | 511 => (intercepted(code), intercepted(code)),
                409 => (
                    retry(TransientError::Conflict),
                    retry(TransientError::Conflict),
                ),
                429 => {
                    let limited = CallOutcome::Retry {
                        error: TransientError::RateLimited,
                        retry_after: Some(UNDATED_WAIT),
                    };
                    (limited, limited)
                }
                408 | 421 | 425 | 500..=599 => {
                    let failed = retry(TransientError::Status(code));
                    (failed, failed)
                }
                413 => {
                    let too_large = CallOutcome::Refused(Refusal::TooLarge);
                    (too_large, too_large)
                }
                400 | 422 => (CallOutcome::Refused(Refusal::Payload), intercepted(code)),
                401 => (
                    CallOutcome::Refused(Refusal::Unauthorized),
                    intercepted(code),
                ),
                403 => (CallOutcome::Refused(Refusal::Forbidden), intercepted(code)),
                _ => (CallOutcome::Refused(Refusal::Segment), intercepted(code)),
            };
            assert_eq!(judged(Ok(Form::Empty)), refusal, "{code} without a body");
            assert_eq!(judged(Ok(Form::Json)), refusal, "{code} with JSON");
            assert_eq!(judged(Ok(Form::Other)), page, "{code} with a page");
        }
    }

    #[test]
    fn a_body_that_does_not_end_spoils_a_success_and_leaves_a_refusal_what_it_is() {
        let judged = |code, body| outcome(status(code), &RateHeaders::default(), body);
        let retry = |error| CallOutcome::Retry {
            error,
            retry_after: None,
        };
        let late = Err(TransientError::TimedOut);
        assert_eq!(judged(200, late), retry(TransientError::TimedOut));
        assert_eq!(
            judged(200, Ok(Form::TooLong)),
            retry(TransientError::Intercepted(200))
        );
        let refused = CallOutcome::Refused(Refusal::Payload);
        assert_eq!(judged(400, late), refused);
        assert_eq!(judged(400, Ok(Form::TooLong)), refused);
    }

    #[test]
    fn a_reset_is_read_by_the_clock_that_wrote_it() {
        // (their clock is ahead by, milliseconds of theirs past the full second, expected wait)
        for (ahead, past, wait) in [
            (0, 0, 5_000),
            (0, 999, 5_000),
            (60_000, 0, 5_000),
            (60_000, 900, 5_900),
            (-60_000, 0, 5_000),
            (-60_000, 900, 5_900),
            (-3_600_000, 500, 5_500),
        ] {
            let theirs = NOW + past;
            let ours = theirs.checked_add_signed(-ahead).unwrap();
            let date = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW);
            let headers: HeaderMap = [
                ("date", httpdate::fmt_http_date(date)),
                ("x-ratelimit-reset", (theirs + 5_000).to_string()),
            ]
            .into_iter()
            .map(|(name, value)| {
                (
                    name.parse::<http::HeaderName>().unwrap(),
                    value.parse().unwrap(),
                )
            })
            .collect();
            let ours = SystemTime::UNIX_EPOCH + Duration::from_millis(ours);
            let told = RateHeaders::read(&headers, ours).wait(status(429)).unwrap();
            assert_eq!(told, Duration::from_millis(wait), "{ahead} {past}");
        }
    }

    #[test]
    fn headers_say_how_long_to_wait() {
        const RETRY: &str = "retry-after";
        const RESET: &str = "x-ratelimit-reset";
        const GLOBAL: &str = "x-ratelimit-global-remaining";
        const ROUTE: &str = "x-ratelimit-route-remaining";
        let (later, past, far) = (
            (NOW + 4_000).to_string(),
            (NOW - 1).to_string(),
            (NOW * 2).to_string(),
        );
        type Case<'a> = (u16, &'a [(&'static str, &'a str)], Option<u64>);
        let cases: &[Case<'_>] = &[
            (429, &[(RETRY, "3")], Some(3_000)),
            (429, &[(RESET, &later)], Some(4_000)),
            (429, &[(RETRY, "3"), (RESET, &later)], Some(4_000)),
            (429, &[(RETRY, "9"), (RESET, &later)], Some(9_000)),
            (429, &[(RESET, &past)], Some(0)),
            (429, &[(RESET, &far)], Some(300_000)),
            (429, &[(RETRY, "99999999999999999999999")], Some(300_000)),
            (429, &[], Some(1_000)),
            (
                429,
                &[(RETRY, "Wed, 21 Oct 2015 07:28:00 GMT")],
                Some(1_000),
            ),
            (429, &[(RETRY, "-1"), (RESET, "soon")], Some(1_000)),
            (503, &[(RETRY, "2")], Some(2_000)),
            (503, &[(RESET, &later)], None),
            (204, &[(GLOBAL, "1"), (ROUTE, "1"), (RESET, &later)], None),
            (
                204,
                &[(GLOBAL, "0"), (ROUTE, "1"), (RESET, &later)],
                Some(4_000),
            ),
            (
                204,
                &[(GLOBAL, "1"), (ROUTE, "0"), (RESET, &later)],
                Some(4_000),
            ),
            (204, &[(ROUTE, "0")], Some(1_000)),
            (204, &[], None),
        ];
        for (code, headers, wait) in cases {
            assert_eq!(
                rate_headers(headers).wait(status(*code)),
                wait.map(Duration::from_millis),
                "{code} {headers:?}"
            );
        }
    }

    #[test]
    fn the_least_that_remains_counts_until_a_reset_to_come() {
        let later = (NOW + 4_000).to_string();
        let past = (NOW - 1).to_string();
        let remaining = |global, route, reset: &str| {
            rate_headers(&[
                ("x-ratelimit-global-remaining", global),
                ("x-ratelimit-route-remaining", route),
                ("x-ratelimit-reset", reset),
            ])
        };
        let of = |calls| {
            Some(Remaining {
                calls,
                until_reset: Duration::from_secs(4),
            })
        };
        assert_eq!(remaining("9", "5", &later).remaining(), of(5));
        assert_eq!(remaining("9", "5", &later).of_account().remaining(), of(9));
        assert_eq!(remaining("3", "x", &later).remaining(), of(3));
        assert_eq!(remaining("9", "5", &past).remaining(), None);
        assert_eq!(
            rate_headers(&[("x-ratelimit-reset", &later)]).remaining(),
            None
        );
    }

    #[test]
    fn the_limit_of_another_route_is_not_the_accounts() {
        let limited = |global, route| {
            rate_headers(&[
                ("x-ratelimit-global-remaining", global),
                ("x-ratelimit-route-remaining", route),
            ])
        };
        let of_route = limited("7", "0");
        assert!(of_route.is_limit_of_route(status(429)));
        assert!(!of_route.is_limit_of_route(status(200)));
        assert_eq!(of_route.of_account().wait(status(200)), None);
        assert!(!limited("0", "0").is_limit_of_route(status(429)));
        assert!(!rate_headers(&[("retry-after", "3")]).is_limit_of_route(status(429)));
    }

    #[test]
    fn a_reset_in_the_past_leaves_the_lane_its_own_backoff() {
        let stale = rate_headers(&[("x-ratelimit-reset", "1000")]);
        let expected = CallOutcome::Retry {
            error: TransientError::RateLimited,
            retry_after: None,
        };
        assert_eq!(outcome(status(429), &stale, Ok(Form::Json)), expected);
    }
}
