//! Queries of a credential check: the calls of LaunchDarkly's REST API.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::judge::{Existence, RoleAccess};
use crate::{
    domain::{Connection, CredentialsUnavailable, TransientError},
    launchdarkly::{
        body::{self, Form, Unread},
        classify,
        hosts::Hosts,
        identify,
        stack::{Stack, Unwritable, VendorResponse, anonymous, authorized},
        wire::{CallerIdentity, TokenDetails},
    },
};

/// Asks LaunchDarkly about one set of credentials, until a deadline.
#[derive(Debug)]
pub(super) struct Lookup<'a> {
    pub(super) stack: &'a Stack,
    pub(super) hosts: &'a Hosts,
    pub(super) connection: &'a Connection,
    pub(super) deadline: Instant,
}

/// An answer to a query that a token may not be allowed to ask.
#[derive(Debug)]
pub(super) enum Reported<T> {
    /// The answer.
    This(T),
    /// The token may not know: 401, 403 or 404.
    Denied(StatusCode),
}

impl Lookup<'_> {
    /// Identity of the token.
    pub(super) async fn identity(
        &self,
    ) -> Result<Reported<CallerIdentity>, CredentialsUnavailable> {
        match self.get(identify::PATH).await? {
            // That it does not exist says something about the host, not about the token.
            Reported::Denied(status @ StatusCode::NOT_FOUND) => {
                Err(unavailable(TransientError::Status(status.as_u16())))
            }
            Reported::This::<CallerIdentity>(identity) => {
                let account = identity.account_id.as_deref();
                self.stack.throttle.identify(self.connection, account);
                Ok(Reported::This(identity))
            }
            told => Ok(told),
        }
    }

    /// What the token may do. An id that could not stand in a path is not asked about.
    pub(super) async fn role(
        &self,
        token: Option<&str>,
    ) -> Result<RoleAccess, CredentialsUnavailable> {
        let Some(id) = token.filter(|id| is_key(id)) else {
            return Ok(RoleAccess::Hidden);
        };
        match self
            .get::<TokenDetails>(&format!("/api/v2/tokens/{id}"))
            .await?
        {
            Reported::This(details) => Ok(RoleAccess::of(details)),
            Reported::Denied(_) => Ok(RoleAccess::Hidden),
        }
    }

    /// Whether any account has the environment; needs no token, and sends none. So it counts for
    /// no account: it takes no permit, and no answer to it holds up deliveries.
    pub(super) async fn existence(&self) -> Result<Existence, CredentialsUnavailable> {
        let Some(host) = self.hosts.client_sdk(self.connection.instance) else {
            return Ok(Existence::Undetermined);
        };
        let uri = format!("{host}/sdk/goals/{}", self.connection.client_side_id);
        let request = written(anonymous(Method::HEAD, &uri, Bytes::new()))?;
        let answer = match timeout_at(self.deadline, self.stack.send(request)).await {
            Ok(answer) => self.within_time(answer)?,
            Err(_) => return Err(unavailable(TransientError::TimedOut)),
        };
        match answer.status {
            StatusCode::NOT_FOUND => Ok(Existence::Nowhere),
            status if status.is_success() => Ok(Existence::Somewhere),
            status if classify::transient_error(status).is_some() => {
                Err(unavailable_answer(&answer))
            }
            _ => Ok(Existence::Undetermined),
        }
    }

    /// Gets a reply of the REST API.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Reported<T>, CredentialsUnavailable> {
        let uri = format!("{}{path}", self.hosts.rest(self.connection.instance));
        let token = &self.connection.access_token;
        let answer = self
            .send(authorized(Method::GET, &uri, token, Bytes::new()))
            .await?;
        match answer.status.as_u16() {
            200 => decode(answer, path).await.map(Reported::This),
            401 | 403 | 404 => {
                let status = answer.status;
                match body::form_of_refusal(answer.body, answer.deadline).await {
                    // A page is not LaunchDarkly's word.
                    Ok(Form::Other) => {
                        Err(unavailable(TransientError::Intercepted(status.as_u16())))
                    }
                    _ => Ok(Reported::Denied(status)),
                }
            }
            _ => Err(unavailable_answer(&answer)),
        }
    }

    /// Makes one call in the account's turn. Its slot is given back with the head of the answer,
    /// so that a slow reply holds up no deliveries.
    async fn send(
        &self,
        request: Result<Request<Bytes>, Unwritable>,
    ) -> Result<VendorResponse, CredentialsUnavailable> {
        let request = written(request)?;
        let call = async {
            let throttle = &self.stack.throttle;
            let _slot = throttle.ready_for_query(self.connection).await;
            self.stack.ask(self.connection, request).await
        };
        match timeout_at(self.deadline, call).await {
            Ok(answer) => self.within_time(answer),
            Err(_) => Err(self.out_of_time()),
        }
    }

    /// An answer whose body has no more time than the whole lookup.
    fn within_time(
        &self,
        answer: Result<VendorResponse, TransientError>,
    ) -> Result<VendorResponse, CredentialsUnavailable> {
        let mut answer = answer.map_err(unavailable)?;
        answer.deadline = answer.deadline.min(self.deadline);
        Ok(answer)
    }

    /// Time may have been spent waiting for LaunchDarkly, or waiting as it had asked.
    fn out_of_time(&self) -> CredentialsUnavailable {
        match self.stack.throttle.hold(self.connection) {
            Some(hold) => CredentialsUnavailable {
                error: hold.error,
                retry_after: Some(hold.until.saturating_duration_since(Instant::now())),
            },
            None => unavailable(TransientError::TimedOut),
        }
    }
}

fn written(
    request: Result<Request<Bytes>, Unwritable>,
) -> Result<Request<Bytes>, CredentialsUnavailable> {
    // The form of what stands in these requests has been checked by `mistakes`.
    request.map_err(|_| unavailable(TransientError::Connection))
}

async fn decode<T: DeserializeOwned>(
    answer: VendorResponse,
    path: &str,
) -> Result<T, CredentialsUnavailable> {
    // What is not the expected JSON is no answer of LaunchDarkly's API, whatever its status;
    // neither the reply nor the decoder's words about it are repeated.
    let garbled = |what: &str| {
        tracing::warn!(path, what, "LaunchDarkly's answer could not be understood");
        unavailable(TransientError::Intercepted(StatusCode::OK.as_u16()))
    };
    match body::read(answer.body, answer.deadline).await {
        Ok(reply) => serde_json::from_slice(&reply).map_err(|_| garbled("not the expected JSON")),
        Err(Unread::TooLarge) => Err(garbled("too large")),
        Err(Unread::TransientError(error)) => Err(unavailable(error)),
    }
}

fn unavailable(error: TransientError) -> CredentialsUnavailable {
    CredentialsUnavailable {
        error,
        retry_after: None,
    }
}

fn unavailable_answer(answer: &VendorResponse) -> CredentialsUnavailable {
    let status = answer.status;
    CredentialsUnavailable {
        error: classify::transient_error(status).unwrap_or(TransientError::Status(status.as_u16())),
        retry_after: answer
            .rate_headers
            .wait(status)
            .filter(|wait| !wait.is_zero()),
    }
}

/// Whether a text is of the alphabet of LaunchDarkly's keys, which is safe in a path.
pub(super) fn is_key(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    text.bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(legal)
}
