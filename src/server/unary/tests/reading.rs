use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use prost::Message;
use tonic_types::StatusExt;

use pb::validate_credentials_request::Target;

use super::*;
use crate::domain::{CredentialsUnavailable, Permission, TransientError};

fn list(page_size: i32, page_token: &str, filter: &str) -> pb::ListDestinationsRequest {
    pb::ListDestinationsRequest {
        parent: PARENT.into(),
        page_size,
        page_token: page_token.into(),
        filter: filter.into(),
    }
}

async fn filled() -> Bench {
    let bench = Bench::new().await;
    for (parent, name) in [
        (PARENT, "Alpha"),
        ("organizations/other", "Alpha 2"),
        (PARENT, "Beta"),
        (PARENT, "alphabet"),
        (PARENT, "Final Alpha"),
    ] {
        let request = pb::CreateDestinationRequest {
            parent: parent.into(),
            destination_id: String::new(),
            destination: Some(pb::Destination {
                display_name: name.into(),
                ..settings()
            }),
            ..Default::default()
        };
        bench
            .unary
            .create_destination(LOCAL, request)
            .await
            .unwrap();
    }
    bench
}

#[tokio::test]
async fn pages_hold_every_match_once_and_the_newest_first() {
    let bench = filled().await;
    let mut token = String::new();
    let mut names = Vec::new();
    for _ in 0..2 {
        let request = list(2, &token, r#"display_name:"ALPHA""#);
        let page = bench.unary.list_destinations(LOCAL, request).await.unwrap();
        names.extend(page.destinations.into_iter().map(|d| d.display_name));
        token = page.next_page_token;
    }
    assert_eq!(names, ["Final Alpha", "alphabet", "Alpha"]);
    assert_eq!(token, "");
    let all = bench
        .unary
        .list_destinations(LOCAL, list(0, "", ""))
        .await
        .unwrap();
    assert_eq!(all.destinations.len(), 4);
}

#[tokio::test]
async fn a_page_ends_before_it_is_too_large_for_clients() {
    let bench = Bench::new().await;
    let sources: Vec<_> = (0..32).map(|n| format!("{n:0>256}")).collect();
    for _ in 0..600 {
        let mut large = create();
        large.destination_id.clear();
        let destination = large.destination.as_mut().unwrap();
        destination.field_mappings[0].sources.clone_from(&sources);
        bench.unary.create_destination(LOCAL, large).await.unwrap();
    }
    let (mut token, mut seen) = (String::new(), BTreeSet::new());
    loop {
        let page = bench.unary.list_destinations(LOCAL, list(1000, &token, ""));
        let page = page.await.unwrap();
        assert!(page.encoded_len() < 4 * 1024 * 1024);
        seen.extend(page.destinations.into_iter().map(|found| found.name));
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    assert_eq!(seen.len(), 600);
}

#[tokio::test]
async fn a_page_token_is_good_for_its_query_alone() {
    let bench = filled().await;
    let first = bench
        .unary
        .list_destinations(LOCAL, list(1, "", ""))
        .await
        .unwrap();
    let token = first.next_page_token;
    let elsewhere = pb::ListDestinationsRequest {
        parent: "organizations/other".into(),
        ..list(1, &token, "")
    };
    for request in [
        elsewhere,
        list(1, &token, r#"display_name:"a""#),
        list(1, &format!("{token}A"), ""),
        list(1, "1", ""),
    ] {
        let failure = bench
            .unary
            .list_destinations(LOCAL, request)
            .await
            .unwrap_err();
        assert_eq!(paths(failure), ["page_token"]);
    }
    // The size may change from page to page.
    let rest = bench
        .unary
        .list_destinations(LOCAL, list(9, &token, ""))
        .await
        .unwrap();
    assert_eq!(rest.destinations.len(), 3);
}

/// A denial hides all that another answer would tell: whether a destination exists, and what is
/// wrong with a request.
#[tokio::test]
async fn a_caller_without_permission_is_told_nothing_else() {
    let (bench, there) = Bench::with_vip().await;
    let stranger = Caller::with(|_, _| false);
    let viewer = Caller::with(|_, permission| permission == Permission::View);
    let unary = &bench.unary;
    let denied = Failure::PermissionDenied;

    let negative = pb::DescribeActionsRequest {
        page_size: -1,
        ..Default::default()
    };
    let described = |caller: &Caller| unary.describe_actions(caller, &negative);
    assert_eq!(described(&stranger), Err(denied.clone()));
    let get = || pb::GetDestinationRequest { name: VIP.into() };
    let got = unary.get_destination(&stranger, get()).await;
    assert_eq!(got, Err(denied.clone()));
    let listed = unary.list_destinations(&stranger, list(-1, "", "")).await;
    assert_eq!(listed, Err(denied.clone()));
    for caller in [&stranger, &viewer] {
        let created = unary.create_destination(caller, create()).await;
        assert_eq!(created, Err(denied.clone()));
        let malformed = update(pb::Destination::default(), &["uid"]);
        let updated = unary.update_destination(caller, malformed).await;
        assert_eq!(updated, Err(denied.clone()));
        let deleted = unary.delete_destination(caller, delete()).await;
        assert_eq!(deleted, Err(denied.clone()));
        let unsaved = config("", "", Instance::Commercial);
        for target in [Target::Name(VIP.into()), Target::LaunchDarkly(unsaved)] {
            let target = Some(target);
            let request = pb::ValidateCredentialsRequest { target };
            let validated = unary.validate_credentials(caller, request).await;
            assert_eq!(validated, Err(denied.clone()));
        }
    }
    assert!(bench.oracle.asked.lock().unwrap().is_empty());
    assert_eq!(paths(described(&viewer).unwrap_err()), ["page_size"]);
    assert_eq!(unary.get_destination(&viewer, get()).await, Ok(there));
}

#[tokio::test]
async fn a_destination_of_a_newer_version_is_listed_with_what_is_known_of_it() {
    let bench = filled().await;
    let list = || bench.unary.list_destinations(LOCAL, list(2, "", ""));
    let readable = list().await.unwrap();
    bench.store.is_newer.store(true, Ordering::Relaxed);
    let page = list().await.unwrap();
    assert_eq!(page.next_page_token, readable.next_page_token);
    for (known, readable) in page.destinations.into_iter().zip(readable.destinations) {
        let expected = pb::Destination {
            action: String::new(),
            config: None,
            field_mappings: Vec::new(),
            state: pb::destination::State::Unspecified.into(),
            ..readable
        };
        assert_eq!(known, expected);
    }
}

#[tokio::test]
async fn a_malformed_list_is_told_all_at_once() {
    let bench = Bench::new().await;
    let wrong = pb::ListDestinationsRequest {
        parent: String::new(),
        ..list(-1, "", "vip")
    };
    let failure = bench
        .unary
        .list_destinations(LOCAL, wrong)
        .await
        .unwrap_err();
    assert_eq!(paths(failure), ["page_size", "parent", "filter"]);
}

#[tokio::test]
async fn actions_come_in_pages_too() {
    let bench = Bench::with_actions(&["a", "b", "c"]).await;
    let describe = |page_size, page_token: &str| {
        bench.unary.describe_actions(
            LOCAL,
            &pb::DescribeActionsRequest {
                page_size,
                page_token: page_token.into(),
            },
        )
    };
    let ids = |page: &pb::DescribeActionsResponse| -> Vec<_> {
        page.actions
            .iter()
            .map(|action| action.id.clone())
            .collect()
    };
    assert_eq!(ids(&describe(0, "").unwrap()), ["a", "b", "c"]);
    let first = describe(2, "").unwrap();
    assert_eq!(ids(&first), ["a", "b"]);
    let last = describe(2, &first.next_page_token).unwrap();
    assert_eq!(ids(&last), ["c"]);
    assert_eq!(last.next_page_token, "");
    assert_eq!(
        paths(describe(-1, "x").unwrap_err()),
        ["page_size", "page_token"]
    );
}

#[tokio::test]
async fn a_deletion_is_guarded_announced_and_may_find_nothing() {
    let (bench, vip_then) = Bench::with_vip().await;
    let live = bench.watch().await;
    let with_etag = |etag: &str| pb::DeleteDestinationRequest {
        etag: etag.into(),
        ..delete()
    };
    let failure = bench
        .unary
        .delete_destination(LOCAL, with_etag("old"))
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::EtagMismatch(vip()));
    assert_ne!(live.current().1, LiveState::Deleted);
    bench
        .unary
        .delete_destination(LOCAL, with_etag(&vip_then.etag))
        .await
        .unwrap();
    assert_eq!(live.current().1, LiveState::Deleted);

    let failure = bench
        .unary
        .delete_destination(LOCAL, delete())
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::DestinationNotFound(vip()));
    let maybe = pb::DeleteDestinationRequest {
        allow_missing: true,
        ..with_etag("old")
    };
    assert_eq!(bench.unary.delete_destination(LOCAL, maybe).await, Ok(()));
}

#[tokio::test]
async fn nothing_is_counted_for_a_destination_that_is_deleted() {
    let (bench, _) = Bench::with_vip().await;
    drop(bench.metrics.tally(VIP));
    assert!(bench.metrics.text().contains(VIP));
    let request = pb::DeleteDestinationRequest {
        name: VIP.into(),
        ..Default::default()
    };
    bench
        .unary
        .delete_destination(LOCAL, request)
        .await
        .unwrap();
    assert!(!bench.metrics.text().contains(VIP));
}

#[tokio::test]
async fn streams_hear_of_a_deletion_even_if_its_caller_went_away() {
    let (bench, _) = Bench::with_vip().await;
    let mut live = bench.watch().await;
    assert_ne!(live.current().1, LiveState::Deleted);
    bench.store.answers.forget_permits(usize::MAX);
    let unary = bench.unary.clone();
    let caller = tokio::spawn(async move { unary.delete_destination(LOCAL, delete()).await });
    while bench.count().await > 0 {
        tokio::task::yield_now().await;
    }
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    bench.store.answers.add_permits(1);
    // Bounded, since no watcher may be left.
    let told = async {
        while live.current().1 != LiveState::Deleted {
            live.changed().await;
        }
    };
    let heard = tokio::time::timeout(Duration::from_secs(5), told).await;
    heard.expect("the watcher was notified");
}

#[tokio::test]
async fn credentials_are_checked_stored_or_not() {
    let (bench, _) = Bench::with_vip().await;
    let check = |target| {
        let request = pb::ValidateCredentialsRequest { target };
        bench.unary.validate_credentials(LOCAL, request)
    };
    assert!(check(Some(Target::Name(VIP.into()))).await.unwrap().valid);
    let unsaved = config("api-canary-2", "77aa", Instance::Federal);
    check(Some(Target::LaunchDarkly(unsaved))).await.unwrap();
    let tokens: Vec<_> = bench
        .oracle
        .asked
        .lock()
        .unwrap()
        .iter()
        .map(|connection| connection.access_token.expose().to_owned())
        .collect();
    assert_eq!(tokens, [TOKEN, "api-canary-2"]);

    assert_eq!(paths(check(None).await.unwrap_err()), ["target"]);
    let failure = check(Some(Target::Name(format!("{VIP}-2"))))
        .await
        .unwrap_err();
    assert!(matches!(failure, Failure::DestinationNotFound(_)));
    *bench.oracle.answer.lock().unwrap() = Err(CredentialsUnavailable {
        error: TransientError::RateLimited,
        retry_after: Some(Duration::from_secs(7)),
    });
    let status = check(Some(Target::Name(VIP.into())))
        .await
        .unwrap_err()
        .into_status();
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_store_that_is_down_is_no_answer_about_destinations() {
    let (bench, _) = Bench::with_vip().await;
    bench.store.is_down.store(true, Ordering::Relaxed);
    let request = pb::GetDestinationRequest { name: VIP.into() };
    let get = bench.unary.get_destination(LOCAL, request).await;
    assert_eq!(get, Err(Failure::StoreUnavailable));
    let created = bench.unary.create_destination(LOCAL, create()).await;
    assert_eq!(created, Err(Failure::StoreUnavailable));
    let updated = bench.update(settings(), &[]).await;
    assert_eq!(updated, Err(Failure::StoreUnavailable));
    let deleted = bench.unary.delete_destination(LOCAL, delete()).await;
    assert_eq!(deleted, Err(Failure::StoreUnavailable));
    let listed = bench.unary.list_destinations(LOCAL, list(0, "", "")).await;
    assert_eq!(listed, Err(Failure::StoreUnavailable));
}
