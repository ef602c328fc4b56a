//! `UpdateDestination`: replaces some fields of a destination, and publishes the new revision.

use super::{UnaryCalls, edit::Edit, etag, idempotency::idempotency_key, mask, store_failure};
use crate::{
    clock,
    domain::{Action, Authorized, Caller, Destination, DestinationName, Etag, Manage},
    pb,
    registry::{self, IdempotencyKey},
    server::{
        check::{self, Violations},
        convert,
        status::Failure,
    },
};

/// How often an update without an etag is tried against others that come first. Ours: each
/// loss means that another update won, so a few are plenty for a form that people edit.
const TRIES: u32 = 5;

/// A request that passed its checks.
#[derive(Debug)]
struct CheckedUpdate {
    name: Authorized<DestinationName, Manage>,
    edit: Edit,
    etag: Option<Etag>,
    key: Option<IdempotencyKey>,
}

/// What an update finds.
enum UpdateTarget {
    /// The destination as the caller saw it.
    Current(Destination),
    /// The same request was carried out before; the destination as it is now.
    Done(Destination),
}

impl UnaryCalls {
    /// Updates a destination, and publishes the change to its streams.
    ///
    /// # Errors
    /// Malformed fields, no such destination, another etag, a reused request id, or the store's
    /// failure.
    pub(crate) async fn update_destination(
        &self,
        caller: &Caller,
        mut request: pb::UpdateDestinationRequest,
    ) -> Result<pb::Destination, Failure> {
        let dry_run = std::mem::take(&mut request.validate_only);
        let checked =
            check::all(|noted| check_update(caller, request, self.vendor.known_actions(), noted))?;
        if dry_run {
            self.preview_update(&checked).await
        } else {
            self.update_now(&checked).await
        }
    }

    async fn preview_update(&self, checked: &CheckedUpdate) -> Result<pb::Destination, Failure> {
        match self.find(checked).await? {
            UpdateTarget::Done(done) => Ok(convert::destination(&done)),
            UpdateTarget::Current(current) => {
                let mut preview =
                    convert::destination(&checked.edit.apply(&current, clock::now_in_micros()));
                preview.etag.clear();
                Ok(preview)
            }
        }
    }

    async fn update_now(&self, checked: &CheckedUpdate) -> Result<pb::Destination, Failure> {
        for _ in 0..TRIES {
            if let Some(updated) = self.try_update(checked).await? {
                return Ok(convert::destination(&updated));
            }
        }
        Err(Failure::Contended(DestinationName::clone(&checked.name)))
    }

    /// The updated destination; none if a concurrent update was faster.
    async fn try_update(&self, checked: &CheckedUpdate) -> Result<Option<Destination>, Failure> {
        let current = match self.find(checked).await? {
            UpdateTarget::Done(done) => return Ok(Some(done)),
            UpdateTarget::Current(current) => current,
        };
        let next = checked.edit.apply(&current, clock::now_in_micros());
        let replaced =
            self.registry
                .replace(&checked.name, next.clone(), current.revision, checked.key);
        match replaced.await {
            Ok(()) => Ok(Some(next)),
            Err(registry::Error::Conflict | registry::Error::DuplicateRequest) => Ok(None),
            Err(error) => Err(store_failure(error)),
        }
    }

    async fn find(&self, checked: &CheckedUpdate) -> Result<UpdateTarget, Failure> {
        let CheckedUpdate {
            name, etag, key, ..
        } = checked;
        // Read before recalling: the same request, if it is carried out right now, is then either
        // recalled here or found to have come first when this one writes. The other way round its
        // own new etag would be held against it.
        let current = self.read(name).await?;
        if let Some(done) = self.replay(&name.organization(), key.as_ref()).await? {
            return Ok(UpdateTarget::Done(done));
        }
        let current =
            current.ok_or_else(|| Failure::DestinationNotFound(DestinationName::clone(name)))?;
        match etag {
            Some(seen) if *seen != current.etag() => {
                Err(Failure::EtagMismatch(DestinationName::clone(name)))
            }
            _ => Ok(UpdateTarget::Current(current)),
        }
    }
}

fn check_update(
    caller: &Caller,
    mut request: pb::UpdateDestinationRequest,
    actions: &[Action],
    noted: &mut Violations,
) -> Option<CheckedUpdate> {
    let request_id = check::request_id(&std::mem::take(&mut request.request_id), noted);
    let key = idempotency_key("UpdateDestination", request_id, &request);
    let Some(mut destination) = request.destination else {
        noted.note("destination", "is required");
        return None;
    };
    let name = caller.destination(&destination.name);
    let name = noted.authorized("destination.name", name);
    let etag = etag(std::mem::take(&mut destination.etag));
    let fields = mask::fields(request.update_mask.as_ref(), &destination, noted);
    let edit = Edit::check(destination, &fields, actions, noted);
    Some(CheckedUpdate {
        name: name?,
        edit,
        etag,
        key,
    })
}
