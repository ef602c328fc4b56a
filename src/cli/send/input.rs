//! Input parser: from a file or standard input to rows, or to the position of an error.
//!
//! ```text
//!  bytes ─▶ text      decompressed, decoded, UTF-8 from here on
//!           records   CSV: split into cells         lines, json   NDJSON: split into members
//!           columns   what each name is for: an identifier, the operation, nothing
//!           values    what stands for no value
//!        ─▶ rows
//! ```
//!
//! Nothing is guessed in silence. Where a guess could turn a removal into an addition, or give a
//! member another key, the file is refused, and the message names the flag that decides. Columns
//! that are not mapped do not matter, and are not sent.

use std::{fmt, io::BufRead};

use encoding_rs::Encoding;

use super::window::InputRow;
use crate::pb::{IdentifierRecord, identifier_record::Operation};

mod columns;
mod csv;
mod findings;
mod json;
mod lines;
mod ndjson;
mod records;
mod sniff;
#[cfg(test)]
mod tests;
mod text;
mod values;

pub(crate) use columns::alike;
pub(crate) use findings::Findings;
pub(crate) use values::NULLS;

/// Most bytes that are sent of one row. A context key has at most 1 KiB; with this, a whole
/// window of rows fits in memory.
const MAX_KEPT_BYTES: usize = 64 * 1024;
/// Longest row. Ours: longer than any real one. It finds an unclosed quote even in an endless
/// input.
const MAX_ROW_BYTES: usize = 8 * 1024 * 1024;

/// How the input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum InputFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// What to do with a malformed row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BadRows {
    /// Stop there.
    Stop,
    /// Leave it out, and go on.
    Skip,
}

/// The options of an input.
#[derive(Debug, Clone)]
pub(crate) struct InputOptions {
    /// The format.
    pub format: InputFormat,
    /// The delimiter of CSV.
    pub delimiter: Option<u8>,
    /// The delimiter by default, if neither a flag nor the file names one.
    pub usual_delimiter: u8,
    /// The encoding of a file without a byte-order mark; UTF-8 by default.
    pub encoding: Option<&'static Encoding>,
    /// The operation of records that name none.
    pub operation: Operation,
    /// The column or member of the operation, if not `operation`.
    pub operation_column: Option<String>,
    /// Columns or members to ignore.
    pub ignored_columns: Vec<String>,
    /// Null values, regardless of case and outer blanks.
    pub nulls: Vec<String>,
    /// The mapping's identifiers, in order; no others are sent. If the mapping is not known, the
    /// list is empty and all are sent.
    pub mapped: Vec<String>,
    /// What to do with malformed rows.
    pub bad_rows: BadRows,
}

impl InputOptions {
    /// The options of a plain file.
    pub(crate) fn new(format: InputFormat) -> Self {
        Self {
            format,
            delimiter: None,
            usual_delimiter: b',',
            encoding: None,
            operation: Operation::Add,
            operation_column: None,
            ignored_columns: Vec::new(),
            nulls: NULLS.iter().map(|null| (*null).to_owned()).collect(),
            mapped: Vec::new(),
            bad_rows: BadRows::Stop,
        }
    }
}

/// An item read from an input.
#[derive(Debug)]
pub(crate) enum InputItem {
    /// A row to send.
    Row(InputRow),
    /// A malformed row that is skipped.
    Bad(BadInput),
    /// A warning to print at once.
    Note(String),
}

/// The extent of an input error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorExtent {
    /// This row alone: the next one can be read.
    Row,
    /// The rest of the input.
    Rest,
}

/// An input error and its position. It holds no value of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct BadInput {
    /// Line, from 1.
    pub line: u64,
    /// Character in that line, from 1, where it can be told.
    pub column: Option<usize>,
    /// What is wrong.
    pub what: String,
    /// Its extent.
    pub extent: ErrorExtent,
}

impl BadInput {
    fn row(line: u64, column: Option<usize>, what: impl Into<String>) -> Self {
        Self {
            line,
            column,
            what: what.into(),
            extent: ErrorExtent::Row,
        }
    }

    fn rest(line: u64, column: Option<usize>, what: impl Into<String>) -> Self {
        Self {
            extent: ErrorExtent::Rest,
            ..Self::row(line, column, what)
        }
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Reads rows until the end or the first error, and gives each to `take`, until that returns no
/// more.
///
/// # Errors
/// The first error; the rows before it have been given. A skipped row is no error.
pub(crate) fn read(
    input: impl BufRead + Send,
    options: &InputOptions,
    findings: &mut Findings,
    mut take: impl FnMut(InputItem) -> bool,
) -> Result<(), BadInput> {
    let mut rows = Rows::open(input, options)?;
    if let Some(note) = rows.note(options)
        && !take(InputItem::Note(note))
    {
        return Ok(());
    }
    loop {
        let item = match rows.next(findings) {
            Ok(Some(row)) => InputItem::Row(row),
            Ok(None) => return Ok(()),
            Err(bad) if bad.extent == ErrorExtent::Row && options.bad_rows == BadRows::Skip => {
                InputItem::Bad(bad)
            }
            Err(bad) => return Err(bad),
        };
        if !take(item) {
            return Ok(());
        }
    }
}

/// The likely format of an input without a named format: a sentence with the flag to set.
pub(crate) fn looks_like(
    input: impl BufRead + Send,
    encoding: Option<&'static Encoding>,
) -> String {
    match text::Text::open(input, encoding) {
        Ok(mut text) => sniff::format(text.peek(1)).into(),
        Err(wrong) => wrong.what,
    }
}

enum Rows<'a> {
    Csv(csv::CsvReader<'a>),
    Ndjson(ndjson::NdjsonReader<'a>),
}

impl<'a> Rows<'a> {
    fn open(input: impl BufRead + Send + 'a, options: &InputOptions) -> Result<Self, BadInput> {
        let mut text = text::Text::open(input, options.encoding)?;
        if let Some(what) = sniff::other_format(options.format, text.peek(1)) {
            return Err(BadInput::rest(1, None, what));
        }
        match options.format {
            InputFormat::Csv => csv::CsvReader::open(text, options).map(Self::Csv),
            InputFormat::Ndjson => Ok(Self::Ndjson(ndjson::NdjsonReader::new(text, options))),
        }
    }

    fn note(&self, options: &InputOptions) -> Option<String> {
        match self {
            Self::Csv(reader) => reader.note(options),
            Self::Ndjson(_) => None,
        }
    }

    fn next(&mut self, findings: &mut Findings) -> Result<Option<InputRow>, BadInput> {
        match self {
            Self::Csv(reader) => reader.next(findings),
            Self::Ndjson(reader) => reader.next(findings),
        }
    }
}

/// Parses an operation; blank is the default. No other word is accepted: a wrong guess would do the
/// opposite.
fn operation(column: &str, text: &str, default: Operation) -> Result<Operation, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" => Ok(default),
        "add" => Ok(Operation::Add),
        "remove" => Ok(Operation::Remove),
        _ => Err(format!(
            "the value of {} is neither add nor remove, and no other word is understood",
            columns::shown(column)
        )),
    }
}

fn record(identifiers: Vec<(String, String)>, operation: Operation) -> IdentifierRecord {
    IdentifierRecord {
        identifiers: identifiers.into_iter().collect(),
        operation: operation.into(),
    }
}
