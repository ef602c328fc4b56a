//! What an answer means: its status, and what its headers say about waiting.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::pace::Remaining;
use crate::{
    clock,
    domain::{Outcome, Refusal, Trouble},
};

/// Longest wait that a header may impose. LaunchDarkly's windows last ten seconds; a header
/// that asks for much more is more likely wrong than meant, and five minutes is the time that
/// a record is tried by default.
const MAX_WAIT: Duration = Duration::from_secs(300);
/// Wait after a limit that no header dates: a tenth of LaunchDarkly's window.
const UNDATED_WAIT: Duration = Duration::from_secs(1);

/// What the headers of an answer say about waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Hints {
    /// `Retry-After`, a minimum.
    retry_after: Option<Duration>,
    /// Time left until `X-Ratelimit-Reset`; zero if that has passed.
    until_reset: Option<Duration>,
    /// Calls that remain of the account's limit.
    global: Option<u64>,
    /// Calls that remain of the limit on the route that was called.
    route: Option<u64>,
}

impl Hints {
    /// Reads headers that came at `now`. What cannot be read counts as absent.
    pub(super) fn read(headers: &HeaderMap, now: SystemTime) -> Self {
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

    /// What these hints say to calls of another route.
    pub(super) fn of_account(self) -> Self {
        Self {
            route: None,
            ..self
        }
    }

    /// How long the account must wait after an answer of `status` with these hints.
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

/// What became of a call that changes a segment. Only the status counts: the texts of live
/// answers differ from what is documented.
pub(super) fn outcome(status: StatusCode, hints: &Hints) -> Outcome {
    if status.is_success() {
        return Outcome::Applied;
    }
    match trouble(status) {
        Some(trouble) => Outcome::Retry {
            trouble,
            // A wait of zero is no wish, and would talk the lane out of its own backoff.
            retry_after: hints.wait(status).filter(|wait| !wait.is_zero()),
        },
        None => Outcome::Refused(refusal(status)),
    }
}

/// Why a status is worth another try; none if it is not.
pub(super) fn trouble(status: StatusCode) -> Option<Trouble> {
    match status.as_u16() {
        429 => Some(Trouble::RateLimited),
        409 => Some(Trouble::Conflict),
        code @ (408 | 425 | 500..=599) => Some(Trouble::Status(code)),
        _ => None,
    }
}

fn refusal(status: StatusCode) -> Refusal {
    match status.as_u16() {
        400 | 422 => Refusal::Payload,
        413 => Refusal::TooLarge,
        401 => Refusal::Unauthorized,
        403 => Refusal::Forbidden,
        // The route or the kind of call, not its members: 404, 405, 415, redirects, the unknown.
        _ => Refusal::Segment,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn hints(headers: &[(&'static str, &str)]) -> Hints {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW);
        Hints::read(&headers, now)
    }

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn every_status_has_its_outcome() {
        let retry = |trouble| Outcome::Retry {
            trouble,
            retry_after: None,
        };
        for code in 200..600 {
            let expected = match code {
                200..=299 => Outcome::Applied,
                409 => retry(Trouble::Conflict),
                429 => Outcome::Retry {
                    trouble: Trouble::RateLimited,
                    retry_after: Some(UNDATED_WAIT),
                },
                408 | 425 | 500..=599 => retry(Trouble::Status(code)),
                400 | 422 => Outcome::Refused(Refusal::Payload),
                413 => Outcome::Refused(Refusal::TooLarge),
                401 => Outcome::Refused(Refusal::Unauthorized),
                403 => Outcome::Refused(Refusal::Forbidden),
                _ => Outcome::Refused(Refusal::Segment),
            };
            assert_eq!(outcome(status(code), &Hints::default()), expected, "{code}");
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
                hints(headers).wait(status(*code)),
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
            hints(&[
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
        assert_eq!(hints(&[("x-ratelimit-reset", &later)]).remaining(), None);
    }

    #[test]
    fn the_limit_of_another_route_is_not_the_accounts() {
        let limited = |global, route| {
            hints(&[
                ("x-ratelimit-global-remaining", global),
                ("x-ratelimit-route-remaining", route),
            ])
        };
        let of_route = limited("7", "0");
        assert!(of_route.is_limit_of_route(status(429)));
        assert!(!of_route.is_limit_of_route(status(200)));
        assert_eq!(of_route.of_account().wait(status(200)), None);
        assert!(!limited("0", "0").is_limit_of_route(status(429)));
        assert!(!hints(&[("retry-after", "3")]).is_limit_of_route(status(429)));
    }

    #[test]
    fn a_reset_in_the_past_leaves_the_lane_its_own_backoff() {
        let stale = hints(&[("x-ratelimit-reset", "1000")]);
        let expected = Outcome::Retry {
            trouble: Trouble::RateLimited,
            retry_after: None,
        };
        assert_eq!(outcome(status(429), &stale), expected);
    }
}
