//! Errors of reading stored values back.

use serde::Deserialize;
use serde_json::error::Category;

/// What keeps a stored value from being used, by what the operator can do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StoredError {
    /// No version of this program writes such a thing: restore a backup, or delete it.
    Damaged(String),
    /// It is whole, but holds words that this version does not know: start the version that wrote
    /// it.
    Unsupported(String),
}

/// Reads a value that a database holds as JSON.
///
/// # Errors
/// JSON of another form than `T` comes from another version; anything else is damaged.
pub(super) fn from_json<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, StoredError> {
    serde_json::from_slice(json).map_err(|error| match error.classify() {
        Category::Data => StoredError::Unsupported(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => {
            StoredError::Damaged(format!("broken JSON: {error}"))
        }
    })
}
