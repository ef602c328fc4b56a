//! Logging: text on a terminal, JSON lines for machines, libraries capped at `info`.

use std::{io::IsTerminal, str::FromStr};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, Targets},
    fmt::MakeWriter,
    layer::{Layered, SubscriberExt},
    util::SubscriberInitExt,
};

/// What is logged, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Form of a line.
    pub format: LogFormat,
    /// Directives of `tracing_subscriber`'s `EnvFilter`, such as `info` or
    /// `warn,launchdarkly_connector::delivery=trace`.
    pub filter: String,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            filter: "info".into(),
        }
    }
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text if standard error is a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// One object a line, with the fields of the spans around it.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("`{text}` is none of auto, text, json")),
        }
    }
}

/// Parses filter directives.
///
/// # Errors
/// What is wrong with them.
pub fn parse_filter(directives: &str) -> Result<EnvFilter, String> {
    EnvFilter::builder()
        .parse(directives)
        .map_err(|error| format!("`{directives}` is not a log filter: {error}"))
}

/// Sends this process's logs to standard error, from now on.
///
/// # Errors
/// A filter that does not parse, or logs that go somewhere already.
pub fn init(settings: &LogSettings) -> Result<(), String> {
    let filter = parse_filter(&settings.filter)?.and(libraries_capped());
    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        json_lines(std::io::stderr)
    } else {
        let layer = tracing_subscriber::fmt::layer().with_ansi(std::io::stderr().is_terminal());
        layer.with_writer(std::io::stderr).boxed()
    };
    capped(lines, filter)
        .try_init()
        .map_err(|error| error.to_string())
}

/// One object a line. The innermost span is the last of `spans`, and not repeated as `span`.
fn json_lines<W>(writer: W) -> Box<dyn Layer<Registry> + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
    layer.with_current_span(false).with_writer(writer).boxed()
}

fn capped(
    lines: Box<dyn Layer<Registry> + Send + Sync>,
    filter: impl tracing_subscriber::layer::Filter<Registry> + Send + Sync + 'static,
) -> Layered<impl Layer<Registry>, Registry> {
    tracing_subscriber::registry().with(lines.with_filter(filter))
}

/// Lets no library say more than `info`, whatever the operator's filter asks for.
///
/// HTTP, TLS and database libraries print headers, frames and statements at `debug` and `trace`,
/// and so access tokens and identifiers. The cap names the one crate that may say more, not the
/// many that may not, so that a new dependency is under it from its first day.
fn libraries_capped() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(env!("CARGO_CRATE_NAME"), LevelFilter::TRACE)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::layer::Context;

    use super::*;

    struct SeenTargets(Arc<Mutex<Vec<&'static str>>>);

    impl<S: Subscriber> Layer<S> for SeenTargets {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event.metadata().target());
        }
    }

    #[test]
    fn libraries_stay_at_info_even_if_the_operator_asks_for_more() {
        let heard = Arc::default();
        let filter = parse_filter("trace,h2=trace")
            .unwrap()
            .and(libraries_capped());
        let subscriber = capped(SeenTargets(Arc::clone(&heard)).boxed(), filter);
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "h2::codec", "a frame with headers");
            tracing::debug!(target: "some_new_library", "a statement");
            tracing::info!(target: "sqlx::query", "a slow statement");
            tracing::trace!("our own");
        });
        assert_eq!(
            *heard.lock().unwrap(),
            ["sqlx::query", "launchdarkly_connector::telemetry::tests"]
        );
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_tells_each_span_once() {
        let written = Written::default();
        let writer = written.clone();
        let lines = json_lines(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines);
        tracing::subscriber::with_default(subscriber, || {
            let _outer = tracing::info_span!("outer", stream.id = "canary-1").entered();
            let _inner = tracing::info_span!("inner", attempt = "canary-2").entered();
            tracing::info!("something");
        });
        let line = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        for told in ["outer", "inner", "canary-1", "canary-2"] {
            assert_eq!(line.matches(told).count(), 1, "{told} in {line}");
        }
    }

    #[test]
    fn a_broken_filter_is_quoted() {
        let error = parse_filter("info,lane=loud").unwrap_err();
        assert!(error.contains("lane=loud"), "{error}");
    }
}
