//! Column roles: what a column or member is for, by its name.
//!
//! A role is never guessed. A name that resembles an operation or a mapped identifier stops the
//! file until a flag names its role. Otherwise a removal could become an addition, or a member get
//! another key, unnoticed.

use super::InputOptions;

/// Default name of the column or member of the operation.
pub(super) const OPERATION: &str = "operation";

/// Names of operation columns in exports of other systems, in [`plain`] form.
pub(super) const LIKE_AN_OPERATION: &[&str] = &[
    "operation",
    "operationtype",
    "op",
    "optype",
    "action",
    "actiontype",
    "change",
    "changetype",
    "delete",
    "deleted",
    "deletedat",
    "isdeleted",
    "remove",
    "removed",
    "removedat",
    "isremoved",
    "ismember",
    "insegment",
];

/// Longest name in a message. Ours.
const SHOWN_CHARACTERS: usize = 64;
/// Most names in a message. Ours.
const SHOWN_NAMES: usize = 20;

/// What a column or member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnRole {
    /// An identifier, which is sent.
    Identifier,
    /// The operation of the record.
    Operation,
    /// Not in the mapping.
    Unmapped,
    /// Ignored by a flag.
    Ignored,
}

/// The known names.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    /// Identifiers of the mapping; empty if it is not known.
    pub(super) mapped: Vec<String>,
    /// The column that `--operation-column` names.
    pub(super) operation: Option<String>,
    ignored: Vec<String>,
}

impl Columns {
    pub(super) fn new(options: &InputOptions) -> Self {
        Self {
            mapped: options.mapped.clone(),
            operation: options.operation_column.clone(),
            ignored: options.ignored_columns.clone(),
        }
    }

    /// Whether the mapping is known.
    pub(super) fn know_mapping(&self) -> bool {
        !self.mapped.is_empty()
    }

    pub(super) fn is_mapped(&self, name: &str) -> bool {
        self.mapped.iter().any(|mapped| mapped == name)
    }

    /// The role of a column of this name.
    ///
    /// # Errors
    /// The name is ambiguous, and must not be interpreted in silence.
    pub(super) fn role(&self, name: &str) -> Result<ColumnRole, String> {
        if self.is_ignored(name) {
            return Ok(ColumnRole::Ignored);
        }
        if self.is_operation(name) {
            return Ok(ColumnRole::Operation);
        }
        if self.is_mapped(name) {
            return Ok(ColumnRole::Identifier);
        }
        if let Some(mapped) = self.mapped.iter().find(|mapped| alike(mapped, name)) {
            return Err(format!(
                "{} differs from the mapped identifier {} only by case or blanks: rename it, or say \
                 --ignore-column if it is something else",
                shown(name),
                shown(mapped)
            ));
        }
        if LIKE_AN_OPERATION.contains(&plain(name).as_str()) {
            return Err(format!(
                "{name} looks like an operation: say --operation-column {name} if it holds add or \
                 remove, or --ignore-column {name} if it does not matter",
                name = shown(name)
            ));
        }
        Ok(match self.know_mapping() {
            true => ColumnRole::Unmapped,
            false => ColumnRole::Identifier,
        })
    }

    fn is_ignored(&self, name: &str) -> bool {
        let blanks_matter = self.is_mapped(name);
        let mut ignored = self.ignored.iter();
        ignored.any(|ignored| ignored == name || !blanks_matter && trim(ignored) == trim(name))
    }

    fn is_operation(&self, name: &str) -> bool {
        alike(self.operation.as_deref().unwrap_or(OPERATION), name)
    }
}

/// Whether two names differ at most by case and outer blanks.
pub(crate) fn alike(one: &str, other: &str) -> bool {
    let folded = |name| str::chars(trim(name)).flat_map(char::to_lowercase);
    one == other || folded(one).eq(folded(other))
}

/// A name without invisible characters and blanks at both ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|letter: char| {
        letter.is_whitespace()
            || matches!(letter, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}')
    })
}

/// The letters and digits of a name: `is_deleted`, `isDeleted` and `__IS-DELETED` are one word.
pub(super) fn plain(name: &str) -> String {
    let letters = name.chars().filter(|letter| letter.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// A name as it may be printed: one from a file could be long, or control a terminal.
pub(super) fn shown(name: &str) -> String {
    let mut shown: String = name
        .chars()
        .take(SHOWN_CHARACTERS)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(SHOWN_CHARACTERS).is_some() {
        shown.push('…');
    }
    if shown.trim() == shown {
        shown
    } else {
        format!("`{shown}`")
    }
}

/// Names as they may be printed.
pub(super) fn listed(names: &[String]) -> String {
    let mut list: Vec<_> = names
        .iter()
        .take(SHOWN_NAMES)
        .map(|name| shown(name))
        .collect();
    if names.len() > SHOWN_NAMES {
        list.push(format!("{} more", names.len() - SHOWN_NAMES));
    }
    list.join(", ")
}
