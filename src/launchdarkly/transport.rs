//! HTTP transport: the only module of the service, with its folder, that knows reqwest.
//!
//! [`Transport`] is where the network ends and this client begins. Whatever stands in for the
//! network, such as a simulated one, is another transport; all that is above it stays the same.

mod error;
pub(super) mod roots;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode, uri::Authority};
use http_body_util::BodyExt;
use parking_lot::{Mutex, MutexGuard};
use reqwest::{Certificate, Client, ClientBuilder, Proxy, redirect, retry, tls};
use tokio::time::Instant;

use self::error::{transient_error, with_causes};
use super::{
    body::{Body, BrokenOff},
    egress::Egress,
    renewal::{Generation, Renewal},
};
use crate::domain::TransientError;

/// Longest wait for a connection: it leaves half of an attempt's ten seconds for the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an unused connection is kept; under the minute after which many load balancers
/// close theirs, so that a call seldom meets a connection that is just being closed.
const POOL_IDLE: Duration = Duration::from_secs(50);
/// How often a connection is probed, so that one that has died silently is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The `User-Agent`.
const USER_AGENT: &str = concat!("launchdarkly-connector/", env!("CARGO_PKG_VERSION"));

/// Carries one request to its host and brings the head of the answer; no retries, no redirects.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug + 'static {
    /// Sends a request. Cancel safe in so far as dropping gives the request up; it may have
    /// arrived. It need not end by itself: every attempt has its time-out.
    ///
    /// # Errors
    /// Why there is no answer, which is worth another attempt.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransientError>;
}

/// What is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// Another machine, which must prove its identity.
    Remote,
    /// This machine, by plain `http`.
    Loopback,
}

/// HTTP over pooled connections, with TLS by rustls and aws-lc-rs. Each host has a pool of its own,
/// which is replaced by a new one when its [generation](super::renewal) ends.
pub(super) struct Http {
    make: Box<dyn Fn() -> Result<Client, String> + Send + Sync>,
    renewal: Renewal,
    /// As many as there are LaunchDarkly hosts.
    pools: Mutex<HashMap<Authority, Arc<Pool>>>,
}

/// The connections to one host.
struct Pool {
    client: Client,
    generation: Mutex<Generation>,
}

impl Pool {
    fn generation(&self) -> MutexGuard<'_, Generation> {
        self.generation.lock()
    }
}

/// A request under way; its outcome says whether the connections work.
struct PooledRequest<'a> {
    pool: &'a Pool,
    started: Instant,
    ended: bool,
}

impl PooledRequest<'_> {
    fn answered(mut self, status: StatusCode, renewal: Renewal) {
        self.ended = true;
        let now = Instant::now();
        self.pool.generation().answered(status, renewal, now);
    }

    /// The connection was not made or broke: then there is none to be kept.
    fn broke(mut self) {
        self.ended = true;
    }
}

impl Drop for PooledRequest<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.pool.generation().gave_up(self.started);
        }
    }
}

/// A client's own would show the proxy's password.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    /// Makes ready; nothing is connected yet.
    ///
    /// # Errors
    /// In words, when the system's root certificates cannot be loaded.
    pub(super) fn new(peer: Peer, egress: &Egress) -> Result<Self, String> {
        let egress = egress.clone();
        let make = move || {
            let client = builder(peer, &egress).and_then(ClientBuilder::build);
            // A URL may be the proxy's.
            client.map_err(|error| with_causes(&error.without_url()))
        };
        // So that what is wrong shows at the start.
        make()?;
        Ok(Self::with(make, Renewal::default()))
    }

    fn with(
        make: impl Fn() -> Result<Client, String> + Send + Sync + 'static,
        renewal: Renewal,
    ) -> Self {
        Self {
            make: Box::new(make),
            renewal,
            pools: Mutex::default(),
        }
    }

    /// The connections that a call to a host goes over.
    fn pool(&self, host: &Authority) -> Result<Arc<Pool>, TransientError> {
        let now = Instant::now();
        let mut pools = self.pools.lock();
        let known = pools.get(host);
        if let Some(pool) = known.filter(|pool| !pool.generation().is_over(now)) {
            return Ok(Arc::clone(pool));
        }
        let client = match (self.make)() {
            Ok(client) => client,
            Err(error) => {
                tracing::error!(error, "new connections to LaunchDarkly cannot be set up");
                // Those of before may serve on.
                return known.map(Arc::clone).ok_or(TransientError::Connection);
            }
        };
        let generation = Generation::new(self.renewal, now, fastrand::f64());
        let pool = Arc::new(Pool {
            client,
            generation: Mutex::new(generation),
        });
        pools.insert(host.clone(), Arc::clone(&pool));
        Ok(pool)
    }
}

fn builder(peer: Peer, egress: &Egress) -> reqwest::Result<ClientBuilder> {
    let builder = Client::builder()
        .user_agent(USER_AGENT)
        // A redirect would carry the token to the host that it names.
        .redirect(redirect::Policy::none())
        // The lane retries; a second retry below it would multiply calls unseen.
        .retry(retry::never())
        // Only the operator's flags name a proxy. The environment's variables do not.
        .no_proxy()
        .referer(false)
        .tls_version_min(tls::Version::TLS_1_2)
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .tcp_keepalive(KEEP_ALIVE)
        .http2_keep_alive_interval(KEEP_ALIVE);
    match peer {
        Peer::Remote => with_egress(builder.https_only(true), egress),
        // No certificate is ever looked at, so the system need not have any.
        Peer::Loopback => Ok(builder.tls_certs_only([])),
    }
}

fn with_egress(mut builder: ClientBuilder, egress: &Egress) -> reqwest::Result<ClientBuilder> {
    if let Some(proxy) = &egress.proxy {
        builder = builder.proxy(Proxy::https(proxy.expose())?);
    }
    if let Some(roots) = &egress.roots {
        builder = builder.tls_certs_merge(Certificate::from_pem_bundle(roots.pem())?);
    }
    Ok(builder)
}

#[async_trait]
impl Transport for Http {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransientError> {
        let host = request
            .uri()
            .authority()
            .ok_or(TransientError::Connection)?;
        let pool = self.pool(host)?;
        let pooled = PooledRequest {
            pool: &pool,
            started: Instant::now(),
            ended: false,
        };
        match async { pool.client.execute(request.try_into()?).await }.await {
            Ok(response) => {
                pooled.answered(response.status(), self.renewal);
                Ok(http::Response::<reqwest::Body>::from(response).map(|body| {
                    body.map_err(|error| BrokenOff(transient_error(&error)))
                        .boxed_unsync()
                }))
            }
            Err(error) => {
                pooled.broke();
                let error = error.without_url();
                tracing::warn!(error = with_causes(&error), "no answer from LaunchDarkly");
                Err(transient_error(&error))
            }
        }
    }
}

#[cfg(test)]
impl Http {
    /// Speaks HTTP/2 without TLS, as over TLS it is what LaunchDarkly speaks.
    pub(super) fn over_http2(renewal: Renewal) -> Self {
        let make = || {
            let builder = builder(Peer::Loopback, &Egress::default())?;
            builder.http2_prior_knowledge().build()
        };
        Self::with(move || make().map_err(|error| with_causes(&error)), renewal)
    }
}
