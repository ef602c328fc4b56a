//! What is sent: records of distinct keys, encoded before the clock runs.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use launchdarkly_connector::pb::{
    self, identifier_record::Operation, send_identifiers_request::Message as In,
};
use prost::Message;

/// Distinct keys of one stream at the least: twice the window, so that no key is sent again while
/// it still waits for a result.
const KEYS_PER_STREAM: usize = 20_000;
/// Distinct keys over all streams at the least: 200,000 a million records.
const KEYS: usize = 200_000;

/// The messages of one stream, sent over and over; each has the same number of records.
pub(crate) type Messages = Arc<[Bytes]>;

/// The messages of the stream `stream` of `streams`. One in `remove_every` records is a removal.
pub(crate) fn of_stream(
    stream: usize,
    streams: usize,
    per_message: usize,
    remove_every: Option<usize>,
) -> Messages {
    let keys = KEYS_PER_STREAM.max(KEYS / streams);
    some_of_stream(stream, keys, per_message, remove_every)
}

/// The same, with so many keys.
pub(crate) fn some_of_stream(
    stream: usize,
    keys: usize,
    per_message: usize,
    remove_every: Option<usize>,
) -> Messages {
    let keys = keys.next_multiple_of(per_message);
    let mut all = BytesMut::new();
    let mut ends = Vec::with_capacity(keys / per_message);
    for first in (0..keys).step_by(per_message) {
        let records = (first..first + per_message).map(|key| {
            let removes = remove_every.is_some_and(|every| (key + 1) % every == 0);
            pb::IdentifierRecord {
                identifiers: [("user_id".to_owned(), format!("user-{stream:05}-{key:07}"))].into(),
                operation: if removes {
                    Operation::Remove.into()
                } else {
                    Operation::Add.into()
                },
            }
        });
        let batch = pb::IdentifierBatch {
            // The next one; so a message can be sent anywhere in its stream.
            first_sequence: None,
            records: records.collect(),
        };
        request(In::Batch(batch)).encode(&mut all).unwrap();
        ends.push(all.len());
    }
    let all = all.freeze();
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let slices = starts.zip(&ends).map(|(start, end)| all.slice(start..*end));
    slices.collect()
}

/// The message that opens a stream.
pub(crate) fn opening(destination: &str, segment: usize) -> Bytes {
    let open = pb::OpenStream {
        destination: destination.into(),
        activation: Some(pb::Activation {
            segment_id: format!("segment-{segment}"),
            segment_name: format!("Segment {segment}"),
            ..Default::default()
        }),
        ..Default::default()
    };
    request(In::Open(open)).encode_to_vec().into()
}

fn request(message: In) -> pb::SendIdentifiersRequest {
    pb::SendIdentifiersRequest {
        message: Some(message),
    }
}
