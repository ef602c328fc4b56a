//! What a vendor's destination can do, in enough detail to draw its forms.

use super::Operation;

/// Something a destination can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Stable id.
    pub id: &'static str,
    /// Human name.
    pub display_name: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// Set when the destination is created.
    pub destination_fields: Vec<ActionField>,
    /// Filled by a mapping from each record.
    pub mapping_fields: Vec<ActionField>,
    /// Set when the destination is activated on a journey.
    pub activation_fields: Vec<ActionField>,
    /// What a record may ask for.
    pub operations: Vec<Operation>,
}

/// A field of an action, enough to draw and check a form control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionField {
    /// Path in the API's JSON.
    pub path: &'static str,
    /// Human label.
    pub display_name: &'static str,
    /// What it is and where to find it.
    pub description: &'static str,
    /// How to draw it.
    pub kind: FieldType,
    /// Whether a value is needed.
    pub required: bool,
    /// RE2 pattern that a value matches as a whole; empty for any.
    pub pattern: String,
    /// Longest value in characters; 0 for no limit.
    pub max_length: u16,
    /// An example to show in an empty control.
    pub placeholder: &'static str,
    /// Value used when there is none.
    pub default_value: &'static str,
    /// Page of the vendor's documentation.
    pub help_uri: &'static str,
}

/// How to draw a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldType {
    /// A line of text.
    Text,
    /// A secret: masked, never sent back.
    Secret,
    /// One of these.
    Choice(Vec<Choice>),
}

/// One value of a choice field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Value to send.
    pub value: &'static str,
    /// Human label.
    pub display_name: &'static str,
}
