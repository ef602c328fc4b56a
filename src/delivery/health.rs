//! Delivery health of a lane, as it is reported to its streams.
//!
//! | state | entered when |
//! |---|---|
//! | delivering | a call succeeds; a lane begins so |
//! | throttled | LaunchDarkly limits the rate |
//! | conflicting | calls meet nothing but conflicts for [`CONFLICT_NOTICE_DELAY`] |
//! | unreachable | a call fails in any other way that is worth a retry, or a circuit breaker is open |

use std::{fmt, time::Duration};

use tokio::{sync::watch, time::Instant};
use tracing::info;

use super::streak::Streak;
use crate::domain::{Hold, TransientError};

/// How long calls must meet nothing but conflicts until streams get a notice. Ours: one conflict by
/// itself is ordinary, and is gone after a back-off or two.
pub(super) const CONFLICT_NOTICE_DELAY: Duration = Duration::from_secs(3);

/// How delivery to the vendor goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryHealth {
    /// Calls succeed, or none were needed yet.
    Delivering,
    /// The vendor limits the rate.
    Throttled {
        /// When the next attempt is due.
        until: Instant,
    },
    /// The vendor reports nothing but conflicts with other changes of the segment.
    Conflicting {
        /// When the next attempt is due.
        until: Instant,
    },
    /// The vendor cannot be reached or fails.
    Unreachable {
        /// When the next attempt is due.
        until: Instant,
        /// What went wrong last.
        error: TransientError,
    },
}

impl DeliveryHealth {
    fn held(Hold { until, error }: Hold) -> Self {
        match error {
            TransientError::RateLimited => Self::Throttled { until },
            TransientError::Conflict => Self::Conflicting { until },
            _ => Self::Unreachable { until, error },
        }
    }

    fn is_same_state(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

impl fmt::Display for DeliveryHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wait = |until: &Instant| {
            until
                .saturating_duration_since(Instant::now())
                .as_secs_f32()
        };
        match self {
            Self::Delivering => f.write_str("going on"),
            Self::Throttled { until } => write!(f, "throttled for {:.1} s", wait(until)),
            Self::Conflicting { until } => {
                write!(f, "held up for {:.1} s by conflicts", wait(until))
            }
            Self::Unreachable { until, error } => {
                write!(f, "held up for {:.1} s, since {error}", wait(until))
            }
        }
    }
}

/// The lane's side: it reports each change of state to its streams.
#[derive(Debug)]
pub(super) struct HealthReporter {
    health: watch::Sender<DeliveryHealth>,
    last_error: Option<TransientError>,
    /// Nothing but conflicts.
    conflicts: Streak,
}

impl HealthReporter {
    pub(super) fn new(health: watch::Sender<DeliveryHealth>) -> Self {
        Self {
            health,
            last_error: None,
            conflicts: Streak::default(),
        }
    }

    /// What went wrong since the last success.
    pub(super) fn last_error(&self) -> Option<TransientError> {
        self.last_error
    }

    pub(super) fn sender(&self) -> &watch::Sender<DeliveryHealth> {
        &self.health
    }

    /// Any state → delivering: a call has succeeded.
    pub(super) fn delivering(&mut self) {
        self.last_error = None;
        self.conflicts.end();
        self.report(DeliveryHealth::Delivering);
    }

    /// Any state → the one of this error: no call of the lane starts before a moment. A conflict
    /// changes the state only once the streak of conflicts has lasted.
    pub(super) fn held(&mut self, hold: Hold) {
        self.last_error = Some(hold.error);
        if hold.error != TransientError::Conflict {
            self.conflicts.end();
        } else if self.conflicts.extend(Instant::now()) < CONFLICT_NOTICE_DELAY {
            return;
        }
        self.report(DeliveryHealth::held(hold));
    }

    fn report(&self, health: DeliveryHealth) {
        self.health.send_if_modified(|known| {
            let changed = !known.is_same_state(&health);
            if changed {
                info!("delivery is {health} now");
            }
            *known = health;
            changed
        });
    }
}
