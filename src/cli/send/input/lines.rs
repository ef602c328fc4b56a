//! Line reader: lines of text with their numbers, up to a longest.

use super::{
    BadInput, ErrorExtent, MAX_ROW_BYTES,
    text::{MARK, Text, TextError},
};

pub(super) struct TextLines<'a> {
    text: Text<'a>,
    /// Lines read.
    number: u64,
    /// Whether the last line ended with CR: an LF after it is no line of its own.
    after_cr: bool,
}

/// A line without its end.
pub(super) struct TextLine {
    pub(super) number: u64,
    pub(super) text: String,
    /// Whether a byte-order mark precedes it, though it is not the first.
    pub(super) marked: bool,
}

impl<'a> TextLines<'a> {
    pub(super) fn new(text: Text<'a>) -> Self {
        Self {
            text,
            number: 0,
            after_cr: false,
        }
    }

    /// Bytes of the file taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.text.taken()
    }

    /// The next line that is not blank. Lines end with LF, CR or both.
    ///
    /// # Errors
    /// It is too long or no text.
    pub(super) fn next(&mut self) -> Result<Option<TextLine>, BadInput> {
        while let Some(raw) = self.read()? {
            let (marked, raw) = match raw.strip_prefix(MARK) {
                Some(rest) => (true, rest.to_vec()),
                None => (false, raw),
            };
            let text = String::from_utf8(raw).expect("the decoder writes UTF-8");
            if !text.trim().is_empty() {
                let number = self.number;
                return Ok(Some(TextLine {
                    number,
                    text,
                    marked,
                }));
            }
        }
        Ok(None)
    }

    /// Reads a line to its end even after an error, so that the next one can be read.
    fn read(&mut self) -> Result<Option<Vec<u8>>, BadInput> {
        self.number += 1;
        let mut line = Vec::new();
        let mut wrong = None;
        loop {
            match self.text.fill() {
                Ok([]) if line.is_empty() && wrong.is_none() => return Ok(None),
                Ok([]) => break,
                Ok([b'\n', ..]) if self.after_cr => {
                    self.after_cr = false;
                    self.text.consume(1);
                }
                Ok(chunk) => {
                    let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    let part = &chunk[..end.unwrap_or(chunk.len())];
                    line.extend_from_slice(part);
                    self.after_cr = end.is_some_and(|end| chunk[end] == b'\r');
                    let used = part.len() + usize::from(end.is_some());
                    self.text.consume(used);
                    if line.len() > MAX_ROW_BYTES {
                        line.clear();
                        let what = format!("longer than {MAX_ROW_BYTES} bytes");
                        wrong.get_or_insert_with(|| BadInput::row(self.number, None, what));
                    }
                    if end.is_some() {
                        break;
                    }
                }
                Err(error) => {
                    let bad = self.bad(error, &line);
                    if bad.extent == ErrorExtent::Rest {
                        return Err(bad);
                    }
                    wrong.get_or_insert(bad);
                }
            }
        }
        wrong.map_or(Ok(Some(line)), Err)
    }

    /// The input error after the beginning of a line.
    fn bad(&self, error: TextError, line: &[u8]) -> BadInput {
        let column = String::from_utf8_lossy(line).chars().count() + 1;
        let is_passed = matches!(error, TextError::Malformed);
        let what = self.text.describe(error);
        match is_passed {
            true => BadInput::row(self.number, Some(column), what),
            false => BadInput::rest(self.number, None, what),
        }
    }
}
