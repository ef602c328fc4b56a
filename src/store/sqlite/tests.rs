use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{Connection as _, Row as _, SqliteConnection};
use tempfile::TempDir;

use super::{OpenError, SqliteStore, open, open_error::OpenProblem};
use crate::{
    domain::{ClientSideId, Destination, Etag},
    secret::AccessToken,
    store::{
        Error, IdempotencyKey, KeyRing, Store,
        keys::KeyId,
        suite::{
            CANARY, Storage, acme, changed, destination, everything, idempotency_key, store_suite,
        },
    },
};

const OLD_KEY: &str = "old AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const NEW_KEY: &str = "new AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// The id of `OLD_KEY` over the secret of `NEW_KEY`.
const WRONG_KEY: &str = "old AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// A database in a directory of its own.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("connector.db")
    }

    fn address(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    async fn open_with(&self, keys: &[&str]) -> Result<SqliteStore, OpenError> {
        let keys: KeyRing = keys.join("\n").parse().unwrap();
        // Waiting for a lock would only make the tests slow.
        open::open(&self.address(), keys, Duration::from_millis(1)).await
    }

    async fn store(&self) -> SqliteStore {
        self.open_with(&[OLD_KEY]).await.unwrap()
    }

    async fn problem(&self) -> OpenProblem {
        self.open_with(&[OLD_KEY]).await.unwrap_err().problem
    }

    /// A connection of another process.
    async fn stranger(&self) -> SqliteConnection {
        let connection = SqliteConnection::connect(&self.address()).await;
        connection.unwrap()
    }

    /// Every byte of the database, its log and its index.
    fn bytes(&self) -> Vec<u8> {
        let files = fs::read_dir(self.0.path()).unwrap();
        files
            .flat_map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect()
    }
}

#[async_trait]
impl Storage for Disk {
    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(self.store().await)
    }
}

store_suite!(Disk::new());

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

async fn run(connection: &mut SqliteConnection, statement: &'static str) {
    sqlx::query(statement).execute(connection).await.unwrap();
}

/// Runs a statement on the store's own writing connection.
async fn run_on_writer(store: &SqliteStore, statement: &'static str) {
    sqlx::query(statement).execute(&store.writer).await.unwrap();
}

async fn ciphertext(store: &SqliteStore) -> Vec<u8> {
    let row = sqlx::query("SELECT secrets FROM destinations");
    row.fetch_one(&store.readers).await.unwrap().get(0)
}

/// No trace of a change that failed: neither its destination nor its request.
async fn assert_absent(store: &SqliteStore, refused: &Destination, key: &IdempotencyKey) {
    let found = store.find_request(&refused.name.organization, key.request_id);
    assert_eq!(found.await.unwrap(), None);
    assert_eq!(store.get(&refused.name).await.unwrap(), None);
}

fn unavailable_words<T: fmt::Debug>(outcome: Result<T, Error>) -> String {
    match outcome {
        Err(Error::Unavailable(words)) => words,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_token_is_in_no_byte_of_the_files_and_leaves_them_when_replaced_or_deleted() {
    let disk = Disk::new();
    let (store, there) = (disk.store().await, destination("a"));
    store
        .create(&there, Some(&idempotency_key()))
        .await
        .unwrap();
    let created = ciphertext(&store).await;
    assert!(
        holds(&disk.bytes(), &created),
        "the test looks in the wrong files"
    );

    let new = changed(&there, "new");
    store.replace(&new, there.revision, None).await.unwrap();
    let replaced = ciphertext(&store).await;
    assert!(!holds(&disk.bytes(), &created));
    assert!(!holds(&disk.bytes(), CANARY.as_bytes()));

    store.delete(&there.name, None).await.unwrap();
    assert!(!holds(&disk.bytes(), &replaced));
    store.close().await;
    assert!(!holds(&disk.bytes(), CANARY.as_bytes()));
}

#[tokio::test]
async fn the_files_are_for_their_owner_alone() {
    let disk = Disk::new();
    let store = disk.store().await;
    store.create(&destination("a"), None).await.unwrap();
    let files: Vec<_> = fs::read_dir(disk.0.path()).unwrap().collect();
    // The database, its log, the log's index, and the lock.
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_leaves_no_partial_write() {
    let disk = Disk::new();
    let store = disk.store().await;
    // As many pages as there are, and not one more: room for the request, but not for this.
    run_on_writer(&store, "PRAGMA max_page_count = 1").await;
    let (mut refused, key) = (destination("refused"), idempotency_key());
    refused.connection.client_side_id = ClientSideId::new("x".repeat(10_000));

    let words = unavailable_words(store.create(&refused, Some(&key)).await);
    assert!(words.contains("size limit"), "{words}");
    assert_absent(&store, &refused, &key).await;
    // SQLite has ended the transaction without sqlx, which would never begin another on that
    // connection. The one in its place knows no limit.
    store.create(&refused, Some(&key)).await.unwrap();
}

#[tokio::test]
async fn a_lock_that_outlasts_the_time_out_is_unavailable_for_writers_alone() {
    let disk = Disk::new();
    let (store, there, refused, key) = (
        disk.store().await,
        destination("a"),
        destination("b"),
        idempotency_key(),
    );
    store.create(&there, None).await.unwrap();
    let mut stranger = disk.stranger().await;
    run(&mut stranger, "BEGIN IMMEDIATE").await;

    let words = unavailable_words(store.create(&refused, Some(&key)).await);
    assert!(words.contains("locked"), "{words}");
    let words = unavailable_words(store.delete(&there.name, None).await);
    assert!(words.contains("locked"), "{words}");
    assert_absent(&store, &refused, &key).await;
    assert_eq!(store.get(&there.name).await.unwrap(), Some(there));

    run(&mut stranger, "ROLLBACK").await;
    store.create(&refused, Some(&key)).await.unwrap();
}

#[tokio::test]
async fn a_database_that_turns_read_only_is_unavailable_for_writers_alone() {
    let disk = Disk::new();
    let (store, refused, key) = (disk.store().await, destination("a"), idempotency_key());
    run_on_writer(&store, "PRAGMA query_only = ON").await;
    let words = unavailable_words(store.create(&refused, Some(&key)).await);
    assert!(words.contains("read-only"), "{words}");
    assert_absent(&store, &refused, &key).await;
    store.ping().await.unwrap();
}

/// Changes the row of a destination, which is then named in an error of `kind`, can be listed
/// beside others, and can be deleted.
async fn assert_unreadable(
    store: &SqliteStore,
    change: &'static str,
    is_expected: fn(&Error) -> bool,
) -> String {
    let there = destination("a");
    store.create(&there, None).await.unwrap();
    run_on_writer(store, change).await;
    let error = store.get(&there.name).await.unwrap_err();
    assert!(is_expected(&error), "{change}: {error}");
    let words = error.to_string();
    assert!(words.contains(&there.name.to_string()), "{words}");
    assert!(!words.contains(CANARY), "{words}");

    let other = destination("other");
    store.create(&other, None).await.unwrap();
    let page = store.list(&acme(), &everything()).await.unwrap();
    let [found_other, unreadable] = &page.entries[..] else {
        panic!("{change}: {page:?}");
    };
    assert_eq!(found_other.as_ref().ok(), Some(&other));
    let unreadable = unreadable.as_ref().unwrap_err();
    assert_eq!(unreadable.name, there.name.to_string());
    assert_eq!(unreadable.uid, there.uid);
    assert!(is_expected(&unreadable.error), "{:?}", unreadable.error);

    let stale = store.delete(&there.name, Some(&other.etag())).await;
    assert!(matches!(stale, Err(Error::Conflict)), "{stale:?}");
    let etag = Etag::of(unreadable.uid, unreadable.revision);
    let deleted = store.delete(&there.name, Some(&etag)).await.unwrap();
    assert_eq!(deleted, Some(there.uid));
    store.delete(&other.name, None).await.unwrap();
    words
}

#[tokio::test]
async fn a_damaged_row_is_named_and_can_be_listed_and_deleted() {
    let disk = Disk::new();
    let store = disk.store().await;
    for damage in [
        "UPDATE destinations SET settings = substr(settings, 1, 40)",
        "UPDATE destinations SET settings = json_set(settings, '$.field_mappings', json('[]'))",
        "UPDATE destinations SET display_name = ''",
        "UPDATE destinations SET secrets = x'00'",
        "UPDATE destinations SET secrets = zeroblob(40)",
        "UPDATE destinations SET secrets_key_id = 'new'",
    ] {
        assert_unreadable(&store, damage, |e| matches!(e, Error::Corrupt(_))).await;
    }
}

#[tokio::test]
async fn words_of_a_newer_version_are_named_and_are_no_damage() {
    let disk = Disk::new();
    let store = disk.store().await;
    for (change, word) in [
        ("UPDATE destinations SET state = 'paused'", "paused"),
        (
            "UPDATE destinations SET settings = replace(settings, '\"trim\"', '\"rot13\"')",
            "rot13",
        ),
        (
            "UPDATE destinations SET settings = replace(settings, 'commercial', 'lunar')",
            "lunar",
        ),
        (
            "UPDATE destinations SET settings = replace(settings, 'launch_darkly', 'other_vendor')",
            "other_vendor",
        ),
        (
            "UPDATE destinations SET settings = replace(settings, 'context_key', 'context_kind')",
            "context_kind",
        ),
        (
            "UPDATE destinations SET settings = json_set(settings, '$.schedule', 'nightly')",
            "schedule",
        ),
        (
            "UPDATE destinations \
             SET settings = json_set(settings, '$.connection.launch_darkly.relay', 'x')",
            "relay",
        ),
    ] {
        let is_newer = |e: &Error| matches!(e, Error::Unsupported(_));
        let words = assert_unreadable(&store, change, is_newer).await;
        assert!(words.contains(word), "{words}");
    }
}

#[tokio::test]
async fn secrets_of_a_newer_version_are_not_told() {
    let (disk, there) = (Disk::new(), destination("a"));
    let store = disk.store().await;
    store.create(&there, None).await.unwrap();
    for secrets in [
        format!(r#"{{"access_token":"{CANARY}","second_token":"{CANARY}"}}"#),
        format!(r#"{{"access_token":["{CANARY}"]}}"#),
        format!(r#""{CANARY}""#),
    ] {
        let sealed = store.keys.seal(there.uid, secrets.as_bytes());
        sqlx::query("UPDATE destinations SET secrets = ?1")
            .bind(sealed.bytes)
            .execute(&store.writer)
            .await
            .unwrap();
        let error = store.get(&there.name).await.unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
}

#[tokio::test]
async fn what_was_stored_before_the_rules_grew_stricter_still_loads() {
    let disk = Disk::new();
    let store = disk.store().await;
    let mut old = destination("a");
    old.connection.access_token = AccessToken::new("sdk-1".into());
    old.connection.client_side_id = ClientSideId::new("my-project".into());
    store.create(&old, None).await.unwrap();
    run_on_writer(
        &store,
        "UPDATE destinations SET display_name = char(8203), settings = \
         replace(settings, 'user_id', 'user_id' || char(8203))",
    )
    .await;
    let found = store.get(&old.name).await.unwrap().unwrap();
    assert_eq!(found.connection, old.connection);
    assert_eq!(found.display_name.as_str(), "\u{200B}");
    assert_eq!(found.mapping.fields()[0].sources[0], "user_id\u{200B}");
}

#[tokio::test]
async fn a_file_that_cannot_hold_a_store_is_refused_and_left_as_it_is() {
    let disk = Disk::new();
    fs::write(disk.path(), "just a note").unwrap();
    assert_eq!(disk.problem().await, OpenProblem::NotADatabase);
    assert_eq!(fs::read(disk.path()).unwrap(), b"just a note");

    fs::set_permissions(disk.path(), fs::Permissions::from_mode(0o444)).unwrap();
    assert!(matches!(disk.problem().await, OpenProblem::NotWritable(_)));

    let nowhere = Disk::new();
    fs::remove_dir(nowhere.0.path()).unwrap();
    let directory = nowhere.0.path().to_owned();
    assert_eq!(
        nowhere.problem().await,
        OpenProblem::DirectoryMissing(directory)
    );

    let taken = Disk::new();
    fs::create_dir(taken.path()).unwrap();
    assert!(matches!(taken.problem().await, OpenProblem::NotWritable(_)));
}

#[tokio::test]
async fn only_sqlite_files_are_addresses() {
    for address in [
        "",
        "connector.db",
        "sqlite:",
        "sqlite::memory:",
        "sqlite:c.db?mode=ro",
        "postgres://x/y",
    ] {
        let keys: KeyRing = OLD_KEY.parse().unwrap();
        let error = SqliteStore::open(address, keys).await.unwrap_err();
        assert_eq!(error.problem, OpenProblem::Address, "{address}");
    }
}

#[tokio::test]
async fn a_second_server_is_refused_by_whatever_path_and_told_who_has_it() {
    let disk = Disk::new();
    let first = disk.store().await;
    let link = disk.0.path().join("link.db");
    std::os::unix::fs::symlink(disk.path(), &link).unwrap();
    let detour = disk
        .0
        .path()
        .join("..")
        .join(disk.0.path().file_name().unwrap());
    let paths = [disk.path(), link, detour.join("connector.db")];
    let refused = async |path: &Path| {
        let address = format!("sqlite:{}", path.display());
        let second = SqliteStore::open(&address, OLD_KEY.parse().unwrap()).await;
        second.unwrap_err().to_string()
    };
    for path in &paths {
        let error = refused(path).await;
        let process = format!("process {}", std::process::id());
        assert!(error.contains(&process), "{error}");
        assert!(!error.contains("serving on"), "{error}");
    }
    first.serving_at("127.0.0.1:50051".parse().unwrap());
    let error = refused(&paths[0]).await;
    assert!(error.contains("serving on 127.0.0.1:50051"), "{error}");
    // The next one may have it as soon as this one is done with it, or gone.
    first.close().await;
    drop(disk.store().await);
    disk.store().await;
}

#[tokio::test]
async fn a_locked_database_is_not_opened() {
    let disk = Disk::new();
    disk.store().await.close().await;
    let mut stranger = disk.stranger().await;
    run(&mut stranger, "BEGIN IMMEDIATE").await;
    assert_eq!(disk.problem().await, OpenProblem::Locked);
    run(&mut stranger, "ROLLBACK").await;
    disk.store().await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_not_opened() {
    let disk = Disk::new();
    let store = disk.store().await;
    run_on_writer(
        &store,
        "INSERT INTO _sqlx_migrations SELECT 9001, 'later', installed_on, 1, checksum, 0
         FROM _sqlx_migrations",
    )
    .await;
    store.close().await;
    let newer = OpenProblem::OtherVersion { migration: 9001 };
    assert_eq!(disk.problem().await, newer);
}

#[tokio::test]
async fn missing_and_wrong_keys_are_named_at_the_start() {
    let disk = Disk::new();
    let store = disk.store().await;
    store.create(&destination("a"), None).await.unwrap();
    store.close().await;
    let old = || vec![KeyId::new("old").unwrap()];
    let missing = disk.open_with(&[NEW_KEY]).await.unwrap_err();
    assert_eq!(missing.problem, OpenProblem::KeysMissing(old()));
    let wrong = disk.open_with(&[WRONG_KEY]).await.unwrap_err();
    assert_eq!(wrong.problem, OpenProblem::KeysWrong(old()));
}

#[tokio::test]
async fn a_change_seals_with_the_newest_key() {
    let (disk, there) = (Disk::new(), destination("a"));
    let store = disk.store().await;
    store.create(&there, None).await.unwrap();
    store.close().await;

    let store = disk.open_with(&[OLD_KEY, NEW_KEY]).await.unwrap();
    let new = changed(&there, "new");
    store.replace(&new, there.revision, None).await.unwrap();
    store.close().await;

    let store = disk.open_with(&[NEW_KEY]).await.unwrap();
    assert_eq!(store.get(&there.name).await.unwrap(), Some(new));
}
