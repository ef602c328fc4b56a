//! A destination whose credentials were refused is active again once nothing speaks against them.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{Control, stamp, store_failure, to_its_end};
use crate::{
    delivery::LiveState,
    domain::{Destination, DestinationState, DestinationUid, Revision},
    server::status::Failure,
};

/// What came of asking again about a destination whose credentials were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is active, from this revision on.
    Active(Revision),
    /// A check fails.
    StillRefused,
    /// It is gone, or was changed meanwhile.
    Moot,
    /// LaunchDarkly, or the store, could not be asked.
    Unknown {
        /// How long LaunchDarkly asked to wait.
        retry_after: Option<Duration>,
    },
}

impl Control {
    /// Asks again about a destination whose credentials were refused, and makes it active if no
    /// check of them fails.
    pub async fn ask_again(&self, uid: DestinationUid) -> Again {
        let unknown = Again::Unknown { retry_after: None };
        let found = match self.store.find(uid).await {
            Ok(Some(found)) if found.state == DestinationState::CredentialsRejected => found,
            Ok(_) => return Again::Moot,
            Err(error) => {
                store_failure(error);
                return unknown;
            }
        };
        match self.vendor.check_credentials(&found.connection).await {
            Ok(report) if report.is_valid() => match self.revive(found).await {
                Ok(Some(revision)) => Again::Active(revision),
                Ok(None) => Again::Moot,
                Err(_) => unknown,
            },
            Ok(_) => Again::StillRefused,
            Err(error) => {
                warn!(destination = %found.name, %error, "a refused destination is asked about later");
                Again::Unknown {
                    retry_after: error.retry_after,
                }
            }
        }
    }

    /// Makes a destination active that is still as it was found, with its credentials refused, and
    /// tells its streams; its new revision, if so.
    pub(super) async fn revive(&self, found: Destination) -> Result<Option<Revision>, Failure> {
        if found.state != DestinationState::CredentialsRejected {
            return Ok(None);
        }
        let control = self.clone();
        to_its_end(async move {
            let (uid, seen) = (found.uid, found.revision);
            let active = DestinationState::Active;
            let changed = control.store.set_state(uid, seen, active, stamp()).await;
            if !changed.map_err(store_failure)? {
                return Ok(None);
            }
            let state = LiveState::Active(Arc::new(found.connection));
            control.live.publish(uid, seen.next(), state);
            info!(destination = %found.name, "credentials are no longer refused");
            Ok(Some(seen.next()))
        })
        .await
    }
}
