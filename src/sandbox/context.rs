//! Contexts: their kinds, and the keys by which segments know them.

use std::collections::BTreeMap;

use super::hidden::Hidden;

/// The kind of contexts and segments that name none.
pub(super) const USER: &str = "user";

/// Words that contexts use for something else.
const RESERVED: [&str; 2] = ["kind", "multi"];

/// Whether a context may be of this kind.
pub(super) fn is_kind(kind: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !kind.is_empty() && kind.chars().all(is_allowed) && !RESERVED.contains(&kind)
}

/// The key of a context by kind: one, or several of a multi-context.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ContextKeys(Hidden<BTreeMap<String, String>>);

impl ContextKeys {
    pub(super) fn of_kind(&self, kind: &str) -> Option<&str> {
        self.0.get(kind).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for ContextKeys {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(keys: T) -> Self {
        Self(Hidden(keys.into_iter().collect()))
    }
}
