//! The opening of a stream: its first message is checked, and admitted to a lane it may write to.

use std::time::Duration;

use super::{
    context::StreamContext,
    fences::{Acquired, Lease, StreamKey},
    inbound::Received,
};
use crate::{
    delivery::{LaneHandle, LiveDestination, LiveState},
    domain::{
        ACTIVATION_CONTEXT_KIND, Action, Authorized, Caller, ContextKind, Deliver, Destination,
        DestinationName, Mapping, SegmentId, SegmentRef,
    },
    pb,
    server::{check, status::Failure, unary},
};

/// Shortest and longest delivery time-out of one record (the contract's).
const DELIVERY_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);
/// Longest `stream_id`, in bytes. Ours: it is kept in memory and shown in logs.
const MAX_STREAM_ID: usize = 256;

/// A checked `open`.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) destination: Authorized<DestinationName, Deliver>,
    pub(super) segment: SegmentRef,
    /// Replaces the destination's mapping on this stream.
    pub(super) mapping: Option<Mapping>,
    pub(super) stream_id: Option<String>,
    pub(super) delivery_timeout: Duration,
    pub(super) validate_only: bool,
}

/// What an opened stream works with.
#[derive(Debug)]
pub(super) struct AdmittedStream {
    pub(super) mapping: Mapping,
    pub(super) live: LiveDestination,
    pub(super) lane: LaneHandle,
    pub(super) lease: Option<Box<dyn Lease>>,
}

impl Opening {
    /// Checks the first message of a stream. An activation may have the fields that `actions` offer.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn check(
        caller: &Caller,
        first: Received,
        actions: &[Action],
        default_timeout: Duration,
    ) -> Result<Self, Failure> {
        match first {
            Received::Open(open) => check::all(|violations| {
                opening(caller, *open, actions, default_timeout, violations)
            }),
            Received::Batch(_) => Err(Failure::StreamProtocol(
                "the first message must be `open`, not `batch`".into(),
            )),
            Received::Nothing | Received::HalfClosed => Err(Failure::StreamProtocol(
                "the first message must be `open`".into(),
            )),
        }
    }

    /// What the stream is fenced by, if it has an id.
    fn key(&self) -> Option<StreamKey> {
        Some(StreamKey {
            organization: self.destination.organization.clone(),
            stream_id: self.stream_id.clone()?,
            dry_run: self.validate_only,
        })
    }
}

fn opening(
    caller: &Caller,
    open: pb::OpenStream,
    actions: &[Action],
    default_timeout: Duration,
    violations: &mut check::Violations,
) -> Option<Opening> {
    let destination = caller.destination(&open.destination);
    let destination = violations.authorized("open.destination", destination);
    let (segment, mapping) = match open.activation {
        Some(activation) => activated(activation, actions, violations),
        None => {
            violations.note("open.activation", "is required: it names the segment");
            (None, None)
        }
    };
    let stream_id = stream_id(open.stream_id, violations);
    let delivery_timeout = delivery_timeout(open.delivery_timeout, default_timeout, violations);
    Some(Opening {
        destination: destination?,
        segment: segment?,
        mapping,
        stream_id,
        delivery_timeout: delivery_timeout?,
        validate_only: open.validate_only,
    })
}

fn activated(
    activation: pb::Activation,
    actions: &[Action],
    violations: &mut check::Violations,
) -> (Option<SegmentRef>, Option<Mapping>) {
    let id = SegmentId::new(&activation.segment_id);
    let id = violations.ok_or_note("open.activation.segment_id", id);
    let kind = context_kind(&activation.context_kind, actions);
    let kind = violations.ok_or_note("open.activation.context_kind", kind);
    // The name is checked even under a broken id, so that both are reported at once.
    let stand_in = || SegmentId::new("x").expect("a letter is an id");
    let named = SegmentRef::new(
        id.clone().unwrap_or_else(stand_in),
        kind.clone().unwrap_or_default(),
        &activation.segment_name,
    );
    let named = violations.ok_or_note("open.activation.segment_name", named);
    let mappings = activation.field_mappings;
    let mapping = (!mappings.is_empty())
        .then(|| check::mapping(mappings, "open.activation.field_mappings", violations));
    (id.and(kind).and(named), mapping.flatten())
}

/// The kind `user` needs no place in requests: LaunchDarkly takes it where none is named.
fn context_kind(kind: &str, actions: &[Action]) -> Result<ContextKind, String> {
    if kind.is_empty() {
        return Ok(ContextKind::default());
    }
    let kind = ContextKind::new(kind).map_err(|error| error.to_string())?;
    let is_offered = Action::activation_field(actions, ACTIVATION_CONTEXT_KIND).is_some();
    if kind != ContextKind::default() && !is_offered {
        return Err(format!(
            "must be unset or `{}`: requests of the integration that this service is set to cannot \
             name another context kind",
            ContextKind::DEFAULT
        ));
    }
    Ok(kind)
}

fn stream_id(id: String, violations: &mut check::Violations) -> Option<String> {
    if id.len() > MAX_STREAM_ID || id.chars().any(char::is_control) {
        let rule = format!("must be at most {MAX_STREAM_ID} bytes without control characters");
        violations.note("open.stream_id", rule);
    }
    (!id.is_empty()).then_some(id)
}

fn delivery_timeout(
    wanted: Option<prost_types::Duration>,
    default: Duration,
    violations: &mut check::Violations,
) -> Option<Duration> {
    let Some(wanted) = wanted else {
        return Some(default);
    };
    let accepted = Duration::try_from(wanted)
        .ok()
        .filter(|d| DELIVERY_TIMEOUTS.contains(d));
    violations.ok_or_note(
        "open.delivery_timeout",
        accepted.ok_or("must be between 1 s and 1 h"),
    )
}

impl StreamContext {
    /// Opens the lane that a checked `open` asks for, once every older stream of its id has ended.
    /// Not cancel safe: a lease that was acquired must be released.
    pub(super) async fn admit(&self, opening: &Opening) -> Result<AdmittedStream, Failure> {
        let name = &opening.destination;
        let opened = self.registry.open(name).await;
        let opened = opened.map_err(unary::store_failure)?;
        let (destination, live) =
            opened.ok_or_else(|| Failure::DestinationNotFound(DestinationName::clone(name)))?;
        let (lease, has_waited) = match opening.key() {
            Some(key) => {
                let Acquired { lease, has_waited } = self.fencing.acquire(key).await?;
                (Some(lease), has_waited)
            }
            None => (None, false),
        };
        match self
            .open_lane(opening, destination, &live, has_waited)
            .await
        {
            Ok((mapping, lane)) => Ok(AdmittedStream {
                mapping,
                live,
                lane,
                lease,
            }),
            Err(failure) => {
                if let Some(lease) = lease {
                    lease.release().await;
                }
                Err(failure)
            }
        }
    }

    async fn open_lane(
        &self,
        opening: &Opening,
        mut destination: Destination,
        live: &LiveDestination,
        has_waited: bool,
    ) -> Result<(Mapping, LaneHandle), Failure> {
        let name = &opening.destination;
        if has_waited {
            usable(live, name)?;
            let now = self.registry.get(name).await;
            // Its mapping may be another one by now. If the name belongs to another destination by
            // now, the live destination says that its own is deleted.
            destination = now.map_err(unary::store_failure)?.unwrap_or(destination);
        }
        usable(live, name)?;
        let lane = self.dispatcher.open(live.clone(), &opening.segment);
        if !opening.validate_only {
            lane.rename(opening.segment.clone());
        }
        let mapping = opening.mapping.clone().unwrap_or(destination.mapping);
        Ok((mapping, lane))
    }
}

/// Whether streams may deliver through this destination.
///
/// # Errors
/// Why they may not.
pub(super) fn usable(live: &LiveDestination, name: &DestinationName) -> Result<(), Failure> {
    match live.current().1 {
        LiveState::Active(_) => Ok(()),
        LiveState::Rejected => Err(Failure::CredentialsRejected(name.clone())),
        LiveState::Deleted => Err(Failure::DestinationDeleted(name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ActionField, FieldType, Permission},
        server::status::Violation,
    };

    const DEFAULT: Duration = Duration::from_secs(300);

    fn open() -> pb::OpenStream {
        pb::OpenStream {
            destination: "organizations/acme/destinations/vip".into(),
            activation: Some(pb::Activation {
                segment_id: "vip".into(),
                segment_name: "VIP".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn check(open: pb::OpenStream) -> Result<Opening, Failure> {
        check_by(&[], open)
    }

    fn check_by(actions: &[Action], open: pb::OpenStream) -> Result<Opening, Failure> {
        Opening::check(
            &Caller::local(),
            Received::Open(Box::new(open)),
            actions,
            DEFAULT,
        )
    }

    /// An action whose requests can name a context kind.
    fn with_context_kind() -> Action {
        let field = ActionField {
            path: ACTIVATION_CONTEXT_KIND,
            display_name: "",
            description: "",
            kind: FieldType::Text,
            required: false,
            pattern: None,
            max_length: 0,
            remedy: |_| String::new(),
            placeholder: "",
            default_value: "",
            help_uri: "",
        };
        Action {
            id: "",
            display_name: "",
            description: "",
            destination_fields: vec![],
            mapping_fields: vec![],
            activation_fields: vec![field],
            operations: vec![],
        }
    }

    #[test]
    fn a_context_kind_is_taken_where_requests_can_name_it() {
        let of_kind = |kind: &str| {
            let mut open = open();
            open.activation.as_mut().unwrap().context_kind = kind.into();
            open
        };
        let actions = [with_context_kind()];
        for (actions, kind, taken) in [
            (&actions[..], "", Some("user")),
            (&actions, "user", Some("user")),
            (&actions, "account", Some("account")),
            (&actions, "multi", None),
            (&[], "", Some("user")),
            (&[], "user", Some("user")),
            (&[], "account", None),
        ] {
            let opening = check_by(actions, of_kind(kind));
            let known = opening.map(|opening| opening.segment.kind.to_string());
            assert_eq!(known.ok().as_deref(), taken, "{kind:?}");
        }
        assert_eq!(fields(of_kind("account")), ["open.activation.context_kind"]);
    }

    fn fields(open: pb::OpenStream) -> Vec<String> {
        match check(open) {
            Err(Failure::InvalidFields(violations)) => violations
                .into_iter()
                .map(|Violation { field, .. }| field)
                .collect(),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn a_good_open_gets_the_defaults() {
        let opening = check(open()).unwrap();
        assert_eq!(opening.delivery_timeout, DEFAULT);
        assert!(opening.stream_id.is_none() && opening.mapping.is_none());
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let bad = pb::OpenStream {
            destination: "vip".into(),
            activation: Some(pb::Activation {
                segment_id: "a b".into(),
                segment_name: " ".into(),
                field_mappings: vec![pb::FieldMapping::default()],
                context_kind: "a b".into(),
            }),
            stream_id: "x\n".into(),
            delivery_timeout: Some(prost_types::Duration {
                seconds: 0,
                nanos: 5,
            }),
            validate_only: false,
        };
        let named = fields(bad);
        for field in [
            "open.destination",
            "open.activation.segment_id",
            "open.activation.segment_name",
            "open.activation.context_kind",
            "open.activation.field_mappings[0].field",
            "open.activation.field_mappings[0].sources",
            "open.stream_id",
            "open.delivery_timeout",
        ] {
            assert!(
                named.iter().any(|name| name == field),
                "{field} not in {named:?}"
            );
        }
        assert_eq!(
            fields(pb::OpenStream {
                activation: None,
                ..open()
            }),
            ["open.activation"]
        );
    }

    #[test]
    fn a_caller_who_may_not_deliver_opens_nothing() {
        let viewer = Caller::with(|_, permission| permission != Permission::Deliver);
        let first = Received::Open(Box::new(open()));
        let refused = Opening::check(&viewer, first, &[], DEFAULT);
        assert_eq!(refused.unwrap_err(), Failure::PermissionDenied);
    }

    #[test]
    fn a_first_message_that_is_not_open_breaks_the_protocol() {
        let refused = Opening::check(&Caller::local(), Received::Nothing, &[], DEFAULT);
        assert!(matches!(refused, Err(Failure::StreamProtocol(_))));
    }
}
