//! Confirmation of refusals: one query for all calls that were refused at the same time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, time::Instant};

use super::{credentials, hosts::Hosts, stack::Stack, throttle::IdentityDigest};
use crate::domain::{
    ClientSideId, Connection, CredentialStanding, CredentialsUnavailable, Refusal,
};

/// Time to live of an answer about a token: the longest back-off of a lane, so that all lanes of a
/// token together ask about as often as one.
const TOKEN_TTL: Duration = Duration::from_secs(2);
/// Time to live of an answer about permissions. It may take a call for each page of environments,
/// and people seldom change permissions.
const PERMISSION_TTL: Duration = Duration::from_secs(60);

/// The queries under way, and the cached answers of recent ones.
#[derive(Debug, Default)]
pub(super) struct Confirmations(Mutex<HashMap<QueryKey, Arc<SharedQuery>>>);

/// One query for all callers with its key. The caller that holds the lock asks; the others wait for
/// its answer.
type SharedQuery = AsyncMutex<Option<CachedStanding>>;

/// What a query is about. Callers with the same key share one query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct QueryKey {
    token: IdentityDigest,
    /// The environment, if the query is about permissions; none if it is about the token alone.
    environment: Option<ClientSideId>,
}

#[derive(Debug, Clone, Copy)]
struct CachedStanding {
    standing: CredentialStanding,
    expires: Instant,
}

impl QueryKey {
    fn of(connection: &Connection, refusal: Refusal) -> Self {
        let of_permissions = refusal == Refusal::Forbidden;
        Self {
            token: IdentityDigest::of_token(connection),
            environment: of_permissions.then(|| connection.client_side_id.clone()),
        }
    }

    /// Asks LaunchDarkly. The query waits for a slot of the account.
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

    /// Time to live of an answer.
    fn ttl(&self, standing: CredentialStanding) -> Duration {
        match standing {
            CredentialStanding::Good | CredentialStanding::Refused
                if self.environment.is_some() =>
            {
                PERMISSION_TTL
            }
            _ => TOKEN_TTL,
        }
    }
}

impl Confirmations {
    /// What LaunchDarkly says of a connection that it has refused. Cancel safe: the next waiting
    /// caller asks instead.
    pub(super) async fn confirm(
        &self,
        stack: &Stack,
        hosts: &Hosts,
        connection: &Connection,
        refusal: Refusal,
    ) -> CredentialStanding {
        let key = QueryKey::of(connection, refusal);
        let query = self.query(&key);
        let mut answer = query.lock().await;
        if let Some(cached) = answer.filter(CachedStanding::is_valid) {
            return cached.standing;
        }
        let standing = key.ask(stack, hosts, connection).await;
        tracing::info!(?refusal, ?standing, "asked about a refusal");
        *answer = Some(CachedStanding {
            standing,
            expires: Instant::now() + key.ttl(standing),
        });
        standing
    }

    /// The query of a key. Forgets queries that have neither a caller nor a valid answer.
    fn query(&self, key: &QueryKey) -> Arc<SharedQuery> {
        let mut queries = self.0.lock();
        queries.retain(|_, query| {
            let is_valid =
                |answer: Option<CachedStanding>| answer.is_some_and(|cached| cached.is_valid());
            Arc::strong_count(query) > 1 || query.try_lock().is_ok_and(|answer| is_valid(*answer))
        });
        Arc::clone(queries.entry(key.clone()).or_default())
    }
}

impl CachedStanding {
    fn is_valid(&self) -> bool {
        Instant::now() < self.expires
    }
}

#[cfg(test)]
mod tests;
