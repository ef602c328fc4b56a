//! R8: a destination that is sick harms no other.

use std::time::Duration;

use launchdarkly_connector::sandbox::{
    Fault, FaultKind, FaultPlan,
    fixtures::{OTHER_ACCOUNT, TEST_CLIENT_SIDE_ID},
};
use tokio::time::Instant;

use crate::{
    figure::Figure,
    load,
    options::Size,
    support::scrape::Counts,
    test_service::{Stream, TestService, open_into},
};

const PROMISE: &str = "R8";
/// What the well one sends, and how often.
const BATCH: usize = 100;
const EVERY: Duration = Duration::from_millis(20);
/// Streams of the sick one, each into a segment of its own: together they want more memory than
/// there is.
const STUCK: usize = 20;
/// What each of them sends, in batches of as many as one message may hold.
const BATCHES: usize = 12;
const FULL: usize = 1_000;
/// How much longer an ack may take beside it even where few are measured: far more than a hiccup of
/// a busy machine, and far less than what waits for somebody who never answers.
const COARSELY: Duration = Duration::from_secs(1);

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

/// Whose the sick destination is.
#[derive(Clone, Copy)]
enum Sick {
    /// Another account's.
    Account,
    /// Another environment's of the same account.
    Environment,
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let mut figures = beside(Sick::Account, size).await?;
    figures.extend(beside(Sick::Environment, size).await?);
    Ok(figures)
}

async fn beside(sick: Sick, size: Size) -> Result<Vec<Figure>, String> {
    let service = TestService::start_with(|s| s.max_buffered_mib = 32).await;
    let (whose, sick, hangs) = match sick {
        Sick::Account => {
            let sick = service.create_elsewhere("sick").await;
            (
                "account",
                sick,
                Fault::new(FaultKind::Hang).of_account(OTHER_ACCOUNT),
            )
        }
        Sick::Environment => {
            let sick = service.create_in("sick", TEST_CLIENT_SIDE_ID).await;
            let hangs = Fault::new(FaultKind::Hang).of_environment(TEST_CLIENT_SIDE_ID);
            ("environment", sick, hangs)
        }
    };
    let well = service.create("well").await;
    service.sandbox.set_faults(FaultPlan {
        latency_ms: 20,
        faults: vec![hangs],
        ..FaultPlan::default()
    });
    let mut stream = service.open(&well).await;
    let (rounds, batches) = size.pick((1, 100), (4, 500));
    let (mut calm, mut beside) = (Vec::new(), Vec::new());
    let mut sent = 0;
    // In turns, so that what else the machine does falls on both.
    for _ in 0..rounds {
        calm.extend(measure(&mut stream, &mut sent, batches).await);
        let stuck = get_stuck(&service, &sick).await;
        beside.extend(measure(&mut stream, &mut sent, batches).await);
        drop(stuck);
    }
    stream
        .finish()
        .await
        .1
        .map_err(|status| format!("{status:?}"))?;
    let (calm, beside) = (p99(calm), p99(beside));
    let ratio = beside.as_secs_f64() / calm.as_secs_f64();
    let ratio = (100.0 * ratio).round() / 100.0;
    let what = format!("ack p99 beside a sick {whose} / without it");
    let millis = |time: Duration| format!("{:.1} ms", 1000.0 * time.as_secs_f64());
    let judged = if size.large {
        Figure::at_most(PROMISE, what, ratio, 1.2)
    } else {
        // Of so few, one hiccup of the machine decides.
        Figure::told(PROMISE, what, ratio)
    };
    let longer = beside.saturating_sub(calm).as_secs_f64();
    let read = Counts::read(&service.metrics.text(), &sick).get("received");
    let sent = (rounds * STUCK * BATCHES * FULL) as u64;
    Ok(vec![
        Figure::told(PROMISE, "ack p99 without it", millis(calm)),
        Figure::told(PROMISE, "ack p99 beside it", millis(beside)),
        judged,
        Figure::at_most(
            PROMISE,
            "s that ack p99 is longer beside it",
            (1000.0 * longer).round() / 1000.0,
            COARSELY.as_secs_f64(),
        ),
        Figure::told(PROMISE, "records sent to the sick one", sent),
        // It stands at its share of the memory, and not for want of records: the windows of its
        // streams alone would let five sixths in.
        Figure::at_least(PROMISE, "of them read", read, (rounds * FULL) as u64),
        Figure::at_most(PROMISE, "of them read", read, sent / 2),
    ])
}

/// How long each batch waits until it is committed.
async fn measure(stream: &mut Stream, sent: &mut i64, batches: usize) -> Vec<Duration> {
    let mut times = Vec::with_capacity(batches);
    for _ in 0..batches {
        let keys: Vec<_> = (0..BATCH).map(|key| format!("w{key}")).collect();
        let keys: Vec<_> = keys.iter().map(String::as_str).collect();
        let start = Instant::now();
        stream.add(&keys).await;
        *sent += BATCH as i64;
        stream.committed(*sent).await;
        times.push(start.elapsed());
        tokio::time::sleep(EVERY).await;
    }
    times
}

/// Streams that push all they may to a destination that never answers.
async fn get_stuck(service: &TestService, sick: &str) -> Vec<Stream> {
    let before = service.sandbox.totals().calls;
    let mut stuck = Vec::new();
    for n in 0..STUCK {
        let open = open_into(sick, &format!("segment-{n}"));
        let stream = service.open_with(open).await;
        for batch in 0..BATCHES {
            let keys: Vec<_> = (0..FULL).map(|key| format!("{n}-{batch}-{key}")).collect();
            stream
                .add(&keys.iter().map(String::as_str).collect::<Vec<_>>())
                .await;
        }
        stuck.push(stream);
    }
    service
        .until("it is called", |s| s.totals().calls > before)
        .await;
    stuck
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}
