//! The simulated network: what hosts speak over in the place of sockets.

use std::{
    convert::Infallible,
    error::Error,
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use axum::serve::Listener;
use bytes::Bytes;
use futures_util::{
    Stream,
    future::{Either, select},
    stream,
};
use http::{HeaderValue, Request, Response, Uri, header::HOST};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use launchdarkly_connector::{
    domain::TransientError,
    launchdarkly::{Body, Transport},
    sandbox,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::{Channel, server::Connected};
use turmoil::net::{TcpListener, TcpStream};

use crate::support::executor;

/// The host of the service under test.
pub(super) const SERVER: &str = "connector";
/// The host of the sandbox: the name by which the real one is called.
pub(super) const LAUNCHDARKLY: &str = "app.launchdarkly.com";
/// Every host listens on one port alone.
const PORT: u16 = 443;

/// The connections of one run of a host, which may die.
///
/// A runtime that is dropped drops its tasks in an order that hangs on how many tasks the process
/// has ever had; if each of their connections said farewell, a seed could not be repeated. So a
/// host dies as in a power cut: without a word, and whoever speaks to it later is reset.
#[derive(Clone, Debug, Default)]
pub(super) struct Connections(Arc<Mutex<Fate>>);

#[derive(Debug, Default)]
struct Fate {
    dead: bool,
    /// What the dead has left. It must be dropped outside of the simulation.
    left: Vec<TcpStream>,
}

impl Connections {
    /// From now on, what is dropped says nothing.
    pub(super) fn die(&self) {
        self.lock().dead = true;
    }

    /// Drops what the dead has left; not to be called by a host.
    pub(super) fn bury(&self) {
        self.lock().left.clear();
    }

    fn wire(&self, stream: TcpStream) -> Wire {
        Wire {
            stream: Some(stream),
            connections: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Fate> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A simulated connection, as the service and the sandbox take it.
pub(super) struct Wire {
    /// Taken when it is dropped.
    stream: Option<TcpStream>,
    connections: Connections,
}

impl Wire {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        let stream = self.get_mut().stream.as_mut();
        Pin::new(stream.expect("it is taken by drop alone"))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let mut fate = self.connections.lock();
        if fate.dead {
            fate.left.extend(self.stream.take());
        }
    }
}

impl Connected for Wire {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl sandbox::Wire for Wire {}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(context)
    }
}

/// Where this host takes connections.
pub(super) struct Port {
    listener: TcpListener,
    connections: Connections,
}

impl Port {
    pub(super) async fn open(connections: Connections) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await?;
        Ok(Self {
            listener,
            connections,
        })
    }

    /// The connections, one by one.
    pub(super) fn incoming(self) -> impl Stream<Item = io::Result<Wire>> + Send + 'static {
        stream::unfold(self, |port| async move {
            let accepted = port.listener.accept().await;
            let wire = accepted.map(|(stream, _)| port.connections.wire(stream));
            Some((wire, port))
        })
    }
}

impl Listener for Port {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        let accepted = self.listener.accept().await;
        let (stream, address) = accepted.expect("turmoil always accepts");
        (self.connections.wire(stream), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// Connects a client to the service; a dead connection is noticed within `patience`.
pub(super) async fn connect(patience: Duration) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(|_: Uri| async {
        let stream = TcpStream::connect((SERVER, PORT)).await?;
        Ok::<_, io::Error>(TokioIo::new(stream))
    });
    executor::endpoint(format!("http://{SERVER}"), patience)
        .connect_with_connector(connector)
        .await
}

/// How the service calls LaunchDarkly: a connection for each call.
#[derive(Debug)]
pub(super) struct Calls(pub(super) Connections);

#[async_trait]
impl Transport for Calls {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, TransientError> {
        let answer = call(request, &self.0).await;
        answer.map_err(|_| TransientError::Connection)
    }
}

async fn call(
    mut request: Request<Bytes>,
    connections: &Connections,
) -> Result<Response<Body>, Box<dyn Error + Send + Sync>> {
    let host = request
        .uri()
        .host()
        .ok_or("a call names its host")?
        .to_owned();
    let path = request.uri().path_and_query().ok_or("a call has a path")?;
    *request.uri_mut() = path.clone().into();
    request
        .headers_mut()
        .insert(HOST, HeaderValue::from_str(&host)?);
    let wire = connections.wire(TcpStream::connect((host, PORT)).await?);
    let (mut sender, connection) = http1::handshake(TokioIo::new(wire)).await?;
    let answer = async {
        let answer = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Full::new(body.collect().await?.to_bytes());
        let body = body
            .map_err(|never: Infallible| match never {})
            .boxed_unsync();
        Ok::<_, hyper::Error>(Response::from_parts(head, body))
    };
    // The connection is driven here, and by no task: to give the call up is to close it.
    match select(pin!(answer), pin!(connection)).await {
        Either::Left((answer, _)) => Ok(answer?),
        Either::Right((_, answer)) => Ok(answer.await?),
    }
}
