use super::*;

#[tokio::test]
async fn a_created_destination_reads_back_as_answered() {
    let bench = Bench::new().await;
    let request = pb::CreateDestinationRequest {
        destination: Some(pb::Destination {
            // Not the caller's to choose: all ignored.
            name: "organizations/other/destinations/other".into(),
            uid: "mine".into(),
            state: 2,
            create_time: Some(prost_types::Timestamp::default()),
            etag: "mine".into(),
            ..settings()
        }),
        ..create()
    };
    let answered = bench
        .unary
        .create_destination(LOCAL, request)
        .await
        .unwrap();
    assert_eq!(answered, bench.get().await);
    assert_eq!(answered.name, VIP);
    assert_eq!(answered.state(), pb::destination::State::Active);
    assert_eq!(answered.uid, bench.stored().await.uid.to_string());
    assert_eq!(answered.etag, bench.stored().await.etag().0);
    // Stores keep microseconds: what is finer would not be read back.
    assert_eq!(answered.create_time.unwrap().nanos % 1_000, 0);
    assert!(answered.create_time.unwrap().seconds > 0);
    assert_eq!(bench.stored().await.connection.access_token.expose(), TOKEN);
    assert!(!format!("{answered:?}").contains("canary"));
    assert!(bench.oracle.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_id_is_drawn_when_none_is_chosen() {
    let bench = Bench::new().await;
    let request = pb::CreateDestinationRequest {
        destination_id: String::new(),
        ..create()
    };
    let first = bench
        .unary
        .create_destination(LOCAL, request.clone())
        .await
        .unwrap();
    let second = bench
        .unary
        .create_destination(LOCAL, request)
        .await
        .unwrap();
    assert_ne!(first.name, second.name);
    assert!(first.name.parse::<DestinationName>().is_ok());
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let bench = Bench::new().await;
    let wrong = pb::CreateDestinationRequest {
        parent: "acme".into(),
        destination_id: "-".into(),
        request_id: "once".into(),
        destination: Some(pb::Destination {
            display_name: " ".into(),
            action: "fly".into(),
            config: Some(Config::LaunchDarkly(pb::LaunchDarklyConfig {
                instance: 7,
                ..config(" api-canary", &"x".repeat(65), Instance::Eu)
            })),
            field_mappings: vec![],
            ..Default::default()
        }),
        validate_only: false,
    };
    let failure = bench
        .unary
        .create_destination(LOCAL, wrong)
        .await
        .unwrap_err();
    assert_eq!(
        paths(failure),
        [
            "request_id",
            "parent",
            "destination_id",
            "destination.display_name",
            "destination.action",
            "destination.launch_darkly.access_token",
            "destination.launch_darkly.client_side_id",
            "destination.launch_darkly.instance",
            "destination.field_mappings",
        ]
    );
    let empty = pb::CreateDestinationRequest::default();
    let failure = bench
        .unary
        .create_destination(LOCAL, empty)
        .await
        .unwrap_err();
    assert_eq!(paths(failure), ["parent", "destination"]);
    let unset = pb::CreateDestinationRequest {
        destination: Some(pb::Destination {
            config: None,
            ..settings()
        }),
        ..create()
    };
    let failure = bench
        .unary
        .create_destination(LOCAL, unset)
        .await
        .unwrap_err();
    assert_eq!(
        paths(failure),
        [
            "destination.launch_darkly.access_token",
            "destination.launch_darkly.client_side_id"
        ]
    );
    assert_eq!(bench.count().await, 0);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let (bench, first) = Bench::with_vip().await;
    for validate_only in [false, true] {
        let again = pb::CreateDestinationRequest {
            validate_only,
            ..create()
        };
        let failure = bench
            .unary
            .create_destination(LOCAL, again)
            .await
            .unwrap_err();
        assert_eq!(failure, Failure::DestinationExists(vip()));
    }
    assert_eq!(bench.get().await, first);
}

#[tokio::test]
async fn a_dry_run_stores_and_remembers_nothing() {
    let bench = Bench::new().await;
    let real = pb::CreateDestinationRequest {
        request_id: REQUEST_ID.into(),
        ..create()
    };
    let dry = pb::CreateDestinationRequest {
        validate_only: true,
        ..real.clone()
    };
    let preview = bench
        .unary
        .create_destination(LOCAL, dry.clone())
        .await
        .unwrap();
    assert_eq!((preview.name.as_str(), preview.uid.as_str()), (VIP, ""));
    assert_eq!(preview.display_name, "VIP customers");
    assert_eq!(bench.count().await, 0);
    let unnamed = pb::CreateDestinationRequest {
        destination_id: String::new(),
        ..dry.clone()
    };
    let preview = bench
        .unary
        .create_destination(LOCAL, unnamed)
        .await
        .unwrap();
    assert_eq!(preview.name, "");

    let created = bench.unary.create_destination(LOCAL, real).await.unwrap();
    // From now on the real request would answer what there is; so does its dry run.
    assert_eq!(
        bench.unary.create_destination(LOCAL, dry).await,
        Ok(created)
    );
}

#[tokio::test]
async fn a_repeated_create_answers_with_the_destination_as_it_is_now() {
    let bench = Bench::new().await;
    let request = pb::CreateDestinationRequest {
        request_id: REQUEST_ID.into(),
        ..create()
    };
    let repeat = || bench.unary.create_destination(LOCAL, request.clone());
    repeat().await.unwrap();
    let renamed = pb::Destination {
        display_name: "Renamed".into(),
        ..Default::default()
    };
    let renamed = bench.update(renamed, &[]).await.unwrap();
    assert_eq!(repeat().await, Ok(renamed.clone()));
    let spelt_otherwise = pb::CreateDestinationRequest {
        request_id: REQUEST_ID.to_uppercase().replace('-', ""),
        ..request.clone()
    };
    let repeated = bench.unary.create_destination(LOCAL, spelt_otherwise).await;
    assert_eq!(repeated, Ok(renamed));

    let mut other = request.clone();
    other.destination.as_mut().unwrap().display_name = "Other".into();
    let failure = bench
        .unary
        .create_destination(LOCAL, other)
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::RequestIdReused);
    let elsewhere = pb::UpdateDestinationRequest {
        request_id: REQUEST_ID.into(),
        ..update(settings(), &[])
    };
    let failure = bench
        .unary
        .update_destination(LOCAL, elsewhere)
        .await
        .unwrap_err();
    assert_eq!(failure, Failure::RequestIdReused);

    bench
        .unary
        .delete_destination(LOCAL, delete())
        .await
        .unwrap();
    assert_eq!(repeat().await, Err(Failure::DestinationDeletedSince(vip())));
    // Another destination of the same name is not the one that this request made.
    bench
        .unary
        .create_destination(LOCAL, create())
        .await
        .unwrap();
    assert_eq!(repeat().await, Err(Failure::DestinationDeletedSince(vip())));
}

#[tokio::test]
async fn the_same_create_sent_twice_at_once_makes_one_destination() {
    for destination_id in ["vip", ""] {
        let bench = Bench::new().await;
        let request = pb::CreateDestinationRequest {
            request_id: REQUEST_ID.into(),
            destination_id: destination_id.into(),
            ..create()
        };
        let (one, other) = tokio::join!(
            bench.unary.create_destination(LOCAL, request.clone()),
            bench.unary.create_destination(LOCAL, request.clone()),
        );
        assert_eq!(one.unwrap(), other.unwrap());
        assert_eq!(bench.count().await, 1);
    }
}
