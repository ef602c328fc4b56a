//! Where the wall clock enters.

use std::{cell::Cell, marker::PhantomData, time::SystemTime};

thread_local! {
    static STAND_IN: Cell<Option<fn() -> SystemTime>> = const { Cell::new(None) };
}

/// Reads the wall clock. Durations are measured with `tokio::time`, never with this.
#[must_use]
pub fn now() -> SystemTime {
    STAND_IN.get().map_or_else(system, |clock| clock())
}

#[expect(clippy::disallowed_methods, reason = "the one place that may")]
fn system() -> SystemTime {
    SystemTime::now()
}

/// While this lives, its thread reads another clock: for simulations, which run on one thread
/// and in a time of their own.
#[derive(Debug)]
pub struct StandIn(PhantomData<*const ()>);

impl StandIn {
    /// Makes [`now`] ask `clock` on this thread.
    #[must_use]
    pub fn new(clock: fn() -> SystemTime) -> Self {
        STAND_IN.set(Some(clock));
        Self(PhantomData)
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        STAND_IN.set(None);
    }
}

/// Milliseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn epoch_millis(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_read_on_its_own_thread_while_it_lives() {
        let stand_in = StandIn::new(|| SystemTime::UNIX_EPOCH);
        assert_eq!(now(), SystemTime::UNIX_EPOCH);
        let elsewhere = std::thread::spawn(now).join().unwrap();
        assert!(elsewhere > SystemTime::UNIX_EPOCH);
        drop(stand_in);
        assert!(now() > SystemTime::UNIX_EPOCH);
    }
}
