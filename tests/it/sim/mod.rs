//! The service in a simulated network: latency, loss, partitions, crashes, and a time of its own.
//!
//! The real service, executors that resume, an operator who rotates tokens, and the sandbox each
//! live on a host of their own. Only two things are stood in for: the sockets, on both sides of
//! the service, and the database, whose stand-in passes the suite of all stores and outlives
//! crashes. A seed draws a [`plan`], which [`world`] plays over the simulated [`network`]; then
//! the history is judged.
//!
//! A seed that fails is printed, and fails again in the same way:
//!
//! ```text
//! SIM_SEED=17 cargo test --test it sim::replays -- --nocapture
//! SIM_SEEDS=1000 cargo test --test it sim::thirty_seeds -- --nocapture
//! ```
//!
//! For that, everything that is drawn comes from the seed: plan, network, service and clients.
//! What tokio draws can be seeded under `--cfg tokio_unstable` alone, which `.cargo/config.toml`
//! sets; with flags of another kind seeds are still judged, and may not repeat exactly.
//!
//! # What it does not show
//!
//! A call that was given up and still lands later is nothing that the service promises to
//! prevent. The times of the network, the sandbox and the service are such that it cannot
//! happen; see the constants of [`plan`].

mod network;
mod plan;
mod world;

use std::{
    any::Any,
    env,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use plan::Plan;
use world::{Kept, play};

use crate::support::history::History;

/// The variable that names the seed to replay.
const SEED: &str = "SIM_SEED";
/// The variable that says how many seeds to run.
const SEEDS: &str = "SIM_SEEDS";
/// Enough to meet each kind of trouble several times, and done within a minute.
const USUAL_SEEDS: u64 = 30;
/// When a simulation counts as hung, in real time: hundreds of times what one takes. Its own
/// time has a bound too, which does not hold against a task that never rests.
const PATIENCE: Duration = Duration::from_secs(120);

/// A simulation that is over.
struct Played {
    seed: u64,
    history: History,
    ended: Result<Kept, String>,
}

impl Played {
    /// What went wrong, and how to see it again.
    fn story(&self) -> Option<String> {
        let why = self.ended.as_ref().err()?;
        let seed = self.seed;
        Some(format!(
            "seed {seed}: {why}\n\
             see it again: {SEED}={seed} cargo test --test it sim::replays -- --nocapture"
        ))
    }
}

/// Plays a seed on a thread of its own: what a thread has drawn before must not matter.
fn play_seed(seed: u64) -> Played {
    let history = History::default();
    let (ended, end) = mpsc::channel();
    let recorded = history.clone();
    // Nobody waits longer than the time-out; one that hangs ends with the process.
    let playing = thread::spawn(move || ended.send(play(&Plan::draw(seed), &recorded)));
    let ended = match end.recv_timeout(PATIENCE) {
        Ok(ended) => ended,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("not done within {PATIENCE:?}")),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(match playing.join() {
            Err(panic) => format!("it panicked: {}", words(&*panic)),
            Ok(_) => unreachable!("it sends before it ends"),
        }),
    };
    Played {
        seed,
        history,
        ended,
    }
}

fn words(panic: &dyn Any) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("without words")
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn thirty_seeds_keep_every_promise() {
    let seeds = number(SEEDS).unwrap_or(USUAL_SEEDS);
    let next = AtomicU64::new(0);
    let play_some = || {
        let seeds = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed))
            .take_while(|seed| *seed < seeds);
        seeds.map(play_seed).collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let played: Vec<_> = thread::scope(|scope| {
        let playing: Vec<_> = (0..threads).map(|_| scope.spawn(play_some)).collect();
        let played = playing.into_iter().map(|playing| playing.join().unwrap());
        played.flatten().collect()
    });
    let stories: Vec<_> = played.iter().filter_map(Played::story).collect();
    let kept = || {
        played
            .iter()
            .filter_map(|played| played.ended.as_ref().ok())
    };
    let lasted: Duration = kept().map(|kept| kept.lasted).sum();
    let streams: usize = kept().map(|kept| kept.summary.streams).sum();
    let sent: usize = kept().map(|kept| kept.summary.sent).sum();
    println!("{seeds} seeds: {lasted:?} of simulated time, {streams} streams, {sent} records sent");
    assert!(
        stories.is_empty(),
        "{} of {seeds} seeds failed\n\n{}",
        stories.len(),
        stories.join("\n\n")
    );
}

#[test]
fn replays_a_seed() {
    let seed = number(SEED).unwrap_or(0);
    let played = play_seed(seed);
    println!("{:#?}\n\n{}", Plan::draw(seed), played.history);
    match &played.ended {
        Ok(kept) => println!("{kept:#?}"),
        Err(_) => panic!("{}", played.story().unwrap()),
    }
}

/// Hash maps are seeded anew in each thread, so that their order shows if it matters.
#[cfg(tokio_unstable)]
#[test]
fn the_same_seed_gives_the_same_history_twice() {
    for seed in 0..8 {
        let (one, other) = (play_seed(seed), play_seed(seed));
        // Two that hang from the start have the same history.
        for played in [&one, &other] {
            assert!(played.ended.is_ok(), "{}", played.story().unwrap());
        }
        let (events, others) = (one.history.events(), other.history.events());
        let differs = events
            .iter()
            .zip(&others)
            .position(|(one, other)| one != other);
        if let Some(at) = differs {
            let (event, other) = (&events[at], &others[at]);
            panic!("seed {seed} differs at event {at}: {event}, and {other}");
        }
        assert_eq!(events.len(), others.len(), "seed {seed}");
    }
}
