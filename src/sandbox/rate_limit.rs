//! LaunchDarkly's rate limits: fixed windows, counted per account and route.

use std::collections::HashMap;

use axum::http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};

/// How many calls are answered in one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Calls of one account, over all its tokens and routes.
    pub global: u64,
    /// Calls of one account on one route.
    pub route: u64,
    /// Length of a window in milliseconds.
    pub window_ms: u64,
    /// Limit on all calls together, as if they came from one IP address.
    pub ip: Option<IpLimit>,
}

/// LaunchDarkly's other kind of limit, which answers with `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IpLimit {
    /// Calls in one window.
    pub calls: u64,
    /// What `Retry-After` says, in seconds.
    pub retry_after_s: u64,
}

impl Default for RateLimits {
    /// Windows are LaunchDarkly's ten seconds; its numbers are not published, so the default is
    /// one that only a runaway reaches.
    fn default() -> Self {
        Self {
            global: 100_000,
            route: 100_000,
            window_ms: 10_000,
            ip: None,
        }
    }
}

/// What is left of an account's window after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RemainingCalls {
    pub(super) global_remaining: u64,
    pub(super) route_remaining: u64,
    pub(super) reset_ms: u64,
}

impl RemainingCalls {
    pub(super) fn stamp(self, headers: &mut HeaderMap) {
        headers.insert(
            "x-ratelimit-global-remaining",
            HeaderValue::from(self.global_remaining),
        );
        headers.insert(
            "x-ratelimit-route-remaining",
            HeaderValue::from(self.route_remaining),
        );
        headers.insert("x-ratelimit-reset", HeaderValue::from(self.reset_ms));
    }
}

/// What the meter says to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateCheck {
    Within(RemainingCalls),
    Exceeded(RemainingCalls),
}

/// Counts of the window that runs.
#[derive(Debug, Default)]
pub(super) struct RateMeter {
    pub(super) limits: RateLimits,
    /// The number of the window since the epoch.
    window: u64,
    accounts: HashMap<String, u64>,
    routes: HashMap<(String, String), u64>,
    ip: u64,
}

impl RateMeter {
    pub(super) fn new(limits: RateLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Counts a call of an address: `Err` holds the seconds to wait.
    pub(super) fn count_address(&mut self, now_ms: u64) -> Result<(), u64> {
        self.turn(now_ms);
        self.ip += 1;
        match &self.limits.ip {
            Some(limit) if self.ip > limit.calls => Err(limit.retry_after_s),
            _ => Ok(()),
        }
    }

    /// Counts a call of an account. Refused calls count too, and change nothing more.
    pub(super) fn count(&mut self, account: &str, route: &str, now_ms: u64) -> RateCheck {
        self.turn(now_ms);
        let global = bump(&mut self.accounts, account.to_owned());
        let on_route = bump(&mut self.routes, (account.to_owned(), route.to_owned()));
        let budget = RemainingCalls {
            global_remaining: self.limits.global.saturating_sub(global),
            route_remaining: self.limits.route.saturating_sub(on_route),
            reset_ms: (self.window + 1) * self.window_ms(),
        };
        if global > self.limits.global || on_route > self.limits.route {
            RateCheck::Exceeded(budget)
        } else {
            RateCheck::Within(budget)
        }
    }

    fn turn(&mut self, now_ms: u64) {
        let window = now_ms / self.window_ms();
        if window != self.window {
            self.window = window;
            self.accounts.clear();
            self.routes.clear();
            self.ip = 0;
        }
    }

    fn window_ms(&self) -> u64 {
        self.limits.window_ms.max(1)
    }
}

fn bump<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u64>, key: K) -> u64 {
    let count = counts.entry(key).or_default();
    *count += 1;
    *count
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_003_500;
    const RESET: u64 = 1_700_000_010_000;

    fn budget(global_remaining: u64, route_remaining: u64) -> RemainingCalls {
        RemainingCalls {
            global_remaining,
            route_remaining,
            reset_ms: RESET,
        }
    }

    #[test]
    fn a_window_is_shared_by_an_accounts_routes_and_ends_at_its_reset() {
        let mut meter = RateMeter::new(RateLimits {
            global: 3,
            route: 2,
            ..RateLimits::default()
        });
        assert_eq!(meter.count("a", "x", NOW), RateCheck::Within(budget(2, 1)));
        assert_eq!(meter.count("a", "x", NOW), RateCheck::Within(budget(1, 0)));
        assert_eq!(
            meter.count("a", "x", NOW),
            RateCheck::Exceeded(budget(0, 0))
        );
        assert_eq!(
            meter.count("a", "y", NOW),
            RateCheck::Exceeded(budget(0, 1))
        );
        assert_eq!(meter.count("b", "x", NOW), RateCheck::Within(budget(2, 1)));
        assert!(matches!(
            meter.count("a", "x", RESET - 1),
            RateCheck::Exceeded(_)
        ));
        assert!(matches!(meter.count("a", "x", RESET), RateCheck::Within(_)));
    }

    #[test]
    fn an_address_is_told_how_long_to_wait() {
        let mut meter = RateMeter::new(RateLimits {
            ip: Some(IpLimit {
                calls: 1,
                retry_after_s: 7,
            }),
            ..RateLimits::default()
        });
        assert_eq!(meter.count_address(NOW), Ok(()));
        assert_eq!(meter.count_address(NOW), Err(7));
        assert_eq!(meter.count_address(RESET), Ok(()));
    }
}
