//! CSV parser: records with a header to rows.

use super::{
    BadInput, ErrorExtent, InputOptions,
    columns::{ColumnRole, Columns, OPERATION, alike, listed, shown, trim},
    findings::Findings,
    operation, record,
    records::{CsvRecord, CsvRecords, WantedColumns},
    text::Text,
    values::Values,
};
use crate::{cli::send::window::InputRow, pb::identifier_record::Operation};

/// Delimiters that are recognized without a flag.
const DELIMITERS: &[char] = &[',', ';', '\t', '|'];

pub(super) struct CsvReader<'a> {
    records: CsvRecords<'a>,
    /// The name of each column.
    names: Vec<String>,
    /// What each column is for.
    roles: Vec<ColumnRole>,
    /// Which columns are needed.
    wanted: Vec<bool>,
    values: Values,
    operation: Operation,
}

impl<'a> CsvReader<'a> {
    /// Reads and checks the header.
    pub(super) fn open(mut text: Text<'a>, options: &InputOptions) -> Result<Self, BadInput> {
        let told = told_delimiter(text.peek(SEPARATOR.len() + 2));
        let delimiter = delimiter(told, options).map_err(|what| BadInput::rest(1, None, what))?;
        let mut records = CsvRecords::new(text, delimiter);
        if told.is_some() {
            records.skip_line()?;
        }
        let first = records.next(WantedColumns::All).map_err(|wrong| BadInput {
            extent: ErrorExtent::Rest,
            ..wrong
        })?;
        let first = first.unwrap_or_default();
        let header = Header::new(first.cells, options, delimiter);
        let wrong = |what| BadInput::rest(first.line.max(1), None, what);
        let roles = header.roles().map_err(wrong)?;
        let names = header.names.iter();
        Ok(Self {
            records,
            wanted: roles.iter().copied().map(is_used).collect(),
            roles,
            names: names.map(|name| header.name(name).to_owned()).collect(),
            values: Values::new(options),
            operation: options.operation,
        })
    }

    /// Warnings to print before rows are sent.
    pub(super) fn note(&self, options: &InputOptions) -> Option<String> {
        let has = |name: &&String| self.names.contains(name);
        let missing: Vec<_> = options
            .mapped
            .iter()
            .take_while(|name| !has(name))
            .cloned()
            .collect();
        let used = options.mapped.get(missing.len())?;
        (!missing.is_empty()).then(|| {
            format!(
                "the header has no column {}: the first identifier of each record is {}",
                listed(&missing),
                shown(used)
            )
        })
    }

    pub(super) fn next(&mut self, findings: &mut Findings) -> Result<Option<InputRow>, BadInput> {
        while let Some(record) = self.records.next(WantedColumns::These(&self.wanted))? {
            if self.is_header_again(&record)? {
                findings.headers.note(record.line);
                continue;
            }
            return self.row(record, findings).map(Some);
        }
        Ok(None)
    }

    fn row(&self, read: CsvRecord, findings: &mut Findings) -> Result<InputRow, BadInput> {
        let line = read.line;
        let wrong = |what| BadInput::row(line, None, what);
        if read.marked {
            return Err(wrong(
                "a byte-order mark begins this line: the file seems to be joined of several".into(),
            ));
        }
        let (given, named) = (read.count, self.names.len());
        if given != named {
            return Err(wrong(format!(
                "{given} values, where the header names {named}"
            )));
        }
        let mut wanted = self.operation;
        let mut identifiers = Vec::new();
        for ((role, name), value) in self.roles.iter().zip(&self.names).zip(read.cells) {
            match role {
                ColumnRole::Operation => {
                    wanted = operation(name, &value, self.operation).map_err(wrong)?;
                }
                ColumnRole::Identifier => {
                    let value = self.values.present(value, line, findings);
                    identifiers.extend(value.map(|value| (name.clone(), value)));
                }
                ColumnRole::Unmapped | ColumnRole::Ignored => {}
            }
        }
        Ok(InputRow {
            line,
            end: self.records.text.taken(),
            record: record(identifiers, wanted),
        })
    }

    /// Whether a record repeats the header, as in exports that were joined.
    fn is_header_again(&self, record: &CsvRecord) -> Result<bool, BadInput> {
        let names = || self.names.iter().zip(&self.wanted);
        let is_name = |cell: &String| self.names.iter().any(|name| alike(name, cell));
        let is_used = |cell: &String| names().any(|(name, used)| *used && alike(name, cell));
        let filled = || record.cells.iter().filter(|cell| !trim(cell).is_empty());
        let all_names = filled().count() > 1 && filled().all(is_name);
        let mut wanted = record.cells.iter().zip(&self.wanted);
        if !all_names && !wanted.any(|(cell, wanted)| *wanted && is_used(cell)) {
            return Ok(false);
        }
        let mut pairs = record.cells.iter().zip(names());
        let as_before = pairs.all(|(cell, (name, used))| !used || alike(name, cell));
        if as_before && record.count == self.names.len() {
            return Ok(true);
        }
        // The rows after it have other columns, and must not be read by the first header.
        Err(BadInput::rest(
            record.line,
            None,
            "this looks like another header, with other columns: send the files one by one",
        ))
    }
}

fn is_used(role: ColumnRole) -> bool {
    matches!(role, ColumnRole::Identifier | ColumnRole::Operation)
}

/// The line before the header in which spreadsheets name the delimiter.
const SEPARATOR: &[u8] = b"sep=";

fn told_delimiter(start: &[u8]) -> Option<u8> {
    match start.strip_prefix(SEPARATOR)? {
        [told, b'\r' | b'\n', ..] if told.is_ascii_punctuation() || *told == b'\t' => Some(*told),
        _ => None,
    }
}

fn delimiter(told: Option<u8>, options: &InputOptions) -> Result<u8, String> {
    match (told, options.delimiter) {
        (Some(told), Some(named)) if told != named => Err(format!(
            "the file says that its delimiter is {}, and --delimiter says {}: leave that out",
            show_delimiter(char::from(told)),
            show_delimiter(char::from(named))
        )),
        (told, named) => Ok(told.or(named).unwrap_or(options.usual_delimiter)),
    }
}

fn show_delimiter(delimiter: char) -> String {
    match delimiter {
        '\t' => "tab".into(),
        other => format!("'{}'", other.escape_debug()),
    }
}

/// A header to check.
struct Header {
    names: Vec<String>,
    columns: Columns,
    delimiter: char,
}

impl Header {
    fn new(names: Vec<String>, options: &InputOptions, delimiter: u8) -> Self {
        Self {
            names,
            columns: Columns::new(options),
            delimiter: char::from(delimiter),
        }
    }

    /// What each column is for.
    fn roles(&self) -> Result<Vec<ColumnRole>, String> {
        self.check_delimiter()?;
        let roles = self.names.iter().map(|name| self.columns.role(name));
        let roles = roles.collect::<Result<Vec<_>, _>>()?;
        self.check_names(&roles)?;
        self.check_operation(&roles)?;
        Ok(roles)
    }

    /// The columns that are needed, by their names without ignored blanks.
    fn used(&self, roles: &[ColumnRole]) -> Vec<(ColumnRole, String)> {
        let columns = roles.iter().zip(&self.names);
        let used = columns.filter(|(role, _)| is_used(**role));
        used.map(|(role, name)| (*role, self.name(name).to_owned()))
            .collect()
    }

    fn name<'n>(&self, name: &'n str) -> &'n str {
        if self.columns.is_mapped(name) {
            name
        } else {
            trim(name)
        }
    }

    /// Refuses a header without a known name: it may be split at the wrong delimiter.
    fn check_delimiter(&self) -> Result<(), String> {
        let known = self.names.iter().any(|name| self.columns.is_mapped(name));
        let one = self.names.len() == 1;
        if known || !(one || self.columns.know_mapping()) {
            return Ok(());
        }
        let count = |delimiter: char| {
            let names = self.names.iter();
            names
                .map(|name| name.matches(delimiter).count())
                .sum::<usize>()
        };
        let others = DELIMITERS.iter().filter(|other| **other != self.delimiter);
        match others.max_by_key(|other| count(**other)) {
            Some(other) if count(*other) > 0 => Err(format!(
                "the values seem to be delimited by {other}, not by {}: say --delimiter {other}",
                show_delimiter(self.delimiter),
                other = show_delimiter(*other),
            )),
            _ => Ok(()),
        }
    }

    /// Refuses a header without a mapped identifier: every record would fail.
    fn check_names(&self, roles: &[ColumnRole]) -> Result<(), String> {
        let used = self.used(roles);
        let identifiers: Vec<_> = used
            .iter()
            .filter(|(role, _)| *role == ColumnRole::Identifier)
            .collect();
        if identifiers.is_empty() {
            return Err(self.no_identifier());
        }
        if used.iter().any(|(_, name)| name.is_empty()) {
            return Err("the header has a column without a name".into());
        }
        let again = |at: &usize| used[..*at].iter().any(|(_, name)| *name == used[*at].1);
        match (0..used.len()).find(again) {
            Some(at) => Err(format!("the header names {} twice", shown(&used[at].1))),
            None => Ok(()),
        }
    }

    fn no_identifier(&self) -> String {
        if self.columns.know_mapping() && !self.names.is_empty() {
            format!(
                "the header names none of the mapped identifiers: it has {}, and mapped are {}",
                listed(&self.names),
                listed(&self.columns.mapped)
            )
        } else {
            "the first line must name the identifiers, such as user_id,email".into()
        }
    }

    fn check_operation(&self, roles: &[ColumnRole]) -> Result<(), String> {
        let named = self.columns.operation.as_deref();
        match (
            roles
                .iter()
                .filter(|role| **role == ColumnRole::Operation)
                .count(),
            named,
        ) {
            (0, Some(named)) => Err(format!(
                "the header has no column {}, which --operation-column names; it has {}",
                shown(named),
                listed(&self.names)
            )),
            (0 | 1, _) => Ok(()),
            (_, named) => Err(format!(
                "the header names {} twice",
                shown(named.unwrap_or(OPERATION))
            )),
        }
    }
}
