use proptest::prelude::*;

use super::{lines::MAX_ROW_BYTES, *};

fn settings(format: Format) -> Settings {
    Settings {
        format,
        operation: Operation::Add,
        mapped: vec![],
    }
}

/// What was read, as `line: name=value …`, with `-` for removals, and how it ended.
fn rows(format: Format, input: &[u8]) -> (Vec<String>, Result<(), String>) {
    let mut rows = Vec::new();
    let end = read(input, &settings(format), |row| {
        let mut values: Vec<_> = row.record.identifiers.iter().collect();
        values.sort_unstable();
        let values: Vec<_> = values
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let sign = if row.record.operation() == Operation::Remove {
            "-"
        } else {
            ""
        };
        rows.push(format!("{}:{sign}{}", row.line, values.join(" ")));
        true
    });
    (rows, end.map_err(|error| error.to_string()))
}

fn csv(input: &str) -> (Vec<String>, Result<(), String>) {
    rows(Format::Csv, input.as_bytes())
}

fn json(input: &str) -> (Vec<String>, Result<(), String>) {
    rows(Format::Ndjson, input.as_bytes())
}

fn error(of: (Vec<String>, Result<(), String>)) -> String {
    of.1.unwrap_err()
}

#[test]
fn csv_rows_are_read_with_marks_quotes_and_any_line_ends() {
    let input = "\u{feff}user_id, email,operation\r\n\
        u-1,a@x.org,add\r\n\
        \r\n\
        u-2,,REMOVE\n\
        \"u,\"\"3\"\"\",\"two\r\nlines\",\n\
        u-4,  ,remove";
    let (rows, end) = csv(input);
    assert_eq!(
        rows,
        [
            "2:email=a@x.org user_id=u-1",
            "4:-user_id=u-2",
            "5:email=two\nlines user_id=u,\"3\"",
            "7:-email=   user_id=u-4"
        ]
    );
    assert_eq!(end, Ok(()));
}

#[test]
fn json_rows_are_read_wrapped_and_flat() {
    let input = "\u{feff}{\"user_id\":\"u-1\",\"n\":17,\"gone\":null}\r\n\
        \n\
        {\"operation\":\"remove\",\"user_id\":\"u-2\"}\n\
        {\"identifiers\":{\"operation\":\"x\"},\"operation\":\"Add\"}\n\
        {}";
    let (rows, end) = json(input);
    assert_eq!(
        rows,
        [
            "1:n=17 user_id=u-1",
            "3:-user_id=u-2",
            "4:operation=x",
            "5:"
        ]
    );
    assert_eq!(end, Ok(()));
}

#[test]
fn a_wrong_header_is_named() {
    for (header, part) in [
        ("", "must name the identifiers"),
        ("operation\n", "must name the identifiers"),
        ("user_id,,email\n", "without a name"),
        ("user_id,email,user_id \n", "names user_id twice"),
    ] {
        let error = error(csv(header));
        assert!(
            error.starts_with("line 1: ") && error.contains(part),
            "{error}"
        );
    }
    let settings = Settings {
        mapped: vec!["user_id".into(), "email".into()],
        ..settings(Format::Csv)
    };
    let error = read(&b"userid,mail\nu-1,a\n"[..], &settings, |_| true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 1: the header names none of the mapped identifiers: \
         it has userid, mail, and mapped are user_id, email"
    );
    assert_eq!(read(&b"x,email\n1,2\n"[..], &settings, |_| true), Ok(()));
}

#[test]
fn bad_csv_is_named_by_line_and_column_after_the_good_rows() {
    for (rest, expected) in [
        ("u\"2,x", "line 3, column 2: a quote inside a value"),
        ("é,x\"", "line 3, column 4: a quote inside a value"),
        ("\"u-2\" ,x", "line 3, column 6: text after a closing quote"),
        (
            "x,\"u-2\nu-3,y\n",
            "line 3, column 3: this quote is never closed",
        ),
        ("u-2", "line 3: 1 values, where the header names 2"),
        ("u-2,x,y", "line 3: 3 values, where the header names 2"),
    ] {
        let (rows, end) = csv(&format!("user_id,operation\nu-1,\n{rest}"));
        assert_eq!(rows, ["2:user_id=u-1"]);
        let end = end.unwrap_err();
        assert!(end.starts_with(expected), "{end}");
    }
    let unknown = error(csv("user_id,operation\n\nu-1,upsert\n"));
    assert_eq!(
        unknown,
        "line 3: the operation `upsert` is neither add nor remove"
    );
}

#[test]
fn an_unclosed_quote_does_not_swallow_the_file() {
    let swallowed = "a line\n".repeat(MAX_ROW_BYTES);
    let error = error(csv(&format!("user_id\n\"{swallowed}\"")));
    assert_eq!(error, "line 2, column 1: this quote is never closed");
}

#[test]
fn invalid_utf8_is_named_by_line_and_column() {
    let (read, end) = rows(Format::Csv, b"user_id\nu-1\n\xc3\xa9\xe9\n");
    assert_eq!(read, ["2:user_id=u-1"]);
    assert_eq!(end.unwrap_err(), "line 3, column 2: not valid UTF-8");
    let (_, end) = rows(Format::Ndjson, b"{\"a\":\"\xff\"}");
    assert_eq!(end.unwrap_err(), "line 1, column 7: not valid UTF-8");
}

#[test]
fn an_endless_line_is_refused() {
    let error = error(json(&format!("{{}}\n{}", " ".repeat(MAX_ROW_BYTES + 1))));
    assert_eq!(error, "line 2: longer than 65536 bytes");
}

#[test]
fn bad_json_is_named_by_line_after_the_good_rows() {
    for (line, expected) in [
        (
            "{\"user_id\":\"u-2\"",
            "line 2, column 16: not one JSON object: EOF",
        ),
        (
            "{\"a\":\"b\"} {}",
            "line 2, column 11: not one JSON object: trailing characters",
        ),
        (
            "[\"u-2\"]",
            "line 2, column 0: not one JSON object: invalid type: sequence",
        ),
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
            "line 2: the operation `del` is neither",
        ),
    ] {
        let (rows, end) = json(&format!("{{\"user_id\":\"u-1\"}}\n{line}\n"));
        assert_eq!(rows, ["1:user_id=u-1"]);
        let end = end.unwrap_err();
        assert!(end.starts_with(expected), "{end}");
    }
}

#[test]
fn the_default_operation_is_for_rows_that_do_not_say() {
    let settings = Settings {
        operation: Operation::Remove,
        ..settings(Format::Csv)
    };
    let mut operations = Vec::new();
    let input = &b"user_id,operation\nu-1,add\nu-2,\n"[..];
    read(input, &settings, |row| {
        operations.push(row.record.operation());
        true
    })
    .unwrap();
    assert_eq!(operations, [Operation::Add, Operation::Remove]);
}

proptest! {
    #[test]
    fn values_written_by_another_csv_writer_read_back(
        values in prop::collection::vec(prop::collection::vec("[a-zé\", \n]{0,6}", 3), 0..20),
    ) {
        let mut writer = ::csv::Writer::from_writer(vec![]);
        writer.write_record(["a", "b", "c"]).unwrap();
        for row in &values {
            writer.write_record(row).unwrap();
        }
        let written = writer.into_inner().unwrap();
        let mut seen = Vec::new();
        let end = read(&written[..], &settings(Format::Csv), |row| {
            let value = |name| row.record.identifiers.get(name).cloned().unwrap_or_default();
            seen.push(["a", "b", "c"].map(value).to_vec());
            true
        });
        prop_assert_eq!(end, Ok(()));
        prop_assert_eq!(seen, values);
    }

    #[test]
    fn whatever_the_input_lines_rise_and_the_wrong_one_is_last(
        text in "[\"a,\n{}:]{0,40}",
        bytes in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let input = [&b"a,b\n"[..], text.as_bytes(), &bytes].concat();
        for format in [Format::Csv, Format::Ndjson] {
            let mut lines = Vec::new();
            let end = read(&input[..], &settings(format), |row| {
                lines.push(row.line);
                true
            });
            lines.extend(end.err().map(|wrong| wrong.line));
            prop_assert!(lines.is_sorted_by(|earlier, later| earlier < later), "{lines:?}");
        }
    }
}
