//! `validate`: has the server check credentials with LaunchDarkly, and shows the checks.

use std::{
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use tonic_types::RpcStatusExt;

use super::{Exit, on_detached_thread, remote, remote::ServerArgs, say, terminal::inline};
use crate::pb::{
    CredentialCheck, CredentialFacts, LaunchDarklyConfig, ValidateCredentialsRequest,
    ValidateCredentialsResponse,
    credential_check::{Kind, Outcome},
    launch_darkly_config::Instance,
    validate_credentials_request::Target,
};

/// The server asks LaunchDarkly several things, each within its own attempt time-out.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Variable that holds an access token, in the place of a file.
const TOKEN_VARIABLE: &str = "CONNECTOR_ACCESS_TOKEN";

/// Flags of `validate`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ValidateArgs {
    #[command(flatten)]
    server: ServerArgs,

    /// Stored destination to check, as organizations/{organization}/destinations/{destination}
    #[arg(long, value_name = "NAME", required_unless_present = "client_side_id")]
    #[arg(conflicts_with_all = ["client_side_id", "instance"])]
    destination: Option<String>,

    /// Client-side ID of the environment to check, with a token that is not stored
    #[arg(long, value_name = "ID")]
    client_side_id: Option<String>,

    /// File that holds that access token; - for standard input [default: the variable
    /// CONNECTOR_ACCESS_TOKEN]
    #[arg(long, env = "CONNECTOR_ACCESS_TOKEN_FILE", value_name = "FILE")]
    access_token_file: Option<PathBuf>,

    /// LaunchDarkly instance of that token
    #[arg(long, value_name = "INSTANCE", default_value = "commercial")]
    instance: InstanceArg,
}

const AFTER_HELP: &str = "\
A token is never an argument: other users of a machine see those.

Exit code: 0 no check failed, 1 a check failed, 2 the checks could not be made.";

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum InstanceArg {
    Commercial,
    Eu,
    Federal,
}

/// Runs the command.
pub(super) async fn run(args: ValidateArgs) -> Exit {
    match validate(&args).await {
        Ok(answer) => show(&answer),
        Err(error) => Exit::unable(&error),
    }
}

async fn validate(args: &ValidateArgs) -> anyhow::Result<ValidateCredentialsResponse> {
    let server = args.server.server()?;
    let wanted = args.clone();
    let target = Some(on_detached_thread(move || wanted.target()).await??);
    let ask = async {
        let mut client = remote::connect(&server).await?;
        client
            .validate_credentials(ValidateCredentialsRequest { target })
            .await
    };
    let answer = tokio::time::timeout(CALL_TIMEOUT, ask)
        .await
        .context("no answer in time")?;
    let answer = answer.map_err(|status| anyhow::anyhow!(remote::describe(&status)))?;
    Ok(answer.into_inner())
}

impl ValidateArgs {
    fn target(&self) -> anyhow::Result<Target> {
        if let Some(name) = &self.destination {
            return Ok(Target::Name(name.clone()));
        }
        let instance = match self.instance {
            InstanceArg::Commercial => Instance::Commercial,
            InstanceArg::Eu => Instance::Eu,
            InstanceArg::Federal => Instance::Federal,
        };
        Ok(Target::LaunchDarkly(LaunchDarklyConfig {
            access_token: access_token(self.access_token_file.as_deref())?,
            client_side_id: self.client_side_id.clone().unwrap_or_default(),
            instance: instance.into(),
            ..LaunchDarklyConfig::default()
        }))
    }
}

/// Reads a token, without the line end that editors and `echo` add.
fn access_token(file: Option<&Path>) -> anyhow::Result<String> {
    let text = match file {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            io::stdin()
                .read_to_string(&mut text)
                .context("cannot read standard input")?;
            text
        }
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => match env::var(TOKEN_VARIABLE) {
            Ok(token) if !token.is_empty() => token,
            _ => bail!("no access token: set {TOKEN_VARIABLE}, or use --access-token-file"),
        },
    };
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn show(answer: &ValidateCredentialsResponse) -> Exit {
    for check in &answer.checks {
        say(line(check));
    }
    for fact in answer.facts.iter().flat_map(facts) {
        say(fact);
    }
    if answer.valid {
        Exit::Done
    } else {
        Exit::Negative
    }
}

/// One check as a line for people.
pub(super) fn line(check: &CredentialCheck) -> String {
    let what = match check.kind() {
        Kind::AccessToken => "access token",
        Kind::ClientSideId => "client-side ID",
        Kind::WritePermission => "write permission",
        Kind::Unspecified => "unnamed check",
    };
    let outcome = match check.outcome() {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Unknown => "unknown",
        Outcome::Skipped => "skipped",
        Outcome::Unspecified => "no outcome",
    };
    let head = format!("{what:<16}  {outcome}");
    let Some(error) = &check.error else {
        return head;
    };
    let reason = error
        .get_details_error_info()
        .map(|info| format!(" ({})", inline(info.reason)));
    format!(
        "{head}: {}{}",
        inline(&error.message),
        reason.unwrap_or_default()
    )
}

fn facts(facts: &CredentialFacts) -> impl Iterator<Item = String> {
    let known = |what: &str, value: &str| {
        (!value.is_empty()).then(|| format!("{what:<16}  {}", inline(value)))
    };
    [
        known("account", &facts.account_id),
        known("token name", &facts.token_name),
        known("token role", &facts.token_role),
        known("project", &facts.project_name),
        known("environment", &facts.environment_name),
    ]
    .into_iter()
    .flatten()
}
