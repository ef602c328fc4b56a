//! The commands: what each flag means to a person, and what the exit code says.

use std::{fmt::Display, io::Write, net::SocketAddr, process::ExitCode};

use anyhow::Context;
use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::{OsStr, Resettable},
};

mod demo;
mod health;
mod keygen;
mod remote;
mod sandbox;
mod send;
mod serve;
mod validate;

use tokio::net::TcpListener;

use crate::config::ServeArgs;

/// Delivers journey members' identifiers from a customer data platform to LaunchDarkly segments
#[derive(Debug, Parser)]
#[command(name = "launchdarkly-connector", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service
    Serve(Box<ServeArgs>),
    /// Show the whole journey in one process: service, sandbox, 10,000 journey members, a flag
    Demo(demo::DemoArgs),
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

/// Reads the command line. Ends the process with help, or with what is wrong and code 2.
#[must_use]
pub fn parse() -> Command {
    let matches = without_empty_variables(Cli::command()).get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.command
}

/// Container tools often set a variable to nothing when they mean to leave it out.
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
    /// Does it.
    pub async fn run(self) -> Exit {
        match self {
            Self::Serve(args) => serve::run(*args).await,
            Self::Demo(args) => demo::run(args).await,
            Self::Sandbox(args) => sandbox::run(args).await,
            Self::Send(args) => send::run(*args).await,
            Self::Validate(args) => validate::run(args).await,
            Self::Health(args) => health::run(args).await,
            Self::Keygen => keygen::run(),
        }
    }
}

/// Listens on an address that is set by `flag`.
async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; end what holds it, or choose another with {flag}")
    })
}

/// What a command has to say to a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, and all is well.
    Done,
    /// Done, and the answer is no; or failed on the way.
    Negative,
    /// Not done: something must be mended first.
    Unable,
}

impl Exit {
    /// Says why it could not be done.
    fn unable(error: &anyhow::Error) -> Self {
        eprintln!("error: {error:#}");
        Self::Unable
    }

    /// Says what went wrong on the way.
    fn failed(error: &anyhow::Error) -> Self {
        eprintln!("error: {error:#}");
        Self::Negative
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Negative => Self::from(1),
            Exit::Unable => Self::from(2),
        }
    }
}

/// Prints a line, and does not mind if nobody reads on, as in `… | head -1`.
fn say(text: impl Display) {
    writeln!(std::io::stdout(), "{text}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
