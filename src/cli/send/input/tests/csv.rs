use std::io::{self, Read};

use super::*;

#[test]
fn rows_are_read_with_marks_quotes_and_any_line_ends() {
    let input = "\u{feff}user_id, email,operation\r\n\
        u-1,a@x.org,add\r\n\
        \r\n\
        u-2,,REMOVE\n\
        \"u,\"\"3\"\"\",\"two\r\nlines\",\n\
        u-4,  ,remove";
    assert_eq!(
        csv(input).good(),
        [
            "2:email=a@x.org user_id=u-1",
            "4:-user_id=u-2",
            "5:email=two\r\nlines user_id=u,\"3\"",
            "7:-email=   user_id=u-4"
        ]
    );
}

/// The cause: lines were looked for by LF alone, so the whole file was the header.
#[test]
fn lines_end_with_cr_alone_or_with_any_mixture() {
    let rows = csv("user_id,email\ru-1,a\r\ru-2,\"b\rc\"\ru-3,d").good();
    assert_eq!(
        rows,
        [
            "2:email=a user_id=u-1",
            "4:email=b\rc user_id=u-2",
            "6:email=d user_id=u-3"
        ]
    );
    let mixed = csv("user_id\nu-1\r\nu-2\ru-3\n\ru-4\r\n\r\nu-5\n").good();
    assert_eq!(
        mixed,
        [
            "2:user_id=u-1",
            "3:user_id=u-2",
            "4:user_id=u-3",
            "6:user_id=u-4",
            "8:user_id=u-5"
        ]
    );
}

#[test]
fn rows_of_delimiters_alone_are_skipped() {
    let rows = csv(",,\nuser_id,email\nu-1,\n,\n , \n\"\",\"\"\n,,,,\nu-2,\n").good();
    assert_eq!(rows, ["3:user_id=u-1", "8:user_id=u-2"]);
    assert_eq!(csv("user_id\n\"\"\n  \n").good(), [""; 0]);
}

#[test]
fn a_wrong_header_is_named() {
    for (header, part) in [
        ("", "must name the identifiers"),
        ("operation\n", "must name the identifiers"),
        ("user_id,,email\n", "without a name"),
        ("user_id,email,user_id \n", "names user_id twice"),
    ] {
        let error = csv(header).error();
        assert!(
            error.starts_with("line 1: ") && error.contains(part),
            "{error}"
        );
    }
    let options = mapped(InputFormat::Csv, &["user_id", "email"]);
    assert_eq!(
        Outcome::of(&options, &b"userid,mail\nu-1,a\n"[..]).error(),
        "line 1: the header names none of the mapped identifiers: \
         it has userid, mail, and mapped are user_id, email"
    );
    let twice = Outcome::of(&options, &b"email,email\na,b\n"[..]);
    assert_eq!(twice.error(), "line 1: the header names email twice");
}

/// Keyed by the fall-back is right only if a person knows.
#[test]
fn a_header_without_the_first_mapped_identifier_is_told_at_once() {
    let options = mapped(InputFormat::Csv, &["user_id", "email"]);
    let outcome = Outcome::of(&options, &b"x,email\n1,2\n"[..]);
    assert_eq!(
        outcome.notes,
        ["the header has no column user_id: the first identifier of each record is email"]
    );
    assert_eq!(outcome.good(), ["2:email=2"]);
    let both = Outcome::of(&options, &b"email,user_id\n1,2\n"[..]);
    let first = Outcome::of(&options, &b"user_id\n1\n"[..]);
    assert!(both.notes.is_empty() && first.notes.is_empty());
}

#[test]
fn what_is_broken_is_named_by_line_and_column_after_the_good_rows() {
    for (rest, expected) in [
        ("u\"2,x", "line 3, column 2: a quote inside a value"),
        ("é,x\"", "line 3, column 4: a quote inside a value"),
        ("\"u-2\" ,x", "line 3, column 6: text after a closing quote"),
        (
            "x,\"u-2\nu-3,y\n",
            "line 3, column 3: this quote is never closed",
        ),
        (
            "x,\"u-2\nu-3\"y,\n",
            "line 4, column 5: text after a closing quote",
        ),
        ("u-2", "line 3: 1 values, where the header names 2"),
        ("u-2,x,y", "line 3: 3 values, where the header names 2"),
    ] {
        let outcome = csv(&format!("user_id,operation\nu-1,\n{rest}"));
        assert_eq!(outcome.rows, ["2:user_id=u-1"]);
        let end = outcome.error();
        assert!(end.starts_with(expected), "{end}");
    }
    assert_eq!(
        csv("user_id,operation\n\nu-1,upsert\n").error(),
        "line 3: the value of operation is neither add nor remove, and no other word is understood"
    );
}

#[test]
fn an_unclosed_quote_does_not_swallow_an_endless_input() {
    let endless = io::BufReader::new(b"user_id\n\"".chain(io::repeat(b'x')));
    assert_eq!(
        Outcome::of(&InputOptions::new(InputFormat::Csv), endless).error(),
        "line 2, column 1: this quote is not closed within 8388608 bytes"
    );
}

/// The cause: the second header became a member, as did the names of other columns.
#[test]
fn a_second_header_is_skipped_if_it_is_the_same_and_refused_else() {
    for again in [
        "user_id,email",
        "\u{feff}user_id,email",
        "\"User_ID\", email",
        "\u{feff}\"user_id\",\"email\"",
    ] {
        let outcome = csv(&format!("user_id,email\nu-1,a\n{again}\nu-2,b\n"));
        assert_eq!(outcome.findings.headers, findings(1, 3), "{again}");
        assert_eq!(
            outcome.good(),
            ["2:email=a user_id=u-1", "4:email=b user_id=u-2"]
        );
    }
    for other in [
        "email,user_id",
        "user_id",
        "user_id,email,name",
        "user_id,mail",
    ] {
        let outcome = csv(&format!("user_id,email\nu-1,a\n{other}\nu-2,b\n"));
        assert_eq!(outcome.rows, ["2:email=a user_id=u-1"]);
        assert!(
            outcome
                .error()
                .starts_with("line 3: this looks like another header"),
            "{outcome:?}"
        );
    }
    let options = mapped(InputFormat::Csv, &["user_id"]);
    // A member may well be called like a column that does not matter.
    let named = Outcome::of(&options, &b"user_id,test,x\ntest,1,\n"[..]);
    assert_eq!(named.good(), ["2:user_id=test"]);
    let swapped = Outcome::of(&options, &b"user_id,name\nu-1,a\nname,user_id\nb,u-2\n"[..]);
    assert!(
        swapped
            .error()
            .starts_with("line 3: this looks like another header"),
        "{swapped:?}"
    );
}

#[test]
fn a_byte_order_mark_inside_is_refused_with_its_line() {
    let outcome = csv("user_id\nu-1\n\u{feff}u-2\n");
    assert_eq!(outcome.rows, ["2:user_id=u-1"]);
    assert!(
        outcome
            .error()
            .starts_with("line 3: a byte-order mark begins"),
        "{outcome:?}"
    );
}

#[test]
fn any_delimiter_that_is_named_is_read() {
    for delimiter in [b';', b'\t', b'|', 1] {
        let options = InputOptions {
            delimiter: Some(delimiter),
            ..InputOptions::new(InputFormat::Csv)
        };
        let input = "user_id;operation\n\"a;b\";remove\nx,y;\n"
            .replace(';', &char::from(delimiter).to_string());
        let rows = Outcome::of(&options, input.as_bytes()).good();
        let quoted = format!("2:-user_id=a{}b", char::from(delimiter));
        assert_eq!(rows, [quoted.as_str(), "3:user_id=x,y"]);
    }
}

#[test]
fn a_header_with_another_delimiter_names_the_flag() {
    for (options, header, expected) in [
        (
            InputOptions::new(InputFormat::Csv),
            "user_id;email",
            "by ';', not by ',': say --delimiter ';'",
        ),
        (
            mapped(InputFormat::Csv, &["user_id"]),
            "user_id;a,b;c",
            "say --delimiter ';'",
        ),
        (
            mapped(InputFormat::Csv, &["user_id"]),
            "user_id\temail",
            "say --delimiter tab",
        ),
        (
            InputOptions {
                delimiter: Some(b'\t'),
                ..InputOptions::new(InputFormat::Csv)
            },
            "user_id|email",
            "by '|', not by tab: say --delimiter '|'",
        ),
    ] {
        let error = Outcome::of(&options, format!("{header}\nx\n").as_bytes()).error();
        assert!(error.contains(expected), "{error}");
    }
    let known = mapped(InputFormat::Csv, &["a;b"]);
    assert_eq!(Outcome::of(&known, &b"a;b\nx\n"[..]).good(), ["2:a;b=x"]);
}

#[test]
fn the_delimiter_that_the_file_names_is_used() {
    for end in ["\n", "\r\n", "\r"] {
        let rows = csv(&format!("\u{feff}sep=;{end}user_id;email{end}u-1;a,b{end}")).good();
        assert_eq!(rows, ["3:email=a,b user_id=u-1"]);
    }
    let header = csv("sep=,user_id\nx,u-1\n").good();
    assert_eq!(header, ["2:sep==x user_id=u-1"]);
    let other = InputOptions {
        delimiter: Some(b'|'),
        ..InputOptions::new(InputFormat::Csv)
    };
    let error = Outcome::of(&other, &b"sep=;\nuser_id;email\n"[..]).error();
    assert!(
        error.contains("its delimiter is ';', and --delimiter says '|'"),
        "{error}"
    );
}
