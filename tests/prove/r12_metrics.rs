//! R12: metrics tell the truth, at every scrape.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::StatusCode;
use launchdarkly_connector::{
    metrics::Metrics,
    sandbox::{
        Faults, How, Mishap,
        fixtures::{CLIENT_SIDE_ID, SEGMENT},
    },
};

use crate::{
    figure::Figure,
    house::{House, open},
    load::{self, Load},
    options::Size,
    support::{
        history::{Event, History, Outcome},
        scrape::Counts,
    },
};

const PROMISE: &str = "R12";

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let house = House::start_with(|s| s.delivery.linger = Duration::from_millis(5)).await;
    let name = house.create("vip").await;
    let load = Load {
        logs: 4,
        records_per_log: size.pick(3_000, 50_000),
        keys_per_log: 100,
        refused_per_log: 0,
    };
    house.sandbox.set_faults(Faults {
        seed: size.seed,
        latency_ms: 5,
        mishaps: vec![Mishap::new(How::Status(StatusCode::SERVICE_UNAVAILABLE)).at_rate(0.1)],
        ..Faults::default()
    });
    let history = History::default();
    history.observe(&house.sandbox, CLIENT_SIDE_ID, SEGMENT);
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (metrics, name, done) = (house.metrics.clone(), name.clone(), done.clone());
        tokio::task::spawn_blocking(move || watch(&metrics, &name, &done))
    };
    let jobs = load.jobs(&open(&name), size.seed);
    let settings = load::settings(Duration::from_secs(size.pick(60, 300)));
    let url = format!("http://{}", house.address);
    let ran = load::run(jobs, &url, Duration::from_secs(10), settings, &history).await;
    done.store(true, Ordering::Release);
    let watched = watch.await.map_err(|error| error.to_string())?;
    ran?;
    let last = Counts::read(&house.metrics.text(), &name);
    let (ok, failed) = results(&history);
    let records = (load.logs * load.records_per_log) as u64;
    Ok(vec![
        Figure::told(PROMISE, "scrapes", watched.scrapes),
        Figure::at_least(
            PROMISE,
            "scrapes with records in flight",
            watched.in_flight,
            1,
        ),
        Figure::exactly(
            PROMISE,
            "scrapes that do not add up, or fall",
            watched.wrong,
            0,
        ),
        Figure::exactly(
            PROMISE,
            "received in the end",
            last.get("received"),
            records,
        ),
        Figure::exactly(
            PROMISE,
            "delivered in the end, as the clients heard",
            last.get("delivered"),
            ok,
        ),
        Figure::exactly(
            PROMISE,
            "failed in the end, as the clients heard",
            last.get("failed"),
            failed,
        ),
    ])
}

#[derive(Default)]
struct Watched {
    scrapes: u64,
    in_flight: u64,
    wrong: u64,
}

/// Scrapes as fast as it can until all is done.
fn watch(metrics: &Metrics, name: &str, done: &AtomicBool) -> Watched {
    let mut watched = Watched::default();
    let mut last = 0;
    while !done.load(Ordering::Acquire) {
        let counts = Counts::read(&metrics.text(), name);
        let received = counts.get("received");
        watched.scrapes += 1;
        watched.in_flight += u64::from(counts.get("in_flight") > 0);
        watched.wrong += u64::from(!counts.add_up() || received < last);
        last = received;
    }
    watched
}

/// Results that clients have read: OK, and others.
fn results(history: &History) -> (u64, u64) {
    let (mut ok, mut failed) = (0, 0);
    for event in history.events() {
        match event {
            Event::Result {
                outcome: Outcome::Ok,
                ..
            } => ok += 1,
            Event::Result { .. } => failed += 1,
            _ => {}
        }
    }
    (ok, failed)
}
