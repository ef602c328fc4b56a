//! Signal handling: SIGTERM, SIGINT, and SIGHUP, which a terminal sends when it closes, end a
//! command.
//!
//! A handler is needed even where a command has nothing to clean up: the first process of a
//! container has no default handlers, and ignores signals without one.

use std::{fs, io, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::sleep,
};

use super::Exit;

/// How long a command may take to end by itself. Ours: it only prints its progress, but a pipe
/// without a reader can block that.
const GRACE: Duration = Duration::from_millis(1_500);

/// A request to end, which a signal makes.
#[derive(Debug, Clone)]
pub(super) struct Stop(watch::Receiver<Option<&'static str>>);

impl Stop {
    /// Handles signals from now on. A second signal, or a command that does not end soon, ends the
    /// process at once, as `stopped` says.
    ///
    /// # Errors
    /// If no signal handler can be installed.
    pub(super) fn on_signals(stopped: Exit) -> io::Result<Self> {
        let mut signals = Signals::listen()?;
        let (asked, told) = watch::channel(None);
        // The task lives as long as the process, and is not awaited.
        tokio::spawn(async move {
            let name = signals.next().await;
            asked.send_replace(Some(name));
            tokio::select! {
                _ = signals.next() => {}
                () = sleep(GRACE) => {}
            }
            std::process::exit(stopped.code().into());
        });
        Ok(Self(told))
    }

    /// Waits for the first signal, and names it. Cancel safe.
    pub(super) async fn asked(&self) -> &'static str {
        let mut told = self.0.clone();
        let name = told.wait_for(Option::is_some).await.map(|name| *name);
        match name {
            Ok(Some(name)) => name,
            // The listener is gone with the runtime.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

/// Awaits a future, unless a signal comes first.
pub(super) async fn unless_stopped(stopped: Exit, work: impl Future<Output = Exit>) -> Exit {
    let stop = match Stop::on_signals(stopped) {
        Ok(stop) => stop,
        Err(error) => return Exit::unable(&anyhow::Error::from(error)),
    };
    tokio::select! {
        biased;
        exit = work => exit,
        name = stop.asked() => {
            super::complain(format_args!("error: stopped by {name}"));
            stopped
        }
    }
}

/// The signals that are handled.
struct Signals {
    terminate: Signal,
    interrupt: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let ignored = ignored_signals();
        let is_ignored = |kind: SignalKind| ignored.map(|mask| has(mask, kind));
        // A signal that was ignored at the start stays ignored: `nohup` ignores SIGHUP, and a shell
        // ignores SIGINT for a background job. Where the mask is not known, SIGHUP keeps its
        // default, because `nohup` is more common.
        let hear_interrupt = is_ignored(SignalKind::interrupt()) != Some(true);
        let hear_hangup = is_ignored(SignalKind::hangup()) == Some(false);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: hear_interrupt
                .then(|| signal(SignalKind::interrupt()))
                .transpose()?,
            hangup: hear_hangup
                .then(|| signal(SignalKind::hangup()))
                .transpose()?,
        })
    }

    /// Waits for the next signal. Cancel safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            () = heard(&mut self.interrupt) => "SIGINT",
            () = heard(&mut self.hangup) => "SIGHUP",
        }
    }
}

async fn heard(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// The signals that this process ignores, as a mask; none where that is not known.
fn ignored_signals() -> Option<u64> {
    mask(&fs::read_to_string("/proc/self/status").ok()?)
}

/// The mask of ignored signals in Linux's description of a process (proc_pid_status(5)).
fn mask(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn has(mask: u64, kind: SignalKind) -> bool {
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigBlk:\t0000000000000002\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        let mask = mask(status).unwrap();
        assert!(has(mask, SignalKind::hangup()));
        assert!(!has(mask, SignalKind::interrupt()));
        assert!(!has(mask, SignalKind::terminate()));
        assert_eq!(super::mask("Name:\tx\n"), None);
    }
}
