//! TLS handshakes of incoming connections.
//!
//! Each is a task of its own, so that none holds up accepting, and there is a bound on their number.
//! One that stops midway is given up like a connection that never says a word, and sooner where
//! others wait for its place.

use std::{collections::VecDeque, io, pin::Pin, sync::Arc, time::Duration};

use futures_util::{StreamExt, future, stream};
use parking_lot::RwLock;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, ServerConfig},
    server::TlsStream,
};
use tokio_stream::Stream;
use tracing::{debug, info};

use crate::server::edge::first_byte::FIRST_BYTE_TIMEOUT;

/// Most handshakes under way. Ours: each takes some 50 KiB and a file descriptor.
const MAX_HANDSHAKES: usize = 512;
/// How long a handshake keeps its place when all are taken. Ours: callers take milliseconds, even
/// from the other side of the earth.
const CROWDED_TIMEOUT: Duration = Duration::from_secs(2);

/// The configuration that the next handshake uses.
pub(super) type CurrentConfig = Arc<RwLock<Arc<ServerConfig>>>;

/// Connections whose handshake is done, and failures to accept. A failed handshake is logged and
/// left out.
pub(super) fn handshakes<C>(
    incoming: impl Stream<Item = io::Result<C>> + Send + 'static,
    config: CurrentConfig,
) -> impl Stream<Item = io::Result<TlsStream<C>>> + Send
where
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshakes = Handshakes {
        incoming: Some(Box::pin(incoming)),
        config,
        under_way: JoinSet::new(),
        by_age: VecDeque::new(),
    };
    stream::unfold(handshakes, async |mut handshakes| {
        let next = handshakes.next().await?;
        Some((next, handshakes))
    })
}

/// The end of one handshake: a connection, unless it failed.
type Ended<C> = Option<TlsStream<C>>;

/// Those that are under way end with this.
struct Handshakes<I, C> {
    /// `None` once it has ended.
    incoming: Option<Pin<Box<I>>>,
    config: CurrentConfig,
    under_way: JoinSet<Ended<C>>,
    /// When each began, the oldest first; some have ended.
    by_age: VecDeque<(Instant, AbortHandle)>,
}

impl<I, C> Handshakes<I, C>
where
    I: Stream<Item = io::Result<C>>,
    C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    async fn next(&mut self) -> Option<io::Result<TlsStream<C>>> {
        loop {
            if self.incoming.is_none() && self.under_way.is_empty() {
                return None;
            }
            let has_place = self.under_way.len() < MAX_HANDSHAKES;
            tokio::select! {
                Some(ended) = self.under_way.join_next() => {
                    // Aborted ones, and one that panicked, have no connection.
                    if let Ok(Some(connection)) = ended {
                        return Some(Ok(connection));
                    }
                }
                accepted = accept(&mut self.incoming), if has_place => match accepted {
                    Some(Ok(connection)) => self.begin(connection),
                    Some(Err(error)) => return Some(Err(error)),
                    None => self.incoming = None,
                },
                () = overdue(self.by_age.front()), if !has_place => {
                    // It has ended, or it makes room.
                    if let Some((_, oldest)) = self.by_age.pop_front() {
                        oldest.abort();
                    }
                }
            }
        }
    }

    fn begin(&mut self, connection: C) {
        while self
            .by_age
            .front()
            .is_some_and(|(_, one)| one.is_finished())
        {
            self.by_age.pop_front();
        }
        let acceptor = TlsAcceptor::from(Arc::clone(&self.config.read()));
        let handshake = self.under_way.spawn(handshake(acceptor, connection));
        self.by_age.push_back((Instant::now(), handshake));
    }
}

async fn accept<I: Stream>(incoming: &mut Option<Pin<Box<I>>>) -> Option<I::Item> {
    match incoming {
        Some(incoming) => incoming.next().await,
        None => future::pending().await,
    }
}

/// Waits until the oldest handshake must make room.
async fn overdue(oldest: Option<&(Instant, AbortHandle)>) {
    match oldest {
        Some((began, _)) => sleep_until(*began + CROWDED_TIMEOUT).await,
        None => future::pending().await,
    }
}

async fn handshake<C>(acceptor: TlsAcceptor, connection: C) -> Ended<C>
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    match timeout(FIRST_BYTE_TIMEOUT, acceptor.accept(connection)).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            if matches!(cause, Some(rustls::Error::InvalidCertificate(_))) {
                // By TLS 1.3 the client believes its handshake is done, and may not learn why not.
                info!(%error, "a client certificate was refused");
            } else {
                // Common and harmless, as by a probe that only connects.
                debug!(%error, "a TLS handshake failed");
            }
            None
        }
        Err(_) => {
            debug!("a TLS handshake took too long");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use tokio_rustls::{TlsConnector, client, rustls::pki_types::ServerName};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::server::edge::tls::testing::{Authority, client_config, config};

    /// The record of a handshake, of which most is missing.
    const MIDWAY: [u8; 6] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01];

    struct Listener {
        authority: Authority,
        connect: tokio::sync::mpsc::Sender<io::Result<DuplexStream>>,
        accepted: tokio::sync::mpsc::Receiver<Instant>,
    }

    impl Listener {
        fn start() -> Self {
            let authority = Authority::new();
            let (connect, incoming) = tokio::sync::mpsc::channel(1);
            let (done, accepted) = tokio::sync::mpsc::channel(1);
            let config = Arc::new(RwLock::new(config(&authority)));
            let connections = handshakes(ReceiverStream::new(incoming), config);
            tokio::spawn(connections.for_each(move |connection| {
                let done = done.clone();
                async move {
                    let connection = connection.unwrap();
                    done.send(Instant::now()).await.unwrap();
                    // Until the end of the test.
                    tokio::spawn(async move {
                        let _open = connection;
                        pending::<()>().await
                    });
                }
            }));
            Self {
                authority,
                connect,
                accepted,
            }
        }

        async fn silent(&self, said: &[u8]) -> DuplexStream {
            let (mut client, server) = duplex(64 * 1024);
            client.write_all(said).await.unwrap();
            self.connect.send(Ok(server)).await.unwrap();
            client
        }

        async fn caller(&self) -> io::Result<client::TlsStream<DuplexStream>> {
            let (client, server) = duplex(64 * 1024);
            self.connect.send(Ok(server)).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            let connector = TlsConnector::from(client_config(&self.authority, None));
            connector.connect(name, client).await
        }
    }

    /// When the server hangs up.
    async fn hung_up(mut client: DuplexStream) -> Instant {
        let end = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        assert_eq!(end.unwrap(), 0);
        Instant::now()
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_stops_midway_is_given_up_while_others_go_on() {
        let mut listener = Listener::start();
        let start = Instant::now();
        let stopped = [listener.silent(&[]).await, listener.silent(&MIDWAY).await];
        listener.caller().await.unwrap();
        assert_eq!(listener.accepted.recv().await, Some(start));
        for one in stopped {
            assert_eq!(hung_up(one).await - start, FIRST_BYTE_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_handshake_makes_room_when_all_places_are_taken() {
        let mut listener = Listener::start();
        let start = Instant::now();
        let mut stopped = VecDeque::new();
        for _ in 0..MAX_HANDSHAKES {
            stopped.push_back(listener.silent(&MIDWAY).await);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        listener.caller().await.unwrap();
        let waited = listener.accepted.recv().await.unwrap() - start;
        assert_eq!(waited, CROWDED_TIMEOUT);
        let oldest = stopped.pop_front().unwrap();
        assert_eq!(hung_up(oldest).await - start, CROWDED_TIMEOUT);
        let newest = stopped.pop_back().unwrap();
        assert_eq!(hung_up(newest).await - start, FIRST_BYTE_TIMEOUT);
    }

    #[tokio::test]
    async fn a_failure_to_accept_is_passed_on_and_a_failed_handshake_is_not() {
        let (nonsense, server) = duplex(1024);
        let mut nonsense = nonsense;
        nonsense
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        let failure = io::Error::from_raw_os_error(24);
        let incoming = tokio_stream::iter([Ok(server), Err(failure)]);
        let config = Arc::new(RwLock::new(config(&Authority::new())));
        let all: Vec<_> = handshakes(incoming, config).collect().await;
        let all: Vec<_> = all.into_iter().map(|one| one.unwrap_err()).collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].raw_os_error(), Some(24));
    }
}
