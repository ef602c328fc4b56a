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
        Fault, FaultKind, FaultPlan,
        fixtures::{CLIENT_SIDE_ID, OTHER_ACCOUNT, SEGMENT},
    },
};

use crate::{
    figure::Figure,
    load::{self, Load},
    options::Size,
    support::{
        history::{Event, History, Outcome},
        scrape::Counts,
    },
    test_service::{TestService, open, soon},
};

const PROMISE: &str = "R12";
/// Those that only ever grow.
const GROWING: [&str; 4] = ["received", "delivered", "failed", "deferred"];
/// Between two scrapes: short beside the time of a call, and long enough to leave a core to those
/// who are watched.
const BETWEEN: Duration = Duration::from_millis(1);
/// Records of the stream that is cut off.
const CUT: usize = 1_000;

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let service = TestService::start_with(|s| s.delivery.linger = Duration::from_millis(5)).await;
    let name = service.create("vip").await;
    let deaf = service.create_elsewhere("deaf").await;
    let load = Load {
        logs: 4,
        records_per_log: size.pick(3_000, 50_000),
        keys_per_log: 100,
        refused_per_log: 0,
    };
    service.sandbox.set_faults(FaultPlan {
        seed: size.seed,
        latency_ms: 5,
        faults: vec![down().at_rate(0.1), down().of_account(OTHER_ACCOUNT)],
        ..FaultPlan::default()
    });
    let history = History::default();
    history.observe(&service.sandbox, CLIENT_SIDE_ID, SEGMENT);
    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (metrics, done) = (service.metrics.clone(), done.clone());
        let names = [name.clone(), deaf.clone()];
        tokio::task::spawn_blocking(move || watch(&metrics, &names, &done))
    };
    let jobs = load.jobs(&open(&name), size.seed);
    let settings = load::settings(Duration::from_secs(size.pick(60, 300)));
    let url = format!("http://{}", service.address);
    let run = load::run(jobs, &url, Duration::from_secs(10), settings, &history);
    let (ran, ()) = tokio::join!(run, cut_off(&service, &deaf));
    done.store(true, Ordering::Release);
    let watched = watch.await.map_err(|error| error.to_string())?;
    ran?;
    let last = Counts::read(&service.metrics.text(), &name);
    let last_of_deaf = Counts::read(&service.metrics.text(), &deaf);
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
        Figure::at_least(
            PROMISE,
            "scrapes with records deferred",
            watched.deferred,
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
        Figure::exactly(
            PROMISE,
            "deferred of a stream that was cut off",
            last_of_deaf.get("deferred"),
            CUT as u64,
        ),
    ])
}

fn down() -> Fault {
    Fault::new(FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE))
}

/// Sends records to a destination that takes none, and is cut off while they wait.
async fn cut_off(service: &TestService, deaf: &str) {
    let in_flight = async |expected| {
        while Counts::read(&service.metrics.text(), deaf).get("in_flight") != expected {
            tokio::time::sleep(BETWEEN).await;
        }
    };
    let stream = service.open(deaf).await;
    let keys: Vec<_> = (0..CUT).map(|key| format!("cut-{key}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    stream.add(&keys).await;
    soon("they are in flight", in_flight(CUT as u64)).await;
    drop(stream);
    soon("they are deferred", in_flight(0)).await;
}

#[derive(Default)]
struct Watched {
    scrapes: u64,
    in_flight: u64,
    deferred: u64,
    wrong: u64,
}

impl Watched {
    /// Takes in what a scrape shows of one destination, beside the one before it.
    fn see(&mut self, before: &Counts, counts: &Counts) {
        let falls = GROWING
            .iter()
            .any(|name| counts.get(name) < before.get(name));
        self.in_flight += u64::from(counts.get("in_flight") > 0);
        self.deferred += u64::from(counts.get("deferred") > 0);
        self.wrong += u64::from(!counts.add_up() || falls);
    }
}

/// Scrapes until all is done, and once after that.
fn watch(metrics: &Metrics, names: &[String; 2], done: &AtomicBool) -> Watched {
    let mut watched = Watched::default();
    let mut before = [Counts::default(), Counts::default()];
    loop {
        let is_last = done.load(Ordering::Acquire);
        let text = metrics.text();
        watched.scrapes += 1;
        for (name, before) in names.iter().zip(&mut before) {
            let counts = Counts::read(&text, name);
            watched.see(before, &counts);
            *before = counts;
        }
        if is_last {
            return watched;
        }
        std::thread::park_timeout(BETWEEN);
    }
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
