//! `demo`: the whole journey in one process, over real sockets; it prints what really happened.

use anyhow::Context;

use super::{Exit, say};
use crate::{shutdown::Shutdown, telemetry};

mod flag;
mod requests;
mod sample;
mod scratch;
mod service;
mod walk;

use service::DemoService;
use walk::walk;

const PARENT: &str = "organizations/demo";
const DESTINATION: &str = "organizations/demo/destinations/launchdarkly";
const SEGMENT_ID: &str = "vip";

/// Flags of `demo`.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Stay up afterwards, and print calls to type, until Ctrl-C
    #[arg(long)]
    keep_running: bool,

    /// What the service and the sandbox log while they run
    #[arg(
        long,
        env = "CONNECTOR_LOG",
        value_name = "FILTER",
        default_value = "error"
    )]
    log: String,
}

/// Runs the command.
pub(super) async fn run(args: DemoArgs) -> Exit {
    let log = telemetry::LogSettings {
        format: telemetry::LogFormat::Auto,
        filter: args.log.clone(),
    };
    if let Err(problem) = telemetry::init(&log) {
        return Exit::unable(&anyhow::Error::msg(problem));
    }
    match demo(&args).await {
        Ok(()) => Exit::Done,
        Err(error) => Exit::failed(&error),
    }
}

async fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let service = DemoService::start().await?;
    let walked = tokio::select! {
        walked = walk(&service) => walked,
        () = shutdown.triggered() => Err(anyhow::anyhow!("interrupted")),
    };
    if walked.is_ok() && args.keep_running {
        say(calls_to_type(&service));
        shutdown.triggered().await;
    }
    let stopped = service.stop().await;
    walked.and(stopped)
}

/// Lines to paste into another terminal.
fn calls_to_type(service: &DemoService) -> String {
    let (address, sandbox) = (service.address, service.sandbox.url());
    let service = "cdp.destinations.v1.DestinationConnector";
    let open = format!(
        r#"{{"open":{{"destination":"{DESTINATION}","activation":{{"segment_id":"{SEGMENT_ID}","segment_name":"VIPs"}}}}}}"#
    );
    let batch = r#"{"batch":{"records":[{"identifiers":{"user_id":"typed-by-hand"}}]}}"#;
    format!(
        "\nBoth stay up until Ctrl-C. In another terminal:\n\n\
         grpcurl -plaintext {address} describe {service}\n\
         grpcurl -plaintext -d '{{\"name\":\"{DESTINATION}\"}}' {address} {service}/GetDestination\n\
         grpcurl -plaintext -d '{{\"name\":\"{DESTINATION}\"}}' {address} {service}/ValidateCredentials\n\
         printf '%s\\n' '{open}' '{batch}' | grpcurl -plaintext -d @ {address} {service}/SendIdentifiers\n\
         curl {sandbox}/_sandbox/segments"
    )
}
