//! Asks again about destinations whose credentials were refused: what LaunchDarkly refuses now, it
//! may accept later, and nobody need come and say so.
//!
//! | a destination | from | until |
//! |---|---|---|
//! | waits | it was refused, or found so in the store at the start | its time has come |
//! | is asked about | then | there is an answer; if it is refused still, it waits twice as long |
//! | is watched | it became active | an hour has passed; refused meanwhile, it waits longer than before |

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

/// Between two questions about one destination: one to two minutes at first, half an hour to an
/// hour at last. LaunchDarkly's own SDKs ask again up to an hour apart after a refusal.
const ASK_AGAIN: Backoff = Backoff {
    first: Duration::from_secs(120),
    longest: Duration::from_secs(3600),
};
/// Between attempts to find out what the store holds at the start.
const LOAD_AGAIN: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};
/// Most destinations asked about at once. Ours: a question may take 20 s, and there is no hurry.
const AT_ONCE: usize = 4;
/// How many are read from the store at once.
const PAGE: u16 = 500;

/// What came of asking again about a destination whose credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    /// It is active, from this revision on.
    Active(Revision),
    /// A check fails.
    StillRefused,
    /// It is gone, or was changed meanwhile.
    Moot,
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
    let mut revival = Revival {
        registry,
        checker,
        cases: HashMap::new(),
        questions: JoinSet::new(),
    };
    revival.load().await;
    while let Some(event) = revival.next_event(&mut refused).await {
        let now = Instant::now();
        match event {
            Event::Refused(condemned) => revival.refused(condemned, now),
            Event::Answered(uid, answer) => revival.answered(uid, answer, now),
            Event::Due(uid) => revival.ask(uid),
        }
    }
}

struct Revival {
    registry: Registry,
    checker: Arc<dyn CredentialChecker>,
    cases: HashMap<DestinationUid, Case>,
    /// Awaited here; they end with this.
    questions: JoinSet<(DestinationUid, Again)>,
}

/// What is known of a destination that is, or was of late, refused.
#[derive(Debug, Clone, Copy)]
struct Case {
    /// How often it was asked about in vain.
    attempt: u32,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits {
        until: Instant,
    },
    Asked,
    /// Active since then; another revision is not what was refused before.
    Watched {
        revision: Revision,
        since: Instant,
    },
}

enum Event {
    Refused(RefusedCredentials),
    Answered(DestinationUid, Again),
    Due(DestinationUid),
}

impl Revival {
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
                    sleep(LOAD_AGAIN.delay(attempt, fastrand::f64())).await;
                    attempt += 1;
                }
            }
        }
        info!(
            destinations = self.cases.len(),
            "refused destinations are asked about again"
        );
    }

    /// None once nobody can report any more.
    async fn next_event(
        &mut self,
        refused: &mut mpsc::UnboundedReceiver<RefusedCredentials>,
    ) -> Option<Event> {
        let due = self.next_due();
        let may_ask = self.questions.len() < AT_ONCE;
        tokio::select! {
            // Answers first: they make room for questions.
            biased;
            Some(answered) = self.questions.join_next() => match answered {
                Ok((uid, answer)) => Some(Event::Answered(uid, answer)),
                Err(error) => broken_off(error).await,
            },
            condemned = refused.recv() => condemned.map(Event::Refused),
            uid = when_due(due), if may_ask => Some(Event::Due(uid)),
        }
    }

    fn next_due(&self) -> Option<(Instant, DestinationUid)> {
        let waiting = self
            .cases
            .iter()
            .filter_map(|(uid, case)| match case.stage {
                Stage::Waits { until } => Some((until, *uid)),
                Stage::Asked | Stage::Watched { .. } => None,
            });
        waiting.min()
    }

    fn refused(&mut self, RefusedCredentials { uid, revision }: RefusedCredentials, now: Instant) {
        self.forget_watched(now);
        match self.cases.get(&uid).copied() {
            None => self.wait(uid, 0, Duration::ZERO),
            Some(Case {
                attempt,
                stage: Stage::Watched {
                    revision: revived, ..
                },
            }) => {
                let attempt = if revision == revived { attempt + 1 } else { 0 };
                self.wait(uid, attempt, Duration::ZERO);
            }
            // Somebody else had made it active; it is asked about when its time has come.
            Some(_) => {}
        }
    }

    fn ask(&mut self, uid: DestinationUid) {
        if let Some(case) = self.cases.get_mut(&uid) {
            case.stage = Stage::Asked;
            let (registry, checker) = (self.registry.clone(), Arc::clone(&self.checker));
            let question = async move { (uid, ask(&registry, &*checker, uid).await) };
            self.questions.spawn(question);
        }
    }

    fn answered(&mut self, uid: DestinationUid, answer: Again, now: Instant) {
        let attempt = self.cases.get(&uid).map_or(0, |case| case.attempt);
        match answer {
            Again::Moot => drop(self.cases.remove(&uid)),
            Again::StillRefused => self.wait(uid, attempt + 1, Duration::ZERO),
            Again::Unknown { retry_after } => {
                self.wait(uid, attempt, retry_after.unwrap_or_default());
            }
            Again::Active(revision) => {
                let stage = Stage::Watched {
                    revision,
                    since: now,
                };
                self.cases.insert(uid, Case { attempt, stage });
            }
        }
    }

    fn wait(&mut self, uid: DestinationUid, attempt: u32, at_least: Duration) {
        let delay = ASK_AGAIN.delay(attempt, fastrand::f64()).max(at_least);
        let until = Instant::now() + delay;
        let stage = Stage::Waits { until };
        self.cases.insert(uid, Case { attempt, stage });
    }

    fn forget_watched(&mut self, now: Instant) {
        self.cases.retain(|_, case| match case.stage {
            Stage::Watched { since, .. } => now.duration_since(since) < ASK_AGAIN.longest,
            Stage::Waits { .. } | Stage::Asked => true,
        });
    }
}

/// Asks again about a destination whose credentials were refused, and makes it active if no check of
/// them fails.
async fn ask(registry: &Registry, checker: &dyn CredentialChecker, uid: DestinationUid) -> Again {
    let unknown = |error: super::Error| {
        error!(destination.uid = %uid, %error, "the store failed");
        Again::Unknown { retry_after: None }
    };
    let found = match registry.store.find(uid).await {
        Ok(Some(found)) if found.state == DestinationState::CredentialsRejected => found,
        Ok(_) => return Again::Moot,
        Err(error) => return unknown(error),
    };
    match checker.check_credentials(&found.connection).await {
        Ok(report) if report.is_valid() => match registry.reactivate_refused(found).await {
            Ok(Some(revision)) => Again::Active(revision),
            Ok(None) => Again::Moot,
            Err(error) => unknown(error),
        },
        Ok(_) => Again::StillRefused,
        Err(error) => {
            warn!(destination = %found.name, %error, "a refused destination is asked about later");
            Again::Unknown {
                retry_after: error.retry_after,
            }
        }
    }
}

/// What a question means that brought no answer. Nobody aborts one but the runtime, when the
/// process ends; then this task is about to end as well.
async fn broken_off(error: JoinError) -> Option<Event> {
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
