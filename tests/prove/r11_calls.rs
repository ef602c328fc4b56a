//! R11: under load, calls are full.

use std::time::Duration;

use launchdarkly_connector::sandbox::{
    FaultPlan, RecordedCall,
    fixtures::{CLIENT_SIDE_ID, SEGMENT},
};

use crate::{
    figure::Figure,
    load,
    options::Size,
    support::{
        executor::{self, Job, Record},
        history::{History, Operation},
    },
    test_service::{TestService, open},
};

const PROMISE: &str = "R11";
const MEMBERS_PER_CALL: usize = 1_000;
/// Longer than a lane lingers: what came meanwhile would make many calls, each half empty.
const LATENCY_MS: u64 = 200;

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(FaultPlan {
        latency_ms: LATENCY_MS,
        ..FaultPlan::default()
    });
    let history = History::default();
    history.observe(&service.sandbox, CLIENT_SIDE_ID, SEGMENT);
    let (logs, records): (usize, usize) = size.pick((2, 50_000), (2, 200_000));
    let jobs = (0..logs).map(|log| Job {
        log: format!("log-{log}").into(),
        open: open(&name),
        records: (0..records)
            .map(|n| Record {
                key: format!("{log}-{n}").into(),
                operation: Operation::Add,
            })
            .collect(),
    });
    // Some 12,000 records a second: more than one call at a time would take away, and fewer than
    // four.
    let settings = executor::Settings {
        batch: 75,
        pause: Duration::from_millis(12),
        deadline: Some(Duration::from_secs(120)),
        ..executor::Settings::default()
    };
    let url = format!("http://{}", service.address);
    let patience = Duration::from_secs(10);
    let ran = load::run(jobs.collect(), &url, patience, settings, &history).await?;
    history.conclude(service.sandbox.members(CLIENT_SIDE_ID, SEGMENT));
    history.check()?;
    let calls = service.sandbox.calls();
    let calls = calls
        .iter()
        .filter(|call: &&RecordedCall| call.segment.is_some())
        .count();
    let changes = logs * records;
    let least = changes.div_ceil(MEMBERS_PER_CALL);
    Ok(vec![
        Figure::told(PROMISE, "distinct changes", changes),
        Figure::at_most(PROMISE, "calls", calls, least * 105 / 100),
        Figure::told(
            PROMISE,
            "time",
            format!("{:.1} s", ran.elapsed.as_secs_f64()),
        ),
    ])
}
