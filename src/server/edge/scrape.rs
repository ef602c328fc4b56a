//! The metrics endpoint: `GET /metrics`, over plain HTTP.
//!
//! A client whose `Accept` prefers Prometheus' own text format gets it; any other gets
//! `OpenMetrics`.

use std::io;

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap,
        header::{ACCEPT, CONTENT_TYPE, VARY},
    },
    response::IntoResponse,
    routing,
    serve::Listener,
};
use mediatype::{MediaType, MediaTypeList, Name, ReadParams, names};
use tokio::net::{TcpListener, TcpStream};

use super::first_byte::FirstByteTimeout;
use crate::metrics::Metrics;

/// What Prometheus accepts and `OpenMetrics` prescribes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The parameter that distinguishes formats of one media type.
const VERSION: Name<'_> = Name::new_unchecked("version");

/// Answers on a listener until it is dropped.
///
/// # Errors
/// If the listener fails.
pub(crate) async fn serve(listener: TcpListener, metrics: Metrics) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", routing::get(scrape))
        .with_state(metrics);
    axum::serve(TimedListener(listener), router).await
}

/// A listener whose connections have a first-byte time-out.
struct TimedListener(TcpListener);

impl Listener for TimedListener {
    type Io = FirstByteTimeout<TcpStream>;
    type Addr = <TcpListener as Listener>::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // Pauses after a failure, and logs it.
        let (connection, address) = Listener::accept(&mut self.0).await;
        (FirstByteTimeout::new(connection), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Listener::local_addr(&self.0)
    }
}

async fn scrape(State(metrics): State<Metrics>, headers: HeaderMap) -> impl IntoResponse {
    let (content_type, text) = match negotiate(&headers) {
        ExpositionFormat::OpenMetrics => (OPEN_METRICS, metrics.text()),
        ExpositionFormat::Prometheus => (PROMETHEUS, metrics.prometheus_text()),
    };
    ([(CONTENT_TYPE, content_type), (VARY, "accept")], text)
}

/// A text format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExpositionFormat {
    OpenMetrics,
    Prometheus,
}

/// How much a format is wanted: its quality, and then how exactly it was named.
#[derive(Debug, Clone, Copy, Default, PartialEq, PartialOrd)]
struct AcceptedFormats {
    quality: f32,
    exactness: u8,
}

/// Content negotiation: the preferred format. `OpenMetrics` if both are preferred alike, or neither
/// is accepted.
fn negotiate(headers: &HeaderMap) -> ExpositionFormat {
    let accepted = headers.get_all(ACCEPT).iter();
    let accepted = accepted.filter_map(|value| value.to_str().ok());
    // A range that cannot be read is none.
    let ranges: Vec<_> = accepted
        .flat_map(|value| MediaTypeList::new(value).flatten())
        .collect();
    let prometheus = preference(&ranges, ExpositionFormat::Prometheus);
    if prometheus.quality > 0.0 && prometheus > preference(&ranges, ExpositionFormat::OpenMetrics) {
        ExpositionFormat::Prometheus
    } else {
        ExpositionFormat::OpenMetrics
    }
}

/// The quality of a format is that of the most exact range that covers it (RFC 9110, 12.5.1).
fn preference(ranges: &[MediaType<'_>], format: ExpositionFormat) -> AcceptedFormats {
    let covering = ranges.iter().filter_map(|range| {
        let quality = range.get_param(names::Q).map_or("1", |q| q.as_str());
        Some(AcceptedFormats {
            exactness: exactness(range, format)?,
            quality: quality.parse().unwrap_or(1.0),
        })
    });
    let most_exact = covering.max_by(|a, b| {
        let qualities = a.quality.total_cmp(&b.quality);
        a.exactness.cmp(&b.exactness).then(qualities)
    });
    most_exact.unwrap_or_default()
}

/// How exactly a range names a format; not at all if it does not cover it.
fn exactness(range: &MediaType<'_>, format: ExpositionFormat) -> Option<u8> {
    let version = range.get_param(VERSION);
    let [ty, subty] = [range.ty, range.subty].map(|name| name.as_str().to_ascii_lowercase());
    match (ty.as_str(), subty.as_str(), format) {
        ("*", "*", _) => Some(0),
        ("text", "*", ExpositionFormat::Prometheus)
        | ("application", "*", ExpositionFormat::OpenMetrics) => Some(1),
        // Later versions of it are other formats.
        ("text", "plain", ExpositionFormat::Prometheus) => {
            let ours = version.is_none_or(|version| version.unquoted_str() == "0.0.4");
            ours.then_some(2)
        }
        // All that read 0.0.1 read 1.0.0.
        ("application", "openmetrics-text", ExpositionFormat::OpenMetrics) => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn answered(accept: &[&'static str]) -> ExpositionFormat {
        let values = accept.iter().map(|value| HeaderValue::from_static(value));
        negotiate(&values.map(|value| (ACCEPT, value)).collect())
    }

    #[test]
    fn a_client_that_prefers_prometheus_own_format_gets_it_and_any_other_open_metrics() {
        for accept in [
            "text/plain",
            "text/plain; version=0.0.4",
            "text/plain;version=\"0.0.4\";charset=utf-8",
            "TEXT/Plain",
            "text/*",
            "application/openmetrics-text;q=0.2, text/plain;q=0.7",
            "text/plain, */*",
            "application/openmetrics-text;q=0,*/*",
            "application/json, text/plain;q=0.5, nonsense/, */*;q=0.1",
        ] {
            assert_eq!(
                answered(&[accept]),
                ExpositionFormat::Prometheus,
                "{accept}"
            );
        }
        for accept in [
            "",
            "*/*",
            "nonsense",
            "application/json",
            "application/openmetrics-text",
            "text/plain;version=1.0.0",
            "text/plain;q=0",
            "text/plain;q=0, */*",
            "text/plain, application/openmetrics-text",
            // A browser.
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            // Prometheus 2 and 3.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
             version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;\
             escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(
                answered(&[accept]),
                ExpositionFormat::OpenMetrics,
                "{accept}"
            );
        }
        assert_eq!(answered(&[]), ExpositionFormat::OpenMetrics);
        let two_lines = ["application/openmetrics-text;q=0.1", "text/plain"];
        assert_eq!(answered(&two_lines), ExpositionFormat::Prometheus);
    }
}
