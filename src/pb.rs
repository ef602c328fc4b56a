//! Protocol buffers: the generated types of the contract, and the descriptor set for reflection.

use std::fmt;

#[allow(missing_docs, unreachable_pub, clippy::all)]
mod generated {
    tonic::include_proto!("cdp.destinations.v1");
}
pub use generated::*;

/// The server of the contract, to which batches come as they are encoded: [`batch`] reads them.
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod intake {
    include!(concat!(env!("OUT_DIR"), "/intake/cdp.destinations.v1.rs"));
}
pub mod batch;

/// Encoded descriptors of this contract, of what it imports, and of `google.rpc`'s error details.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.binpb"));

impl fmt::Debug for LaunchDarklyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaunchDarklyConfig")
            .field("access_token", &"[redacted]")
            .field("client_side_id", &self.client_side_id)
            .field("instance", &self.instance())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for intake::SendIdentifiersRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendIdentifiersRequest")
            .field("open", &self.open)
            .field("batch", &format_args!("[{} redacted]", self.batch.len()))
            .finish()
    }
}

impl fmt::Debug for IdentifierRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifierRecord")
            .field(
                "identifiers",
                &format_args!("[{} redacted]", self.identifiers.len()),
            )
            .field("operation", &self.operation())
            .finish()
    }
}
