//! The settings of `serve`: from flags and environment to checked values, or all that is wrong.

use std::{
    net::SocketAddr, num::NonZeroU16, ops::RangeInclusive, path::PathBuf, str::FromStr,
    time::Duration,
};

use crate::{
    launchdarkly::{Egress, Endpoint},
    telemetry,
};

mod args;
mod check;
pub mod duration;
mod egress;
mod listen;
#[cfg(test)]
mod tests;

use check::{Check, count, switch, time};

pub use args::{LogArgs, ServeArgs};
pub use check::{Problem, Problems};
pub use egress::EgressArgs;
pub use listen::Listen;

/// Everything an operator can set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the gRPC service listens.
    pub listen: Listen,
    /// Where metrics are read, if anywhere.
    pub metrics_listen: Option<Listen>,
    /// URL of the database, such as `sqlite:connector.db`.
    pub store: String,
    /// File of the keys that seal access tokens at rest.
    pub keys_file: PathBuf,
    /// How LaunchDarkly is called.
    pub launch_darkly: LaunchDarkly,
    /// The sandbox that runs beside the service, if one does.
    pub sandbox: Option<Sandbox>,
    /// How records become calls.
    pub delivery: Delivery,
    /// What callers may take.
    pub limits: Limits,
    /// What is logged.
    pub log: telemetry::Settings,
}

/// How LaunchDarkly is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchDarkly {
    /// Replaces the host of every LaunchDarkly instance.
    pub url: Option<Endpoint>,
    /// How calls leave for another machine.
    pub egress: Egress,
    /// Key of the registered integration, the last part of the path of segment targets.
    pub integration_key: String,
    /// Longest time for one attempt at a call.
    pub attempt_timeout: Duration,
    /// Most calls that are under way at once for one LaunchDarkly account.
    pub max_calls_per_account: NonZeroU16,
}

/// The sandbox that runs beside the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// Where it listens.
    pub listen: Listen,
}

/// How records become calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// How long an idle lane waits for more records before it calls.
    pub linger: Duration,
    /// Most members in one call.
    pub max_members_per_call: u16,
}

/// What callers may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most streams open at once, over all callers.
    pub max_streams: u32,
    /// Most records in one message of a stream.
    pub max_batch_records: u16,
    /// Most records of one stream that wait for a result.
    pub max_in_flight_records: u32,
    /// How long one record is tried when its stream does not say.
    pub default_delivery_timeout: Duration,
    /// Age at which a stream is asked to move.
    pub max_stream_age: Duration,
    /// Time without a record or a result after which a stream is asked to move.
    pub max_stream_idle: Duration,
    /// Time that streams get to finish after they were asked to move.
    pub drain_timeout: Duration,
    /// Most bytes of records that wait for a result, over all streams.
    pub max_buffered_bytes: usize,
}

impl Settings {
    /// The defaults, with the one thing that has none.
    #[must_use]
    pub fn with_keys(keys_file: PathBuf) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)).into(),
            metrics_listen: None,
            store: "sqlite:connector.db".into(),
            keys_file,
            launch_darkly: LaunchDarkly::default(),
            sandbox: None,
            delivery: Delivery::default(),
            limits: Limits::default(),
            log: telemetry::Settings::default(),
        }
    }
}

impl Default for LaunchDarkly {
    fn default() -> Self {
        Self {
            url: None,
            egress: Egress::default(),
            integration_key: "zeotap".into(),
            // What the peers allow.
            attempt_timeout: Duration::from_secs(10),
            max_calls_per_account: NonZeroU16::new(8).expect("eight is not zero"),
        }
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(50),
            // What the peers send; LaunchDarkly publishes no limit.
            max_members_per_call: 1_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_streams: 1_000,
            max_batch_records: 1_000,
            max_in_flight_records: 10_000,
            default_delivery_timeout: Duration::from_secs(300),
            max_stream_age: Duration::from_secs(3_600),
            max_stream_idle: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(20),
            max_buffered_bytes: 128 * MIB,
        }
    }
}

const MIB: usize = 1024 * 1024;
/// The contract's bounds of a delivery time-out.
const DELIVERY_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Beyond some hundreds, calls of one account would only wait for each other at LaunchDarkly.
const CALLS_PER_ACCOUNT: RangeInclusive<NonZeroU16> =
    NonZeroU16::MIN..=NonZeroU16::new(1_000).expect("a thousand is not zero");
/// A week: longer than any stream should live, short enough to catch a slip of the unit.
const STREAM_TIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3_600);

impl ServeArgs {
    /// Checks everything.
    ///
    /// # Errors
    /// Every problem there is, in the order of the flags.
    pub fn check(&self) -> Result<Settings, Problems> {
        let mut check = Check::default();
        let mut settings = Settings::with_keys(self.keys_file.clone().unwrap_or_default());
        self.check_doors(&mut settings, &mut check);
        self.check_launch_darkly(&mut settings, &mut check);
        self.check_delivery(&mut settings.delivery, &mut check);
        self.check_limits(&mut settings.limits, &mut check);
        self.log.check_into(&mut settings.log, &mut check);
        check.end(settings)
    }

    fn check_doors(&self, to: &mut Settings, check: &mut Check) {
        let mut insecure = false;
        check.set(&mut insecure, "insecure", &self.insecure, switch);
        check.set(&mut to.listen, "listen", &self.listen, str::parse);
        if !to.listen.is_loopback() && !insecure {
            check.problem(
                "listen",
                "this address can be reached from other machines, and callers are not identified: \
                 whoever reaches it may use every stored access token. Use a loopback address, or \
                 add --insecure if something in front of the service lets only the right ones in",
            );
        }
        if let Some(address) = &self.metrics_listen {
            let some = |text: &str| text.parse().map(Some);
            check.set(&mut to.metrics_listen, "metrics-listen", address, some);
        }
        check.set(&mut to.store, "store", &self.store, store_url);
        if self.keys_file.is_none() {
            check.problem(
                "keys-file",
                "access tokens are sealed with keys from a file, and there is none. Make one: \
                 `(umask 077; launchdarkly-connector keygen > connector.keys)`, keep it away from \
                 the database's backups, and start with `--keys-file connector.keys`",
            );
        }
    }

    fn check_launch_darkly(&self, settings: &mut Settings, check: &mut Check) {
        let to = &mut settings.launch_darkly;
        if let Some(url) = &self.launchdarkly_url {
            check.set(&mut to.url, "launchdarkly-url", url, endpoint);
        }
        self.egress.check_into(&mut to.egress, check);
        let key = &self.integration_key;
        check.set(
            &mut to.integration_key,
            "integration-key",
            key,
            integration_key,
        );
        let attempt = Duration::from_millis(100)..=Duration::from_secs(300);
        let timeout = &self.attempt_timeout;
        check.set(
            &mut to.attempt_timeout,
            "attempt-timeout",
            timeout,
            time(attempt),
        );
        let calls = &self.max_calls_per_account;
        check.set(
            &mut to.max_calls_per_account,
            "max-calls-per-account",
            calls,
            count(CALLS_PER_ACCOUNT),
        );
        self.check_sandbox(settings, check);
    }

    fn check_sandbox(&self, settings: &mut Settings, check: &mut Check) {
        let mut wanted = false;
        check.set(&mut wanted, "sandbox", &self.sandbox, switch);
        let mut listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        check.set(
            &mut listen,
            "sandbox-listen",
            &self.sandbox_listen,
            str::parse,
        );
        if !wanted {
            return;
        }
        if self.launchdarkly_url.is_some() {
            check.problem(
                "sandbox",
                "says to call the sandbox, and --launchdarkly-url says to call another address; \
                 use one of them",
            );
        }
        settings.sandbox = Some(Sandbox { listen });
    }

    fn check_delivery(&self, to: &mut Delivery, check: &mut Check) {
        let linger = Duration::ZERO..=Duration::from_secs(60);
        check.set(&mut to.linger, "linger", &self.linger, time(linger));
        let members = &self.max_members_per_call;
        check.set(
            &mut to.max_members_per_call,
            "max-members-per-call",
            members,
            count(1..=1_000),
        );
    }

    fn check_limits(&self, to: &mut Limits, check: &mut Check) {
        check.set(
            &mut to.max_streams,
            "max-streams",
            &self.max_streams,
            count(1..=100_000),
        );
        let batch = &self.max_batch_records;
        check.set(
            &mut to.max_batch_records,
            "max-batch-records",
            batch,
            count(1..=1_000),
        );
        let window = &self.max_in_flight_records;
        let at_least_a_batch = u32::from(to.max_batch_records)..=1_000_000;
        check.set(
            &mut to.max_in_flight_records,
            "max-in-flight-records",
            window,
            count(at_least_a_batch),
        );
        let times = [
            (
                &mut to.default_delivery_timeout,
                "default-delivery-timeout",
                &self.default_delivery_timeout,
                DELIVERY_TIMEOUT,
            ),
            (
                &mut to.max_stream_age,
                "max-stream-age",
                &self.max_stream_age,
                STREAM_TIME,
            ),
            (
                &mut to.max_stream_idle,
                "max-stream-idle",
                &self.max_stream_idle,
                STREAM_TIME,
            ),
            (
                &mut to.drain_timeout,
                "drain-timeout",
                &self.drain_timeout,
                Duration::ZERO..=Duration::from_secs(3_600),
            ),
        ];
        for (to, flag, text, range) in times {
            check.set(to, flag, text, time(range));
        }
        // Below 4 MiB, two senders' largest messages would already wait for each other.
        let mebibytes = |text: &str| count(4..=65_536)(text).map(|mib: usize| mib * MIB);
        check.set(
            &mut to.max_buffered_bytes,
            "max-buffered-mib",
            &self.max_buffered_mib,
            mebibytes,
        );
    }
}

impl LogArgs {
    /// Checks what `sandbox` and `demo` share with `serve`.
    ///
    /// # Errors
    /// Every problem there is.
    pub fn check(&self) -> Result<telemetry::Settings, Problems> {
        let mut check = Check::default();
        let mut settings = telemetry::Settings::default();
        self.check_into(&mut settings, &mut check);
        check.end(settings)
    }

    fn check_into(&self, to: &mut telemetry::Settings, check: &mut Check) {
        check.set(
            &mut to.format,
            "log-format",
            &self.log_format,
            telemetry::Format::from_str,
        );
        check.set(&mut to.filter, "log", &self.log, |text| {
            telemetry::parse_filter(text).map(|_| text.to_owned())
        });
    }
}

fn store_url(text: &str) -> Result<String, String> {
    let path = text.strip_prefix("sqlite:");
    if path.is_some_and(|path| !path.is_empty()) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "`{text}` is not sqlite: and the path of a file, such as sqlite:connector.db"
        ))
    }
}

/// The key becomes a word of a path.
fn integration_key(text: &str) -> Result<String, String> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if !text.is_empty() && text.bytes().all(legal) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not one or more of A-Z a-z 0-9 _ -"))
    }
}

fn endpoint(text: &str) -> Result<Option<Endpoint>, String> {
    let checked = text.parse().map(Some);
    // The text is not quoted: somebody may have put a password into it.
    checked.map_err(|error| format!("{error}; write it like https://launchdarkly.example.com"))
}
