//! Conversion of domain types to messages of the contract. A token is never converted, only its
//! hint.

use super::status;
use crate::{
    domain::{
        Action, ActionField, Check, CheckKind, CheckOutcome, Choice, Connection, CredentialFacts,
        CredentialReport, Destination, DestinationState, FieldMapping, FieldType, Instance,
        Operation, Transform,
    },
    pb,
};

pub(crate) fn destination(destination: &Destination) -> pb::Destination {
    let state = match destination.state {
        DestinationState::Active => pb::destination::State::Active,
        DestinationState::CredentialsRejected => pb::destination::State::CredentialsRejected,
    };
    let mappings = destination.mapping.fields();
    pb::Destination {
        name: destination.name.to_string(),
        uid: destination.uid.to_string(),
        display_name: destination.display_name.as_str().to_owned(),
        action: destination.action.clone(),
        config: Some(pb::destination::Config::LaunchDarkly(connection(
            &destination.connection,
        ))),
        field_mappings: mappings.into_iter().map(field_mapping).collect(),
        state: state.into(),
        create_time: Some(destination.create_time.into()),
        update_time: Some(destination.update_time.into()),
        etag: destination.etag().0,
    }
}

fn connection(connection: &Connection) -> pb::LaunchDarklyConfig {
    use pb::launch_darkly_config::Instance as Pb;
    let instance = match connection.instance {
        Instance::Commercial => Pb::Commercial,
        Instance::Eu => Pb::Eu,
        Instance::Federal => Pb::Federal,
    };
    pb::LaunchDarklyConfig {
        access_token: String::new(),
        obfuscated_access_token: connection.access_token.hint(),
        client_side_id: connection.client_side_id.to_string(),
        instance: instance.into(),
    }
}

fn field_mapping(mapping: FieldMapping) -> pb::FieldMapping {
    pb::FieldMapping {
        field: mapping.field,
        sources: mapping.sources.to_vec(),
        transforms: mapping.transforms.into_iter().map(transform).collect(),
    }
}

fn transform(transform: Transform) -> i32 {
    let of_contract = pb::field_mapping::Transform::from_str_name(transform.contract_name());
    of_contract
        .expect("a test finds each transform in the contract")
        .into()
}

pub(crate) fn action(action: &Action) -> pb::Action {
    let fields = |fields: &[ActionField]| fields.iter().map(action_field).collect();
    pb::Action {
        id: action.id.to_owned(),
        display_name: action.display_name.to_owned(),
        description: action.description.to_owned(),
        destination_fields: fields(&action.destination_fields),
        mapping_fields: fields(&action.mapping_fields),
        activation_fields: fields(&action.activation_fields),
        operations: action.operations.iter().copied().map(operation).collect(),
    }
}

fn action_field(field: &ActionField) -> pb::ActionField {
    use pb::action_field::Type as Pb;
    let (kind, choices) = match &field.kind {
        FieldType::Text => (Pb::String, [].as_slice()),
        FieldType::Secret => (Pb::Secret, [].as_slice()),
        FieldType::Choice(choices) => (Pb::Choice, choices.as_slice()),
    };
    let choice = |choice: &Choice| pb::action_field::Choice {
        value: choice.value.to_owned(),
        display_name: choice.display_name.to_owned(),
    };
    pb::ActionField {
        path: field.path.to_owned(),
        display_name: field.display_name.to_owned(),
        description: field.description.to_owned(),
        r#type: kind.into(),
        required: field.required,
        pattern: field
            .pattern
            .as_ref()
            .map(|pattern| pattern.as_str().to_owned())
            .unwrap_or_default(),
        max_length: field.max_length.into(),
        placeholder: field.placeholder.to_owned(),
        default_value: field.default_value.to_owned(),
        choices: choices.iter().map(choice).collect(),
        help_uri: field.help_uri.to_owned(),
    }
}

fn operation(operation: Operation) -> i32 {
    use pb::identifier_record::Operation as Pb;
    let operation = match operation {
        Operation::Add => Pb::Add,
        Operation::Remove => Pb::Remove,
    };
    operation.into()
}

pub(crate) fn report(report: CredentialReport) -> pb::ValidateCredentialsResponse {
    pb::ValidateCredentialsResponse {
        valid: report.is_valid(),
        checks: report.checks.iter().map(check).collect(),
        facts: Some(facts(report.facts)),
    }
}

fn check(check: &Check) -> pb::CredentialCheck {
    use pb::credential_check::{Kind, Outcome};
    let kind = match check.kind {
        CheckKind::AccessToken => Kind::AccessToken,
        CheckKind::ClientSideId => Kind::ClientSideId,
        CheckKind::WritePermission => Kind::WritePermission,
    };
    let outcome = match check.outcome {
        CheckOutcome::Passed => Outcome::Passed,
        CheckOutcome::Failed(_) => Outcome::Failed,
        CheckOutcome::Unknown(_) => Outcome::Unknown,
        CheckOutcome::Skipped => Outcome::Skipped,
    };
    pb::CredentialCheck {
        kind: kind.into(),
        outcome: outcome.into(),
        field: check.field.to_owned(),
        error: status::check_status(&check.outcome, check.field),
    }
}

fn facts(facts: CredentialFacts) -> pb::CredentialFacts {
    pb::CredentialFacts {
        account_id: facts.account_id.unwrap_or_default(),
        token_name: facts.token_name.unwrap_or_default(),
        token_role: facts.token_role.unwrap_or_default(),
        service_token: facts.service_token.unwrap_or_default(),
        project_key: facts.project_key.unwrap_or_default(),
        project_name: facts.project_name.unwrap_or_default(),
        environment_key: facts.environment_key.unwrap_or_default(),
        environment_name: facts.environment_name.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
