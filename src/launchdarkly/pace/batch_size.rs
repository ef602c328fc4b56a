//! Batch size limit: how many members one call may have, learned from calls that were too large.
//!
//! LaunchDarkly publishes no limit, and a proxy in between may have one of its own. A limit that one
//! lane has met counts for all lanes of its account. After a while twice as many members are tried:
//! a limit may be raised, and one that was found with long keys is too low for short ones.

use std::time::Duration;

use tokio::time::Instant;

/// How long a limit counts before twice as many members are tried. Ours: where that is refused, it
/// costs one call in so long a time, and three to deliver its members.
const TRY_LARGER: Duration = Duration::from_secs(600);

/// The limit that is known of an account.
#[derive(Debug, Default)]
pub(super) struct BatchSizeLimit {
    known: Option<KnownLimit>,
}

#[derive(Debug)]
struct KnownLimit {
    members: usize,
    since: Instant,
}

impl BatchSizeLimit {
    /// Most members to put into a call at `now`; `None` if no limit is known.
    pub(super) fn limit(&mut self, now: Instant) -> Option<usize> {
        let known = self.known.as_mut()?;
        if known.since + TRY_LARGER <= now {
            known.members = known.members.saturating_mul(2);
            known.since = now;
        }
        Some(known.members)
    }

    /// No more than so many members seem to fit. Returns whether that is news.
    pub(super) fn learn(&mut self, members: usize, now: Instant) -> bool {
        let less = self.limit(now).is_none_or(|known| members < known);
        if less {
            let since = now;
            self.known = Some(KnownLimit { members, since });
        }
        less
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_counts_and_twice_as_many_are_tried_after_a_while() {
        let (mut size, now) = (BatchSizeLimit::default(), Instant::now());
        assert_eq!(size.limit(now), None);
        assert!(size.learn(100, now));
        assert!(!size.learn(500, now));
        assert_eq!(size.limit(now), Some(100));
        let later = now + TRY_LARGER;
        assert_eq!(size.limit(later), Some(200));
        assert!(size.learn(100, later), "that was too many");
        assert_eq!(size.limit(later + TRY_LARGER / 2), Some(100));
        assert_eq!(size.limit(later + TRY_LARGER), Some(200));
        assert_eq!(size.limit(later + 2 * TRY_LARGER), Some(400));
    }
}
