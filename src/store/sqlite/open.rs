//! Opening of the database file: it is created if missing, and migrated; an error names the way
//! out.

use std::{io, path::Path, time::Duration};

use sqlx::{
    Connection as _, SqliteConnection,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    SqliteStore,
    lock::{Lock, writable},
    open_error::{OpenError, OpenProblem},
};
use crate::store::{
    keys::{KeyId, KeyRing},
    row::Row,
};

/// How long a call waits while another process writes. Ours is the only server on the file; a
/// person's shell or a backup is done within this, and callers' deadlines are longer.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a call waits for its turn among the others of this process: a few busy time-outs.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers beside the one writer. Reads take microseconds from memory; more would only help if
/// the disk were slow.
const READERS: u32 = 4;
/// How many rows are tried before a key is called wrong: more than one, so that a single damaged
/// row does not make its key look wrong.
const TRIED_PER_KEY: i64 = 8;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations/sqlite");

pub(super) async fn open(
    address: &str,
    keys: KeyRing,
    busy_timeout: Duration,
) -> Result<SqliteStore, OpenError> {
    let refuse = |path: &Path| {
        let path = path.to_owned();
        |problem| OpenError { path, problem }
    };
    let path = file(address).ok_or(OpenProblem::Address);
    let path = path.map_err(refuse(Path::new(address)))?;
    open_file(path, keys, busy_timeout)
        .await
        .map_err(refuse(path))
}

async fn open_file(
    path: &Path,
    keys: KeyRing,
    busy_timeout: Duration,
) -> Result<SqliteStore, OpenProblem> {
    prepare(path)?;
    let lock = Lock::take(path)?;
    let options = options(path, busy_timeout);
    let writer = pool(1).connect_with(options.clone()).await?;
    let mut connection = writer.acquire().await?;
    migrate(&mut connection).await?;
    check_keys(&mut connection, &keys).await?;
    drop(connection);
    Ok(SqliteStore {
        writer,
        readers: pool(READERS).connect_lazy_with(options),
        keys,
        lock,
    })
}

/// The file of `sqlite:FILE` or `sqlite://FILE`. Not taken: a database in memory, which would lose
/// what was acknowledged, and other programs' `?options`, which would become part of the name.
fn file(address: &str) -> Option<&Path> {
    let file = address.strip_prefix("sqlite:")?;
    let file = file.strip_prefix("//").unwrap_or(file);
    let named = !file.is_empty() && file != ":memory:" && !file.contains('?');
    named.then(|| Path::new(file))
}

/// Makes the file if there is none, for this user alone; SQLite gives its companions, `-wal` and
/// `-shm`, the same permissions.
fn prepare(path: &Path) -> Result<(), OpenProblem> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(OpenProblem::DirectoryMissing(directory.to_owned()));
    }
    let not_writable = |error: io::Error| OpenProblem::NotWritable(error.to_string());
    let file = writable().open(path).map_err(not_writable)?;
    let metadata = file.metadata().map_err(not_writable)?;
    // The superuser may write to it all the same, although it was locked on purpose.
    if metadata.permissions().readonly() {
        return Err(OpenProblem::NotWritable("it is marked read-only".into()));
    }
    Ok(())
}

fn options(path: &Path, busy_timeout: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(busy_timeout)
        .journal_mode(SqliteJournalMode::Wal)
        // What was acknowledged survives a loss of power.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // A deleted token is overwritten, not just forgotten.
        .pragma("secure_delete", "ON")
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(TURN_TIMEOUT)
        // A file does not hang up: nothing is won by opening it anew.
        .idle_timeout(None)
        .max_lifetime(None)
        // On a full disk or an I/O error SQLite ends the transaction by itself; the connection
        // then counts one that is not there, and would never begin another.
        .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
}

/// Runs in one transaction that writes from the start, also when there is nothing to migrate: a
/// file that cannot be written or is locked is found now, and not at the first call.
async fn migrate(connection: &mut SqliteConnection) -> Result<(), OpenProblem> {
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    // Not `run`: it wants a lifetime that makes the future not `Send`.
    MIGRATIONS.run_direct(None, &mut *tx, false).await?;
    tx.commit().await?;
    Ok(())
}

async fn check_keys(connection: &mut SqliteConnection, keys: &KeyRing) -> Result<(), OpenProblem> {
    let used = sqlx::query_scalar::<_, String>("SELECT DISTINCT secrets_key_id FROM destinations");
    let used = used.fetch_all(&mut *connection).await?;
    // An id that is none belongs to a damaged row, which is reported when it is read.
    let used = used.iter().filter_map(|id| KeyId::new(id));
    let (there, missing): (Vec<_>, Vec<_>) = used.partition(|id| keys.get(id).is_some());
    if !missing.is_empty() {
        return Err(OpenProblem::KeysMissing(missing));
    }
    let mut wrong = Vec::new();
    for id in there {
        if !opens_some(connection, keys, &id).await? {
            wrong.push(id);
        }
    }
    if !wrong.is_empty() {
        return Err(OpenProblem::KeysWrong(wrong));
    }
    Ok(())
}

async fn opens_some(
    connection: &mut SqliteConnection,
    keys: &KeyRing,
    id: &KeyId,
) -> Result<bool, OpenProblem> {
    let rows = sqlx::query_as::<_, Row>(
        "SELECT * FROM destinations WHERE secrets_key_id = ?1 ORDER BY update_micros DESC LIMIT ?2",
    );
    let rows = rows.bind(id.as_str()).bind(TRIED_PER_KEY);
    let rows = rows.fetch_all(connection).await?;
    Ok(rows.iter().any(|row| row.opens_with(keys)))
}
