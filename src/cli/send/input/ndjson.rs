//! NDJSON parser: one JSON object a line; blank lines are skipped.
//!
//! One rule: an object with a member `identifiers` holds the identifiers there, and may hold the
//! operation beside it. Any other object is flat: its members are the operation and the
//! identifiers. An identifier's value is a string, or a whole number, which is written in digits;
//! `null` is an absent identifier. A member that is not mapped may hold anything. No member that
//! matters may occur twice: one of the two would be lost.

use super::{
    BadInput, InputOptions, MAX_KEPT_BYTES,
    columns::{ColumnRole, Columns, alike, shown},
    findings::Findings,
    json::{self, Node},
    lines::{TextLine, TextLines},
    operation, record,
    text::Text,
    values::Values,
};
use crate::{cli::send::window::InputRow, pb::IdentifierRecord, pb::identifier_record::Operation};

const IDENTIFIERS: &str = "identifiers";

pub(super) struct NdjsonReader<'a> {
    lines: TextLines<'a>,
    columns: Columns,
    values: Values,
    operation: Operation,
}

/// What is wrong with an object: its values, or the names of its members.
enum Wrong {
    Object(String),
    Names(String),
}

/// The content of an object.
#[derive(Default)]
struct Members {
    operation: Option<Operation>,
    identifiers: Vec<(String, Node)>,
}

impl<'a> NdjsonReader<'a> {
    pub(super) fn new(text: Text<'a>, options: &InputOptions) -> Self {
        Self {
            lines: TextLines::new(text),
            columns: Columns::new(options),
            values: Values::new(options),
            operation: options.operation,
        }
    }

    pub(super) fn next(&mut self, findings: &mut Findings) -> Result<Option<InputRow>, BadInput> {
        let Some(line) = self.lines.next()? else {
            return Ok(None);
        };
        if line.marked {
            findings.marks.note(line.number);
        }
        let object = object(&line)?;
        let record = self.record(object, line.number, findings);
        let record = record.map_err(|wrong| match wrong {
            Wrong::Object(what) => BadInput::row(line.number, None, what),
            Wrong::Names(what) => BadInput::rest(line.number, None, what),
        })?;
        Ok(Some(InputRow {
            line: line.number,
            end: self.lines.taken(),
            record,
        }))
    }

    fn record(
        &self,
        object: Vec<(String, Node)>,
        line: u64,
        findings: &mut Findings,
    ) -> Result<IdentifierRecord, Wrong> {
        let members = self.members(object)?;
        let operation = match (members.operation, &self.columns.operation) {
            (Some(operation), _) => operation,
            (None, None) => self.operation,
            (None, Some(name)) => {
                let name = shown(name);
                return Err(Wrong::Object(format!(
                    "there is no member {name}, which --operation-column names"
                )));
            }
        };
        let mut identifiers = Vec::with_capacity(members.identifiers.len());
        for (name, node) in members.identifiers {
            let value = identifier(&name, node).map_err(Wrong::Object)?;
            let value = value.and_then(|value| self.values.present(value, line, findings));
            identifiers.extend(value.map(|value| (name, value)));
        }
        let bytes: usize = identifiers.iter().map(|(_, value)| value.len()).sum();
        if bytes > MAX_KEPT_BYTES {
            let what = format!("its identifiers are longer than {MAX_KEPT_BYTES} bytes in all");
            return Err(Wrong::Object(what));
        }
        Ok(record(identifiers, operation))
    }

    fn members(&self, object: Vec<(String, Node)>) -> Result<Members, Wrong> {
        let mut members = Members::default();
        let (wrapped, flat): (Vec<_>, Vec<_>) = object
            .into_iter()
            .partition(|(name, _)| name == IDENTIFIERS);
        let is_wrapped = !wrapped.is_empty();
        for (name, node) in flat {
            match self.role(&name)? {
                ColumnRole::Operation => self.set_operation(&mut members, &name, &node)?,
                ColumnRole::Identifier if is_wrapped => {
                    let what = format!("beside {IDENTIFIERS} there is {}", shown(&name));
                    return Err(Wrong::Object(what));
                }
                ColumnRole::Identifier => add(&mut members, name, node)?,
                ColumnRole::Unmapped | ColumnRole::Ignored => {}
            }
        }
        self.unwrap(wrapped, &mut members)?;
        Ok(members)
    }

    /// Takes the identifiers out of their own object.
    fn unwrap(&self, wrapped: Vec<(String, Node)>, members: &mut Members) -> Result<(), Wrong> {
        if wrapped.len() > 1 {
            return Err(twice(IDENTIFIERS));
        }
        for (_, node) in wrapped {
            let Node::Object(identifiers) = node else {
                return Err(Wrong::Object(format!("{IDENTIFIERS} is not an object")));
            };
            for (name, node) in identifiers {
                match self.role(&name)? {
                    ColumnRole::Operation => {
                        return Err(Wrong::Names(format!(
                            "{} stands inside {IDENTIFIERS}: put it beside them, or say \
                             --ignore-column if it does not matter",
                            shown(&name)
                        )));
                    }
                    ColumnRole::Identifier => add(members, name, node)?,
                    ColumnRole::Unmapped | ColumnRole::Ignored => {}
                }
            }
        }
        Ok(())
    }

    fn role(&self, name: &str) -> Result<ColumnRole, Wrong> {
        let role = self.columns.role(name).map_err(Wrong::Names)?;
        if alike(name, IDENTIFIERS) && role == ColumnRole::Unmapped {
            let what = format!("{} is not written {IDENTIFIERS}", shown(name));
            return Err(Wrong::Names(what));
        }
        Ok(role)
    }

    fn set_operation(&self, members: &mut Members, name: &str, node: &Node) -> Result<(), Wrong> {
        let wanted = match node {
            Node::Null => Ok(self.operation),
            Node::Text(text) => operation(name, text, self.operation),
            _ => Err(format!("{} is not a string", shown(name))),
        };
        let wanted = wanted.map_err(Wrong::Object)?;
        match members.operation.replace(wanted) {
            None => Ok(()),
            Some(_) => Err(twice(name)),
        }
    }
}

fn object(line: &TextLine) -> Result<Vec<(String, Node)>, BadInput> {
    let wrong = |column, what| BadInput::row(line.number, column, what);
    match json::read(&line.text) {
        Ok(Node::Object(members)) => Ok(members),
        Ok(other) => Err(wrong(
            None,
            format!("not a JSON object, but {}", other.kind()),
        )),
        Err(error) => {
            let said = error.to_string();
            let what = said.split(" at line ").next().unwrap_or_default();
            let before = line
                .text
                .as_bytes()
                .get(..error.column())
                .unwrap_or_default();
            let column = String::from_utf8_lossy(before).chars().count();
            let hint = match error.is_eof() {
                true => "; each object must stand on one line",
                false => "",
            };
            let what = format!("not one JSON object: {what}{hint}");
            Err(wrong(Some(column), what))
        }
    }
}

fn add(members: &mut Members, name: String, node: Node) -> Result<(), Wrong> {
    if members
        .identifiers
        .iter()
        .any(|(earlier, _)| *earlier == name)
    {
        return Err(twice(&name));
    }
    members.identifiers.push((name, node));
    Ok(())
}

fn twice(name: &str) -> Wrong {
    Wrong::Object(format!("{} comes twice", shown(name)))
}

fn identifier(name: &str, node: Node) -> Result<Option<String>, String> {
    match node {
        Node::Null => Ok(None),
        Node::Text(text) => Ok(Some(text)),
        Node::Whole(digits) => Ok(Some(digits)),
        Node::Fraction | Node::Truth | Node::List | Node::Object(_) => Err(format!(
            "the identifier {} is {}; it must be a string or a whole number",
            shown(name),
            node.kind()
        )),
    }
}
