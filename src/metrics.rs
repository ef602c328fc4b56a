//! Metrics: what the process counts, and how a scrape reads it.
//!
//! | metric | kind | labels | counts |
//! |---|---|---|---|
//! | `connector_records_received_total` | counter | destination | records that streams have sent |
//! | `connector_records_delivered_total` | counter | destination | those that LaunchDarkly has accepted |
//! | `connector_records_failed_total` | counter | destination, reason | those with an error for a result |
//! | `connector_records_deferred_total` | counter | destination | those whose stream ended before they had a result, and which stay with their sender |
//! | `connector_records_in_flight` | gauge | destination | those that wait for a result now |
//! | `connector_streams` | gauge | | streams that are open |
//! | `connector_changes_settled_total` | counter | verdict | changes that have a verdict of their lane |
//! | `connector_segment_calls_total` | counter | outcome | calls that change a segment and have ended |
//! | `connector_queries_total` | counter | | queries that have ended |
//! | `connector_reloads_total` | counter | what | times that files were read again and are in use |
//! | `connector_reload_failures_total` | counter | what | times that files were read again and could not be used |
//! | `connector_tls_certificate_expiry_timestamp_seconds` | gauge | | when the certificate in use expires; only with TLS |
//!
//! Of each destination, at every scrape: received = delivered + failed + deferred + in flight. All
//! five change together, under one lock, and a scrape reads them under it. So the stream's accounting
//! feeds them, which knows all five. [`Observer::settled`] could not: it is not told of records that
//! never become a change, and a verdict may come too late for its stream to report it. Records of
//! `validate_only` streams are not counted. `destination` is a resource name, so there are as many
//! series as destinations have been used; those of a deleted destination are forgotten.
//!
//! Changes, calls and queries come by the [`Observer`]. They are those of the whole process: what a
//! change or a call names is no label.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, prometheus_text, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use crate::domain::{CallOutcome, EndedCall, Observer, SettledChange, Verdict};

/// All that is counted; clones are handles to the same.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    records: Mutex<BTreeMap<String, Arc<Mutex<Records>>>>,
    streams: AtomicU64,
    calls: Mutex<Calls>,
    changes: Changes,
    reloads: Mutex<BTreeMap<&'static str, Reloads>>,
    /// In seconds since the epoch, if there is TLS.
    certificate_expires: Mutex<Option<u64>>,
}

/// How often one kind of files was read again.
#[derive(Debug, Clone, Copy, Default)]
struct Reloads {
    done: u64,
    failed: u64,
}

/// The calls to LaunchDarkly that have ended, by how they did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Segment calls that were applied.
    pub applied: u64,
    /// Segment calls that were refused for good.
    pub refused: u64,
    /// Segment calls that are to be tried again.
    pub failed: u64,
    /// Queries, whatever was answered.
    pub queries: u64,
}

/// The changes that have a verdict, by their verdicts. There are too many for a lock that all lanes
/// share.
#[derive(Debug, Default)]
struct Changes {
    delivered: AtomicU64,
    rejected: AtomicU64,
    timed_out: AtomicU64,
    deferred: AtomicU64,
}

/// What became of one destination's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Records {
    received: u64,
    delivered: u64,
    failed: BTreeMap<&'static str, u64>,
    deferred: u64,
    in_flight: u64,
}

impl Metrics {
    /// Counts a stream as open for as long as the returned value lives.
    #[must_use]
    pub fn stream(&self) -> OpenStream {
        self.0.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(self.clone())
    }

    /// How many streams are open.
    #[must_use]
    pub fn open_streams(&self) -> u64 {
        self.0.streams.load(Ordering::Relaxed)
    }

    /// The calls that have ended so far.
    #[must_use]
    pub fn calls(&self) -> Calls {
        *self.0.calls.lock()
    }

    /// Counts the records of one stream into a destination, by its resource name.
    #[must_use]
    pub fn tally(&self, destination: &str) -> Tally {
        let mut all = self.0.records.lock();
        let records = all.entry(destination.to_owned()).or_default();
        Tally {
            records: Arc::clone(records),
            unpublished: Records::default(),
            in_flight: 0,
        }
    }

    /// Forgets a destination that is gone for ever. Streams it still has are no longer shown.
    pub fn forget(&self, destination: &str) {
        self.0.records.lock().remove(destination);
    }

    /// Shows from now on how often these files are read again, so that zeros can be seen.
    pub fn watch_reloads(&self, what: &'static str) {
        self.0.reloads.lock().entry(what).or_default();
    }

    /// Counts files that were read again and are in use.
    pub fn reloaded(&self, what: &'static str) {
        self.0.reloads.lock().entry(what).or_default().done += 1;
    }

    /// Counts files that were read again and cannot be used.
    pub fn reload_failed(&self, what: &'static str) {
        self.0.reloads.lock().entry(what).or_default().failed += 1;
    }

    /// Shows when the certificate that is in use expires.
    pub fn certificate_expires(&self, at: SystemTime) {
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        *self.0.certificate_expires.lock() = Some(since.unwrap_or_default().as_secs());
    }

    /// All metrics in the `OpenMetrics` text format, 1.0.0.
    #[must_use]
    pub fn text(&self) -> String {
        self.encoded(text::encode)
    }

    /// All metrics in Prometheus' own text format, 0.0.4, which more programs read.
    #[must_use]
    pub fn prometheus_text(&self) -> String {
        self.encoded(prometheus_text::encode)
    }

    fn encoded(&self, encode: fn(&mut String, &Registry) -> fmt::Result) -> String {
        let mut registry = Registry::with_prefix("connector");
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes whatever is written");
        text
    }

    fn snapshot(&self) -> Vec<(String, Records)> {
        let all = self.0.records.lock();
        all.iter()
            .map(|(name, records)| (name.clone(), records.lock().clone()))
            .collect()
    }
}

impl Observer for Metrics {
    fn called(&self, call: EndedCall<'_>, _: Duration) {
        let mut calls = self.0.calls.lock();
        let count = match call {
            EndedCall::Query { .. } => &mut calls.queries,
            EndedCall::Segment { outcome, .. } => match outcome {
                CallOutcome::Applied => &mut calls.applied,
                CallOutcome::Refused(_) => &mut calls.refused,
                CallOutcome::Retry { .. } | CallOutcome::Held(_) => &mut calls.failed,
            },
        };
        *count += 1;
    }

    fn settled(&self, change: &SettledChange<'_>) {
        let changes = &self.0.changes;
        let count = match change.verdict {
            Verdict::Delivered => &changes.delivered,
            Verdict::Rejected { .. } => &changes.rejected,
            Verdict::TimedOut(_) => &changes.timed_out,
            Verdict::Deferred(_) => &changes.deferred,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// One open stream.
#[derive(Debug)]
pub struct OpenStream(Metrics);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one stream's records. What is counted shows once it is [published](Self::publish); what
/// is in flight when the stream ends is deferred.
pub struct Tally {
    records: Arc<Mutex<Records>>,
    /// Counted since the last publication.
    unpublished: Records,
    /// This stream's part of what is in flight, as published last.
    in_flight: u64,
}

impl Tally {
    /// Counts records that have been read.
    pub fn received(&mut self, records: usize) {
        self.unpublished.received += count(records);
    }

    /// Counts records that have the same result: none, or the reason they failed for.
    pub fn settled(&mut self, records: usize, failure: Option<&'static str>) {
        let total = match failure {
            None => &mut self.unpublished.delivered,
            Some(reason) => self.unpublished.failed.entry(reason).or_default(),
        };
        *total += count(records);
    }

    /// Shows what was counted, now that `in_flight` of the stream's records wait for a result.
    pub fn publish(&mut self, in_flight: usize) {
        let mut records = self.records.lock();
        records.add(std::mem::take(&mut self.unpublished));
        records.in_flight -= self.in_flight;
        self.in_flight = count(in_flight);
        records.in_flight += self.in_flight;
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let left = self.in_flight + self.unpublished.received - self.unpublished.settled();
        self.unpublished.deferred += left;
        self.publish(0);
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tally")
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Records {
    fn settled(&self) -> u64 {
        self.delivered + self.failed.values().sum::<u64>()
    }

    fn add(&mut self, more: Self) {
        self.received += more.received;
        self.delivered += more.delivered;
        self.deferred += more.deferred;
        for (reason, records) in more.failed {
            *self.failed.entry(reason).or_default() += records;
        }
    }
}

/// One line of a metric: its labels and its value.
type Series<'a> = (Vec<(&'a str, &'a str)>, u64);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let records = self.snapshot();
        let each = |value: fn(&Records) -> u64| -> Vec<Series<'_>> {
            records
                .iter()
                .map(|(name, records)| (vec![("destination", name.as_str())], value(records)))
                .collect()
        };
        let failed = records.iter().flat_map(|(name, records)| {
            let labels = |reason| vec![("destination", name.as_str()), ("reason", reason)];
            let failed = records.failed.iter();
            failed.map(move |(reason, records)| (labels(*reason), *records))
        });
        let changes = &self.0.changes;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let calls = self.calls();
        let reloads = self.0.reloads.lock().clone();
        let of_reloads = |value: fn(&Reloads) -> u64| -> Vec<Series<'_>> {
            let each = reloads.iter();
            each.map(|(what, reloads)| (vec![("what", *what)], value(reloads)))
                .collect()
        };
        let expires = *self.0.certificate_expires.lock();
        let counter = MetricType::Counter;
        let metrics = [
            (
                "records_received",
                "Records that streams have sent",
                counter,
                each(|r| r.received),
            ),
            (
                "records_delivered",
                "Records that LaunchDarkly has accepted",
                counter,
                each(|r| r.delivered),
            ),
            (
                "records_failed",
                "Records with an error for a result",
                counter,
                failed.collect(),
            ),
            (
                "records_deferred",
                "Records that stay with their sender: the stream ended before they had a result",
                counter,
                each(|r| r.deferred),
            ),
            (
                "records_in_flight",
                "Records that wait for a result",
                MetricType::Gauge,
                each(|r| r.in_flight),
            ),
            (
                "streams",
                "Streams that are open",
                MetricType::Gauge,
                vec![(vec![], self.0.streams.load(Ordering::Relaxed))],
            ),
            (
                "changes_settled",
                "Changes that have a verdict",
                counter,
                vec![
                    (vec![("verdict", "delivered")], count(&changes.delivered)),
                    (vec![("verdict", "rejected")], count(&changes.rejected)),
                    (vec![("verdict", "timed_out")], count(&changes.timed_out)),
                    (vec![("verdict", "deferred")], count(&changes.deferred)),
                ],
            ),
            (
                "segment_calls",
                "Calls to LaunchDarkly that change a segment and have ended",
                counter,
                vec![
                    (vec![("outcome", "applied")], calls.applied),
                    (vec![("outcome", "refused")], calls.refused),
                    (vec![("outcome", "failed")], calls.failed),
                ],
            ),
            (
                "queries",
                "Queries to LaunchDarkly that have ended",
                counter,
                vec![(vec![], calls.queries)],
            ),
            (
                "reloads",
                "Times that files were read again and are in use",
                counter,
                of_reloads(|reloads| reloads.done),
            ),
            (
                "reload_failures",
                "Times that files were read again and could not be used",
                counter,
                of_reloads(|reloads| reloads.failed),
            ),
            (
                "tls_certificate_expiry_timestamp_seconds",
                "When the certificate in use expires",
                MetricType::Gauge,
                expires.into_iter().map(|at| (vec![], at)).collect(),
            ),
        ];
        for (name, help, kind, series) in metrics {
            encode(&mut encoder, name, help, kind, &series)?;
        }
        Ok(())
    }
}

fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    kind: MetricType,
    series: &[Series<'_>],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, value) in series {
        let labels = Labels(labels);
        let line = metric.encode_family(&labels)?;
        match kind {
            MetricType::Gauge => ConstGauge::new(*value).encode(line)?,
            _ => ConstCounter::new(*value).encode(line)?,
        }
    }
    Ok(())
}

/// Labels that are known only at the scrape.
#[derive(Debug)]
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl EncodeLabelSet for Labels<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> fmt::Result {
        self.0.encode(encoder)
    }
}

fn count(records: usize) -> u64 {
    u64::try_from(records).expect("a stream's window is counted in 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            ClientSideId, Connection, ContextKey, ContextKind, DeliveryAttempts, DestinationUid,
            Instance, Operation, SegmentCall, SegmentId, SegmentRef, TransientError,
        },
        secret::AccessToken,
    };

    const NAME: &str = "organizations/acme/destinations/vip";

    fn records(metrics: &Metrics) -> Records {
        metrics.snapshot().pop().expect("one destination").1
    }

    #[test]
    fn records_are_received_and_then_become_one_thing_each() {
        let metrics = Metrics::default();
        let mut tally = metrics.tally(NAME);
        tally.received(10);
        tally.settled(1, Some("IDENTIFIER_MISSING"));
        tally.publish(9);
        assert_eq!(
            (records(&metrics).in_flight, records(&metrics).received),
            (9, 10)
        );
        tally.settled(4, None);
        tally.publish(5);
        // Read and not published when the stream breaks off.
        tally.received(3);
        tally.settled(1, None);
        drop(tally);
        let end = Records {
            received: 13,
            delivered: 5,
            failed: BTreeMap::from([("IDENTIFIER_MISSING", 1)]),
            deferred: 7,
            in_flight: 0,
        };
        assert_eq!(records(&metrics), end);
    }

    #[test]
    fn streams_of_a_destination_are_counted_together() {
        let metrics = Metrics::default();
        let (mut one, mut other) = (metrics.tally(NAME), metrics.tally(NAME));
        one.received(2);
        one.publish(2);
        other.received(3);
        other.publish(3);
        assert_eq!(records(&metrics).in_flight, 5);
        drop(one);
        assert_eq!(records(&metrics).in_flight, 3);
    }

    #[test]
    fn a_scrape_names_everything_and_escapes_what_it_quotes() {
        let metrics = Metrics::default();
        let _open = metrics.stream();
        let mut tally = metrics.tally("a\"b");
        tally.received(2);
        tally.settled(1, Some("DELIVERY_TIMEOUT"));
        tally.publish(1);
        let lines = [
            r#"connector_records_received_total{destination="a\"b"} 2"#,
            r#"connector_records_delivered_total{destination="a\"b"} 0"#,
            r#"connector_records_failed_total{destination="a\"b",reason="DELIVERY_TIMEOUT"} 1"#,
            r#"connector_records_deferred_total{destination="a\"b"} 0"#,
            r#"connector_records_in_flight{destination="a\"b"} 1"#,
            "connector_streams 1",
            "# TYPE connector_records_in_flight gauge",
        ];
        shows(&metrics, &lines);
    }

    /// Both formats have these lines.
    fn shows(metrics: &Metrics, lines: &[&str]) {
        for text in [metrics.text(), metrics.prometheus_text()] {
            for line in lines {
                assert!(
                    text.lines().any(|got| got == *line),
                    "{line} not in\n{text}"
                );
            }
        }
    }

    /// A counter's family is named without `_total` in the one, and with it in the other, where
    /// nothing marks the end.
    #[test]
    fn the_two_formats_differ_where_their_specifications_do() {
        let metrics = Metrics::default();
        drop(metrics.tally(NAME));
        let open_metrics = metrics.text();
        let prometheus = metrics.prometheus_text();
        let has = |text: &str, line: &str| text.lines().any(|got| got == line);
        for (in_open_metrics, in_prometheus) in [
            (
                "# TYPE connector_records_received counter",
                "# TYPE connector_records_received_total counter",
            ),
            (
                "# HELP connector_records_received Records that streams have sent",
                "# HELP connector_records_received_total Records that streams have sent",
            ),
        ] {
            assert!(has(&open_metrics, in_open_metrics), "{open_metrics}");
            assert!(!has(&open_metrics, in_prometheus), "{open_metrics}");
            assert!(has(&prometheus, in_prometheus), "{prometheus}");
            assert!(!has(&prometheus, in_open_metrics), "{prometheus}");
        }
        assert!(open_metrics.ends_with("\n# EOF\n"));
        assert!(!has(&prometheus, "# EOF"));
    }

    #[test]
    fn calls_are_counted_by_how_they_ended() {
        let metrics = Metrics::default();
        let call = SegmentCall {
            connection: Arc::new(Connection {
                access_token: AccessToken::new("token".into()),
                client_side_id: ClientSideId::new("env".into()),
                instance: Instance::Commercial,
            }),
            segment: SegmentRef::new(
                SegmentId::new("vip").unwrap(),
                ContextKind::default(),
                "VIP",
            )
            .unwrap(),
            members: Vec::new(),
        };
        let error = TransientError::TimedOut;
        let retry = CallOutcome::Retry {
            error,
            retry_after: None,
        };
        for outcome in [CallOutcome::Applied, CallOutcome::Applied, retry] {
            let call = &call;
            metrics.called(EndedCall::Segment { call, outcome }, Duration::ZERO);
        }
        let connection = &*call.connection;
        let error = Some(error);
        metrics.called(EndedCall::Query { connection, error }, Duration::ZERO);
        let calls = Calls {
            applied: 2,
            failed: 1,
            queries: 1,
            ..Calls::default()
        };
        assert_eq!(metrics.calls(), calls);
        shows(
            &metrics,
            &[
                r#"connector_segment_calls_total{outcome="applied"} 2"#,
                r#"connector_segment_calls_total{outcome="refused"} 0"#,
                r#"connector_segment_calls_total{outcome="failed"} 1"#,
                "connector_queries_total 1",
            ],
        );
    }

    #[test]
    fn changes_are_counted_by_their_verdicts() {
        let metrics = Metrics::default();
        let timed_out = DeliveryAttempts {
            calls: 1,
            error: None,
        };
        let rejected = Verdict::Rejected {
            lane_has_succeeded: true,
        };
        for verdict in [
            Verdict::Delivered,
            Verdict::Delivered,
            Verdict::Delivered,
            rejected,
            rejected,
            Verdict::TimedOut(timed_out),
        ] {
            metrics.settled(&SettledChange {
                destination: DestinationUid::generate(),
                segment: &SegmentId::new("vip").unwrap(),
                key: &ContextKey::new("ann").unwrap(),
                operation: Operation::Add,
                verdict,
            });
        }
        shows(
            &metrics,
            &[
                r#"connector_changes_settled_total{verdict="delivered"} 3"#,
                r#"connector_changes_settled_total{verdict="rejected"} 2"#,
                r#"connector_changes_settled_total{verdict="timed_out"} 1"#,
                r#"connector_changes_settled_total{verdict="deferred"} 0"#,
            ],
        );
    }

    #[test]
    fn reloads_are_shown_before_the_first_and_counted_by_what_was_read() {
        let metrics = Metrics::default();
        assert!(
            !metrics
                .text()
                .contains("\nconnector_tls_certificate_expiry_timestamp_seconds ")
        );
        metrics.watch_reloads("tls_certificate");
        metrics.reload_failed("tls_client_ca");
        metrics.reloaded("tls_client_ca");
        metrics.reloaded("tls_client_ca");
        metrics.certificate_expires(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
        shows(
            &metrics,
            &[
                r#"connector_reloads_total{what="tls_certificate"} 0"#,
                r#"connector_reload_failures_total{what="tls_certificate"} 0"#,
                r#"connector_reloads_total{what="tls_client_ca"} 2"#,
                r#"connector_reload_failures_total{what="tls_client_ca"} 1"#,
                "connector_tls_certificate_expiry_timestamp_seconds 7",
            ],
        );
    }

    #[test]
    fn a_destination_that_is_gone_is_forgotten() {
        let metrics = Metrics::default();
        drop(metrics.tally(NAME));
        metrics.forget(NAME);
        assert!(!metrics.text().contains(NAME));
    }
}
