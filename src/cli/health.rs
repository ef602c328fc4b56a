//! `health`: asks whether a server serves, within a bounded time.

use std::time::Duration;

use anyhow::{Context, bail};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Exit, remote, remote::ServerArgs, say};
use crate::config::duration;

/// Flags of `health`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Exit code: 0 it serves, 1 it does not or gives no answer.")]
pub struct HealthArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Service to ask about, such as cdp.destinations.v1.DestinationConnector
    /// [default: the server as a whole]
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    service: String,

    /// How long to wait for the answer
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = duration::parse)]
    timeout: Duration,
}

/// Runs the command.
pub(super) async fn run(args: HealthArgs) -> Exit {
    let answer = tokio::time::timeout(args.timeout, ask(&args)).await;
    let answer = answer
        .context("no answer in time")
        .and_then(|answer| answer);
    match answer {
        Ok(ServingStatus::Serving) => {
            say("SERVING");
            Exit::Done
        }
        Ok(other) => {
            say(other.as_str_name());
            Exit::Negative
        }
        Err(error) => Exit::failed(&error),
    }
}

async fn ask(args: &HealthArgs) -> anyhow::Result<ServingStatus> {
    let server = args.server.server()?;
    let service = args.service.clone();
    let answer = async {
        let channel = remote::channel(&server).await?;
        HealthClient::new(channel)
            .check(HealthCheckRequest { service })
            .await
    };
    match answer.await {
        Ok(answer) => Ok(answer.into_inner().status()),
        // The protocol's own answer for a service that the server does not have.
        Err(status) if status.code() == Code::NotFound => bail!(remote::quote(&status)),
        Err(status) => bail!(remote::describe(&status)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;

    use super::*;

    #[derive(clap::Parser)]
    struct TestCommand {
        #[command(flatten)]
        health: HealthArgs,
    }

    fn args(listener: &TcpListener, timeout: Duration) -> HealthArgs {
        let url = format!("http://{}", listener.local_addr().unwrap());
        let line = ["health", "--server", &url];
        let command = <TestCommand as clap::Parser>::parse_from(line);
        HealthArgs {
            timeout,
            ..command.health
        }
    }

    #[tokio::test]
    async fn a_server_that_does_not_serve_is_not_healthy() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = args(&listener, Duration::from_secs(20));
        let (reporter, service) = tonic_health::server::health_reporter();
        let status = tonic_health::ServingStatus::NotServing;
        reporter.set_service_status("", status).await;
        let server = Server::builder().add_service(service);
        // Ends with the test's runtime.
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        assert_eq!(run(args.clone()).await, Exit::Negative);
        reporter
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        assert_eq!(run(args).await, Exit::Done);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_not_waited_for() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let args = args(&silent, Duration::from_millis(50));
        assert_eq!(run(args).await, Exit::Negative);
    }
}
