//! `sandbox`: runs the simulator of LaunchDarkly alone; and beside the service, for `serve` and
//! `demo`.

use std::{fs, io, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, bail};
use tokio::{net::TcpListener, task::JoinHandle};
use tracing::info;

use super::{Exit, bind, reachable, say};
use crate::{
    config::{DEFAULT_SANDBOX_LISTEN, Listen, LogArgs, Settings, duration},
    sandbox::{FaultPlan, Integration, Manifest, RateLimits, Sandbox, SandboxOptions, fixtures},
    shutdown::Shutdown,
    telemetry,
};

/// Flags of `sandbox`.
#[derive(Debug, Clone, clap::Args)]
pub struct SandboxArgs {
    /// Address and port; port 0 takes a free one
    #[arg(long, env = "CONNECTOR_SANDBOX_LISTEN", value_name = "ADDRESS")]
    #[arg(default_value = DEFAULT_SANDBOX_LISTEN)]
    listen: Listen,

    /// How long each change of a segment takes
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = duration::parse)]
    latency: Duration,

    /// Calls of one account that are answered in ten seconds; 429 beyond
    #[arg(long, value_name = "COUNT", default_value_t = RateLimits::default().global)]
    global_limit: u64,

    /// Calls of one account on one route that are answered in ten seconds; 429 beyond
    #[arg(long, value_name = "COUNT", default_value_t = RateLimits::default().route)]
    route_limit: u64,

    /// Also read the calls of this integration, by the manifest that it is registered with at
    /// LaunchDarkly; may be given several times
    #[arg(long, value_name = "KEY=FILE")]
    integration_manifest: Vec<ManifestFile>,

    /// What is logged.
    #[command(flatten)]
    log: LogArgs,
}

impl SandboxArgs {
    fn settings(&self) -> anyhow::Result<SandboxOptions> {
        let options = SandboxOptions::default();
        Ok(SandboxOptions {
            integrations: self.integrations(options.integrations)?,
            faults: FaultPlan {
                latency_ms: u64::try_from(self.latency.as_millis()).unwrap_or(u64::MAX),
                ..FaultPlan::default()
            },
            limits: RateLimits {
                global: self.global_limit,
                route: self.route_limit,
                ..RateLimits::default()
            },
            ..options
        })
    }

    /// Those that are given, beside those of `built_in` that none of them replaces.
    fn integrations(&self, built_in: Vec<Integration>) -> anyhow::Result<Vec<Integration>> {
        let mut given: Vec<Integration> = vec![];
        for file in &self.integration_manifest {
            if given.iter().any(|integration| integration.key == file.key) {
                bail!("--integration-manifest gives {} twice", file.key);
            }
            given.push(file.read()?);
        }
        let is_replaced = |key: &str| given.iter().any(|given| given.key == key);
        let mut integrations = built_in;
        integrations.retain(|integration| !is_replaced(&integration.key));
        integrations.extend(given);
        Ok(integrations)
    }
}

/// The key of an integration, and the file of its manifest.
#[derive(Debug, Clone)]
struct ManifestFile {
    key: String,
    path: PathBuf,
}

impl FromStr for ManifestFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, path) = text
            .split_once('=')
            .filter(|(_, path)| !path.is_empty())
            .ok_or("expected KEY=FILE, such as hightouch=manifest.json")?;
        // It becomes a part of a path, and the start of segments' keys.
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !key.starts_with(|c: char| c.is_ascii_alphanumeric()) || !key.chars().all(is_allowed) {
            return Err("the key of an integration holds letters, digits, ._- alone");
        }
        Ok(Self {
            key: key.into(),
            path: path.into(),
        })
    }
}

impl ManifestFile {
    fn read(&self) -> anyhow::Result<Integration> {
        let read = || {
            let json = fs::read_to_string(&self.path)?;
            anyhow::Ok(Manifest::read(&json)?)
        };
        let manifest = read().with_context(|| {
            let (key, path) = (&self.key, self.path.display());
            format!("cannot use the manifest of {key} in {path}")
        })?;
        Ok(Integration {
            key: self.key.clone(),
            manifest,
        })
    }
}

/// Runs the command.
pub(super) async fn run(args: SandboxArgs) -> Exit {
    let log = args.log.clone().check().map_err(anyhow::Error::from);
    let ready = log.and_then(|log| telemetry::init(&log).map_err(anyhow::Error::msg));
    if let Err(problems) = ready {
        return Exit::unable(&problems);
    }
    let settings = match args.settings() {
        Ok(settings) => settings,
        Err(problem) => return Exit::unable(&problem),
    };
    match serve(&args.listen, settings).await {
        Ok(()) => Exit::Done,
        Err(error) => Exit::failed(&error),
    }
}

async fn serve(listen: &Listen, settings: SandboxOptions) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot listen for signals")?;
    let listener = bind(listen, "--listen").await?;
    let integrations: Vec<_> = settings
        .integrations
        .iter()
        .map(|integration| integration.key.clone())
        .collect();
    let mut running = RunningSandbox::start(listener, settings)?;
    describe(&running.url(), &integrations);
    tokio::select! {
        () = shutdown.triggered() => running.stop().await,
        ended = &mut running.task => ended.context("the sandbox stopped")?.context("the sandbox failed"),
    }
}

/// Says what there is to play with. None of these tokens opens anything else.
fn describe(url: &str, integrations: &[String]) {
    say(format_args!("sandbox LaunchDarkly on {url}\n"));
    let tokens = [
        ("writer", fixtures::WRITER_TOKEN),
        ("writer, service token", fixtures::SERVICE_TOKEN),
        ("reader", fixtures::READER_TOKEN),
        ("custom role that may write", fixtures::CUSTOM_WRITER_TOKEN),
        ("custom role that may not", fixtures::CUSTOM_READER_TOKEN),
        ("writer of another account", fixtures::OTHER_ACCOUNT_TOKEN),
    ];
    say("access tokens");
    for (role, token) in tokens {
        say(format_args!("  {token}  {role}"));
    }
    say("client-side IDs");
    for (what, id) in [
        ("production", fixtures::CLIENT_SIDE_ID),
        ("test", fixtures::TEST_CLIENT_SIDE_ID),
        (
            "of the other account",
            fixtures::OTHER_ACCOUNT_CLIENT_SIDE_ID,
        ),
    ] {
        say(format_args!("  {id}  {what}"));
    }
    say("integrations");
    for key in integrations {
        say(format_args!("  {key}"));
    }
    say(format_args!(
        "flag\n  {} is true for members of the segment {} (segment ID vip)",
        fixtures::FLAG,
        fixtures::SEGMENT
    ));
    say(format_args!("SDK key\n  {}", fixtures::SDK_KEY));
    say(format_args!("mobile key\n  {}", fixtures::MOBILE_KEY));
    say(format_args!(
        "\nfaults, limits and what it was told: curl {url}/"
    ));
}

/// Starts the sandbox, if one is asked for, and points the service at it. It outlives the
/// service, which delivers to it until its last stream is drained.
pub(super) async fn start_beside(
    mut settings: Settings,
) -> anyhow::Result<(Settings, Option<RunningSandbox>)> {
    let Some(listen) = &settings.sandbox_listen else {
        return Ok((settings, None));
    };
    let listener = bind(listen, "--sandbox-listen").await?;
    let integration = &settings.launchdarkly.integration;
    let manifest = str::from_utf8(integration.manifest()).context("a manifest is UTF-8")?;
    let manifest = Manifest::read(manifest).context("the sandbox cannot read the manifest")?;
    let options = SandboxOptions {
        integrations: vec![Integration {
            key: integration.key().to_owned(),
            manifest,
        }],
        ..SandboxOptions::default()
    };
    let running = RunningSandbox::start(listener, options)?;
    let url = running.url().parse();
    let url = url.context("the sandbox has to listen on loopback, or on every address")?;
    settings.launchdarkly.url = Some(url);
    info!(address = %running.address, "sandbox in the place of LaunchDarkly");
    Ok((settings, Some(running)))
}

/// A sandbox on a socket.
#[derive(Debug)]
pub(super) struct RunningSandbox {
    /// The sandbox, for this process.
    pub(super) sandbox: Sandbox,
    /// Where it listens.
    pub(super) address: SocketAddr,
    shutdown: Shutdown,
    /// Awaited by [`stop`](Self::stop).
    task: JoinHandle<io::Result<()>>,
}

impl RunningSandbox {
    pub(super) fn start(listener: TcpListener, settings: SandboxOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let sandbox = Sandbox::new(settings);
        let shutdown = Shutdown::new();
        let asked = shutdown.clone();
        let task = tokio::spawn(
            sandbox
                .clone()
                .serve(listener, async move { asked.triggered().await }),
        );
        Ok(Self {
            sandbox,
            address,
            shutdown,
            task,
        })
    }

    /// Its URL for this machine.
    pub(super) fn url(&self) -> String {
        format!("http://{}", reachable(self.address))
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.trigger();
        self.task
            .await
            .context("the sandbox stopped")?
            .context("the sandbox failed")
    }
}
