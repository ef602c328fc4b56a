//! Lines of text, with their numbers, and within bounds.

use super::{
    BadInput, MAX_ROW_BYTES,
    text::{MARK, Text, Trouble},
};

pub(super) struct Lines<'a> {
    text: Text<'a>,
    /// Lines read.
    number: u64,
    /// The last line ended with CR: an LF behind it is no line of its own.
    after_cr: bool,
}

/// A line without its end.
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: String,
    /// A byte-order mark stood before it, though it is not the first.
    pub(super) marked: bool,
}

impl<'a> Lines<'a> {
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
    pub(super) fn next(&mut self) -> Result<Option<Line>, BadInput> {
        while let Some(raw) = self.read()? {
            let (marked, raw) = match raw.strip_prefix(MARK) {
                Some(rest) => (true, rest.to_vec()),
                None => (false, raw),
            };
            let text = String::from_utf8(raw).expect("the decoder writes UTF-8");
            if !text.trim().is_empty() {
                let number = self.number;
                return Ok(Some(Line {
                    number,
                    text,
                    marked,
                }));
            }
        }
        Ok(None)
    }

    /// Reads a line to its end even if it is wrong, so that the next one can be read.
    fn read(&mut self) -> Result<Option<Vec<u8>>, BadInput> {
        let mut line = Vec::new();
        let mut wrong = None;
        self.number += 1;
        loop {
            let chunk = match self.text.fill() {
                Ok(chunk) => chunk,
                Err(trouble @ Trouble::Malformed) => {
                    let column = String::from_utf8_lossy(&line).chars().count() + 1;
                    let what = self.text.describe(trouble);
                    wrong.get_or_insert_with(|| BadInput::row(self.number, Some(column), what));
                    continue;
                }
                Err(trouble) => {
                    let what = self.text.describe(trouble);
                    return Err(BadInput::rest(self.number, None, what));
                }
            };
            if std::mem::take(&mut self.after_cr) && chunk.first() == Some(&b'\n') {
                self.text.consume(1);
                continue;
            }
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &chunk[..end.unwrap_or(chunk.len())];
            let used = part.len();
            let is_end = chunk.is_empty() || end.is_some();
            self.after_cr = end.is_some_and(|end| chunk[end] == b'\r');
            let at_end = chunk.is_empty();
            if line.len() + used <= MAX_ROW_BYTES {
                line.extend_from_slice(part);
            } else {
                let what = format!("longer than {MAX_ROW_BYTES} bytes");
                wrong.get_or_insert_with(|| BadInput::row(self.number, None, what));
            }
            self.text.consume(used + usize::from(end.is_some()));
            if is_end {
                return match wrong {
                    Some(wrong) => Err(wrong),
                    None if at_end && line.is_empty() => Ok(None),
                    None => Ok(Some(line)),
                };
            }
        }
    }
}
