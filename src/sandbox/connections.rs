//! Server connections that can be cut, one or all, without a response.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A connection as a listener hands it over.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Sends what is written without waiting for more, where the network would wait.
    fn hurry(&self) {}

    /// Makes the end of the connection a reset, where the network tells one from a close.
    fn break_off(&self) {}
}

impl Wire for TcpStream {
    fn hurry(&self) {
        // Only latency is lost where it cannot be set.
        self.set_nodelay(true).ok();
    }

    fn break_off(&self) {
        self.set_zero_linger().ok();
    }
}

/// Serves until `shutdown` is done. All connections end with it, or when this future is dropped.
pub(super) async fn run<L>(
    router: Router,
    listener: L,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()>
where
    L: Listener,
    L::Io: Wire,
    L::Addr: fmt::Debug,
{
    let server = CancellationToken::new();
    let _ends_connections = server.clone().drop_guard();
    let lines = CuttableListener {
        listener,
        server: server.clone(),
    };
    // axum awaits its connections once the signal is given; they end because their reads fail.
    axum::serve(lines, router.into_make_service_with_connect_info::<Cut>())
        .with_graceful_shutdown(async move {
            shutdown.await;
            server.cancel();
        })
        .await
}

/// Cuts the connection on which a call came.
#[derive(Clone, Debug)]
pub(super) struct Cut(CancellationToken);

impl Cut {
    pub(super) fn cut(&self) {
        self.0.cancel();
    }
}

impl<L> Connected<IncomingStream<'_, CuttableListener<L>>> for Cut
where
    L: Listener,
    L::Io: Wire,
{
    fn connect_info(stream: IncomingStream<'_, CuttableListener<L>>) -> Self {
        Cut(stream.io().connection.clone())
    }
}

/// A listener whose connections can be cut.
struct CuttableListener<L> {
    listener: L,
    server: CancellationToken,
}

impl<L> Listener for CuttableListener<L>
where
    L: Listener,
    L::Io: Wire,
{
    type Io = CuttableStream<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, L::Addr) {
        let (stream, address) = self.listener.accept().await;
        (CuttableStream::new(stream, &self.server), address)
    }

    fn local_addr(&self) -> io::Result<L::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that fails to read and write once it is cut.
struct CuttableStream<W: Wire> {
    stream: W,
    server: CancellationToken,
    connection: CancellationToken,
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<W: Wire> CuttableStream<W> {
    fn new(stream: W, server: &CancellationToken) -> Self {
        let connection = server.child_token();
        stream.hurry();
        Self {
            stream,
            server: server.clone(),
            is_cut: Box::pin(connection.clone().cancelled_owned()),
            connection,
        }
    }

    /// hyper reads while it waits for a handler, to notice a caller that hangs up: that read is
    /// what ends a connection whose call never ends.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.is_cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<W: Wire> Drop for CuttableStream<W> {
    /// A cut is heard as a reset; the end of the server is an orderly close.
    fn drop(&mut self) {
        if self.connection.is_cancelled() && !self.server.is_cancelled() {
            self.stream.break_off();
        }
    }
}

impl<W: Wire> AsyncRead for CuttableStream<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<W: Wire> AsyncWrite for CuttableStream<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
