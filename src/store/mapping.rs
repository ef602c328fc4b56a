//! How a mapping is written in a database: as JSON of its own, so that the domain's types can
//! change without it.

use serde::{Deserialize, Serialize};

use crate::domain::{FieldMapping, Mapping, Transform};

/// A field mapping as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredFieldMapping {
    field: String,
    sources: Vec<String>,
    transforms: Vec<StoredTransform>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredTransform {
    Trim,
    Lowercase,
    Sha256Hex,
    Nfc,
}

/// Writes a mapping.
pub(super) fn to_text(mapping: &Mapping) -> String {
    let fields: Vec<StoredFieldMapping> = mapping.fields().into_iter().map(Into::into).collect();
    serde_json::to_string(&fields).expect("lists of text become JSON")
}

/// Reads a mapping; `None` if it is none.
pub(super) fn from_text(text: &str) -> Option<Mapping> {
    let fields: Vec<StoredFieldMapping> = serde_json::from_str(text).ok()?;
    Mapping::stored(fields.into_iter().map(Into::into).collect())
}

impl From<FieldMapping> for StoredFieldMapping {
    fn from(mapping: FieldMapping) -> Self {
        Self {
            field: mapping.field,
            sources: mapping.sources.to_vec(),
            transforms: mapping.transforms.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<StoredFieldMapping> for FieldMapping {
    fn from(stored: StoredFieldMapping) -> Self {
        Self {
            field: stored.field,
            sources: stored.sources.into(),
            transforms: stored.transforms.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<Transform> for StoredTransform {
    fn from(transform: Transform) -> Self {
        match transform {
            Transform::Trim => Self::Trim,
            Transform::Lowercase => Self::Lowercase,
            Transform::Sha256Hex => Self::Sha256Hex,
            Transform::Nfc => Self::Nfc,
        }
    }
}

impl From<StoredTransform> for Transform {
    fn from(stored: StoredTransform) -> Self {
        match stored {
            StoredTransform::Trim => Self::Trim,
            StoredTransform::Lowercase => Self::Lowercase,
            StoredTransform::Sha256Hex => Self::Sha256Hex,
            StoredTransform::Nfc => Self::Nfc,
        }
    }
}
