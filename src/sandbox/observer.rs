//! Who is told of every segment-targets call that is applied.

use std::fmt;

use super::{hidden::Hidden, segments::Order};

/// A segment-targets call as it was applied.
#[derive(Clone, Debug)]
pub struct Applied<'a> {
    /// The client-side ID that it names.
    pub environment: &'a str,
    /// The key of the segment.
    pub segment: String,
    /// Whether its members went in; else they went out.
    pub adds: bool,
    /// The members' keys, in the order sent.
    pub keys: &'a Hidden<Vec<String>>,
}

type Observer = Box<dyn Fn(&Applied<'_>) + Send + Sync>;

/// Those who are told, in the order in which they asked.
#[derive(Default)]
pub(super) struct Observers(Vec<Observer>);

impl Observers {
    pub(super) fn add(&mut self, observer: impl Fn(&Applied<'_>) + Send + Sync + 'static) {
        self.0.push(Box::new(observer));
    }

    pub(super) fn tell(&self, integration: &str, order: &Order) {
        if self.0.is_empty() {
            return;
        }
        let applied = Applied {
            environment: &order.environment,
            segment: order.segment_key(integration),
            adds: order.adds(),
            keys: &order.keys,
        };
        self.0.iter().for_each(|observer| observer(&applied));
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observers({})", self.0.len())
    }
}
