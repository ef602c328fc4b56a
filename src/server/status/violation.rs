//! Field violations: what is wrong with the fields of a request, as much as fits into an answer.

use std::fmt;

use tonic_types::FieldViolation;

/// Most violations in one answer. They travel in a trailer, and gRPC clients refuse trailers
/// beyond some 8 KiB: at up to 350 bytes each (in base64) this many stay well below.
pub(super) const MAX_VIOLATIONS: usize = 16;

/// One field of a request, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Its path in the request, such as `destination.field_mappings[1].sources`.
    pub field: String,
    /// What is wrong and what would be right; never the value itself, which may be a secret.
    pub description: String,
}

impl Violation {
    pub(crate) fn new(field: impl Into<String>, description: impl fmt::Display) -> Self {
        Self {
            field: field.into(),
            description: description.to_string(),
        }
    }
}

/// The message: the first violation, and how many more there are.
pub(super) fn summary(violations: &[Violation]) -> String {
    match violations {
        [] => "the request is invalid".to_owned(),
        [one] => format!("{}: {}", one.field, one.description),
        [first, rest @ ..] => format!(
            "{}: {} (and {} more)",
            first.field,
            first.description,
            rest.len()
        ),
    }
}

/// The violations of an answer, as many as fit.
pub(super) fn field_violations(violations: &[Violation]) -> Vec<FieldViolation> {
    let mut shown: Vec<_> = violations
        .iter()
        .take(MAX_VIOLATIONS)
        .map(|v| FieldViolation::new(&v.field, &v.description))
        .collect();
    if let Some(next) = violations.get(MAX_VIOLATIONS) {
        let hidden = violations.len() - MAX_VIOLATIONS;
        let note = format!("{hidden} more, from here on, are not shown; mend the others first");
        shown.push(FieldViolation::new(&next.field, note));
    }
    shown
}
