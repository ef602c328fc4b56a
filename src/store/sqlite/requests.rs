//! The statements on table `requests`: what took effect, so that none of it does twice.

use std::time::SystemTime;

use sqlx::{SqliteConnection, SqlitePool};
use uuid::Uuid;

use super::fault::unavailable;
use crate::{
    domain::{Destination, DestinationName, DestinationUid, OrganizationId},
    store::{Error, Fingerprint, Once, RETENTION, Remembered, row::micros},
};

/// Most expired requests forgotten with each remembered one: more than come in, so that they
/// do not pile up, and few enough not to be felt.
const FORGET_AT_ONCE: i64 = 16;

/// Remembers `once`, and forgets some that are past their time; fails with [`Error::Remembered`]
/// if it is known already.
pub(super) async fn remember(
    connection: &mut SqliteConnection,
    destination: &Destination,
    once: Option<&Once>,
) -> Result<(), Error> {
    let Some(once) = once else { return Ok(()) };
    // The time of the change is the time of its request: the store needs no clock of its own.
    let at = destination.update_time;
    forget(connection, at).await.map_err(unavailable)?;
    let remembered = sqlx::query(
        "INSERT INTO requests
             (organization, request_id, fingerprint, destination_id, uid, request_micros)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO NOTHING",
    )
    .bind(destination.name.organization.as_str())
    .bind(once.request_id.as_bytes().as_slice())
    .bind(once.fingerprint.0.as_slice())
    .bind(destination.name.destination.as_str())
    .bind(destination.uid.0.as_bytes().as_slice())
    .bind(micros(at))
    .execute(connection)
    .await
    .map_err(unavailable)?;
    match remembered.rows_affected() {
        0 => Err(Error::Remembered),
        _ => Ok(()),
    }
}

async fn forget(connection: &mut SqliteConnection, now: SystemTime) -> sqlx::Result<()> {
    let retention = i64::try_from(RETENTION.as_micros()).unwrap_or(i64::MAX);
    sqlx::query(
        "DELETE FROM requests WHERE rowid IN (
             SELECT rowid FROM requests WHERE request_micros < ?1
             ORDER BY request_micros LIMIT ?2)",
    )
    .bind(micros(now).saturating_sub(retention))
    .bind(FORGET_AT_ONCE)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn find(
    readers: &SqlitePool,
    organization: &OrganizationId,
    request_id: Uuid,
) -> Result<Option<Remembered>, Error> {
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
        .map(|(fingerprint, id, uid)| remembered(organization, &fingerprint, &id, &uid))
        .map(|remembered| remembered.ok_or_else(unreadable))
        .transpose()
}

fn remembered(
    organization: &OrganizationId,
    fingerprint: &[u8],
    id: &str,
    uid: &[u8],
) -> Option<Remembered> {
    Some(Remembered {
        fingerprint: Fingerprint(fingerprint.try_into().ok()?),
        name: DestinationName {
            organization: organization.clone(),
            destination: id.parse().ok()?,
        },
        uid: DestinationUid(Uuid::from_slice(uid).ok()?),
    })
}
