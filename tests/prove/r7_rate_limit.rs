//! R7: a rate limit is obeyed, used, and followed when it changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use launchdarkly_connector::{
    clock,
    sandbox::{FaultPlan, IpLimit, RateLimits, RecordedCall},
};
use tokio::task::JoinSet;

use crate::{
    figure::Figure,
    load,
    options::Size,
    test_service::{TestService, open_into},
};

const PROMISE: &str = "R7";
/// Segments that want to be called all the time.
const LANES: usize = 48;
/// Calls in a window, one after the other: the limit falls and rises again.
const LIMITS: [u64; 3] = [240, 120, 360];
/// Windows that each limit is in force for; the first is for adapting.
const WINDOWS: u64 = 3;
/// An answer that says no is heard, and calls that had left before have arrived. Loopback takes a
/// few milliseconds; a machine that does other things besides may not turn to it for a quarter of
/// a second, and what it shows then says nothing about who obeys. A client that does not obey
/// calls on for the rest of the window, which is many times as long.
const UNDER_WAY: u64 = 300;

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    let mut figures = load::runtime().block_on(prove(size, Says::Everything))?;
    if size.large {
        figures.extend(load::runtime().block_on(prove(size, Says::RetryAfter))?);
    }
    Ok(figures)
}

/// What LaunchDarkly tells of its limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// What remains, and until when, with each answer.
    Everything,
    /// For how long to wait, once it is exceeded.
    RetryAfter,
}

async fn prove(size: Size, says: Says) -> Result<Vec<Figure>, String> {
    let window_ms = size.pick(2_000, 10_000);
    let service = TestService::start_with(|s| s.delivery.linger = Duration::ZERO).await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(FaultPlan {
        latency_ms: 5,
        ..FaultPlan::default()
    });
    let mut lanes = JoinSet::new();
    let ends = Arc::new(AtomicBool::new(false));
    let mut phases = Vec::new();
    for lane in 0..LANES {
        let stream = service
            .open_with(open_into(&name, &format!("r7-{lane}")))
            .await;
        let ends = Arc::clone(&ends);
        lanes.spawn(async move {
            let mut stream = stream;
            let mut records = 0;
            while !ends.load(Ordering::Acquire) {
                records += 1;
                stream.add(&[&format!("{lane}-{records}")]).await;
                stream.committed(records).await;
            }
            stream.finish().await.1
        });
    }
    for limit in LIMITS {
        service.sandbox.set_limits(limits(says, limit, window_ms));
        // From the next window on it is in force for whole ones.
        let phase = now_ms() / window_ms + 1;
        phases.push((phase, limit));
        let until = (phase + WINDOWS) * window_ms;
        tokio::time::sleep(Duration::from_millis(until.saturating_sub(now_ms()))).await;
    }
    let calls = service.sandbox.calls();
    ends.store(true, Ordering::Release);
    service.sandbox.set_limits(RateLimits::default());
    while let Some(ended) = lanes.join_next().await {
        let ended = ended.map_err(|error| error.to_string())?;
        ended.map_err(|status| format!("a stream failed: {status:?}"))?;
    }
    Ok(figures(&calls, &phases, window_ms, says))
}

fn limits(says: Says, limit: u64, window_ms: u64) -> RateLimits {
    match says {
        Says::Everything => RateLimits {
            route: limit,
            window_ms,
            ..RateLimits::default()
        },
        Says::RetryAfter => RateLimits {
            window_ms,
            ip: Some(IpLimit {
                calls: limit,
                retry_after_s: window_ms / 1000,
            }),
            ..RateLimits::default()
        },
    }
}

fn now_ms() -> u64 {
    clock::epoch_millis(clock::now()).unsigned_abs()
}

/// What one window was like.
#[derive(Default)]
struct Window {
    accepted: u64,
    limited: u64,
    /// Calls that came although they could have known better.
    heedless: u64,
}

fn figures(
    calls: &[RecordedCall],
    phases: &[(u64, u64)],
    window_ms: u64,
    says: Says,
) -> Vec<Figure> {
    let mut windows = BTreeMap::<u64, Window>::new();
    // When a no was said first, and until when. Those that follow do not move it: whoever calls on
    // would always have heard one just now.
    let (mut no, mut until) = (0, 0);
    for call in calls.iter().filter(|call| call.status.is_some()) {
        let it = windows.entry(call.arrived_ms / window_ms).or_default();
        let knew = call.arrived_ms > no + UNDER_WAY && call.arrived_ms < until;
        it.heedless += u64::from(knew);
        if call.status == Some(429) {
            it.limited += 1;
            if call.arrived_ms >= until {
                no = call.arrived_ms;
            }
            until = until.max(match says {
                Says::Everything => (call.arrived_ms / window_ms + 1) * window_ms,
                Says::RetryAfter => call.arrived_ms + window_ms,
            });
        } else {
            it.accepted += 1;
        }
    }
    let how = match says {
        Says::Everything => "with what remains",
        Says::RetryAfter => "with Retry-After alone",
    };
    let mut figures = Vec::new();
    let (mut accepted, mut limited, mut heedless) = (0, 0, 0);
    for (phase, limit) in phases {
        // The first window is for adapting.
        let adapted = windows.range(phase + 1..phase + WINDOWS);
        let used: u64 = adapted.clone().map(|(_, window)| window.accepted).sum();
        let goodput = used as f64 / (limit * (WINDOWS - 1)) as f64;
        let what = format!("{how}, limit {limit}: goodput, % of it");
        let goodput = (100.0 * goodput).round();
        figures.push(match says {
            Says::Everything => Figure::at_least(PROMISE, what, goodput, 90.0),
            // The wait runs from a no in the midst of a window, and may end after the next one.
            Says::RetryAfter => Figure::told(PROMISE, what, goodput),
        });
        for (_, window) in adapted {
            accepted += window.accepted;
            limited += window.limited;
        }
        let all = windows.range(*phase..phase + WINDOWS);
        heedless += all.map(|(_, window)| window.heedless).sum::<u64>();
    }
    let share = limited as f64 / (accepted + limited).max(1) as f64;
    let what = format!("{how}: 429s among 1,000 calls");
    let per_mille = (1000.0 * share).round();
    figures.push(match says {
        Says::Everything => Figure::at_most(PROMISE, what, per_mille, 20.0),
        // Nobody is told of a limit before it is met: as many calls meet it as are under way.
        Says::RetryAfter => Figure::told(PROMISE, what, per_mille),
    });
    let what = format!("{how}: calls before the stated time");
    figures.push(Figure::exactly(PROMISE, what, heedless, 0));
    figures
}
