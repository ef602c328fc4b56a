//! NDJSON: one JSON object a line, empty lines skipped.
//!
//! One rule: an object with a member `identifiers` holds the identifiers there, and may hold
//! `operation` beside it and nothing else. Any other object is flat: `operation` says what to do,
//! and each further member is an identifier. An identifier's value is a string, or a whole number,
//! which is written in digits; `null` is an absent identifier.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::{BadInput, OPERATION, Settings, lines::Lines, operation, record};
use crate::{cli::send::window::Row, pb::IdentifierRecord, pb::identifier_record::Operation};

const IDENTIFIERS: &str = "identifiers";

pub(super) struct Reader<R> {
    lines: Lines<R>,
    operation: Operation,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(lines: Lines<R>, settings: &Settings) -> Self {
        Self {
            lines,
            operation: settings.operation,
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Row>, BadInput> {
        let Some(line) = self.lines.next_filled()? else {
            return Ok(None);
        };
        let object: Map<String, Value> = serde_json::from_str(&line).map_err(|error| {
            let said = error.to_string();
            let what = said.split(" at line ").next().unwrap_or_default();
            self.lines
                .wrong(Some(error.column()), format!("not one JSON object: {what}"))
        })?;
        let record = read(object, self.operation).map_err(|what| self.lines.wrong(None, what))?;
        Ok(Some(Row {
            line: self.lines.number,
            end: self.lines.bytes,
            record,
        }))
    }
}

fn read(mut object: Map<String, Value>, default: Operation) -> Result<IdentifierRecord, String> {
    let wanted = match object.remove(OPERATION) {
        None | Some(Value::Null) => default,
        Some(Value::String(text)) => operation(&text, default)?,
        Some(_) => return Err(format!("{OPERATION} is not a string")),
    };
    let members = match object.remove(IDENTIFIERS) {
        None => object,
        Some(Value::Object(identifiers)) if object.is_empty() => identifiers,
        Some(Value::Object(_)) => {
            let others: Vec<_> = object.keys().map(String::as_str).collect();
            return Err(format!(
                "beside {IDENTIFIERS} there is {}",
                others.join(", ")
            ));
        }
        Some(_) => return Err(format!("{IDENTIFIERS} is not an object")),
    };
    let identifiers = members.into_iter().filter_map(|(name, value)| {
        let value = identifier(value).transpose()?;
        Some(value.map(|value| (name.clone(), value)).map_err(|kind| {
            format!("the identifier {name} is {kind}; it must be a string or a whole number")
        }))
    });
    Ok(record(identifiers.collect::<Result<Vec<_>, _>>()?, wanted))
}

fn identifier(value: Value) -> Result<Option<String>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
        Value::Number(_) => Err("a fraction, or larger than 64 bits"),
        Value::Bool(_) => Err("true or false"),
        Value::Array(_) => Err("a list"),
        Value::Object(_) => Err("an object"),
    }
}
