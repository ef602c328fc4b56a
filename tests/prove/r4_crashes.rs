//! R4: the server is killed again and again under load, and started again on the same files.

use std::{net::TcpListener, time::Duration};

use launchdarkly_connector::sandbox::{
    FaultPlan, Sandbox,
    fixtures::{CLIENT_SIDE_ID, SEGMENT},
};
use tokio::sync::oneshot;

use crate::{
    figure::Figure,
    load::{self, Load},
    options::Size,
    support::{binary::Server, executor::Settings, history::History},
    test_service::{self, open},
};

const PROMISE: &str = "R4";
/// How long each server lives, from the moment when it serves.
const LIFE: Duration = Duration::from_millis(500);
/// Between batches: the logs must last longer than the kills, on fast machines too.
const PACE: Duration = Duration::from_millis(40);
/// A killed server's connections break at once.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let load = Load {
        logs: 4,
        records_per_log: size.pick(8_000, 45_000),
        keys_per_log: 250,
        refused_per_log: 0,
    };
    let sandbox = Sandbox::default();
    // Time to hear that a caller was killed, before its call is applied.
    sandbox.set_faults(FaultPlan {
        seed: size.seed,
        latency_ms: 20,
        jitter_ms: 20,
        ..FaultPlan::default()
    });
    let history = History::default();
    history.observe(&sandbox, CLIENT_SIDE_ID, SEGMENT);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vendor = format!("http://{}", listener.local_addr().unwrap());
    // Ends with the runtime.
    tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));

    let listen = free_address();
    let (served, serves) = oneshot::channel();
    let (done, is_done) = oneshot::channel();
    let wanted = size.pick(6, 45);
    // Awaited below.
    let killer = {
        let listen = listen.clone();
        tokio::task::spawn_blocking(move || kill(&listen, &vendor, wanted, served, is_done))
    };
    serves.await.map_err(|_| "the server does not start")?;
    let name = create(&listen).await;
    let jobs = load.jobs(&open(&name), size.seed);
    let url = format!("http://{listen}");
    let settings = Settings {
        pause: PACE,
        ..load::settings(Duration::from_secs(size.pick(60, 300)))
    };
    let ran = load::run(jobs, &url, PATIENCE, settings, &history).await;
    done.send(()).ok();
    let kills = killer.await.map_err(|error| error.to_string())?;
    history.conclude(sandbox.members(CLIENT_SIDE_ID, SEGMENT));
    let mut figures = load::figures(PROMISE, &history, &load, &ran?)?;
    figures.push(Figure::at_least(PROMISE, "kills under load", kills, wanted));
    Ok(figures)
}

/// Kills the server as often as wanted while executors run, then lets it live until they are
/// done. Answers how often it did.
fn kill(
    listen: &str,
    vendor: &str,
    wanted: usize,
    served: oneshot::Sender<()>,
    mut done: oneshot::Receiver<()>,
) -> usize {
    let home = tempfile::tempdir().unwrap();
    let flags = [
        &format!("--launchdarkly-url={vendor}"),
        "--log=warn,launchdarkly_connector=info",
        "--max-members-per-call=100",
        "--linger=5ms",
    ];
    let start = || Server::start(&home, listen, &flags);
    let mut server = start();
    served.send(()).ok();
    for kills in 0..wanted {
        std::thread::park_timeout(LIFE);
        if done.try_recv().is_ok() {
            return kills;
        }
        // Dropping it kills it, without a signal that it could hear.
        drop(server);
        server = start();
    }
    done.blocking_recv().ok();
    wanted
}

pub(crate) async fn create(listen: &str) -> String {
    let request = launchdarkly_connector::pb::CreateDestinationRequest {
        parent: test_service::ORGANIZATION.into(),
        destination_id: "vip".into(),
        destination: Some(test_service::destination(
            launchdarkly_connector::sandbox::fixtures::WRITER_TOKEN,
        )),
        ..Default::default()
    };
    let mut client = test_service::connect(listen.parse().unwrap()).await;
    let created = client.create_destination(request).await.unwrap();
    created.into_inner().name
}

/// Free now, and very likely still free when the server takes it.
pub(crate) fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
