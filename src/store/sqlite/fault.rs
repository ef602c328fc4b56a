//! Errors of SQLite, in words for the operator.

use std::fmt;

use super::Error;

/// What went wrong, by what the operator can do about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SqliteFault {
    Locked,
    Busy,
    Full,
    ReadOnly,
    Io,
    CannotOpen,
    NotADatabase,
    Unreadable(String),
    Other(String),
}

impl SqliteFault {
    pub(super) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolTimedOut => Self::Busy,
            sqlx::Error::ColumnDecode { .. } => Self::Unreadable(error.to_string()),
            sqlx::Error::Database(database) => match primary_code(database.as_ref()) {
                // Result codes: https://www.sqlite.org/rescode.html
                Some(5 | 6) => Self::Locked,
                Some(8) => Self::ReadOnly,
                Some(10) => Self::Io,
                Some(11 | 26) => Self::NotADatabase,
                Some(13) => Self::Full,
                Some(14) => Self::CannotOpen,
                _ => Self::Other(database.message().to_owned()),
            },
            _ => Self::Other(error.to_string()),
        }
    }
}

/// The low byte of an extended result code.
fn primary_code(error: &dyn sqlx::error::DatabaseError) -> Option<i32> {
    error.code()?.parse().ok().map(|code: i32| code & 0xff)
}

impl fmt::Display for SqliteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Locked => "another process keeps the database locked",
            Self::Busy => "the database is too slow for the calls that wait for it",
            Self::Full => "the disk is full, or the database has reached its size limit",
            Self::ReadOnly => "the database, or the directory it is in, is read-only",
            Self::Io => "the disk fails to read or write the database",
            Self::CannotOpen => "the database's files cannot be opened or made",
            Self::NotADatabase => "the file is no SQLite database, or is damaged",
            Self::Unreadable(what) | Self::Other(what) => what,
        })
    }
}

/// The one way from a failure of SQLite to the store's error.
#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
pub(super) fn unavailable(error: sqlx::Error) -> Error {
    match SqliteFault::of(&error) {
        SqliteFault::Unreadable(what) => Error::Corrupt(what),
        fault => Error::Unavailable(fault.to_string()),
    }
}
