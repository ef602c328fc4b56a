use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use tokio::net::TcpListener;
use tokio_stream::{Stream, wrappers::TcpListenerStream};
use tonic::{Code, Request as Call, Response as Answer, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;
use crate::{
    backoff::Backoff,
    pb::destination_connector_server::{DestinationConnector, DestinationConnectorServer},
};

/// What a stream of the scripted server does.
#[derive(Debug, Clone)]
enum ServerStep {
    /// Refuses at once.
    Refuse(Status),
    /// Commits this many records and ends with a status.
    Lose(i64, Status),
    /// Commits this many records and asks to move; answers what came before the half-close.
    Drain(i64),
    /// Answers everything until the half-close.
    Serve,
    /// Takes everything and answers nothing.
    Hold,
    /// Opens nothing.
    Mute,
    /// Returns results of records that were not sent.
    Invent,
}

/// The first sequence and the length of each batch of a stream.
type Batches = Vec<(i64, usize)>;

/// A server that follows a script, one act a stream, and notes each stream's batches.
#[derive(Debug, Clone)]
struct Scripted {
    acts: Arc<Mutex<std::collections::VecDeque<ServerStep>>>,
    batches: Arc<Mutex<Vec<Batches>>>,
}

/// A status as the service makes it.
fn refusal(code: Code) -> Status {
    let details = ErrorDetails::with_error_info("REASON", "destinations.cdp", HashMap::new());
    Status::with_error_details(code, "must be mended", details)
}

type Replies = mpsc::Sender<Result<SendIdentifiersResponse, Status>>;

impl Scripted {
    async fn start(acts: &[ServerStep]) -> (Self, remote::Server) {
        let scripted = Self {
            acts: Arc::new(Mutex::new(acts.iter().cloned().collect())),
            batches: Arc::default(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = DestinationConnectorServer::new(scripted.clone());
        // Ends with the test's runtime.
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        (scripted, remote::Server::at(&url).unwrap())
    }

    fn batches(&self) -> Vec<Batches> {
        self.batches.lock().unwrap().clone()
    }

    async fn play(
        self,
        act: ServerStep,
        mut inbound: Streaming<SendIdentifiersRequest>,
        replies: Replies,
    ) {
        let reply = async |message| replies.send(Ok(response(message))).await.is_ok();
        if matches!(act, ServerStep::Mute) {
            return std::future::pending().await;
        }
        let stream = {
            let mut batches = self.batches.lock().unwrap();
            batches.push(vec![]);
            batches.len() - 1
        };
        let opened = pb::StreamOpened {
            max_batch_records: 3,
            max_in_flight_records: 7,
        };
        reply(Response::Opened(opened)).await;
        let mut taken = 0;
        while let Ok(Some(message)) = inbound.message().await {
            let Some(Request::Batch(batch)) = message.message else {
                continue;
            };
            let (first, count) = (batch.first_sequence.unwrap(), batch.records.len());
            self.batches.lock().unwrap()[stream].push((first, count));
            let last = first + i64::try_from(count).unwrap() - 1;
            let before = taken;
            taken += last - first + 1;
            match &act {
                ServerStep::Lose(limit, status) if taken > *limit => {
                    replies.send(Err(status.clone())).await.ok();
                    return;
                }
                ServerStep::Hold => std::future::pending().await,
                ServerStep::Invent => reply(ack(last + 1, last + 1)).await,
                ServerStep::Drain(limit) if before < *limit && taken >= *limit => {
                    reply(Response::Drain(pb::Drain::default())).await;
                    reply(ack(first, last)).await
                }
                _ => reply(ack(first, last)).await,
            };
        }
    }
}

fn response(message: Response) -> SendIdentifiersResponse {
    SendIdentifiersResponse {
        message: Some(message),
    }
}

fn ack(first_sequence: i64, last_sequence: i64) -> Response {
    let result = pb::RecordResult {
        first_sequence,
        last_sequence,
        error: None,
    };
    Response::Ack(pb::Ack {
        committed_sequence: last_sequence,
        results: vec![result],
        max_in_flight_records: None,
    })
}

#[tonic::async_trait]
impl DestinationConnector for Scripted {
    type SendIdentifiersStream =
        Pin<Box<dyn Stream<Item = Result<SendIdentifiersResponse, Status>> + Send>>;

    async fn send_identifiers(
        &self,
        call: Call<Streaming<SendIdentifiersRequest>>,
    ) -> Result<Answer<Self::SendIdentifiersStream>, Status> {
        let act = self
            .acts
            .lock()
            .unwrap()
            .pop_front()
            .expect("more streams than the script has");
        if let ServerStep::Refuse(status) = act {
            return Err(status);
        }
        let (replies, outbound) = mpsc::channel(8);
        // Ends with its stream, or with the test's runtime.
        tokio::spawn(self.clone().play(act, call.into_inner(), replies));
        Ok(Answer::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn describe_actions(
        &self,
        _: Call<pb::DescribeActionsRequest>,
    ) -> Result<Answer<pb::DescribeActionsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn validate_credentials(
        &self,
        _: Call<pb::ValidateCredentialsRequest>,
    ) -> Result<Answer<pb::ValidateCredentialsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn create_destination(
        &self,
        _: Call<pb::CreateDestinationRequest>,
    ) -> Result<Answer<pb::Destination>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_destination(
        &self,
        _: Call<pb::GetDestinationRequest>,
    ) -> Result<Answer<pb::Destination>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_destinations(
        &self,
        _: Call<pb::ListDestinationsRequest>,
    ) -> Result<Answer<pb::ListDestinationsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn update_destination(
        &self,
        _: Call<pb::UpdateDestinationRequest>,
    ) -> Result<Answer<pb::Destination>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn delete_destination(
        &self,
        _: Call<pb::DeleteDestinationRequest>,
    ) -> Result<Answer<()>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// What a run left behind.
struct Run {
    ended: Result<(), SendError>,
    lines: Vec<u64>,
    happened: Vec<&'static str>,
    batches: Vec<Batches>,
}

async fn play(acts: &[ServerStep], rows: u64) -> Run {
    let (scripted, server) = Scripted::start(acts).await;
    let options = TransferOptions {
        server,
        open: pb::OpenStream {
            delivery_timeout: Some(Duration::from_millis(50).try_into().unwrap()),
            ..pb::OpenStream::default()
        },
        give_up_after: Duration::from_millis(200),
        backoff: Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(10),
        },
    };
    let (sender, receiver) = mpsc::channel(usize::try_from(rows).unwrap().max(1));
    for line in 1..=rows {
        sender
            .try_send(InputRow {
                line,
                end: line,
                record: pb::IdentifierRecord::default(),
            })
            .unwrap();
    }
    drop(sender);
    let (mut lines, mut happened) = (vec![], vec![]);
    let stop = std::future::pending();
    let ended = run(&options, receiver, stop, |event| {
        match event {
            SendEvent::Opened => {}
            SendEvent::Settled(settled) => lines.extend(settled.iter().map(|settled| settled.line)),
            SendEvent::Notice(_) => happened.push("notice"),
            SendEvent::Drain => happened.push("drain"),
            SendEvent::Lost { .. } => happened.push("lost"),
        }
        ControlFlow::Continue(())
    })
    .await
    .map_err(|unfinished| unfinished.error);
    Run {
        ended,
        lines,
        happened,
        batches: scripted.batches(),
    }
}

fn all(rows: u64) -> Vec<u64> {
    (1..=rows).collect()
}

#[tokio::test]
async fn every_record_is_sent_in_full_batches_within_the_window() {
    let run = play(&[ServerStep::Serve], 10).await;
    assert!(run.ended.is_ok());
    assert_eq!(run.lines, all(10));
    let sizes: Vec<_> = run.batches[0].iter().map(|(_, count)| *count).collect();
    assert_eq!(sizes.iter().sum::<usize>(), 10);
    assert!(sizes.iter().all(|size| *size <= 3), "{sizes:?}");
    assert_eq!(run.batches[0][..2], [(1, 3), (4, 3)]);
}

#[tokio::test]
async fn an_empty_input_opens_a_stream_so_that_a_wrong_destination_is_found() {
    let run = play(&[ServerStep::Refuse(refusal(Code::NotFound))], 0).await;
    assert!(
        matches!(run.ended, Err(SendError::Refused(status)) if status.code() == Code::NotFound)
    );
    assert!(play(&[ServerStep::Serve], 0).await.ended.is_ok());
}

#[tokio::test]
async fn a_lost_stream_is_resumed_behind_the_last_commit() {
    let gone = Status::unavailable("gone");
    let acts = [
        ServerStep::Lose(6, gone.clone()),
        ServerStep::Refuse(gone),
        ServerStep::Serve,
    ];
    let run = play(&acts, 20).await;
    assert!(run.ended.is_ok());
    assert_eq!(run.lines, all(20));
    assert_eq!(run.happened, ["lost", "lost"]);
    assert_eq!(run.batches[1][0].0, 7);
}

#[tokio::test]
async fn a_stream_that_must_move_is_half_closed_and_followed_by_another() {
    let run = play(&[ServerStep::Drain(4), ServerStep::Serve], 40).await;
    assert!(run.ended.is_ok());
    assert_eq!(run.lines, all(40));
    assert_eq!(run.happened, ["drain"]);
    // Three were committed when the drain came, and seven more may have been on their way.
    assert_eq!(run.batches.len(), 2);
    assert!(run.batches[1][0].0 <= 3 + 7 + 1, "{:?}", run.batches);
}

#[tokio::test]
async fn what_must_be_mended_ends_the_run_and_keeps_what_was_settled() {
    let refused = refusal(Code::FailedPrecondition);
    let run = play(&[ServerStep::Lose(3, refused)], 10).await;
    assert!(matches!(run.ended, Err(SendError::Refused(_))));
    assert_eq!(run.lines, all(3));
}

#[tokio::test]
async fn a_stream_that_breaks_after_the_last_result_is_no_failure() {
    let run = play(
        &[
            ServerStep::Drain(3),
            ServerStep::Refuse(Status::unavailable("gone")),
        ],
        3,
    )
    .await;
    assert!(run.ended.is_ok());
    assert_eq!(run.lines, all(3));
}

#[tokio::test]
async fn nothing_is_waited_for_without_end() {
    for act in [ServerStep::Mute, ServerStep::Hold] {
        let run = play(std::slice::from_ref(&act), 3).await;
        assert!(
            matches!(run.ended, Err(SendError::GaveUp { .. })),
            "{act:?}"
        );
    }
    let unavailable = ServerStep::Refuse(Status::unavailable("starting"));
    let run = play(&vec![unavailable; 1_000], 3).await;
    let Err(SendError::GaveUp { last, .. }) = run.ended else {
        panic!("{:?}", run.ended)
    };
    assert!(last.ends_with("UNAVAILABLE: starting"), "{last}");
}

#[tokio::test]
async fn a_server_that_invents_results_is_not_believed() {
    let run = play(&[ServerStep::Invent], 3).await;
    assert!(matches!(
        run.ended,
        Err(SendError::Protocol(ProtocolViolation::Unasked { .. }))
    ));
}

#[tokio::test]
async fn what_comes_from_between_ends_no_run_whenever_it_comes() {
    for code in (1..=16).map(Code::from_i32) {
        let foreign = Status::new(code, "from a proxy");
        let acts = [
            ServerStep::Refuse(foreign.clone()),
            ServerStep::Lose(6, foreign.clone()),
            ServerStep::Refuse(foreign),
            ServerStep::Serve,
        ];
        let run = play(&acts, 20).await;
        assert!(run.ended.is_ok(), "{code:?}: {:?}", run.ended);
        assert_eq!(run.lines, all(20), "{code:?}");
    }
}

/// Options for a scripted server, and a row.
fn options(server: remote::Server) -> TransferOptions {
    TransferOptions {
        server,
        open: pb::OpenStream::default(),
        give_up_after: Duration::from_secs(60),
        backoff: Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(10),
        },
    }
}

fn row(line: u64) -> InputRow {
    InputRow {
        line,
        end: line,
        record: pb::IdentifierRecord::default(),
    }
}

#[tokio::test]
async fn nothing_is_tried_before_there_is_something_to_send_and_that_is_said() {
    // A second try without a row would be an act more than the script has.
    let gone = ServerStep::Refuse(Status::unavailable("gone"));
    let (_scripted, server) = Scripted::start(&[gone.clone(), gone, ServerStep::Serve]).await;
    let (sender, receiver) = mpsc::channel(1);
    let (mut pauses, mut source) = (vec![], Some(sender));
    let options = options(server);
    let ended = run(&options, receiver, std::future::pending(), |event| {
        if let SendEvent::Lost { pause, .. } = event {
            pauses.push(pause.is_some());
            // The source ends its silence when it hears that it is waited for.
            if let Some(sender) = source.take() {
                sender.try_send(row(1)).unwrap();
            }
        }
        ControlFlow::Continue(())
    });
    ended.await.unwrap();
    assert_eq!(pauses, [false, true]);
}

#[tokio::test]
async fn a_run_that_is_stopped_says_where_the_first_record_without_a_result_begins() {
    let gone = Status::unavailable("gone");
    let (_scripted, server) = Scripted::start(&[ServerStep::Lose(6, gone)]).await;
    let (sender, receiver) = mpsc::channel(20);
    // Records of several lines each.
    for record in 0..20 {
        sender.try_send(row(2 + 3 * record)).unwrap();
    }
    let (lost, stop) = tokio::sync::oneshot::channel();
    let (mut lost, mut settled) = (Some(lost), 0);
    let options = options(server);
    let stop = async { stop.await.unwrap() };
    let ended = run(&options, receiver, stop, |event| {
        match event {
            SendEvent::Settled(records) => settled += u64::try_from(records.len()).unwrap(),
            SendEvent::Lost { .. } => lost.take().unwrap().send("SIGTERM").unwrap(),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let unfinished = ended.await.unwrap_err();
    assert!(matches!(unfinished.error, SendError::Stopped("SIGTERM")));
    assert_eq!(unfinished.next_line, Some(2 + 3 * settled));
}

#[tokio::test]
async fn nothing_is_sent_that_cannot_be_reported() {
    let (scripted, server) = Scripted::start(&[ServerStep::Serve]).await;
    let (sender, receiver) = mpsc::channel(1);
    sender.try_send(row(1)).unwrap();
    let options = options(server);
    let stop = std::future::pending();
    let ended = run(&options, receiver, stop, |_| ControlFlow::Break(())).await;
    assert!(matches!(ended.unwrap_err().error, SendError::NotReported));
    assert!(scripted.batches().concat().is_empty());
}
