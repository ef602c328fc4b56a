//! SQL statements on the table `requests`: the requests that took effect, so that none does twice.

use std::time::SystemTime;

use sqlx::{SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::fault::unavailable;
use crate::{
    domain::{Destination, DestinationName, DestinationUid, OrganizationId},
    store::{CompletedRequest, Error, Fingerprint, IdempotencyKey, RETENTION, row::micros},
};

/// Most expired requests deleted with each inserted one: more than come in, so that they do not
/// pile up, and few enough not to be felt.
const EXPIRED_AT_ONCE: i64 = 16;

/// Keeps a request's key, and deletes some that are past their time.
///
/// # Errors
/// [`Error::DuplicateRequest`] if the key is known already.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    destination: &Destination,
    key: Option<&IdempotencyKey>,
) -> Result<(), Error> {
    let Some(key) = key else { return Ok(()) };
    // The time of the change is the time of its request: the store needs no clock of its own.
    let at = destination.update_time;
    delete_expired(connection, at).await.map_err(unavailable)?;
    let inserted = sqlx::query(
        "INSERT INTO requests
             (organization, request_id, fingerprint, destination_id, uid, request_micros)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
    )
    .bind(destination.name.organization.as_str())
    .bind(key.request_id.as_bytes().as_slice())
    .bind(key.fingerprint.0.as_slice())
    .bind(destination.name.destination.as_str())
    .bind(destination.uid.0.as_bytes().as_slice())
    .bind(micros(at))
    .execute(connection)
    .await
    .map_err(unavailable)?;
    match inserted.rows_affected() {
        0 => Err(Error::DuplicateRequest),
        _ => Ok(()),
    }
}

async fn delete_expired(connection: &mut SqliteConnection, now: SystemTime) -> sqlx::Result<()> {
    let retention = i64::try_from(RETENTION.as_micros()).unwrap_or(i64::MAX);
    sqlx::query(
        "DELETE FROM requests WHERE rowid IN (
             SELECT rowid FROM requests WHERE request_micros < ?1
             ORDER BY request_micros LIMIT ?2)",
    )
    .bind(micros(now).saturating_sub(retention))
    .bind(EXPIRED_AT_ONCE)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn find(
    readers: &SqlitePool,
    organization: &OrganizationId,
    request_id: Uuid,
) -> Result<Option<CompletedRequest>, Error> {
    let found = sqlx::query_as::<_, (Vec<u8>, String, Vec<u8>)>(
        "SELECT fingerprint, destination_id, uid FROM requests
         WHERE organization = ?1 AND request_id = ?2",
    )
    .bind(organization.as_str())
    .bind(request_id.as_bytes().as_slice())
    .fetch_optional(readers)
    .await
    .map_err(unavailable)?;
    let unreadable = || Error::Corrupt(format!("{organization}: request {request_id}"));
    found
        .map(|(fingerprint, id, uid)| completed(organization, &fingerprint, &id, &uid))
        .map(|completed| completed.ok_or_else(unreadable))
        .transpose()
}

fn completed(
    organization: &OrganizationId,
    fingerprint: &[u8],
    id: &str,
    uid: &[u8],
) -> Option<CompletedRequest> {
    Some(CompletedRequest {
        fingerprint: Fingerprint(fingerprint.try_into().ok()?),
        name: DestinationName {
            organization: organization.clone(),
            destination: id.parse().ok()?,
        },
        uid: DestinationUid(Uuid::from_slice(uid).ok()?),
    })
}
