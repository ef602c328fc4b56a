use super::*;

#[test]
fn rows_are_read_wrapped_and_flat() {
    let input = "\u{feff}{\"user_id\":\"u-1\",\"n\":17,\"gone\":null}\r\n\
        \n\
        {\"operation\":\"remove\",\"user_id\":\"u-2\"}\r\
        {\"identifiers\":{\"phone\":\"x\"},\"operation\":\"Add\"}\n   \n\
        {}";
    assert_eq!(
        json(input).good(),
        ["1:n=17 user_id=u-1", "3:-user_id=u-2", "4:phone=x", "6:"]
    );
}

/// The cause: of two members of one name, the last one won in silence.
#[test]
fn what_matters_may_not_come_twice() {
    for (line, name) in [
        ("{\"user_id\":\"a\",\"user_id\":\"b\"}", "user_id"),
        ("{\"user_id\":\"a\",\"user\\u005fid\":\"b\"}", "user_id"),
        ("{\"user_id\":\"a\",\"user_id\":null}", "user_id"),
        (
            "{\"identifiers\":{\"user_id\":\"a\",\"user_id\":\"a\"}}",
            "user_id",
        ),
        (
            "{\"identifiers\":{\"user_id\":\"a\"},\"identifiers\":{}}",
            "identifiers",
        ),
        (
            "{\"operation\":\"remove\",\"user_id\":\"a\",\"operation\":\"add\"}",
            "operation",
        ),
        (
            "{\"operation\":\"remove\",\"user_id\":\"a\",\"Operation \":\"add\"}",
            "`Operation `",
        ),
        (
            "{\"identifiers\":{},\"operation\":null,\"OPERATION\":\"add\"}",
            "OPERATION",
        ),
    ] {
        for options in [
            InputOptions::new(InputFormat::Ndjson),
            mapped(InputFormat::Ndjson, &["user_id"]),
        ] {
            let outcome = Outcome::of(&options, format!("{{}}\n{line}\n").as_bytes());
            assert_eq!(outcome.error(), format!("line 2: {name} comes twice"));
            assert_eq!(outcome.rows, ["1:"]);
        }
    }
}

/// An operation among the identifiers would be passed over, and the member added.
#[test]
fn an_operation_among_the_identifiers_is_refused() {
    for options in [
        InputOptions::new(InputFormat::Ndjson),
        mapped(InputFormat::Ndjson, &["user_id"]),
    ] {
        let input = b"{\"identifiers\":{\"user_id\":\"u\",\"Operation\":\"remove\"}}";
        let error = Outcome::of(&options, &input[..]).error();
        assert!(
            error.starts_with("line 1: Operation stands inside identifiers"),
            "{error}"
        );
        let input = b"{\"identifiers\":{\"user_id\":\"u\",\"deleted\":true}}";
        let error = Outcome::of(&options, &input[..]).error();
        assert!(
            error.starts_with("line 1: deleted looks like an operation"),
            "{error}"
        );
    }
    let options = mapped(InputFormat::Ndjson, &["user_id"]);
    let error = Outcome::of(&options, &b"{\"Identifiers\":{\"user_id\":\"u\"}}"[..]).error();
    assert_eq!(error, "line 1: Identifiers is not written identifiers");
}

#[test]
fn what_is_wrong_is_named_by_line_after_the_good_rows() {
    for (line, expected) in [
        (
            "{\"user_id\":\"u-2\"",
            "line 2, column 16: not one JSON object: EOF",
        ),
        (
            "{\"é\":\"b\"} {}",
            "line 2, column 11: not one JSON object: trailing characters",
        ),
        ("[\"u-2\"]", "line 2: not a JSON object, but a list"),
        ("\"u-2\"", "line 2: not a JSON object, but a string"),
        (
            "{\"user_id\":1.5}",
            "line 2: the identifier user_id is a fraction",
        ),
        (
            "{\"user_id\":18446744073709551616}",
            "line 2: the identifier user_id is a fraction, or larger than 64 bits",
        ),
        (
            "{\"user_id\":[1]}",
            "line 2: the identifier user_id is a list",
        ),
        (
            "{\"user_id\":{}}",
            "line 2: the identifier user_id is an object",
        ),
        (
            "{\"user_id\":true}",
            "line 2: the identifier user_id is true or false",
        ),
        (
            "{\"identifiers\":\"u-2\"}",
            "line 2: identifiers is not an object",
        ),
        (
            "{\"identifiers\":{},\"user_id\":\"u\"}",
            "line 2: beside identifiers there is user_id",
        ),
        ("{\"operation\":1}", "line 2: operation is not a string"),
        (
            "{\"operation\":\"del\"}",
            "line 2: the value of operation is neither",
        ),
    ] {
        for options in [
            InputOptions::new(InputFormat::Ndjson),
            mapped(InputFormat::Ndjson, &["user_id"]),
        ] {
            let input = format!("{{\"user_id\":\"u-1\"}}\n{line}\n");
            let outcome = Outcome::of(&options, input.as_bytes());
            assert_eq!(outcome.rows, ["1:user_id=u-1"]);
            let end = outcome.error();
            assert!(end.starts_with(expected), "{end}");
        }
    }
}

#[test]
fn an_endless_line_is_refused() {
    let input = format!("{{}}\n{}", " ".repeat(MAX_ROW_BYTES + 1));
    assert_eq!(json(&input).error(), "line 2: longer than 8388608 bytes");
}

#[test]
fn a_byte_order_mark_inside_is_skipped_and_told() {
    let outcome = json("{\"a\":\"1\"}\n\u{feff}{\"a\":\"2\"}\n");
    assert_eq!(outcome.findings.marks, findings(1, 2));
    assert_eq!(outcome.good(), ["1:a=1", "2:a=2"]);
}
