//! How a request travels: the only place that knows reqwest.
//!
//! [`Transport`] is where the network ends and this client begins. Whatever stands in for the
//! network, such as a simulated one, is another transport; all that is above it stays the same.

use std::{error::Error as _, fmt, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use reqwest::{Client, ClientBuilder, redirect, retry, tls};

use super::body::{Body, BrokenOff};
use crate::domain::Trouble;

/// Longest wait for a connection: it leaves half of an attempt's ten seconds for the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept; under the minute after which many load balancers
/// close theirs, so that a call seldom meets a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// How often a connection is probed, so that one that has died silently is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Who calls.
const USER_AGENT: &str = concat!("launchdarkly-connector/", env!("CARGO_PKG_VERSION"));

/// Carries one request to its host and brings the head of the answer; no retries, no redirects.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// Sends a request. Cancel safe in so far as dropping gives the request up; it may have
    /// arrived. It need not end by itself: every attempt has its time-out.
    ///
    /// # Errors
    /// Why there is no answer, which is worth another attempt.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Trouble>;
}

/// What is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Some host, which must prove who it is.
    Remote,
    /// This machine, by plain `http`.
    Loopback,
}

/// HTTP over pooled connections, with TLS by rustls and aws-lc-rs.
#[derive(Debug)]
pub(super) struct Http(Client);

impl Http {
    /// Makes a pool.
    ///
    /// # Errors
    /// In words, when the system's root certificates cannot be loaded.
    pub(super) fn new(peer: Peer) -> Result<Self, String> {
        builder(peer)
            .build()
            .map(Self)
            .map_err(|error| in_full(&error))
    }
}

fn builder(peer: Peer) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        // A redirect would carry the token to whoever is named in it.
        .redirect(redirect::Policy::none())
        // The lane retries; a second retry below it would multiply calls unseen.
        .retry(retry::never())
        // Tokens go to LaunchDarkly alone, not to whatever the environment names as a proxy.
        .no_proxy()
        .referer(false)
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_keepalive(KEEP_ALIVE)
        .http2_keep_alive_interval(KEEP_ALIVE);
    match peer {
        Peer::Remote => builder.https_only(true),
        // No certificate is ever looked at, so the system need not have any.
        Peer::Loopback => builder.tls_certs_only([]),
    }
}

#[async_trait]
impl Transport for Http {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Trouble> {
        let answer = async { self.0.execute(request.try_into()?).await }.await;
        match answer {
            Ok(response) => Ok(http::Response::<reqwest::Body>::from(response).map(|body| {
                body.map_err(|error| BrokenOff(trouble(&error)))
                    .boxed_unsync()
            })),
            Err(error) => {
                let error = error.without_url();
                tracing::warn!(error = in_full(&error), "no answer from LaunchDarkly");
                Err(trouble(&error))
            }
        }
    }
}

fn trouble(error: &reqwest::Error) -> Trouble {
    // A connection that is not made in time has carried nothing: that is not a time-out.
    if error.is_timeout() && !error.is_connect() {
        Trouble::TimedOut
    } else {
        Trouble::Connection
    }
}

/// An error with its causes, which is where reqwest keeps what an operator wants to know.
/// None of them holds headers or bodies.
fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
impl Http {
    /// Speaks HTTP/2 without TLS, so that a test sees what that part of the stack logs.
    pub(super) fn over_http2() -> Self {
        Self(
            builder(Peer::Loopback)
                .http2_prior_knowledge()
                .build()
                .unwrap(),
        )
    }
}
