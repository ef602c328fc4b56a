//! Lines of text, with their numbers, and within bounds.

use std::io::{BufRead, Read};

use super::BadInput;

/// Longest row. A context key has at most 1 KiB; with this, a whole window of rows fits in memory,
/// and a quote that nobody closes does not swallow the file.
pub(super) const MAX_ROW_BYTES: usize = 64 * 1024;

const BYTE_ORDER_MARK: char = '\u{feff}';

pub(super) struct Lines<R> {
    input: R,
    /// Lines read.
    pub(super) number: u64,
    /// Bytes read.
    pub(super) bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self {
            input,
            number: 0,
            bytes: 0,
        }
    }

    /// The next line without its end (`\n` or `\r\n`).
    pub(super) fn next(&mut self) -> Result<Option<String>, BadInput> {
        let mut raw = Vec::new();
        self.number += 1;
        let most = u64::try_from(MAX_ROW_BYTES).unwrap_or(u64::MAX) + 2;
        let read = self.input.by_ref().take(most).read_until(b'\n', &mut raw);
        let read = read.map_err(|error| self.wrong(None, format!("cannot be read: {error}")))?;
        if read == 0 {
            return Ok(None);
        }
        self.bytes += u64::try_from(read).unwrap_or(u64::MAX);
        strip_end(&mut raw);
        if raw.len() > MAX_ROW_BYTES {
            return Err(self.wrong(None, format!("longer than {MAX_ROW_BYTES} bytes")));
        }
        self.text(raw).map(Some)
    }

    /// Like [`next`](Self::next), without lines that are empty.
    pub(super) fn next_filled(&mut self) -> Result<Option<String>, BadInput> {
        loop {
            match self.next()? {
                Some(line) if line.is_empty() => {}
                line => return Ok(line),
            }
        }
    }

    /// Something is wrong in the line read last.
    pub(super) fn wrong(&self, column: Option<usize>, what: impl Into<String>) -> BadInput {
        BadInput {
            line: self.number,
            column,
            what: what.into(),
        }
    }

    fn text(&self, raw: Vec<u8>) -> Result<String, BadInput> {
        let mut text = String::from_utf8(raw).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
            self.wrong(Some(before.chars().count() + 1), "not valid UTF-8")
        })?;
        if self.number == 1 && text.starts_with(BYTE_ORDER_MARK) {
            text.remove(0);
        }
        Ok(text)
    }
}

fn strip_end(raw: &mut Vec<u8>) {
    if raw.last() == Some(&b'\n') {
        raw.pop();
        if raw.last() == Some(&b'\r') {
            raw.pop();
        }
    }
}
