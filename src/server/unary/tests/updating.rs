use std::sync::atomic::Ordering;

use super::*;
use crate::{
    domain::{ClientSideId, DestinationState, Revision},
    server::unary::fields,
};

/// Other settings, different in every part.
fn others() -> pb::Destination {
    pb::Destination {
        display_name: "Renamed".into(),
        action: "send-other".into(),
        config: Some(Config::LaunchDarkly(config(
            "api-canary-9999",
            "77aa",
            Instance::Eu,
        ))),
        field_mappings: vec![pb::FieldMapping {
            field: "context_key".into(),
            sources: vec!["email".into()],
            transforms: vec![],
        }],
        ..Default::default()
    }
}

/// What `path` replaces of `before`, part by part and by hand.
fn expected(path: &str, before: &pb::Destination) -> pb::Destination {
    let names = |part: &str| path == "*" || part == path || part.starts_with(&format!("{path}."));
    let mut after = before.clone();
    let Some(Config::LaunchDarkly(config)) = &mut after.config else {
        panic!("no config")
    };
    if names("launch_darkly.access_token") {
        config.obfuscated_access_token = "9999".into();
    }
    if names("launch_darkly.client_side_id") {
        config.client_side_id = "77aa".into();
    }
    if names("launch_darkly.instance") {
        config.instance = Instance::Eu.into();
    }
    if names("display_name") {
        after.display_name = "Renamed".into();
    }
    if names("action") {
        after.action = "send-other".into();
    }
    if names("field_mappings") {
        after.field_mappings = others().field_mappings;
    }
    if path == "*" || path.starts_with("launch_darkly") {
        after.set_state(pb::destination::State::Active);
    }
    after
}

/// Without what every update changes.
fn timeless(mut destination: pb::Destination) -> pb::Destination {
    destination.etag.clear();
    destination.update_time = None;
    destination
}

async fn reject(bench: &Bench) {
    let vip = bench.stored().await;
    let state = DestinationState::CredentialsRejected;
    let rejected = bench
        .store
        .set_state(vip.uid, vip.revision, state, clock::now_in_micros());
    assert!(rejected.await.unwrap());
}

#[tokio::test]
async fn each_mask_path_replaces_its_part_and_nothing_else() {
    for path in fields::mask_paths() {
        let (bench, _) = Bench::with_vip().await;
        reject(&bench).await;
        let before = bench.get().await;
        let answered = bench.update(others(), &[path]).await.unwrap();
        assert_eq!(answered, bench.get().await, "{path}");
        assert_ne!(answered.etag, before.etag, "{path}");
        assert_eq!(
            timeless(answered),
            timeless(expected(path, &before)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_a_mask_what_is_populated_is_replaced_and_the_token_stays() {
    let (bench, read) = Bench::with_vip().await;
    reject(&bench).await;
    // What a form sends back after reading: all but the token.
    let mut form = pb::Destination {
        display_name: "Renamed".into(),
        etag: String::new(),
        ..read
    };
    let answered = bench.update(form.clone(), &[]).await.unwrap();
    assert_eq!(answered.display_name, "Renamed");
    assert_eq!(bench.stored().await.connection.access_token.expose(), TOKEN);
    assert_eq!(
        bench.stored().await.state,
        DestinationState::CredentialsRejected
    );

    // The same token once more: its role may have been mended.
    form.config = Some(Config::LaunchDarkly(config(
        TOKEN,
        "",
        Instance::Unspecified,
    )));
    bench.update(form, &[]).await.unwrap();
    assert_eq!(bench.stored().await.state, DestinationState::Active);
    assert_eq!(
        bench.stored().await.connection.client_side_id.as_str(),
        "5f0c"
    );

    let nothing = bench.update(pb::Destination::default(), &[]).await.unwrap();
    assert_eq!(nothing.display_name, "Renamed");
}

#[tokio::test]
async fn a_mask_cannot_empty_what_is_required() {
    let (bench, before) = Bench::with_vip().await;
    let token = "destination.launch_darkly.access_token";
    let id = "destination.launch_darkly.client_side_id";
    for (path, named) in [
        ("launch_darkly.access_token", vec![token]),
        ("launch_darkly.client_side_id", vec![id]),
        ("launch_darkly", vec![token, id]),
        ("display_name", vec!["destination.display_name"]),
        ("action", vec!["destination.action"]),
        ("field_mappings", vec!["destination.field_mappings"]),
    ] {
        let failure = bench
            .update(pb::Destination::default(), &[path])
            .await
            .unwrap_err();
        assert_eq!(paths(failure), named, "{path}");
    }
    // The instance has a default, so naming it without a value resets it.
    let reset = bench
        .update(pb::Destination::default(), &["launch_darkly.instance"])
        .await;
    assert_eq!(timeless(reset.unwrap()), timeless(before));
    let nowhere = pb::UpdateDestinationRequest::default();
    let failure = bench
        .unary
        .update_destination(LOCAL, nowhere)
        .await
        .unwrap_err();
    assert_eq!(paths(failure), ["destination"]);
}

#[tokio::test]
async fn an_etag_guards_against_lost_updates() {
    let (bench, read) = Bench::with_vip().await;
    let stale = pb::Destination {
        etag: read.etag,
        ..others()
    };
    let read = bench.update(stale.clone(), &["action"]).await.unwrap();
    let failure = bench.update(stale, &["display_name"]).await.unwrap_err();
    assert_eq!(failure, Failure::EtagMismatch(vip()));
    assert_eq!(bench.get().await, read);

    // Even if the other update comes between reading and writing.
    bench.store.races.store(1, Ordering::Relaxed);
    let guarded = pb::Destination {
        etag: read.etag,
        ..others()
    };
    let failure = bench.update(guarded, &["display_name"]).await.unwrap_err();
    assert_eq!(failure, Failure::EtagMismatch(vip()));
}

#[tokio::test]
async fn without_an_etag_a_lost_race_is_run_again_a_few_times() {
    let (bench, _) = Bench::with_vip().await;
    bench.store.races.store(2, Ordering::Relaxed);
    let renamed = bench.update(others(), &["display_name"]).await.unwrap();
    assert_eq!(renamed.display_name, "Renamed");
    // What the others wrote meanwhile is kept.
    assert_eq!(
        bench.stored().await.state,
        DestinationState::CredentialsRejected
    );

    bench.store.races.store(u32::MAX, Ordering::Relaxed);
    let failure = bench.update(others(), &["action"]).await.unwrap_err();
    assert_eq!(failure, Failure::Contended(vip()));
}

#[tokio::test]
async fn a_repeated_update_takes_effect_once() {
    let (bench, read) = Bench::with_vip().await;
    let stale = pb::Destination {
        etag: read.etag,
        ..others()
    };
    let request = pb::UpdateDestinationRequest {
        request_id: REQUEST_ID.into(),
        ..update(stale, &["display_name"])
    };
    let repeat = || bench.unary.update_destination(LOCAL, request.clone());
    // Two at once, and one later: although the etag is stale by then.
    let (one, other) = tokio::join!(repeat(), repeat());
    assert_eq!(one.as_ref().unwrap(), other.as_ref().unwrap());
    assert_eq!(repeat().await, one);
    assert_eq!(bench.stored().await.revision, Revision(2));
}

#[tokio::test]
async fn what_a_form_would_refuse_today_stays_as_it_is_stored() {
    let (bench, _) = Bench::with_vip().await;
    let mut old = bench.stored().await;
    old.connection.client_side_id = ClientSideId::new("my-project".into());
    old.revision = Revision(2);
    let replaced = bench.store.replace(&old, Revision::FIRST, None);
    replaced.await.unwrap();

    let read = bench.update(others(), &["display_name"]).await.unwrap();
    assert_eq!(bench.stored().await.connection, old.connection);
    // Sent back as it was read, it is refused: it never worked.
    let failure = bench.update(read, &[]).await.unwrap_err();
    assert_eq!(paths(failure), ["destination.launch_darkly.client_side_id"]);
}

#[tokio::test]
async fn streams_hear_of_an_update() {
    let (bench, _) = Bench::with_vip().await;
    reject(&bench).await;
    let live = bench.watch().await;
    assert_eq!(live.current(), (Revision(2), LiveState::Rejected));
    bench
        .update(others(), &["launch_darkly.access_token"])
        .await
        .unwrap();
    let rotated = Arc::new(bench.stored().await.connection);
    assert_eq!(rotated.access_token.expose(), "api-canary-9999");
    assert_eq!(live.current(), (Revision(3), LiveState::Active(rotated)));
}

#[tokio::test]
async fn a_dry_run_of_an_update_changes_nothing() {
    let (bench, before) = Bench::with_vip().await;
    let live = bench.watch().await;
    let dry = pb::UpdateDestinationRequest {
        validate_only: true,
        ..update(others(), &["*"])
    };
    let preview = bench.unary.update_destination(LOCAL, dry).await.unwrap();
    assert_eq!(timeless(preview), timeless(expected("*", &before)));
    assert_eq!(bench.get().await, before);
    assert_eq!(live.current().0, Revision::FIRST);
}

#[tokio::test]
async fn what_is_missing_cannot_be_updated() {
    let bench = Bench::new().await;
    let failure = bench.update(others(), &["action"]).await.unwrap_err();
    assert_eq!(failure, Failure::DestinationNotFound(vip()));
}

#[tokio::test]
async fn a_refusal_that_streams_were_told_of_is_there_at_once_and_its_etag_stays() {
    let (bench, vip) = Bench::with_vip().await;
    let live = bench.watch().await;
    assert!(live.refuse_credentials(bench.stored().await.revision));
    let seen = bench.get().await;
    assert_eq!(seen.state(), pb::destination::State::CredentialsRejected);
    assert_ne!(seen.etag, vip.etag);
    let mended = pb::Destination {
        config: Some(Config::LaunchDarkly(config(
            "api-canary-0002",
            "5f0c",
            Instance::Commercial,
        ))),
        ..seen
    };
    let updated = bench.update(mended, &["launch_darkly.access_token"]).await;
    assert_eq!(updated.unwrap().state(), pb::destination::State::Active);
}
