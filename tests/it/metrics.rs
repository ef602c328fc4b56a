//! What is counted is what happened, at every moment.

use std::collections::BTreeSet;

use http::StatusCode;
use launchdarkly_connector::{
    metrics::Metrics,
    pb::{self, identifier_record::Operation},
    sandbox::{Fault, FaultKind, FaultPlan},
};

use crate::{
    support::scrape::Counts,
    test_service::{TestService, open, record, soon},
};

/// What is counted of a destination now, which must add up.
fn scrape(metrics: &Metrics, destination: &str) -> Counts {
    let counts = Counts::read(&metrics.text(), destination);
    assert!(counts.add_up(), "{counts:?}");
    counts
}

#[tokio::test]
async fn each_record_is_received_and_then_is_one_thing_at_every_scrape() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(FaultPlan {
        latency_ms: 2,
        faults: vec![Fault::new(FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE)).at_rate(0.2)],
        ..FaultPlan::default()
    });
    let watched = (service.metrics.clone(), name.clone());
    let sandbox = service.sandbox.clone();
    let watch = tokio::spawn(async move {
        let (mut last, mut scrapes) = (0, 0);
        while last < 2_000 {
            let seen = scrape(&watched.0, &watched.1).get("received");
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
    let stream = service.open(&name).await;
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
    let counts = scrape(&service.metrics, &name);
    assert_eq!(failed, 20);
    assert_eq!(counts.get("failed"), 20);
    assert_eq!(counts.get("delivered"), 2_000 - failed);
    assert_eq!(counts.get("in_flight"), 0);
}

#[tokio::test]
async fn records_of_a_stream_that_breaks_off_are_deferred_and_a_dry_run_counts_nothing() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(FaultPlan {
        faults: vec![Fault::new(FaultKind::Status(
            StatusCode::SERVICE_UNAVAILABLE,
        ))],
        ..FaultPlan::default()
    });
    let dry = service
        .open_with(pb::OpenStream {
            validate_only: true,
            ..open(&name)
        })
        .await;
    dry.add(&["a"]).await;
    dry.finish().await.1.unwrap();
    assert_eq!(scrape(&service.metrics, &name).get("received"), 0);

    let stream = service.open(&name).await;
    stream.add(&["a", "b"]).await;
    service
        .until("a call fails", |s| s.totals().statuses.contains_key(&503))
        .await;
    let counts = scrape(&service.metrics, &name);
    assert_eq!((counts.get("received"), counts.get("in_flight")), (2, 2));
    drop(stream);
    let gone = async {
        while scrape(&service.metrics, &name).get("deferred") < 2
            || !service.metrics.text().contains("connector_streams 0")
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the records are deferred", gone).await;
    assert_eq!(scrape(&service.metrics, &name).get("received"), 2);
}

#[tokio::test]
async fn calls_and_verdicts_are_counted_and_no_label_names_what_they_carry() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let stream = service.open(&name).await;
    stream.add(&["ann", "bob"]).await;
    stream.finish().await.1.unwrap();
    let text = service.metrics.text();
    let calls = service.sandbox.totals().applied;
    for line in [
        r#"connector_changes_settled_total{verdict="delivered"} 2"#.to_owned(),
        format!(r#"connector_segment_calls_total{{outcome="applied"}} {calls}"#),
    ] {
        assert!(text.lines().any(|got| got == line), "{line} not in\n{text}");
    }
    let labels = text.lines().filter_map(|line| line.split_once('{'));
    let labels = labels.flat_map(|(_, labels)| labels.split(','));
    let names: BTreeSet<_> = labels.map(|label| label.split('=').next()).collect();
    let known = ["destination", "outcome", "verdict"].map(Some);
    assert_eq!(names, BTreeSet::from(known));
}
