//! The real service beside a sandbox, in this process, over real sockets.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use launchdarkly_connector::{
    app::App,
    config::Settings,
    launchdarkly::{Integration, RequestShape},
    metrics::Metrics,
    pb::{
        self, destination_connector_client::DestinationConnectorClient,
        identifier_record::Operation, send_identifiers_request::Message as In,
        send_identifiers_response::Message as Out,
    },
    sandbox::{
        self, Flag, Manifest, RecordedCall, Sandbox, SandboxOptions,
        fixtures::{
            CLIENT_SIDE_ID, FLAG, OTHER_ACCOUNT_CLIENT_SIDE_ID, OTHER_ACCOUNT_TOKEN, WRITER_TOKEN,
        },
    },
    shutdown::Shutdown,
    store::KeyRing,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_types::StatusExt;

use crate::support::{executor::record_reason, proxy::Proxy};

/// Far above what loopback needs; only a failure waits as long.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const ORGANIZATION: &str = "organizations/acme";
pub(crate) const SEGMENT: &str = "zeotap-vip";

pub(crate) type Client = DestinationConnectorClient<Channel>;

/// A running service and its sandbox.
pub(crate) struct TestService {
    pub(crate) sandbox: Sandbox,
    /// Where the sandbox is.
    pub(crate) sandbox_url: String,
    /// What stands before it; runs as long as the service.
    _between: Option<Proxy>,
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Metrics,
    /// Ends when the service has drained.
    pub(crate) served: JoinHandle<()>,
    settings: Settings,
    /// Removed with the service.
    directory: tempfile::TempDir,
}

impl TestService {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Starts with other settings than the defaults.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_behind(async |_| None, change).await
    }

    /// Starts with something between the service and its sandbox, which is told where the
    /// sandbox is.
    pub(crate) async fn start_behind(
        between: impl AsyncFnOnce(SocketAddr) -> Option<Proxy>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::start_beside(Sandbox::default(), between, change).await
    }

    /// Starts as a registered integration, beside a sandbox that reads its calls by its manifest
    /// and whose flag targets its segment `vip`.
    pub(crate) async fn start_as(integration: &str) -> Self {
        let manifest = std::fs::read_to_string(manifest_file(integration)).unwrap();
        let shape = RequestShape::from_manifest(manifest.as_bytes()).unwrap();
        let sandbox = Sandbox::new(SandboxOptions {
            integrations: vec![sandbox::Integration {
                key: integration.into(),
                manifest: Manifest::read(&manifest).unwrap(),
            }],
            flags: vec![Flag {
                key: FLAG.into(),
                segment: format!("{integration}-vip"),
                on: true,
            }],
            ..SandboxOptions::default()
        });
        let between = async |_| None;
        Self::start_beside(sandbox, between, |settings| {
            settings.launchdarkly.integration = Integration::new(integration, shape).unwrap();
        })
        .await
    }

    async fn start_beside(
        sandbox: Sandbox,
        between: impl AsyncFnOnce(SocketAddr) -> Option<Proxy>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sandbox_address = listener.local_addr().unwrap();
        let between = between(sandbox_address).await;
        let vendor = between
            .as_ref()
            .map_or(sandbox_address, |proxy| proxy.address);
        let sandbox_url = format!("http://{vendor}");
        // Ends with the test's runtime.
        tokio::spawn(sandbox.clone().serve(listener, std::future::pending()));

        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().join("keys");
        std::fs::write(&keys, KeyRing::generate_line().as_bytes()).unwrap();
        let mut settings = Settings::with_keys(keys);
        settings.store = format!("sqlite:{}", directory.path().join("connector.db").display());
        settings.launchdarkly.url = Some(sandbox_url.parse().unwrap());
        change(&mut settings);
        let (client, address, shutdown, metrics, served) = serve(&settings).await;
        Self {
            sandbox,
            sandbox_url,
            _between: between,
            client,
            address,
            shutdown,
            metrics,
            served,
            settings,
            directory,
        }
    }

    /// Stops the service and starts it again on the same files.
    pub(crate) async fn restart(self) -> Self {
        self.shutdown.trigger();
        soon("the service ends", self.served).await.unwrap();
        let (client, address, shutdown, metrics, served) = serve(&self.settings).await;
        Self {
            client,
            address,
            shutdown,
            metrics,
            served,
            ..self
        }
    }

    /// Every file the service has written, by name.
    pub(crate) fn files(&self) -> Vec<(String, Vec<u8>)> {
        std::fs::read_dir(&self.directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.display().to_string(), std::fs::read(path).unwrap()))
            .collect()
    }

    /// Creates a destination for the sandbox's writer token, and returns its name.
    pub(crate) async fn create(&self, id: &str) -> String {
        self.create_as(id, destination(WRITER_TOKEN)).await
    }

    /// Creates a destination in the sandbox's other account, and returns its name.
    pub(crate) async fn create_elsewhere(&self, id: &str) -> String {
        let elsewhere = in_environment(
            destination(OTHER_ACCOUNT_TOKEN),
            OTHER_ACCOUNT_CLIENT_SIDE_ID,
        );
        self.create_as(id, elsewhere).await
    }

    /// Creates a destination for another environment of the writer's account, and returns its name.
    pub(crate) async fn create_in(&self, id: &str, client_side_id: &str) -> String {
        self.create_as(
            id,
            in_environment(destination(WRITER_TOKEN), client_side_id),
        )
        .await
    }

    async fn create_as(&self, id: &str, destination: pb::Destination) -> String {
        let request = pb::CreateDestinationRequest {
            parent: ORGANIZATION.into(),
            destination_id: id.into(),
            destination: Some(destination),
            ..Default::default()
        };
        self.client
            .clone()
            .create_destination(request)
            .await
            .unwrap()
            .into_inner()
            .name
    }

    /// Opens a stream into [`SEGMENT`] and waits for `opened`.
    pub(crate) async fn open(&self, destination: &str) -> Stream {
        self.open_with(open(destination)).await
    }

    pub(crate) async fn open_with(&self, open: pb::OpenStream) -> Stream {
        let mut stream = self.stream().await;
        stream.send(In::Open(open)).await;
        match stream.next().await {
            Ok(Some(Out::Opened(_))) => stream,
            other => panic!("not opened: {other:?}"),
        }
    }

    /// Starts a stream that has not said anything yet.
    pub(crate) async fn stream(&self) -> Stream {
        Stream::start(self.client.clone()).await
    }

    /// Waits until the sandbox shows what is expected.
    pub(crate) async fn until(&self, what: &str, shows: impl Fn(&Sandbox) -> bool + Send) {
        soon(what, self.sandbox.until(shows)).await;
    }

    /// The calls that were to change a segment. Beside them, the service asks once whose a token
    /// is that has worked.
    pub(crate) fn deliveries(&self) -> Vec<RecordedCall> {
        let mut calls = self.sandbox.calls();
        calls.retain(|call| call.path.contains("/segment-targets/"));
        calls
    }

    pub(crate) fn members(&self) -> Vec<String> {
        self.sandbox
            .members(CLIENT_SIDE_ID, SEGMENT)
            .into_iter()
            .collect()
    }
}

async fn serve(settings: &Settings) -> (Client, SocketAddr, Shutdown, Metrics, JoinHandle<()>) {
    let app = App::build(settings).await.unwrap();
    let metrics = app.metrics();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new();
    let run = app.run(listener, shutdown.clone());
    // Awaited by tests that stop the service; otherwise it ends with the test's runtime.
    let served = tokio::spawn(async { run.await.unwrap() });
    (connect(address).await, address, shutdown, metrics, served)
}

pub(crate) async fn connect(address: SocketAddr) -> Client {
    Client::connect(format!("http://{address}")).await.unwrap()
}

pub(crate) async fn soon<T>(what: &str, task: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, task).await {
        Ok(done) => done,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// The manifest that LaunchDarkly has registered for an integration.
pub(crate) fn manifest_file(integration: &str) -> PathBuf {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests");
    manifests.join(format!("{integration}.json"))
}

pub(crate) fn destination(token: &str) -> pb::Destination {
    pb::Destination {
        display_name: "LaunchDarkly production".into(),
        action: "send-identifiers".into(),
        config: Some(pb::destination::Config::LaunchDarkly(
            pb::LaunchDarklyConfig {
                access_token: token.into(),
                client_side_id: CLIENT_SIDE_ID.into(),
                ..Default::default()
            },
        )),
        field_mappings: vec![pb::FieldMapping {
            field: "context_key".into(),
            sources: vec!["user_id".into(), "email".into()],
            transforms: vec![],
        }],
        ..Default::default()
    }
}

pub(crate) fn open(destination: &str) -> pb::OpenStream {
    open_into(destination, "vip")
}

fn in_environment(mut destination: pb::Destination, client_side_id: &str) -> pb::Destination {
    if let Some(pb::destination::Config::LaunchDarkly(config)) = &mut destination.config {
        config.client_side_id = client_side_id.into();
    }
    destination
}

/// Opens a stream into a segment of this ID.
pub(crate) fn open_into(destination: &str, segment: &str) -> pb::OpenStream {
    pb::OpenStream {
        destination: destination.into(),
        activation: Some(pb::Activation {
            segment_id: segment.into(),
            segment_name: segment.to_uppercase(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(crate) fn record(key: &str, operation: Operation) -> pb::IdentifierRecord {
    pb::IdentifierRecord {
        identifiers: [("user_id".to_owned(), key.to_owned())].into(),
        operation: operation.into(),
    }
}

/// The reason in a status' `ErrorInfo`.
pub(crate) fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

/// One `SendIdentifiers` stream, seen from the client.
pub(crate) struct Stream {
    sender: Option<mpsc::Sender<pb::SendIdentifiersRequest>>,
    responses: Streaming<pb::SendIdentifiersResponse>,
}

/// All that a stream answered after it was opened.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) acks: Vec<pb::Ack>,
    pub(crate) drains: usize,
    pub(crate) notices: Vec<pb::Notice>,
}

impl Stream {
    pub(crate) async fn start(mut client: Client) -> Self {
        let (sender, requests) = mpsc::channel(16);
        let response = client.send_identifiers(ReceiverStream::new(requests));
        let responses = soon("response headers", response)
            .await
            .unwrap()
            .into_inner();
        Self {
            sender: Some(sender),
            responses,
        }
    }

    pub(crate) async fn send(&self, message: In) {
        let message = pb::SendIdentifiersRequest {
            message: Some(message),
        };
        // A stream the server has ended refuses; its status tells why.
        self.sender.as_ref().unwrap().send(message).await.ok();
    }

    pub(crate) async fn batch(&self, records: Vec<pb::IdentifierRecord>) {
        self.send(In::Batch(pb::IdentifierBatch {
            first_sequence: None,
            records,
        }))
        .await;
    }

    pub(crate) async fn add(&self, keys: &[&str]) {
        self.batch(keys.iter().map(|key| record(key, Operation::Add)).collect())
            .await;
    }

    pub(crate) async fn remove(&self, keys: &[&str]) {
        self.batch(
            keys.iter()
                .map(|key| record(key, Operation::Remove))
                .collect(),
        )
        .await;
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Out>, Status> {
        let response = soon("a response", self.responses.message()).await?;
        Ok(response.map(|response| response.message.unwrap()))
    }

    /// The next message of the kind that `pick` knows; others are passed over.
    pub(crate) async fn next_of<T>(&mut self, pick: impl Fn(Out) -> Option<T>) -> T {
        loop {
            let message = self.next().await.unwrap().expect("the stream goes on");
            if let Some(picked) = pick(message) {
                return picked;
            }
        }
    }

    /// Reads acks until everything up to `sequence` is committed.
    pub(crate) async fn committed(&mut self, sequence: i64) -> Vec<pb::Ack> {
        let mut acks = Vec::new();
        while acks
            .last()
            .is_none_or(|ack: &pb::Ack| ack.committed_sequence < sequence)
        {
            acks.push(self.next_of(ack).await);
        }
        acks
    }

    pub(crate) fn half_close(&mut self) {
        self.sender = None;
    }

    /// Half-closes, reads to the end, and returns what came and how it ended.
    pub(crate) async fn finish(mut self) -> (Answers, Result<(), Status>) {
        self.half_close();
        self.end().await
    }

    /// Reads to the end without half-closing.
    pub(crate) async fn end(&mut self) -> (Answers, Result<(), Status>) {
        let mut answers = Answers::default();
        loop {
            match self.next().await {
                Ok(Some(Out::Ack(ack))) => answers.acks.push(ack),
                Ok(Some(Out::Notice(notice))) => answers.notices.push(notice),
                Ok(Some(Out::Drain(_))) => answers.drains += 1,
                Ok(Some(Out::Opened(_))) => panic!("opened twice"),
                Ok(None) => return (answers, Ok(())),
                Err(status) => return (answers, Err(status)),
            }
        }
    }

    /// Reads to the end and returns the reason the stream failed for.
    pub(crate) async fn failure(&mut self) -> (Answers, Code, String) {
        let (answers, ended) = self.end().await;
        let status = ended.expect_err("the stream fails");
        let reason = reason(&status);
        (answers, status.code(), reason)
    }
}

pub(crate) fn ack(message: Out) -> Option<pb::Ack> {
    match message {
        Out::Ack(ack) => Some(ack),
        _ => None,
    }
}

impl Answers {
    /// Each record's error reason by its sequence; `None` when it was accepted. Panics when a
    /// record is covered twice.
    pub(crate) fn results(&self) -> std::collections::BTreeMap<i64, Option<String>> {
        results(&self.acks)
    }
}

pub(crate) fn results(acks: &[pb::Ack]) -> std::collections::BTreeMap<i64, Option<String>> {
    let mut results = std::collections::BTreeMap::new();
    for run in acks.iter().flat_map(|ack| &ack.results) {
        let reason = run.error.as_ref().map(record_reason);
        for sequence in run.first_sequence..=run.last_sequence {
            let twice = results.insert(sequence, reason.clone());
            assert_eq!(twice, None, "record {sequence} has two results");
        }
    }
    results
}
