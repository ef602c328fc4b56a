//! Command-line interface: the commands, their flags and their exit codes.

#![warn(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they would print control characters as they are; say and complain do not"
)]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
};

use anyhow::Context;
use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{OsStr, Resettable},
};

#[cfg(feature = "sandbox")]
mod demo;
mod health;
mod keygen;
mod remote;
#[cfg(feature = "sandbox")]
mod sandbox;
mod send;
mod serve;
mod stop;
mod terminal;
mod validate;

use tokio::{net::TcpListener, sync::oneshot};

use self::{
    stop::unless_stopped,
    terminal::{complain, say},
};
use crate::config::{Listen, ServeArgs};

/// Delivers journey members' identifiers from a customer data platform to LaunchDarkly segments
#[derive(Debug, Parser)]
#[command(name = "launchdarkly-connector", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service
    Serve(Box<ServeArgs>),
    #[cfg(feature = "sandbox")]
    /// Show the whole journey in one process: service, sandbox, 10,000 journey members, a flag
    Demo(demo::DemoArgs),
    #[cfg(feature = "sandbox")]
    /// Run a sandbox LaunchDarkly alone
    Sandbox(sandbox::SandboxArgs),
    /// Stream records from a file or standard input into a destination
    Send(Box<send::SendArgs>),
    /// Check a destination's credentials, or others, with LaunchDarkly
    Validate(validate::ValidateArgs),
    /// Ask whether a server serves; for containers
    Health(health::HealthArgs),
    /// Print a new key for the keys file
    Keygen,
}

/// Reads the command line. Ends the process with the help, or with an error and code 2.
#[must_use]
pub fn parse() -> Command {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.command
}

/// Removes empty variables: container tools often set one to an empty value instead of omitting it.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_env() {
            Some(name) if std::env::var_os(name).is_some_and(|value| value.is_empty()) => {
                arg.env(Resettable::<OsStr>::Reset)
            }
            _ => arg,
        })
        .mut_subcommands(without_empty_variables)
}

impl Command {
    /// Runs the command.
    pub async fn run(self) -> Exit {
        match self {
            Self::Serve(args) => serve::run(*args).await,
            #[cfg(feature = "sandbox")]
            Self::Demo(args) => demo::run(args).await,
            #[cfg(feature = "sandbox")]
            Self::Sandbox(args) => sandbox::run(args).await,
            Self::Send(args) => send::run(*args).await,
            Self::Validate(args) => unless_stopped(Exit::Unable, validate::run(args)).await,
            Self::Health(args) => unless_stopped(Exit::Negative, health::run(args)).await,
            Self::Keygen => keygen::run(),
        }
    }
}

/// Listens on the address of `flag`: of the addresses of a host name, on the first of this machine.
async fn bind(listen: &Listen, flag: &str) -> anyhow::Result<TcpListener> {
    bind_first(listen.addresses()).await.with_context(|| {
        format!("cannot listen on {listen}; end what holds it, or choose another with {flag}")
    })
}

async fn bind_first(addresses: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut bound = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        bound = TcpListener::bind(address).await;
        // No other address: clients that look up the name would still reach the holder of this one.
        let held = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
        if bound.as_ref().is_ok() || bound.as_ref().is_err_and(held) {
            break;
        }
    }
    bound
}

/// The address by which this machine reaches a listener: one on all addresses is on loopback too.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Runs a function that may block for long, such as opening a pipe without a writer, on a thread
/// that the end of the process does not wait for.
async fn on_detached_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = oneshot::channel();
    // The caller may no longer wait for the result.
    std::thread::spawn(move || done.send(work()).ok());
    result.await.context("a thread stopped")
}

/// Exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded.
    Done,
    /// The command ran, and its answer is no; or it failed.
    Negative,
    /// The command did not run: something must be corrected first.
    Unable,
}

impl Exit {
    /// Prints why the command could not run.
    fn unable(error: &anyhow::Error) -> Self {
        complain(format_args!("error: {error:#}"));
        Self::Unable
    }

    /// Prints the error that ended the command.
    fn failed(error: &anyhow::Error) -> Self {
        complain(format_args!("error: {error:#}"));
        Self::Negative
    }

    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Negative => 1,
            Self::Unable => 2,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_whose_address_is_held_is_not_served_on_another() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let held = holder.local_addr().unwrap();
        // Free, and on this machine too.
        let next = SocketAddr::new([127, 0, 0, 2].into(), held.port());
        let refused = bind_first(&[held, next]).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        // Reserved for documentation, and so on no machine.
        let absent = SocketAddr::from(([192, 0, 2, 1], held.port()));
        let bound = bind_first(&[absent, next]).await.unwrap();
        assert_eq!(bound.local_addr().unwrap(), next);
        let named = bind(&held.into(), "--listen")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            named.contains(&held.to_string()) && named.contains("--listen"),
            "{named}"
        );
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
