//! Streams of changes, as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, stream};
use serde_json::Value;

use super::SandboxState;
use crate::sandbox::Sandbox;

/// SDKs give a silent stream up after five minutes; proxies earlier.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// One event of a stream.
#[derive(Debug, PartialEq)]
pub(super) struct Message {
    pub(super) event: &'static str,
    pub(super) data: Value,
}

impl From<Message> for Event {
    fn from(Message { event, data }: Message) -> Self {
        Event::default().event(event).data(data.to_string())
    }
}

/// A stream of what is new since the last look. Changes between two looks become one message, so
/// a slow reader holds nothing up and nothing piles up for it.
pub(super) fn feed(
    sandbox: Sandbox,
    mut news: impl FnMut(&SandboxState) -> Vec<Message> + Send + 'static,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let activity = sandbox.0.activity.subscribe();
    let first = VecDeque::from(news(&sandbox.lock()));
    let messages = stream::unfold(
        (first, activity, news),
        move |(mut waiting, mut activity, mut news)| {
            let sandbox = sandbox.clone();
            async move {
                while waiting.is_empty() {
                    activity.changed().await.ok()?;
                    waiting.extend(news(&sandbox.lock()));
                }
                let message = waiting.pop_front()?;
                Some((Ok(message.into()), (waiting, activity, news)))
            }
        },
    );
    Sse::new(messages).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}
