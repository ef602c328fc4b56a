//! What a caller can branch on.

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $text:literal,)+) => {
        /// Stable thing for a caller to branch on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])+ $variant,)+
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As it stands in `ErrorInfo.reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

reasons! {
    /// Fields of the request are malformed; `BadRequest` names them all.
    InvalidField = "INVALID_FIELD",
    /// A message came where the stream's rules allow another.
    StreamProtocol = "STREAM_PROTOCOL",
    /// A batch does not begin with the next sequence.
    SequenceMismatch = "SEQUENCE_MISMATCH",
    /// There is no such destination, or the caller may not know of it.
    DestinationNotFound = "DESTINATION_NOT_FOUND",
    /// The name is taken.
    DestinationExists = "DESTINATION_EXISTS",
    /// The destination was deleted while a stream delivered to it.
    DestinationDeleted = "DESTINATION_DELETED",
    /// A request id came again with another body.
    RequestIdReused = "REQUEST_ID_REUSED",
    /// The destination changed since the caller read it.
    EtagMismatch = "ETAG_MISMATCH",
    /// A newer stream of the same id took over.
    StreamSuperseded = "STREAM_SUPERSEDED",
    /// The stream was open, or idle, as long as a stream may be.
    StreamExpired = "STREAM_EXPIRED",
    /// LaunchDarkly refuses the access token, or its right to change the environment.
    CredentialsRejected = "CREDENTIALS_REJECTED",
    /// LaunchDarkly refuses the segment as such, whoever its members are.
    SegmentRejected = "SEGMENT_REJECTED",
    /// LaunchDarkly could not be asked.
    DestinationUnavailable = "DESTINATION_UNAVAILABLE",
    /// Nobody knows the caller.
    CallerUnauthenticated = "CALLER_UNAUTHENTICATED",
    /// The caller is known, and may not do this.
    PermissionDenied = "PERMISSION_DENIED",
    /// As many streams are open as may be.
    TooManyStreams = "TOO_MANY_STREAMS",
    /// This server is going away; another one will serve.
    ServerDraining = "SERVER_DRAINING",
    /// The store of destinations does not answer.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// A fault of this service.
    Internal = "INTERNAL",
    /// A record has none of the mapped identifiers.
    IdentifierMissing = "IDENTIFIER_MISSING",
    /// A record's identifier cannot be a context key.
    IdentifierInvalid = "IDENTIFIER_INVALID",
    /// LaunchDarkly refused a record.
    RejectedByDestination = "REJECTED_BY_DESTINATION",
    /// A record could not be delivered in its time.
    DeliveryTimeout = "DELIVERY_TIMEOUT",
}
