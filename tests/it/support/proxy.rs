//! A TCP proxy that spoils connections as networks do.
//!
//! Each connection has its [`Toxics`], drawn when it is accepted, or shared by all and changed
//! while they run. When the caller's side closes, what is still held for the other side is thrown
//! away: a call that was given up must not arrive later. What the other side sent before it
//! closed is still delivered.

use std::{collections::VecDeque, future, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;
/// Most bytes held for a side, above the largest call; a caller that has closed is noticed only
/// below it.
const MAX_HELD: usize = 4 * 1024 * 1024;

/// What is wrong with a connection; nothing by default. Byte counts hold for each direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toxics {
    /// Every byte comes so much later.
    pub(crate) latency: Duration,
    /// Up to so much is added to the latency, evenly drawn; bytes keep their order.
    pub(crate) jitter: Duration,
    /// No more than this passes.
    pub(crate) bytes_per_second: Option<u64>,
    /// After so many bytes the connection stays open, and nothing passes any more.
    pub(crate) black_hole_after: Option<u64>,
    /// After so many bytes, perhaps within a message, both sides are closed.
    pub(crate) cut_after: Option<u64>,
    /// So long after it began, both sides are reset.
    pub(crate) reset_after: Option<Duration>,
    /// When one side has closed, the other one hears of it so much later.
    pub(crate) slow_close: Duration,
}

/// A running proxy; it and its connections end when it is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    toxics: watch::Sender<Toxics>,
    mutes: watch::Sender<()>,
    _accepts: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Without any fault until some are [set](Self::set).
    pub(crate) async fn start(upstream: SocketAddr) -> Self {
        Self::run(upstream, None::<fn() -> Toxics>).await
    }

    /// With faults that are drawn for each connection.
    pub(crate) async fn drawing(
        upstream: SocketAddr,
        draw: impl FnMut() -> Toxics + Send + 'static,
    ) -> Self {
        Self::run(upstream, Some(draw)).await
    }

    /// Changes the faults of all connections that were not drawn, those that run too.
    pub(crate) fn set(&self, toxics: Toxics) {
        self.toxics.send_replace(toxics);
    }

    /// Silences the connections that are there now: they stay open, and nothing passes on them any
    /// more, not even their end. New ones are well.
    pub(crate) fn mute(&self) {
        self.mutes.send_replace(());
    }

    async fn run(
        upstream: SocketAddr,
        draw: Option<impl FnMut() -> Toxics + Send + 'static>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let toxics = watch::Sender::new(Toxics::default());
        let shared = toxics.subscribe();
        let mutes = watch::Sender::new(());
        // Ends with the handle that the proxy holds.
        let accepts = tokio::spawn(accept(listener, upstream, shared, mutes.clone(), draw));
        Self {
            address,
            toxics,
            mutes,
            _accepts: AbortOnDropHandle::new(accepts),
        }
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    shared: watch::Receiver<Toxics>,
    mutes: watch::Sender<()>,
    mut draw: Option<impl FnMut() -> Toxics>,
) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    while let Ok((caller, _)) = listener.accept().await {
        let toxics = match &mut draw {
            Some(draw) => watch::channel(draw()).1,
            None => shared.clone(),
        };
        // Hears only of those that come from now on.
        let mute = mutes.subscribe();
        // A connection that fails has ended, as its two sides see.
        connections.spawn(async move { connect(caller, upstream, toxics, mute).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(
    caller: TcpStream,
    upstream: SocketAddr,
    toxics: watch::Receiver<Toxics>,
    mute: watch::Receiver<()>,
) -> io::Result<()> {
    let upstream = TcpStream::connect(upstream).await?;
    caller.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    carry(caller, upstream, toxics, mute).await
}

/// How a connection ends.
enum End {
    Closed,
    Reset,
}

async fn carry(
    mut caller: TcpStream,
    mut upstream: TcpStream,
    toxics: watch::Receiver<Toxics>,
    mut mute: watch::Receiver<()>,
) -> io::Result<()> {
    let end = {
        let (from_caller, to_caller) = caller.split();
        let (from_upstream, to_upstream) = upstream.split();
        let up = Pipe::new(&toxics, AtEnd::Discard);
        let down = Pipe::new(&toxics, AtEnd::Deliver);
        tokio::select! {
            // A mute connection does not end; a reset spares nothing; a caller who is gone needs no
            // more answers.
            biased;
            Ok(()) = mute.changed() => future::pending().await,
            () = reset(toxics.clone()) => End::Reset,
            _ = up.run(from_caller, to_upstream) => End::Closed,
            _ = down.run(from_upstream, to_caller) => End::Closed,
        }
    };
    match end {
        End::Closed => {
            let slow_close = toxics.borrow().slow_close;
            sleep(slow_close).await;
        }
        End::Reset => {
            caller.set_zero_linger()?;
            upstream.set_zero_linger()?;
        }
    }
    Ok(())
}

/// Waits for the moment of a reset, if there is to be one.
async fn reset(mut toxics: watch::Receiver<Toxics>) {
    let start = Instant::now();
    loop {
        let reset_after = toxics.borrow_and_update().reset_after;
        tokio::select! {
            biased;
            () = sleep(reset_after.unwrap_or_default().saturating_sub(start.elapsed())),
                if reset_after.is_some() => return,
            Ok(()) = toxics.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// What becomes of held bytes when the side that sent them closes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    Discard,
    Deliver,
}

/// One direction.
struct Pipe {
    toxics: watch::Receiver<Toxics>,
    at_end: AtEnd,
    /// With the moment from which they may go.
    held: VecDeque<(Instant, Vec<u8>)>,
    held_bytes: usize,
    passed: u64,
    /// When bandwidth allows the next bytes.
    next: Instant,
    ended: bool,
}

impl Pipe {
    fn new(toxics: &watch::Receiver<Toxics>, at_end: AtEnd) -> Self {
        Self {
            toxics: toxics.clone(),
            at_end,
            held: VecDeque::new(),
            held_bytes: 0,
            passed: 0,
            next: Instant::now(),
            ended: false,
        }
    }

    /// Runs until this direction is over, which ends the other one too.
    async fn run(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        while !(self.ended && self.held.is_empty()) {
            let reads = !self.ended && self.held_bytes < MAX_HELD;
            let ready = self.held.front().map(|(due, _)| self.next.max(*due));
            let allowed = self.allowance();
            tokio::select! {
                // The end of the caller must not wait behind what is held.
                biased;
                read = from.read(&mut chunk), if reads => match read.unwrap_or(0) {
                    0 if self.at_end == AtEnd::Discard => return Ok(()),
                    0 => self.ended = true,
                    read => self.hold(&chunk[..read]),
                },
                written = write(&mut to, &self.held, ready, allowed), if ready.is_some() => {
                    self.release(written?);
                }
            }
            let cut_after = self.toxics.borrow().cut_after;
            if cut_after.is_some_and(|cut_after| self.passed >= cut_after) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn hold(&mut self, bytes: &[u8]) {
        let (latency, jitter) = {
            let toxics = self.toxics.borrow();
            (toxics.latency, toxics.jitter)
        };
        let due = Instant::now() + latency + jitter.mul_f64(fastrand::f64());
        let before = self.held.back().map(|(due, _)| *due);
        self.held
            .push_back((before.map_or(due, |before| before.max(due)), bytes.to_vec()));
        self.held_bytes += bytes.len();
    }

    /// How many of the next bytes may be written at once, or nothing if they are swallowed.
    fn allowance(&self) -> Option<usize> {
        let toxics = self.toxics.borrow();
        let left =
            |limit: Option<u64>| limit.map_or(u64::MAX, |limit| limit.saturating_sub(self.passed));
        let before_hole = left(toxics.black_hole_after);
        // A tenth of a second's worth, so that the rate is even.
        let by_rate = toxics
            .bytes_per_second
            .map_or(u64::MAX, |rate| (rate / 10).max(1));
        let most = before_hole.min(by_rate).min(left(toxics.cut_after));
        (before_hole > 0).then(|| usize::try_from(most).unwrap_or(usize::MAX))
    }

    /// Forgets bytes that were written, or swallowed.
    fn release(&mut self, written: usize) {
        let (_, front) = self.held.front_mut().expect("something was written");
        front.drain(..written);
        if front.is_empty() {
            self.held.pop_front();
        }
        self.held_bytes -= written;
        let written = u64::try_from(written).expect("a chunk is small");
        self.passed += written;
        if let Some(rate) = self.toxics.borrow().bytes_per_second {
            self.next = Instant::now() + Duration::from_micros(written * 1_000_000 / rate.max(1));
        }
    }
}

/// Writes some of the front once it is ready. Cancel safe.
async fn write(
    to: &mut WriteHalf<'_>,
    held: &VecDeque<(Instant, Vec<u8>)>,
    ready: Option<Instant>,
    allowed: Option<usize>,
) -> io::Result<usize> {
    let (Some(ready), Some((_, front))) = (ready, held.front()) else {
        return std::future::pending().await;
    };
    sleep_until(ready).await;
    match allowed {
        Some(allowed) => to.write(&front[..allowed.min(front.len())]).await,
        None => Ok(front.len()),
    }
}
