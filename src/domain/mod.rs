//! The words of the house: what the floors say to each other.
//!
//! Plain data and the rules that make it valid; no IO.

mod action;
mod change;
mod credentials;
mod destination;
mod mapping;
mod name;
mod pattern;
mod segment;
mod sight;

pub use action::{Action, ActionField, Choice, FieldType};
pub use change::{ContextKey, KeyError, MAX_CONTEXT_KEY_CHARS, Operation};
pub use credentials::{
    Check, CheckKind, CheckOutcome, CredentialFacts, CredentialReport, CredentialsUnavailable,
    Finding, Vendor,
};
pub use destination::{
    ClientSideId, Connection, Destination, DestinationState, DisplayName, Etag, Instance, Revision,
};
pub use mapping::{
    CONTEXT_KEY_FIELD, FieldMapping, Mapping, MappingError, RecordError, Transform, shown,
};
pub use name::{DestinationId, DestinationName, DestinationUid, NameError, OrganizationId};
pub use pattern::Pattern;
pub use segment::{
    Attempt, Delivery, MAX_SEGMENT_ID_CHARS, MAX_SEGMENT_NAME_CHARS, NAME_PATTERN, Outcome,
    Refusal, SEGMENT_ID_PATTERN, SegmentClient, SegmentError, SegmentId, SegmentRef, Slot,
    Standing, Trouble,
};
pub use sight::Unseen;
