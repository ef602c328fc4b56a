//! Format detection: what an unexpected input looks like, with the remedy.

use super::InputFormat;

/// The first bytes of gzip.
pub(super) const GZIP: &[u8] = &[0x1f, 0x8b];

/// First bytes of binary formats, and their names.
const BINARY: &[(&[u8], &str)] = &[
    (b"PK\x03\x04", "a zip archive or an Excel workbook (.xlsx)"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)"),
    (b"PAR1", "Parquet"),
    (b"Obj\x01", "Avro"),
    (b"ORC", "ORC"),
    (b"ARROW1", "Arrow"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"%PDF", "a PDF document"),
    (b"\xff\xfe\0\0", "UTF-32 text"),
    (b"\0\0\xfe\xff", "UTF-32 text"),
];

/// First bytes of other compressed formats, and the programs that decompress them.
const COMPRESSED: &[(&[u8], &str)] = &[
    (GZIP, "gzip inside gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\xfd7zXZ", "xz"),
    (b"BZh", "bzip2"),
    (b"7z\xbc\xaf", "7-Zip"),
];

/// The binary format of bytes that are not text.
pub(super) fn not_text(start: &[u8]) -> Option<String> {
    let among = |list: &[(&[u8], &'static str)]| {
        let found = list.iter().find(|(magic, _)| start.starts_with(magic));
        found.map(|(_, what)| *what)
    };
    among(BINARY)
        .map(|what| format!("this looks like {what}: export it as CSV or NDJSON in UTF-8"))
        .or_else(|| {
            among(COMPRESSED).map(|what| {
                format!("this looks like {what}: decompress it first, or compress it with gzip")
            })
        })
}

/// The likely encoding of bytes with zeros: text has them only in UTF-16, where in most languages
/// every second byte is zero.
pub(super) fn zeros(start: &[u8]) -> Option<String> {
    let first = start.iter().position(|byte| *byte == 0)?;
    let pairs = start.as_chunks::<2>().0;
    let is_utf16 = pairs.iter().all(|[a, b]| (*a == 0) != (*b == 0));
    Some(match (is_utf16, first % 2) {
        (true, 1) => "this looks like UTF-16: say --encoding utf-16le".into(),
        (true, _) => "this looks like UTF-16: say --encoding utf-16be".into(),
        (false, _) => "this holds zero bytes, so it is no text in UTF-8: export it as CSV or \
                       NDJSON in UTF-8, or say how it is written with --encoding"
            .into(),
    })
}

/// The likely format of a text that does not have the named one.
pub(super) fn other_format(format: InputFormat, start: &[u8]) -> Option<&'static str> {
    let first = start.trim_ascii_start().first()?;
    match (format, first) {
        (_, b'<') => Some("this looks like a page of HTML or XML, not like a file of records"),
        (_, b'[') => Some(
            "this looks like a JSON array: write one object a line and no brackets around them, \
             as `jq -c '.[]'` does, and say --format ndjson",
        ),
        (InputFormat::Csv, b'{') => Some("this looks like JSON, not CSV: say --format ndjson"),
        (InputFormat::Ndjson, b'{') => None,
        (InputFormat::Ndjson, _) => {
            Some("the first line is no JSON object; if this is CSV, say --format csv")
        }
        (InputFormat::Csv, _) => None,
    }
}

/// The message if the file name does not show the format.
pub(super) fn format(start: &[u8]) -> &'static str {
    match start.trim_ascii_start().first() {
        Some(b'{') => "it looks like NDJSON: say --format ndjson",
        Some(b'[' | b'<') => other_format(InputFormat::Csv, start).unwrap_or_default(),
        Some(_) => "if it is CSV, as it seems, say --format csv",
        None => "it is empty: say --format csv or --format ndjson",
    }
}
