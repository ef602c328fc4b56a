//! The words of the house: what the floors say to each other.
//!
//! Plain data and the rules that make it valid; no IO.

mod action;
mod change;
mod credentials;
mod destination;
mod mapping;
mod name;
mod segment;

pub use action::{Action, ActionField, Choice, FieldType};
pub use change::{ContextKey, KeyError, MAX_CONTEXT_KEY_BYTES, Operation};
pub use credentials::{
    Check, CheckKind, CheckOutcome, CredentialFacts, CredentialReport, CredentialsUnavailable,
    Finding, Vendor,
};
pub use destination::{
    ClientSideId, Connection, Destination, DestinationState, DisplayName, Etag, Instance,
    MAX_ACCESS_TOKEN_BYTES, MAX_CLIENT_SIDE_ID_BYTES, Revision,
};
pub use mapping::{
    CONTEXT_KEY_FIELD, FieldMapping, Mapping, MappingError, RecordError, Transform, shown,
};
pub use name::{DestinationId, DestinationName, DestinationUid, NameError, OrganizationId};
pub use segment::{
    Attempt, Delivery, Outcome, Refusal, SEGMENT_ID_PATTERN, SegmentClient, SegmentError,
    SegmentId, SegmentRef, Slot, Standing, Trouble,
};
