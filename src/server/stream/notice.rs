//! Notices: the health of delivery, as a message for people.

use tokio::time::Instant;

use crate::{
    clock,
    delivery::DeliveryHealth,
    pb::{self, notice::State},
};

/// The notice of a state of delivery.
pub(super) fn notice(health: DeliveryHealth) -> pb::Notice {
    let (state, until, message) = match health {
        DeliveryHealth::Delivering => (State::Delivering, None, "delivering".to_owned()),
        DeliveryHealth::Throttled { until } => {
            let message = "LaunchDarkly limits the rate of calls; delivery goes on at its pace";
            (State::Throttled, Some(until), message.to_owned())
        }
        DeliveryHealth::Conflicting { until } => {
            let message = "LaunchDarkly reports nothing but conflicts (409) with other changes of \
                           the segment; the server keeps trying";
            (State::Conflicting, Some(until), message.to_owned())
        }
        DeliveryHealth::Unreachable { until, error } => (
            State::Unreachable,
            Some(until),
            format!("{error}; the server keeps trying"),
        ),
    };
    pb::Notice {
        state: state.into(),
        retry_time: until.map(wall),
        message,
    }
}

/// The wall-clock time of an instant.
pub(super) fn wall(at: Instant) -> prost_types::Timestamp {
    (clock::now() + at.saturating_duration_since(Instant::now())).into()
}
