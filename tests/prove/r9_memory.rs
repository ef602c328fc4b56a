//! R9: memory is bounded, and back-pressure loses nothing: streams push while LaunchDarkly hangs.

use std::{fs, time::Duration};

use launchdarkly_connector::{
    pb::{self, send_identifiers_request::Message as In},
    sandbox::{Fault, FaultKind, FaultPlan, Sandbox, fixtures::WRITER_TOKEN},
};
use tokio::{net::TcpListener, sync::Barrier, task::JoinSet, time::Instant};

use crate::{
    figure::Figure,
    load,
    options::Size,
    support::binary::Server,
    test_service::{self, ORGANIZATION, Stream, connect, destination, soon},
};

const PROMISE: &str = "R9";
/// Of each stream: its window, in messages of this size.
const BATCHES: usize = 10;
const BATCH: usize = 100;
/// Streams that share a connection.
const PER_CONNECTION: usize = 50;
/// Each has its own part of the memory.
const DESTINATIONS: usize = 8;
/// How long nothing is read or answered once every stream has pushed.
const STANDSTILL: Duration = Duration::from_secs(3);
const BOUND_MIB: u64 = 256;

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let sandbox = Sandbox::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vendor = format!(
        "--launchdarkly-url=http://{}",
        listener.local_addr().unwrap()
    );
    // Ends with the runtime.
    tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));
    let home = tempfile::tempdir().unwrap();
    let flags = [
        vendor.as_str(),
        "--attempt-timeout=2s",
        "--log=error,launchdarkly_connector::cli=info",
    ];
    let server = Server::start(&home, "127.0.0.1:0", &flags);
    let names = create(&server).await;
    sandbox.set_faults(FaultPlan {
        faults: vec![Fault::new(FaultKind::Hang)],
        ..FaultPlan::default()
    });

    let (streams, len) = size.pick((200, 1_000), (1_000, 20));
    let idle = rss_mib(&server, "VmRSS");
    let pushed = std::sync::Arc::new(Barrier::new(streams + 1));
    let healed = std::sync::Arc::new(Barrier::new(streams + 1));
    let mut pushers = JoinSet::new();
    for first in (0..streams).step_by(PER_CONNECTION) {
        let client = connect(server.address.parse().unwrap()).await;
        for n in first..streams.min(first + PER_CONNECTION) {
            let mut stream = Stream::start(client.clone()).await;
            stream
                .send(In::Open(test_service::open(&names[n % DESTINATIONS])))
                .await;
            stream
                .next()
                .await
                .map_err(|status| format!("{status:?}"))?;
            let (pushed, healed) = (pushed.clone(), healed.clone());
            pushers.spawn(async move {
                push(&stream, n, len).await;
                pushed.wait().await;
                healed.wait().await;
                stream.half_close();
                stream.end().await
            });
        }
    }
    soon("every stream has pushed", pushed.wait()).await;
    tokio::time::sleep(STANDSTILL).await;
    sandbox.set_faults(FaultPlan::default());
    let drained = Instant::now();
    healed.wait().await;
    let mut delivered = 0;
    while let Some(ended) = pushers.join_next().await {
        let (answers, ended) = ended.map_err(|error| error.to_string())?;
        ended.map_err(|status| format!("a stream failed: {status:?}"))?;
        delivered += answers.results().values().filter(|r| r.is_none()).count();
    }
    let drained = format!("{:.1} s", drained.elapsed().as_secs_f64());
    let records = streams * BATCHES * BATCH;
    Ok(vec![
        Figure::told(PROMISE, "streams that push without reading", streams),
        Figure::told(PROMISE, "RSS before, MiB", idle),
        Figure::at_most(
            PROMISE,
            "highest RSS, MiB",
            rss_mib(&server, "VmHWM"),
            BOUND_MIB,
        ),
        Figure::exactly(PROMISE, "records delivered in the end", delivered, records),
        Figure::told(PROMISE, "time to drain", drained),
    ])
}

/// Hands all it has to the transport; what the server does not read waits there. Keys are filled
/// up to `len` bytes: a few streams with long ones want as much memory as many with short ones.
async fn push(stream: &Stream, n: usize, len: usize) {
    for batch in 0..BATCHES {
        let keys: Vec<_> = (0..BATCH)
            .map(|key| format!("{:len$}", format!("person-{n}-{batch}-{key}")))
            .collect();
        stream
            .add(&keys.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
    }
}

async fn create(server: &Server) -> Vec<String> {
    let mut client = connect(server.address.parse().unwrap()).await;
    let mut names = Vec::new();
    for n in 0..DESTINATIONS {
        let request = pb::CreateDestinationRequest {
            parent: ORGANIZATION.into(),
            destination_id: format!("vip-{n}"),
            destination: Some(destination(WRITER_TOKEN)),
            ..Default::default()
        };
        names.push(
            client
                .create_destination(request)
                .await
                .unwrap()
                .into_inner()
                .name,
        );
    }
    names
}

/// A line of the kernel's account of a process.
fn rss_mib(server: &Server, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find(|each| each.starts_with(line)).unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() / 1024
}
