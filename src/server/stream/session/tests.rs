//! Sessions whose lease tells how it is given back.

use async_trait::async_trait;
use bytes::Bytes;
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Status, Streaming, body::Body, codec::Codec};
use tonic_prost::ProstCodec;

use super::*;
use crate::pb::{self, send_identifiers_request::Message};
use crate::{
    domain::{
        Authorized, Deliver, DestinationName, DestinationSettings, DisplayName, PermissionType,
    },
    metrics::Metrics,
    registry::{Registry, testing::TroubledStore},
    server::{
        edge::{inbound_body, memory::MemoryBudget},
        stream::{
            StreamLimits,
            fences::{Acquired, Fencing, Lease, StreamKey},
            responses,
            testing::{self, Vendor},
        },
    },
};

const VIP: &str = "organizations/acme/destinations/vip";
const SENDS: &str = "/cdp.destinations.v1.DestinationConnector/SendIdentifiers";
const MIB: usize = 1024 * 1024;

/// How a lease came back.
#[derive(Debug, PartialEq, Eq)]
enum GivenBack {
    /// By its release, while so many calls were under way.
    Released { under_way: usize },
    /// By being dropped alone.
    Dropped,
}

/// Grants leases at once, and tells how each comes back.
#[derive(Debug, Clone)]
struct Fences {
    vendor: Arc<Vendor>,
    given_back: mpsc::UnboundedSender<GivenBack>,
    superseded: CancellationToken,
}

#[derive(Debug)]
struct ObservedLease {
    fences: Fences,
    key: StreamKey,
    is_released: bool,
}

#[async_trait]
impl Fencing for Fences {
    async fn acquire(&self, key: StreamKey) -> Result<Acquired, Failure> {
        let lease = ObservedLease {
            fences: self.clone(),
            key,
            is_released: false,
        };
        Ok(Acquired {
            lease: Box::new(lease),
            has_waited: false,
        })
    }
}

#[async_trait]
impl Lease for ObservedLease {
    fn key(&self) -> &StreamKey {
        &self.key
    }

    async fn superseded(&self) {
        self.fences.superseded.cancelled().await;
    }

    async fn release(mut self: Box<Self>) {
        self.is_released = true;
        let under_way = *self.fences.vendor.under_way.borrow();
        let released = GivenBack::Released { under_way };
        self.fences.given_back.send(released).unwrap();
    }
}

impl Drop for ObservedLease {
    fn drop(&mut self) {
        if !self.is_released {
            self.fences.given_back.send(GivenBack::Dropped).ok();
        }
    }
}

/// A destination, and what its sessions work with.
struct Bench {
    context: Arc<StreamContext>,
    vendor: Arc<Vendor>,
    given_back: mpsc::UnboundedReceiver<GivenBack>,
    superseded: CancellationToken,
    registry: Registry,
    _drain: watch::Sender<Option<tokio::time::Instant>>,
}

impl Bench {
    /// One whose vendor answers so many calls.
    async fn new(answers: usize) -> Self {
        let metrics = Metrics::default();
        let store = Arc::new(TroubledStore::new().await);
        let (registry, _) = Registry::new(store, metrics.clone());
        let settings = DestinationSettings {
            display_name: DisplayName::new("VIP").unwrap(),
            action: "send-identifiers".into(),
            connection: testing::connection(),
            mapping: testing::mapping(),
        };
        registry.create(&vip(), settings, None).await.unwrap();
        let vendor = Vendor::answering(answers);
        let (tell, given_back) = mpsc::unbounded_channel();
        let superseded = CancellationToken::new();
        let fences = Fences {
            vendor: Arc::clone(&vendor),
            given_back: tell,
            superseded: superseded.clone(),
        };
        let minute = Duration::from_secs(60);
        let limits = StreamLimits {
            max_streams: 1,
            max_batch_records: 10,
            max_in_flight_records: 10,
            default_delivery_timeout: minute,
            max_stream_age: minute,
            max_stream_idle: minute,
            drain_timeout: minute,
        };
        let (_drain, drained) = watch::channel(None);
        let context = StreamContext::new(
            registry.clone(),
            vendor.dispatcher(Duration::ZERO),
            Vec::new(),
            limits,
            drained,
            metrics,
            Arc::new(fences),
        );
        Self {
            context: Arc::new(context),
            vendor,
            given_back,
            superseded,
            registry,
            _drain,
        }
    }

    /// Starts the session of a request; returns how it ends.
    fn start(&self, body: Body) -> impl Future<Output = Result<(), Status>> + use<> {
        let request = http::Request::builder().uri(SENDS).body(body).unwrap();
        let budget = MemoryBudget::new(10 * MIB, MIB);
        let request = Request::from_http(inbound_body::wrap(&budget, request));
        let decoder = ProstCodec::<pb::SendIdentifiersResponse, _>::default().decoder();
        let request = request.map(|body| Streaming::new_request(decoder, body, None, None));
        let inbound = Inbound::new(request).unwrap();
        let (sender, mut responses) = responses::channel(TaskTracker::new().token());
        let context = Arc::clone(&self.context);
        tokio::spawn(run(context, Caller::local(), inbound, sender));
        async move {
            while let Some(response) = responses.next().await {
                response?;
            }
            Ok(())
        }
    }
}

fn vip<P: PermissionType>() -> Authorized<DestinationName, P> {
    Caller::local().destination(VIP).unwrap()
}

/// An `open` with an id, and a batch of one record, as a request body has them.
fn messages() -> Bytes {
    let segment = testing::segment();
    let open = pb::OpenStream {
        destination: VIP.into(),
        activation: Some(pb::Activation {
            segment_id: segment.id.to_string(),
            segment_name: segment.name().to_owned(),
            ..Default::default()
        }),
        stream_id: "journey-7".into(),
        ..Default::default()
    };
    let record = pb::IdentifierRecord {
        identifiers: [("user_id".to_owned(), "ann".to_owned())].into(),
        operation: pb::identifier_record::Operation::Add.into(),
    };
    let batch = pb::IdentifierBatch {
        first_sequence: None,
        records: vec![record],
    };
    let mut body = Vec::new();
    for message in [Message::Open(open), Message::Batch(batch)] {
        let message = Some(message);
        let message = pb::SendIdentifiersRequest { message }.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap();
        body.push(0);
        body.extend(length.to_be_bytes());
        body.extend(message);
    }
    body.into()
}

/// The messages of a client that then half-closes.
fn half_closed() -> Body {
    Body::new(Full::new(messages()))
}

/// The messages of a client that stays.
fn open_ended() -> Body {
    let frame = tokio_stream::once(Ok::<_, Status>(Frame::data(messages())));
    Body::new(StreamBody::new(frame.chain(tokio_stream::pending())))
}

#[tokio::test]
async fn a_session_that_is_complete_releases_its_lease() {
    let mut bench = Bench::new(1).await;
    bench.start(half_closed()).await.unwrap();
    let released = GivenBack::Released { under_way: 0 };
    assert_eq!(bench.given_back.recv().await, Some(released));
    assert_eq!(bench.vendor.calls.lock().len(), 1);
}

#[tokio::test]
async fn a_session_that_is_superseded_releases_its_lease_once_its_last_call_has_ended() {
    let mut bench = Bench::new(0).await;
    let ended = bench.start(open_ended());
    let mut under_way = bench.vendor.under_way.subscribe();
    under_way.wait_for(|calls| *calls == 1).await.unwrap();
    bench.superseded.cancel();
    assert_eq!(ended.await.unwrap_err().code(), Code::Aborted);
    assert!(bench.given_back.try_recv().is_err(), "a call is under way");
    bench.vendor.answers.add_permits(1);
    let released = GivenBack::Released { under_way: 0 };
    assert_eq!(bench.given_back.recv().await, Some(released));
}

#[tokio::test]
async fn a_stream_that_is_refused_after_it_has_the_lease_releases_it() {
    let mut bench = Bench::new(0).await;
    let name: Authorized<_, Deliver> = vip();
    let (destination, live) = bench.registry.open(&name).await.unwrap().unwrap();
    assert!(live.refuse_credentials(destination.revision));
    let refused = bench.start(half_closed()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let released = GivenBack::Released { under_way: 0 };
    assert_eq!(bench.given_back.recv().await, Some(released));
}
