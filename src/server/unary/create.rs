//! CreateDestination.

use super::{
    Control,
    edit::{Edit, Part, Settings},
    idempotency::idempotency_key,
    store_failure,
};
use crate::{
    clock,
    domain::{
        Action, Destination, DestinationId, DestinationName, DestinationState, DestinationUid,
        OrganizationId, Revision,
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
struct Wanted {
    organization: OrganizationId,
    /// Chosen by the caller; generated when there is none.
    id: Option<DestinationId>,
    settings: Settings,
    key: Option<IdempotencyKey>,
}

impl Control {
    /// Creates a destination, without asking LaunchDarkly: credentials are checked by
    /// [`validate_credentials`](Self::validate_credentials).
    ///
    /// # Errors
    /// Malformed fields, a taken name, a reused request id, or the store's failure.
    pub async fn create_destination(
        &self,
        mut request: pb::CreateDestinationRequest,
    ) -> Result<pb::Destination, Failure> {
        // Not part of the fingerprint: a dry run answers what the real one would.
        let dry_run = std::mem::take(&mut request.validate_only);
        let wanted = check::all(|noted| check_create(request, self.vendor.actions(), noted))?;
        let done = self
            .replay(&wanted.organization, wanted.key.as_ref())
            .await?;
        match done {
            Some(done) => Ok(convert::destination(&done)),
            None if dry_run => self.preview(wanted).await,
            None => self.keep(wanted).await,
        }
    }

    /// What would be created; the parts that only creation decides are empty.
    async fn preview(&self, wanted: Wanted) -> Result<pb::Destination, Failure> {
        let id_is_chosen = wanted.id.is_some();
        let destination = wanted.into_destination();
        if self.read(&destination.name).await?.is_some() {
            return Err(Failure::DestinationExists(destination.name));
        }
        let mut preview = convert::destination(&destination);
        if !id_is_chosen {
            preview.name.clear();
        }
        preview.uid.clear();
        preview.etag.clear();
        Ok(preview)
    }

    async fn keep(&self, wanted: Wanted) -> Result<pb::Destination, Failure> {
        let key = wanted.key;
        let destination = wanted.into_destination();
        match self.registry.create(&destination, key.as_ref()).await {
            Ok(()) => Ok(convert::destination(&destination)),
            // The same request may have won a race against this one.
            Err(registry::Error::Exists | registry::Error::DuplicateRequest) => {
                let organization = &destination.name.organization;
                let done = self.replay(organization, key.as_ref()).await?;
                let done = done.ok_or(Failure::DestinationExists(destination.name))?;
                Ok(convert::destination(&done))
            }
            Err(error) => Err(store_failure(error)),
        }
    }
}

impl Wanted {
    fn into_destination(self) -> Destination {
        let now = clock::now_in_micros();
        Destination {
            name: DestinationName {
                organization: self.organization,
                destination: self.id.unwrap_or_else(DestinationId::generate),
            },
            uid: DestinationUid::generate(),
            display_name: self.settings.display_name,
            action: self.settings.action,
            connection: self.settings.connection,
            mapping: self.settings.mapping,
            state: DestinationState::Active,
            create_time: now,
            update_time: now,
            revision: Revision::FIRST,
        }
    }
}

fn check_create(
    mut request: pb::CreateDestinationRequest,
    actions: &[Action],
    noted: &mut Violations,
) -> Option<Wanted> {
    let request_id = check::request_id(&std::mem::take(&mut request.request_id), noted);
    let key = idempotency_key("CreateDestination", request_id, &request);
    let organization = noted.keep("parent", OrganizationId::parse_parent(&request.parent));
    let id = match request.destination_id.as_str() {
        "" => None,
        id => noted.keep("destination_id", id.parse()),
    };
    let Some(destination) = request.destination else {
        noted.note("destination", "is required");
        return None;
    };
    // Output-only fields, and the name, are the server's to choose: what the caller put there is
    // ignored, so that a destination that was read can be sent back with its token.
    let settings = Edit::check(destination, Part::ALL, actions, noted).whole();
    Some(Wanted {
        organization: organization?,
        id,
        settings: settings?,
        key,
    })
}
