//! Shutdown signals of the process, and the signals that it survives.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::reload::ReloadRequests;

/// Exit code of a process that was told to end at once: 128 and SIGINT's number, as shells
/// report it.
const LEFT_AT_ONCE: i32 = 130;

/// A request to stop, shared by all that must end.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// A request that is not made yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that SIGTERM or SIGINT makes. A second signal ends the process at once.
    ///
    /// The task that listens lives as long as the process, and is not awaited.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn on_signals() -> std::io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = Self::new();
        let asked = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if asked.is_triggered() {
                    warn!("second signal: leaving at once");
                    std::process::exit(LEFT_AT_ONCE);
                }
                info!("signal received: draining; another one leaves at once");
                asked.trigger();
            }
        });
        Ok(shutdown)
    }

    /// Outlives the signals that would end the process by default: SIGHUP asks for files to be read
    /// again, and the others mean nothing. Each is logged.
    ///
    /// The task that listens lives as long as the process, and is not awaited.
    ///
    /// # Errors
    /// When the signals cannot be listened to.
    pub fn outlive_other_signals() -> std::io::Result<ReloadRequests> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut first = signal(SignalKind::user_defined1())?;
        let mut second = signal(SignalKind::user_defined2())?;
        let (reload, requests) = ReloadRequests::new();
        tokio::spawn(async move {
            loop {
                let signal = tokio::select! {
                    _ = hangup.recv() => {
                        let signal = "SIGHUP";
                        info!(signal, "reading files again; settings and keys are read at the start alone");
                        reload.trigger();
                        continue;
                    }
                    _ = first.recv() => "SIGUSR1",
                    _ = second.recv() => "SIGUSR2",
                };
                info!(signal, "this signal means nothing");
            }
        });
        Ok(requests)
    }

    /// Asks to stop.
    pub fn trigger(&self) {
        self.0.cancel();
    }

    /// Whether the request was made.
    #[must_use]
    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits for the request. Cancel safe.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }
}
