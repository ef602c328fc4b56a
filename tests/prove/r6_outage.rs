//! R6: while LaunchDarkly fails, calls that are tried again are few; afterwards all is delivered.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use launchdarkly_connector::sandbox::{Fault, FaultKind, FaultPlan, RecordedCall};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    figure::Figure,
    load,
    options::Size,
    test_service::{Stream, TestService, open_into},
};

const PROMISE: &str = "R6";
/// What one lane sends its next record after.
const EVERY: Duration = Duration::from_millis(200);
/// Seconds in which what an outage left is delivered. Two hundred lanes have one call each to
/// repeat in the large size, which takes twenty where the budget for repeats outlives the trouble.
const BACKLOG_GONE: u64 = 10;

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    let mut figures = Vec::new();
    for (what, rate) in [("all calls fail", 1.0), ("every second call fails", 0.5)] {
        figures.extend(load::runtime().block_on(prove(size, what, rate))?);
    }
    Ok(figures)
}

async fn prove(size: Size, what: &str, rate: f64) -> Result<Vec<Figure>, String> {
    let service = TestService::start_with(|s| s.delivery.linger = Duration::from_millis(5)).await;
    let name = service.create("vip").await;
    let lanes = size.pick(40, 200);
    let lasts = Duration::from_secs(size.pick(5, 30));
    let mut streams = Vec::new();
    for lane in 0..lanes {
        streams.push(
            service
                .open_with(open_into(&name, &format!("r6-{lane}")))
                .await,
        );
    }
    service.sandbox.set_faults(FaultPlan {
        seed: size.seed,
        latency_ms: 5,
        faults: vec![Fault::new(FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE)).at_rate(rate)],
        ..FaultPlan::default()
    });
    let before = service.sandbox.totals().calls;
    let began = Instant::now();
    let until = began + lasts;
    let mut senders = JoinSet::new();
    for (lane, stream) in streams.into_iter().enumerate() {
        senders.spawn(send(stream, lane, until));
    }
    tokio::time::sleep_until(until).await;
    let calls = service.sandbox.calls();
    let all = service.sandbox.totals().calls - before;
    let lasted = began.elapsed();
    service.sandbox.set_faults(FaultPlan::default());
    let recovered = Instant::now();
    let (mut records, mut delivered) = (0, 0);
    while let Some(sent) = senders.join_next().await {
        let (of, ok) = sent.map_err(|error| error.to_string())?;
        (records, delivered) = (records + of, delivered + ok);
    }
    let recovered = recovered.elapsed();
    let (first, again) = attempts(&calls);
    // A fifth of the first attempts, and ten a second.
    let allowed = first / 5 + u64::try_from(lasted.as_millis()).unwrap() / 100;
    let figure = |figure: &str| format!("{what} for {} s: {figure}", lasts.as_secs());
    let all = if rate < 1.0 {
        Figure::told(PROMISE, figure("calls in all"), all)
    } else {
        let bound = most_that_a_dead_one_sees(lasted);
        Figure::at_most(PROMISE, figure("calls in all"), all, bound)
    };
    Ok(vec![
        Figure::told(PROMISE, figure("lanes"), lanes),
        all,
        Figure::told(PROMISE, figure("first attempts"), first),
        Figure::at_most(PROMISE, figure("calls made again"), again, allowed),
        Figure::exactly(
            PROMISE,
            figure("records delivered in the end"),
            delivered,
            records,
        ),
        Figure::at_most(
            PROMISE,
            figure("s until the backlog was gone"),
            recovered.as_secs(),
            BACKLOG_GONE,
        ),
    ])
}

/// Sends a record of a new key every now and then, and waits for all results: how many there are,
/// and how many of them are OK.
async fn send(stream: Stream, lane: usize, until: Instant) -> (usize, usize) {
    let mut records = 0;
    while Instant::now() < until {
        stream.add(&[&format!("{lane}-{records}")]).await;
        records += 1;
        tokio::time::sleep(EVERY).await;
    }
    let (answers, ended) = stream.finish().await;
    ended.expect("an outage does not end a stream");
    let ok = answers.results().values().filter(|r| r.is_none()).count();
    (records, ok)
}

/// Calls in all, however many lanes want to make some: the eight in a row that open the breaker,
/// those that may be under way beside the last of them, and one probe at a time, the first after
/// 0.75 s and all others after more. Twice that, so that other constants of the same order do not
/// break a promise; without a breaker there are more for each lane and each second.
fn most_that_a_dead_one_sees(lasted: Duration) -> u64 {
    let (run, places) = (8, 8);
    let probes = u64::try_from(lasted.as_millis()).unwrap() / 750;
    2 * (run + places + probes)
}

/// Calls whose members were all new, and those that held one that had been in a call before.
fn attempts(calls: &[RecordedCall]) -> (u64, u64) {
    let mut seen = BTreeSet::new();
    let (mut first, mut again) = (0, 0);
    for call in calls.iter().filter(|call| call.segment.is_some()) {
        let known = call
            .keys
            .iter()
            .filter(|key| !seen.insert((*key).clone()))
            .count();
        if known > 0 {
            again += 1;
        } else {
            first += 1;
        }
    }
    (first, again)
}
