//! What a server holds while nothing is sent, and how soon it is ready.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    child::{Servers, Side},
    load::{Load, Plan},
    options::Options,
    summary::{median, spread},
};

const STREAMS_PER_CONNECTION: usize = 500;
const PER_MESSAGE: usize = 20;
/// For what ends a little later than the answer that told of it.
const REST: Duration = Duration::from_millis(500);

/// One server's sizes, in KiB.
#[derive(Clone, Copy, Debug)]
struct Held {
    ready_ms: f64,
    empty: f64,
    /// A stream that was opened.
    opened: f64,
    /// A stream that has sent a message and got its results.
    used: f64,
}

/// Measures, and prints.
pub(crate) async fn run(servers: &Servers, options: &Options) -> anyhow::Result<()> {
    let streams = options.many_streams();
    println!("\nIdle: {streams} streams, each into a segment of its own\n");
    println!(
        "| server | start to first answer, ms | RSS without streams, MiB | KiB an opened stream | KiB a stream after {PER_MESSAGE} records |"
    );
    println!("|---|--:|--:|--:|--:|");
    for (name, side) in [("this", Side::This), (options.other(), Side::Other)] {
        let mut held = Vec::new();
        for _ in 0..options.pairs() {
            held.push(measure(side, servers, streams).await?);
        }
        let all = |what: fn(&Held) -> f64| spread(held.iter().map(what));
        println!(
            "| {name} | {:.0} | {:.1} | {} | {} |",
            median(held.iter().map(|held| held.ready_ms)),
            median(held.iter().map(|held| held.empty / 1024.0)),
            all(|held| held.opened),
            all(|held| held.used),
        );
    }
    Ok(())
}

async fn measure(side: Side, servers: &Servers, streams: usize) -> anyhow::Result<Held> {
    let server = servers.start(side).await?;
    sleep(REST).await;
    let empty = server.kib("VmRSS")? as f64;
    let plan = Plan {
        streams,
        streams_per_connection: STREAMS_PER_CONNECTION,
        per_message: PER_MESSAGE,
        own_segments: true,
        remove_every: None,
        window: None,
        keys: Some(PER_MESSAGE),
    };
    let load = Load::open(server.address, &server.destination, &plan).await?;
    sleep(REST).await;
    let a_stream = |rss: f64| (rss - empty) / streams as f64;
    let opened = a_stream(server.kib("VmRSS")? as f64);
    load.send_each(1).await?;
    sleep(REST).await;
    let used = a_stream(server.kib("VmRSS")? as f64);
    load.close().await?;
    Ok(Held {
        ready_ms: server.ready.as_secs_f64() * 1e3,
        empty,
        opened,
        used,
    })
}
