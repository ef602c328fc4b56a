//! Stub server for tests: it answers on loopback as each test says, and records the requests.

use std::{
    net::TcpListener,
    num::NonZeroU16,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Method, StatusCode};
use tokio::{
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::{ClientSettings, Egress, Endpoint, Integration, RequestShape};
use crate::{
    domain::{ClientSideId, Connection, Instance},
    secret::AccessToken,
};

/// One request, as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Runs on a thread of its own, so that nothing it logs mixes with what a test listens to.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    calls: Arc<Mutex<Vec<Call>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers each call as `answer` says; `None` is never to answer.
    pub(super) fn start(
        answer: impl Fn(&Call) -> Option<Response> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let calls = Arc::<Mutex<Vec<Call>>>::default();
        let log = Arc::clone(&calls);
        let app = Router::new().fallback(async move |request| {
            let call = read(request).await;
            log.lock().unwrap().push(call.clone());
            match answer(&call) {
                Some(response) => response,
                None => std::future::pending().await,
            }
        });
        let (stop, stopped) = oneshot::channel();
        Self {
            endpoint: endpoint.parse().unwrap(),
            calls,
            stop: Some(stop),
            thread: Some(std::thread::spawn(move || serve(listener, app, stopped))),
        }
    }

    /// What was asked so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// Settings that send every call here.
    pub(super) fn settings(&self) -> ClientSettings {
        ClientSettings {
            url: Some(self.endpoint.clone()),
            ..ClientSettings::default()
        }
    }
}

/// The integration that is built in.
pub(super) fn zeotap() -> Integration {
    Integration::new("zeotap", RequestShape::built_in("zeotap").unwrap()).unwrap()
}

impl Default for ClientSettings {
    /// Those of a test that does not care.
    fn default() -> Self {
        Self {
            integration: zeotap(),
            url: None,
            egress: Egress::default(),
            attempt_timeout: Duration::from_secs(10),
            max_members_per_call: 1_000,
            max_calls_per_account: NonZeroU16::new(8).expect("eight is not zero"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(listener: TcpListener, app: Router, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tokio::select! {
            served = axum::serve(listener, app).into_future() => served.unwrap(),
            _ = stopped => {}
        }
    });
}

async fn read(request: Request) -> Call {
    let (parts, body) = request.into_parts();
    Call {
        method: parts.method,
        path: parts.uri.path_and_query().unwrap().to_string(),
        headers: parts.headers,
        body: to_bytes(body, usize::MAX).await.unwrap(),
    }
}

/// Stands between a client and a server, and knows the connections.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) endpoint: Endpoint,
    connections: Arc<AtomicUsize>,
    muted: watch::Sender<()>,
}

impl Relay {
    /// Passes on to the server at `target`. Its tasks end with the test's runtime.
    pub(super) async fn start(target: &Endpoint) -> Self {
        let target = target.to_string().replace("http://", "");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let connections = Arc::<AtomicUsize>::default();
        let muted = watch::Sender::new(());
        let (count, mutes) = (Arc::clone(&connections), muted.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(relay(near, target.clone(), mutes.subscribe()));
            }
        });
        Self {
            endpoint: endpoint.parse().unwrap(),
            connections,
            muted,
        }
    }

    /// How many there have been.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Those that are there stay open, and nothing passes on them any more.
    pub(super) fn mute(&self) {
        self.muted.send_replace(());
    }
}

async fn relay(mut near: TcpStream, target: String, mut muted: watch::Receiver<()>) {
    let mut far = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        Ok(()) = muted.changed() => std::future::pending().await,
    }
}

/// An answer of nothing but a status.
pub(super) fn status(code: u16) -> Option<Response> {
    Some(StatusCode::from_u16(code).unwrap().into_response())
}

/// An answer of JSON.
pub(super) fn json(value: serde_json::Value) -> Option<Response> {
    Some(axum::Json(value).into_response())
}

/// A page, as what stands in between sends.
pub(super) fn page(code: u16) -> Option<Response> {
    with_body(code, Body::from("<html>Please sign in</html>"))
}

/// An answer whose body never ends.
pub(super) fn endless(code: u16) -> Option<Response> {
    let chunks = stream::repeat(Bytes::from(vec![b' '; 16 * 1024]));
    with_body(code, Body::from_stream(chunks.map(Ok::<_, std::io::Error>)))
}

/// An answer whose body begins and then stalls for ever.
pub(super) fn stalling(code: u16) -> Option<Response> {
    let chunks = stream::iter([Bytes::from_static(b"{")]).chain(stream::pending());
    with_body(code, Body::from_stream(chunks.map(Ok::<_, std::io::Error>)))
}

fn with_body(code: u16, body: Body) -> Option<Response> {
    Some(Response::builder().status(code).body(body).unwrap())
}

/// A connection as these.
pub(super) fn connection(token: &str, client_side_id: &str) -> Connection {
    Connection {
        access_token: AccessToken::new(token.into()),
        client_side_id: ClientSideId::new(client_side_id.into()),
        instance: Instance::Commercial,
    }
}
