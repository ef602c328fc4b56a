//! The outbox: the messages beside acks that were not sent yet, in order.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::notice::{notice, wall};
use crate::{
    delivery::DeliveryHealth,
    pb::{self, send_identifiers_response::Message},
};

/// `opened`, `drain` and a notice. Bounded: a notice replaces the one before, and the others come
/// once.
pub(super) struct Outbox(VecDeque<Message>);

impl Outbox {
    /// Begins with `opened`, and with a notice unless delivery goes well.
    pub(super) fn new(opened: pb::StreamOpened, health: DeliveryHealth) -> Self {
        let mut outbox = Self(VecDeque::from([Message::Opened(opened)]));
        if health != DeliveryHealth::Delivering {
            outbox.notify(health);
        }
        outbox
    }

    /// Adds a notice. A client that does not read finds only the newest one.
    pub(super) fn notify(&mut self, health: DeliveryHealth) {
        if matches!(self.0.back(), Some(Message::Notice(_))) {
            self.0.pop_back();
        }
        self.0.push_back(Message::Notice(notice(health)));
    }

    /// Asks the client to move before this moment.
    pub(super) fn drain(&mut self, deadline: Instant) {
        let deadline = Some(wall(deadline));
        self.0.push_back(Message::Drain(pb::Drain { deadline }));
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
