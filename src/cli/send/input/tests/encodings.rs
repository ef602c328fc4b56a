use std::io::{self, BufReader, Read, Write};

use encoding_rs::{UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use flate2::{Compression, write::GzEncoder};

use super::*;

fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(bytes).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn bytes(input: &[u8]) -> Outcome {
    Outcome::of(&InputOptions::new(InputFormat::Csv), input)
}

/// An input that gives one byte at a time, as a slow pipe may.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut buffer[..1])
    }
}

#[test]
fn encodings_are_known_by_their_marks_or_by_name() {
    let text = "user_id\nä-1\n😀\n";
    let marked = format!("\u{feff}{text}");
    let latin = WINDOWS_1252.encode("user_id\nä-1\n€\n").0;
    for (input, named) in [
        (marked.clone().into_bytes(), None),
        (marked.clone().into_bytes(), Some(UTF_8)),
        (utf16(&marked, u16::to_le_bytes), None),
        (utf16(&marked, u16::to_be_bytes), None),
        (utf16(&marked, u16::to_be_bytes), Some(UTF_16LE)),
        (utf16(text, u16::to_le_bytes), Some(UTF_16LE)),
        (utf16(text, u16::to_be_bytes), Some(UTF_16BE)),
        (latin.into_owned(), Some(WINDOWS_1252)),
        (gzip(&utf16(&marked, u16::to_le_bytes)), None),
    ] {
        let options = InputOptions {
            encoding: named,
            ..InputOptions::new(InputFormat::Csv)
        };
        let rows = Outcome::of(&options, &input[..]).good();
        assert_eq!(rows[0], "2:user_id=ä-1");
        assert!(
            ["3:user_id=😀", "3:user_id=€"].contains(&rows[1].as_str()),
            "{rows:?}"
        );
        let slowly = Outcome::of(&options, BufReader::new(Slow(&input)));
        assert_eq!(slowly.good(), rows);
    }
}

#[test]
fn what_is_not_in_its_encoding_is_named_by_line_and_column() {
    let outcome = bytes(b"user_id\nu-1\n\xc3\xa9\xe9\n");
    assert_eq!(outcome.rows, ["2:user_id=u-1"]);
    let error = outcome.error();
    assert!(
        error.starts_with("line 3, column 2: not valid UTF-8; if it is written otherwise"),
        "{error}"
    );
    assert!(error.contains("--encoding"), "{error}");
    let json = Outcome::of(
        &InputOptions::new(InputFormat::Ndjson),
        &b"{\"a\":\"\xff\"}"[..],
    );
    assert!(
        json.error()
            .starts_with("line 1, column 7: not valid UTF-8"),
        "{json:?}"
    );
    let mut odd = utf16("\u{feff}user_id\nu-1\n", u16::to_le_bytes);
    odd.extend([0, 0xd8, b'x', 0]);
    assert_eq!(bytes(&odd).error(), "line 3, column 1: not valid UTF-16LE");
}

#[test]
fn rows_that_are_not_text_can_be_left_out() {
    let skip = |format| InputOptions {
        bad_rows: BadRows::Skip,
        ..InputOptions::new(format)
    };
    let outcome = Outcome::of(
        &skip(InputFormat::Csv),
        &b"user_id,x\n\xff,\nu-1,\xe9\nu-2,\n"[..],
    );
    assert_eq!(outcome.bad.len(), 2, "{outcome:?}");
    assert_eq!(outcome.good(), ["4:user_id=u-2"]);
    let input = &b"{\"a\":\"1\"}\n{\"a\":\"\xff\xfe\"}\n{\"a\":\"2\"}\n"[..];
    let outcome = Outcome::of(&skip(InputFormat::Ndjson), input);
    assert!(
        outcome.bad[0].starts_with("line 2, column 7: not valid UTF-8"),
        "{outcome:?}"
    );
    assert_eq!(outcome.good(), ["1:a=1", "3:a=2"]);
}

#[test]
fn a_mark_and_a_flag_that_differ_are_refused() {
    let options = InputOptions {
        encoding: Some(WINDOWS_1252),
        ..InputOptions::new(InputFormat::Csv)
    };
    assert_eq!(
        Outcome::of(&options, "\u{feff}user_id\n".as_bytes()).error(),
        "line 1: the byte-order mark says UTF-8, and --encoding says windows-1252: \
         leave --encoding out"
    );
}

#[test]
fn gzip_is_known_by_its_first_bytes_also_if_it_is_of_several_parts() {
    let parts = [gzip(b"user_id\nu-1\n"), gzip(b"u-2\n")].concat();
    assert_eq!(bytes(&parts).good(), ["2:user_id=u-1", "3:user_id=u-2"]);
    let mut cut = gzip(format!("user_id\n{}", "u-1\n".repeat(3)).as_bytes());
    cut.truncate(cut.len() - 9);
    let outcome = bytes(&cut);
    assert!(
        outcome
            .error()
            .contains("the file is damaged or not complete"),
        "{outcome:?}"
    );
}

/// So that a bar that goes by the file's length is true.
#[test]
fn progress_through_a_compressed_file_is_counted_as_it_lies_on_the_disk() {
    let rows: String = (0..50_000)
        .map(|row| format!("u-{}\n", row * 7919 % 50_000))
        .collect();
    let packed = gzip(format!("user_id\n{rows}").as_bytes());
    let mut ends = Vec::new();
    let options = InputOptions::new(InputFormat::Csv);
    let input = BufReader::new(&packed[..]);
    read(input, &options, &mut Findings::default(), |item| {
        ends.extend(item.row().map(|row| row.end));
        true
    })
    .unwrap();
    let length = u64::try_from(packed.len()).unwrap();
    assert!(ends.is_sorted() && ends[25_000] > length / 4 && ends[25_000] < length * 3 / 4);
    // The checksum and length at the end of gzip are read after the last row.
    assert_eq!(ends.last(), Some(&(length - 8)));
}

#[test]
fn what_is_no_text_is_named_with_the_way_out() {
    for (input, part) in [
        (
            &b"PK\x03\x04\x14"[..],
            "an Excel workbook (.xlsx): export it as CSV",
        ),
        (b"\xd0\xcf\x11\xe0\xa1", "an old Excel workbook"),
        (b"PAR1\x15", "Parquet"),
        (b"\xff\xfe\0\0u\0\0\0", "UTF-32"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd: decompress it first"),
        (b"u\0s\0e\0r\0", "UTF-16: say --encoding utf-16le"),
        (b"\0u\0s\0e\0r", "UTF-16: say --encoding utf-16be"),
        (b"user\0\0\0\0", "holds zero bytes"),
        (
            b"[{\"user_id\":1}]",
            "a JSON array: write one object a line",
        ),
        (b"{\"user_id\":1}", "JSON, not CSV: say --format ndjson"),
        (b" <!DOCTYPE html>", "a page of HTML"),
    ] {
        let error = bytes(input).error();
        assert!(
            error.starts_with("line 1: ") && error.contains(part),
            "{error}"
        );
    }
    let error = bytes(&gzip(&gzip(b"user_id\n"))).error();
    assert!(error.contains("gzip inside gzip"), "{error}");
    for (input, part) in [
        (
            "user_id,email\n",
            "no JSON object; if this is CSV, say --format csv",
        ),
        (
            "[\n{\"user_id\":\"a\"}\n]",
            "a JSON array: write one object a line",
        ),
    ] {
        let error = json(input).error();
        assert!(
            error.starts_with("line 1: ") && error.contains(part),
            "{error}"
        );
    }
    let pretty = json("{\n  \"user_id\": \"u-1\"\n}\n").error();
    assert!(
        pretty.contains("each object must stand on one line"),
        "{pretty}"
    );
}
