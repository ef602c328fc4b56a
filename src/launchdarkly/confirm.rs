//! Confirmation of refusals: one query for all calls that were refused at the same time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Mutex as Turnstile, time::Instant};

use super::{credentials, hosts::Hosts, stack::Stack, throttle::IdentityDigest};
use crate::domain::{
    ClientSideId, Connection, CredentialStanding, CredentialsUnavailable, Refusal,
};

/// How long an answer about a token serves later callers: as long as a lane waits at most
/// before it tries again, so that all lanes of a token together ask about as often as one.
const TOKEN_SERVES: Duration = Duration::from_secs(2);
/// How long an answer about rights does. It may take a call for each page of environments, and
/// rights are changed by people.
const RIGHTS_SERVE: Duration = Duration::from_secs(60);

/// The queries that are being asked, and those answered a moment ago.
#[derive(Debug, Default)]
pub(super) struct Confirmations(Mutex<HashMap<QuerySubject, Arc<SharedQuery>>>);

/// The caller that holds the lock asks. The others wait for its answer.
type SharedQuery = Turnstile<Option<CachedStanding>>;

/// What a query is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct QuerySubject {
    token: IdentityDigest,
    /// Where its rights are in query; its being accepted is if there is none.
    environment: Option<ClientSideId>,
}

#[derive(Debug, Clone, Copy)]
struct CachedStanding {
    standing: CredentialStanding,
    serves_until: Instant,
}

impl QuerySubject {
    fn of(connection: &Connection, refusal: Refusal) -> Self {
        let of_rights = refusal == Refusal::Forbidden;
        Self {
            token: IdentityDigest::of_token(connection),
            environment: of_rights.then(|| connection.client_side_id.clone()),
        }
    }

    /// Asks LaunchDarkly, in the account's turn.
    async fn ask(
        &self,
        stack: &Stack,
        hosts: &Hosts,
        connection: &Connection,
    ) -> CredentialStanding {
        let good = if self.environment.is_some() {
            let report = credentials::check(stack, hosts, connection).await;
            report.map(|report| report.is_valid())
        } else {
            credentials::is_token_accepted(stack, hosts, connection).await
        };
        match good {
            Ok(true) => CredentialStanding::Good,
            Ok(false) => CredentialStanding::Refused,
            Err(CredentialsUnavailable { error, retry_after }) => {
                tracing::warn!(%error, "a refusal could not be confirmed");
                CredentialStanding::Unknown { retry_after }
            }
        }
    }

    fn serves(&self, standing: CredentialStanding) -> Duration {
        match standing {
            CredentialStanding::Good | CredentialStanding::Refused
                if self.environment.is_some() =>
            {
                RIGHTS_SERVE
            }
            _ => TOKEN_SERVES,
        }
    }
}

impl Confirmations {
    /// What LaunchDarkly says of a connection that it has refused. Cancel safe: the next in turn
    /// asks instead.
    pub(super) async fn confirm(
        &self,
        stack: &Stack,
        hosts: &Hosts,
        connection: &Connection,
        refusal: Refusal,
    ) -> CredentialStanding {
        let topic = QuerySubject::of(connection, refusal);
        let turn = self.turn(&topic);
        let mut answer = turn.lock().await;
        if let Some(known) = answer.filter(CachedStanding::serves) {
            return known.standing;
        }
        let standing = topic.ask(stack, hosts, connection).await;
        tracing::info!(?refusal, ?standing, "asked about a refusal");
        *answer = Some(CachedStanding {
            standing,
            serves_until: Instant::now() + topic.serves(standing),
        });
        standing
    }

    /// The query of a subject. Forgets queries without a waiting caller whose answers serve no more.
    fn turn(&self, topic: &QuerySubject) -> Arc<SharedQuery> {
        let mut turns = self.0.lock();
        turns.retain(|_, turn| {
            let is_of_use =
                |answer: Option<CachedStanding>| answer.is_some_and(|known| known.serves());
            Arc::strong_count(turn) > 1 || turn.try_lock().is_ok_and(|answer| is_of_use(*answer))
        });
        Arc::clone(turns.entry(topic.clone()).or_default())
    }
}

impl CachedStanding {
    fn serves(&self) -> bool {
        Instant::now() < self.serves_until
    }
}

#[cfg(test)]
mod tests;
