//! Serialization of a destination's settings: JSON of its own, so that the domain's types can
//! change without it.
//!
//! The JSON has no version number. A newer version of this program writes new words, and a word
//! that is not known here makes the destination [unusable here](StoredError::Unsupported).

use serde::{Deserialize, Serialize};

use super::stored::{self, StoredError};
use crate::domain::{
    CONTEXT_KEY_FIELD, ClientSideId, Connection, Destination, FieldMapping, Instance, Mapping,
    Transform,
};

/// What column `settings` holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSettings {
    action: String,
    connection: StoredConnection,
    field_mappings: Vec<StoredFieldMapping>,
}

/// A connection without its secrets, under the name of its vendor.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum StoredConnection {
    LaunchDarkly {
        client_side_id: String,
        instance: StoredInstance,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredInstance {
    Commercial,
    Eu,
    Federal,
}

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

/// A destination's settings, read back.
pub(super) struct LoadedSettings {
    pub(super) action: String,
    pub(super) client_side_id: ClientSideId,
    pub(super) instance: Instance,
    pub(super) mapping: Mapping,
}

/// Writes the settings of a destination.
pub(super) fn to_json(destination: &Destination) -> String {
    let Connection {
        access_token: _,
        client_side_id,
        instance,
    } = &destination.connection;
    let settings = StoredSettings {
        action: destination.action.clone(),
        connection: StoredConnection::LaunchDarkly {
            client_side_id: client_side_id.as_str().to_owned(),
            instance: (*instance).into(),
        },
        field_mappings: destination
            .mapping
            .fields()
            .into_iter()
            .map(Into::into)
            .collect(),
    };
    serde_json::to_string(&settings).expect("texts and lists of them become JSON")
}

/// Reads settings.
///
/// # Errors
/// If they are damaged, or hold words that are not known here.
pub(super) fn from_json(json: &str) -> Result<LoadedSettings, StoredError> {
    let StoredSettings {
        action,
        connection:
            StoredConnection::LaunchDarkly {
                client_side_id,
                instance,
            },
        field_mappings,
    } = stored::from_json(json.as_bytes())?;
    Ok(LoadedSettings {
        action,
        client_side_id: ClientSideId::new(client_side_id),
        instance: instance.into(),
        mapping: mapping(field_mappings)?,
    })
}

fn mapping(fields: Vec<StoredFieldMapping>) -> Result<Mapping, StoredError> {
    if let Some(unknown) = fields.iter().find(|each| each.field != CONTEXT_KEY_FIELD) {
        let unknown = format!("unknown mapped field `{}`", unknown.field);
        return Err(StoredError::Unsupported(unknown));
    }
    Mapping::stored(fields.into_iter().map(Into::into).collect())
        .ok_or_else(|| StoredError::Damaged("it maps no field, or one twice".into()))
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

/// Pairs each word of a database with its word of the domain, both ways.
macro_rules! pairs {
    ($stored:ident = $domain:ident { $($word:ident),+ $(,)? }) => {
        impl From<$domain> for $stored {
            fn from(word: $domain) -> Self {
                match word {
                    $($domain::$word => Self::$word,)+
                }
            }
        }

        impl From<$stored> for $domain {
            fn from(word: $stored) -> Self {
                match word {
                    $($stored::$word => Self::$word,)+
                }
            }
        }
    };
}

pairs!(
    StoredInstance = Instance {
        Commercial,
        Eu,
        Federal
    }
);
pairs!(
    StoredTransform = Transform {
        Trim,
        Lowercase,
        Sha256Hex,
        Nfc
    }
);
