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
//! ```
//!
//! Many seeds are played by `tests/prove/r2_simulation.rs`.
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

use std::{any::Any, env, sync::mpsc, thread, time::Duration};

use plan::Plan;
use world::play;

use crate::support::history::History;

pub(crate) use world::Kept;

/// The variable that names the seed to replay.
const SEED: &str = "SIM_SEED";
/// When a simulation counts as hung, in real time: hundreds of times what one takes. Its own
/// time has a bound too, which does not hold against a task that never rests.
const PATIENCE: Duration = Duration::from_secs(120);

/// A simulation that is over.
pub(crate) struct Played {
    seed: u64,
    history: History,
    pub(crate) ended: Result<Kept, String>,
}

impl Played {
    /// What went wrong, and how to see it again.
    pub(crate) fn story(&self) -> Option<String> {
        let why = self.ended.as_ref().err()?;
        let seed = self.seed;
        Some(format!(
            "seed {seed}: {why}\n\
             see it again: {SEED}={seed} cargo test --test it sim::replays -- --nocapture"
        ))
    }
}

/// Plays a seed on a thread of its own: what a thread has drawn before must not matter.
pub(crate) fn play_seed(seed: u64) -> Played {
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

/// The number in an environment variable, if it is set.
pub(crate) fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

#[test]
fn replays_a_seed() {
    let seed = number(SEED).unwrap_or(0);
    let played = play_seed(seed);
    println!("{:#?}\n\n{}", Plan::draw(seed), played.history);
    match &played.ended {
        Ok(kept) => println!("{:?} of simulated time, {:#?}", kept.lasted, kept.summary),
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
