//! The tests' own fault proxy: each toxic does what it says, and nothing else.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

use crate::{
    support::proxy::{Proxy, Toxics},
    test_service::soon,
};

/// A delay that stands out from what loopback takes.
const NOTICEABLE: Duration = Duration::from_millis(150);

/// The two ends of one connection through a proxy.
struct Line {
    caller: TcpStream,
    upstream: TcpStream,
    proxy: Proxy,
    listener: TcpListener,
}

impl Line {
    async fn new(toxics: Toxics) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap()).await;
        proxy.set(toxics);
        let caller = TcpStream::connect(proxy.address).await.unwrap();
        let (upstream, _) = soon("a connection", listener.accept()).await.unwrap();
        Self {
            caller,
            upstream,
            proxy,
            listener,
        }
    }

    /// The two ends of one more connection through the same proxy.
    async fn another(&self) -> (TcpStream, TcpStream) {
        let caller = TcpStream::connect(self.proxy.address).await.unwrap();
        let accepted = soon("a connection", self.listener.accept()).await;
        (caller, accepted.unwrap().0)
    }

    /// Sends bytes up and reads as many; how long that took.
    async fn pass(&mut self, bytes: &[u8]) -> Duration {
        pass(&mut self.caller, &mut self.upstream, bytes).await
    }
}

async fn pass(from: &mut TcpStream, to: &mut TcpStream, bytes: &[u8]) -> Duration {
    let start = Instant::now();
    from.write_all(bytes).await.unwrap();
    let mut read = vec![0; bytes.len()];
    let all = to.read_exact(&mut read);
    soon("all bytes", all).await.unwrap();
    assert_eq!(read, bytes);
    start.elapsed()
}

/// All that comes until the end.
async fn rest(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    soon("the end", stream.read_to_end(&mut bytes)).await?;
    Ok(bytes)
}

#[tokio::test]
async fn without_toxics_everything_passes_both_ways() {
    let mut line = Line::new(Toxics::default()).await;
    let large = vec![7; 300_000];
    line.pass(&large).await;
    line.upstream.write_all(b"answer").await.unwrap();
    drop(line.upstream);
    assert_eq!(rest(&mut line.caller).await.unwrap(), b"answer");
}

#[tokio::test]
async fn latency_delays_and_jitter_delays_further_at_most() {
    let mut line = Line::new(Toxics {
        latency: NOTICEABLE,
        jitter: NOTICEABLE,
        ..Toxics::default()
    })
    .await;
    assert!(line.pass(b"late").await >= NOTICEABLE);
    line.proxy.set(Toxics {
        jitter: NOTICEABLE,
        ..Toxics::default()
    });
    let mut delays = Vec::new();
    for _ in 0..8 {
        delays.push(line.pass(b"some time").await);
    }
    let spread = *delays.iter().max().unwrap() - *delays.iter().min().unwrap();
    assert!(spread > NOTICEABLE / 10, "{delays:?}");
}

#[tokio::test]
async fn bandwidth_is_held_to() {
    let mut line = Line::new(Toxics {
        bytes_per_second: Some(100_000),
        ..Toxics::default()
    })
    .await;
    // The first tenth of a second's worth is free.
    assert!(line.pass(&[7; 40_000]).await >= Duration::from_millis(290));
}

#[tokio::test]
async fn a_black_hole_swallows_and_stays_open() {
    let mut line = Line::new(Toxics {
        black_hole_after: Some(4),
        ..Toxics::default()
    })
    .await;
    line.caller.write_all(b"1234lost").await.unwrap();
    let mut read = [0; 16];
    let count = soon("some bytes", line.upstream.read(&mut read))
        .await
        .unwrap();
    assert_eq!(&read[..count], b"1234");
    // What it swallows stays lost when it is closed again.
    sleep(NOTICEABLE).await;
    line.proxy.set(Toxics::default());
    line.pass(b"found").await;
}

#[tokio::test]
async fn a_cut_comes_in_the_middle_of_a_message() {
    for toxics in [Some(5), Some(0)] {
        let mut line = Line::new(Toxics {
            cut_after: toxics,
            ..Toxics::default()
        })
        .await;
        line.caller.write_all(b"12345lost").await.ok();
        let came = rest(&mut line.upstream).await.unwrap_or_default();
        assert_eq!(came.len(), usize::try_from(toxics.unwrap()).unwrap());
        assert!(rest(&mut line.caller).await.unwrap_or_default().is_empty());
    }
}

#[tokio::test]
async fn a_reset_is_heard_as_one_on_both_sides() {
    let mut line = Line::new(Toxics::default()).await;
    line.pass(b"well").await;
    line.proxy.set(Toxics {
        reset_after: Some(Duration::ZERO),
        ..Toxics::default()
    });
    for side in [&mut line.caller, &mut line.upstream] {
        let error = rest(side).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_slow_close_is_heard_late() {
    let mut line = Line::new(Toxics {
        slow_close: NOTICEABLE,
        ..Toxics::default()
    })
    .await;
    line.pass(b"well").await;
    drop(line.caller);
    let start = Instant::now();
    rest(&mut line.upstream).await.ok();
    assert!(start.elapsed() >= NOTICEABLE - Duration::from_millis(20));
}

#[tokio::test]
async fn what_is_held_for_the_upstream_is_discarded_when_the_caller_closes() {
    let mut line = Line::new(Toxics {
        latency: NOTICEABLE,
        ..Toxics::default()
    })
    .await;
    line.caller.write_all(b"given up").await.unwrap();
    // Long enough to be held, and not to be delivered.
    sleep(NOTICEABLE / 3).await;
    drop(line.caller);
    assert_eq!(rest(&mut line.upstream).await.unwrap(), b"");
}

#[tokio::test]
async fn what_is_held_for_the_caller_is_delivered_when_the_upstream_closes() {
    let mut line = Line::new(Toxics {
        latency: NOTICEABLE,
        ..Toxics::default()
    })
    .await;
    line.upstream.write_all(b"last words").await.unwrap();
    drop(line.upstream);
    assert_eq!(rest(&mut line.caller).await.unwrap(), b"last words");
}

#[tokio::test]
async fn mute_connections_stay_open_in_silence_and_new_ones_are_well() {
    let mut line = Line::new(Toxics::default()).await;
    line.pass(b"well").await;
    line.proxy.mute();
    line.caller.write_all(b"lost").await.unwrap();
    line.upstream.write_all(b"lost").await.unwrap();
    // What a mute connection let through would be there before this.
    let (mut caller, mut upstream) = line.another().await;
    pass(&mut caller, &mut upstream, b"well").await;
    assert_silent(&line.caller);
    assert_silent(&line.upstream);
    drop(line.caller);
    pass(&mut upstream, &mut caller, b"still well").await;
    assert_silent(&line.upstream);
}

/// Neither bytes, nor an end, nor a reset.
fn assert_silent(stream: &TcpStream) {
    let heard = stream.try_read(&mut [0; 4]);
    let kind = heard.as_ref().map_err(std::io::Error::kind);
    assert_eq!(kind, Err(ErrorKind::WouldBlock));
}

#[tokio::test]
async fn faults_are_drawn_for_each_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cuts = [Some(0), None].into_iter();
    let draw = move || Toxics {
        cut_after: cuts.next().flatten(),
        ..Toxics::default()
    };
    let proxy = Proxy::drawing(listener.local_addr().unwrap(), draw).await;
    let mut ends = Vec::new();
    for _ in 0..2 {
        let mut caller = TcpStream::connect(proxy.address).await.unwrap();
        let (mut upstream, _) = soon("a connection", listener.accept()).await.unwrap();
        caller.write_all(b"hello").await.unwrap();
        let mut read = [0; 5];
        let whole = soon("bytes or an end", upstream.read_exact(&mut read)).await;
        ends.push(whole.is_ok());
    }
    assert_eq!(ends, [false, true]);
}
