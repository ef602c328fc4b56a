//! `CreateDestination`: stores a new destination once, however often its request is sent.

use super::{UnaryCalls, edit::Edit, fields::Field, idempotency::idempotency_key, store_failure};
use crate::{
    clock,
    domain::{
        Action, Authorized, Caller, DestinationId, DestinationName, DestinationSettings, Manage,
        OrganizationId,
    },
    pb,
    registry::{self, IdempotencyKey},
    server::{
        check::{self, Violations},
        convert,
        status::Failure,
    },
};

/// A request that passed its checks.
#[derive(Debug)]
struct CheckedCreate {
    organization: Authorized<OrganizationId, Manage>,
    /// Chosen by the caller; generated when there is none.
    id: Option<DestinationId>,
    settings: DestinationSettings,
    key: Option<IdempotencyKey>,
}

impl UnaryCalls {
    /// Creates a destination, without asking LaunchDarkly: credentials are checked by
    /// [`validate_credentials`](Self::validate_credentials).
    ///
    /// # Errors
    /// Malformed fields, a taken name, a reused request id, or the store's failure.
    pub(crate) async fn create_destination(
        &self,
        caller: &Caller,
        mut request: pb::CreateDestinationRequest,
    ) -> Result<pb::Destination, Failure> {
        // Not part of the fingerprint: a dry run answers what the real one would.
        let dry_run = std::mem::take(&mut request.validate_only);
        let checked =
            check::all(|noted| check_create(caller, request, self.vendor.known_actions(), noted))?;
        let done = self
            .replay(&checked.organization, checked.key.as_ref())
            .await?;
        match done {
            Some(done) => Ok(convert::destination(&done)),
            None if dry_run => self.preview(checked).await,
            None => self.store(checked).await,
        }
    }

    /// What would be created; the parts that only creation decides are empty.
    async fn preview(&self, checked: CheckedCreate) -> Result<pb::Destination, Failure> {
        let id_is_chosen = checked.id.is_some();
        let name = checked.name();
        if self.read(&name).await?.is_some() {
            return Err(Failure::DestinationExists(name.into_inner()));
        }
        let settings = checked.settings;
        let destination = settings.into_destination(name.into_inner(), clock::now_in_micros());
        let mut preview = convert::destination(&destination);
        if !id_is_chosen {
            preview.name.clear();
        }
        preview.uid.clear();
        preview.etag.clear();
        Ok(preview)
    }

    async fn store(&self, checked: CheckedCreate) -> Result<pb::Destination, Failure> {
        let name = checked.name();
        let key = checked.key.as_ref();
        match self.registry.create(&name, checked.settings, key).await {
            Ok(created) => Ok(convert::destination(&created)),
            // The same request may have won a race against this one.
            Err(registry::Error::Exists | registry::Error::DuplicateRequest) => {
                let done = self.replay(&checked.organization, key).await?;
                let done = done.ok_or_else(|| Failure::DestinationExists(name.into_inner()))?;
                Ok(convert::destination(&done))
            }
            Err(error) => Err(store_failure(error)),
        }
    }
}

impl CheckedCreate {
    fn name(&self) -> Authorized<DestinationName, Manage> {
        let id = self.id.clone();
        self.organization
            .destination(id.unwrap_or_else(DestinationId::generate))
    }
}

fn check_create(
    caller: &Caller,
    mut request: pb::CreateDestinationRequest,
    actions: &[Action],
    noted: &mut Violations,
) -> Option<CheckedCreate> {
    let request_id = check::request_id(&std::mem::take(&mut request.request_id), noted);
    let key = idempotency_key("CreateDestination", request_id, &request);
    let organization = caller.organization(&request.parent);
    let organization = noted.authorized("parent", organization);
    let id = match request.destination_id.as_str() {
        "" => None,
        id => noted.ok_or_note("destination_id", id.parse()),
    };
    let Some(destination) = request.destination else {
        noted.note("destination", "is required");
        return None;
    };
    // Output-only fields, and the name, are the server's to choose: what the caller put there is
    // ignored, so that a destination that was read can be sent back with its token.
    let settings = Edit::check(destination, Field::ALL, actions, noted).whole();
    Some(CheckedCreate {
        organization: organization?,
        id,
        settings: settings?,
        key,
    })
}
