//! Many streams, each into a segment of its own: what a record costs when nothing can be shared.

use crate::{
    child::{Servers, Side},
    load::{Load, Plan},
    options::Options,
    summary::{median, spread},
};

const PER_MESSAGE: usize = 20;
/// Streams that share a connection: half of what the servers allow.
const STREAMS_PER_CONNECTION: usize = 500;
/// Messages that each stream sends, one after the other's results.
const ROUNDS: i64 = 5;

/// What a record costs one server, in microseconds of CPU.
#[derive(Clone, Copy, Debug)]
struct Cost {
    wide: f64,
    /// Over one stream.
    one: f64,
    /// Members of a call of the many streams.
    members: f64,
    rate: f64,
    peak_mib: f64,
}

impl Cost {
    fn ratio(self) -> f64 {
        self.wide / self.one
    }
}

/// Measures pairs, and prints them.
pub(crate) async fn run(servers: &Servers, options: &Options) -> anyhow::Result<()> {
    let mut pairs = Vec::new();
    for n in 0..options.pairs() {
        let pair = if n % 2 == 0 {
            let this = measure(Side::This, servers, options).await?;
            (this, measure(Side::Other, servers, options).await?)
        } else {
            let other = measure(Side::Other, servers, options).await?;
            (measure(Side::This, servers, options).await?, other)
        };
        eprintln!(
            "wide             {:.2} / {:.2} µs CPU a record",
            pair.0.wide, pair.1.wide
        );
        pairs.push(pair);
    }
    println!(
        "\nWide: {} streams, each into a segment of its own, {PER_MESSAGE} records a message\n",
        options.many_streams()
    );
    println!(
        "| server | records/s | µs CPU a record | over one stream | ratio (min–max) | members a call | peak MiB |"
    );
    println!("|---|--:|--:|--:|--:|--:|--:|");
    let this: Vec<_> = pairs.iter().map(|(this, _)| *this).collect();
    let other: Vec<_> = pairs.iter().map(|(_, other)| *other).collect();
    for (name, costs) in [("this", this), (options.other(), other)] {
        let middle = |what: fn(&Cost) -> f64| median(costs.iter().map(what));
        println!(
            "| {name} | {:.0} k | {:.2} | {:.2} | {} | {:.0} | {:.0} |",
            middle(|cost| cost.rate / 1e3),
            middle(|cost| cost.wide),
            middle(|cost| cost.one),
            spread(costs.iter().map(|cost| cost.ratio())),
            middle(|cost| cost.members),
            middle(|cost| cost.peak_mib),
        );
    }
    let ratios = pairs.iter().map(|(this, other)| this.wide / other.wide);
    println!("\nthis / {}, wide: {}", options.other(), spread(ratios));
    Ok(())
}

async fn measure(side: Side, servers: &Servers, options: &Options) -> anyhow::Result<Cost> {
    let one = {
        let server = servers.start(side).await?;
        let load = Load::open(server.address, &server.destination, &plan(1, false)).await?;
        load.push(options.push() / 4).await?;
        let cpu = server.cpu()?;
        let pushed = load.push(options.push()).await?;
        let cpu = server.cpu()? - cpu;
        load.close().await?;
        cpu / pushed.records as f64 * 1e6
    };
    let server = servers.start(side).await?;
    let plan = plan(options.many_streams(), true);
    let load = Load::open(server.address, &server.destination, &plan).await?;
    load.send_each(1).await?;
    let (cpu, counted) = (server.cpu()?, servers.vendor.counted());
    let pushed = load.send_each(ROUNDS).await?;
    let (cpu, after) = (server.cpu()? - cpu, servers.vendor.counted());
    let peak_mib = server.kib("VmHWM")? as f64 / 1024.0;
    load.close().await?;
    let calls = (after.calls - counted.calls).max(1);
    Ok(Cost {
        wide: cpu / pushed.records as f64 * 1e6,
        one,
        members: (after.members - counted.members) as f64 / calls as f64,
        rate: pushed.rate,
        peak_mib,
    })
}

/// Of many streams each has one message under way, so that its calls cannot fill up.
fn plan(streams: usize, is_wide: bool) -> Plan {
    Plan {
        streams,
        streams_per_connection: STREAMS_PER_CONNECTION,
        per_message: PER_MESSAGE,
        own_segments: true,
        remove_every: None,
        window: is_wide.then_some(PER_MESSAGE as i64),
        keys: is_wide.then_some(PER_MESSAGE * 10),
    }
}
