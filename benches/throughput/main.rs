//! What a record costs: this service and a bare echo server under the same load, in pairs.
//!
//! `cargo bench` takes several minutes, `cargo bench -- --quick` one; `docs/performance.md` says
//! what the columns mean. The servers are child processes, so that their CPU time can be read
//! alone: this executable again, in another role. The load and the LaunchDarkly that it ends in run
//! in the parent.
#![allow(
    clippy::unwrap_used,
    reason = "clippy's exception for tests does not reach this target"
)]

mod child;
mod echo;
mod idle;
mod load;
mod messages;
mod options;
mod rows;
mod summary;
mod vendor;
mod wide;

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use launchdarkly_connector::cli;
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use child::{Role, Servers};
use options::Options;
use rows::Row;
use vendor::Vendor;

fn main() -> ExitCode {
    // The default settings, as `#[tokio::main]` has: alike in every role.
    let runtime = Runtime::new().expect("a runtime starts");
    match Role::of_this_process() {
        Some(Role::Server) => {
            Role::end_with_parent();
            runtime.block_on(async { cli::parse().run().await.into() })
        }
        Some(Role::Echo) => {
            Role::end_with_parent();
            exit_code(runtime.block_on(echo::serve()))
        }
        None => exit_code(runtime.block_on(unless_stopped(Options::read()))),
    }
}

fn exit_code(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A signal drops what runs, and its child processes with it.
async fn unless_stopped(options: Options) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        ended = measure(&options) => ended,
        _ = terminate.recv() => anyhow::bail!("stopped by SIGTERM"),
        _ = interrupt.recv() => anyhow::bail!("stopped by SIGINT"),
    }
}

async fn measure(options: &Options) -> anyhow::Result<()> {
    let vendor = Arc::new(Vendor::start().await?);
    let servers = Servers::new(options, Arc::clone(&vendor));
    println!("{}", summary::conditions(options));

    let rows: Vec<Row> = Row::all()
        .into_iter()
        .filter(|row| options.wants(&row.name()))
        .collect();
    let mut measured = Vec::new();
    for row in rows {
        let pairs = rows::pairs(&row, &servers, options)
            .await
            .with_context(|| row.name())?;
        measured.push((row, pairs));
    }
    if !measured.is_empty() {
        summary::print_cost(&measured, options);
        summary::print_calls(&measured);
        summary::print_latency(&measured, options);
    }
    if options.wants("wide") {
        wide::run(&servers, options).await.context("wide")?;
    }
    if options.wants("idle") {
        idle::run(&servers, options).await.context("idle")?;
    }
    Ok(())
}
