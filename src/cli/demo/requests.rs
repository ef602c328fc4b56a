//! The requests of the demo.

use std::time::Duration;

use tonic::{Request, Status};

use super::{DESTINATION, PARENT, SEGMENT_ID};
use crate::{
    cli::remote,
    pb::{self, destination::Config, field_mapping::Transform},
    sandbox::fixtures,
};

/// Everything is on this machine: a call that takes longer hangs.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn creation() -> pb::CreateDestinationRequest {
    pb::CreateDestinationRequest {
        parent: PARENT.into(),
        destination_id: "launchdarkly".into(),
        destination: Some(destination()),
        ..pb::CreateDestinationRequest::default()
    }
}

pub(super) fn credentials(token: &str) -> pb::LaunchDarklyConfig {
    pb::LaunchDarklyConfig {
        access_token: token.into(),
        client_side_id: fixtures::CLIENT_SIDE_ID.into(),
        ..pb::LaunchDarklyConfig::default()
    }
}

fn destination() -> pb::Destination {
    pb::Destination {
        display_name: "LaunchDarkly sandbox".into(),
        action: "send-identifiers".into(),
        config: Some(Config::LaunchDarkly(credentials(fixtures::WRITER_TOKEN))),
        field_mappings: vec![pb::FieldMapping {
            field: "context_key".into(),
            sources: vec!["user_id".into(), "email".into()],
            transforms: vec![Transform::Trim.into(), Transform::Lowercase.into()],
        }],
        ..pb::Destination::default()
    }
}

pub(super) fn open_stream() -> pb::OpenStream {
    pb::OpenStream {
        destination: DESTINATION.into(),
        activation: Some(pb::Activation {
            segment_id: SEGMENT_ID.into(),
            segment_name: "Very important people".into(),
            context_kind: String::new(),
            field_mappings: vec![],
        }),
        stream_id: "demo".into(),
        ..pb::OpenStream::default()
    }
}

pub(super) fn call<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

pub(super) fn said(status: Status) -> anyhow::Error {
    anyhow::anyhow!(remote::describe(&status))
}
