//! The first-byte time-out of connections: a silent one holds a file descriptor, and a process has
//! few.
//!
//! hyper pings established HTTP/2 connections, but waits for ever for the first bytes of one.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::StreamExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tracing::warn;

/// How long a connection may take to send its first bytes. Ours: clients send them at once.
pub(super) const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many bytes these are: an HTTP/2 client's preface. The shortest request for metrics is as
/// long.
const FIRST_BYTES: usize = 24;
/// How long accepting pauses after a failure, most often because no file descriptor is left.
/// Without a pause it would fail again at once, in a busy loop.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// A connection that fails if its first bytes do not come in time.
#[derive(Debug)]
pub(crate) struct FirstByteTimeout<C> {
    inner: C,
    /// `None` once they have come.
    awaited: Option<FirstBytes>,
}

#[derive(Debug)]
struct FirstBytes {
    timeout: Pin<Box<Sleep>>,
    missing: usize,
}

impl<C> FirstByteTimeout<C> {
    pub(super) fn new(inner: C) -> Self {
        Self {
            inner,
            awaited: Some(FirstBytes {
                timeout: Box::pin(tokio::time::sleep(FIRST_BYTE_TIMEOUT)),
                missing: FIRST_BYTES,
            }),
        }
    }
}

/// Incoming connections, each with the time-out. A failure to accept is logged, and followed by a
/// pause.
pub(crate) fn connections<C>(
    incoming: impl Stream<Item = io::Result<C>>,
) -> impl Stream<Item = io::Result<FirstByteTimeout<C>>> {
    incoming.filter_map(async |accepted| match accepted {
        Ok(connection) => Some(Ok(FirstByteTimeout::new(connection))),
        // The client has closed it already.
        Err(error) if is_of_one_connection(&error) => None,
        Err(error) => {
            warn!(%error, "connections cannot be accepted");
            tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            None
        }
    })
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

impl<C: AsyncRead + Unpin> AsyncRead for FirstByteTimeout<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match (
            Pin::new(&mut this.inner).poll_read(cx, buf),
            &mut this.awaited,
        ) {
            (read, None) => read,
            (Poll::Ready(read), Some(awaited)) => {
                awaited.missing = awaited.missing.saturating_sub(buf.filled().len() - before);
                if awaited.missing == 0 {
                    this.awaited = None;
                }
                Poll::Ready(read)
            }
            (Poll::Pending, Some(awaited)) => {
                ready!(awaited.timeout.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for FirstByteTimeout<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<C: Connected> Connected for FirstByteTimeout<C> {
    type ConnectInfo = C::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.inner.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, duplex},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_its_first_bytes_times_out() {
        for bytes in [0, FIRST_BYTES - 1] {
            let start = Instant::now();
            let (mut client, server) = duplex(1024);
            let mut server = FirstByteTimeout::new(server);
            client.write_all(&vec![0; bytes]).await.unwrap();
            let mut received = Vec::new();
            let read = server.read_to_end(&mut received);
            let read = tokio::time::timeout(2 * FIRST_BYTE_TIMEOUT, read).await;
            assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(start.elapsed(), FIRST_BYTE_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_may_be_silent_after_its_first_bytes() {
        let (mut client, server) = duplex(1024);
        let mut server = FirstByteTimeout::new(server);
        let talk = async {
            client.write_all(&[0; FIRST_BYTES]).await.unwrap();
            tokio::time::sleep(10 * FIRST_BYTE_TIMEOUT).await;
            client.write_all(&[0]).await.unwrap();
            drop(client);
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(talk, server.read_to_end(&mut received));
        assert_eq!(read.unwrap(), FIRST_BYTES + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn accepting_goes_on_after_a_pause() {
        let start = Instant::now();
        let incoming = [
            Err(io::ErrorKind::ConnectionReset.into()),
            Ok(1),
            Err(io::Error::from_raw_os_error(24)),
            Ok(2),
        ];
        let accepted = connections(tokio_stream::iter(incoming));
        let accepted: Vec<_> = accepted.map(|one| one.unwrap().inner).collect().await;
        assert_eq!(accepted, [1, 2]);
        assert_eq!(start.elapsed(), ACCEPT_RETRY_DELAY);
    }
}
