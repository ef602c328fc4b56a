//! From a file or standard input to records, or to the place where the input is wrong.
//!
//! Two formats. CSV (RFC 4180): the header names the identifiers; a column `operation` holds `add`
//! or `remove`; an empty cell is an absent identifier; empty lines are skipped. NDJSON: see
//! [`ndjson`]. Both take a byte-order mark and Windows line ends.

use std::{fmt, io::BufRead};

use super::window::Row;
use crate::pb::{IdentifierRecord, identifier_record::Operation};

pub(crate) mod csv;
mod lines;
pub(crate) mod ndjson;
#[cfg(test)]
mod tests;

use lines::Lines;

/// Name of the column or member that says what to do with a record.
const OPERATION: &str = "operation";

/// How the input is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// What there is to know about an input before it is read.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// How it is written.
    pub format: Format,
    /// What to do with records that do not say.
    pub operation: Operation,
    /// Identifiers of which a CSV header must name at least one; empty for any.
    pub mapped: Vec<String>,
}

/// Where the input is wrong, and how.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct BadInput {
    /// Line, from 1.
    pub line: u64,
    /// Character in that line, from 1, where it can be told.
    pub column: Option<usize>,
    /// What is wrong.
    pub what: String,
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

/// Reads rows until the end or the first thing that is wrong, and gives each to `take`, until that
/// wants no more.
///
/// # Errors
/// The first thing that is wrong; the rows before it have been given.
pub(crate) fn read(
    input: impl BufRead,
    settings: &Settings,
    mut take: impl FnMut(Row) -> bool,
) -> Result<(), BadInput> {
    let mut rows = Rows::open(input, settings)?;
    while let Some(row) = rows.next()? {
        if !take(row) {
            break;
        }
    }
    Ok(())
}

enum Rows<R> {
    Csv(csv::Reader<R>),
    Ndjson(ndjson::Reader<R>),
}

impl<R: BufRead> Rows<R> {
    fn open(input: R, settings: &Settings) -> Result<Self, BadInput> {
        let lines = Lines::new(input);
        match settings.format {
            Format::Csv => csv::Reader::open(lines, settings).map(Self::Csv),
            Format::Ndjson => Ok(Self::Ndjson(ndjson::Reader::new(lines, settings))),
        }
    }

    fn next(&mut self) -> Result<Option<Row>, BadInput> {
        match self {
            Self::Csv(reader) => reader.next(),
            Self::Ndjson(reader) => reader.next(),
        }
    }
}

/// Reads what to do with a record; blank is the default.
fn operation(text: &str, default: Operation) -> Result<Operation, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" => Ok(default),
        "add" => Ok(Operation::Add),
        "remove" => Ok(Operation::Remove),
        _ => Err(format!("the operation `{text}` is neither add nor remove")),
    }
}

fn record(identifiers: Vec<(String, String)>, operation: Operation) -> IdentifierRecord {
    IdentifierRecord {
        identifiers: identifiers.into_iter().collect(),
        operation: operation.into(),
    }
}
