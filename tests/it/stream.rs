//! The stream protocol, end to end: from a client's records to the sandbox's segments.

use std::time::Duration;

use http::StatusCode;
use launchdarkly_connector::{
    pb::{
        self, identifier_record::Operation, send_identifiers_request::Message as In,
        send_identifiers_response::Message as Out,
    },
    sandbox::{
        Fault, FaultKind, FaultPlan, Hidden,
        fixtures::{
            CLIENT_SIDE_ID, OTHER_ACCOUNT, READER_TOKEN, TEST_CLIENT_SIDE_ID, WRITER_TOKEN,
        },
    },
};
use tonic::Code;

use crate::{
    support::scrape::Counts,
    test_service::{
        ORGANIZATION, SEGMENT, Stream, TestService, ack, connect, destination, open, open_into,
        reason, record, results, soon,
    },
};

const OK: StatusCode = StatusCode::OK;
const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

fn faults(fault: Fault) -> FaultPlan {
    FaultPlan {
        faults: vec![fault],
        ..FaultPlan::default()
    }
}

#[tokio::test]
async fn members_enter_and_leave_the_segment_and_every_record_has_a_result() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let stream = service.open(&name).await;
    stream.add(&["a", "b", "c"]).await;
    stream.remove(&["b"]).await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert_eq!(service.members(), ["a", "c"]);
    assert_eq!(
        answers.results().into_values().collect::<Vec<_>>(),
        [None, None, None, None]
    );
    assert_eq!(answers.acks.last().unwrap().committed_sequence, 4);
}

#[tokio::test]
async fn a_bad_record_is_rejected_alone() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let stream = service.open(&name).await;
    let unmapped = pb::IdentifierRecord {
        identifiers: [("phone".to_owned(), "1".to_owned())].into(),
        operation: 0,
    };
    stream
        .batch(vec![
            record("a", Operation::Unspecified),
            unmapped,
            record("  ", Operation::Add),
            record(&"x".repeat(2000), Operation::Add),
            record("x\u{7}y", Operation::Add),
            record("x\u{200B}y", Operation::Add),
            record("\u{FEFF}\u{200B}", Operation::Add),
            pb::IdentifierRecord {
                operation: 9,
                ..record("z", Operation::Add)
            },
            record("b", Operation::Add),
        ])
        .await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert_eq!(service.members(), ["a", "b"]);
    let reasons: Vec<_> = answers
        .results()
        .into_values()
        .map(Option::unwrap_or_default)
        .collect();
    assert_eq!(
        reasons,
        [
            "",
            "IDENTIFIER_MISSING",
            "IDENTIFIER_INVALID",
            "IDENTIFIER_INVALID",
            "IDENTIFIER_INVALID",
            "IDENTIFIER_INVALID",
            "IDENTIFIER_INVALID",
            "INVALID_FIELD",
            "",
        ]
    );
}

#[tokio::test]
async fn breaking_a_stream_rule_ends_the_stream_after_the_known_results() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let too_many = vec![record("a", Operation::Add); 1001];
    let batch = |first_sequence, records| {
        In::Batch(pb::IdentifierBatch {
            first_sequence,
            records,
        })
    };
    let one = || vec![record("b", Operation::Add)];
    let cases = [
        (
            "second open",
            In::Open(open(&name)),
            Code::InvalidArgument,
            "STREAM_PROTOCOL",
        ),
        (
            "a heartbeat with a gap",
            batch(Some(3), vec![]),
            Code::OutOfRange,
            "SEQUENCE_MISMATCH",
        ),
        (
            "1,001 records",
            batch(None, too_many),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            "a gap",
            batch(Some(3), one()),
            Code::OutOfRange,
            "SEQUENCE_MISMATCH",
        ),
        (
            "a repetition",
            batch(Some(1), one()),
            Code::OutOfRange,
            "SEQUENCE_MISMATCH",
        ),
    ];
    for (what, message, code, expected) in cases {
        let mut stream = service.open(&name).await;
        stream.add(&["a"]).await;
        let known = stream.committed(1).await;
        assert_eq!(known.last().unwrap().committed_sequence, 1);
        stream.send(message).await;
        let (_, got, reason) = stream.failure().await;
        assert_eq!((got, reason.as_str()), (code, expected), "{what}");
    }
}

#[tokio::test]
async fn heartbeats_are_taken_anywhere_and_hold_no_memory() {
    // Room for four messages of the largest size.
    let service = TestService::start_with(|s| s.max_buffered_mib = 4).await;
    let name = service.create("vip").await;
    for validate_only in [false, true] {
        let mut stream = service
            .open_with(pb::OpenStream {
                validate_only,
                ..open(&name)
            })
            .await;
        for _ in 0..20 {
            stream.batch(vec![]).await;
        }
        stream.add(&["a"]).await;
        stream.committed(1).await;
        stream.batch(vec![]).await;
        let answer = stream.next_of(ack).await;
        assert_eq!((answer.committed_sequence, answer.results), (1, vec![]));
        stream.batch(vec![]).await;
        stream.add(&["b"]).await;
        let (answers, ended) = stream.finish().await;
        ended.unwrap();
        assert_eq!(answers.results(), [(2, None)].into());
    }
}

#[tokio::test]
async fn results_known_so_far_come_before_the_status() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut stream = service.open(&name).await;
    // Rejected at once, so its result is known when the broken rule is met.
    stream.batch(vec![record(" ", Operation::Add)]).await;
    stream
        .send(In::Batch(pb::IdentifierBatch {
            first_sequence: Some(9),
            records: vec![],
        }))
        .await;
    let (answers, code, _) = stream.failure().await;
    assert_eq!(code, Code::OutOfRange);
    assert_eq!(answers.results().len(), 1);
}

#[tokio::test]
async fn a_message_over_one_mebibyte_is_refused_by_its_size() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut stream = service.open(&name).await;
    stream.add(&[&"x".repeat(1024 * 1024 + 1)]).await;
    let (_, ended) = stream.end().await;
    assert_eq!(ended.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test]
async fn an_open_against_the_rules_is_refused_with_its_reason() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let missing = format!("{ORGANIZATION}/destinations/none");
    let bad_segment = pb::OpenStream {
        activation: Some(pb::Activation {
            segment_id: "a b".into(),
            ..Default::default()
        }),
        ..open(&name)
    };
    let batch = In::Batch(pb::IdentifierBatch {
        first_sequence: None,
        records: vec![],
    });
    for (what, first, code, expected) in [
        (
            "batch first",
            batch,
            Code::InvalidArgument,
            "STREAM_PROTOCOL",
        ),
        (
            "unknown",
            In::Open(open(&missing)),
            Code::NotFound,
            "DESTINATION_NOT_FOUND",
        ),
        (
            "segment",
            In::Open(bad_segment),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
    ] {
        let mut stream = service.stream().await;
        stream.send(first).await;
        let (_, got, reason) = stream.failure().await;
        assert_eq!((got, reason.as_str()), (code, expected), "{what}");
    }
    let (_, ended) = service.stream().await.finish().await;
    assert_eq!(reason(&ended.unwrap_err()), "STREAM_PROTOCOL");
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_with_the_limit() {
    let service = TestService::start().await;
    let request = pb::GetDestinationRequest {
        name: "x".repeat(100 * 1024),
    };
    let status = service.client.clone().get_destination(request).await;
    let status = status.unwrap_err();
    assert_eq!(reason(&status), "INVALID_FIELD");
    assert!(status.message().contains("64 KiB"), "{}", status.message());
}

#[tokio::test]
async fn validate_only_checks_every_record_and_calls_for_none() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let stream = service
        .open_with(pb::OpenStream {
            validate_only: true,
            ..open(&name)
        })
        .await;
    stream.add(&["a", " "]).await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    let results: Vec<_> = answers.results().into_values().collect();
    assert_eq!(results, [None, Some("IDENTIFIER_INVALID".to_owned())]);
    assert!(service.sandbox.calls().is_empty());
}

#[tokio::test]
async fn a_mapping_of_the_activation_replaces_the_destinations() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut by_email = open(&name);
    by_email.activation.as_mut().unwrap().field_mappings = vec![pb::FieldMapping {
        field: "context_key".into(),
        sources: vec!["email".into()],
        transforms: vec![1, 2],
    }];
    let stream = service.open_with(by_email).await;
    let both = [("user_id", "u-1"), ("email", " Ann@X.org ")];
    let identifiers = both
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    stream
        .batch(vec![pb::IdentifierRecord {
            identifiers,
            operation: 0,
        }])
        .await;
    stream.finish().await.1.unwrap();
    assert_eq!(service.members(), ["ann@x.org"]);
}

#[tokio::test]
async fn cancelling_is_not_half_closing() {
    // A long linger, so that the records are still in the lane when the client goes.
    let service = TestService::start_with(|s| s.delivery.linger = Duration::from_secs(2)).await;
    let name = service.create("vip").await;
    let opening = of_log(&name);
    let cancelled = service.open_with(opening.clone()).await;
    cancelled.add(&["cancelled"]).await;
    let mut probe = service
        .open_with(pb::OpenStream {
            validate_only: true,
            ..open(&name)
        })
        .await;
    probe.add(&["seen"]).await;
    probe.committed(1).await;
    drop(cancelled);
    // `opened` of the next one comes only once nothing of the first can be sent any more.
    let next = service.open_with(opening).await;
    next.add(&["next"]).await;
    next.finish().await.1.unwrap();
    assert_eq!(service.members(), ["next"]);
}

/// Opens a stream of one log.
fn of_log(destination: &str) -> pb::OpenStream {
    pb::OpenStream {
        stream_id: "log".into(),
        ..open(destination)
    }
}

/// Gets a call of the stream's under way that takes so long.
async fn slow_call(service: &TestService, stream: &Stream, latency_ms: u64) {
    service.sandbox.set_faults(FaultPlan {
        latency_ms,
        ..FaultPlan::default()
    });
    stream.add(&["older"]).await;
    service
        .until("the older stream's call arrives", |s| !s.calls().is_empty())
        .await;
}

#[tokio::test]
async fn a_newer_stream_of_the_same_id_fences_the_older() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let opening = of_log(&name);
    let mut older = service.open_with(opening.clone()).await;
    slow_call(&service, &older, 300).await;
    let newer = service.open_with(opening).await;
    assert_eq!(
        service.members(),
        ["older"],
        "opened came before the older call had ended"
    );
    let (_, code, reason) = older.failure().await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::Aborted, "STREAM_SUPERSEDED")
    );
    newer.add(&["newer"]).await;
    newer.finish().await.1.unwrap();
    assert_eq!(service.members(), ["newer", "older"]);
}

#[tokio::test]
async fn a_dry_run_leaves_the_stream_in_earnest_alone() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let opening = of_log(&name);
    let live = service.open_with(opening.clone()).await;
    let rehearsal = pb::OpenStream {
        validate_only: true,
        ..opening
    };
    service.open_with(rehearsal).await.finish().await.1.unwrap();
    live.add(&["a"]).await;
    live.finish().await.1.unwrap();
    assert_eq!(service.members(), ["a"]);
}

#[tokio::test]
async fn a_newer_stream_need_not_wait_for_the_older_ones_client_to_read() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut opening = of_log(&name);
    let identifier = "x".repeat(256);
    opening.activation.as_mut().unwrap().field_mappings = vec![pb::FieldMapping {
        field: "context_key".into(),
        sources: vec![identifier.clone()],
        transforms: vec![],
    }];
    let mut older = service.open_with(opening.clone()).await;
    // Every one fails for another reason than its neighbours, and each is told with a long name:
    // more than a client takes in unread.
    let blank = pb::IdentifierRecord {
        identifiers: [(identifier, String::new())].into(),
        operation: 0,
    };
    let absent = pb::IdentifierRecord::default();
    for _ in 0..10 {
        let pair = [blank.clone(), absent.clone()];
        older
            .batch(pair.into_iter().cycle().take(1000).collect())
            .await;
    }
    let all_failed = async {
        while Counts::read(&service.metrics.text(), &name).get("failed") < 10_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("all of them fail", all_failed).await;
    // Less than the older one's last results may take.
    let opened = tokio::time::timeout(Duration::from_secs(4), service.open_with(opening));
    let newer = opened
        .await
        .expect("it waits for a client that does not read");
    newer.finish().await.1.unwrap();
    let (_, code, reason) = older.failure().await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::Aborted, "STREAM_SUPERSEDED")
    );
}

#[tokio::test]
async fn a_mapping_that_changes_while_a_stream_waits_to_open_is_the_one_it_uses() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let opening = of_log(&name);
    let mut older = service.open_with(opening.clone()).await;
    slow_call(&service, &older, 1000).await;
    let mut client = service.client.clone();
    let mapping = pb::FieldMapping {
        field: "context_key".into(),
        sources: vec!["email".into()],
        transforms: vec![],
    };
    let changed = pb::UpdateDestinationRequest {
        destination: Some(pb::Destination {
            name: name.clone(),
            field_mappings: vec![mapping],
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["field_mappings".into()],
        }),
        ..Default::default()
    };
    let (newer, ()) = tokio::join!(service.open_with(opening), async {
        // The newer one has taken the fence, and waits for the older one's call.
        older.failure().await;
        client.update_destination(changed).await.unwrap();
    });
    let both = [("user_id", "by-id"), ("email", "by-email")];
    newer
        .batch(vec![pb::IdentifierRecord {
            identifiers: both.map(|(name, id)| (name.into(), id.into())).into(),
            operation: 0,
        }])
        .await;
    newer.finish().await.1.unwrap();
    assert_eq!(service.members(), ["by-email", "older"]);
}

#[tokio::test]
async fn deleting_a_destination_ends_its_streams() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut stream = service.open(&name).await;
    stream.add(&["a"]).await;
    stream.committed(1).await;
    let request = pb::DeleteDestinationRequest {
        name: name.clone(),
        ..Default::default()
    };
    service
        .client
        .clone()
        .delete_destination(request)
        .await
        .unwrap();
    let (_, code, reason) = stream.failure().await;
    assert_eq!(
        (code, reason.as_str()),
        (Code::FailedPrecondition, "DESTINATION_DELETED")
    );
    let mut next = service.stream().await;
    next.send(In::Open(open(&name))).await;
    assert_eq!(next.failure().await.1, Code::NotFound);
}

async fn update_token(service: &TestService, name: &str, token: &str) -> pb::Destination {
    let request = pb::UpdateDestinationRequest {
        destination: Some(pb::Destination {
            name: name.into(),
            ..destination(token)
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["launch_darkly.access_token".into()],
        }),
        ..Default::default()
    };
    service
        .client
        .clone()
        .update_destination(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn refused_credentials_end_the_stream_and_mark_the_destination_until_it_is_updated() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    update_token(&service, &name, READER_TOKEN).await;
    let mut stream = service.open(&name).await;
    stream.add(&["a"]).await;
    let (answers, code, reason) = stream.failure().await;
    let rejected = (Code::FailedPrecondition, "CREDENTIALS_REJECTED");
    assert_eq!((code, reason.as_str()), rejected);
    assert!(
        answers.acks.is_empty(),
        "a record was answered that was not delivered"
    );

    let mut again = service.stream().await;
    again.send(In::Open(open(&name))).await;
    let (_, code, reason) = again.failure().await;
    assert_eq!((code, reason.as_str()), rejected);
    let get = || async {
        let request = pb::GetDestinationRequest { name: name.clone() };
        service
            .client
            .clone()
            .get_destination(request)
            .await
            .unwrap()
            .into_inner()
    };
    let marked = async {
        while get().await.state() != pb::destination::State::CredentialsRejected {
            tokio::task::yield_now().await;
        }
    };
    soon("the refusal is recorded", marked).await;

    let updated = update_token(&service, &name, WRITER_TOKEN).await;
    assert_eq!(updated.state(), pb::destination::State::Active);
    let stream = service.open(&name).await;
    stream.add(&["a"]).await;
    stream.finish().await.1.unwrap();
    assert_eq!(service.members(), ["a"]);
}

#[tokio::test]
async fn a_rotated_token_is_used_by_a_running_stream() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut stream = service.open(&name).await;
    stream.add(&["a"]).await;
    stream.committed(1).await;
    // The reader's token is refused: only a stream that uses it can find that out.
    update_token(&service, &name, READER_TOKEN).await;
    stream.add(&["b"]).await;
    let (_, _, reason) = stream.failure().await;
    assert_eq!(reason, "CREDENTIALS_REJECTED");
}

#[tokio::test]
async fn an_outage_is_a_notice_and_not_an_error() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut stream = service.open(&name).await;
    service.sandbox.set_faults(faults(
        Fault::new(FaultKind::Status(UNAVAILABLE)).for_calls(2),
    ));
    stream.add(&["a"]).await;
    let notice = |message| match message {
        Out::Notice(notice) => Some(notice),
        _ => None,
    };
    let unreachable = stream.next_of(notice).await;
    assert_eq!(unreachable.state(), pb::notice::State::Unreachable);
    assert!(unreachable.retry_time.is_some() && unreachable.message.contains("503"));
    stream.half_close();
    let (answers, ended) = stream.end().await;
    ended.unwrap();
    assert_eq!(answers.results().into_values().collect::<Vec<_>>(), [None]);
    assert_eq!(service.deliveries().len(), 3);
}

#[tokio::test]
async fn a_record_that_runs_out_of_time_says_what_was_tried() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service
        .sandbox
        .set_faults(faults(Fault::new(FaultKind::Status(UNAVAILABLE))));
    let timeout = Some(prost_types::Duration {
        seconds: 1,
        nanos: 0,
    });
    let opening = pb::OpenStream {
        delivery_timeout: timeout,
        ..open(&name)
    };
    let stream = service.open_with(opening).await;
    stream.add(&["a"]).await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    let error = answers.acks[0].results[0].error.clone().unwrap();
    assert_eq!(Code::from_i32(error.code), Code::Unavailable);
    assert!(error.message.contains("503"), "{}", error.message);
    assert_eq!(answers.results()[&1].as_deref(), Some("DELIVERY_TIMEOUT"));
}

#[tokio::test]
async fn an_ambiguous_failure_is_tried_again_and_told_once() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(faults(
        Fault::new(FaultKind::Reset).for_calls(1).after_applying(),
    ));
    let stream = service.open(&name).await;
    stream.add(&["a", "b"]).await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    assert_eq!(answers.results().len(), 2);
    assert_eq!(service.members(), ["a", "b"]);
}

#[tokio::test]
async fn one_refused_member_fails_alone() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let refused_keys = Hidden(["k42".to_owned()].into());
    service.sandbox.set_faults(FaultPlan {
        refused_keys,
        ..FaultPlan::default()
    });
    let keys: Vec<_> = (0..200).map(|n| format!("k{n}")).collect();
    let stream = service.open(&name).await;
    stream
        .add(&keys.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    let (answers, ended) = stream.finish().await;
    ended.unwrap();
    let failed: Vec<_> = answers
        .results()
        .into_iter()
        .filter(|(_, reason)| reason.is_some())
        .collect();
    assert_eq!(failed, [(43, Some("REJECTED_BY_DESTINATION".to_owned()))]);
    assert_eq!(service.members().len(), 199);
}

#[tokio::test]
async fn what_answers_in_launchdarklys_place_is_told_and_tried_again() {
    const IN_ITS_PLACE: &str = "answered in its place";
    for (how, told) in [
        (FaultKind::Page(OK), IN_ITS_PLACE),
        (FaultKind::Page(StatusCode::UNAUTHORIZED), IN_ITS_PLACE),
        (FaultKind::Page(StatusCode::FORBIDDEN), IN_ITS_PLACE),
        (FaultKind::Page(StatusCode::NOT_FOUND), IN_ITS_PLACE),
        (FaultKind::Page(StatusCode::BAD_REQUEST), IN_ITS_PLACE),
        (
            FaultKind::Status(StatusCode::PROXY_AUTHENTICATION_REQUIRED),
            IN_ITS_PLACE,
        ),
        (
            FaultKind::Redirect("http://127.0.0.1:9/".into()),
            IN_ITS_PLACE,
        ),
        (FaultKind::Garbage(OK), IN_ITS_PLACE),
        (FaultKind::Huge(OK), IN_ITS_PLACE),
        (FaultKind::Drip(OK), "did not answer in time"),
        (
            FaultKind::Status(StatusCode::MISDIRECTED_REQUEST),
            "status 421",
        ),
    ] {
        let service =
            TestService::start_with(|s| s.launchdarkly.attempt_timeout = Duration::from_secs(1))
                .await;
        let name = service.create("vip").await;
        let twice = Fault::new(how.clone()).for_calls(2);
        service.sandbox.set_faults(faults(twice));
        let stream = service.open(&name).await;
        stream.add(&["a"]).await;
        let (answers, ended) = stream.finish().await;
        ended.unwrap_or_else(|status| panic!("{how:?}: {status:?}"));
        let results: Vec<_> = answers.results().into_values().collect();
        assert_eq!(results, [None], "{how:?}");
        assert_eq!(service.members(), ["a"], "{how:?}");
        let notices = &answers.notices;
        let tells = |notice: &pb::Notice| notice.message.contains(told);
        assert!(notices.iter().any(tells), "{how:?}: {notices:?}");
    }
}

#[tokio::test]
async fn a_sender_resumes_after_what_was_committed() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let opening = of_log(&name);
    let mut first = service.open_with(opening.clone()).await;
    first.add(&["a", "b"]).await;
    first.committed(2).await;
    drop(first);
    let second = service.open_with(opening).await;
    let records = vec![record("c", Operation::Add)];
    second
        .send(In::Batch(pb::IdentifierBatch {
            first_sequence: Some(3),
            records,
        }))
        .await;
    let (answers, ended) = second.finish().await;
    ended.unwrap();
    assert_eq!(answers.results().into_keys().collect::<Vec<_>>(), [3]);
    assert_eq!(service.members(), ["a", "b", "c"]);
}

#[tokio::test]
async fn past_the_window_the_server_stops_reading_and_loses_nothing() {
    let service = TestService::start_with(|s| {
        s.limits.max_batch_records = 10;
        s.limits.max_in_flight_records = 20;
    })
    .await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(faults(
        Fault::new(FaultKind::Status(UNAVAILABLE)).for_calls(3),
    ));
    let mut stream = service.open(&name).await;
    let keys: Vec<_> = (0..100).map(|n| format!("k{n}")).collect();
    for chunk in keys.chunks(10) {
        stream
            .add(&chunk.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
    }
    let first = stream.next_of(ack).await;
    assert!(first.committed_sequence <= 20, "{first:?}");
    stream.half_close();
    let (answers, ended) = stream.end().await;
    ended.unwrap();
    let mut acks = answers.acks;
    acks.push(first);
    assert_eq!(results(&acks).len(), 100);
    assert_eq!(service.members().len(), 100);
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused() {
    let service = TestService::start_with(|s| s.limits.max_streams = 1).await;
    let name = service.create("vip").await;
    let first = service.open(&name).await;
    let refused = service
        .client
        .clone()
        .send_identifiers(tokio_stream::empty())
        .await;
    let Err(status) = refused else {
        panic!("the second stream was let in")
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason(&status), "TOO_MANY_STREAMS");
    first.finish().await.1.unwrap();
    let freed = async {
        while service
            .client
            .clone()
            .send_identifiers(tokio_stream::empty())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the place is free again", freed).await;
}

#[tokio::test]
async fn a_stopping_server_drains_its_streams_and_ends() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    let mut stream = service.open(&name).await;
    stream.add(&["a"]).await;
    service.shutdown.trigger();
    let drain = |message| matches!(message, Out::Drain(_)).then_some(());
    stream.next_of(drain).await;
    stream.half_close();
    let (_, ended) = stream.end().await;
    ended.unwrap();
    soon("the service ends", service.served).await.unwrap();
    assert_eq!(service.sandbox.members(CLIENT_SIDE_ID, SEGMENT).len(), 1);
}

#[tokio::test]
async fn a_client_that_ignores_drain_is_cut_off_at_the_deadline() {
    let service =
        TestService::start_with(|s| s.limits.drain_timeout = Duration::from_secs(1)).await;
    let name = service.create("vip").await;
    let mut ignorant = service.open(&name).await;
    // One that has a connection and never says anything.
    let _silent = tokio::net::TcpStream::connect(service.address)
        .await
        .unwrap();
    service.shutdown.trigger();
    let (answers, code, reason) = ignorant.failure().await;
    assert_eq!((answers.drains, code), (1, Code::Unavailable));
    assert_eq!(reason, "SERVER_DRAINING");
    soon("the service ends", service.served).await.unwrap();
}

#[tokio::test]
async fn an_old_or_silent_stream_is_asked_to_move() {
    for idle in [true, false] {
        let service = TestService::start_with(|s| {
            let short = Duration::from_secs(1);
            if idle {
                s.limits.max_stream_idle = short;
            } else {
                s.limits.max_stream_age = short;
            }
            s.limits.drain_timeout = short;
        })
        .await;
        let name = service.create("vip").await;
        let mut stream = service.open(&name).await;
        let (answers, code, reason) = stream.failure().await;
        assert_eq!((answers.drains, code), (1, Code::Unavailable));
        assert_eq!(reason, "STREAM_EXPIRED");
    }
}

#[tokio::test]
async fn streams_of_many_connections_share_the_calls_of_a_segment() {
    let service = TestService::start_with(|s| s.delivery.linger = Duration::from_millis(500)).await;
    let name = service.create("vip").await;
    let mut streams = Vec::new();
    for n in 0..5 {
        let mut stream = Stream::start(connect(service.address).await).await;
        stream.send(In::Open(open(&name))).await;
        stream.next().await.unwrap();
        stream.add(&[&format!("k{n}")]).await;
        streams.push(stream);
    }
    for stream in &mut streams {
        stream.committed(1).await;
    }
    assert_eq!(service.members().len(), 5);
    let deliveries = service.deliveries();
    assert!(deliveries.len() <= 2, "{deliveries:?}");
}

#[tokio::test]
async fn streams_that_say_nothing_leave_room_for_those_that_do() {
    // Room for four messages of the largest size, and twice as many silent streams.
    let service = TestService::start_with(|s| s.max_buffered_mib = 4).await;
    let name = service.create("vip").await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(service.open(&name).await);
    }
    let busy = service.open(&name).await;
    busy.add(&["a"]).await;
    busy.finish().await.1.unwrap();
    assert_eq!(service.members(), ["a"]);
}

/// A service with little memory, where LaunchDarkly hangs; and a destination in it.
async fn stuck_house() -> (TestService, String) {
    let service = TestService::start_with(|s| s.max_buffered_mib = 4).await;
    let name = service.create("vip").await;
    service
        .sandbox
        .set_faults(faults(Fault::new(FaultKind::Hang)));
    (service, name)
}

/// How many records of a destination have been read, once no more are.
async fn read_in_the_end(service: &TestService, name: &str) -> u64 {
    let received = || Counts::read(&service.metrics.text(), name).get("received");
    loop {
        let before = received();
        // Reading goes on within a moment, if it does.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if before > 0 && received() == before {
            return before;
        }
    }
}

#[tokio::test]
async fn failed_records_take_room_while_others_of_their_batch_wait() {
    let (service, name) = stuck_house().await;
    let stream = service.open(&name).await;
    for batch in 0..5 {
        let mut records = vec![record(&format!("k{batch}"), Operation::Add)];
        let pair = [record(" ", Operation::Add), pb::IdentifierRecord::default()];
        records.extend(pair.into_iter().cycle().take(999));
        stream.batch(records).await;
    }
    let read = read_in_the_end(&service, &name).await;
    assert!(read < 5000, "all of them were read");
}

#[tokio::test]
async fn records_in_a_call_take_room_though_their_client_has_gone() {
    let (service, name) = stuck_house().await;
    let gone = service.open(&name).await;
    let keys: Vec<_> = (0..1000).map(|n| format!("k{n}")).collect();
    gone.add(&keys.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    service
        .until("a call hangs", |s| !s.calls().is_empty())
        .await;
    drop(gone);
    let next = service.open(&name).await;
    next.add(&["next"]).await;
    assert_eq!(read_in_the_end(&service, &name).await, 1000);
}

#[tokio::test]
async fn a_destination_that_is_stuck_leaves_room_for_the_others() {
    let service = TestService::start_with(|s| s.max_buffered_mib = 8).await;
    let (sick, well) = (
        service.create_elsewhere("sick").await,
        service.create("well").await,
    );
    let hang = Fault::new(FaultKind::Hang).of_account(OTHER_ACCOUNT);
    service.sandbox.set_faults(faults(hang));
    let mut stuck = Vec::new();
    // Twice as many records as the process may hold.
    for n in 0..4 {
        let stream = service.open(&sick).await;
        for batch in 0..10 {
            let keys: Vec<_> = (0..1000).map(|key| format!("k{n}-{batch}-{key}")).collect();
            stream
                .add(&keys.iter().map(String::as_str).collect::<Vec<_>>())
                .await;
        }
        stuck.push(stream);
    }
    service
        .until("the stuck destination is called", |s| !s.calls().is_empty())
        .await;
    // A neighbour of the stuck ones that waits for nothing ends all the same.
    let idle = service.open(&sick).await.finish();
    let (_, ended) = tokio::time::timeout(Duration::from_secs(10), idle)
        .await
        .expect("a half-close waits for room");
    ended.unwrap();
    let mut busy = service.open(&well).await;
    for n in 1..=20 {
        let keys: Vec<_> = (0..1000).map(|key| format!("w{n}-{key}")).collect();
        busy.add(&keys.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        busy.committed(n * 1000).await;
    }
    busy.finish().await.1.unwrap();
    assert_eq!(service.members().len(), 20_000);
}

#[tokio::test]
async fn an_environment_that_never_answers_holds_up_no_other_of_its_account() {
    // Longer than this test waits: what hangs, hangs for good.
    let service = TestService::start_with(|s| {
        s.launchdarkly.attempt_timeout = Duration::from_secs(60);
    })
    .await;
    let sick = service.create_in("sick", TEST_CLIENT_SIDE_ID).await;
    let well = service.create("well").await;
    service.sandbox.set_faults(FaultPlan {
        faults: vec![Fault::new(FaultKind::Hang).of_environment(TEST_CLIENT_SIDE_ID)],
        ..FaultPlan::default()
    });
    let mut stream = service.open(&well).await;
    stream.add(&["first"]).await;
    stream.committed(1).await;
    let mut stuck = Vec::new();
    for n in 0..20 {
        let segment = format!("segment-{n}");
        let stream = service.open_with(open_into(&sick, &segment)).await;
        stream.add(&["u-1"]).await;
        stuck.push(stream);
    }
    service
        .until("the sick one is called", |s| s.totals().calls >= 3)
        .await;
    for n in 2..40 {
        stream.add(&[&n.to_string()]).await;
        stream.committed(n).await;
    }
}

#[tokio::test]
async fn a_limit_of_members_that_one_segment_has_met_holds_for_the_others_of_the_account() {
    let service = TestService::start().await;
    let name = service.create("vip").await;
    service.sandbox.set_faults(FaultPlan {
        max_members: Some(100),
        ..FaultPlan::default()
    });
    let keys: Vec<_> = (0..1000).map(|n| format!("u-{n}")).collect();
    let keys: Vec<_> = keys.iter().map(String::as_str).collect();
    let mut refused = Vec::new();
    for segment in ["first", "second", "third"] {
        let mut stream = service.open_with(open_into(&name, segment)).await;
        stream.add(&keys).await;
        stream.committed(1000).await;
        let calls = service.deliveries();
        refused.push(calls.iter().filter(|call| call.status == Some(413)).count());
    }
    assert!(refused[0] > 0);
    assert_eq!(refused, [refused[0]; 3], "each has met the limit anew");
}
