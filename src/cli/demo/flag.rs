//! Flag evaluation: the value of a flag for a user, read as LaunchDarkly's client-side SDKs read
//! it.

use std::time::Duration;

use anyhow::Context;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::sandbox::fixtures;

/// The sandbox is in this process: anything longer is a hang.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks whether [`fixtures::FLAG`] is on for the user with this key.
pub(super) async fn is_on(sandbox: &str, key: &str) -> anyhow::Result<bool> {
    let context = json!({"kind": "user", "key": key}).to_string();
    let context = BASE64_URL_SAFE_NO_PAD.encode(context);
    let environment = fixtures::CLIENT_SIDE_ID;
    let url = format!("{sandbox}/sdk/evalx/{environment}/contexts/{context}");
    // This request stands for another program, an application with an SDK.
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    let answer = client
        .get(url)
        .send()
        .await?
        .error_for_status()?
        .bytes()
        .await?;
    let flags: Value = serde_json::from_slice(&answer)?;
    flags[fixtures::FLAG]["value"]
        .as_bool()
        .with_context(|| format!("the sandbox does not know the flag {}", fixtures::FLAG))
}
