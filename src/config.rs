//! The settings of `serve`: from flags and environment to checked values, or all that is wrong.

use std::{
    num::NonZeroU16,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use crate::{
    delivery::LaneSettings,
    launchdarkly::{
        ClientSettings, Egress, EgressProxy, Endpoint, Integration, RequestShape, Roots,
    },
    server::{edge::tls::TlsFiles, stream::StreamLimits},
    telemetry,
};

pub mod duration;
mod listen;
mod reader;
#[cfg(test)]
mod tests;

use reader::{FromFlags, SettingsReader};

pub use listen::Listen;
pub use reader::{CheckedFlags, Problem, Problems};

/// Flags of `serve`.
pub type ServeArgs = CheckedFlags<Settings>;
/// Flags of everything that logs.
pub type LogArgs = CheckedFlags<telemetry::LogSettings>;

/// Where `serve` listens, and its commands look for it, unless told.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:50051";
/// Where a sandbox listens unless told.
#[cfg(feature = "sandbox")]
pub const DEFAULT_SANDBOX_LISTEN: &str = "127.0.0.1:8090";

/// Everything an operator can set, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where the gRPC service listens.
    pub listen: Listen,
    /// The files by which it speaks TLS, if it does.
    pub tls: Option<TlsFiles>,
    /// Where metrics are read, if anywhere.
    pub metrics_listen: Option<Listen>,
    /// URL of the database, such as `sqlite:connector.db`.
    pub store: String,
    /// File of the keys that seal access tokens at rest.
    pub keys_file: PathBuf,
    /// How LaunchDarkly is called.
    pub launchdarkly: ClientSettings,
    /// Where the sandbox that runs beside the service listens, if there is one.
    #[cfg(feature = "sandbox")]
    pub sandbox_listen: Option<Listen>,
    /// How records become calls.
    pub delivery: LaneSettings,
    /// What a stream, and all of them, may take.
    pub limits: StreamLimits,
    /// Most MiB of records that wait for a result, over all streams.
    pub max_buffered_mib: usize,
    /// Whether `listen` may be reached from other machines although callers are not identified.
    pub insecure: bool,
    /// What is logged.
    pub log: telemetry::LogSettings,
}

impl Settings {
    /// The defaults, with the one thing that has none.
    #[must_use]
    pub fn with_keys(keys_file: PathBuf) -> Self {
        Self {
            keys_file,
            ..Self::defaults()
        }
    }
}

/// The contract's bounds of a delivery time-out.
const DELIVERY_TIMEOUT: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);
/// Beyond some hundreds, calls of one account would only wait for each other at LaunchDarkly.
const CALLS_PER_ACCOUNT: RangeInclusive<NonZeroU16> =
    NonZeroU16::MIN..=NonZeroU16::new(1_000).expect("a thousand is not zero");
/// A week: longer than any stream should live, short enough to catch a slip of the unit.
const STREAM_TIME: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3_600);

impl FromFlags for Settings {
    fn read(from: &mut SettingsReader<'_>) -> Self {
        let settings = Self {
            listen: from
                .setting(
                    "listen",
                    "Address and port of the gRPC service; port 0 takes a free one",
                )
                .details(
                    "A host name is resolved once, at the start, and the first of its addresses \
                     that this machine has is taken, those of IPv4 first. Unless every address is \
                     loopback, `--insecure` is needed.",
                )
                .text("ADDRESS", DEFAULT_LISTEN, str::parse),
            tls: tls(from),
            metrics_listen: from
                .setting(
                    "metrics-listen",
                    "Address and port where `GET /metrics` answers; nowhere unless set",
                )
                .details(
                    "Plain HTTP without authentication. It shows the names of destinations and \
                     counts of their records.",
                )
                .optional("ADDRESS", str::parse),
            store: from
                .setting("store", "Database of destinations")
                .details("A file, which is made if missing and migrated if older.")
                .text("URL", "sqlite:connector.db", store_url),
            keys_file: keys_file(from),
            launchdarkly: ClientSettings::read(from),
            #[cfg(feature = "sandbox")]
            sandbox_listen: sandbox_listen(from),
            delivery: LaneSettings::read(from),
            limits: StreamLimits::read(from),
            max_buffered_mib: from
                .setting(
                    "max-buffered-mib",
                    "Most MiB of records that wait for a result, over all streams",
                )
                .details("At the limit, reading from streams waits (backpressure).")
                // Below 4 MiB, two senders' largest messages would already wait for each other.
                .number("MIB", "128", 4..=65_536),
            insecure: from
                .setting(
                    "insecure",
                    "Listen on an address that other machines reach although callers are not \
                     identified",
                )
                .switch(),
            log: telemetry::LogSettings::read(from),
        };
        settings.check_together(from);
        settings
    }
}

impl Settings {
    /// What no setting shows by itself.
    fn check_together(&self, from: &mut SettingsReader<'_>) {
        if !self.listen.is_loopback() && !self.insecure {
            from.problem(
                "listen",
                "this address can be reached from other machines, and callers are not identified: \
                 whoever reaches it may use every stored access token. Use a loopback address, or \
                 add --insecure if something in front of the service lets only the right ones in",
            );
        }
        #[cfg(feature = "sandbox")]
        if self.sandbox_listen.is_some() && self.launchdarkly.url.is_some() {
            from.problem(
                "sandbox",
                "says to call the sandbox, and --launchdarkly-url says to call another address; \
                 use one of them",
            );
        }
    }
}

fn tls(from: &mut SettingsReader<'_>) -> Option<TlsFiles> {
    const CERTIFICATE: &str = "tls-cert";
    const KEY: &str = "tls-key";
    const CLIENT_CA: &str = "tls-client-ca";
    let certificate = from
        .setting(
            CERTIFICATE,
            "Certificate of the gRPC service in PEM form, with those between it and its authority; \
             callers then reach it by TLS alone",
        )
        .details("Its file, and the two below, are read again when they change and on SIGHUP.")
        .file(|path| Ok(path.to_owned()));
    let key = from
        .setting(KEY, "Private key of that certificate in PEM form")
        .file(|path| Ok(path.to_owned()));
    let client_ca = from
        .setting(
            CLIENT_CA,
            "Certificates in PEM form of the authorities whose client certificates are accepted",
        )
        .details("A caller need not have one.")
        .file(|path| Ok(path.to_owned()));
    let files = match (certificate, key) {
        (Some(certificate), Some(key)) => TlsFiles {
            certificate,
            key,
            client_ca,
        },
        (Some(_), None) => {
            from.problem(
                CERTIFICATE,
                "is of no use without its key: name it with --tls-key",
            );
            return None;
        }
        (None, Some(_)) => {
            from.problem(
                KEY,
                "is of no use without its certificate: name it with --tls-cert",
            );
            return None;
        }
        (None, None) => {
            if client_ca.is_some() {
                from.problem(
                    CLIENT_CA,
                    "client certificates are shown by TLS alone: name the service's own with \
                     --tls-cert and --tls-key",
                );
            }
            return None;
        }
    };
    for problem in files.problems() {
        from.problem(problem.flag, problem.reason);
    }
    Some(files)
}

fn keys_file(from: &mut SettingsReader<'_>) -> PathBuf {
    const FLAG: &str = "keys-file";
    let help =
        "File of the keys that seal access tokens at rest, as `keygen` prints them; required";
    let path = from.setting(FLAG, help).file(|path| Ok(path.to_owned()));
    if path.is_none() {
        from.problem(
            FLAG,
            "access tokens are sealed with keys from a file, and there is none. Make one: \
             `(umask 077; launchdarkly-connector keygen > connector.keys)`, keep it away from \
             the database's backups, and start with `--keys-file connector.keys`",
        );
    }
    path.unwrap_or_default()
}

#[cfg(feature = "sandbox")]
fn sandbox_listen(from: &mut SettingsReader<'_>) -> Option<Listen> {
    let runs = from
        .setting(
            "sandbox",
            "Also run a sandbox LaunchDarkly, and call it instead of the real one",
        )
        .switch();
    let listen = from
        .setting(
            "sandbox-listen",
            "Address and port of that sandbox; port 0 takes a free one",
        )
        .text("ADDRESS", DEFAULT_SANDBOX_LISTEN, str::parse);
    runs.then_some(listen)
}

impl FromFlags for ClientSettings {
    fn read(from: &mut SettingsReader<'_>) -> Self {
        Self {
            url: from
                .setting(
                    "launchdarkly-url",
                    "Call this address instead of every LaunchDarkly host: https, or http on \
                     loopback",
                )
                .optional("URL", endpoint),
            egress: Egress::read(from),
            integration: integration(from),
            attempt_timeout: from
                .setting(
                    "attempt-timeout",
                    "Longest time for one attempt at a call to LaunchDarkly",
                )
                // What other senders of synced segments allow.
                .time("10s", Duration::from_millis(100)..=Duration::from_secs(300)),
            max_calls_per_account: from
                .setting(
                    "max-calls-per-account",
                    "Most calls under way at once for one LaunchDarkly account",
                )
                .details("How many there really are adapts to what LaunchDarkly accepts.")
                .number("COUNT", "8", CALLS_PER_ACCOUNT),
            max_members_per_call: from
                .setting(
                    "max-members-per-call",
                    "Most members in one call to LaunchDarkly, up to 1000",
                )
                // What other senders of synced segments send; LaunchDarkly publishes no limit.
                .number("COUNT", "1000", 1..=1_000),
        }
    }
}

/// A proxy's URL may hold a password, and a flag's value can be read by every user of the machine
/// for as long as the process runs; a variable's cannot.
impl FromFlags for Egress {
    fn read(from: &mut SettingsReader<'_>) -> Self {
        const PROXY: &str = "egress-proxy";
        let is_public = from.is_in_arguments(PROXY);
        Self {
            proxy: from
                .setting(
                    PROXY,
                    "Proxy through which LaunchDarkly is called, http or https; a user name and \
                     password in it are taken from the variable alone",
                )
                .secret()
                .optional("URL", |url| egress_proxy(url, is_public)),
            roots: from
                .setting(
                    "ca-file",
                    "Certificates in PEM form that LaunchDarkly's hosts and the proxy are trusted \
                     by too, beside the system's",
                )
                .file(roots),
        }
    }
}

impl FromFlags for LaneSettings {
    fn read(from: &mut SettingsReader<'_>) -> Self {
        Self {
            linger: from
                .setting(
                    "linger",
                    "How long an idle lane waits for more records before it calls LaunchDarkly",
                )
                .details(
                    "Longer means fewer calls and later flags. While a call of the lane is under \
                     way, its records wait for the end of that call, up to 500 ms or the \
                     linger if that is longer.",
                )
                .time("50ms", Duration::ZERO..=Duration::from_secs(60)),
        }
    }
}

impl FromFlags for StreamLimits {
    fn read(from: &mut SettingsReader<'_>) -> Self {
        let max_streams = from
            .setting("max-streams", "Most streams open at once")
            .details("Counted over all callers.")
            .number("COUNT", "1000", 1..=100_000);
        let max_batch_records = from
            .setting(
                "max-batch-records",
                "Most records in one message of a stream, up to 1000",
            )
            .details("Told in `opened`.")
            .number("COUNT", "1000", 1..=1_000);
        Self {
            max_streams,
            max_batch_records,
            max_in_flight_records: from
                .setting(
                    "max-in-flight-records",
                    "Number of uncommitted records of one stream at which reading from it pauses",
                )
                .details(
                    "Told in `opened`; at least `--max-batch-records`. The message that reaches it \
                     is still read whole.",
                )
                .number("COUNT", "10000", max_batch_records..=1_000_000),
            default_delivery_timeout: from
                .setting(
                    "default-delivery-timeout",
                    "How long one record is tried when its stream does not say, 1s to 1h",
                )
                .time("5m", DELIVERY_TIMEOUT),
            max_stream_age: from
                .setting("max-stream-age", "Age at which a stream is asked to move")
                .details("Each stream's differs by up to 10 %, so that not all move at once.")
                .time("1h", STREAM_TIME),
            max_stream_idle: from
                .setting(
                    "max-stream-idle",
                    "Time without a message or a result after which a stream is asked to move",
                )
                .details("Heartbeats count as messages. Records under way keep a stream open.")
                .time("10m", STREAM_TIME),
            drain_timeout: from
                .setting(
                    "drain-timeout",
                    "Time that streams get to finish when the service stops or asks them to move",
                )
                .time("20s", Duration::ZERO..=Duration::from_secs(3_600)),
        }
    }
}

impl FromFlags for telemetry::LogSettings {
    fn read(from: &mut SettingsReader<'_>) -> Self {
        Self {
            format: from
                .setting(
                    "log-format",
                    "Form of the log on standard error: auto (text on a terminal, else JSON), text \
                     or json",
                )
                .text("FORMAT", "auto", telemetry::LogFormat::from_str),
            filter: from
                .setting(
                    "log",
                    "What is logged: a level, or directives such as \
                     `warn,launchdarkly_connector=debug`; libraries never say more than info, \
                     since some print headers and so tokens",
                )
                .text("FILTER", "info", |text| {
                    telemetry::parse_filter(text).map(|_| text.to_owned())
                }),
        }
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

/// With any other manifest than its own, an integration's requests are refused or, worse, read the
/// other way round: so a key and a manifest go together.
fn integration(from: &mut SettingsReader<'_>) -> Integration {
    const KEY: &str = "integration-key";
    const MANIFEST: &str = "integration-manifest";
    let key = from
        .setting(KEY, "Key of the integration registered with LaunchDarkly")
        .details("The last part of the path of calls, and the first of every segment's key.")
        .text("KEY", "zeotap", |text| {
            let checked = Integration::check_key(text);
            checked.map_err(|error| format!("`{text}` {error}"))?;
            Ok(text.to_owned())
        });
    let shape = from
        .setting(
            MANIFEST,
            "The `manifest.json` that this integration has in LaunchDarkly's registry; it says how \
             requests look",
        )
        .details("That of `zeotap` is built in; every other key needs it.")
        .file(request_shape);
    if shape.is_some() && !from.is_set(KEY) {
        from.problem(
            MANIFEST,
            "no manifest holds the key of its integration: name it with --integration-key",
        );
    }
    let shape = shape.or_else(|| RequestShape::built_in(&key));
    if shape.is_none() && !from.is_set(MANIFEST) {
        from.problem(
            KEY,
            format!(
                "how requests of `{key}` look is not known here: name the manifest that LaunchDarkly \
                 has registered for it with --integration-manifest"
            ),
        );
    }
    let stand_in = || RequestShape::built_in("zeotap").expect("it is built in");
    Integration::new(&key, shape.unwrap_or_else(stand_in)).expect("the key was checked")
}

fn request_shape(path: &Path) -> Result<RequestShape, String> {
    let shown = path.display();
    let manifest = std::fs::read(path).map_err(|error| {
        format!("`{shown}` cannot be read ({error}); name a file such as manifest.json")
    })?;
    let shape = RequestShape::from_manifest(&manifest);
    shape.map_err(|error| format!("`{shown}` cannot be used: {error}"))
}

/// The text is not quoted, since it may hold a password.
fn endpoint(text: &str) -> Result<Endpoint, String> {
    let checked = text.parse();
    checked.map_err(|error| format!("{error}; write it like https://launchdarkly.example.com"))
}

/// Nothing of the URL is quoted, since it may hold a password.
fn egress_proxy(url: &str, is_public: bool) -> Result<EgressProxy, String> {
    let proxy: EgressProxy = url
        .parse()
        .map_err(|error| format!("{error}; write it like http://proxy.example.com:3128"))?;
    if is_public && proxy.has_credentials() {
        return Err(
            "holds a user name or password, which everyone on this machine can read in a flag; put \
             the URL into the variable instead"
                .to_owned(),
        );
    }
    Ok(proxy)
}

fn roots(path: &Path) -> Result<Roots, String> {
    let shown = path.display();
    let pem = std::fs::read(path).map_err(|error| {
        format!("`{shown}` cannot be read ({error}); name a file of certificates in PEM form")
    })?;
    Roots::from_pem(pem).map_err(|error| format!("`{shown}` cannot be used: {error}"))
}
