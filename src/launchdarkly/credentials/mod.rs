//! Credential check: three checks in order, and the facts that they find.
//!
//! | check | passes when |
//! |---|---|
//! | access token | LaunchDarkly answers `caller-identity` for it |
//! | client-side ID | one of the environments that the token may see has this ID |
//! | write permission | the token's base role writes, in that environment, on an instance that has synced segments |
//!
//! A check after a failed one is skipped. There is one exception: a client-side ID with a wrong
//! format is reported even if the token has failed, since that needs no call ([`mistakes`]). So two
//! wrong fields are marked at once. A token with a wrong format is never sent.

pub mod advice;
pub(super) mod format;
mod judge;
mod lookup;
pub(super) mod mistakes;
mod search;

use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use self::{
    advice::Advice,
    judge::{Existence, Listing, RoleAccess, failed, unknown},
    lookup::{Lookup, Reported},
    search::{SearchPosition, search},
};
use super::{hosts::Hosts, stack::Stack, wire::CallerIdentity};
use crate::domain::{
    Check, CheckKind, CheckOutcome, Connection, CredentialFacts, CredentialReport,
    CredentialsUnavailable,
};

/// Longest time of all checks together: a user waits before a form.
const DEADLINE: Duration = Duration::from_secs(20);

const TOKEN_FIELD: &str = "launch_darkly.access_token";
const CLIENT_SIDE_ID_FIELD: &str = "launch_darkly.client_side_id";
const INSTANCE_FIELD: &str = "launch_darkly.instance";

/// Whether LaunchDarkly accepts the token: the first of the checks by itself.
pub(super) async fn is_token_accepted(
    stack: &Stack,
    hosts: &Hosts,
    connection: &Connection,
) -> Result<bool, CredentialsUnavailable> {
    if mistakes::access_token(&connection.access_token).is_some() {
        return Ok(false);
    }
    let identity = lookup(stack, hosts, connection).identity().await?;
    Ok(matches!(identity, Reported::This(_)))
}

fn lookup<'a>(stack: &'a Stack, hosts: &'a Hosts, connection: &'a Connection) -> Lookup<'a> {
    Lookup {
        stack,
        hosts,
        connection,
        deadline: Instant::now() + DEADLINE,
    }
}

/// Checks credentials.
pub(super) async fn check(
    stack: &Stack,
    hosts: &Hosts,
    connection: &Connection,
) -> Result<CredentialReport, CredentialsUnavailable> {
    let lookup = lookup(stack, hosts, connection);
    let malformed_id = mistakes::client_side_id(&connection.client_side_id);
    if let Some(malformed) = mistakes::access_token(&connection.access_token) {
        return Ok(without_environment(failed(malformed), malformed_id));
    }
    let identity = match (lookup.identity().await, malformed_id) {
        (Ok(Reported::This(identity)), _) => identity,
        (Ok(Reported::Denied(status)), _) => {
            return Ok(without_environment(refused(status), malformed_id));
        }
        // One field is known to be wrong: saying so serves better than asking to come back.
        (Err(_), Some(_)) => {
            return Ok(without_environment(
                unknown(advice::TOKEN_NOT_CHECKED),
                malformed_id,
            ));
        }
        (Err(error), None) => return Err(error),
    };
    if malformed_id.is_some() {
        let report = without_environment(CheckOutcome::Passed, malformed_id);
        return Ok(CredentialReport {
            facts: facts_of(&identity),
            ..report
        });
    }
    examine(&lookup, identity).await
}

/// The report of a check that does not get as far as the environment.
fn without_environment(token: CheckOutcome, malformed_id: Option<Advice>) -> CredentialReport {
    let client_side_id = malformed_id.map_or(CheckOutcome::Skipped, failed);
    report(token, client_side_id, CheckOutcome::Skipped)
}

fn refused(status: StatusCode) -> CheckOutcome {
    failed(match status {
        StatusCode::FORBIDDEN => advice::TOKEN_FORBIDDEN,
        _ => advice::TOKEN_REJECTED,
    })
}

/// Checks the environment and the right to write in it, for a token that is accepted.
async fn examine(
    lookup: &Lookup<'_>,
    identity: CallerIdentity,
) -> Result<CredentialReport, CredentialsUnavailable> {
    let role = lookup.role(identity.token_id.as_deref()).await?;
    let (listing, place) = locate(lookup, &identity).await?;
    let existence = match listing {
        Listing::Found => Existence::Undetermined,
        _ => lookup.existence().await?,
    };
    let client_side_id = judge::environment(listing, existence, &role);
    let writing = judge::writing(lookup.connection.instance, &client_side_id, &role);
    Ok(CredentialReport {
        facts: facts(&identity, &role, place),
        ..report(CheckOutcome::Passed, client_side_id, writing)
    })
}

/// Finds the environment among those that the token may see. LaunchDarkly tells the environment of
/// some tokens; if that is the one that is wanted, there is no search.
async fn locate(
    lookup: &Lookup<'_>,
    identity: &CallerIdentity,
) -> Result<(Listing, Option<SearchPosition>), CredentialsUnavailable> {
    let wanted = lookup.connection.client_side_id.as_str();
    if identity.environment_id.as_deref() == Some(wanted) {
        let own = SearchPosition {
            project_key: None,
            project_name: identity.project_name.clone(),
            environment_key: None,
            environment_name: identity.environment_name.clone(),
        };
        Ok((Listing::Found, Some(own)))
    } else {
        search(lookup).await
    }
}

fn report(
    token: CheckOutcome,
    client_side_id: CheckOutcome,
    writing: CheckOutcome,
) -> CredentialReport {
    let check = |kind, outcome, field| Check {
        kind,
        outcome,
        field,
    };
    let writing_field = match &writing {
        CheckOutcome::Failed(finding)
            if finding.reason == advice::SYNCED_SEGMENTS_UNAVAILABLE.reason =>
        {
            INSTANCE_FIELD
        }
        _ => TOKEN_FIELD,
    };
    CredentialReport {
        checks: vec![
            check(CheckKind::AccessToken, token, TOKEN_FIELD),
            check(
                CheckKind::ClientSideId,
                client_side_id,
                CLIENT_SIDE_ID_FIELD,
            ),
            check(CheckKind::WritePermission, writing, writing_field),
        ],
        facts: CredentialFacts::default(),
    }
}

fn facts(
    identity: &CallerIdentity,
    role: &RoleAccess,
    place: Option<SearchPosition>,
) -> CredentialFacts {
    let mut facts = CredentialFacts {
        token_role: role.name().map(str::to_owned),
        ..facts_of(identity)
    };
    if let Some(place) = place {
        facts.project_key = place.project_key;
        facts.project_name = place.project_name;
        facts.environment_key = place.environment_key;
        facts.environment_name = place.environment_name;
    }
    facts
}

fn facts_of(identity: &CallerIdentity) -> CredentialFacts {
    CredentialFacts {
        account_id: identity.account_id.clone(),
        token_name: identity.token_name.clone(),
        service_token: identity.service_token,
        ..CredentialFacts::default()
    }
}

#[cfg(test)]
mod tests;
