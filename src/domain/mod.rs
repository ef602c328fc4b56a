//! The vocabulary: plain data with the rules that make it valid, and the ports through which the
//! core calls LaunchDarkly ([`SegmentClient`], [`CredentialChecker`]) and tells what happens
//! ([`Observer`]). No IO happens here.

mod action;
mod caller;
mod change;
mod context_kind;
mod credentials;
mod destination;
mod mapping;
mod name;
mod observer;
mod pattern;
mod segment;
mod transform;
mod verdict;
mod visibility;

pub use action::{ACTIVATION_CONTEXT_KIND, Action, ActionField, Choice, FieldType};
pub use caller::{
    AccessError, Authorized, Caller, Deliver, Manage, Permission, PermissionType, View,
};
pub(crate) use change::is_longer;
pub use change::{ContextKey, ContextKeys, KeyError, MAX_CONTEXT_KEY_CHARS, Operation};
pub use context_kind::{
    CONTEXT_KIND_PATTERN, ContextKind, ContextKindError, MAX_CONTEXT_KIND_CHARS,
};
pub use credentials::{
    Check, CheckKind, CheckOutcome, CredentialChecker, CredentialFacts, CredentialReport,
    CredentialsUnavailable, Finding,
};
pub use destination::{
    ClientSideId, Connection, Destination, DestinationSettings, DestinationState, DisplayName,
    Etag, Instance, Revision,
};
pub use mapping::{
    CONTEXT_KEY_FIELD, FieldMapping, Identifiers, Mapping, MappingError, RecordError, shown,
};
pub use name::{DestinationId, DestinationName, DestinationUid, NameError, OrganizationId};
pub use observer::{EndedCall, Observer, PaceState, SettledChange};
pub use pattern::Pattern;
pub use segment::{
    Attempt, CallLimits, CallOutcome, CredentialStanding, Hold, MAX_SEGMENT_ID_CHARS,
    MAX_SEGMENT_NAME_CHARS, Member, NAME_PATTERN, OperationsPerCall, Refusal, SEGMENT_ID_PATTERN,
    SegmentCall, SegmentClient, SegmentError, SegmentId, SegmentRef, Slot, TransientError,
};
pub use transform::Transform;
pub use verdict::{DeferralCause, DeliveryAttempts, Verdict};
pub use visibility::InvisibleCharacter;
