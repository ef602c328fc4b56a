use super::*;

mod csv;
mod encodings;
mod ndjson;
mod properties;

/// All that came out of an input.
#[derive(Debug)]
struct Outcome {
    /// `line: name=value …`, with `-` for removals.
    rows: Vec<String>,
    bad: Vec<String>,
    notes: Vec<String>,
    findings: Findings,
    end: Result<(), BadInput>,
}

impl Outcome {
    fn of(options: &InputOptions, input: impl BufRead + Send) -> Self {
        let (mut rows, mut bad, mut notes) = (vec![], vec![], vec![]);
        let mut findings = Findings::default();
        let end = read(input, options, &mut findings, |item| {
            match item {
                InputItem::Row(row) => rows.push(show(&row)),
                InputItem::Bad(wrong) => bad.push(wrong.to_string()),
                InputItem::Note(note) => notes.push(note),
            }
            true
        });
        Self {
            rows,
            bad,
            notes,
            findings,
            end,
        }
    }

    /// The rows, of an input that is good to its end.
    #[track_caller]
    fn good(self) -> Vec<String> {
        assert_eq!(self.end, Ok(()), "{:?}", self.rows);
        self.rows
    }

    /// What is wrong.
    #[track_caller]
    fn error(&self) -> String {
        self.end.as_ref().unwrap_err().to_string()
    }
}

impl InputItem {
    /// The row, if it is one.
    fn row(self) -> Option<InputRow> {
        match self {
            Self::Row(row) => Some(row),
            Self::Bad(_) | Self::Note(_) => None,
        }
    }
}

fn show(row: &InputRow) -> String {
    let mut values: Vec<_> = row.record.identifiers.iter().collect();
    values.sort_unstable();
    let values: Vec<_> = values
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let sign = match row.record.operation() {
        Operation::Remove => "-",
        _ => "",
    };
    format!("{}:{sign}{}", row.line, values.join(" "))
}

fn csv(input: &str) -> Outcome {
    Outcome::of(&InputOptions::new(InputFormat::Csv), input.as_bytes())
}

fn json(input: &str) -> Outcome {
    Outcome::of(&InputOptions::new(InputFormat::Ndjson), input.as_bytes())
}

/// Options under a mapping of these identifiers.
fn mapped(format: InputFormat, names: &[&str]) -> InputOptions {
    InputOptions {
        mapped: names.iter().map(|name| (*name).to_owned()).collect(),
        ..InputOptions::new(format)
    }
}

/// `flat` and as wrapped NDJSON, of one member more than `user_id`.
fn both_forms(flat: &str) -> [String; 2] {
    [
        format!("{{\"user_id\":\"u-1\",{flat}}}"),
        format!("{{\"identifiers\":{{\"user_id\":\"u-1\"}},{flat}}}"),
    ]
}

/// The cause: only the exact name was looked for, and any other made an addition of a removal.
#[test]
fn the_operation_is_found_whatever_its_case_and_outer_blanks() {
    for name in ["operation", "Operation", " OPERATION ", "operation\u{feff}"] {
        let rows = csv(&format!("user_id,{name}\nu-1,Remove\nu-2,add\n")).good();
        assert_eq!(rows, ["2:-user_id=u-1", "3:user_id=u-2"], "{name}");
        for line in both_forms(&format!("\"{name}\":\" REMOVE\"")) {
            assert_eq!(json(&line).good(), ["1:-user_id=u-1"], "{line}");
        }
    }
}

/// The cause: such a column was taken for an identifier, and its removals for additions.
#[test]
fn what_looks_like_an_operation_stops_the_file_until_it_is_named() {
    for name in [
        "op",
        "Action",
        "is_deleted",
        "isDeleted",
        "__op",
        "Change Type",
        "REMOVED",
    ] {
        let input = format!("user_id,{name}\nu-1,remove\n");
        let lines = both_forms(&format!("\"{name}\":\"remove\""));
        let formats = [
            (InputFormat::Csv, &input),
            (InputFormat::Ndjson, &lines[0]),
            (InputFormat::Ndjson, &lines[1]),
        ];
        for (format, input) in formats {
            let plain = mapped(format, &["user_id"]);
            let stopped = Outcome::of(&plain, input.as_bytes());
            let expected =
                format!("line 1: {name} looks like an operation: say --operation-column {name}");
            assert!(stopped.error().starts_with(&expected), "{stopped:?}");
            assert_eq!(stopped.end.unwrap_err().extent, ErrorExtent::Rest);

            let named = InputOptions {
                operation_column: Some(name.to_lowercase()),
                ..plain.clone()
            };
            let rows = Outcome::of(&named, input.as_bytes()).good();
            assert!(rows[0].ends_with(":-user_id=u-1"), "{rows:?}");

            let ignored = InputOptions {
                ignored_columns: vec![name.into()],
                ..plain.clone()
            };
            let rows = Outcome::of(&ignored, input.as_bytes()).good();
            assert!(rows[0].ends_with(":user_id=u-1"), "{rows:?}");
        }
    }
}

#[test]
fn what_looks_like_an_operation_and_is_mapped_is_an_identifier() {
    let options = mapped(InputFormat::Csv, &["action"]);
    let rows = Outcome::of(&options, &b"action,operation\nu-1,remove\n"[..]).good();
    assert_eq!(rows, ["2:-action=u-1"]);
}

#[test]
fn no_word_but_add_and_remove_is_taken_for_an_operation() {
    for word in ["true", "delete", "D", "1", "upsert", "NULL"] {
        for (format, input) in [
            (
                InputFormat::Csv,
                format!("user_id,op\nu-0,add\nu-1,{word}\n"),
            ),
            (
                InputFormat::Ndjson,
                format!(
                    "{{\"user_id\":\"u-0\",\"op\":\"add\"}}\n{{\"user_id\":\"u-1\",\"op\":\"{word}\"}}"
                ),
            ),
        ] {
            let options = InputOptions {
                operation_column: Some("op".into()),
                ..InputOptions::new(format)
            };
            let outcome = Outcome::of(&options, input.as_bytes());
            assert_eq!(outcome.rows.len(), 1, "{outcome:?}");
            let error = outcome.error();
            assert!(
                error.contains(": the value of op is neither add nor remove"),
                "{error}"
            );
            assert!(
                word.len() < 4 || !error.contains(word),
                "values are not shown: {error}"
            );
        }
    }
}

#[test]
fn an_operation_column_that_is_not_there_is_told() {
    let named = |format| InputOptions {
        operation_column: Some("what".into()),
        ..InputOptions::new(format)
    };
    let header = Outcome::of(&named(InputFormat::Csv), &b"user_id,email\nu-1,a\n"[..]);
    assert_eq!(
        header.error(),
        "line 1: the header has no column what, which --operation-column names; it has user_id, email"
    );
    let input = b"{\"user_id\":\"u-1\",\"what\":null}\n{\"user_id\":\"u-2\"}\n";
    let member = Outcome::of(&named(InputFormat::Ndjson), &input[..]);
    assert_eq!(member.rows, ["1:user_id=u-1"]);
    assert_eq!(
        member.error(),
        "line 2: there is no member what, which --operation-column names"
    );
}

/// Beside the column that was named, another one still looks like an operation.
#[test]
fn a_second_operation_is_not_passed_over() {
    let options = InputOptions {
        operation_column: Some("op".into()),
        ..mapped(InputFormat::Csv, &["user_id"])
    };
    let outcome = Outcome::of(&options, &b"user_id,op,operation\nu-1,add,remove\n"[..]);
    assert!(
        outcome
            .error()
            .contains("operation looks like an operation"),
        "{outcome:?}"
    );
    let twice = csv("user_id,operation,Operation\nu-1,add,remove\n");
    assert_eq!(twice.error(), "line 1: the header names operation twice");
}

/// The cause: the records of such a file were keyed by the next identifier of the mapping.
#[test]
fn a_name_that_is_nearly_a_mapped_one_is_refused() {
    for name in ["User_ID", "USER_ID", " user_id", "user_id\u{200b}"] {
        for (format, input) in [
            (InputFormat::Csv, format!("{name},email\nu-1,a@x.org\n")),
            (
                InputFormat::Ndjson,
                format!("{{\"{name}\":\"u-1\",\"email\":\"a@x.org\"}}"),
            ),
            (
                InputFormat::Ndjson,
                format!("{{\"identifiers\":{{\"{name}\":\"u-1\",\"email\":\"a\"}}}}"),
            ),
        ] {
            let options = mapped(format, &["user_id", "email"]);
            let outcome = Outcome::of(&options, input.as_bytes());
            let part = "differs from the mapped identifier user_id only by case or blanks";
            assert!(outcome.error().contains(part), "{outcome:?}");
            assert_eq!(outcome.rows, [""; 0]);
            let ignored = InputOptions {
                ignored_columns: vec![name.into()],
                ..options
            };
            assert_eq!(Outcome::of(&ignored, input.as_bytes()).good().len(), 1);
        }
    }
    let two = mapped(InputFormat::Csv, &["user_id", "User_ID"]);
    assert_eq!(
        Outcome::of(&two, &b"User_ID\nu-1\n"[..]).good(),
        ["2:User_ID=u-1"]
    );
}

/// The cause: one member of such a name stood for many people.
#[test]
fn values_that_say_that_there_is_none_are_absent_and_counted() {
    for null in [
        "\\N",
        "NULL",
        "null",
        "undefined",
        "NaN",
        "N/A",
        " n/a ",
        "None",
        "#N/A",
    ] {
        let outcome = csv(&format!("user_id,email\nu-1,{null}\n{null},b\n"));
        assert_eq!(outcome.rows, ["2:user_id=u-1", "3:email=b"], "{null}");
        assert_eq!(outcome.findings.absent, findings(2, 2));
        let null = null.replace('\\', "\\\\");
        let outcome = json(&format!("{{\"user_id\":\"u-1\",\"email\":\"{null}\"}}"));
        assert_eq!(outcome.rows, ["1:user_id=u-1"], "{null}");
        assert_eq!(outcome.findings.absent, findings(1, 1));
    }
    let own = InputOptions {
        nulls: vec!["-".into()],
        ..InputOptions::new(InputFormat::Csv)
    };
    let outcome = Outcome::of(&own, &b"user_id,email\nNULL,-\n"[..]);
    assert_eq!(outcome.rows, ["2:user_id=NULL"]);
    assert_eq!(
        outcome.findings.to_string(),
        "1 values taken as absent since they say so, as NULL does (see --null); first on line 2"
    );
}

fn findings(count: u64, first_line: u64) -> findings::FindingCount {
    findings::FindingCount { count, first_line }
}

#[test]
fn values_that_a_spreadsheet_shortened_are_delivered_and_counted() {
    let options = mapped(InputFormat::Csv, &["user_id"]);
    let input = &b"user_id,score\nu-1,1.5E+3\n1.23457E+11,7\n123.0,\n1e5,\n"[..];
    let outcome = Outcome::of(&options, input);
    assert_eq!(outcome.findings.shortened, findings(2, 3));
    assert!(
        outcome
            .findings
            .to_string()
            .contains("2 values look as if a spreadsheet")
    );
    assert_eq!(
        outcome.good()[1..],
        ["3:user_id=1.23457E+11", "4:user_id=123.0", "5:user_id=1e5"]
    );
}

#[test]
fn a_wrong_row_is_left_out_if_told_and_the_rest_is_read() {
    let skip = |format| InputOptions {
        bad_rows: BadRows::Skip,
        ..mapped(format, &["user_id"])
    };
    let long = "x".repeat(MAX_KEPT_BYTES + 1);
    let input = format!(
        "user_id,operation\nu-1,\nu-2,,x\nu-3\nu-4,upsert\n{long},\n\u{feff}u-5,\nu-6,remove\n"
    );
    let outcome = Outcome::of(&skip(InputFormat::Csv), input.as_bytes());
    assert_eq!(
        outcome.bad,
        [
            "line 3: 3 values, where the header names 2",
            "line 4: 1 values, where the header names 2",
            "line 5: the value of operation is neither add nor remove, and no other word is understood",
            "line 6: its identifiers are longer than 65536 bytes in all",
            "line 7: a byte-order mark begins this line: the file seems to be joined of several",
        ]
    );
    assert_eq!(outcome.good(), ["2:user_id=u-1", "8:-user_id=u-6"]);

    let input = format!(
        "{{\"user_id\":\"u-1\"}}\n{{\"user_id\"\n[]\n{{\"user_id\":\"a\",\"user_id\":\"a\"}}\n\
         {{\"user_id\":\"{long}\"}}\n{}\n{{\"user_id\":\"u-7\"}}",
        " ".repeat(MAX_ROW_BYTES + 1)
    );
    let outcome = Outcome::of(&skip(InputFormat::Ndjson), input.as_bytes());
    let lines: Vec<_> = outcome.bad.iter().map(|bad| &bad[..6]).collect();
    assert_eq!(
        lines,
        ["line 2", "line 3", "line 4", "line 5", "line 6"],
        "{:?}",
        outcome.bad
    );
    assert_eq!(outcome.good(), ["1:user_id=u-1", "7:user_id=u-7"]);
}

#[test]
fn what_makes_the_rest_unreadable_stops_also_then() {
    let skip = InputOptions {
        bad_rows: BadRows::Skip,
        ..InputOptions::new(InputFormat::Csv)
    };
    for broken in ["\"u-2\n", "u\"2\n", "\"u\"2\n", "email,user_id\n"] {
        let input = format!("user_id,email\n{broken}u-3,x\n");
        let outcome = Outcome::of(&skip, input.as_bytes());
        assert_eq!(outcome.end.unwrap_err().line, 2, "{broken}");
        assert_eq!(outcome.rows, [""; 0]);
    }
}

/// What is not mapped is neither limited nor sent.
#[test]
fn what_is_not_mapped_does_not_matter() {
    let long = "x".repeat(100_000);
    let header = "note,user_id,,note\n";
    let quoted = format!("{header}\"{long}\r\n{long}\",u-1,a,b\n{long},u-2,,\n");
    let options = mapped(InputFormat::Csv, &["user_id"]);
    assert_eq!(
        Outcome::of(&options, quoted.as_bytes()).good(),
        ["2:user_id=u-1", "4:user_id=u-2"]
    );

    let options = mapped(InputFormat::Ndjson, &["user_id"]);
    for more in [
        format!("\"note\":\"{long}\""),
        "\"score\":1.5,\"on\":true,\"tags\":[{}],\"o\":{\"a\":{\"b\":{}}},\"score\":2".into(),
    ] {
        for line in both_forms(&more) {
            assert_eq!(
                Outcome::of(&options, line.as_bytes()).good(),
                ["1:user_id=u-1"]
            );
        }
    }
    let inside = b"{\"identifiers\":{\"user_id\":\"u-1\",\"score\":1.5}}";
    assert_eq!(Outcome::of(&options, &inside[..]).good(), ["1:user_id=u-1"]);
}

#[test]
fn the_default_operation_is_for_rows_that_do_not_say() {
    let options = InputOptions {
        operation: Operation::Remove,
        ..InputOptions::new(InputFormat::Csv)
    };
    let input = &b"user_id,operation\nu-1,add\nu-2,\n"[..];
    assert_eq!(
        Outcome::of(&options, input).good(),
        ["2:user_id=u-1", "3:-user_id=u-2"]
    );
}

#[test]
fn names_in_messages_cannot_steer_a_terminal_nor_fill_it() {
    let name = format!("\u{1b}[2J{}", "x".repeat(10_000));
    let options = mapped(InputFormat::Csv, &["user_id"]);
    let error = Outcome::of(&options, format!("{name},b\n").as_bytes()).error();
    assert!(
        error.contains("it has \\u{1b}[2Jxx") && error.len() < 300,
        "{error}"
    );
}

#[test]
fn the_documentation_lists_the_words_that_mean_something() {
    let page = include_str!("../../../../docs/sending.md");
    let words: Vec<_> = page.split('`').skip(1).step_by(2).collect();
    for null in NULLS {
        assert!(words.contains(null), "{null}");
    }
    for name in columns::LIKE_AN_OPERATION {
        let is_listed = words.iter().any(|word| columns::plain(word) == *name);
        assert!(is_listed, "{name}");
    }
}
