//! What tests of streams put around them: a vendor, and a destination of it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use crate::{
    delivery::{Dispatcher, LaneSettings},
    domain::{
        Attempt, CONTEXT_KEY_FIELD, CallLimits, CallOutcome, ClientSideId, Connection, ContextKind,
        CredentialStanding, FieldMapping, Hold, Instance, Mapping, Operation, OperationsPerCall,
        Refusal, SegmentCall, SegmentClient, SegmentId, SegmentRef, Slot, Transform,
    },
    secret::AccessToken,
};

/// A vendor that applies every call, once it may.
#[derive(Debug)]
pub(super) struct Vendor {
    /// The operation and the members of each call.
    pub(super) calls: Mutex<Vec<(Operation, Vec<String>)>>,
    /// How many calls are under way.
    pub(super) under_way: watch::Sender<usize>,
    /// Each call that is answered takes one.
    pub(super) answers: Semaphore,
}

impl Vendor {
    /// A vendor that answers so many calls until it is told of more.
    pub(super) fn answering(calls: usize) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            under_way: watch::Sender::new(0),
            answers: Semaphore::new(calls),
        })
    }

    /// Lanes that call it, and collect changes for so long.
    pub(super) fn dispatcher(self: &Arc<Self>, linger: Duration) -> Dispatcher {
        Dispatcher::new(LaneSettings { linger }, Arc::clone(self) as _, Arc::new(()))
    }
}

#[async_trait]
impl SegmentClient for Vendor {
    async fn ready(&self, _: &Arc<Connection>, _: &SegmentId, _: Attempt) -> Slot {
        Slot::free()
    }

    fn hold(&self, _: &Connection) -> Option<Hold> {
        None
    }

    fn connection_replaced(&self, _: &Connection, _: &Connection) {}

    fn limits(&self, _: &Connection) -> CallLimits {
        CallLimits {
            max_members: 1000,
            operations: OperationsPerCall::One,
        }
    }

    fn learn_max_members(&self, _: &Connection, _: usize) {}

    async fn apply(&self, _: Slot, call: &SegmentCall) -> CallOutcome {
        let keys = call
            .members
            .iter()
            .map(|member| member.key.as_str().to_owned());
        let operation = call.members[0].operation;
        self.calls.lock().push((operation, keys.collect()));
        self.under_way.send_modify(|calls| *calls += 1);
        self.answers.acquire().await.unwrap().forget();
        self.under_way.send_modify(|calls| *calls -= 1);
        CallOutcome::Applied
    }

    async fn confirm(&self, _: &Arc<Connection>, _: Refusal) -> CredentialStanding {
        CredentialStanding::Good
    }
}

pub(super) fn connection() -> Connection {
    Connection {
        access_token: AccessToken::new("token".into()),
        client_side_id: ClientSideId::new("env".into()),
        instance: Instance::Commercial,
    }
}

pub(super) fn segment() -> SegmentRef {
    SegmentRef::new(
        SegmentId::new("vip").unwrap(),
        ContextKind::default(),
        "VIP",
    )
    .unwrap()
}

/// `user_id`, without blanks around it.
pub(super) fn mapping() -> Mapping {
    let field = FieldMapping {
        field: CONTEXT_KEY_FIELD.into(),
        sources: ["user_id".to_owned()].into(),
        transforms: vec![Transform::Trim],
    };
    Mapping::check(vec![field]).unwrap()
}
