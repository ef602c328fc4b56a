//! What scenarios send: logs over disjoint keys, and the executors that send them.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use launchdarkly_connector::{backoff::Backoff, pb};
use tokio::{runtime::Runtime, task::JoinSet};

use crate::{
    figure::Figure,
    support::{
        executor::{self, Done, Job, Record, Settings, endpoint},
        history::{Event, History, Operation, Outcome},
    },
};

/// One in so many records is of a refused key, if there are some: each costs the calls of an
/// isolation.
const REFUSED_SHARE: usize = 1_000;

/// Records of one log that wait for results.
const WINDOW: usize = 400;

/// Records of several logs into one segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) logs: usize,
    pub(crate) records_per_log: usize,
    pub(crate) keys_per_log: usize,
    /// Further keys of each log, which LaunchDarkly is to refuse.
    pub(crate) refused_per_log: usize,
}

impl Load {
    /// One job a log. The operations of a key alternate, since that shows the most.
    pub(crate) fn jobs(&self, open: &pb::OpenStream, seed: u64) -> Vec<Job> {
        let mut random = fastrand::Rng::with_seed(seed);
        let jobs = (0..self.logs).map(|log| Job {
            log: format!("log-{log}").into(),
            open: open.clone(),
            records: self.records(log, &mut random),
        });
        jobs.collect()
    }

    fn records(&self, log: usize, random: &mut fastrand::Rng) -> Vec<Record> {
        let good = (0..self.keys_per_log).map(|key| format!("{log}-{key}"));
        let refused = self.refused_keys(log);
        let keys: Vec<Arc<str>> = good.chain(refused).map(Arc::from).collect();
        let mut adds = vec![true; keys.len()];
        let records = (0..self.records_per_log).map(|_| {
            let refused = self.refused_per_log > 0 && random.usize(..REFUSED_SHARE) == 0;
            let place = if refused {
                self.keys_per_log + random.usize(..self.refused_per_log)
            } else {
                random.usize(..self.keys_per_log)
            };
            let operation = if adds[place] {
                Operation::Add
            } else {
                Operation::Remove
            };
            adds[place] = !adds[place];
            Record {
                key: Arc::clone(&keys[place]),
                operation,
            }
        });
        records.collect()
    }

    /// The refused keys of one log.
    pub(crate) fn refused_keys(&self, log: usize) -> Vec<String> {
        let refused = 0..self.refused_per_log;
        refused.map(|key| format!("{log}-refused-{key}")).collect()
    }
}

/// How the scenarios' executors send: small batches in a small window, so that much is under way
/// and unanswered at any time, and each round makes calls of its own.
pub(crate) fn settings(deadline: Duration) -> Settings {
    Settings {
        batch: 50,
        window: WINDOW,
        pause: Duration::from_millis(5),
        backoff: Backoff {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(500),
        },
        deadline: Some(deadline),
        ..Settings::default()
    }
}

/// A runtime as the service's own.
pub(crate) fn runtime() -> Runtime {
    Runtime::new().expect("a runtime starts")
}

/// What it took.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) done: Done,
    pub(crate) elapsed: Duration,
}

/// Runs an executor for each job to its end, over connections whose death is noticed within
/// `patience`.
///
/// # Errors
/// Which of them stopped, and what the history says about it.
pub(crate) async fn run(
    jobs: Vec<Job>,
    url: &str,
    patience: Duration,
    settings: Settings,
    history: &History,
) -> Result<Ran, String> {
    let start = tokio::time::Instant::now();
    let mut executors = JoinSet::new();
    for job in jobs {
        let (url, history) = (url.to_owned(), history.clone());
        let name = Arc::clone(&job.log);
        executors.spawn(async move {
            let connect = || {
                let endpoint = endpoint(url.clone(), patience);
                async move { endpoint.connect().await }
            };
            let done = executor::run(connect, job, settings, history).await;
            done.map_err(|stopped| format!("{name}: {stopped}"))
        });
    }
    let (mut done, mut stopped) = (Done::default(), Vec::new());
    while let Some(ended) = executors.join_next().await {
        match ended.map_err(|error| error.to_string())? {
            Ok(Done { incarnations, sent }) => {
                done.incarnations += incarnations;
                done.sent += sent;
            }
            Err(why) => stopped.push(why),
        }
    }
    let elapsed = start.elapsed();
    if stopped.is_empty() {
        return Ok(Ran { done, elapsed });
    }
    let judged = history.check().err().unwrap_or_default();
    Err(format!("{}\n{judged}", stopped.join("\n")))
}

/// How many records that LaunchDarkly would have taken were rejected all the same.
pub(crate) fn wrongly_rejected(history: &History, load: &Load) -> usize {
    let refused: Vec<_> = (0..load.logs)
        .flat_map(|log| load.refused_keys(log))
        .collect();
    let mut keys = BTreeMap::new();
    let mut wrongly = 0;
    for event in history.events() {
        match event {
            Event::Sent {
                by, sequence, key, ..
            } => {
                keys.insert((by.log, sequence), key);
            }
            Event::Result {
                by,
                sequence,
                outcome: Outcome::Failed(reason),
            } if &*reason != "DELIVERY_TIMEOUT" => {
                let key = keys.get(&(by.log, sequence));
                wrongly +=
                    usize::from(!key.is_some_and(|key| refused.iter().any(|r| **r == **key)));
            }
            _ => {}
        }
    }
    wrongly
}

/// The figures that every scenario has, of a history without violations.
///
/// # Errors
/// Its violations.
pub(crate) fn figures(
    promise: &'static str,
    history: &History,
    load: &Load,
    ran: &Ran,
) -> Result<Vec<Figure>, String> {
    let summary = history.check()?;
    let records = load.logs * load.records_per_log;
    let resent = ran.done.sent.saturating_sub(records);
    let tried_again = ran.done.incarnations as usize - load.logs;
    let share = Percent(resent as f64 / records as f64);
    Ok(vec![
        Figure::exactly(promise, "records with a result", summary.settled, records),
        // Had there been one, the check above would have ended this.
        Figure::exactly(promise, "violations of the history", 0, 0),
        Figure::exactly(
            promise,
            "good records rejected",
            wrongly_rejected(history, load),
            0,
        ),
        Figure::told(
            promise,
            "results other than OK",
            format!("{:?}", summary.failed),
        ),
        Figure::told(
            promise,
            "streams opened / tried",
            format!("{} / {}", summary.streams, ran.done.incarnations),
        ),
        // A stream that is lost costs its window at most.
        Figure::at_most(promise, "records sent again", resent, tried_again * WINDOW),
        Figure::told(promise, "share of records sent again", share),
        Figure::told(promise, "calls applied", summary.calls),
        Figure::told(
            promise,
            "time",
            format!("{:.1} s", ran.elapsed.as_secs_f64()),
        ),
    ])
}

/// A share as people read it.
pub(crate) struct Percent(pub(crate) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", 100.0 * self.0)
    }
}
