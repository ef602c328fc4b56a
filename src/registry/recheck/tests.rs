use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::Ordering},
};

use async_trait::async_trait;

use super::*;
use crate::{
    domain::{
        Check, CheckKind, CheckOutcome, ClientSideId, Connection, CredentialReport,
        CredentialsUnavailable, Destination, Finding, TransientError,
    },
    metrics::Metrics,
    store::{MemoryStore, Store, suite, troubled::TroubledStore},
};

const FIRST: Revision = Revision::FIRST;
const ACTIVE: DestinationState = DestinationState::Active;
const REJECTED: DestinationState = DestinationState::CredentialsRejected;

/// Answers from a script, then that the credentials are refused still; and when it was asked about
/// which client-side ID, which is the uid of the destination.
#[derive(Debug, Default)]
struct Script {
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<(Instant, String)>>,
    /// How long an answer takes.
    time: Duration,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Valid,
    Invalid,
    Unavailable { retry_after: Option<Duration> },
}

const UNKNOWN: Answer = Answer::Unavailable { retry_after: None };

#[async_trait]
impl CredentialChecker for Script {
    fn actions(&self) -> &[crate::domain::Action] {
        &[]
    }

    async fn check_credentials(
        &self,
        connection: &Connection,
    ) -> Result<CredentialReport, CredentialsUnavailable> {
        let uid = connection.client_side_id.as_str().to_owned();
        self.asked.lock().unwrap().push((Instant::now(), uid));
        sleep(self.time).await;
        let answer = self.answers.lock().unwrap().pop_front();
        match answer.unwrap_or(Answer::Invalid) {
            Answer::Valid => Ok(CredentialReport::default()),
            Answer::Invalid => Ok(invalid()),
            Answer::Unavailable { retry_after } => Err(CredentialsUnavailable {
                error: TransientError::TimedOut,
                retry_after,
            }),
        }
    }
}

fn invalid() -> CredentialReport {
    let finding = Finding {
        reason: "REFUSED",
        message: "refused".into(),
    };
    CredentialReport {
        checks: vec![Check {
            kind: CheckKind::AccessToken,
            outcome: CheckOutcome::Failed(finding),
            field: "launch_darkly.access_token",
        }],
        ..CredentialReport::default()
    }
}

struct Bench {
    script: Arc<Script>,
    store: Arc<dyn Store>,
    refused: mpsc::UnboundedSender<RefusedCredentials>,
    began: Instant,
    /// Ends with the bench.
    _tasks: JoinSet<()>,
}

impl Bench {
    fn start(store: Arc<dyn Store>, script: Script) -> Self {
        let (refused, reports) = mpsc::unbounded_channel();
        let script = Arc::new(script);
        let (registry, _) = Registry::new(Arc::clone(&store), Metrics::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(run(registry, Arc::clone(&script) as _, reports));
        Self {
            script,
            store,
            refused,
            began: Instant::now(),
            _tasks: tasks,
        }
    }

    fn with(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Script {
            answers: Mutex::new(answers.into_iter().collect()),
            ..Script::default()
        };
        Self::start(Arc::new(MemoryStore::default()), script)
    }

    /// Refuses the credentials of a new destination.
    async fn refuse_one(&self) -> Destination {
        let organization = format!("o{}", uuid::Uuid::new_v4());
        let one = destination(&organization, ACTIVE);
        self.store.create(&one, None).await.unwrap();
        self.refuse(one.uid, FIRST).await;
        one
    }

    /// Stores that the credentials of a revision were refused, and reports it.
    async fn refuse(&self, uid: DestinationUid, revision: Revision) {
        let at = std::time::SystemTime::UNIX_EPOCH;
        let stored = self.store.set_state(uid, revision, REJECTED, at).await;
        assert!(stored.unwrap(), "there is no such revision");
        let refusal = RefusedCredentials { uid, revision };
        self.refused.send(refusal).unwrap();
    }

    /// When checks were asked, since the start.
    fn asked(&self) -> Vec<Duration> {
        let asked = self.script.asked.lock().unwrap();
        asked.iter().map(|(at, _)| *at - self.began).collect()
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn destination(organization: &str, state: DestinationState) -> Destination {
    let uid = DestinationUid::generate();
    let mut destination = suite::destination("vip");
    destination.connection.client_side_id = ClientSideId::new(uid.to_string());
    Destination {
        uid,
        name: format!("organizations/{organization}/destinations/vip")
            .parse()
            .unwrap(),
        state,
        ..destination
    }
}

#[tokio::test(start_paused = true)]
async fn questions_come_from_a_minute_to_an_hour_apart() {
    let bench = Bench::with([]);
    bench.refuse_one().await;
    sleep(minutes(60 * 24)).await;
    let mut asked = bench.asked();
    asked.insert(0, Duration::ZERO);
    let gaps: Vec<_> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (attempt, gap) in (0u32..).zip(&gaps) {
        let longest = minutes(2 << attempt.min(10)).min(minutes(60));
        assert!(longest / 2 <= *gap && *gap <= longest, "{attempt}: {gap:?}");
    }
    assert!(gaps.len() > 24, "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_no_refusal_and_does_not_lengthen_the_wait() {
    let patience = Answer::Unavailable {
        retry_after: Some(minutes(4)),
    };
    let bench = Bench::with([UNKNOWN, UNKNOWN, patience]);
    bench.refuse_one().await;
    sleep(minutes(60)).await;
    let asked = bench.asked();
    for pair in asked[..3].windows(2) {
        assert!(pair[1] - pair[0] <= minutes(2), "{asked:?}");
    }
    assert!(asked[3] - asked[2] >= minutes(4), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_active_changed_or_gone_is_not_asked_about() {
    let bench = Bench::with([Answer::Valid]);
    bench.refuse_one().await;
    sleep(minutes(600)).await;
    assert_eq!(bench.asked().len(), 1, "it is active");

    let bench = Bench::with([]);
    let gone = bench.refuse_one().await;
    bench.store.delete(&gone.name, None).await.unwrap();
    let changed = bench.refuse_one().await;
    let uid = changed.uid;
    let at = std::time::SystemTime::UNIX_EPOCH;
    let active = bench.store.set_state(uid, FIRST.next(), ACTIVE, at).await;
    assert!(active.unwrap());
    sleep(minutes(600)).await;
    assert_eq!(bench.asked().len(), 0, "they are gone, or active");
}

/// How long it is until the check after the second refusal, of the revision that was made active
/// or of one after `changes`.
async fn second_wait(changes: u8) -> Duration {
    let bench = Bench::with([Answer::Invalid, Answer::Valid]);
    let uid = bench.refuse_one().await.uid;
    while bench.asked().len() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    for _ in 0..changes {
        let found = bench.store.find(uid).await.unwrap().unwrap();
        let next = suite::changed(&found, "renamed");
        let replaced = bench.store.replace(&next, found.revision, None);
        replaced.await.unwrap();
    }
    let revision = bench.store.find(uid).await.unwrap().unwrap().revision;
    bench.refuse(uid, revision).await;
    sleep(minutes(60)).await;
    bench.asked()[2] - bench.asked()[1]
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_again_soon_waits_longer_unless_it_was_changed() {
    assert!(second_wait(0).await >= minutes(4));
    assert!(second_wait(1).await <= minutes(3));
}

#[tokio::test(start_paused = true)]
async fn only_a_few_are_asked_about_at_once() {
    let script = Script {
        time: minutes(10),
        ..Script::default()
    };
    let bench = Bench::start(Arc::new(MemoryStore::default()), script);
    for _ in 0..20 {
        bench.refuse_one().await;
    }
    sleep(minutes(9)).await;
    assert_eq!(bench.asked().len(), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn those_refused_before_the_start_are_found_whosever_they_are() {
    let store = MemoryStore::default();
    let mut expected = Vec::new();
    for n in 0..usize::from(PAGE) + 1 {
        let rejected = destination(&format!("o{n}"), REJECTED);
        store.create(&rejected, None).await.unwrap();
        expected.push(rejected.uid.to_string());
    }
    let active = destination("active", ACTIVE);
    store.create(&active, None).await.unwrap();
    let bench = Bench::start(Arc::new(store), Script::default());
    sleep(minutes(2)).await;
    let asked = bench.script.asked.lock().unwrap();
    let mut asked: Vec<_> = asked.iter().map(|(_, uid)| uid.clone()).collect();
    asked.sort_unstable();
    asked.dedup();
    expected.sort_unstable();
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_store_that_is_down_at_the_start_is_asked_again() {
    let store = Arc::new(TroubledStore::new().await);
    let rejected = destination("acme", REJECTED);
    store.create(&rejected, None).await.unwrap();
    store.is_down.store(true, Ordering::Relaxed);
    let (registry, _) = Registry::new(store.clone(), Metrics::default());
    let mut rechecks = Rechecks {
        registry,
        checker: Arc::new(Script::default()),
        destinations: HashMap::new(),
        checks: JoinSet::new(),
    };
    let back = async {
        tokio::task::yield_now().await;
        store.is_down.store(false, Ordering::Relaxed);
    };
    tokio::join!(rechecks.load(), back);
    assert_eq!(rechecks.destinations.len(), 1);
}
