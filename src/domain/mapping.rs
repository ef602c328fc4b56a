//! Mapping: how a record's identifiers become the context key.

use std::{borrow::Cow, sync::Arc};

use super::{
    ContextKeys, KeyError, Transform,
    visibility::{self, InvisibleCharacter},
};

/// The path of the only mapping field of the action.
pub const CONTEXT_KEY_FIELD: &str = "context_key";

/// Most names in an error. Ours: of a mapping with more names, the first are enough for a reader,
/// and a thousand such errors fit into a message.
const NAMED: usize = 8;

/// Added to the error of a record with an identifier whose name looks right.
const LOOKALIKE: &str =
    "; one is there with white space or an invisible character at an end of its name";

/// A record's identifiers, by name.
pub trait Identifiers {
    /// The value of this name.
    fn get(&self, name: &str) -> Option<&str>;

    /// The names.
    fn names(&self) -> impl Iterator<Item = &str>;
}

impl Identifiers for std::collections::HashMap<String, String> {
    fn get(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.keys().map(String::as_str)
    }
}

/// Fills one field of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldMapping {
    /// The field.
    pub field: String,
    /// Names of record identifiers. The first that is present and not blank is used.
    pub sources: Arc<[String]>,
    /// Transforms of the value, applied in order.
    pub transforms: Vec<Transform>,
}

/// A checked mapping: it fills every required field of the action exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    context_key: FieldMapping,
}

/// What is wrong with a set of field mappings, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// The action has no such field.
    #[error("the action has no field of this name; it has: {CONTEXT_KEY_FIELD}")]
    UnknownField {
        /// Which mapping.
        index: usize,
    },
    /// The field is mapped twice.
    #[error("this field is mapped more than once; map it once, with several sources")]
    DuplicateField {
        /// Which mapping.
        index: usize,
    },
    /// The field has no source.
    #[error("name at least one identifier to fill the field from")]
    NoSources {
        /// Which mapping.
        index: usize,
    },
    /// A source has no name.
    #[error("an identifier's name cannot be empty")]
    BlankSource {
        /// Which mapping.
        index: usize,
        /// Which of its sources.
        source_index: usize,
    },
    /// The name of a source holds an invisible character.
    #[error("an identifier's name {unseen}, so that it looks like another; write it anew")]
    UnseenInSource {
        /// Which mapping.
        index: usize,
        /// Which of its sources.
        source_index: usize,
        /// The character.
        unseen: InvisibleCharacter,
    },
    /// A required field is not mapped.
    #[error("the required field {CONTEXT_KEY_FIELD} is not mapped")]
    MissingField,
}

/// Why one record cannot be mapped. It holds names and reasons, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// None of the sources is present and filled.
    #[error(
        "the record has no value under any of the mapped identifiers: {}{}",
        listed(sources),
        if *has_lookalike { LOOKALIKE } else { "" }
    )]
    IdentifierMissing {
        /// The mapping with the names of the sources. It may be long, so it is shared.
        sources: Arc<[String]>,
        /// Whether the record has one of these names with invisible characters at its ends.
        has_lookalike: bool,
    },
    /// The value cannot be a context key.
    #[error("the identifier {source_name} {reason}")]
    IdentifierInvalid {
        /// The identifier that was used.
        source_name: String,
        /// What is wrong with its value.
        reason: KeyError,
    },
}

impl Mapping {
    /// Checks field mappings against the action, naming everything that is wrong.
    ///
    /// # Errors
    /// All problems, in order of the mappings.
    pub fn check(mappings: Vec<FieldMapping>) -> Result<Self, Vec<MappingError>> {
        let mut errors = Vec::new();
        let mut context_key = None;
        for (index, mapping) in mappings.into_iter().enumerate() {
            errors.extend(mapping.source_errors(index));
            if mapping.field != CONTEXT_KEY_FIELD {
                errors.push(MappingError::UnknownField { index });
            } else if context_key.is_some() {
                errors.push(MappingError::DuplicateField { index });
            } else {
                context_key = Some(mapping);
            }
        }
        match context_key {
            Some(context_key) if errors.is_empty() => return Ok(Self { context_key }),
            None => errors.push(MappingError::MissingField),
            Some(_) => {}
        }
        Err(errors)
    }

    /// A stored mapping. It was checked when it was stored, and a stricter check of today must not
    /// invalidate it. `None` if it does not map the context key.
    #[must_use]
    pub fn stored(fields: Vec<FieldMapping>) -> Option<Self> {
        let [context_key] = <[FieldMapping; 1]>::try_from(fields).ok()?;
        let is_one = context_key.field == CONTEXT_KEY_FIELD && !context_key.sources.is_empty();
        is_one.then_some(Self { context_key })
    }

    /// The field mappings, as they were given.
    #[must_use]
    pub fn fields(&self) -> Vec<FieldMapping> {
        vec![self.context_key.clone()]
    }

    /// Maps one record's identifiers to its context key, and adds that to `keys`.
    ///
    /// # Errors
    /// Why this record cannot be delivered. Nothing is added.
    pub fn map(
        &self,
        identifiers: &impl Identifiers,
        keys: &mut ContextKeys,
    ) -> Result<(), RecordError> {
        let FieldMapping {
            sources,
            transforms,
            ..
        } = &self.context_key;
        // An invalid value of the first source is an error. The next source would silently target
        // another identity.
        let found = sources.iter().find_map(|name| {
            let value = identifiers.get(name)?;
            (!visibility::is_blank(value)).then_some((name, value))
        });
        let (name, value) = found.ok_or_else(|| missing(sources, identifiers))?;
        let mapped = transforms
            .iter()
            .try_fold(Cow::Borrowed(value), |value, t| t.apply(value));
        mapped
            .and_then(|mapped| keys.push(&mapped))
            .map_err(|reason| RecordError::IdentifierInvalid {
                source_name: name.clone(),
                reason,
            })
    }
}

/// A blank value and an absent one are distinct errors, since their remedies differ.
fn missing(sources: &Arc<[String]>, identifiers: &impl Identifiers) -> RecordError {
    match sources.iter().find(|name| identifiers.get(name).is_some()) {
        Some(blank) => RecordError::IdentifierInvalid {
            source_name: blank.clone(),
            reason: KeyError::Blank,
        },
        None => RecordError::IdentifierMissing {
            sources: Arc::clone(sources),
            has_lookalike: identifiers
                .names()
                .any(|name| looks_like_any(name, sources)),
        },
    }
}

/// Whether a name is one of these, apart from invisible characters at its ends, such as the
/// byte-order mark of a file.
fn looks_like_any(name: &str, sources: &[String]) -> bool {
    let seen = visibility::trim(name);
    seen.len() < name.len() && sources.iter().any(|source| source == seen)
}

/// The first of these names, for an error.
#[must_use]
pub fn shown(names: &[String]) -> &[String] {
    &names[..names.len().min(NAMED)]
}

fn listed(names: &[String]) -> String {
    let shown = shown(names);
    let list = shown.join(", ");
    match names.len() - shown.len() {
        0 => list,
        more => format!("{list} and {more} more"),
    }
}

impl FieldMapping {
    fn source_errors(&self, index: usize) -> Vec<MappingError> {
        if self.sources.is_empty() {
            return vec![MappingError::NoSources { index }];
        }
        let fault = |(source_index, source): (usize, &String)| {
            if visibility::is_blank(source) {
                return Some(MappingError::BlankSource {
                    index,
                    source_index,
                });
            }
            let unseen = visibility::first_unseen(source)?;
            Some(MappingError::UnseenInSource {
                index,
                source_index,
                unseen,
            })
        };
        self.sources.iter().enumerate().filter_map(fault).collect()
    }
}

#[cfg(test)]
impl Mapping {
    /// The context key of one record.
    pub(crate) fn context_key(
        &self,
        identifiers: &impl Identifiers,
    ) -> Result<super::ContextKey, RecordError> {
        let mut keys = ContextKeys::default();
        self.map(identifiers, &mut keys)?;
        Ok(keys.into_iter().next().expect("one was added"))
    }
}

#[cfg(test)]
mod tests;
