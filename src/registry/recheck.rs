//! Periodic recheck of refused credentials: LaunchDarkly may accept later what it refuses now, and
//! then the destination becomes active without a call of its owner.
//!
//! | a destination | from | until |
//! |---|---|---|
//! | waits | it was refused, or was found refused in the store at the start | its time has come |
//! | is checked | its time has come | there is an answer; if it is still refused, it waits twice as long |
//! | is watched | it became active | an hour has passed; or it is refused again, and waits longer than before |

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::Registry;
use crate::{
    backoff::Backoff,
    delivery::RefusedCredentials,
    domain::{CredentialChecker, DestinationState, DestinationUid, Revision},
};

/// Between two checks of one destination: one to two minutes at first, half an hour to an
/// hour at last. LaunchDarkly's own SDKs ask again up to an hour apart after a refusal.
const RECHECK_AFTER: Backoff = Backoff {
    first: Duration::from_secs(120),
    longest: Duration::from_secs(3600),
};
/// Between attempts to list what the store holds at the start.
const RELOAD_AFTER: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// Most destinations checked at once. Ours: a check may take 20 s, and there is no hurry.
const AT_ONCE: usize = 4;
/// How many are read from the store at once.
const PAGE: u16 = 500;

/// The outcome of one more check of refused credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Recheck {
    /// It is active, from this revision on.
    Active(Revision),
    /// A check fails.
    StillRefused,
    /// The destination was deleted or changed meanwhile: there is nothing to check any longer.
    Obsolete,
    /// LaunchDarkly, or the store, could not be asked.
    Unknown {
        /// How long LaunchDarkly asked to wait.
        retry_after: Option<Duration>,
    },
}

/// Asks until it is dropped, or until the sender of `refused` is.
pub(crate) async fn run(
    registry: Registry,
    checker: Arc<dyn CredentialChecker>,
    mut refused: mpsc::UnboundedReceiver<RefusedCredentials>,
) {
    let mut rechecks = Rechecks {
        registry,
        checker,
        destinations: HashMap::new(),
        checks: JoinSet::new(),
    };
    rechecks.load().await;
    while let Some(event) = rechecks.next_event(&mut refused).await {
        let now = Instant::now();
        match event {
            RecheckEvent::Refused(refusal) => rechecks.refused(refusal, now),
            RecheckEvent::Answered(uid, answer) => rechecks.answered(uid, answer, now),
            RecheckEvent::Due(uid) => rechecks.ask(uid),
        }
    }
}

struct Rechecks {
    registry: Registry,
    checker: Arc<dyn CredentialChecker>,
    destinations: HashMap<DestinationUid, RefusedDestination>,
    /// Awaited here; they end with this.
    checks: JoinSet<(DestinationUid, Recheck)>,
}

/// The state of a destination that is refused, or was recently.
#[derive(Debug, Clone, Copy)]
struct RefusedDestination {
    /// How many rechecks failed.
    attempt: u32,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits {
        until: Instant,
    },
    Checking,
    /// Active since then; another revision is not what was refused before.
    Watched {
        revision: Revision,
        since: Instant,
    },
}

enum RecheckEvent {
    Refused(RefusedCredentials),
    Answered(DestinationUid, Recheck),
    Due(DestinationUid),
}

impl Rechecks {
    /// Finds those that were refused before the start.
    async fn load(&mut self) {
        let (mut after, mut attempt) = (None, 0);
        loop {
            match self.registry.store.list_rejected(after, PAGE).await {
                Ok(page) => {
                    page.iter()
                        .for_each(|uid| self.wait(*uid, 0, Duration::ZERO));
                    after = page.last().copied();
                    if page.len() < usize::from(PAGE) {
                        break;
                    }
                }
                Err(error) => {
                    error!(%error, "refused destinations could not be listed yet");
                    sleep(RELOAD_AFTER.delay(attempt, fastrand::f64())).await;
                    attempt += 1;
                }
            }
        }
        info!(
            destinations = self.destinations.len(),
            "refused destinations are asked about again"
        );
    }

    /// None once no refusal can be reported any more.
    async fn next_event(
        &mut self,
        refused: &mut mpsc::UnboundedReceiver<RefusedCredentials>,
    ) -> Option<RecheckEvent> {
        let due = self.next_due();
        let may_ask = self.checks.len() < AT_ONCE;
        tokio::select! {
            // Answers first: they make room for checks.
            biased;
            Some(answered) = self.checks.join_next() => match answered {
                Ok((uid, answer)) => Some(RecheckEvent::Answered(uid, answer)),
                Err(error) => broken_off(error).await,
            },
            refusal = refused.recv() => refusal.map(RecheckEvent::Refused),
            uid = when_due(due), if may_ask => Some(RecheckEvent::Due(uid)),
        }
    }

    fn next_due(&self) -> Option<(Instant, DestinationUid)> {
        let waiting = self
            .destinations
            .iter()
            .filter_map(|(uid, known)| match known.stage {
                Stage::Waits { until } => Some((until, *uid)),
                Stage::Checking | Stage::Watched { .. } => None,
            });
        waiting.min()
    }

    fn refused(&mut self, RefusedCredentials { uid, revision }: RefusedCredentials, now: Instant) {
        self.forget_watched(now);
        match self.destinations.get(&uid).copied() {
            None => self.wait(uid, 0, Duration::ZERO),
            Some(RefusedDestination {
                attempt,
                stage: Stage::Watched {
                    revision: revived, ..
                },
            }) => {
                let attempt = if revision == revived { attempt + 1 } else { 0 };
                self.wait(uid, attempt, Duration::ZERO);
            }
            // A call had made it active. It is checked when its time has come.
            Some(_) => {}
        }
    }

    fn ask(&mut self, uid: DestinationUid) {
        if let Some(known) = self.destinations.get_mut(&uid) {
            known.stage = Stage::Checking;
            let (registry, checker) = (self.registry.clone(), Arc::clone(&self.checker));
            let check = async move { (uid, ask(&registry, &*checker, uid).await) };
            self.checks.spawn(check);
        }
    }

    fn answered(&mut self, uid: DestinationUid, answer: Recheck, now: Instant) {
        let attempt = self.destinations.get(&uid).map_or(0, |known| known.attempt);
        match answer {
            Recheck::Obsolete => drop(self.destinations.remove(&uid)),
            Recheck::StillRefused => self.wait(uid, attempt + 1, Duration::ZERO),
            Recheck::Unknown { retry_after } => {
                self.wait(uid, attempt, retry_after.unwrap_or_default());
            }
            Recheck::Active(revision) => {
                let stage = Stage::Watched {
                    revision,
                    since: now,
                };
                self.destinations
                    .insert(uid, RefusedDestination { attempt, stage });
            }
        }
    }

    fn wait(&mut self, uid: DestinationUid, attempt: u32, at_least: Duration) {
        let delay = RECHECK_AFTER.delay(attempt, fastrand::f64()).max(at_least);
        let until = Instant::now() + delay;
        let stage = Stage::Waits { until };
        self.destinations
            .insert(uid, RefusedDestination { attempt, stage });
    }

    fn forget_watched(&mut self, now: Instant) {
        self.destinations.retain(|_, known| match known.stage {
            Stage::Watched { since, .. } => now.duration_since(since) < RECHECK_AFTER.longest,
            Stage::Waits { .. } | Stage::Checking => true,
        });
    }
}

/// Asks again about a destination whose credentials were refused, and makes it active if no check
/// of them fails.
async fn ask(registry: &Registry, checker: &dyn CredentialChecker, uid: DestinationUid) -> Recheck {
    let unknown = |error: super::Error| {
        error!(destination.uid = %uid, %error, "the store failed");
        Recheck::Unknown { retry_after: None }
    };
    let found = match registry.store.find(uid).await {
        Ok(Some(found)) if found.state == DestinationState::CredentialsRejected => found,
        Ok(_) => return Recheck::Obsolete,
        Err(error) => return unknown(error),
    };
    match checker.check_credentials(&found.connection).await {
        Ok(report) if report.is_valid() => match registry.reactivate_refused(found).await {
            Ok(Some(revision)) => Recheck::Active(revision),
            Ok(None) => Recheck::Obsolete,
            Err(error) => unknown(error),
        },
        Ok(_) => Recheck::StillRefused,
        Err(error) => {
            warn!(destination = %found.name, %error, "a refused destination is asked about later");
            Recheck::Unknown {
                retry_after: error.retry_after,
            }
        }
    }
}

/// What a check means that brought no answer. Only the runtime aborts one, when the
/// process ends; then this task is about to end as well.
async fn broken_off(error: JoinError) -> Option<RecheckEvent> {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(_) => std::future::pending().await,
    }
}

async fn when_due(due: Option<(Instant, DestinationUid)>) -> DestinationUid {
    match due {
        Some((at, uid)) => {
            sleep_until(at).await;
            uid
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
