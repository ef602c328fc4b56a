//! CSV (RFC 4180), strictly: a broken quote is named with its place.
//!
//! Not the `csv` crate: it forgives a quote in the middle of a value and one that is never closed,
//! and so would make one value of the rest of the file.

use std::{collections::HashSet, io::BufRead};

use super::{
    BadInput, OPERATION, Settings,
    lines::{Lines, MAX_ROW_BYTES},
    operation, record,
};
use crate::{cli::send::window::Row, pb::identifier_record::Operation};

pub(super) struct Reader<R> {
    lines: Lines<R>,
    header: Vec<String>,
    operation: Operation,
}

impl<R: BufRead> Reader<R> {
    /// Reads and checks the header.
    pub(super) fn open(mut lines: Lines<R>, settings: &Settings) -> Result<Self, BadInput> {
        let names = values(&mut lines)?.map_or_else(Vec::new, |line| line.values);
        let header: Vec<_> = names.iter().map(|name| name.trim().to_owned()).collect();
        check_header(&header, &settings.mapped).map_err(|what| lines.wrong(None, what))?;
        Ok(Self {
            lines,
            header,
            operation: settings.operation,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, BadInput> {
        let Some(Values { line, values }) = values(&mut self.lines)? else {
            return Ok(None);
        };
        let wrong = |what| BadInput {
            line,
            column: None,
            what,
        };
        let (given, named) = (values.len(), self.header.len());
        if given != named {
            return Err(wrong(format!(
                "{given} values, where the header names {named}"
            )));
        }
        let mut wanted = self.operation;
        let mut identifiers = Vec::with_capacity(named);
        for (name, value) in self.header.iter().zip(values) {
            if name == OPERATION {
                wanted = operation(&value, self.operation).map_err(wrong)?;
            } else if !value.is_empty() {
                identifiers.push((name.clone(), value));
            }
        }
        Ok(Some(Row {
            line,
            end: self.lines.bytes,
            record: record(identifiers, wanted),
        }))
    }
}

/// A header without a single mapped identifier would make every record fail: better said before.
fn check_header(header: &[String], mapped: &[String]) -> Result<(), String> {
    let identifiers: Vec<_> = header.iter().filter(|name| *name != OPERATION).collect();
    if identifiers.is_empty() {
        return Err("the first line must name the identifiers, such as user_id,email".into());
    }
    if header.iter().any(String::is_empty) {
        return Err("the header has a column without a name".into());
    }
    let mut seen = HashSet::new();
    if let Some(twice) = header.iter().find(|name| !seen.insert(*name)) {
        return Err(format!("the header names {twice} twice"));
    }
    if !mapped.is_empty() && !mapped.iter().any(|name| seen.contains(name)) {
        return Err(format!(
            "the header names none of the mapped identifiers: it has {}, and mapped are {}",
            header.join(", "),
            mapped.join(", ")
        ));
    }
    Ok(())
}

/// The values of one row, which may run over several lines, and the first of these.
struct Values {
    line: u64,
    values: Vec<String>,
}

fn values(lines: &mut Lines<impl BufRead>) -> Result<Option<Values>, BadInput> {
    let Some(text) = lines.next_filled()? else {
        return Ok(None);
    };
    let line = lines.number;
    let mut cursor = Cursor { text, at: 0 };
    let mut values = Vec::new();
    loop {
        let value = match cursor.next_is('"') {
            true => quoted(&mut cursor, lines)?,
            false => plain(&mut cursor, lines)?,
        };
        values.push(value);
        if !cursor.next_is(',') {
            return Ok(Some(Values { line, values }));
        }
        cursor.at += 1;
    }
}

fn plain(cursor: &mut Cursor, lines: &Lines<impl BufRead>) -> Result<String, BadInput> {
    let rest = cursor.rest();
    let value = rest[..rest.find(',').unwrap_or(rest.len())].to_owned();
    if let Some(quote) = value.find('"') {
        cursor.at += quote;
        let what = "a quote inside a value; put the whole value in quotes, and double this one";
        return Err(lines.wrong(cursor.column(), what));
    }
    cursor.at += value.len();
    Ok(value)
}

fn quoted(cursor: &mut Cursor, lines: &mut Lines<impl BufRead>) -> Result<String, BadInput> {
    let unclosed = lines.wrong(cursor.column(), "this quote is never closed");
    cursor.at += 1;
    let mut value = String::new();
    loop {
        let rest = cursor.rest();
        let Some(quote) = rest.find('"') else {
            value.push_str(rest);
            value.push('\n');
            match lines.next()? {
                Some(text) if value.len() <= MAX_ROW_BYTES => *cursor = Cursor { text, at: 0 },
                _ => return Err(unclosed),
            }
            continue;
        };
        value.push_str(&rest[..quote]);
        cursor.at += quote + 1;
        if !cursor.next_is('"') {
            break;
        }
        value.push('"');
        cursor.at += 1;
    }
    if cursor.rest().is_empty() || cursor.next_is(',') {
        return Ok(value);
    }
    Err(lines.wrong(cursor.column(), "text after a closing quote"))
}

/// A place in a line.
struct Cursor {
    text: String,
    at: usize,
}

impl Cursor {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn next_is(&self, letter: char) -> bool {
        self.rest().starts_with(letter)
    }

    fn column(&self) -> Option<usize> {
        Some(self.text[..self.at].chars().count() + 1)
    }
}
