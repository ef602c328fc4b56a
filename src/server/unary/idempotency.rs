//! Idempotent requests: each takes effect once, however often it is sent.

use aws_lc_rs::digest;
use prost::Message;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{UnaryCalls, store_failure};
use crate::{
    domain::{Authorized, Destination, Manage, OrganizationId},
    registry::{Fingerprint, IdempotencyKey},
    server::status::Failure,
};

/// The key of a request. `body` is the same for the same request: it comes without its
/// `request_id`, which can be written in several ways, and no message that has a key holds a map,
/// whose order would differ.
pub(super) fn idempotency_key(
    method: &str,
    request_id: Option<Uuid>,
    body: &impl Message,
) -> Option<IdempotencyKey> {
    request_id.map(|request_id| IdempotencyKey {
        request_id,
        fingerprint: fingerprint(method, body),
    })
}

fn fingerprint(method: &str, body: &impl Message) -> Fingerprint {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(method.as_bytes());
    hash.update(&[0]);
    // The body holds a token: wiped after use.
    hash.update(&Zeroizing::new(body.encode_to_vec()));
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Fingerprint(bytes)
}

impl UnaryCalls {
    /// The destination of a request that was carried out before, as it is now; none if this is the
    /// first time.
    pub(super) async fn replay(
        &self,
        organization: &Authorized<OrganizationId, Manage>,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<Destination>, Failure> {
        let Some(key) = key else { return Ok(None) };
        let found = self
            .registry
            .find_request(organization, key.request_id)
            .await;
        let Some(done) = found.map_err(store_failure)? else {
            return Ok(None);
        };
        if done.fingerprint != key.fingerprint {
            return Err(Failure::RequestIdReused);
        }
        let name = organization.destination(done.name.destination);
        let found = self.read(&name).await?;
        match found.filter(|found| found.uid == done.uid) {
            Some(found) => Ok(Some(found)),
            None => Err(Failure::DestinationDeletedSince(name.into_inner())),
        }
    }
}
