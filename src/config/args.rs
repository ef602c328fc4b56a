//! The flags of `serve` as clap reads them, each with its environment twin.
//!
//! Values stay text here, so that every problem is found in one go and not one per attempt.

use std::path::PathBuf;

use super::EgressArgs;

/// Flags of `serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Address and port of the gRPC service; port 0 takes a free one
    #[arg(long, env = "CONNECTOR_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:50051")]
    pub listen: String,

    /// Address and port where `GET /metrics` answers; nowhere unless set
    #[arg(long, env = "CONNECTOR_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<String>,

    /// Database of destinations
    #[arg(long, env = "CONNECTOR_STORE", value_name = "URL")]
    #[arg(default_value = "sqlite:connector.db")]
    pub store: String,

    /// File of the keys that seal access tokens at rest, as `keygen` prints them; required
    #[arg(long, env = "CONNECTOR_KEYS_FILE", value_name = "FILE")]
    pub keys_file: Option<PathBuf>,

    /// Call this address instead of every LaunchDarkly host: https, or http on loopback
    #[arg(long, env = "CONNECTOR_LAUNCHDARKLY_URL", value_name = "URL")]
    pub launchdarkly_url: Option<String>,

    /// How calls leave.
    #[command(flatten)]
    pub egress: EgressArgs,

    /// Key of the integration registered with LaunchDarkly
    #[arg(long, env = "CONNECTOR_INTEGRATION_KEY", value_name = "KEY")]
    #[arg(default_value = "zeotap")]
    pub integration_key: String,

    /// Also run a sandbox LaunchDarkly, and call it instead of the real one
    #[arg(long, env = "CONNECTOR_SANDBOX", value_name = "BOOL", num_args = 0..=1)]
    #[arg(
        require_equals = true,
        default_value = "false",
        default_missing_value = "true"
    )]
    pub sandbox: String,

    /// Address and port of that sandbox; port 0 takes a free one
    #[arg(long, env = "CONNECTOR_SANDBOX_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = "127.0.0.1:8090")]
    pub sandbox_listen: String,

    /// How long an idle lane waits for more records before it calls LaunchDarkly
    #[arg(
        long,
        env = "CONNECTOR_LINGER",
        value_name = "TIME",
        default_value = "50ms"
    )]
    pub linger: String,

    /// Most members in one call to LaunchDarkly, up to 1000
    #[arg(long, env = "CONNECTOR_MAX_MEMBERS_PER_CALL", value_name = "COUNT")]
    #[arg(default_value = "1000")]
    pub max_members_per_call: String,

    /// Longest time for one attempt at a call to LaunchDarkly
    #[arg(
        long,
        env = "CONNECTOR_ATTEMPT_TIMEOUT",
        value_name = "TIME",
        default_value = "10s"
    )]
    pub attempt_timeout: String,

    /// Most calls under way at once for one LaunchDarkly account
    #[arg(long, env = "CONNECTOR_MAX_CALLS_PER_ACCOUNT", value_name = "COUNT")]
    #[arg(default_value = "8")]
    pub max_calls_per_account: String,

    /// Most streams open at once
    #[arg(
        long,
        env = "CONNECTOR_MAX_STREAMS",
        value_name = "COUNT",
        default_value = "1000"
    )]
    pub max_streams: String,

    /// Most records in one message of a stream, up to 1000
    #[arg(long, env = "CONNECTOR_MAX_BATCH_RECORDS", value_name = "COUNT")]
    #[arg(default_value = "1000")]
    pub max_batch_records: String,

    /// Most records of one stream that wait for a result
    #[arg(long, env = "CONNECTOR_MAX_IN_FLIGHT_RECORDS", value_name = "COUNT")]
    #[arg(default_value = "10000")]
    pub max_in_flight_records: String,

    /// How long one record is tried when its stream does not say, 1s to 1h
    #[arg(long, env = "CONNECTOR_DEFAULT_DELIVERY_TIMEOUT", value_name = "TIME")]
    #[arg(default_value = "5m")]
    pub default_delivery_timeout: String,

    /// Age at which a stream is asked to move
    #[arg(
        long,
        env = "CONNECTOR_MAX_STREAM_AGE",
        value_name = "TIME",
        default_value = "1h"
    )]
    pub max_stream_age: String,

    /// Time without a record or a result after which a stream is asked to move
    #[arg(
        long,
        env = "CONNECTOR_MAX_STREAM_IDLE",
        value_name = "TIME",
        default_value = "10m"
    )]
    pub max_stream_idle: String,

    /// Time that streams get to finish when the service stops or asks them to move
    #[arg(
        long,
        env = "CONNECTOR_DRAIN_TIMEOUT",
        value_name = "TIME",
        default_value = "20s"
    )]
    pub drain_timeout: String,

    /// Most MiB of records that wait for a result, over all streams
    #[arg(
        long,
        env = "CONNECTOR_MAX_BUFFERED_MIB",
        value_name = "MIB",
        default_value = "128"
    )]
    pub max_buffered_mib: String,

    /// Listen on an address that other machines reach although callers are not identified
    #[arg(long, env = "CONNECTOR_INSECURE", value_name = "BOOL", num_args = 0..=1)]
    #[arg(
        require_equals = true,
        default_value = "false",
        default_missing_value = "true"
    )]
    pub insecure: String,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Flags of everything that logs.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// Form of the log on standard error: auto (text on a terminal, else JSON), text or json
    #[arg(
        long,
        env = "CONNECTOR_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "auto"
    )]
    pub log_format: String,

    /// What is logged: a level, or directives such as `warn,launchdarkly_connector=debug`;
    /// libraries never say more than info, since some print headers and so tokens
    #[arg(
        long,
        env = "CONNECTOR_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log: String,
}
