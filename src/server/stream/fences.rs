//! Fencing: of the streams with one `stream_id`, only the newest may write. That one holds the
//! lease. [`app`](crate::app) chooses the implementation.
//!
//! | a stream | by |
//! |---|---|
//! | supersedes the holder, and waits for its release | [`Fencing::acquire`] |
//! | holds the lease | the end of that wait, unless it was superseded meanwhile |
//! | is superseded | the next `acquire` of its key; it starts no more calls |
//! | gives the lease back | [`Lease::release`], once its last call has ended |

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
    /// any more. That takes one attempt at the longest, or one second if a stream waits for the slot
    /// of another attempt. A stream that is superseded makes no further probe of a refused call.
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
