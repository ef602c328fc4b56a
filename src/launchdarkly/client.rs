//! The client: it implements the ports of the domain on LaunchDarkly.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Request};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tracing::{Instrument, info, info_span};

use super::{
    actions,
    confirm::Confirmations,
    credentials,
    egress::Egress,
    hosts::{Endpoint, Hosts},
    identify::identify,
    integration::Integration,
    stack::{Stack, Unwritable, authorized},
    throttle::Throttle,
    transport::{Http, Peer, Transport},
};
use crate::domain::{
    Action, Attempt, CallLimits, CallOutcome, Connection, CredentialChecker, CredentialReport,
    CredentialStanding, CredentialsUnavailable, Hold, Observer, Refusal, SegmentCall,
    SegmentClient, SegmentId, Slot,
};

/// How to call LaunchDarkly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// The integration whose calls are sent.
    pub integration: Integration,
    /// Stands for every LaunchDarkly host.
    pub url: Option<Endpoint>,
    /// How calls leave for another machine.
    pub egress: Egress,
    /// Longest that one call may take.
    pub attempt_timeout: Duration,
    /// Most members of one call; at least one.
    pub max_members_per_call: u16,
    /// Most calls that one account may have under way.
    pub max_calls_per_account: NonZeroU16,
}

/// Why a client cannot be made; the operator's to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No encrypted connection could be made.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

/// Calls LaunchDarkly.
#[derive(Debug)]
pub struct Client {
    integration: Integration,
    max_members: usize,
    hosts: Arc<Hosts>,
    stack: Arc<Stack>,
    actions: Vec<Action>,
    /// Identification queries under way; they end with the client at the latest. There is at most
    /// one a minute for each token, and each takes one attempt.
    identifications: Mutex<JoinSet<()>>,
    confirmations: Confirmations,
}

impl Client {
    /// Makes a client; nothing is called yet.
    ///
    /// # Errors
    /// When the system has no root certificates and they are needed.
    pub fn new(settings: ClientSettings) -> Result<Self, ClientError> {
        let peer = match &settings.url {
            Some(endpoint) if endpoint.is_plain_text() => Peer::Loopback,
            _ => Peer::Remote,
        };
        let transport = Http::new(peer, &egress(&settings)).map_err(ClientError::Tls)?;
        Ok(Self::over(Box::new(transport), settings))
    }

    /// Makes a client whose requests another transport carries.
    pub fn over(transport: Box<dyn Transport>, settings: ClientSettings) -> Self {
        Self {
            actions: actions::all(settings.integration.names_context_kind()),
            integration: settings.integration,
            max_members: settings.max_members_per_call.into(),
            hosts: Arc::new(Hosts::new(settings.url)),
            stack: Arc::new(Stack {
                throttle: Throttle::new(settings.max_calls_per_account),
                attempt_timeout: settings.attempt_timeout,
                transport,
                observer: None,
            }),
            identifications: Mutex::default(),
            confirmations: Confirmations::default(),
        }
    }

    /// Tells `observer` of every call that ends from now on, and of every change of an account's
    /// pace.
    ///
    /// # Panics
    /// If the client has been used.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        let stack =
            Arc::get_mut(&mut self.stack).expect("only an identification query shares the stack");
        stack.observer = Some(observer);
        self
    }

    async fn attempt(&self, delivery: &SegmentCall) -> CallOutcome {
        // Another call's answer may have come between `ready` and this.
        if let Some(hold) = self.stack.throttle.server_hold(&delivery.connection) {
            return CallOutcome::Held(hold);
        }
        let Some(body) = self.integration.body(delivery) else {
            tracing::error!(
                "a call was not sent: no request of this integration can carry it, which is a fault of this service"
            );
            return CallOutcome::Refused(Refusal::Payload);
        };
        // All that stands in the request but the token has been checked before.
        let Ok(request) = self.request(&delivery.connection, body) else {
            return CallOutcome::Refused(Refusal::Unauthorized);
        };
        self.stack.deliver(delivery, request).await
    }

    /// Asks whose a token is that has just worked, if that is not known. No caller waits for it.
    fn ask_for_owner(&self, connection: &Arc<Connection>) {
        if !self.stack.throttle.asks_for_owner(connection) {
            return;
        }
        let (stack, hosts) = (Arc::clone(&self.stack), Arc::clone(&self.hosts));
        let connection = Arc::clone(connection);
        let query = async move { identify(&stack, &hosts, &connection).await };
        let mut identifications = self.identifications.lock();
        // Those that have ended leave.
        while identifications.try_join_next().is_some() {}
        identifications.spawn(query.instrument(info_span!("identify")));
    }

    fn request(&self, connection: &Connection, body: Bytes) -> Result<Request<Bytes>, Unwritable> {
        let uri = format!(
            "{}/api/v2/segment-targets/{}",
            self.hosts.rest(connection.instance),
            self.integration.key()
        );
        authorized(Method::POST, &uri, &connection.access_token, body)
    }
}

#[cfg(test)]
impl Client {
    /// Waits until every identification query has ended.
    pub(super) async fn identification_ended(&self) {
        let under_way = std::mem::take(&mut *self.identifications.lock());
        under_way.join_all().await;
    }
}

/// The egress of the calls. An address on this machine is called without a proxy.
fn egress(settings: &ClientSettings) -> Egress {
    let mut egress = settings.egress.clone();
    let stays = settings.url.as_ref().is_some_and(Endpoint::is_loopback);
    if let Some(proxy) = egress.proxy.take_if(|_| stays) {
        info!(%proxy, "the egress proxy is not used: the calls stay on this machine");
    }
    if let Some(proxy) = &egress.proxy {
        info!(%proxy, "calls to LaunchDarkly leave through a proxy");
    }
    egress
}

#[async_trait]
impl SegmentClient for Client {
    async fn ready(
        &self,
        connection: &Arc<Connection>,
        segment: &SegmentId,
        attempt: Attempt,
    ) -> Slot {
        self.stack
            .throttle
            .ready(connection, segment, attempt)
            .await
    }

    fn hold(&self, connection: &Connection) -> Option<Hold> {
        self.stack.throttle.hold(connection)
    }

    fn connection_replaced(&self, before: &Connection, after: &Connection) {
        self.stack.throttle.replace(before, after);
    }

    fn limits(&self, connection: &Connection) -> CallLimits {
        let known = self.stack.throttle.max_members(connection);
        CallLimits {
            max_members: known.map_or(self.max_members, |known| known.min(self.max_members)),
            operations: self.integration.operations(),
        }
    }

    fn learn_max_members(&self, connection: &Connection, members: usize) {
        self.stack.throttle.learn_max_members(connection, members);
    }

    async fn apply(&self, slot: Slot, delivery: &SegmentCall) -> CallOutcome {
        let span = info_span!(
            "attempt",
            segment.id = %delivery.segment.id,
            segment.kind = %delivery.segment.kind,
            attempt.members = delivery.members.len(),
        );
        let outcome = self.attempt(delivery).instrument(span).await;
        drop(slot);
        if outcome == CallOutcome::Applied {
            self.ask_for_owner(&delivery.connection);
        }
        outcome
    }

    async fn confirm(&self, connection: &Arc<Connection>, refusal: Refusal) -> CredentialStanding {
        let span = info_span!("confirm", ?refusal);
        let (stack, hosts) = (&self.stack, &self.hosts);
        let asking = self
            .confirmations
            .confirm(stack, hosts, connection, refusal);
        asking.instrument(span).await
    }
}

#[async_trait]
impl CredentialChecker for Client {
    fn actions(&self) -> &[Action] {
        &self.actions
    }

    async fn check_credentials(
        &self,
        connection: &Connection,
    ) -> Result<CredentialReport, CredentialsUnavailable> {
        credentials::check(&self.stack, &self.hosts, connection).await
    }
}
