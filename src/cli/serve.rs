//! `serve`: runs the service until it is told to stop.

use std::env;

use anyhow::Context;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

#[cfg(feature = "sandbox")]
use super::sandbox;
use super::{Exit, bind};
use crate::{
    app::{App, BuildError},
    config::{Listen, ServeArgs, Settings},
    server::edge::scrape,
    shutdown::Shutdown,
    telemetry,
};

/// Runs the command.
pub(super) async fn run(args: ServeArgs) -> Exit {
    let started = args
        .check()
        .map_err(anyhow::Error::from)
        .and_then(|settings| {
            telemetry::init(&settings.log).map_err(anyhow::Error::msg)?;
            Ok(settings)
        });
    let settings = match started {
        Ok(settings) => settings,
        Err(problems) => return Exit::unable(&problems),
    };
    match serve(settings).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            error!("{error:#}");
            exit_of(&error)
        }
    }
}

/// An invalid file of keys or of TLS is an error of configuration. Other failures may be transient, and a
/// supervisor should try again.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref() {
        Some(BuildError::Keys(_) | BuildError::Tls(_)) => Exit::Unable,
        _ => Exit::Negative,
    }
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let reloads = Shutdown::outlive_other_signals().context("cannot listen for signals")?;
    say_what_proxies_are_not_used(&settings);
    #[cfg(feature = "sandbox")]
    let (settings, sandbox) = sandbox::start_beside(settings).await?;
    let app = App::build(&settings).await?.reloading_at(reloads);
    let listener = bind(&settings.listen, "--listen").await?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        warn!("callers are not identified: whoever reaches {address} may use every destination");
    }
    let tls = settings.tls.is_some();
    info!(%address, tls, "serving gRPC");
    let scrapes = serve_metrics(settings.metrics_listen.as_ref(), &app).await?;
    app.run(listener, shutdown).await?;
    drop(scrapes);
    #[cfg(feature = "sandbox")]
    if let Some(sandbox) = sandbox {
        sandbox.stop().await?;
    }
    Ok(())
}

/// The environment variables in which other programs look for a proxy.
const PROXY_VARIABLES: [&str; 6] = [
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "HTTP_PROXY",
    "http_proxy",
];

/// Warns that a proxy of the environment is not used. The values are not logged: they may hold
/// passwords.
fn say_what_proxies_are_not_used(settings: &Settings) {
    if settings.launchdarkly.egress.proxy.is_some() {
        return;
    }
    let is_set = |name: &&str| env::var_os(name).is_some_and(|value| !value.is_empty());
    let set: Vec<_> = PROXY_VARIABLES.into_iter().filter(is_set).collect();
    if !set.is_empty() {
        warn!(
            set = set.join(", "),
            "no proxy of the environment is used: --egress-proxy names the one to call LaunchDarkly through"
        );
    }
}

/// Answers scrapes until the returned guard is dropped, after the last stream has been counted.
async fn serve_metrics(
    listen: Option<&Listen>,
    app: &App,
) -> anyhow::Result<Option<AbortOnDropHandle<()>>> {
    let Some(listen) = listen else {
        return Ok(None);
    };
    let listener = bind(listen, "--metrics-listen").await?;
    info!(address = %listener.local_addr()?, "serving metrics");
    let metrics = app.metrics();
    let serving = tokio::spawn(async {
        if let Err(error) = scrape::serve(listener, metrics).await {
            error!(%error, "metrics can no longer be read");
        }
    });
    Ok(Some(AbortOnDropHandle::new(serving)))
}
