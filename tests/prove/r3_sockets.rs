//! R3: the same over real sockets that break, stall and dribble, on both sides of the service.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use launchdarkly_connector::{
    backoff::Backoff,
    sandbox::{
        FaultPlan,
        fixtures::{CLIENT_SIDE_ID, SEGMENT},
    },
};

use crate::{
    figure::Figure,
    load::{self, Load},
    options::Size,
    support::{
        executor::Settings,
        history::History,
        proxy::{Proxy, Toxics},
    },
    test_service::{TestService, open},
};

const PROMISE: &str = "R3";
/// How soon a silent connection counts as dead, for clients and for calls to LaunchDarkly.
const PATIENCE: Duration = Duration::from_millis(800);

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let load = Load {
        logs: 4,
        records_per_log: size.pick(4_000, 25_000),
        keys_per_log: 250,
        refused_per_log: 0,
    };
    let drawn = Arc::new(AtomicUsize::new(0));
    let service = TestService::start_behind(
        async |sandbox| Some(proxy(sandbox, size.seed, &drawn).await),
        |settings| {
            settings.launchdarkly.attempt_timeout = PATIENCE;
            settings.launchdarkly.max_members_per_call = 100;
            settings.delivery.linger = Duration::from_millis(5);
        },
    )
    .await;
    // So long that a client which lost its stream would be back before the calls of the lost one
    // have ended, if the fence let it.
    service.sandbox.set_faults(FaultPlan {
        seed: size.seed,
        latency_ms: 50,
        jitter_ms: 100,
        ..FaultPlan::default()
    });
    let name = service.create("vip").await;
    let front = proxy(service.address, size.seed + 1, &drawn).await;
    let history = History::default();
    history.observe(&service.sandbox, CLIENT_SIDE_ID, SEGMENT);
    let jobs = load.jobs(&open(&name), size.seed);
    let url = format!("http://{}", front.address);
    let settings = Settings {
        backoff: Backoff {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(200),
        },
        ..load::settings(Duration::from_secs(size.pick(60, 600)))
    };
    let ran = load::run(jobs, &url, PATIENCE, settings, &history).await?;
    history.conclude(service.sandbox.members(CLIENT_SIDE_ID, SEGMENT));
    let mut figures = load::figures(PROMISE, &history, &load, &ran)?;
    let faulty = drawn.load(Ordering::Relaxed);
    figures.push(Figure::at_least(
        PROMISE,
        "connections with a fault that ends them",
        faulty,
        size.pick(15, 60),
    ));
    Ok(figures)
}

/// A proxy whose faults are drawn from a seed; `drawn` counts those that end a connection.
async fn proxy(upstream: SocketAddr, seed: u64, drawn: &Arc<AtomicUsize>) -> Proxy {
    let mut random = fastrand::Rng::with_seed(seed);
    let drawn = Arc::clone(drawn);
    let draw = move || {
        let toxics = draw(&mut random);
        let ends =
            toxics.black_hole_after.or(toxics.cut_after).is_some() || toxics.reset_after.is_some();
        drawn.fetch_add(usize::from(ends), Ordering::Relaxed);
        toxics
    };
    Proxy::drawing(upstream, draw).await
}

/// Every connection is a little slow, and ends badly, most of them after a few round trips.
fn draw(random: &mut fastrand::Rng) -> Toxics {
    let toxics = Toxics {
        latency: Duration::from_millis(random.u64(..10)),
        jitter: Duration::from_millis(random.u64(..20)),
        bytes_per_second: (random.usize(..4) == 0).then_some(200_000),
        slow_close: Duration::from_millis(random.u64(..200)),
        ..Toxics::default()
    };
    let bytes = Some(random.u64(500..40_000));
    match random.usize(..10) {
        0..=2 => Toxics {
            cut_after: bytes,
            ..toxics
        },
        3..=5 => Toxics {
            reset_after: Some(Duration::from_millis(random.u64(50..800))),
            ..toxics
        },
        6 => Toxics {
            black_hole_after: bytes,
            ..toxics
        },
        _ => Toxics {
            reset_after: Some(Duration::from_millis(random.u64(1_000..3_000))),
            ..toxics
        },
    }
}
