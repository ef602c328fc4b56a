mod creating;
mod fakes;
mod reading;
mod updating;

use std::sync::Arc;

use pb::{destination::Config, field_mapping::Transform, launch_darkly_config::Instance};

use self::fakes::Oracle;
use super::*;
use crate::{
    clock,
    delivery::{LiveDestination, LiveState},
    metrics::Metrics,
    registry::{
        ListQuery,
        testing::{Store, TroubledStore},
    },
};

const PARENT: &str = "organizations/acme";
const VIP: &str = "organizations/acme/destinations/vip";
const REQUEST_ID: &str = "4b1f4a0e-7d52-4b0f-9a53-0c6a7f0e4f11";
const LOCAL: &Caller = &Caller::local();
const TOKEN: &str = "api-canary-0001";

/// The unary calls, and all they stand on.
struct Bench {
    unary: UnaryCalls,
    store: Arc<TroubledStore>,
    oracle: Arc<Oracle>,
    registry: Registry,
    metrics: Metrics,
}

impl Bench {
    async fn new() -> Self {
        Self::with_actions(&["send-identifiers", "send-other"]).await
    }

    async fn with_actions(ids: &[&'static str]) -> Self {
        let store = Arc::new(TroubledStore::new().await);
        let oracle = Arc::new(Oracle::with_actions(ids));
        let metrics = Metrics::default();
        let (registry, refusals) = Registry::new(store.clone(), metrics.clone());
        // Ends with the test.
        tokio::spawn(refusals.run(tokio::sync::mpsc::unbounded_channel().0));
        Self {
            unary: UnaryCalls::new(registry.clone(), oracle.clone()),
            store,
            oracle,
            registry,
            metrics,
        }
    }

    /// A bench with the destination [`VIP`] in it.
    async fn with_vip() -> (Self, pb::Destination) {
        let bench = Self::new().await;
        let vip = bench
            .unary
            .create_destination(LOCAL, create())
            .await
            .unwrap();
        (bench, vip)
    }

    async fn get(&self) -> pb::Destination {
        let request = pb::GetDestinationRequest { name: VIP.into() };
        self.unary.get_destination(LOCAL, request).await.unwrap()
    }

    /// How many destinations there are.
    async fn count(&self) -> usize {
        let query = ListQuery {
            display_name: None,
            after: None,
            limit: 10,
        };
        self.store
            .list(&vip().organization, &query)
            .await
            .unwrap()
            .entries
            .len()
    }

    /// [`VIP`] as it is stored.
    async fn stored(&self) -> Destination {
        self.store.get(&vip()).await.unwrap().unwrap()
    }

    /// [`VIP`] as its streams see it.
    async fn watch(&self) -> LiveDestination {
        self.registry
            .open(&authorized_vip())
            .await
            .unwrap()
            .unwrap()
            .1
    }

    async fn update(
        &self,
        destination: pb::Destination,
        paths: &[&str],
    ) -> Result<pb::Destination, Failure> {
        let request = update(destination, paths);
        self.unary.update_destination(LOCAL, request).await
    }
}

fn config(token: &str, client_side_id: &str, instance: Instance) -> pb::LaunchDarklyConfig {
    pb::LaunchDarklyConfig {
        access_token: token.into(),
        obfuscated_access_token: String::new(),
        client_side_id: client_side_id.into(),
        instance: instance.into(),
    }
}

fn settings() -> pb::Destination {
    pb::Destination {
        display_name: "VIP customers".into(),
        action: "send-identifiers".into(),
        config: Some(Config::LaunchDarkly(config(
            TOKEN,
            "5f0c",
            Instance::Commercial,
        ))),
        field_mappings: vec![pb::FieldMapping {
            field: "context_key".into(),
            sources: ["user_id".to_owned()].into(),
            transforms: vec![Transform::Trim.into()],
        }],
        ..Default::default()
    }
}

fn create() -> pb::CreateDestinationRequest {
    pb::CreateDestinationRequest {
        parent: PARENT.into(),
        destination_id: "vip".into(),
        destination: Some(settings()),
        ..Default::default()
    }
}

fn update(destination: pb::Destination, paths: &[&str]) -> pb::UpdateDestinationRequest {
    pb::UpdateDestinationRequest {
        destination: Some(pb::Destination {
            name: VIP.into(),
            ..destination
        }),
        update_mask: (!paths.is_empty()).then(|| prost_types::FieldMask {
            paths: paths.iter().map(ToString::to_string).collect(),
        }),
        ..Default::default()
    }
}

fn delete() -> pb::DeleteDestinationRequest {
    pb::DeleteDestinationRequest {
        name: VIP.into(),
        ..Default::default()
    }
}

fn authorized_vip<P: PermissionType>() -> Authorized<DestinationName, P> {
    LOCAL.destination(VIP).unwrap()
}

fn vip() -> DestinationName {
    VIP.parse().unwrap()
}

/// The paths of all violations; no text of which may hold a token.
fn paths(failure: Failure) -> Vec<String> {
    assert!(!format!("{failure:?}").contains("canary"));
    match failure {
        Failure::InvalidFields(violations) => violations.into_iter().map(|v| v.field).collect(),
        other => panic!("{other:?}"),
    }
}
