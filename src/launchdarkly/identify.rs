//! Identification of a stored token's account: one query beside its deliveries.

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    body::{self, Form},
    hosts::Hosts,
    stack::{Stack, VendorResponse, authorized},
    wire::CallerIdentity,
};
use crate::domain::Connection;

/// The route that returns the account of a call's token.
pub(super) const PATH: &str = "/api/v2/caller-identity";

/// Asks for the account of a connection's token, and tells the throttle. It waits for no slot: it
/// must delay no delivery, and is sent only while the account has spare capacity. Ends within the
/// attempt's time-out. Without an answer it is sent again after a minute at the earliest; a failure
/// has no other consequence.
pub(super) async fn identify(stack: &Stack, hosts: &Hosts, connection: &Connection) {
    let uri = format!("{}{PATH}", hosts.rest(connection.instance));
    let Ok(request) = authorized(Method::GET, &uri, &connection.access_token, Bytes::new()) else {
        return;
    };
    let Ok(answer) = stack.ask(connection, request).await else {
        return;
    };
    match answer.status {
        StatusCode::OK => {
            if let Some(identity) = decode(answer).await {
                let account = identity.account_id.as_deref();
                stack.throttle.identify(connection, account);
            }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            let form = body::form_of_refusal(answer.body, answer.deadline).await;
            // LaunchDarkly would say so again; whatever has answered in its place may not.
            if form != Ok(Form::Other) {
                stack.throttle.identify(connection, None);
            }
        }
        _ => body::drain(answer.body, answer.deadline).await,
    }
}

async fn decode(answer: VendorResponse) -> Option<CallerIdentity> {
    let reply = body::read(answer.body, answer.deadline).await.ok()?;
    serde_json::from_slice(&reply).ok()
}
