use std::sync::atomic::Ordering as Atomic;

use tokio::sync::mpsc;

use super::*;
use crate::{
    delivery::RefusedCredentials,
    domain::Caller,
    store::{MemoryStore, suite, troubled::TroubledStore},
};

const REJECTED: DestinationState = DestinationState::CredentialsRejected;

fn authorized<P: PermissionType>(destination: &Destination) -> Authorized<DestinationName, P> {
    let name = destination.name.to_string();
    Caller::local().destination(&name).unwrap()
}

/// A destination whose credentials were refused, which is not stored yet.
async fn refused(store: Arc<dyn Store>) -> (Registry, RefusalRecorder, Destination) {
    let (registry, recorder) = Registry::new(Arc::clone(&store), Metrics::default());
    let vip = suite::destination("vip");
    store.create(&vip, None).await.unwrap();
    let (_, live) = registry.open(&authorized(&vip)).await.unwrap().unwrap();
    assert!(live.refuse_credentials(vip.revision));
    (registry, recorder, vip)
}

#[tokio::test]
async fn a_refusal_is_stored_once_the_store_is_back() {
    let store = Arc::new(TroubledStore::new().await);
    let (registry, recorder, vip) = refused(store.clone()).await;
    store.is_down.store(true, Atomic::Relaxed);
    let (recorded, mut refused) = mpsc::unbounded_channel();
    let record = tokio::spawn(recorder.run(recorded));
    // Longer than the first pause.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!record.is_finished(), "it was given up");
    assert!(refused.try_recv().is_err(), "it was not stored");
    store.is_down.store(false, Atomic::Relaxed);
    let expected = RefusedCredentials {
        uid: vip.uid,
        revision: vip.revision,
    };
    assert_eq!(refused.recv().await, Some(expected), "nothing asks again");
    let found = registry
        .get(&authorized::<View>(&vip))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.state, found.revision),
        (REJECTED, vip.revision.next())
    );
    record.abort();
}

/// A stream reports a refusal to its client before it is stored. What that client reads then must
/// agree, and its etag must hold.
#[tokio::test(start_paused = true)]
async fn a_read_waits_until_a_refusal_is_stored() {
    let (registry, recorder, vip) = refused(Arc::new(MemoryStore::default())).await;
    let read = tokio::spawn({
        let (registry, name) = (registry.clone(), authorized::<View>(&vip));
        async move { registry.get(&name).await }
    });
    tokio::time::sleep(RECORDING_TIMEOUT / 2).await;
    assert!(!read.is_finished(), "it read what is not true any more");
    let (recorded, _refused) = mpsc::unbounded_channel();
    let record = tokio::spawn(recorder.run(recorded));
    let found = read.await.unwrap().unwrap().unwrap();
    assert_eq!(
        (found.state, found.revision),
        (REJECTED, vip.revision.next())
    );
    record.abort();
}

#[tokio::test(start_paused = true)]
async fn a_read_fails_while_a_refusal_cannot_be_stored() {
    let (registry, _recorder, vip) = refused(Arc::new(MemoryStore::default())).await;
    let read = registry.get(&authorized::<View>(&vip)).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
}

#[tokio::test]
async fn a_change_between_the_read_and_the_subscription_is_not_missed() {
    let store = Arc::new(TroubledStore::new().await);
    let (registry, _recorder) = Registry::new(store.clone(), Metrics::default());
    let vip = suite::destination("vip");
    store.create(&vip, None).await.unwrap();
    store.reads.forget_permits(1);
    let opened = tokio::spawn({
        let (registry, name) = (registry.clone(), authorized(&vip));
        async move { registry.open(&name).await }
    });
    while store.held_reads.load(Atomic::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let next = suite::changed(&vip, "renamed");
    let name = authorized(&vip);
    let replaced = registry.replace(&name, next.clone(), vip.revision, None);
    replaced.await.unwrap();
    store.reads.add_permits(1);
    let (found, live) = opened.await.unwrap().unwrap().unwrap();
    assert_eq!(found, next);
    assert_eq!(live.current().0, next.revision);
}
