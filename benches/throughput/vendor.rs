//! A LaunchDarkly that accepts everything at once, and counts.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

/// Room for a request of a thousand members, so that most are read at once.
const BUFFER: usize = 128 * 1024;
/// The `{` of a request that are not a member's: the request's own and that of its parameters.
const OUTER_OBJECTS: usize = 2;

const APPLIED: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
/// The answer to whatever is asked: `caller-identity` alone is.
const IDENTITY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
    Content-Length: 21\r\n\r\n{\"accountId\":\"bench\"}";

/// The stand-in; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Vendor {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicU64,
    members: AtomicU64,
}

/// Calls so far, and the members in them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) calls: u64,
    pub(crate) members: u64,
}

impl Vendor {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let counted = Arc::clone(&counts);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counts = Arc::clone(&counted);
                // Ends with its connection, which is a server's: that is killed.
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &counts).await {
                        eprintln!("the LaunchDarkly of the bench: {error:#}");
                    }
                });
            }
        });
        Ok(Self {
            address,
            counts,
            _serving: AbortOnDropHandle::new(serving),
        })
    }

    pub(crate) fn counted(&self) -> Counted {
        Counted {
            calls: self.counts.calls.load(Relaxed),
            members: self.counts.members.load(Relaxed),
        }
    }
}

/// Answers the requests of one connection, in order, until it ends.
async fn answer(mut stream: TcpStream, counts: &Counts) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(BUFFER);
    loop {
        let head = loop {
            if let Some(end) = find(&read, b"\r\n\r\n") {
                break end + 4;
            }
            // A server that is killed breaks its connections.
            if !matches!(stream.read_buf(&mut read).await, Ok(more) if more > 0) {
                return Ok(());
            }
        };
        let is_call = read.starts_with(b"POST ");
        let end = head + content_length(&read[..head])?;
        while read.len() < end {
            if !matches!(stream.read_buf(&mut read).await, Ok(more) if more > 0) {
                return Ok(());
            }
        }
        if is_call {
            count(&read[head..end], counts)?;
        }
        read.drain(..end);
        let answer = if is_call { APPLIED } else { IDENTITY };
        if stream.write_all(answer).await.is_err() {
            return Ok(());
        }
    }
}

fn count(body: &[u8], counts: &Counts) -> anyhow::Result<()> {
    // Keys hold no braces, so that this counts members, at little cost.
    let braces = body.iter().filter(|byte| **byte == b'{').count();
    let members = braces.saturating_sub(OUTER_OBJECTS);
    ensure!(members > 0, "a call without members");
    // What is counted so cheaply is held to the truth once.
    if counts.calls.fetch_add(1, Relaxed) == 0 {
        let json: serde_json::Value = serde_json::from_slice(body)?;
        let listed = json["parameters"]["members"].as_array().map(Vec::len);
        ensure!(listed == Some(members), "{listed:?} members, not {members}");
    }
    counts.members.fetch_add(members as u64, Relaxed);
    Ok(())
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head)?;
    let mut lengths = head.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim())
    });
    let length = lengths.next().unwrap_or("0");
    length.parse().context("a length that is no number")
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    // Heads are short: what follows them is not looked at.
    bytes.windows(what.len()).position(|window| window == what)
}
