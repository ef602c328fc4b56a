//! Conformance suite of stores: what every store must do, run against each.
//!
//! A database brings a [`Storage`]; `store_suite!(storage)` makes a test of each function below.

use std::{
    cmp::Reverse,
    slice,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use uuid::Uuid;

use super::{Cursor, Error, Fingerprint, IdempotencyKey, ListQuery, Store};
use crate::{
    domain::{
        CONTEXT_KEY_FIELD, ClientSideId, Connection, Destination, DestinationState, DestinationUid,
        DisplayName, Etag, FieldMapping, Instance, Mapping, OrganizationId, Revision, Transform,
    },
    secret::AccessToken,
};

/// The token of every destination here; it must not be found anywhere in the open.
pub(super) const CANARY: &str = "api-canary-7d1f0a3c";

const HOUR: Duration = Duration::from_hours(1);

/// What outlasts a store: opening it again finds what was there.
#[async_trait]
pub(super) trait Storage: Sync {
    async fn open(&self) -> Arc<dyn Store>;
}

macro_rules! store_suite {
    ($storage:expr) => {
        store_suite! { $storage =>
            a_destination_reads_back_as_written
            everything_survives_a_restart
            one_of_concurrent_creates_of_a_name_wins
            one_of_concurrent_creates_of_a_request_takes_effect
            a_refused_change_remembers_nothing
            one_of_concurrent_replacements_of_a_revision_wins
            what_is_gone_or_renamed_cannot_be_replaced
            a_request_that_replaced_once_is_remembered
            a_deletion_heeds_the_tag_and_keeps_requests
            a_state_changes_only_at_the_revision_seen
            those_rejected_are_listed_page_by_page_whosever_they_are
            pages_visit_each_once_while_others_come_and_go
            the_filter_holds_text_literally_in_any_case
            organizations_do_not_see_each_other
            requests_are_remembered_a_day_and_forgotten_later
        }
    };
    ($storage:expr => $($test:ident)*) => { $(
        #[tokio::test]
        async fn $test() {
            crate::store::suite::$test(&$storage).await;
        }
    )* };
}
pub(super) use store_suite;

pub(super) fn at(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_760_000_000) + Duration::from_micros(micros)
}

pub(crate) fn destination(id: &str) -> Destination {
    let mapping = FieldMapping {
        field: CONTEXT_KEY_FIELD.into(),
        sources: ["user_id".to_owned(), "e-mail \"quoted\"".to_owned()].into(),
        transforms: vec![
            Transform::Nfc,
            Transform::Trim,
            Transform::Lowercase,
            Transform::Sha256Hex,
        ],
    };
    Destination {
        name: format!("organizations/Acme.1/destinations/{id}")
            .parse()
            .unwrap(),
        uid: DestinationUid::generate(),
        display_name: DisplayName::new("VIP members").unwrap(),
        action: "send-identifiers".into(),
        connection: Connection {
            access_token: AccessToken::new(CANARY.into()),
            client_side_id: ClientSideId::new("65a1c2d3e4f5a6b7c8d9e0f1".into()),
            instance: Instance::Commercial,
        },
        mapping: Mapping::check(vec![mapping]).unwrap(),
        state: DestinationState::Active,
        create_time: at(1),
        update_time: at(1),
        revision: Revision::FIRST,
    }
}

fn named(id: &str, display_name: &str) -> Destination {
    Destination {
        display_name: DisplayName::new(display_name).unwrap(),
        ..destination(id)
    }
}

/// The next revision of a destination.
pub(crate) fn changed(destination: &Destination, display_name: &str) -> Destination {
    Destination {
        display_name: DisplayName::new(display_name).unwrap(),
        update_time: destination.update_time + Duration::from_secs(1),
        revision: destination.revision.next(),
        ..destination.clone()
    }
}

pub(super) fn idempotency_key() -> IdempotencyKey {
    IdempotencyKey {
        request_id: Uuid::new_v4(),
        fingerprint: Fingerprint([7; 32]),
    }
}

/// The organization of every [`destination`].
pub(super) fn acme() -> OrganizationId {
    OrganizationId::parse_parent("organizations/Acme.1").unwrap()
}

pub(super) fn everything() -> ListQuery {
    ListQuery {
        display_name: None,
        after: None,
        limit: 1000,
    }
}

/// The destination that a request of `by`'s organization created or changed.
async fn completed(
    store: &dyn Store,
    by: &Destination,
    key: &IdempotencyKey,
) -> Option<DestinationUid> {
    let found = store.find_request(&by.name.organization, key.request_id);
    found.await.unwrap().map(|request| request.uid)
}

/// A page of destinations that can all be read, and where the next one starts.
async fn listed(store: &dyn Store, query: &ListQuery) -> (Vec<Destination>, Option<Cursor>) {
    let page = store.list(&acme(), query).await.unwrap();
    let destinations = page.entries.into_iter().collect::<Result<_, _>>();
    (destinations.unwrap(), page.next)
}

async fn listed_ids(store: &dyn Store, query: &ListQuery) -> Vec<String> {
    let id = |d: &Destination| d.name.destination.as_str().to_owned();
    listed(store, query).await.0.iter().map(id).collect()
}

pub(super) async fn a_destination_reads_back_as_written(storage: &dyn Storage) {
    let store = storage.open().await;
    let mut written = Vec::new();
    let states = [
        DestinationState::Active,
        DestinationState::CredentialsRejected,
    ];
    for instance in [Instance::Commercial, Instance::Eu, Instance::Federal] {
        for state in states {
            let mut each = named(&format!("d{}", written.len()), "Größe 50 % _ 'x' 🚀");
            each.connection.instance = instance;
            each.state = state;
            each.revision = Revision(i64::MAX);
            each.update_time = at(999_999);
            store.create(&each, None).await.unwrap();
            written.push(each);
        }
    }
    for each in &written {
        assert_eq!(store.get(&each.name).await.unwrap().as_ref(), Some(each));
    }
    assert_eq!(store.get(&destination("other").name).await.unwrap(), None);
    store.ping().await.unwrap();
}

pub(super) async fn everything_survives_a_restart(storage: &dyn Storage) {
    let (created, create, replace) = (destination("a"), idempotency_key(), idempotency_key());
    let replaced = changed(&created, "renamed");
    let store = storage.open().await;
    store.create(&created, Some(&create)).await.unwrap();
    let done = store.replace(&replaced, created.revision, Some(&replace));
    done.await.unwrap();
    drop(store);

    let store = storage.open().await;
    let found = store.get(&created.name).await.unwrap();
    assert_eq!(found, Some(replaced));
    let remembered = store
        .find_request(&created.name.organization, create.request_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(remembered.fingerprint, create.fingerprint);
    assert_eq!(remembered.name, created.name);
    assert_eq!(remembered.uid, created.uid);
    let again = store.create(&destination("b"), Some(&replace)).await;
    assert!(matches!(again, Err(Error::DuplicateRequest)), "{again:?}");
}

pub(super) async fn one_of_concurrent_creates_of_a_name_wins(storage: &dyn Storage) {
    let store = storage.open().await;
    let rivals: Vec<_> = (0..8).map(|_| destination("same")).collect();
    let outcomes = join_all(rivals.iter().map(|d| store.create(d, None))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(
        lost.iter().all(|l| matches!(l, Err(Error::Exists))),
        "{lost:?}"
    );
}

pub(super) async fn one_of_concurrent_creates_of_a_request_takes_effect(storage: &dyn Storage) {
    let (store, key) = (storage.open().await, idempotency_key());
    let rivals: Vec<_> = (0..8).map(|n| destination(&format!("d{n}"))).collect();
    let outcomes = join_all(rivals.iter().map(|d| store.create(d, Some(&key)))).await;
    let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(
        lost.iter()
            .all(|l| matches!(l, Err(Error::DuplicateRequest))),
        "{lost:?}"
    );
    let there = listed(&*store, &everything()).await.0;
    assert_eq!(there.len(), 1);
    let remembered = completed(&*store, &rivals[0], &key).await;
    assert_eq!(remembered, Some(there[0].uid));
    // Sent again as it was, it is remembered rather than in its own way.
    let again = store.create(&there[0], Some(&key)).await;
    assert!(matches!(again, Err(Error::DuplicateRequest)), "{again:?}");
}

pub(super) async fn a_refused_change_remembers_nothing(storage: &dyn Storage) {
    let (store, there, key) = (storage.open().await, destination("a"), idempotency_key());
    store.create(&there, None).await.unwrap();
    let taken = store.create(&destination("a"), Some(&key)).await;
    assert!(matches!(taken, Err(Error::Exists)), "{taken:?}");
    assert_eq!(completed(&*store, &there, &key).await, None);
    let stale = changed(&there, "stale");
    let stale = store.replace(&stale, Revision(7), Some(&key)).await;
    assert!(matches!(stale, Err(Error::Conflict)), "{stale:?}");
    assert_eq!(completed(&*store, &there, &key).await, None);
    assert_eq!(store.get(&there.name).await.unwrap(), Some(there));
}

pub(super) async fn one_of_concurrent_replacements_of_a_revision_wins(storage: &dyn Storage) {
    let (store, there) = (storage.open().await, destination("a"));
    store.create(&there, None).await.unwrap();
    let rivals: Vec<_> = (0..8)
        .map(|n| changed(&there, &format!("try {n}")))
        .collect();
    let replace = |d| store.replace(d, there.revision, None);
    let outcomes = join_all(rivals.iter().map(replace)).await;
    let winner = outcomes.iter().position(Result::is_ok).unwrap();
    let conflicts = outcomes
        .iter()
        .filter(|o| matches!(o, Err(Error::Conflict)))
        .count();
    assert_eq!(conflicts, 7, "{outcomes:?}");
    let found = store.get(&there.name).await.unwrap();
    assert_eq!(found.as_ref(), Some(&rivals[winner]));
}

pub(super) async fn what_is_gone_or_renamed_cannot_be_replaced(storage: &dyn Storage) {
    let (store, there) = (storage.open().await, destination("a"));
    store.create(&there, None).await.unwrap();
    let mut elsewhere = changed(&there, "new");
    elsewhere.name = destination("b").name;
    let mut another = changed(&there, "new");
    another.uid = DestinationUid::generate();
    for stranger in [elsewhere, another] {
        let refused = store.replace(&stranger, there.revision, None).await;
        assert!(matches!(refused, Err(Error::Conflict)), "{refused:?}");
    }
    assert_eq!(store.get(&there.name).await.unwrap(), Some(there));
}

pub(super) async fn a_request_that_replaced_once_is_remembered(storage: &dyn Storage) {
    let (store, there, key) = (storage.open().await, destination("a"), idempotency_key());
    store.create(&there, None).await.unwrap();
    let new = changed(&there, "new");
    let first = store.replace(&new, there.revision, Some(&key)).await;
    first.unwrap();
    // By its revision alone it would be a conflict.
    let again = store.replace(&new, there.revision, Some(&key)).await;
    assert!(matches!(again, Err(Error::DuplicateRequest)), "{again:?}");
    assert_eq!(completed(&*store, &there, &key).await, Some(there.uid));
}

pub(super) async fn a_deletion_heeds_the_tag_and_keeps_requests(storage: &dyn Storage) {
    let (store, there, key) = (storage.open().await, destination("a"), idempotency_key());
    let name = &there.name;
    store.create(&there, Some(&key)).await.unwrap();
    let stale = store.delete(name, Some(&Etag("stale".into()))).await;
    assert!(matches!(stale, Err(Error::Conflict)), "{stale:?}");
    let deleted = store.delete(name, Some(&there.etag())).await.unwrap();
    assert_eq!(deleted, Some(there.uid));
    assert_eq!(store.get(name).await.unwrap(), None);
    assert_eq!(store.delete(name, None).await.unwrap(), None);

    let replayed = store.create(&there, Some(&key)).await;
    assert!(
        matches!(replayed, Err(Error::DuplicateRequest)),
        "{replayed:?}"
    );
    let successor = destination("a");
    store.create(&successor, None).await.unwrap();
    let old_tag = store.delete(name, Some(&there.etag())).await;
    assert!(matches!(old_tag, Err(Error::Conflict)), "{old_tag:?}");
    let untagged = store.delete(name, None).await.unwrap();
    assert_eq!(untagged, Some(successor.uid));
}

pub(super) async fn a_state_changes_only_at_the_revision_seen(storage: &dyn Storage) {
    let (store, there) = (storage.open().await, destination("a"));
    store.create(&there, None).await.unwrap();
    let (uid, seen) = (there.uid, there.revision);
    let set_state = async |uid, seen, state, micros| {
        let changed = store.set_state(uid, seen, state, at(micros)).await;
        changed.unwrap()
    };
    const REJECTED: DestinationState = DestinationState::CredentialsRejected;
    assert!(set_state(uid, seen, REJECTED, 9).await);
    let rejected = Destination {
        state: REJECTED,
        revision: seen.next(),
        update_time: at(9),
        ..there.clone()
    };
    assert_eq!(
        store.get(&there.name).await.unwrap().as_ref(),
        Some(&rejected)
    );
    // A lane that is late with the same news, or met the token before last, changes nothing.
    assert!(!set_state(uid, seen, REJECTED, 10).await);
    assert!(!set_state(uid, seen, DestinationState::Active, 10).await);
    assert_eq!(
        store.find(uid).await.unwrap().as_ref(),
        Some(&rejected),
        "by its uid"
    );
    assert!(set_state(uid, seen.next(), DestinationState::Active, 11).await);
    let active = Destination {
        revision: seen.next().next(),
        update_time: at(11),
        ..there.clone()
    };
    assert_eq!(store.get(&there.name).await.unwrap(), Some(active));
    let nobody = DestinationUid::generate();
    assert!(!set_state(nobody, seen, REJECTED, 10).await);
    assert_eq!(store.find(nobody).await.unwrap(), None);
}

pub(super) async fn those_rejected_are_listed_page_by_page_whosever_they_are(
    storage: &dyn Storage,
) {
    let store = storage.open().await;
    let mut expected = Vec::new();
    for n in 0..9 {
        let mut each = destination(&format!("d{n}"));
        each.name = format!("organizations/o{}/destinations/d{n}", n % 3)
            .parse()
            .unwrap();
        if n % 4 != 0 {
            each.state = DestinationState::CredentialsRejected;
            expected.push(each.uid);
        }
        store.create(&each, None).await.unwrap();
    }
    expected.sort_unstable();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.list_rejected(after, 2).await.unwrap();
        after = page.last().copied();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 2);
        found.extend(page);
    }
    assert_eq!(found, expected);
}

pub(super) async fn pages_visit_each_once_while_others_come_and_go(storage: &dyn Storage) {
    let store = storage.open().await;
    let mut there = Vec::new();
    // Seven full pages of three: after the last there must be no eighth.
    for n in 0..21 {
        let mut each = destination(&format!("d{n}"));
        // Four of each microsecond: only the uid tells them apart.
        each.create_time = at(100 + n / 4);
        store.create(&each, None).await.unwrap();
        there.push(each);
    }
    there.sort_by_key(|d| Reverse((d.create_time, d.uid)));
    let mut order = Vec::new();
    let mut query = ListQuery {
        limit: 3,
        ..everything()
    };
    for turn in 0.. {
        let (page, next) = listed(&*store, &query).await;
        order.extend(page.iter().map(|d| d.uid));
        assert_eq!(page.len(), 3);
        let Some(next) = next else { break };
        // The page's last, which the cursor names, goes, and a newer one comes.
        let last = page.last().unwrap();
        store.delete(&last.name, None).await.unwrap();
        let mut newer = destination(&format!("newer-{turn}"));
        newer.create_time = at(200 + turn);
        store.create(&newer, None).await.unwrap();
        query.after = Some(next);
    }
    let expected: Vec<_> = there.iter().map(|d| d.uid).collect();
    assert_eq!(order, expected);
}

pub(super) async fn the_filter_holds_text_literally_in_any_case(storage: &dyn Storage) {
    let store = storage.open().await;
    let names = [
        "ÄRZTE in Köln",
        "100% off",
        "1000 off",
        "snake_case",
        "snakeXcase",
        "ΟΔΟΣΑ",
        "STRAẞE",
    ];
    for (n, name) in names.into_iter().enumerate() {
        store
            .create(&named(&format!("d{n}"), name), None)
            .await
            .unwrap();
    }
    for (text, expected) in [
        ("ärzte IN kÖ", vec!["d0"]),
        ("0% O", vec!["d1"]),
        ("e_C", vec!["d3"]),
        ("οδοσ", vec!["d5"]),
        ("ΟΔΟΣ", vec!["d5"]),
        ("straße", vec!["d6"]),
        ("Strasse", vec!["d6"]),
        ("nobody", vec![]),
    ] {
        let query = ListQuery {
            display_name: Some(text.into()),
            ..everything()
        };
        assert_eq!(listed_ids(&*store, &query).await, expected, "{text}");
    }
    // A new display name is found, and the old one no more.
    let there = store.get(&destination("d1").name).await.unwrap().unwrap();
    let renamed = changed(&there, "ÖFFENTLICH");
    store.replace(&renamed, there.revision, None).await.unwrap();
    for (text, expected) in [("100%", vec![]), ("öffentlich", vec!["d1"])] {
        let query = ListQuery {
            display_name: Some(text.into()),
            ..everything()
        };
        assert_eq!(listed_ids(&*store, &query).await, expected, "{text}");
    }
}

pub(super) async fn organizations_do_not_see_each_other(storage: &dyn Storage) {
    let (store, ours, key) = (storage.open().await, destination("a"), idempotency_key());
    let mut theirs = destination("a");
    // Ids of organizations are told apart by case.
    theirs.name.organization = OrganizationId::parse_parent("organizations/acme.1").unwrap();
    store.create(&ours, Some(&key)).await.unwrap();
    store.create(&theirs, Some(&key)).await.unwrap();
    assert_eq!(store.get(&ours.name).await.unwrap().as_ref(), Some(&ours));
    let there = listed(&*store, &everything()).await.0;
    assert_eq!(there, slice::from_ref(&ours));
    assert_eq!(completed(&*store, &theirs, &key).await, Some(theirs.uid));
    store.delete(&theirs.name, None).await.unwrap();
    assert_eq!(store.get(&ours.name).await.unwrap(), Some(ours));
}

pub(super) async fn requests_are_remembered_a_day_and_forgotten_later(storage: &dyn Storage) {
    let (store, first) = (storage.open().await, idempotency_key());
    let created_at = |id, time| Destination {
        create_time: time,
        update_time: time,
        ..destination(id)
    };
    let created = created_at("a", at(0));
    store.create(&created, Some(&first)).await.unwrap();
    let next_day = created_at("b", at(0) + 24 * HOUR);
    store
        .create(&next_day, Some(&idempotency_key()))
        .await
        .unwrap();
    assert_eq!(
        completed(&*store, &created, &first).await,
        Some(created.uid)
    );
    let next_week = created_at("c", at(0) + 7 * 24 * HOUR);
    store
        .create(&next_week, Some(&idempotency_key()))
        .await
        .unwrap();
    assert_eq!(completed(&*store, &created, &first).await, None);
}
