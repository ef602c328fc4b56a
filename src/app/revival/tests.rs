use std::{collections::VecDeque, sync::Mutex};

use super::*;
use crate::{
    domain::{Destination, DestinationState},
    server::unary::tests::fakes::TroubledStore,
    store::{MemoryStore, suite},
};

const FIRST: Revision = Revision::FIRST;
const UNKNOWN: Again = Again::Unknown { retry_after: None };

/// Answers from a script, then that it is refused still; and when it was asked.
#[derive(Debug, Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Again>>>,
    asked: Arc<Mutex<Vec<(Instant, DestinationUid)>>>,
    /// How long an answer takes.
    time: Duration,
}

#[async_trait]
impl Ask for Script {
    async fn ask_again(&self, uid: DestinationUid) -> Again {
        self.asked.lock().unwrap().push((Instant::now(), uid));
        sleep(self.time).await;
        let answer = self.answers.lock().unwrap().pop_front();
        answer.unwrap_or(Again::StillRefused)
    }
}

struct Bench {
    script: Script,
    refused: mpsc::UnboundedSender<RefusedCredentials>,
    began: Instant,
    /// Ends with the bench.
    _tasks: JoinSet<()>,
}

impl Bench {
    fn start(store: Arc<dyn Store>, script: Script) -> Self {
        let (refused, reports) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(run(script.clone(), store, reports));
        Self {
            script,
            refused,
            began: Instant::now(),
            _tasks: tasks,
        }
    }

    fn with(answers: impl IntoIterator<Item = Again>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        let script = Script {
            answers,
            ..Script::default()
        };
        Self::start(Arc::new(MemoryStore::default()), script)
    }

    fn refuse(&self, uid: DestinationUid, revision: Revision) {
        self.refused
            .send(RefusedCredentials { uid, revision })
            .unwrap();
    }

    /// When questions were asked, since the start.
    fn asked(&self) -> Vec<Duration> {
        let asked = self.script.asked.lock().unwrap();
        asked.iter().map(|(at, _)| *at - self.began).collect()
    }
}

fn minutes(count: u64) -> Duration {
    Duration::from_secs(60 * count)
}

fn destination(organization: &str, state: DestinationState) -> Destination {
    Destination {
        name: format!("organizations/{organization}/destinations/vip")
            .parse()
            .unwrap(),
        state,
        ..suite::destination("vip")
    }
}

#[tokio::test(start_paused = true)]
async fn questions_come_from_a_minute_to_an_hour_apart() {
    let bench = Bench::with([]);
    bench.refuse(DestinationUid::generate(), FIRST);
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
    let patience = Again::Unknown {
        retry_after: Some(minutes(4)),
    };
    let bench = Bench::with([UNKNOWN, UNKNOWN, patience]);
    bench.refuse(DestinationUid::generate(), FIRST);
    sleep(minutes(60)).await;
    let asked = bench.asked();
    for pair in asked[..3].windows(2) {
        assert!(pair[1] - pair[0] <= minutes(2), "{asked:?}");
    }
    assert!(asked[3] - asked[2] >= minutes(4), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_active_changed_or_gone_is_not_asked_about() {
    for answer in [Again::Active(FIRST.next()), Again::Moot] {
        let bench = Bench::with([answer]);
        bench.refuse(DestinationUid::generate(), FIRST);
        sleep(minutes(600)).await;
        assert_eq!(bench.asked().len(), 1, "{answer:?}");
    }
}

/// How long it is until the question after the second refusal, which comes at `revision`.
async fn second_wait(revision: Revision) -> Duration {
    let bench = Bench::with([Again::StillRefused, Again::Active(Revision(3))]);
    let uid = DestinationUid::generate();
    bench.refuse(uid, FIRST);
    while bench.asked().len() < 2 {
        sleep(Duration::from_secs(1)).await;
    }
    bench.refuse(uid, revision);
    sleep(minutes(60)).await;
    bench.asked()[2] - bench.asked()[1]
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_again_soon_waits_longer_unless_it_was_changed() {
    assert!(second_wait(Revision(3)).await >= minutes(4));
    assert!(second_wait(Revision(4)).await <= minutes(3));
}

#[tokio::test(start_paused = true)]
async fn only_a_few_are_asked_about_at_once() {
    let script = Script {
        time: minutes(10),
        ..Script::default()
    };
    let bench = Bench::start(Arc::new(MemoryStore::default()), script);
    for _ in 0..20 {
        bench.refuse(DestinationUid::generate(), FIRST);
    }
    sleep(minutes(9)).await;
    assert_eq!(bench.asked().len(), AT_ONCE);
}

#[tokio::test(start_paused = true)]
async fn those_refused_before_the_start_are_found_whosever_they_are() {
    let store = MemoryStore::default();
    let mut expected = Vec::new();
    for n in 0..usize::from(PAGE) + 1 {
        let rejected = destination(&format!("o{n}"), DestinationState::CredentialsRejected);
        store.create(&rejected, None).await.unwrap();
        expected.push(rejected.uid);
    }
    let active = destination("active", DestinationState::Active);
    store.create(&active, None).await.unwrap();
    let bench = Bench::start(Arc::new(store), Script::default());
    sleep(minutes(2)).await;
    let asked = bench.script.asked.lock().unwrap();
    let mut asked: Vec<_> = asked.iter().map(|(_, uid)| *uid).collect();
    asked.sort_unstable();
    asked.dedup();
    expected.sort_unstable();
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn a_store_that_is_down_at_the_start_is_asked_again() {
    use std::sync::atomic::Ordering;
    let store = Arc::new(TroubledStore::new().await);
    let rejected = destination("acme", DestinationState::CredentialsRejected);
    store.create(&rejected, None).await.unwrap();
    store.is_down.store(true, Ordering::Relaxed);
    let (script, store_then) = (Script::default(), Arc::clone(&store));
    let mut revival = Revival {
        control: script,
        cases: HashMap::new(),
        questions: JoinSet::new(),
    };
    let back = async {
        tokio::task::yield_now().await;
        store_then.is_down.store(false, Ordering::Relaxed);
    };
    tokio::join!(revival.load(&*store), back);
    assert_eq!(revival.cases.len(), 1);
}
