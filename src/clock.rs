//! The wall clock: the only module that reads it.

use std::time::{Duration, SystemTime};

#[cfg(any(test, feature = "testing"))]
pub use stand_in::StandIn;

/// Reads the wall clock. Durations are measured with `tokio::time`, never with this.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that may")]
pub fn now() -> SystemTime {
    #[cfg(any(test, feature = "testing"))]
    if let Some(now) = stand_in::now() {
        return now;
    }
    SystemTime::now()
}

/// [`now`] in whole microseconds, which is what stores keep: what a call answers is then what a
/// later one reads back.
#[must_use]
pub fn now_in_micros() -> SystemTime {
    whole_micros(now())
}

fn whole_micros(at: SystemTime) -> SystemTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let surplus = Duration::from_nanos((since.subsec_nanos() % 1_000).into());
    SystemTime::UNIX_EPOCH + (since - surplus)
}

/// Milliseconds since the Unix epoch; 0 before it.
#[must_use]
pub fn epoch_millis(at: SystemTime) -> i64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(any(test, feature = "testing"))]
mod stand_in {
    use std::{cell::Cell, marker::PhantomData, time::SystemTime};

    thread_local! {
        static CLOCK: Cell<Option<fn() -> SystemTime>> = const { Cell::new(None) };
    }

    pub(super) fn now() -> Option<SystemTime> {
        CLOCK.get().map(|clock| clock())
    }

    /// While this lives, its thread reads another clock: for simulations, which run on one thread
    /// and in a time of their own.
    #[derive(Debug)]
    pub struct StandIn(PhantomData<*const ()>);

    impl StandIn {
        /// Makes [`now`](super::now) ask `clock` on this thread.
        #[must_use]
        pub fn new(clock: fn() -> SystemTime) -> Self {
            CLOCK.set(Some(clock));
            Self(PhantomData)
        }
    }

    impl Drop for StandIn {
        fn drop(&mut self) {
            CLOCK.set(None);
        }
    }
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
