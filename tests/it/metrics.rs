//! What is counted is what happened, at every moment.

use std::collections::BTreeMap;

use http::StatusCode;
use launchdarkly_connector::{
    metrics::Metrics,
    pb::{self, identifier_record::Operation},
    sandbox::{Faults, How, Mishap},
};

use crate::house::{House, open, record, soon};

/// A destination's counts as a scrape shows them, by the end of the metric's name; failures of all
/// reasons together.
pub(crate) fn scrape(metrics: &Metrics, destination: &str) -> BTreeMap<String, u64> {
    let text = metrics.text();
    let label = format!("{{destination=\"{destination}\"");
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(&label)) {
        let (name, rest) = line.split_once('{').unwrap();
        let value: u64 = rest.rsplit_once(' ').unwrap().1.parse().unwrap();
        let name = name.trim_start_matches("connector_records_");
        let name = name.trim_end_matches("_total").to_owned();
        *counts.entry(name).or_default() += value;
    }
    counts
}

fn count(counts: &BTreeMap<String, u64>, name: &str) -> u64 {
    counts.get(name).copied().unwrap_or_default()
}

/// What a scrape that adds up shows as received.
pub(crate) fn received(counts: &BTreeMap<String, u64>) -> u64 {
    let parts = ["delivered", "failed", "deferred", "in_flight"];
    let sum: u64 = parts.iter().map(|name| count(counts, name)).sum();
    assert_eq!(count(counts, "received"), sum, "{counts:?}");
    sum
}

#[tokio::test]
async fn each_record_is_received_and_then_is_one_thing_at_every_scrape() {
    let house = House::start().await;
    let name = house.create("vip").await;
    house.sandbox.set_faults(Faults {
        latency_ms: 2,
        mishaps: vec![Mishap::new(How::Status(StatusCode::SERVICE_UNAVAILABLE)).at_rate(0.2)],
        ..Faults::default()
    });
    let watched = (house.metrics.clone(), name.clone());
    let sandbox = house.sandbox.clone();
    let watch = tokio::spawn(async move {
        let (mut last, mut scrapes) = (0, 0);
        while last < 2_000 {
            let seen = received(&scrape(&watched.0, &watched.1));
            assert!(seen >= last, "records were forgotten");
            (last, scrapes) = (seen, scrapes + 1);
            let calls = sandbox.totals().calls;
            let news = sandbox.until(|s| s.totals().calls > calls);
            tokio::time::timeout(std::time::Duration::from_millis(10), news)
                .await
                .ok();
        }
        scrapes
    });
    let stream = house.open(&name).await;
    for n in 0..20 {
        let mut records: Vec<_> = (0..99)
            .map(|key| record(&format!("k{n}-{key}"), Operation::Add))
            .collect();
        records.push(record(" ", Operation::Add));
        stream.batch(records).await;
    }
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert!(soon("all records are seen", watch).await.unwrap() > 1);
    let failed = answers.results().values().filter(|r| r.is_some()).count() as u64;
    let counts = scrape(&house.metrics, &name);
    assert_eq!(failed, 20);
    assert_eq!(count(&counts, "failed"), 20);
    assert_eq!(count(&counts, "delivered"), 2_000 - failed);
    assert_eq!(count(&counts, "in_flight"), 0);
}

#[tokio::test]
async fn records_of_a_stream_that_breaks_off_are_deferred_and_a_dry_run_counts_nothing() {
    let house = House::start().await;
    let name = house.create("vip").await;
    house.sandbox.set_faults(Faults {
        mishaps: vec![Mishap::new(How::Status(StatusCode::SERVICE_UNAVAILABLE))],
        ..Faults::default()
    });
    let dry = house
        .open_with(pb::OpenStream {
            validate_only: true,
            ..open(&name)
        })
        .await;
    dry.add(&["a"]).await;
    dry.finish().await.1.unwrap();
    assert_eq!(received(&scrape(&house.metrics, &name)), 0);

    let stream = house.open(&name).await;
    stream.add(&["a", "b"]).await;
    house
        .until("a call fails", |s| s.totals().statuses.contains_key(&503))
        .await;
    let counts = scrape(&house.metrics, &name);
    assert_eq!((received(&counts), count(&counts, "in_flight")), (2, 2));
    drop(stream);
    let gone = async {
        while count(&scrape(&house.metrics, &name), "deferred") < 2
            || !house.metrics.text().contains("connector_streams 0")
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the records are deferred", gone).await;
    assert_eq!(received(&scrape(&house.metrics, &name)), 2);
}
