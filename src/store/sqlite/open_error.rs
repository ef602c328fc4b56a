//! Errors of opening a store, each with the way out.

use std::path::PathBuf;

use sqlx::migrate::MigrateError;

use super::fault::SqliteFault;
use crate::store::keys::KeyId;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the store {}: {problem}", .path.display())]
pub struct OpenError {
    pub(super) path: PathBuf,
    pub(super) problem: OpenProblem,
}

/// What is wrong with a store's file, and the way out.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum OpenProblem {
    #[error("write sqlite:FILE, such as sqlite:connector.db")]
    Address,
    #[error("its directory {} does not exist: create it, or name a file elsewhere", .0.display())]
    DirectoryMissing(PathBuf),
    #[error("it cannot be written ({0}): give this user write access to it and its directory")]
    NotWritable(String),
    #[error(
        "another server has it open ({0}), and one database file is for one server: end that one, \
         or name another file"
    )]
    Served(String),
    #[error(
        "another process keeps it locked: end that process (another server, a backup, a shell), \
         then start again"
    )]
    Locked,
    #[error("it is no SQLite database, or is damaged: name another file, or restore a backup")]
    NotADatabase,
    #[error(
        "a newer or different version of this program has changed it (migration {migration} is \
         not known here): start that version, or restore a backup from before"
    )]
    OtherVersion { migration: i64 },
    #[error(
        "it holds access tokens sealed with {}, missing from the keys file: put each missing key's \
         line back, above the last line", ids(.0)
    )]
    KeysMissing(Vec<KeyId>),
    #[error(
        "its access tokens sealed with {} do not open: the keys file has other keys under these \
         ids; put the former lines back, and give new keys new ids", ids(.0)
    )]
    KeysWrong(Vec<KeyId>),
    #[error("{0}")]
    Failed(String),
}

impl From<sqlx::Error> for OpenProblem {
    fn from(error: sqlx::Error) -> Self {
        match SqliteFault::of(&error) {
            SqliteFault::Locked => Self::Locked,
            SqliteFault::NotADatabase => Self::NotADatabase,
            fault @ (SqliteFault::ReadOnly | SqliteFault::CannotOpen) => {
                Self::NotWritable(fault.to_string())
            }
            fault => Self::Failed(fault.to_string()),
        }
    }
}

impl From<MigrateError> for OpenProblem {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::VersionMissing(migration) | MigrateError::VersionMismatch(migration) => {
                Self::OtherVersion { migration }
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Failed(other.to_string()),
        }
    }
}

fn ids(ids: &[KeyId]) -> String {
    let ids: Vec<_> = ids.iter().map(|id| format!("key {id}")).collect();
    ids.join(" and ")
}
