//! Strict CSV tokenizer (RFC 4180): text to records of cells. An error names the position of a
//! broken quote.
//!
//! Not the `csv` crate, nor `csv-core` below it: they forgive a quote in the middle of a value,
//! text after a closing quote, and a quote that is never closed, and so would make one value of the
//! rest of the file. They also count lines by LF alone. A check beside them would have to know at
//! each byte whether it is in quotes, which is the whole of the work. This automaton also finds the
//! positions, and stores nothing of the cells that are not needed, however long they are. Property
//! tests compare it with the `csv` crate on well-formed files.

use super::{
    BadInput, MAX_KEPT_BYTES, MAX_ROW_BYTES,
    text::{MARK, Text, TextError},
};

/// Replaces bytes that are no text, in a record that is refused for them. Never a delimiter.
const NO_TEXT: u8 = 0x7f;

/// Splits text into records.
pub(super) struct CsvRecords<'a> {
    pub(super) text: Text<'a>,
    delimiter: u8,
    place: TextPosition,
}

/// One record, which may span several lines.
#[derive(Debug, Default)]
pub(super) struct CsvRecord {
    /// Its first line.
    pub(super) line: u64,
    /// The cells; of a cell that is not needed, the beginning.
    pub(super) cells: Vec<String>,
    /// How many cells there are.
    pub(super) count: usize,
    /// Whether a byte-order mark precedes it, though it is not the first.
    pub(super) marked: bool,
    /// Whether all cells are blank.
    blank: bool,
    bytes: usize,
    kept: usize,
    wrong: Option<BadInput>,
}

/// Longest header. Ours: more columns than a real file has.
const MAX_HEADER_BYTES: usize = 1024 * 1024;
/// Bytes that are stored of a cell that is not needed: enough to recognize a name.
const BEGINNING_BYTES: usize = 128;

/// Which cells are needed.
#[derive(Debug, Clone, Copy)]
pub(super) enum WantedColumns<'a> {
    All,
    These(&'a [bool]),
}

/// The state of the tokenizer before the next byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ParserState {
    /// Before the first byte of a cell.
    Start,
    /// In a cell without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// After a quote in a quoted cell: the closing one, or the first of an escaped pair.
    Closed,
}

/// The effect of a byte.
enum ParserStep {
    /// It belongs to the value.
    Keep,
    /// It is skipped.
    Move,
    EndCell,
    EndRecord,
    /// The rest cannot be parsed.
    Wrong(&'static str),
}

impl<'a> CsvRecords<'a> {
    pub(super) fn new(text: Text<'a>, delimiter: u8) -> Self {
        Self {
            text,
            delimiter,
            place: TextPosition::START,
        }
    }

    /// The next record that has anything but blanks and delimiters; records end with LF, CR or
    /// both.
    ///
    /// # Errors
    /// It is not well formed.
    pub(super) fn next(
        &mut self,
        wanted: WantedColumns<'_>,
    ) -> Result<Option<CsvRecord>, BadInput> {
        while let Some(record) = self.read(wanted)? {
            match record.wrong {
                Some(wrong) => return Err(wrong),
                None if record.blank => {}
                None => return Ok(Some(record)),
            }
        }
        Ok(None)
    }

    /// Skips a line.
    pub(super) fn skip_line(&mut self) -> Result<(), BadInput> {
        while let Some(byte) = self.byte(&mut CsvRecord::new())? {
            self.place.pass(byte);
            if matches!(byte, b'\n' | b'\r') {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, wanted: WantedColumns<'_>) -> Result<Option<CsvRecord>, BadInput> {
        let mut record = CsvRecord::new();
        let mut cell = Vec::new();
        let mut state = ParserState::Start;
        let mut quote = self.place;
        while let Some(byte) = self.byte(&mut record)? {
            if record.is_new() && self.comes_before(byte, &mut record) {
                continue;
            }
            let (step, next) = step(state, byte, self.delimiter);
            if (state, next) == (ParserState::Start, ParserState::Quoted) {
                quote = self.place;
            }
            match step {
                ParserStep::Keep => record.keep(byte, wanted, &mut cell),
                ParserStep::Move => {}
                ParserStep::EndCell | ParserStep::EndRecord => record.end_cell(wanted, &mut cell),
                ParserStep::Wrong(what) => return Err(self.place.wrong(what)),
            }
            self.place.pass(byte);
            if let ParserStep::EndRecord = step {
                return Ok(Some(record));
            }
            state = next;
            record.bytes += 1;
            record.bound(wanted, state, quote)?;
        }
        if state == ParserState::Quoted {
            return Err(quote.wrong("this quote is never closed"));
        }
        if record.is_new() {
            return Ok(None);
        }
        record.end_cell(wanted, &mut cell);
        Ok(Some(record))
    }

    /// Skips empty lines and byte-order marks before a record.
    fn comes_before(&mut self, byte: u8, record: &mut CsvRecord) -> bool {
        if matches!(byte, b'\n' | b'\r') {
            self.place.pass(byte);
            return true;
        }
        record.line = self.place.line;
        let rest = &MARK[1..];
        // The decoder never splits the bytes of a character, so this does not wait.
        let is_mark = byte == MARK[0] && self.text.peek(rest.len()).starts_with(rest);
        if is_mark {
            self.text.consume(rest.len());
            record.marked = true;
        }
        is_mark
    }

    fn byte(&mut self, record: &mut CsvRecord) -> Result<Option<u8>, BadInput> {
        self.text.byte().or_else(|error| {
            let passes = matches!(error, TextError::Malformed);
            let what = self.text.describe(error);
            if !passes {
                return Err(BadInput::rest(self.place.line, None, what));
            }
            let column = Some(self.place.column + 1);
            let wrong = BadInput::row(self.place.line, column, what);
            record.wrong.get_or_insert(wrong);
            Ok(Some(NO_TEXT))
        })
    }
}

fn step(state: ParserState, byte: u8, delimiter: u8) -> (ParserStep, ParserState) {
    match (state, byte) {
        (ParserState::Quoted, b'"') => (ParserStep::Move, ParserState::Closed),
        (ParserState::Quoted, _) => (ParserStep::Keep, ParserState::Quoted),
        (ParserState::Closed, b'"') => (ParserStep::Keep, ParserState::Quoted),
        (_, byte) if byte == delimiter => (ParserStep::EndCell, ParserState::Start),
        (_, b'\n' | b'\r') => (ParserStep::EndRecord, ParserState::Start),
        (ParserState::Start, b'"') => (ParserStep::Move, ParserState::Quoted),
        (ParserState::Plain, b'"') => (
            ParserStep::Wrong(
                "a quote inside a value; put the whole value in quotes, and double this one",
            ),
            state,
        ),
        (ParserState::Closed, _) => (ParserStep::Wrong("text after a closing quote"), state),
        (ParserState::Start | ParserState::Plain, _) => (ParserStep::Keep, ParserState::Plain),
    }
}

impl CsvRecord {
    fn new() -> Self {
        Self {
            blank: true,
            ..Self::default()
        }
    }

    fn is_new(&self) -> bool {
        self.bytes == 0
    }

    fn keep(&mut self, byte: u8, wanted: WantedColumns<'_>, cell: &mut Vec<u8>) {
        self.blank &= byte.is_ascii_whitespace();
        match wanted {
            WantedColumns::All => cell.push(byte),
            WantedColumns::These(columns) => match columns.get(self.count) {
                Some(true) => {
                    self.kept += 1;
                    if self.kept <= MAX_KEPT_BYTES {
                        cell.push(byte);
                    }
                }
                Some(false) if cell.len() < BEGINNING_BYTES => cell.push(byte),
                Some(false) | None => {}
            },
        }
    }

    fn end_cell(&mut self, wanted: WantedColumns<'_>, cell: &mut Vec<u8>) {
        let is_named = match wanted {
            WantedColumns::All => true,
            WantedColumns::These(columns) => self.count < columns.len(),
        };
        if is_named {
            // Only a cell that is not needed, or is too long, may end within a character.
            let text = String::from_utf8(std::mem::take(cell))
                .unwrap_or_else(|cut| String::from_utf8_lossy(cut.as_bytes()).into_owned());
            self.cells.push(text);
        }
        self.count += 1;
    }

    /// Refuses a row that is too long. One without quotes ends with its line, and can be skipped.
    fn bound(
        &mut self,
        wanted: WantedColumns<'_>,
        state: ParserState,
        quote: TextPosition,
    ) -> Result<(), BadInput> {
        let longest = match wanted {
            WantedColumns::All => MAX_HEADER_BYTES,
            WantedColumns::These(_) => MAX_ROW_BYTES,
        };
        let what = if self.bytes > longest {
            format!("longer than {longest} bytes")
        } else if self.kept > MAX_KEPT_BYTES {
            format!("its identifiers are longer than {MAX_KEPT_BYTES} bytes in all")
        } else {
            return Ok(());
        };
        if self.bytes > longest && state == ParserState::Quoted {
            let what = format!("this quote is not closed within {longest} bytes");
            return Err(quote.wrong(what));
        }
        let line = self.line;
        self.wrong
            .get_or_insert_with(|| BadInput::row(line, None, what));
        Ok(())
    }
}

/// A position in the text.
#[derive(Debug, Clone, Copy)]
struct TextPosition {
    line: u64,
    /// Characters passed in this line.
    column: usize,
    /// The last byte was a CR: an LF behind it ends no further line.
    after_cr: bool,
}

impl TextPosition {
    const START: Self = Self {
        line: 1,
        column: 0,
        after_cr: false,
    };

    fn pass(&mut self, byte: u8) {
        let ends_line = byte == b'\r' || byte == b'\n' && !self.after_cr;
        self.after_cr = byte == b'\r';
        if ends_line {
            self.line += 1;
            self.column = 0;
        } else if byte != b'\n' && (byte & 0xc0) != 0x80 {
            self.column += 1;
        }
    }

    /// The next character is an error, and the rest cannot be parsed.
    fn wrong(self, what: impl Into<String>) -> BadInput {
        BadInput::rest(self.line, Some(self.column + 1), what.into())
    }
}
