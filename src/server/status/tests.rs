use std::collections::HashSet;

use tonic_types::RpcStatusExt;

use super::{violation::MAX_VIOLATIONS, *};
use crate::{
    docs::hold_columns,
    domain::{Finding, KeyError},
};

fn name() -> DestinationName {
    "organizations/acme/destinations/vip".parse().unwrap()
}

/// One failure of every kind, with the code and reason that the contract promises.
fn table() -> Vec<(Failure, Code, &'static str)> {
    use Failure::*;
    let segment = SegmentId::new("vip").unwrap();
    let unavailable = CredentialsUnavailable {
        error: TransientError::TimedOut,
        retry_after: None,
    };
    let missing = RecordError::IdentifierMissing {
        sources: ["user_id".to_owned()].into(),
        has_lookalike: false,
    };
    let invalid = RecordError::IdentifierInvalid {
        source_name: "user_id".into(),
        reason: KeyError::TooLong,
    };
    let timeout = |error| DeliveryTimeout {
        error,
        tried_for: Duration::from_secs(300),
        attempts: 7,
    };
    let sequence = SequenceMismatch {
        expected: 5,
        got: 9,
    };
    let retry_after = Duration::from_secs(2);
    vec![
        (
            Failure::invalid("name", "is bad"),
            Code::InvalidArgument,
            "INVALID_FIELD",
        ),
        (
            StreamProtocol("x".into()),
            Code::InvalidArgument,
            "STREAM_PROTOCOL",
        ),
        (sequence, Code::OutOfRange, "SEQUENCE_MISMATCH"),
        (
            DestinationNotFound(name()),
            Code::NotFound,
            "DESTINATION_NOT_FOUND",
        ),
        (
            DestinationDeletedSince(name()),
            Code::NotFound,
            "DESTINATION_NOT_FOUND",
        ),
        (
            DestinationExists(name()),
            Code::AlreadyExists,
            "DESTINATION_EXISTS",
        ),
        (
            DestinationDeleted(name()),
            Code::FailedPrecondition,
            "DESTINATION_DELETED",
        ),
        (RequestIdReused, Code::InvalidArgument, "REQUEST_ID_REUSED"),
        (EtagMismatch(name()), Code::Aborted, "ETAG_MISMATCH"),
        (Contended(name()), Code::Aborted, "ETAG_MISMATCH"),
        (
            StreamSuperseded("s-1".into()),
            Code::Aborted,
            "STREAM_SUPERSEDED",
        ),
        (
            StreamExpired(Expiry::Age),
            Code::Unavailable,
            "STREAM_EXPIRED",
        ),
        (
            CredentialsRejected(name()),
            Code::FailedPrecondition,
            "CREDENTIALS_REJECTED",
        ),
        (
            SegmentForbidden(segment.clone()),
            Code::FailedPrecondition,
            "SEGMENT_REJECTED",
        ),
        (
            SegmentRejected(segment),
            Code::FailedPrecondition,
            "SEGMENT_REJECTED",
        ),
        (
            unavailable.into(),
            Code::Unavailable,
            "DESTINATION_UNAVAILABLE",
        ),
        (
            PermissionDenied,
            Code::PermissionDenied,
            "PERMISSION_DENIED",
        ),
        (
            TooManyStreams { limit: 9 },
            Code::ResourceExhausted,
            "TOO_MANY_STREAMS",
        ),
        (
            Draining { retry_after },
            Code::Unavailable,
            "SERVER_DRAINING",
        ),
        (StoreUnavailable, Code::Unavailable, "STORE_UNAVAILABLE"),
        (Internal, Code::Internal, "INTERNAL"),
        (missing.into(), Code::InvalidArgument, "IDENTIFIER_MISSING"),
        (invalid.into(), Code::InvalidArgument, "IDENTIFIER_INVALID"),
        (
            RejectedByDestination(Blame::Record),
            Code::InvalidArgument,
            "REJECTED_BY_DESTINATION",
        ),
        (
            timeout(Some(TransientError::RateLimited)),
            Code::ResourceExhausted,
            "DELIVERY_TIMEOUT",
        ),
        (timeout(None), Code::Unavailable, "DELIVERY_TIMEOUT"),
    ]
}

#[test]
fn every_failure_has_its_code_and_one_error_info() {
    for (failure, code, reason) in table() {
        let status = failure.into_status();
        assert_eq!(status.code(), code, "{reason}");
        assert!(!status.message().is_empty(), "{reason}");
        let details = status.check_error_details_vec().unwrap();
        let infos: Vec<_> = details
            .iter()
            .filter_map(|detail| match detail {
                tonic_types::ErrorDetail::ErrorInfo(info) => Some(info),
                _ => None,
            })
            .collect();
        assert_eq!(infos.len(), 1, "{reason}");
        assert_eq!(
            (infos[0].reason.as_str(), infos[0].domain.as_str()),
            (reason, DOMAIN)
        );
    }
}

#[test]
fn every_reason_is_made_with_each_of_its_codes_and_no_other() {
    let made = table();
    for reason in Reason::ALL {
        let rows = made.iter().filter(|(.., made)| *made == reason.as_str());
        let codes: HashSet<_> = rows.map(|(_, code, _)| code.description()).collect();
        let promised = reason.codes().iter().map(Code::description).collect();
        assert_eq!(codes, promised, "{reason:?}");
    }
}

#[test]
fn the_documented_reasons_are_those_of_the_code() {
    let name = |code: &Code| {
        let mut name = String::new();
        for letter in format!("{code:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(letter.to_ascii_uppercase());
        }
        format!("`{name}`")
    };
    let row = |reason: &Reason| {
        let codes: Vec<_> = reason.codes().iter().map(name).collect();
        vec![format!("`{}`", reason.as_str()), codes.join(" or ")]
    };
    hold_columns(&["reason", "code"], Reason::ALL.iter().map(row));
}

#[test]
fn waiting_is_advised_exactly_where_it_helps() {
    for (failure, code, reason) in table() {
        let helps = matches!(code, Code::Unavailable | Code::ResourceExhausted)
            || matches!(failure, Failure::Contended(_));
        let retry = failure.into_status().get_details_retry_info();
        assert_eq!(retry.is_some(), helps, "{reason}");
    }
}

#[test]
fn a_records_status_is_that_of_a_call() {
    for (failure, code, reason) in table() {
        let rpc = failure.to_rpc();
        assert_eq!(rpc.code, code as i32);
        assert_eq!(rpc.message, failure.to_string());
        assert_eq!(rpc.get_details_error_info().unwrap().reason, reason);
    }
}

#[test]
fn all_violations_come_at_once_until_they_would_burst_the_trailer() {
    // As long as our longest, which lists what an update mask may name.
    let description = "x".repeat(220);
    let violations = |count| {
        let one = |n| Violation::new(format!("update_mask.paths[{n}]"), &description);
        Failure::InvalidFields((0..count).map(one).collect())
    };
    let few = violations(3).into_status();
    assert!(few.message().ends_with("xx (and 2 more)"));
    let shown = few.get_details_bad_request().unwrap().field_violations;
    assert_eq!(shown.len(), 3);

    let many = violations(1_000).into_status();
    let shown = many.get_details_bad_request().unwrap().field_violations;
    assert_eq!(shown.len(), MAX_VIOLATIONS + 1);
    let in_base64 = many.details().len() * 4 / 3;
    assert!(in_base64 < 7_000, "{in_base64}");
    assert!(shown[MAX_VIOLATIONS].description.starts_with("984 more"));
}

#[test]
fn what_varies_is_in_the_metadata() {
    let metadata = |failure: Failure| failure.to_rpc().get_details_error_info().unwrap().metadata;
    let sequence = Failure::SequenceMismatch {
        expected: 5,
        got: 9,
    };
    assert_eq!(metadata(sequence)["expected_sequence"], "5");
    let missing = RecordError::IdentifierMissing {
        sources: ["user_id".to_owned(), "email".to_owned()].into(),
        has_lookalike: false,
    };
    assert_eq!(metadata(missing.into())["sources"], "user_id,email");
    let gone = Failure::DestinationDeleted(name());
    assert_eq!(metadata(gone.clone())["destination"], name().to_string());
    let resource = gone.into_status().get_details_resource_info().unwrap();
    assert_eq!(resource.resource_name, name().to_string());
}

#[test]
fn a_time_out_says_how_often_it_was_tried_as_people_do() {
    let message = |attempts| {
        Failure::DeliveryTimeout {
            error: Some(TransientError::Status(503)),
            tried_for: Duration::from_secs(2),
            attempts,
        }
        .to_string()
    };
    let answer = "LaunchDarkly answered status 503";
    for (attempts, said) in [
        (0, "before its first attempt"),
        (1, "after 1 attempt"),
        (7, "after 7 attempts"),
    ] {
        let whole = format!("not delivered within 2 s, {said}: {answer}");
        assert_eq!(message(attempts), whole);
    }
}

#[test]
fn an_unproven_refusal_says_that_the_record_may_be_innocent() {
    let message = |blame| Failure::RejectedByDestination(blame).to_string();
    assert!(message(Blame::Unproven).contains("may be innocent"));
    assert!(!message(Blame::Record).contains("innocent"));
}

#[test]
fn a_failed_check_marks_its_field_with_the_vendors_reason() {
    let finding = Finding {
        reason: "TOKEN_INVALID",
        message: "the token is not known; copy it again".into(),
    };
    let failed = CheckOutcome::Failed(finding.clone());
    let status = check_status(&failed, "launch_darkly.access_token").unwrap();
    assert_eq!(
        status.get_details_error_info().unwrap().reason,
        "TOKEN_INVALID"
    );
    let marked = status.get_details_bad_request().unwrap().field_violations;
    assert_eq!(marked[0].field, "launch_darkly.access_token");
    assert_eq!(marked[0].description, finding.message);
    assert_eq!(check_status(&CheckOutcome::Passed, "x"), None);
}
