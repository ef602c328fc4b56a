//! Actions: what a destination can do, in enough detail to draw its forms.

use super::{Operation, Pattern, change::is_longer};

/// Path of the activation field that holds a context kind.
pub const ACTIVATION_CONTEXT_KIND: &str = "activation.context_kind";

/// Something a destination can do.
#[derive(Debug, Clone)]
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

impl Action {
    /// The field of this path that destinations have: the same in every action that has it.
    #[must_use]
    pub fn destination_field<'a>(actions: &'a [Self], path: &str) -> Option<&'a ActionField> {
        let mut fields = actions.iter().flat_map(|action| &action.destination_fields);
        fields.find(|field| field.path == path)
    }

    /// The field of this path that activations have: the same in every action that has it.
    #[must_use]
    pub fn activation_field<'a>(actions: &'a [Self], path: &str) -> Option<&'a ActionField> {
        let mut fields = actions.iter().flat_map(|action| &action.activation_fields);
        fields.find(|field| field.path == path)
    }
}

/// A field of an action, enough to draw and check a form control. What forms are told of it is
/// what its values are checked against.
#[derive(Debug, Clone)]
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
    /// What a value looks like; none for any.
    pub pattern: Option<Pattern>,
    /// Longest value in characters; 0 for no limit.
    pub max_length: u16,
    /// What is wrong with a value that pattern or length refuse, and what to do about it.
    pub remedy: fn(&str) -> String,
    /// An example to show in an empty control.
    pub placeholder: &'static str,
    /// Value used when there is none.
    pub default_value: &'static str,
    /// Page of the vendor's documentation.
    pub help_uri: &'static str,
}

impl ActionField {
    /// Whether pattern and length take a value.
    #[must_use]
    pub fn accepts(&self, value: &str) -> bool {
        let fits = self.max_length == 0 || !is_longer(value, self.max_length);
        fits && self.pattern.as_ref().is_none_or(|p| p.is_match(value))
    }

    /// Checks a value.
    ///
    /// # Errors
    /// What is wrong with it and what to do about it, in words for the user.
    pub fn check(&self, value: &str) -> Result<(), String> {
        self.accepts(value)
            .then_some(())
            .ok_or_else(|| (self.remedy)(value))
    }
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
