//! What happens in one simulation: drawn from its seed beforehand, as plain data.

use std::{ops::RangeInclusive, time::Duration};

use fastrand::Rng;
use http::StatusCode;
use launchdarkly_connector::{
    backoff::Backoff,
    sandbox::{
        Fault, FaultKind, FaultPlan,
        fixtures::{ADMIN_TOKEN, CUSTOM_WRITER_TOKEN, SERVICE_TOKEN, WRITER_TOKEN},
    },
};

use crate::support::{
    executor::{self, Record},
    history::Operation,
};

/// Longest time for one attempt at a call. A call that has been given up must not land later, or
/// the history could not be held to the fence: so this is longer than connecting, sending and
/// the sandbox's own delay can take together, see [`LATENCY`] and [`CALL`].
pub(super) const ATTEMPT: Duration = Duration::from_secs(1);
/// Longest way of a message through the network, in milliseconds; two of them are needed to
/// connect and call.
const LATENCY: RangeInclusive<u64> = 10..=120;
/// Longest that the sandbox takes over a call, in milliseconds; half of it is jitter.
const CALL: RangeInclusive<u64> = 0..=400;
/// How long the service stays away after it has died or left, in milliseconds: a call of its
/// last moment has landed by then.
const AWAY: RangeInclusive<u64> = 700..=1_500;
/// How much longer than four messages clients take to notice a dead connection at the most, in
/// milliseconds. They ask after half of the time and wait for the other half, which must be
/// longer than two messages take.
const PATIENCE: u64 = 400;
/// When the last trouble is over, in milliseconds; load lasts about as long.
const TROUBLE: u64 = 6_000;

/// One simulation.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) network: Network,
    pub(super) service: Service,
    pub(super) logs: Vec<Log>,
    /// In order of time.
    pub(super) steps: Vec<(Duration, Step)>,
    /// When the operator gives the destination which token, in order of time.
    pub(super) rotations: Vec<(Duration, &'static str)>,
}

/// How the network is while nothing else is told.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) fastest: Duration,
    pub(super) slowest: Duration,
    /// How soon clients notice a dead connection.
    pub(super) patience: Duration,
    /// How likely a message breaks its link, and one on a broken link mends it.
    pub(super) fails: f64,
    pub(super) mends: f64,
}

/// The settings of the service that matter.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) linger: Duration,
    pub(super) members_per_call: u16,
    pub(super) window: u32,
    pub(super) stream_age: Duration,
    pub(super) drain: Duration,
    /// How long it stays away.
    pub(super) away: Duration,
}

/// What one executor sends, and how.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) name: String,
    pub(super) records: Vec<Record>,
    pub(super) settings: executor::Settings,
    /// None is the service's default.
    pub(super) delivery_timeout: Option<Duration>,
}

/// A change of the world.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Messages between two hosts are lost.
    Cut(Link),
    /// Messages from one host to the other are lost.
    CutOneWay(Link, Way),
    /// Messages between a client and the service wait; calls must not, see [`ATTEMPT`].
    Hold {
        client: usize,
    },
    /// What waited arrives.
    Release {
        client: usize,
    },
    Mend(Link),
    /// The service dies.
    Crash,
    /// The service is asked to stop.
    Drain,
    /// The sandbox goes wrong in other ways than before.
    FaultPlan(FaultPlan),
    /// All trouble is over.
    Calm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Between a client and the service.
    Client(usize),
    /// Between the service and LaunchDarkly.
    LaunchDarkly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    ToService,
    FromService,
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let logs = draw_logs(&mut random);
        Self {
            seed,
            network: draw_network(&mut random),
            service: draw_service(&mut random),
            steps: draw_steps(&mut random, logs.len()),
            rotations: draw_rotations(&mut random),
            logs,
        }
    }
}

fn millis(random: &mut Rng, range: impl std::ops::RangeBounds<u64>) -> Duration {
    Duration::from_millis(random.u64(range))
}

fn draw_network(random: &mut Rng) -> Network {
    let slowest = random.u64(LATENCY);
    let lossy = random.bool();
    Network {
        fastest: millis(random, 1..=slowest),
        slowest: Duration::from_millis(slowest),
        // Often far quicker than a call, so that streams are fenced while their calls run.
        patience: millis(random, 4 * slowest + 60..=4 * slowest + PATIENCE),
        fails: if lossy { random.f64() * 0.02 } else { 0.0 },
        mends: 0.1 + random.f64() * 0.9,
    }
}

fn draw_service(random: &mut Rng) -> Service {
    Service {
        linger: millis(random, 0..=100),
        members_per_call: random.u16(1..=12),
        window: random.u32(8..=60),
        stream_age: millis(random, 1_000..=10_000),
        drain: millis(random, 0..=2_000),
        away: millis(random, AWAY),
    }
}

fn draw_logs(random: &mut Rng) -> Vec<Log> {
    (0..random.usize(1..=3))
        .map(|log| draw_log(random, log))
        .collect()
}

fn draw_log(random: &mut Rng, log: usize) -> Log {
    Log {
        name: format!("log-{log}"),
        records: draw_records(random, log),
        settings: executor::Settings {
            batch: [1, 2, random.usize(3..=8)][random.usize(0..3)],
            window: random.usize(4..=60),
            pause: millis(random, 10..=250),
            backoff: Backoff {
                first: Duration::from_millis(50),
                longest: Duration::from_millis(800),
            },
            // The older stream's calls end first, each within its attempt.
            open_timeout: 3 * ATTEMPT,
            // Often, since it is what fences are for.
            abandons_after: random.bool().then(|| random.u32(2..=10)),
            deadline: None,
        },
        delivery_timeout: (random.u8(0..4) == 0).then(|| millis(random, 1_000..=3_000)),
    }
}

/// Records of a few keys, which are this log's alone.
fn draw_records(random: &mut Rng, log: usize) -> Vec<Record> {
    let keys = random.usize(1..=6);
    let count = random.usize(60..=240);
    // The more operations are the opposite of the one before, the less can go wrong unseen.
    let alternates = random.f64();
    let mut next = vec![Operation::Add; keys];
    let draw = |_| {
        let key = random.usize(0..keys);
        let operation = next[key];
        if random.f64() < alternates {
            next[key] = opposite(operation);
        }
        Record {
            key: format!("{log}-{key}").into(),
            operation,
        }
    };
    (0..count).map(draw).collect()
}

fn opposite(operation: Operation) -> Operation {
    match operation {
        Operation::Add => Operation::Remove,
        Operation::Remove => Operation::Add,
    }
}

fn draw_steps(random: &mut Rng, clients: usize) -> Vec<(Duration, Step)> {
    let mut steps = vec![(Duration::ZERO, Step::FaultPlan(draw_faults(random)))];
    for _ in 0..random.usize(3..=10) {
        steps.extend(draw_trouble(random, clients));
    }
    // Stable: of two steps of one moment, the order is the drawn one.
    steps.sort_by_key(|(at, _)| *at);
    steps.push((Duration::from_millis(TROUBLE), Step::Calm));
    steps
}

fn draw_trouble(random: &mut Rng, clients: usize) -> Vec<(Duration, Step)> {
    let from = random.u64(0..TROUBLE);
    let longest = [600, 2_500][random.usize(0..2)];
    let until = (from + random.u64(100..=longest)).min(TROUBLE);
    let (from, until) = (Duration::from_millis(from), Duration::from_millis(until));
    match random.u8(0..10) {
        0..=2 => {
            let link = draw_link(random, clients);
            vec![(from, Step::Cut(link)), (until, Step::Mend(link))]
        }
        3 => {
            let link = draw_link(random, clients);
            let way = if random.bool() {
                Way::ToService
            } else {
                Way::FromService
            };
            vec![
                (from, Step::CutOneWay(link, way)),
                (until, Step::Mend(link)),
            ]
        }
        4 => {
            let client = random.usize(0..clients);
            vec![
                (from, Step::Hold { client }),
                (until, Step::Release { client }),
            ]
        }
        5..=6 => vec![(from, Step::Crash)],
        7 => vec![(from, Step::Drain)],
        _ => vec![(from, Step::FaultPlan(draw_faults(random)))],
    }
}

fn draw_link(random: &mut Rng, clients: usize) -> Link {
    match random.usize(0..=clients) {
        0 => Link::LaunchDarkly,
        client => Link::Client(client - 1),
    }
}

fn draw_faults(random: &mut Rng) -> FaultPlan {
    let slowest = random.u64(CALL).max(random.u64(CALL));
    let mut faults = Vec::new();
    for _ in 0..random.usize(0..=3) {
        let how = match random.u8(0..6) {
            0 => FaultKind::Status(StatusCode::TOO_MANY_REQUESTS),
            1 => FaultKind::Status(StatusCode::SERVICE_UNAVAILABLE),
            2 => FaultKind::Status(StatusCode::INTERNAL_SERVER_ERROR),
            3 => FaultKind::Status(StatusCode::CONFLICT),
            4 => FaultKind::Reset,
            _ => FaultKind::Hang,
        };
        let fault = Fault::new(how).at_rate(random.f64() * 0.3);
        faults.push(if random.bool() {
            fault.after_applying()
        } else {
            fault
        });
    }
    FaultPlan {
        seed: random.u64(..),
        latency_ms: slowest / 2,
        jitter_ms: slowest / 2,
        faults,
        ..FaultPlan::default()
    }
}

fn draw_rotations(random: &mut Rng) -> Vec<(Duration, &'static str)> {
    let tokens = [
        WRITER_TOKEN,
        ADMIN_TOKEN,
        SERVICE_TOKEN,
        CUSTOM_WRITER_TOKEN,
    ];
    let mut rotations: Vec<_> = (0..random.usize(0..=3))
        .map(|_| {
            (
                millis(random, 0..TROUBLE),
                tokens[random.usize(0..tokens.len())],
            )
        })
        .collect();
    rotations.sort_unstable();
    rotations
}
