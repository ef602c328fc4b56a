//! Simulations of a pace against LaunchDarkly, as files describe them.
//!
//! Each file beside this one says which lanes call, how LaunchDarkly behaves in each phase, and in
//! which ranges the figures must lie. Its comment says what it shows. Time is simulated, and all
//! chance is drawn from the file's seed, so a run repeats exactly.

mod figures;
mod vendor;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    fs,
    num::NonZeroU16,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tokio::time::Instant;

use self::{
    figures::{EndedCall, Expectation, Figures},
    vendor::{Answer, Phase, Vendor},
};
use super::{Admission, AdmittedCall, CallRequest, CallTarget, Feedback, Pace, Ticket};
use crate::{backoff::Backoff, domain::Attempt};

/// The back-off of a lane.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(2),
};
/// Between a call's admission and its start: no answer may be counted from the very moment of the
/// admission.
const DISPATCH: Duration = Duration::from_micros(50);
/// Seeds that each scenario must hold for, from its own on: no range may hold by chance alone.
const SEEDS: u64 = 5;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    seed: u64,
    seconds: u64,
    /// The operator's bound on calls under way.
    most: u16,
    /// Lanes that have something to send all the time, each with a segment of its own.
    lanes: usize,
    /// Environments that the lanes are spread over; one by default.
    #[serde(default = "one")]
    environments: usize,
    /// How long each lane pauses after a call that succeeded.
    #[serde(default)]
    pause_ms: u64,
    phase: Vec<Phase>,
    expect: Vec<Expectation>,
}

fn one() -> usize {
    1
}

/// The events to come, by time and then by order of scheduling.
type EventQueue = BinaryHeap<Reverse<(Duration, u64, Event)>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A lane has something to send.
    Due { lane: usize },
    /// A call reaches the vendor.
    Arrived { call: usize },
    /// The vendor's answer reaches the client.
    Answered { call: usize },
    /// The time has come at which the pace is to be asked again.
    TimerFired,
}

#[derive(Debug)]
struct Call {
    lane: usize,
    attempt: Attempt,
    /// When it began to wait.
    enqueued: Duration,
    started: Duration,
    admitted: AdmittedCall,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Simulation {
    start: Instant,
    now: Duration,
    rng: fastrand::Rng,
    pace: Pace,
    vendor: Vendor,
    events: EventQueue,
    /// Numbers the events.
    scheduled: u64,
    /// When the pace is asked again; there is one timer, as in an account.
    timer: Option<Duration>,
    pause: Duration,
    /// Failures in a row, by lane.
    failures: Vec<u32>,
    environments: usize,
    /// The lane of each waiting call, its attempt, and since when it waits.
    waiting: HashMap<Ticket, (usize, Attempt, Duration)>,
    calls: Vec<Call>,
    ended: Vec<EndedCall>,
    /// No call may start before this, by the vendor's answers.
    not_before: Duration,
}

impl Simulation {
    fn new(scenario: &Scenario, seed: u64) -> Self {
        let start = Instant::now();
        let most = NonZeroU16::new(scenario.most).unwrap();
        Self {
            start,
            now: Duration::ZERO,
            rng: fastrand::Rng::with_seed(seed),
            pace: Pace::new(most, start),
            vendor: Vendor::new(scenario.phase.clone()),
            events: EventQueue::new(),
            scheduled: 0,
            timer: None,
            pause: Duration::from_millis(scenario.pause_ms),
            failures: vec![0; scenario.lanes],
            environments: scenario.environments,
            waiting: HashMap::new(),
            calls: Vec::new(),
            ended: Vec::new(),
            not_before: Duration::ZERO,
        }
    }

    fn run(mut self, seconds: u64) -> Vec<EndedCall> {
        for lane in 0..self.failures.len() {
            self.schedule(Duration::ZERO, Event::Due { lane });
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > Duration::from_secs(seconds) {
                break;
            }
            self.now = at;
            match event {
                Event::Due { lane } => self.enqueue(lane),
                Event::Arrived { call } => self.arrive(call),
                Event::Answered { call } => self.conclude(call),
                Event::TimerFired if self.timer == Some(at) => self.timer = None,
                // An earlier one has replaced it.
                Event::TimerFired => continue,
            }
            self.admit();
        }
        self.ended
    }

    fn enqueue(&mut self, lane: usize) {
        let attempt = if self.failures[lane] == 0 {
            Attempt::First
        } else {
            Attempt::Retry
        };
        let request = CallRequest::Delivery(self.target(lane), attempt);
        let ticket = self.pace.enqueue(request, self.instant());
        self.waiting.insert(ticket, (lane, attempt, self.now));
    }

    fn target(&self, lane: usize) -> CallTarget {
        let environment = self.environment(lane).to_string();
        CallTarget::of(&environment, &lane.to_string())
    }

    fn environment(&self, lane: usize) -> usize {
        lane % self.environments
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        let item = (self.now + after, self.scheduled, event);
        self.events.push(Reverse(item));
    }

    fn set_timer(&mut self, at: Instant) {
        let at = (at - self.start).max(self.now + Duration::from_micros(1));
        if self.timer.is_none_or(|timer| at < timer) {
            self.timer = Some(at);
            self.schedule(at - self.now, Event::TimerFired);
        }
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn admit(&mut self) {
        loop {
            let random = self.rng.f64();
            match self.pace.admit(self.instant(), random) {
                Admission::Go(ticket, admitted) => self.start(ticket, admitted),
                Admission::Wait(at) => return self.set_timer(at),
                Admission::Full => return,
            }
        }
    }

    fn start(&mut self, ticket: Ticket, admitted: AdmittedCall) {
        let (lane, attempt, enqueued) = self.waiting.remove(&ticket).unwrap();
        assert!(
            self.now >= self.not_before,
            "a call started at {:?}, but none may before {:?}",
            self.now,
            self.not_before
        );
        let call = self.calls.len();
        self.calls.push(Call {
            lane,
            attempt,
            enqueued,
            started: self.now,
            admitted,
            answer: None,
        });
        let delay = self.vendor.network_delay(self.now, &mut self.rng);
        self.schedule(delay, Event::Arrived { call });
    }

    fn arrive(&mut self, call: usize) {
        let environment = self.environment(self.calls[call].lane);
        let answer = self.vendor.answer(environment, self.now, &mut self.rng);
        self.schedule(answer.after, Event::Answered { call });
        self.calls[call].answer = Some(answer);
    }

    fn conclude(&mut self, index: usize) {
        let call = &mut self.calls[index];
        let answer = call.answer.take().unwrap();
        let (lane, attempt, started) = (call.lane, call.attempt, call.started);
        let enqueued = call.enqueued;
        let target = self.target(lane);
        self.vendor.release(&answer);
        let feedback = Feedback {
            error: answer.error,
            wait: answer.wait(self.now),
            remaining: answer.remaining(self.now),
            ..Feedback::success(self.start + started + DISPATCH).of(&target)
        };
        let random = self.rng.f64();
        self.pace.observe(self.instant(), &feedback, random);
        self.pace.leave(&self.calls[index].admitted);
        self.not_before = self.not_before.max(answer.not_before.unwrap_or_default());
        self.ended.push(EndedCall {
            environment: self.environment(lane),
            enqueued,
            started,
            ended: self.now,
            attempt,
            error: answer.error,
        });
        let pause = if answer.error.is_none() {
            self.failures[lane] = 0;
            self.pause
        } else {
            let delay = BACKOFF.delay(self.failures[lane], self.rng.f64());
            self.failures[lane] += 1;
            delay.max(feedback.wait.unwrap_or_default())
        };
        self.schedule(pause, Event::Due { lane });
    }
}

/// Runs a file with one seed; returns the figures that lie outside their range.
fn simulate(name: &str, scenario: &Scenario, seed: u64) -> Vec<String> {
    let calls = Simulation::new(scenario, seed).run(scenario.seconds);
    let figures = Figures {
        calls: &calls,
        phases: &scenario.phase,
    };
    let evaluate = |expectation: &Expectation| {
        let value = figures.of(expectation);
        let line = format!("{name} (seed {seed}): {expectation} is {value:.3}");
        println!("{line}");
        (!expectation.holds(value)).then_some(line)
    };
    scenario.expect.iter().filter_map(evaluate).collect()
}

fn files() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/launchdarkly/pace/scenarios");
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_scenario_stays_within_its_ranges_whatever_the_seed() {
    let mut outside = Vec::new();
    let files = files();
    for file in &files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let scenario: Scenario = toml::from_str(&fs::read_to_string(file).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        for seed in scenario.seed..scenario.seed + SEEDS {
            outside.extend(simulate(name, &scenario, seed));
        }
    }
    assert!(files.len() >= 10, "scenarios are missing");
    assert!(outside.is_empty(), "\n{}", outside.join("\n"));
}
