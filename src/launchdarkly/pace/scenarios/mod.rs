//! Plays whole afternoons of LaunchDarkly to a pace, as files describe them.
//!
//! Each file beside this one says who calls, how LaunchDarkly behaves from when on, and in
//! which ranges the figures must lie; its comment says what it shows. Everything happens in
//! simulated time and is drawn from the file's seed, so a run repeats exactly.

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
    figures::{Expectation, Figures, Made},
    vendor::{Answer, Phase, Vendor},
};
use super::{Admission, AdmittedCall, CallRequest, Feedback, Origin, Pace, Ticket};
use crate::{backoff::Backoff, domain::Attempt};

/// How lanes back off on their own.
const BACKOFF: Backoff = Backoff {
    first: Duration::from_millis(200),
    longest: Duration::from_secs(2),
};
/// Between a call's admission and the call: no answer is counted from the very moment at which its
/// place was taken.
const DISPATCH: Duration = Duration::from_micros(50);
/// Seeds that each scenario must hold for, from its own on: no range may owe itself to luck.
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
    /// Environments that these are of, in turns; one unless told.
    #[serde(default = "one")]
    environments: usize,
    /// How long each rests after a call that went well.
    #[serde(default)]
    rest_ms: u64,
    phase: Vec<Phase>,
    expect: Vec<Expectation>,
}

fn one() -> usize {
    1
}

/// What happens next, by time and then by order of scheduling.
type Agenda = BinaryHeap<Reverse<(Duration, u64, Event)>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A lane has something to send.
    Due { lane: usize },
    /// A call reaches the vendor.
    Arrived { call: usize },
    /// Its answer reaches us.
    Answered { call: usize },
    /// Whoever is first in line asked to be woken.
    Woken,
}

#[derive(Debug)]
struct Call {
    lane: usize,
    attempt: Attempt,
    /// When it was wanted.
    wanted: Duration,
    started: Duration,
    admitted: AdmittedCall,
    answer: Option<Answer>,
}

#[derive(Debug)]
struct Play {
    start: Instant,
    now: Duration,
    chance: fastrand::Rng,
    pace: Pace,
    vendor: Vendor,
    agenda: Agenda,
    scheduled: u64,
    /// When whoever is first in line is woken; one at a time, or they would add up.
    woken: Option<Duration>,
    rest: Duration,
    /// Failures in a row, by lane.
    failures: Vec<u32>,
    environments: usize,
    /// Who waits, for what, and since when.
    line: HashMap<Ticket, (usize, Attempt, Duration)>,
    calls: Vec<Call>,
    made: Vec<Made>,
    /// No call may start before this.
    stated: Duration,
}

impl Play {
    fn new(scenario: &Scenario, seed: u64) -> Self {
        let start = Instant::now();
        let most = NonZeroU16::new(scenario.most).unwrap();
        Self {
            start,
            now: Duration::ZERO,
            chance: fastrand::Rng::with_seed(seed),
            pace: Pace::new(most, start),
            vendor: Vendor::new(scenario.phase.clone()),
            agenda: Agenda::new(),
            scheduled: 0,
            woken: None,
            rest: Duration::from_millis(scenario.rest_ms),
            failures: vec![0; scenario.lanes],
            environments: scenario.environments,
            line: HashMap::new(),
            calls: Vec::new(),
            made: Vec::new(),
            stated: Duration::ZERO,
        }
    }

    fn run(mut self, seconds: u64) -> Vec<Made> {
        for lane in 0..self.failures.len() {
            self.schedule(Duration::ZERO, Event::Due { lane });
        }
        while let Some(Reverse((at, _, event))) = self.agenda.pop() {
            if at > Duration::from_secs(seconds) {
                break;
            }
            self.now = at;
            match event {
                Event::Due { lane } => self.enter(lane),
                Event::Arrived { call } => self.arrive(call),
                Event::Answered { call } => self.conclude(call),
                Event::Woken if self.woken == Some(at) => self.woken = None,
                // Another has been put before it.
                Event::Woken => continue,
            }
            self.admit();
        }
        self.made
    }

    fn enter(&mut self, lane: usize) {
        let attempt = if self.failures[lane] == 0 {
            Attempt::First
        } else {
            Attempt::Retry
        };
        let request = CallRequest::Delivery(self.origin(lane), attempt);
        let ticket = self.pace.enter(request, self.instant());
        self.line.insert(ticket, (lane, attempt, self.now));
    }

    fn origin(&self, lane: usize) -> Origin {
        let environment = self.environment(lane).to_string();
        Origin::of(&environment, &lane.to_string())
    }

    fn environment(&self, lane: usize) -> usize {
        lane % self.environments
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.scheduled += 1;
        let item = (self.now + after, self.scheduled, event);
        self.agenda.push(Reverse(item));
    }

    fn wake_at(&mut self, at: Instant) {
        let at = (at - self.start).max(self.now + Duration::from_micros(1));
        if self.woken.is_none_or(|woken| at < woken) {
            self.woken = Some(at);
            self.schedule(at - self.now, Event::Woken);
        }
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn admit(&mut self) {
        loop {
            let unit = self.chance.f64();
            match self.pace.admit(self.instant(), unit) {
                Admission::Go(ticket, admitted) => self.start(ticket, admitted),
                Admission::Wait(at) => return self.wake_at(at),
                Admission::Full => return,
            }
        }
    }

    fn start(&mut self, ticket: Ticket, admitted: AdmittedCall) {
        let (lane, attempt, wanted) = self.line.remove(&ticket).unwrap();
        assert!(
            self.now >= self.stated,
            "a call started at {:?}, before the stated {:?}",
            self.now,
            self.stated
        );
        let call = self.calls.len();
        self.calls.push(Call {
            lane,
            attempt,
            wanted,
            started: self.now,
            admitted,
            answer: None,
        });
        let way = self.vendor.way(self.now, &mut self.chance);
        self.schedule(way, Event::Arrived { call });
    }

    fn arrive(&mut self, call: usize) {
        let environment = self.environment(self.calls[call].lane);
        let answer = self.vendor.answer(environment, self.now, &mut self.chance);
        self.schedule(answer.after, Event::Answered { call });
        self.calls[call].answer = Some(answer);
    }

    fn conclude(&mut self, index: usize) {
        let call = &mut self.calls[index];
        let answer = call.answer.take().unwrap();
        let (lane, attempt, started) = (call.lane, call.attempt, call.started);
        let wanted = call.wanted;
        let origin = self.origin(lane);
        self.vendor.release(&answer);
        let feedback = Feedback {
            error: answer.error,
            wait: answer.wait(self.now),
            remaining: answer.remaining(self.now),
            ..Feedback::success(self.start + started + DISPATCH).of(&origin)
        };
        let unit = self.chance.f64();
        self.pace.observe(self.instant(), &feedback, unit);
        self.pace.leave(&self.calls[index].admitted);
        self.stated = self.stated.max(answer.stated.unwrap_or_default());
        self.made.push(Made {
            environment: self.environment(lane),
            wanted,
            started,
            ended: self.now,
            attempt,
            error: answer.error,
        });
        let rest = if answer.error.is_none() {
            self.failures[lane] = 0;
            self.rest
        } else {
            let delay = BACKOFF.delay(self.failures[lane], self.chance.f64());
            self.failures[lane] += 1;
            delay.max(feedback.wait.unwrap_or_default())
        };
        self.schedule(rest, Event::Due { lane });
    }
}

/// Plays a file with one seed and compares; returns what lies outside its range.
fn play(name: &str, scenario: &Scenario, seed: u64) -> Vec<String> {
    let made = Play::new(scenario, seed).run(scenario.seconds);
    let figures = Figures {
        made: &made,
        phases: &scenario.phase,
    };
    let judge = |expectation: &Expectation| {
        let value = figures.of(expectation);
        let line = format!("{name} (seed {seed}): {expectation} is {value:.3}");
        println!("{line}");
        (!expectation.holds(value)).then_some(line)
    };
    scenario.expect.iter().filter_map(judge).collect()
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
            outside.extend(play(name, &scenario, seed));
        }
    }
    assert!(files.len() >= 10, "scenarios are missing");
    assert!(outside.is_empty(), "\n{}", outside.join("\n"));
}
