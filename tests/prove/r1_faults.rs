//! R1: no record is lost or overtaken, whatever LaunchDarkly does.

use std::{collections::BTreeSet, time::Duration};

use http::StatusCode;
use launchdarkly_connector::sandbox::{
    Fault, FaultKind, FaultPlan, Hidden,
    fixtures::{CLIENT_SIDE_ID, SEGMENT},
};

use crate::{
    figure::Figure,
    load::{self, Load},
    options::Size,
    support::history::History,
    test_service::{TestService, open},
};

const PROMISE: &str = "R1";
/// Short, since a hang lasts as long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(500);
/// Small calls, so that there are many, and some overlap.
const MEMBERS_PER_CALL: u16 = 100;
/// The contract's shortest: some records run into it, which leaves open whether they were applied.
const IMPATIENT: i64 = 1;
/// Nothing here is slow to connect.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let load = Load {
        logs: 4,
        records_per_log: size.pick(5_000, 25_000),
        keys_per_log: 250,
        refused_per_log: 2,
    };
    let service = TestService::start_with(|settings| {
        settings.launchdarkly.attempt_timeout = ATTEMPT_TIMEOUT;
        settings.launchdarkly.max_members_per_call = MEMBERS_PER_CALL;
        settings.delivery.linger = Duration::from_millis(5);
    })
    .await;
    let name = service.create("vip").await;
    let faults = faults(&load, size);
    let planned: u64 = faults.faults.iter().filter_map(|fault| fault.calls).sum();
    service.sandbox.set_faults(faults);
    let history = History::default();
    history.observe(&service.sandbox, CLIENT_SIDE_ID, SEGMENT);
    let mut jobs = load.jobs(&open(&name), size.seed);
    jobs[0].open.delivery_timeout = Some(prost_types::Duration {
        seconds: IMPATIENT,
        nanos: 0,
    });
    let url = format!("http://{}", service.address);
    let deadline = Duration::from_secs(size.pick(60, 300));
    let ran = load::run(jobs, &url, PATIENCE, load::settings(deadline), &history).await?;
    history.conclude(service.sandbox.members(CLIENT_SIDE_ID, SEGMENT));
    let left: u64 = service
        .sandbox
        .faults()
        .faults
        .iter()
        .filter_map(|m| m.calls)
        .sum();
    let mut figures = load::figures(PROMISE, &history, &load, &ran)?;
    figures.extend([
        Figure::at_least(PROMISE, "faults met", planned - left, planned / 2),
        Figure::told(PROMISE, "calls made", service.sandbox.totals().calls),
    ]);
    Ok(figures)
}

/// Everything at once: each kind is counted, so that the end comes in bounded time.
fn faults(load: &Load, size: Size) -> FaultPlan {
    let refused: BTreeSet<_> = (0..load.logs)
        .flat_map(|log| load.refused_keys(log))
        .collect();
    let kinds = [
        (FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE), 0.02, 4),
        (FaultKind::Status(StatusCode::CONFLICT), 0.015, 3),
        (FaultKind::Reset, 0.015, 3),
        (FaultKind::Hang, 0.008, 2),
    ];
    let times = size.pick(1, 5);
    let instead = kinds
        .clone()
        .map(|(how, rate, calls)| Fault::new(how).at_rate(rate).for_calls(calls * times));
    let after = kinds.map(|(how, rate, calls)| {
        Fault::new(how)
            .at_rate(rate)
            .for_calls(calls * times)
            .after_applying()
    });
    // It holds back the whole account for a second, since no header says for how long.
    let limited = Fault::new(FaultKind::Status(StatusCode::TOO_MANY_REQUESTS))
        .at_rate(0.005)
        .for_calls(times);
    FaultPlan {
        seed: size.seed,
        latency_ms: 5,
        jitter_ms: 20,
        refused_keys: Hidden(refused),
        faults: instead.into_iter().chain(after).chain([limited]).collect(),
        ..FaultPlan::default()
    }
}
