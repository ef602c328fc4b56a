//! Services of the demo: a sandbox and the service, in this process, on free ports.

use std::{fs::OpenOptions, io::Write, net::SocketAddr, os::unix::fs::OpenOptionsExt};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinHandle};

use super::scratch::Scratch;
use crate::{
    app::{App, RunError},
    cli::sandbox::RunningSandbox,
    config::Settings,
    sandbox::SandboxOptions,
    shutdown::Shutdown,
    store::KeyRing,
};

const FREE_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// The running services.
#[derive(Debug)]
pub(super) struct DemoService {
    pub(super) sandbox: RunningSandbox,
    /// Where the service listens.
    pub(super) address: SocketAddr,
    shutdown: Shutdown,
    /// Awaited by [`stop`](Self::stop).
    service: JoinHandle<Result<(), RunError>>,
    _scratch: Scratch,
}

impl DemoService {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let scratch = Scratch::new().context("no directory for the demo")?;
        let listener = TcpListener::bind(FREE_PORT).await?;
        let sandbox = RunningSandbox::start(listener, SandboxOptions::default())?;
        let settings = settings(&scratch, &sandbox)?;
        let app = App::build(&settings).await?;
        let listener = TcpListener::bind(settings.listen.addresses()).await?;
        let address = listener.local_addr()?;
        let shutdown = Shutdown::new();
        let service = tokio::spawn(app.run(listener, shutdown.clone()));
        Ok(Self {
            sandbox,
            address,
            shutdown,
            service,
            _scratch: scratch,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.trigger();
        self.service.await.context("the service stopped")??;
        self.sandbox.stop().await
    }
}

/// A fresh keys file, a fresh database, and otherwise what `serve` has by default.
fn settings(scratch: &Scratch, sandbox: &RunningSandbox) -> anyhow::Result<Settings> {
    let keys = scratch.path().join("demo.keys");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&keys)?;
    file.write_all(KeyRing::generate_line().as_bytes())?;
    let mut settings = Settings::with_keys(keys);
    settings.listen = FREE_PORT.into();
    settings.store = format!("sqlite:{}", scratch.path().join("demo.db").display());
    settings.launchdarkly.url = Some(sandbox.url().parse()?);
    Ok(settings)
}
