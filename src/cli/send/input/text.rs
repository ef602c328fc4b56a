//! Text decoder: it decompresses and decodes the bytes of an input.
//!
//! The file's own marks win: the first bytes of gzip, and the byte-order mark of an encoding.
//! Without a mark the text is UTF-8, or in the encoding that `--encoding` names. Other bytes are an
//! error; the encoding is never guessed.

use std::{
    io::{self, BufRead, BufReader, Cursor, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use flate2::bufread::MultiGzDecoder;

use super::{BadInput, sniff};

/// A byte-order mark, decoded.
pub(super) const MARK: &[u8] = "\u{feff}".as_bytes();
/// Enough bytes to recognize gzip, byte-order marks and most binary formats.
const MAGIC_BYTES: usize = 4;
/// Most bytes decoded at once. Ours.
const CHUNK_BYTES: usize = 16 * 1024;

/// Why the next byte of text cannot be read.
#[derive(Debug)]
pub(super) enum TextError {
    /// Bytes that are invalid in the encoding; the text continues after them.
    Malformed,
    /// Nothing more can be read.
    Io(io::Error),
}

/// UTF-8 text, decoded from any encoding.
pub(super) struct Text<'a> {
    input: Box<dyn BufRead + Send + 'a>,
    compressed: bool,
    /// Bytes of the file taken so far: the compressed ones, if it is compressed.
    taken: Arc<AtomicU64>,
    decoder: Decoder,
    /// Decoded text; the part before `at` is consumed.
    ready: Vec<u8>,
    at: usize,
    /// The error after the decoded text.
    error: Option<TextError>,
    ended: bool,
}

impl<'a> Text<'a> {
    /// Begins to read, and skips a byte-order mark.
    ///
    /// # Errors
    /// It is no text, or not in the encoding that was named.
    pub(super) fn open(
        input: impl BufRead + Send + 'a,
        named: Option<&'static Encoding>,
    ) -> Result<Self, BadInput> {
        let taken = Arc::<AtomicU64>::default();
        let mut input = Counted {
            input,
            taken: taken.clone(),
        };
        let start = beginning(&mut input)?;
        let compressed = start.starts_with(sniff::GZIP);
        let (mut start, input): (_, Box<dyn BufRead + Send + 'a>) = if compressed {
            let packed = Cursor::new(start).chain(input);
            let mut unpacked = BufReader::new(MultiGzDecoder::new(packed));
            (beginning(&mut unpacked)?, Box::new(unpacked))
        } else {
            (start, Box::new(input))
        };
        let (encoding, mark) = encoding(&start, named).map_err(at_the_start)?;
        start.drain(..mark);
        let mut text = Self {
            input: Box::new(Cursor::new(start).chain(input)),
            compressed,
            taken,
            decoder: encoding.new_decoder_without_bom_handling(),
            ready: Vec::new(),
            at: 0,
            error: None,
            ended: false,
        };
        while text.peek(MARK.len()).starts_with(MARK) {
            text.at += MARK.len();
        }
        Ok(text)
    }

    /// Bytes of the file taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// The decoded text; decodes more if there is none. Empty at the end.
    ///
    /// # Errors
    /// The bytes here are no text.
    pub(super) fn fill(&mut self) -> Result<&[u8], TextError> {
        while self.at == self.ready.len() {
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            if self.ended {
                break;
            }
            self.decode();
        }
        Ok(&self.ready[self.at..])
    }

    /// Consumes some of the decoded text.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// The next byte; nothing at the end.
    ///
    /// # Errors
    /// The bytes here are no text.
    pub(super) fn byte(&mut self) -> Result<Option<u8>, TextError> {
        let byte = match self.ready.get(self.at) {
            Some(byte) => Some(*byte),
            None => self.fill()?.first().copied(),
        };
        self.at += usize::from(byte.is_some());
        Ok(byte)
    }

    /// The next bytes: at least so many, or fewer before the end or an error.
    pub(super) fn peek(&mut self, bytes: usize) -> &[u8] {
        while self.ready.len() - self.at < bytes && self.error.is_none() && !self.ended {
            self.decode();
        }
        &self.ready[self.at..]
    }

    /// The error in words.
    pub(super) fn describe(&self, error: TextError) -> String {
        match error {
            TextError::Malformed if self.decoder.encoding() == UTF_8 => {
                "not valid UTF-8; if it is written otherwise, such as in windows-1252, say so with \
                 --encoding"
                    .into()
            }
            TextError::Malformed => format!("not valid {}", self.decoder.encoding().name()),
            TextError::Io(error) if self.compressed => {
                format!("cannot be decompressed; the file is damaged or not complete: {error}")
            }
            TextError::Io(error) => unreadable(&error),
        }
    }

    fn decode(&mut self) {
        self.ready.drain(..self.at);
        self.at = 0;
        let raw = match self.input.fill_buf() {
            Ok(raw) => &raw[..raw.len().min(CHUNK_BYTES)],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            Err(error) => {
                self.error = Some(TextError::Io(error));
                return;
            }
        };
        let last = raw.is_empty();
        let before = self.ready.len();
        let longest = self
            .decoder
            .max_utf8_buffer_length_without_replacement(raw.len());
        self.ready.resize(before + longest.unwrap_or(0), 0);
        let (result, read, written) =
            self.decoder
                .decode_to_utf8_without_replacement(raw, &mut self.ready[before..], last);
        self.ready.truncate(before + written);
        self.input.consume(read);
        match result {
            DecoderResult::Malformed(..) => self.error = Some(TextError::Malformed),
            DecoderResult::InputEmpty => self.ended = last,
            DecoderResult::OutputFull => {}
        }
    }
}

/// The encoding, and the length of its byte-order mark.
fn encoding(
    start: &[u8],
    named: Option<&'static Encoding>,
) -> Result<(&'static Encoding, usize), String> {
    if let Some(what) = sniff::not_text(start) {
        return Err(what);
    }
    if let Some((marked, mark)) = Encoding::for_bom(start) {
        let either_order = |encoding| encoding == UTF_16LE || encoding == UTF_16BE;
        return match named {
            Some(named) if named != marked && !(either_order(named) && either_order(marked)) => {
                Err(format!(
                    "the byte-order mark says {}, and --encoding says {}: leave --encoding out",
                    marked.name(),
                    named.name()
                ))
            }
            _ => Ok((marked, mark)),
        };
    }
    let encoding = named.unwrap_or(UTF_8);
    if !(encoding == UTF_16LE || encoding == UTF_16BE)
        && let Some(what) = sniff::zeros(start)
    {
        return Err(what);
    }
    Ok((encoding, 0))
}

/// Reads at least the magic bytes, if there are so many, and waits for no more: a pipe may be slow.
fn beginning(input: &mut impl BufRead) -> Result<Vec<u8>, BadInput> {
    let mut start = Vec::new();
    while start.len() < MAGIC_BYTES {
        let chunk = match input.fill_buf() {
            Ok([]) => break,
            Ok(chunk) => &chunk[..chunk.len().min(CHUNK_BYTES)],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(at_the_start(unreadable(&error))),
        };
        start.extend_from_slice(chunk);
        let taken = chunk.len();
        input.consume(taken);
    }
    Ok(start)
}

fn unreadable(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

fn at_the_start(what: String) -> BadInput {
    BadInput::rest(1, None, what)
}

/// Counts the bytes read from an input.
struct Counted<R> {
    input: R,
    taken: Arc<AtomicU64>,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.count(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.count(bytes);
        self.input.consume(bytes);
    }
}

impl<R> Counted<R> {
    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }
}
