use std::sync::atomic::Ordering;

use super::*;
use crate::{
    domain::{ClientSideId, DestinationState, Revision},
    server::unary::mask,
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

async fn reject(context: &StreamContext) {
    let vip = context.stored().await;
    let state = DestinationState::CredentialsRejected;
    let rejected = context
        .store
        .set_state(vip.uid, vip.revision, state, stamp());
    assert!(rejected.await.unwrap());
}

#[tokio::test]
async fn each_mask_path_replaces_its_part_and_nothing_else() {
    for (path, _) in mask::PATHS {
        let (context, _) = StreamContext::with_vip().await;
        reject(&context).await;
        let before = context.get().await;
        let answered = context.update(others(), &[path]).await.unwrap();
        assert_eq!(answered, context.get().await, "{path}");
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
    let (context, read) = StreamContext::with_vip().await;
    reject(&context).await;
    // What a form sends back after reading: all but the token.
    let mut form = pb::Destination {
        display_name: "Renamed".into(),
        etag: String::new(),
        ..read
    };
    let answered = context.update(form.clone(), &[]).await.unwrap();
    assert_eq!(answered.display_name, "Renamed");
    assert_eq!(
        context.stored().await.connection.access_token.expose(),
        TOKEN
    );
    assert_eq!(
        context.stored().await.state,
        DestinationState::CredentialsRejected
    );

    // The same token once more: its role may have been mended.
    form.config = Some(Config::LaunchDarkly(config(
        TOKEN,
        "",
        Instance::Unspecified,
    )));
    context.update(form, &[]).await.unwrap();
    assert_eq!(context.stored().await.state, DestinationState::Active);
    assert_eq!(
        context.stored().await.connection.client_side_id.as_str(),
        "5f0c"
    );

    let nothing = context
        .update(pb::Destination::default(), &[])
        .await
        .unwrap();
    assert_eq!(nothing.display_name, "Renamed");
}

#[tokio::test]
async fn a_mask_cannot_empty_what_is_required() {
    let (context, before) = StreamContext::with_vip().await;
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
        let failure = context
            .update(pb::Destination::default(), &[path])
            .await
            .unwrap_err();
        assert_eq!(paths(failure), named, "{path}");
    }
    // The instance has a default, so naming it without a value resets it.
    let reset = context
        .update(pb::Destination::default(), &["launch_darkly.instance"])
        .await;
    assert_eq!(timeless(reset.unwrap()), timeless(before));
    let nowhere = pb::UpdateDestinationRequest::default();
    let failure = context
        .control
        .update_destination(nowhere)
        .await
        .unwrap_err();
    assert_eq!(paths(failure), ["destination"]);
}

#[tokio::test]
async fn an_etag_guards_against_lost_updates() {
    let (context, read) = StreamContext::with_vip().await;
    let stale = pb::Destination {
        etag: read.etag,
        ..others()
    };
    let read = context.update(stale.clone(), &["action"]).await.unwrap();
    let failure = context.update(stale, &["display_name"]).await.unwrap_err();
    assert_eq!(failure, Failure::EtagMismatch(vip()));
    assert_eq!(context.get().await, read);

    // Even if the other update comes between reading and writing.
    context.store.races.store(1, Ordering::Relaxed);
    let guarded = pb::Destination {
        etag: read.etag,
        ..others()
    };
    let failure = context
        .update(guarded, &["display_name"])
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::EtagMismatch(vip()));
}

#[tokio::test]
async fn without_an_etag_a_lost_race_is_run_again_a_few_times() {
    let (context, _) = StreamContext::with_vip().await;
    context.store.races.store(2, Ordering::Relaxed);
    let renamed = context.update(others(), &["display_name"]).await.unwrap();
    assert_eq!(renamed.display_name, "Renamed");
    // What the others wrote meanwhile is kept.
    assert_eq!(
        context.stored().await.state,
        DestinationState::CredentialsRejected
    );

    context.store.races.store(u32::MAX, Ordering::Relaxed);
    let failure = context.update(others(), &["action"]).await.unwrap_err();
    assert_eq!(failure, Failure::Contended(vip()));
}

#[tokio::test]
async fn a_repeated_update_takes_effect_once() {
    let (context, read) = StreamContext::with_vip().await;
    let stale = pb::Destination {
        etag: read.etag,
        ..others()
    };
    let request = pb::UpdateDestinationRequest {
        request_id: REQUEST_ID.into(),
        ..update(stale, &["display_name"])
    };
    let repeat = || context.control.update_destination(request.clone());
    // Two at once, and one later: although the etag is stale by then.
    let (one, other) = tokio::join!(repeat(), repeat());
    assert_eq!(one.as_ref().unwrap(), other.as_ref().unwrap());
    assert_eq!(repeat().await, one);
    assert_eq!(context.stored().await.revision, Revision(2));
}

#[tokio::test]
async fn what_a_form_would_refuse_today_stays_as_it_is_stored() {
    let (context, _) = StreamContext::with_vip().await;
    let mut old = context.stored().await;
    old.connection.client_side_id = ClientSideId::new("my-project".into());
    old.revision = Revision(2);
    let replaced = context.store.replace(&old, Revision::FIRST, None);
    replaced.await.unwrap();

    let read = context.update(others(), &["display_name"]).await.unwrap();
    assert_eq!(context.stored().await.connection, old.connection);
    // Sent back as it was read, it is refused: it never worked.
    let failure = context.update(read, &[]).await.unwrap_err();
    assert_eq!(paths(failure), ["destination.launch_darkly.client_side_id"]);
}

#[tokio::test]
async fn streams_hear_of_an_update() {
    let (context, _) = StreamContext::with_vip().await;
    reject(&context).await;
    let live = context.watch().await;
    assert_eq!(live.current(), (Revision(2), LiveState::Rejected));
    context
        .update(others(), &["launch_darkly.access_token"])
        .await
        .unwrap();
    let rotated = Arc::new(context.stored().await.connection);
    assert_eq!(rotated.access_token.expose(), "api-canary-9999");
    assert_eq!(live.current(), (Revision(3), LiveState::Active(rotated)));
}

#[tokio::test]
async fn a_dry_run_of_an_update_changes_nothing() {
    let (context, before) = StreamContext::with_vip().await;
    let live = context.watch().await;
    let dry = pb::UpdateDestinationRequest {
        validate_only: true,
        ..update(others(), &["*"])
    };
    let preview = context.control.update_destination(dry).await.unwrap();
    assert_eq!(timeless(preview), timeless(expected("*", &before)));
    assert_eq!(context.get().await, before);
    assert_eq!(live.current().0, Revision::FIRST);
}

#[tokio::test]
async fn what_is_missing_cannot_be_updated() {
    let context = StreamContext::new().await;
    let failure = context.update(others(), &["action"]).await.unwrap_err();
    assert_eq!(failure, Failure::DestinationNotFound(vip()));
}

#[tokio::test]
async fn a_refusal_that_streams_were_told_of_is_there_at_once_and_its_etag_stays() {
    let (context, vip) = StreamContext::with_vip().await;
    let live = context.watch().await;
    assert!(live.refuse_credentials(context.stored().await.revision));
    let seen = context.get().await;
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
    let updated = context
        .update(mended, &["launch_darkly.access_token"])
        .await;
    assert_eq!(updated.unwrap().state(), pb::destination::State::Active);
}
