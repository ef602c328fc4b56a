//! R10: a server that is asked to stop drains busy streams and leaves in time, whoever else is
//! connected.

use std::{net::SocketAddr, time::Duration};

use launchdarkly_connector::{
    pb::send_identifiers_request::Message as In,
    sandbox::{
        FaultPlan, Sandbox,
        fixtures::{CLIENT_SIDE_ID, SEGMENT},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    figure::Figure,
    load::{self, Load},
    options::Size,
    r4_crashes::{create, free_address},
    support::{
        binary::Server,
        executor,
        history::{Ending, Event, History},
    },
    test_service::{Stream, connect, open, open_into},
};

const PROMISE: &str = "R10";
const DRAIN: Duration = Duration::from_secs(3);
/// How much longer than that the process may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// How long streams are busy before the signal.
const BUSY: Duration = Duration::from_secs(2);

pub(crate) fn run(size: Size) -> Result<Vec<Figure>, String> {
    load::runtime().block_on(prove(size))
}

async fn prove(size: Size) -> Result<Vec<Figure>, String> {
    let sandbox = Sandbox::default();
    sandbox.set_faults(FaultPlan {
        latency_ms: 30,
        jitter_ms: 30,
        seed: size.seed,
        ..FaultPlan::default()
    });
    let history = History::default();
    history.observe(&sandbox, CLIENT_SIDE_ID, SEGMENT);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let vendor = format!(
        "--launchdarkly-url=http://{}",
        listener.local_addr().unwrap()
    );
    // Ends with the runtime.
    tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));

    let home = tempfile::tempdir().unwrap();
    let listen = free_address();
    let drain = format!("--drain-timeout={}s", DRAIN.as_secs());
    let flags = [
        vendor.as_str(),
        &drain,
        "--log=warn,launchdarkly_connector=info",
    ];
    let server = Server::start(&home, &listen, &flags);
    let name = create(&listen).await;
    let address: SocketAddr = listen.parse().unwrap();

    // One that ignores whatever it is told, and one that never says a byte.
    let mut rude = Stream::start(connect(address).await).await;
    rude.send(In::Open(open_into(&name, "rude"))).await;
    rude.next().await.map_err(|status| format!("{status:?}"))?;
    rude.add(&["rude"]).await;
    let silent = TcpStream::connect(address).await.unwrap();

    let load = Load {
        logs: size.pick(30, 100),
        records_per_log: size.pick(2_000, 4_000),
        keys_per_log: 50,
        refused_per_log: 0,
    };
    let settings = executor::Settings {
        pause: Duration::from_millis(50),
        ..load::settings(Duration::from_secs(size.pick(60, 120)))
    };
    let jobs = load.jobs(&open(&name), size.seed);
    let url = format!("http://{listen}");
    let executors = {
        let history = history.clone();
        tokio::spawn(async move {
            load::run(jobs, &url, Duration::from_secs(5), settings, &history).await
        })
    };
    tokio::time::sleep(BUSY).await;
    let asked = Instant::now();
    let ended = tokio::task::spawn_blocking(move || server.process.terminate());
    let ended = ended.await.map_err(|error| error.to_string())?;
    let took = asked.elapsed();
    drop((silent, rude));
    // Its successor takes what is left.
    let _successor = Server::start(&home, &listen, &flags);
    let ran = executors.await.map_err(|error| error.to_string())??;
    let drained = first_streams(&history);
    let well = drained.iter().filter(|how| **how == Ending::Ok).count();
    let seconds = |time: Duration| (10.0 * time.as_secs_f64()).round() / 10.0;
    let mut figures = vec![
        Figure::exactly(
            PROMISE,
            "busy streams that ended OK, with every record answered",
            well,
            load.logs,
        ),
        Figure::at_most(
            PROMISE,
            "from the signal to the end, s, with a client that ignores it and a silent connection",
            seconds(took),
            seconds(DRAIN + GRACE),
        ),
        Figure::exactly(PROMISE, "exit code", ended.code.unwrap_or(-1), 0),
    ];
    history.conclude(sandbox.members(CLIENT_SIDE_ID, SEGMENT));
    figures.extend(load::figures(PROMISE, &history, &load, &ran)?);
    Ok(figures)
}

/// How the streams ended that were open when the signal came: the first of each log.
fn first_streams(history: &History) -> Vec<Ending> {
    let ended = |event| match event {
        Event::Ended { by, how } if by.number == 1 => Some(how),
        _ => None,
    };
    history.events().into_iter().filter_map(ended).collect()
}
