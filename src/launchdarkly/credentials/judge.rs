//! Evaluation of credential checks: what the answers of LaunchDarkly prove, and what they leave
//! open.

use super::advice::{self, Advice};
use crate::{
    domain::{CheckOutcome, Instance},
    launchdarkly::{hosts::has_synced_segments, wire::TokenDetails},
};

/// What an access token may do, as far as LaunchDarkly discloses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RoleAccess {
    /// A base role that writes.
    Writes(String),
    /// A base role that only reads.
    Reads(String),
    /// A custom role or an inline policy.
    Custom,
    /// A role that is not known here.
    Unfamiliar(String),
    /// The token may not read about itself.
    Hidden,
}

impl RoleAccess {
    /// Reads the role out of a token's details.
    pub(super) fn of(details: TokenDetails) -> Self {
        if details.is_custom() {
            return Self::Custom;
        }
        match details.role {
            Some(role) => match role.as_str() {
                "writer" | "admin" | "owner" => Self::Writes(role),
                "reader" => Self::Reads(role),
                _ => Self::Unfamiliar(role),
            },
            None => Self::Hidden,
        }
    }

    /// The role's name, if it is a base role.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Writes(name) | Self::Reads(name) | Self::Unfamiliar(name) => Some(name),
            Self::Custom | Self::Hidden => None,
        }
    }

    fn sees_every_environment(&self) -> bool {
        matches!(self, Self::Writes(_) | Self::Reads(_))
    }
}

/// Whether the client-side ID is among the environments that the token may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    /// It is.
    Found,
    /// All were seen, and it is none of them.
    Absent,
    /// The token may not see them.
    Forbidden,
    /// Not all were looked through.
    Incomplete,
}

/// Whether any account has an environment of the client-side ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existence {
    /// Some account has.
    Somewhere,
    /// None has.
    Nowhere,
    /// It was not needed, or could not be found out.
    Undetermined,
}

/// Judges the client-side ID.
pub(super) fn environment(
    listing: Listing,
    existence: Existence,
    role: &RoleAccess,
) -> CheckOutcome {
    match (listing, existence) {
        (Listing::Found, _) => CheckOutcome::Passed,
        (_, Existence::Nowhere) => failed(advice::CLIENT_SIDE_ID_NOT_FOUND),
        (Listing::Absent, _) if role.sees_every_environment() => {
            failed(advice::CLIENT_SIDE_ID_NOT_IN_ACCOUNT)
        }
        (Listing::Absent | Listing::Forbidden, _) => {
            unknown(advice::CLIENT_SIDE_ID_HIDDEN_OR_ELSEWHERE)
        }
        (Listing::Incomplete, _) => unknown(advice::ENVIRONMENTS_NOT_ALL_LISTED),
    }
}

/// Judges the right to write, given the verdict on the client-side ID.
pub(super) fn writing(
    instance: Instance,
    environment: &CheckOutcome,
    role: &RoleAccess,
) -> CheckOutcome {
    if matches!(environment, CheckOutcome::Failed(_)) {
        return CheckOutcome::Skipped;
    }
    if !has_synced_segments(instance) {
        return failed(advice::SYNCED_SEGMENTS_UNAVAILABLE);
    }
    match role {
        RoleAccess::Writes(_) if *environment == CheckOutcome::Passed => CheckOutcome::Passed,
        RoleAccess::Writes(_) => unknown(advice::ENVIRONMENT_UNCONFIRMED),
        RoleAccess::Reads(_) => failed(advice::ROLE_CANNOT_WRITE),
        RoleAccess::Custom => unknown(advice::ROLE_CUSTOM),
        RoleAccess::Unfamiliar(_) => unknown(advice::ROLE_UNFAMILIAR),
        RoleAccess::Hidden => unknown(advice::ROLE_HIDDEN),
    }
}

pub(super) fn failed(advice: Advice) -> CheckOutcome {
    CheckOutcome::Failed(advice.into())
}

pub(super) fn unknown(advice: Advice) -> CheckOutcome {
    CheckOutcome::Unknown(advice.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(details: serde_json::Value) -> RoleAccess {
        RoleAccess::of(serde_json::from_value(details).unwrap())
    }

    fn writer() -> RoleAccess {
        RoleAccess::Writes("writer".into())
    }

    #[test]
    fn a_role_is_a_base_role_only_if_nothing_finer_is_set() {
        assert_eq!(role(json!({"role": "writer"})), writer());
        assert_eq!(
            role(json!({"role": "writer", "customRoleIds": [], "inlineRole": null})),
            writer()
        );
        assert_eq!(
            role(json!({"role": "admin"})),
            RoleAccess::Writes("admin".into())
        );
        assert_eq!(
            role(json!({"role": "owner"})),
            RoleAccess::Writes("owner".into())
        );
        assert_eq!(
            role(json!({"role": "reader"})),
            RoleAccess::Reads("reader".into())
        );
        assert_eq!(
            role(json!({"role": "writer", "customRoleIds": ["x"]})),
            RoleAccess::Custom
        );
        assert_eq!(
            role(json!({"inlineRole": [{"effect": "allow"}]})),
            RoleAccess::Custom
        );
        assert_eq!(
            role(json!({"role": "no_access"})),
            RoleAccess::Unfamiliar("no_access".into())
        );
        assert_eq!(role(json!({})), RoleAccess::Hidden);
    }

    #[test]
    fn nothing_is_said_about_an_environment_that_is_not_proven() {
        use Existence::*;
        let reader = RoleAccess::Reads("reader".into());
        let elsewhere = failed(advice::CLIENT_SIDE_ID_NOT_IN_ACCOUNT);
        let nowhere = failed(advice::CLIENT_SIDE_ID_NOT_FOUND);
        let hidden = unknown(advice::CLIENT_SIDE_ID_HIDDEN_OR_ELSEWHERE);
        let too_long = unknown(advice::ENVIRONMENTS_NOT_ALL_LISTED);
        for (listing, existence, role, expected) in [
            (
                Listing::Found,
                Undetermined,
                &RoleAccess::Custom,
                &CheckOutcome::Passed,
            ),
            (Listing::Absent, Nowhere, &writer(), &nowhere),
            (Listing::Forbidden, Nowhere, &RoleAccess::Custom, &nowhere),
            (Listing::Absent, Somewhere, &writer(), &elsewhere),
            (Listing::Absent, Undetermined, &reader, &elsewhere),
            (Listing::Absent, Somewhere, &RoleAccess::Custom, &hidden),
            (Listing::Absent, Somewhere, &RoleAccess::Hidden, &hidden),
            (Listing::Forbidden, Somewhere, &writer(), &hidden),
            (Listing::Incomplete, Somewhere, &writer(), &too_long),
        ] {
            let verdict = environment(listing, existence, role);
            assert_eq!(verdict, *expected, "{listing:?} {existence:?} {role:?}");
        }
    }

    #[test]
    fn writing_is_proven_only_where_role_and_environment_are() {
        let reader = RoleAccess::Reads("reader".into());
        let commercial = Instance::Commercial;
        let passed = CheckOutcome::Passed;
        let open = unknown(advice::CLIENT_SIDE_ID_HIDDEN_OR_ELSEWHERE);
        let wrong = failed(advice::CLIENT_SIDE_ID_NOT_FOUND);
        let unavailable = failed(advice::SYNCED_SEGMENTS_UNAVAILABLE);
        for (instance, environment, role, expected) in [
            (commercial, &passed, &writer(), passed.clone()),
            (
                commercial,
                &open,
                &writer(),
                unknown(advice::ENVIRONMENT_UNCONFIRMED),
            ),
            (commercial, &wrong, &writer(), CheckOutcome::Skipped),
            (
                commercial,
                &open,
                &reader,
                failed(advice::ROLE_CANNOT_WRITE),
            ),
            (
                commercial,
                &passed,
                &RoleAccess::Custom,
                unknown(advice::ROLE_CUSTOM),
            ),
            (
                commercial,
                &passed,
                &RoleAccess::Hidden,
                unknown(advice::ROLE_HIDDEN),
            ),
            (Instance::Eu, &passed, &writer(), unavailable.clone()),
            (Instance::Federal, &open, &RoleAccess::Hidden, unavailable),
        ] {
            let verdict = writing(instance, environment, role);
            assert_eq!(verdict, expected, "{instance:?} {environment:?} {role:?}");
        }
    }
}
