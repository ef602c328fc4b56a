//! SQL statements on the table `destinations`.

use std::time::SystemTime;

use sqlx::{Sqlite, SqliteConnection, SqlitePool, query::Query, sqlite::SqliteArguments};
use uuid::Uuid;

use super::fault::unavailable;
use crate::{
    domain::{DestinationName, DestinationState, DestinationUid, OrganizationId, Revision},
    store::{
        Error, ListQuery,
        row::{CREDENTIALS_REJECTED, Row, fold, micros, state_word},
    },
};

pub(super) async fn find(
    connection: &mut SqliteConnection,
    name: &DestinationName,
) -> Result<Option<Row>, Error> {
    sqlx::query_as("SELECT * FROM destinations WHERE organization = ?1 AND id = ?2")
        .bind(name.organization.as_str())
        .bind(name.destination.as_str())
        .fetch_optional(connection)
        .await
        .map_err(unavailable)
}

/// At most `limit` rows of the query's list.
pub(super) async fn list(
    readers: &SqlitePool,
    organization: &OrganizationId,
    query: &ListQuery,
    limit: i64,
) -> Result<Vec<Row>, Error> {
    let after = query.after.as_ref();
    sqlx::query_as(
        "SELECT * FROM destinations
         WHERE organization = ?1
           AND (?2 IS NULL OR instr(display_name_folded, ?2) > 0)
           AND (?3 IS NULL OR (create_micros, uid) < (?3, ?4))
         ORDER BY create_micros DESC, uid DESC
         LIMIT ?5",
    )
    .bind(organization.as_str())
    .bind(query.display_name.as_deref().map(fold))
    .bind(after.map(|after| after.created_micros))
    .bind(after.map(|after| after.uid.0.as_bytes().as_slice()))
    .bind(limit)
    .fetch_all(readers)
    .await
    .map_err(unavailable)
}

/// Fails with [`Error::Exists`] if the name is taken.
pub(super) async fn insert(connection: &mut SqliteConnection, row: &Row) -> Result<(), Error> {
    let query = sqlx::query(
        "INSERT INTO destinations
             (uid, organization, id, display_name, display_name_folded, settings, state,
              revision, create_micros, update_micros, secrets, secrets_key_id)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT (organization, id) DO NOTHING",
    );
    let inserted = bind(query, row).execute(connection).await;
    match inserted.map_err(unavailable)?.rows_affected() {
        0 => Err(Error::Exists),
        _ => Ok(()),
    }
}

/// Fails with [`Error::Conflict`] unless a row has this uid, this name and revision `expected`.
pub(super) async fn update(
    connection: &mut SqliteConnection,
    row: &Row,
    expected: Revision,
) -> Result<(), Error> {
    // The creation time, ?9, stays: pages are found by it.
    let query = sqlx::query(
        "UPDATE destinations
         SET display_name = ?4, display_name_folded = ?5, settings = ?6, state = ?7,
             revision = ?8, update_micros = ?10, secrets = ?11, secrets_key_id = ?12
         WHERE uid = ?1 AND organization = ?2 AND id = ?3 AND revision = ?13",
    );
    let updated = bind(query, row).bind(expected.0).execute(connection).await;
    match updated.map_err(unavailable)?.rows_affected() {
        0 => Err(Error::Conflict),
        _ => Ok(()),
    }
}

pub(super) async fn find_by_uid(
    readers: &SqlitePool,
    uid: DestinationUid,
) -> Result<Option<Row>, Error> {
    sqlx::query_as("SELECT * FROM destinations WHERE uid = ?1")
        .bind(uid.0.as_bytes().as_slice())
        .fetch_optional(readers)
        .await
        .map_err(unavailable)
}

/// At most `limit` of all organizations, in the order of uids.
pub(super) async fn list_rejected(
    readers: &SqlitePool,
    after: Option<DestinationUid>,
    limit: u16,
) -> Result<Vec<DestinationUid>, Error> {
    let uids: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT uid FROM destinations
         WHERE state = ?1 AND (?2 IS NULL OR uid > ?2)
         ORDER BY uid
         LIMIT ?3",
    )
    .bind(CREDENTIALS_REJECTED)
    .bind(after.map(|after| after.0.as_bytes().to_vec()))
    .bind(i64::from(limit))
    .fetch_all(readers)
    .await
    .map_err(unavailable)?;
    let uid = |bytes: &Vec<u8>| Uuid::from_slice(bytes).map(DestinationUid);
    let unreadable = |_| Error::Corrupt("a destination's uid".into());
    uids.iter()
        .map(|bytes| uid(bytes).map_err(unreadable))
        .collect()
}

/// Returns whether it was still at revision `seen`.
pub(super) async fn set_state(
    writer: &SqlitePool,
    uid: DestinationUid,
    seen: Revision,
    state: DestinationState,
    at: SystemTime,
) -> Result<bool, Error> {
    let changed = sqlx::query(
        "UPDATE destinations
         SET state = ?1, revision = revision + 1, update_micros = ?2
         WHERE uid = ?3 AND revision = ?4",
    )
    .bind(state_word(state))
    .bind(micros(at))
    .bind(uid.0.as_bytes().as_slice())
    .bind(seen.0)
    .execute(writer)
    .await
    .map_err(unavailable)?;
    Ok(changed.rows_affected() == 1)
}

pub(super) async fn delete(
    connection: &mut SqliteConnection,
    uid: DestinationUid,
) -> Result<(), Error> {
    sqlx::query("DELETE FROM destinations WHERE uid = ?1")
        .bind(uid.0.as_bytes().as_slice())
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}

/// Binds ?1 to ?12, in order of the columns.
fn bind<'q>(
    query: Query<'q, Sqlite, SqliteArguments>,
    row: &Row,
) -> Query<'q, Sqlite, SqliteArguments> {
    query
        .bind(row.uid.as_slice())
        .bind(&row.organization)
        .bind(&row.id)
        .bind(&row.display_name)
        .bind(fold(&row.display_name))
        .bind(&row.settings)
        .bind(&row.state)
        .bind(row.revision)
        .bind(row.create_micros)
        .bind(row.update_micros)
        .bind(row.secrets.as_slice())
        .bind(&row.secrets_key_id)
}
