//! Fake vendor: it answers as a test says.

use std::sync::Mutex;

use async_trait::async_trait;

use crate::domain::{
    Action, ActionField, Connection, CredentialChecker, CredentialReport, CredentialsUnavailable,
    FieldType, Pattern,
};

/// Answers every check of credentials alike, and keeps what it was asked.
#[derive(Debug)]
pub(super) struct Oracle {
    pub(super) actions: Vec<Action>,
    pub(super) answer: Mutex<Result<CredentialReport, CredentialsUnavailable>>,
    pub(super) asked: Mutex<Vec<Connection>>,
}

impl Oracle {
    pub(super) fn with_actions(ids: &[&'static str]) -> Self {
        let action = |id: &&'static str| Action {
            id,
            display_name: "Send",
            description: "Sends.",
            destination_fields: vec![
                field("launch_darkly.access_token", "^[!-~]+$", 512),
                field("launch_darkly.client_side_id", "^[a-z0-9]+$", 64),
            ],
            mapping_fields: vec![],
            activation_fields: vec![],
            operations: vec![],
        };
        Self {
            actions: ids.iter().map(action).collect(),
            answer: Mutex::new(Ok(CredentialReport::default())),
            asked: Mutex::default(),
        }
    }
}

fn field(path: &'static str, pattern: &str, max_length: u16) -> ActionField {
    ActionField {
        path,
        display_name: "Field",
        description: "A field.",
        kind: FieldType::Text,
        required: true,
        pattern: Some(Pattern::new(pattern)),
        max_length,
        remedy: |_| "copy it again".to_owned(),
        placeholder: "",
        default_value: "",
        help_uri: "",
    }
}

#[async_trait]
impl CredentialChecker for Oracle {
    fn actions(&self) -> &[Action] {
        &self.actions
    }

    async fn check_credentials(
        &self,
        connection: &Connection,
    ) -> Result<CredentialReport, CredentialsUnavailable> {
        self.asked.lock().unwrap().push(connection.clone());
        self.answer.lock().unwrap().clone()
    }
}
