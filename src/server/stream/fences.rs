//! Fencing: of the streams with one `stream_id`, only the newest may write. That one holds the
//! lease. [`app`](crate::app) chooses the implementation.
//!
//! | what happens to a stream | when |
//! |---|---|
//! | it supersedes the holder of the lease, and waits for its release | it calls [`Fencing::acquire`] |
//! | it gets the lease | that wait is over, unless a newer stream has superseded it meanwhile |
//! | it is superseded, and starts no more calls | a newer stream calls `acquire` with its key |
//! | it gives the lease back, by [`Lease::release`] | its last call has ended |

use std::fmt;

use async_trait::async_trait;

use crate::{domain::OrganizationId, server::status::Failure};

mod in_process;

pub(crate) use in_process::InProcessFences;

/// What is fenced. Ids of different organizations never meet. A dry run writes nothing, and must
/// not end the stream that does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(super) organization: OrganizationId,
    pub(super) stream_id: String,
    pub(super) dry_run: bool,
}

/// Grants leases.
#[async_trait]
pub(crate) trait Fencing: fmt::Debug + Send + Sync + 'static {
    /// Supersedes the streams of this key, and waits until nothing of them can reach LaunchDarkly
    /// any more. That takes the rest of an attempt that is under way, and up to a second after it
    /// if the call was refused: its lane then waits for another slot or a confirmation, and looks
    /// once a second whether a stream still needs the result. A superseded stream makes no further
    /// attempt.
    ///
    /// # Errors
    /// A newer stream has superseded this one.
    async fn acquire(&self, key: StreamKey) -> Result<Acquired, Failure>;
}

/// A lease, and how it was acquired.
#[derive(Debug)]
pub(crate) struct Acquired {
    pub(super) lease: Box<dyn Lease>,
    /// Whether it had to be waited for.
    pub(super) has_waited: bool,
}

/// A stream's right to write. The stream must [release](Self::release) it: a lease that is dropped
/// instead may stay taken for a while, as it may be kept outside this process.
#[async_trait]
pub(crate) trait Lease: fmt::Debug + Send + Sync {
    /// What it is a lease of.
    fn key(&self) -> &StreamKey;

    /// Waits until a newer stream takes over. Cancel safe.
    async fn superseded(&self);

    /// Gives the lease back: nothing of this stream can reach LaunchDarkly any more.
    async fn release(self: Box<Self>);
}
