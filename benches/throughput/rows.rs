//! The rows of the table, and how a pair of servers is measured for one.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::time::timeout;

use crate::{
    child::{Child, Servers, Side},
    load::{Load, Plan},
    options::Options,
};

/// Streams that share a connection, as an executor's do.
const STREAMS_PER_CONNECTION: usize = 8;
/// For which a server is pushed before anything is measured.
const WARM_UP: Duration = Duration::from_millis(400);
/// So many messages a second are sent in the paced part at the least.
const PACED_MESSAGES_A_SECOND: u32 = 100;

/// One row: what is sent, and what is compared.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    per_message: usize,
    streams: usize,
    own_segments: bool,
    remove_every: Option<usize>,
    /// Both servers are the other one (A/A): the ratio shows the noise.
    pub(crate) is_noise: bool,
}

impl Row {
    pub(crate) fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for per_message in [1, 10, 100, 1_000] {
            for (streams, own_segments) in [(1, true), (32, false), (32, true)] {
                rows.push(Self {
                    per_message,
                    streams,
                    own_segments,
                    remove_every: None,
                    is_noise: false,
                });
            }
        }
        let with = |streams, remove_every, is_noise| Self {
            per_message: 100,
            streams,
            own_segments: false,
            remove_every,
            is_noise,
        };
        rows.push(with(1, Some(20), false));
        rows.push(with(32, Some(20), false));
        rows.push(with(1, None, true));
        rows.push(with(32, None, true));
        rows
    }

    /// Records a message, streams, segments.
    pub(crate) fn name(&self) -> String {
        let segments = if self.own_segments { self.streams } else { 1 };
        let what = match self {
            Self { is_noise: true, .. } => "-noise",
            Self {
                remove_every: Some(_),
                ..
            } => "-removes",
            _ => "",
        };
        format!("{}-{}-{segments}{what}", self.per_message, self.streams)
    }

    pub(crate) fn per_message(&self) -> usize {
        self.per_message
    }

    fn plan(&self) -> Plan {
        Plan {
            streams: self.streams,
            streams_per_connection: STREAMS_PER_CONNECTION,
            per_message: self.per_message,
            own_segments: self.own_segments,
            remove_every: self.remove_every,
            window: None,
            keys: None,
        }
    }

    /// Records a second of the paced part. Large messages need more of them, or there are too few
    /// messages to tell percentiles of.
    pub(crate) fn rate(&self, options: &Options) -> u32 {
        let enough = u32::try_from(self.per_message).unwrap() * PACED_MESSAGES_A_SECOND;
        options.rate.max(enough)
    }
}

/// What one server did under a row's load.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) records: u64,
    pub(crate) rate: f64,
    /// CPU seconds a million records.
    pub(crate) cpu: f64,
    pub(crate) calls: u64,
    pub(crate) members: u64,
    /// The largest resident memory while it was pushed.
    pub(crate) peak_kib: u64,
    pub(crate) micros: Histogram<u64>,
}

/// Both servers of a pair.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(crate) this: Measured,
    pub(crate) other: Measured,
}

impl Pair {
    /// How many times the other's CPU this one takes for a record.
    pub(crate) fn ratio(&self) -> f64 {
        self.this.cpu / self.other.cpu
    }
}

/// Measures the pairs of a row; which server comes first alternates.
pub(crate) async fn pairs(
    row: &Row,
    servers: &Servers,
    options: &Options,
) -> anyhow::Result<Vec<Pair>> {
    let mut pairs = Vec::new();
    for n in 0..options.pairs() {
        let this = if row.is_noise {
            Side::Other
        } else {
            Side::This
        };
        let perf = n == 0;
        let measured = if n % 2 == 0 {
            let this = measure(row, this, servers, options, perf).await?;
            let other = measure(row, Side::Other, servers, options, false).await?;
            Pair { this, other }
        } else {
            let other = measure(row, Side::Other, servers, options, false).await?;
            let this = measure(row, this, servers, options, false).await?;
            Pair { this, other }
        };
        eprintln!(
            "{:16} {:>9.0} / {:>9.0} records/s, {:.2} / {:.2} CPU s/M, ratio {:.2}",
            row.name(),
            measured.this.rate,
            measured.other.rate,
            measured.this.cpu,
            measured.other.cpu,
            measured.ratio()
        );
        pairs.push(measured);
    }
    Ok(pairs)
}

async fn measure(
    row: &Row,
    side: Side,
    servers: &Servers,
    options: &Options,
    perf: bool,
) -> anyhow::Result<Measured> {
    let server = servers.start(side).await?;
    let load = Load::open(server.address, &server.destination, &row.plan()).await?;
    load.push(WARM_UP).await?;

    let profiler = match &options.perf {
        Some(file) if perf => Some(Profiler::start(&server, file, options.push())?),
        _ => None,
    };
    let (cpu, counted) = (server.cpu()?, servers.vendor.counted());
    let pushed = load.push(options.push()).await?;
    let (cpu, after) = (server.cpu()? - cpu, servers.vendor.counted());
    let peak_kib = server.kib("VmHWM")?;
    if let Some(profiler) = profiler {
        profiler.end().await?;
    }

    let micros = load.pace(row.rate(options), options.paced()).await?;
    load.close().await?;
    Ok(Measured {
        records: pushed.records,
        rate: pushed.rate,
        cpu: cpu / (pushed.records as f64 / 1e6),
        calls: after.calls - counted.calls,
        members: after.members - counted.members,
        peak_kib,
        micros,
    })
}

/// `perf record` of one server; it ends by itself, or when dropped.
struct Profiler(std::process::Child);

impl Profiler {
    fn start(server: &Child, file: &std::path::Path, time: Duration) -> anyhow::Result<Self> {
        let mut perf = std::process::Command::new("perf");
        // Stacks are unwound by the tables that panics need: the allocator keeps no frame pointers,
        // and much of the time is its.
        perf.args(["record", "-q", "-e", "cpu-clock", "-F", "499"])
            .args(["--call-graph", "dwarf,16384", "-o"])
            .arg(file)
            .args(["-p", &server.id().to_string()])
            .args(["--", "sleep", &time.as_secs_f64().to_string()])
            .stdin(Stdio::null());
        Ok(Self(perf.spawn().context("perf cannot be started")?))
    }

    async fn end(mut self) -> anyhow::Result<()> {
        let mut child = tokio::task::spawn_blocking(move || {
            let status = self.0.wait();
            (status, self)
        });
        let ended = timeout(Duration::from_secs(60), &mut child).await;
        let (status, _) = ended.context("perf does not end")??;
        ensure!(status?.success(), "perf failed");
        Ok(())
    }
}

impl Drop for Profiler {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
