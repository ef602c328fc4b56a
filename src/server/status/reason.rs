//! The table of reasons: what a caller can branch on, and the gRPC codes that go with it.

use tonic::Code;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal [$($code:ident),+],)+) => {
        /// What a caller can branch on; stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason, for tests of the tables.
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As it stands in `ErrorInfo.reason`.
            #[must_use]
            pub(crate) const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// The gRPC codes that it comes with, the usual one first.
            #[must_use]
            pub(crate) const fn codes(self) -> &'static [Code] {
                match self {
                    $(Self::$variant => &[$(Code::$code),+],)+
                }
            }
        }
    };
}

reasons! {
    /// Fields of the request are malformed; `BadRequest` names them all.
    InvalidField = "INVALID_FIELD" [InvalidArgument],
    /// A message came where the stream's rules allow another.
    StreamProtocol = "STREAM_PROTOCOL" [InvalidArgument],
    /// A batch does not begin with the next sequence.
    SequenceMismatch = "SEQUENCE_MISMATCH" [OutOfRange],
    /// There is no such destination.
    DestinationNotFound = "DESTINATION_NOT_FOUND" [NotFound],
    /// The name is taken.
    DestinationExists = "DESTINATION_EXISTS" [AlreadyExists],
    /// The destination was deleted while a stream delivered to it.
    DestinationDeleted = "DESTINATION_DELETED" [FailedPrecondition],
    /// A request id came again with another body.
    RequestIdReused = "REQUEST_ID_REUSED" [InvalidArgument],
    /// The destination changed since the caller read it.
    EtagMismatch = "ETAG_MISMATCH" [Aborted],
    /// A newer stream of the same id took over.
    StreamSuperseded = "STREAM_SUPERSEDED" [Aborted],
    /// The stream was open, or idle, as long as a stream may be; or `open` or the rest of a message
    /// did not come in time, that of a unary call too.
    StreamExpired = "STREAM_EXPIRED" [Unavailable],
    /// LaunchDarkly refuses the access token, or its right to change the environment.
    CredentialsRejected = "CREDENTIALS_REJECTED" [FailedPrecondition],
    /// LaunchDarkly refuses the segment as such, whatever its members.
    SegmentRejected = "SEGMENT_REJECTED" [FailedPrecondition],
    /// LaunchDarkly did not answer a question about credentials.
    DestinationUnavailable = "DESTINATION_UNAVAILABLE" [Unavailable],
    /// The caller may not do this.
    PermissionDenied = "PERMISSION_DENIED" [PermissionDenied],
    /// As many streams are open as may be.
    TooManyStreams = "TOO_MANY_STREAMS" [ResourceExhausted],
    /// This server is going away; another one will serve.
    ServerDraining = "SERVER_DRAINING" [Unavailable],
    /// The store of destinations does not answer.
    StoreUnavailable = "STORE_UNAVAILABLE" [Unavailable],
    /// A fault of this service.
    Internal = "INTERNAL" [Internal],
    /// A record has none of the mapped identifiers.
    IdentifierMissing = "IDENTIFIER_MISSING" [InvalidArgument],
    /// A record's identifier cannot be a context key.
    IdentifierInvalid = "IDENTIFIER_INVALID" [InvalidArgument],
    /// LaunchDarkly refused a record.
    RejectedByDestination = "REJECTED_BY_DESTINATION" [InvalidArgument],
    /// A record was not delivered within its time-out. The second code: LaunchDarkly limited the rate.
    DeliveryTimeout = "DELIVERY_TIMEOUT" [Unavailable, ResourceExhausted],
}
