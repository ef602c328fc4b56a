//! Credential reports, and the port that checks credentials.

use std::fmt;

use async_trait::async_trait;

use super::{Action, Connection};

/// Everything known about a set of credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialReport {
    /// One entry per [`CheckKind`], in its order.
    pub checks: Vec<Check>,
    /// The facts that the vendor disclosed.
    pub facts: CredentialFacts,
}

impl CredentialReport {
    /// Whether no check failed; what cannot be known is no failure.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let failed = |check: &Check| matches!(check.outcome, CheckOutcome::Failed(_));
        !self.checks.iter().any(failed)
    }
}

/// Outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub kind: CheckKind,
    /// Verdict.
    pub outcome: CheckOutcome,
    /// Form field to mark, such as `launch_darkly.access_token`.
    pub field: &'static str,
}

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckKind {
    /// The vendor accepts the access token.
    AccessToken,
    /// The client-side ID names an environment that the token's account has.
    ClientSideId,
    /// The token may write segments in that environment.
    WritePermission,
}

/// Verdict of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Holds.
    Passed,
    /// Does not hold.
    Failed(Finding),
    /// The vendor does not let this token find out.
    Unknown(Finding),
    /// Not run, because an earlier check failed.
    Skipped,
}

/// Why a check failed or cannot be decided, and what the user should do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable UPPER_SNAKE reason to branch on.
    pub reason: &'static str,
    /// Sentences for the user: what is wrong, and the remedy. Never holds the token.
    pub message: String,
}

/// The facts that the vendor disclosed about a set of credentials; unset ones are unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialFacts {
    /// Account ID.
    pub account_id: Option<String>,
    /// Name the user gave to the token.
    pub token_name: Option<String>,
    /// Base role; unset for custom roles.
    pub token_role: Option<String>,
    /// Whether it is a service token.
    pub service_token: Option<bool>,
    /// Key of the environment's project.
    pub project_key: Option<String>,
    /// Name of that project.
    pub project_name: Option<String>,
    /// Key of the environment.
    pub environment_key: Option<String>,
    /// Name of the environment.
    pub environment_name: Option<String>,
}

/// The vendor could not be asked: its fault or the network's, and no verdict on the credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("LaunchDarkly could not be asked: {error}")]
pub struct CredentialsUnavailable {
    /// What stood in the way, in words without secrets.
    pub error: super::TransientError,
    /// How long the vendor asked to wait.
    pub retry_after: Option<std::time::Duration>,
}

/// What the control plane needs of a vendor.
#[async_trait]
pub trait CredentialChecker: Send + Sync + fmt::Debug + 'static {
    /// What its destinations can do, in a stable order.
    fn actions(&self) -> &[Action];

    /// Checks credentials; bad ones are a report with a failed check.
    async fn check_credentials(
        &self,
        connection: &Connection,
    ) -> Result<CredentialReport, CredentialsUnavailable>;
}
