//! The entry point of the binary: command line in, exit code out.

use std::process::ExitCode;

use launchdarkly_connector::cli;

#[tokio::main]
async fn main() -> ExitCode {
    cli::parse().run().await.into()
}
