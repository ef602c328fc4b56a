//! One simulation from its plan to its history.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use futures_util::FutureExt;
use launchdarkly_connector::{
    app::App,
    clock::StandIn,
    config::Settings,
    domain::{
        ClientSideId, Connection, Destination, DestinationState, DestinationUid, DisplayName,
        FieldMapping, Instance, Mapping, Revision,
    },
    launchdarkly,
    pb::{self, destination_connector_client::DestinationConnectorClient},
    sandbox::{
        FaultPlan, Sandbox,
        fixtures::{CLIENT_SIDE_ID, WRITER_TOKEN},
    },
    secret::AccessToken,
    shutdown::Shutdown,
    store::{MemoryStore, Store},
};
use turmoil::Sim;

use super::{
    network::{Calls, Connections, LAUNCHDARKLY, Port, SERVER, connect},
    plan::{ATTEMPT, Link, Log, Plan, Service, Step, Way},
};
use crate::{
    support::{
        executor::{self, Job},
        history::{History, Summary},
    },
    test_service::{self, ORGANIZATION, SEGMENT},
};

/// How often hosts take turns, and the network looks at its messages. Coarse, since simulated
/// time costs real time by the tick, and fine beside every time-out.
const TICK: Duration = Duration::from_millis(5);
/// When a simulation counts as hung. All of them are done in a quarter of it.
const LONGEST: Duration = Duration::from_secs(120);
/// The host that rotates tokens.
const OPERATOR: &str = "operator";
/// How long the operator waits for an answer before asking again.
const ANSWER: Duration = Duration::from_secs(2);

/// What a simulation that kept every promise was like.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) summary: Summary,
    /// How long it lasted in its own time.
    pub(crate) lasted: Duration,
}

/// Plays a plan to its end, recording into `history`, and judges that.
///
/// # Errors
/// What went wrong, or which promises were not kept.
pub(super) fn play(plan: &Plan, history: &History) -> Result<Kept, String> {
    // Everything that is drawn on this thread, by the service and by its clients.
    fastrand::seed(plan.seed);
    let _clock = StandIn::new(wall_clock);
    let mut world = World::new(plan, history);
    let lasted = world.play(plan)?;
    history.conclude(world.sandbox.members(CLIENT_SIDE_ID, SEGMENT));
    let summary = history.check()?;
    Ok(Kept { summary, lasted })
}

/// The time of day where the simulation is.
fn wall_clock() -> SystemTime {
    // Outside of every host, nothing asks for the time of day.
    SystemTime::UNIX_EPOCH + turmoil::since_epoch().unwrap_or_default()
}

/// The service that runs, or ran last.
#[derive(Default)]
struct Running {
    /// Asks it to stop.
    shutdown: Shutdown,
    connections: Connections,
}

struct World {
    sim: Sim<'static>,
    sandbox: Sandbox,
    history: History,
    service: Arc<Mutex<Running>>,
    clients: usize,
    away: Duration,
    /// When the service comes back, while it is away.
    back: Option<Duration>,
}

impl World {
    fn new(plan: &Plan, history: &History) -> Self {
        let network = &plan.network;
        let sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            // Any day: what is drawn from the wall clock must be the same in every run.
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000))
            .tick_duration(TICK)
            .simulation_duration(LONGEST)
            .min_message_latency(network.fastest)
            .max_message_latency(network.slowest)
            .fail_rate(network.fails)
            .repair_rate(network.mends)
            // More than any connection here has under way: a full one would be one more fault.
            .tcp_capacity(4096)
            .build();
        let mut world = Self {
            sim,
            sandbox: Sandbox::default(),
            history: history.clone(),
            service: Arc::default(),
            clients: plan.logs.len(),
            away: plan.service.away,
            back: None,
        };
        world
            .history
            .observe(&world.sandbox, CLIENT_SIDE_ID, SEGMENT);
        world.add_launchdarkly();
        world.add_service(&plan.service);
        for (number, log) in plan.logs.iter().enumerate() {
            world.add_client(number, log, network.patience);
        }
        world.add_operator(plan.rotations.clone());
        world
    }

    fn add_launchdarkly(&mut self) {
        let sandbox = self.sandbox.clone();
        self.sim.host(LAUNCHDARKLY, move || {
            let sandbox = sandbox.clone();
            async move {
                let port = Port::open(Connections::default()).await?;
                sandbox.serve(port, std::future::pending()).await?;
                Ok(())
            }
        });
    }

    fn add_service(&mut self, service: &Service) {
        let settings = settings(service);
        let disk = disk();
        let running = Arc::clone(&self.service);
        self.sim.host(SERVER, move || {
            let (shutdown, connections) = (Shutdown::new(), Connections::default());
            *running.lock().unwrap() = Running {
                shutdown: shutdown.clone(),
                connections: connections.clone(),
            };
            let vendor = vendor(connections.clone(), &settings);
            let app = App::assemble(Arc::new(disk.reopen()), vendor, &settings);
            async move {
                let port = Port::open(connections).await?;
                app.serve(Box::pin(port.incoming()), shutdown).await?;
                Ok(())
            }
        });
    }

    fn add_client(&mut self, number: usize, log: &Log, patience: Duration) {
        let open = pb::OpenStream {
            delivery_timeout: log
                .delivery_timeout
                .map(|timeout| timeout.try_into().unwrap()),
            ..test_service::open(&destination_name())
        };
        let job = Job {
            log: log.name.as_str().into(),
            open,
            records: log.records.clone(),
        };
        let (settings, history) = (log.settings, self.history.clone());
        self.sim.client(client(number), async move {
            let done = executor::run(|| connect(patience), job, settings, history).await;
            done.map(|_| ())
                .map_err(|stopped| stopped.to_string().into())
        });
    }

    fn add_operator(&mut self, rotations: Vec<(Duration, &'static str)>) {
        self.sim.client(OPERATOR, async move {
            for (at, token) in rotations {
                tokio::time::sleep(at.saturating_sub(turmoil::sim_elapsed().unwrap_or(at))).await;
                // Answered or not, asked again it does the same.
                while !matches!(
                    tokio::time::timeout(ANSWER, rotate(token)).await,
                    Ok(Ok(()))
                ) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Ok(())
        });
    }

    fn play(&mut self, plan: &Plan) -> Result<Duration, String> {
        let mut steps = plan.steps.iter().peekable();
        loop {
            let now = self.sim.elapsed();
            while let Some((_, step)) = steps.next_if(|(at, _)| *at <= now) {
                self.take(step);
            }
            self.revive(now);
            // The trouble is not cut short by executors that are quick.
            if self.sim.step().map_err(|error| error.to_string())? && steps.peek().is_none() {
                return Ok(self.sim.elapsed());
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Cut(link) => self.sim.partition(end(*link), SERVER),
            Step::CutOneWay(link, Way::ToService) => self.sim.partition_oneway(end(*link), SERVER),
            Step::CutOneWay(link, Way::FromService) => {
                self.sim.partition_oneway(SERVER, end(*link));
            }
            Step::Hold { client: number } => self.sim.hold(client(*number), SERVER),
            Step::Release { client: number } => self.sim.release(client(*number), SERVER),
            Step::Mend(link) => self.sim.repair(end(*link), SERVER),
            Step::Crash => self.end_service(|sim| sim.crash(SERVER)),
            Step::Drain => self.service.lock().unwrap().shutdown.trigger(),
            Step::FaultPlan(faults) => self.sandbox.set_faults(faults.clone()),
            Step::Calm => self.calm(),
        }
    }

    fn calm(&mut self) {
        self.sandbox.set_faults(FaultPlan::default());
        self.sim.set_fail_rate(0.0);
        for number in 0..self.clients {
            self.sim.release(client(number), SERVER);
        }
        self.sim.repair(OPERATOR, SERVER);
        self.sim.repair(LAUNCHDARKLY, SERVER);
    }

    /// Starts the service again once it has been away for long enough.
    fn revive(&mut self, now: Duration) {
        if self.sim.is_host_running(SERVER) {
            return;
        }
        if now >= *self.back.get_or_insert(now + self.away) {
            self.back = None;
            self.end_service(|sim| sim.bounce(SERVER));
        }
    }

    /// Ends what is left of the service, which then says nothing any more.
    fn end_service(&mut self, end: impl FnOnce(&mut Sim<'static>)) {
        let connections = self.service.lock().unwrap().connections.clone();
        connections.die();
        end(&mut self.sim);
        connections.bury();
    }
}

fn client(number: usize) -> String {
    format!("client-{number}")
}

/// The host at the other end of a link of the service.
fn end(link: Link) -> String {
    match link {
        Link::Client(number) => client(number),
        Link::LaunchDarkly => LAUNCHDARKLY.into(),
    }
}

fn settings(service: &Service) -> Settings {
    // No file is ever read: the store comes as it is.
    let mut settings = Settings::with_keys("none".into());
    settings.delivery.linger = service.linger;
    settings.launchdarkly.max_members_per_call = service.members_per_call;
    settings.limits.max_in_flight_records = service.window as usize;
    settings.limits.max_stream_age = service.stream_age;
    settings.limits.drain_timeout = service.drain;
    settings
}

fn vendor(connections: Connections, settings: &Settings) -> launchdarkly::Client {
    let settings = launchdarkly::ClientSettings {
        attempt_timeout: ATTEMPT,
        ..settings.launchdarkly.clone()
    };
    launchdarkly::Client::over(Box::new(Calls(connections)), settings)
}

fn destination_name() -> String {
    format!("{ORGANIZATION}/destinations/vip")
}

/// What lasts beyond a crash: a store with the one destination.
fn disk() -> MemoryStore {
    let mapping = FieldMapping {
        field: "context_key".into(),
        sources: ["user_id".to_owned()].into(),
        transforms: vec![],
    };
    let destination = Destination {
        name: destination_name().parse().unwrap(),
        uid: DestinationUid::generate(),
        display_name: DisplayName::new("LaunchDarkly production").unwrap(),
        action: "send-identifiers".into(),
        connection: Connection {
            access_token: AccessToken::new(WRITER_TOKEN.into()),
            client_side_id: ClientSideId::new(CLIENT_SIDE_ID.into()),
            instance: Instance::Commercial,
        },
        mapping: Mapping::check(vec![mapping]).unwrap(),
        state: DestinationState::Active,
        create_time: SystemTime::UNIX_EPOCH,
        update_time: SystemTime::UNIX_EPOCH,
        revision: Revision::FIRST,
    };
    let disk = MemoryStore::default();
    let created = disk.create(&destination, None).now_or_never();
    created.expect("memory answers at once").unwrap();
    disk
}

/// Gives the destination another token.
async fn rotate(token: &str) -> Result<(), Box<dyn std::error::Error>> {
    let update = pb::UpdateDestinationRequest {
        destination: Some(pb::Destination {
            name: destination_name(),
            ..test_service::destination(token)
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["launch_darkly.access_token".into()],
        }),
        ..Default::default()
    };
    let mut client = DestinationConnectorClient::new(connect(ANSWER).await?);
    client.update_destination(update).await?;
    Ok(())
}
