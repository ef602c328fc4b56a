//! The tests' own executor: it resumes where it must, and its history passes.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use launchdarkly_connector::{
    pb,
    sandbox::{Fault, FaultKind, FaultPlan, fixtures::CLIENT_SIDE_ID},
};
use tonic::Code;

use crate::{
    support::{
        executor::{self, Done, Job, Record, Settings, Stopped, endpoint},
        history::{Event, History, Operation},
    },
    test_service::{SEGMENT, TestService, open, soon},
};

/// Loopback answers at once; only a dead connection takes so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Adds and removes of a few keys in turn, ending with the adds.
fn records(count: usize, keys: usize) -> Vec<Record> {
    let record = |place: usize| Record {
        key: format!("k{}", place % keys).into(),
        operation: if ((count - 1 - place) / keys).is_multiple_of(2) {
            Operation::Add
        } else {
            Operation::Remove
        },
    };
    (0..count).map(record).collect()
}

fn job(destination: &str) -> Job {
    Job {
        log: "log".into(),
        open: open(destination),
        records: records(300, 30),
    }
}

async fn run(
    service: &TestService,
    destination: &str,
    settings: Settings,
    history: &History,
) -> Result<Done, Stopped> {
    history.observe(&service.sandbox, CLIENT_SIDE_ID, SEGMENT);
    let url = format!("http://{}", service.address);
    let connect = || {
        let endpoint = endpoint(url.clone(), PATIENCE);
        async move { endpoint.connect().await }
    };
    let run = executor::run(connect, job(destination), settings, history.clone());
    let ended = soon("the executor ends", run).await;
    history.conclude(service.members().into_iter().collect());
    ended
}

fn opened(history: &History) -> usize {
    let is_opened = |event: &&Event| matches!(event, Event::Opened(_));
    history.events().iter().filter(is_opened).count()
}

/// The most records that were sent and not committed at some moment.
fn most_in_flight(history: &History) -> i64 {
    let (mut most, mut committed) = (0, 0);
    for event in history.events() {
        match event {
            Event::Sent { sequence, .. } => most = most.max(sequence - committed),
            Event::Committed { sequence, .. } => committed = sequence,
            _ => {}
        }
    }
    most
}

#[tokio::test]
async fn a_log_is_sent_within_the_window_and_all_of_it_is_noted() {
    let service = TestService::start_with(|settings| {
        settings.limits.max_batch_records = 7;
        settings.limits.max_in_flight_records = 20;
    })
    .await;
    let name = service.create("vip").await;
    let history = History::default();
    let done = run(&service, &name, Settings::default(), &history).await;
    assert_eq!(
        done.unwrap(),
        Done {
            incarnations: 1,
            sent: 300
        }
    );
    let summary = history.check().unwrap();
    assert_eq!((summary.records, summary.settled), (300, 300));
    assert_eq!(most_in_flight(&history), 20);
    assert_eq!(service.members().len(), 30);
}

#[tokio::test]
async fn a_stream_that_is_asked_to_move_is_followed_by_another() {
    let service = TestService::start_with(|settings| {
        settings.limits.max_stream_age = Duration::from_millis(300);
    })
    .await;
    let name = service.create("vip").await;
    let history = History::default();
    let settings = Settings {
        batch: 10,
        pause: Duration::from_millis(30),
        ..Settings::default()
    };
    let done = run(&service, &name, settings, &history).await.unwrap();
    history.check().unwrap();
    assert_eq!(done.sent, 300, "nothing is sent twice after a drain");
    assert!(opened(&history) > 1);
}

#[tokio::test]
async fn a_stream_that_is_taken_over_is_followed_by_one_that_resumes() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    // Calls take a while, so that some records are sent and not committed at that moment.
    service.sandbox.set_faults(FaultPlan {
        latency_ms: 50,
        ..FaultPlan::default()
    });
    let history = History::default();
    let settings = Settings {
        batch: 20,
        pause: Duration::from_millis(20),
        ..Settings::default()
    };
    let rival = async {
        service
            .until("something is applied", |sandbox| {
                sandbox.totals().applied > 0
            })
            .await;
        let opening = pb::OpenStream {
            stream_id: "log".into(),
            ..open(&name)
        };
        service.open_with(opening).await.finish().await.1.unwrap();
    };
    let (done, ()) = tokio::join!(run(&service, &name, settings, &history), rival);
    history.check().unwrap();
    assert!(opened(&history) > 1 && done.unwrap().sent > 300);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_tried_again() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let attempts = AtomicUsize::new(0);
    let connect = || {
        let first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        // Nothing listens there.
        let address = if first {
            "127.0.0.1:1".to_owned()
        } else {
            service.address.to_string()
        };
        async move {
            endpoint(format!("http://{address}"), PATIENCE)
                .connect()
                .await
        }
    };
    let run = executor::run(connect, job(&name), Settings::default(), History::default());
    let done = soon("the executor ends", run).await.unwrap();
    assert_eq!(
        done,
        Done {
            incarnations: 2,
            sent: 300
        }
    );
}

#[tokio::test]
async fn an_executor_gives_up_at_its_deadline() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(FaultPlan {
        faults: vec![Fault::new(FaultKind::Hang)],
        ..FaultPlan::default()
    });
    let settings = Settings {
        deadline: Some(Duration::from_millis(300)),
        ..Settings::default()
    };
    let stopped = run(&service, &name, settings, &History::default()).await;
    assert_eq!(
        stopped,
        Err(Stopped::Deadline {
            committed: 0,
            of: 300
        })
    );
}

#[tokio::test]
async fn what_cannot_be_mended_by_trying_again_ends_the_executor() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let missing = name.replace("vip", "none");
    let refused = run(&service, &missing, Settings::default(), &History::default()).await;
    let expected = Stopped::Refused {
        code: Code::NotFound,
        reason: "DESTINATION_NOT_FOUND".into(),
    };
    assert_eq!(refused, Err(expected));
}
