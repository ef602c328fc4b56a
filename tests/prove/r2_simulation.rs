//! R2: in a simulated network, with all that can happen there, every promise is kept.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use crate::{
    figure::Figure,
    options::Size,
    sim::{self, Kept, Played},
};

const PROMISE: &str = "R2";
/// The variable that says how many seeds to play, whatever the size.
const SEEDS: &str = "SIM_SEEDS";

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    // The fewest meet each kind of trouble several times.
    let count = sim::number(SEEDS).unwrap_or(size.pick(30, 1_000));
    // Other runs have other seeds; the usual one starts with 0.
    let first = size.seed.wrapping_sub(1).wrapping_mul(count);
    let played = play(first, count);
    let stories: Vec<_> = played.iter().filter_map(Played::story).collect();
    if !stories.is_empty() {
        let failed = stories.len();
        let stories = stories.join("\n\n");
        return Err(format!("{failed} of {count} seeds failed\n\n{stories}"));
    }
    let kept = || played.iter().flat_map(|played| &played.ended);
    let sum = |figure: fn(&Kept) -> usize| kept().map(figure).sum::<usize>();
    let lasted: Duration = kept().map(|kept| kept.lasted).sum();
    Ok(vec![
        Figure::exactly(PROMISE, "violations", stories.len(), 0),
        Figure::told(PROMISE, "seeds", count),
        Figure::told(PROMISE, "streams", sum(|kept| kept.summary.streams)),
        Figure::told(PROMISE, "records", sum(|kept| kept.summary.records)),
        Figure::told(PROMISE, "sent", sum(|kept| kept.summary.sent)),
        Figure::told(
            PROMISE,
            "simulated time",
            format!("{:.0} s", lasted.as_secs_f64()),
        ),
    ])
}

/// Plays seeds from `first` on, one on each core at a time.
fn play(first: u64, count: u64) -> Vec<Played> {
    let next = AtomicU64::new(0);
    let play_some = || {
        let places = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let mine = places.take_while(|place| *place < count);
        mine.map(|place| sim::play_seed(first.wrapping_add(place)))
            .collect::<Vec<_>>()
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let playing: Vec<_> = (0..threads).map(|_| scope.spawn(play_some)).collect();
        let played = playing.into_iter().map(|playing| playing.join().unwrap());
        played.flatten().collect()
    })
}
