//! A batch that is read where it stands in its message.
//!
//! prost would make a map and two strings of each record, of which mapping needs one value for a
//! moment. This reader makes nothing. It accepts, refuses and reads exactly what prost does; a property
//! holds it to that.

use std::fmt;

use bytes::Bytes;
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use smallvec::SmallVec;

/// Tags of `IdentifierBatch`, `IdentifierRecord` and the entries of `identifiers`.
const FIRST_SEQUENCE: u32 = 1;
const RECORDS: u32 = 2;
const IDENTIFIERS: u32 = 1;
const OPERATION: u32 = 2;
const NAME: u32 = 1;
const VALUE: u32 = 2;

/// An encoded `IdentifierBatch`. A message that holds the field more than once means the parts joined.
pub struct EncodedBatch(pub Vec<Bytes>);

/// What a batch holds, in order.
#[derive(Clone, PartialEq, Eq)]
pub enum BatchField<'a> {
    /// The sequence of the first record; the last one in the batch counts.
    FirstSequence(i64),
    /// A record.
    Record(EncodedRecord<'a>),
}

/// A record.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct EncodedRecord<'a> {
    /// Names and values in order; of equal names the last one counts.
    pub identifiers: SmallVec<[(&'a str, &'a str); 4]>,
    /// The number of the operation.
    pub operation: i32,
}

/// A message that is not encoded as the contract has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// Not protobuf, or a field of another type.
    #[error("failed to decode Protobuf message: {0}")]
    Protobuf(#[from] DecodeError),
    /// A name or value that is not UTF-8.
    #[error("failed to decode Protobuf message: an identifier is not UTF-8")]
    Utf8,
    /// A field of another type.
    #[error("failed to decode Protobuf message: field {0} has another type")]
    Type(u32),
    /// It ends within a field.
    #[error("failed to decode Protobuf message: it ends within a field")]
    Truncated,
}

impl EncodedBatch {
    /// How long it is.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// Reads the batch. After an error there is nothing more.
    pub fn fields(&self) -> impl Iterator<Item = Result<BatchField<'_>, EncodingError>> {
        self.0.iter().flat_map(|part| {
            let mut reader = Reader(part);
            std::iter::from_fn(move || reader.batch_field().transpose())
        })
    }
}

/// Reads fields from the front of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn batch_field(&mut self) -> Result<Option<BatchField<'a>>, EncodingError> {
        while let Some((tag, wire_type)) = self.key()? {
            match tag {
                FIRST_SEQUENCE => {
                    let number = self.varint(tag, wire_type)?;
                    return Ok(Some(BatchField::FirstSequence(number.cast_signed())));
                }
                RECORDS => {
                    let record = Reader(self.delimited(tag, wire_type)?).record()?;
                    return Ok(Some(BatchField::Record(record)));
                }
                _ => self.skip(tag, wire_type)?,
            }
        }
        Ok(None)
    }

    fn record(mut self) -> Result<EncodedRecord<'a>, EncodingError> {
        let mut record = EncodedRecord::default();
        while let Some((tag, wire_type)) = self.key()? {
            match tag {
                // Of a map, prost does not look at the type.
                IDENTIFIERS => {
                    let entry = Reader(self.prefixed()?).identifier()?;
                    record.identifiers.push(entry);
                }
                #[expect(clippy::cast_possible_truncation, reason = "protobuf has it so")]
                OPERATION => record.operation = self.varint(tag, wire_type)? as i32,
                _ => self.skip(tag, wire_type)?,
            }
        }
        Ok(record)
    }

    fn identifier(mut self) -> Result<(&'a str, &'a str), EncodingError> {
        let (mut name, mut value) = ("", "");
        while let Some((tag, wire_type)) = self.key()? {
            match tag {
                NAME => name = self.text(tag, wire_type)?,
                VALUE => value = self.text(tag, wire_type)?,
                _ => self.skip(tag, wire_type)?,
            }
        }
        Ok((name, value))
    }

    fn key(&mut self) -> Result<Option<(u32, WireType)>, EncodingError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        Ok(Some(decode_key(&mut self.0)?))
    }

    fn varint(&mut self, tag: u32, wire_type: WireType) -> Result<u64, EncodingError> {
        if wire_type != WireType::Varint {
            return Err(EncodingError::Type(tag));
        }
        Ok(decode_varint(&mut self.0)?)
    }

    fn delimited(&mut self, tag: u32, wire_type: WireType) -> Result<&'a [u8], EncodingError> {
        if wire_type != WireType::LengthDelimited {
            return Err(EncodingError::Type(tag));
        }
        self.prefixed()
    }

    fn prefixed(&mut self) -> Result<&'a [u8], EncodingError> {
        let length = decode_varint(&mut self.0)?;
        let length = usize::try_from(length).map_err(|_| EncodingError::Truncated)?;
        let split = self.0.split_at_checked(length);
        let (field, rest) = split.ok_or(EncodingError::Truncated)?;
        self.0 = rest;
        Ok(field)
    }

    fn text(&mut self, tag: u32, wire_type: WireType) -> Result<&'a str, EncodingError> {
        let bytes = self.delimited(tag, wire_type)?;
        str::from_utf8(bytes).map_err(|_| EncodingError::Utf8)
    }

    fn skip(&mut self, tag: u32, wire_type: WireType) -> Result<(), EncodingError> {
        Ok(skip_field(
            wire_type,
            tag,
            &mut self.0,
            DecodeContext::default(),
        )?)
    }
}

// Identifiers must not be shown.

impl fmt::Debug for EncodedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncodedBatch([{} bytes redacted])", self.bytes())
    }
}

impl fmt::Debug for BatchField<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FirstSequence(first) => f.debug_tuple("FirstSequence").field(first).finish(),
            Self::Record(record) => f.debug_tuple("Record").field(record).finish(),
        }
    }
}

impl fmt::Debug for EncodedRecord<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedRecord")
            .field(
                "identifiers",
                &format_args!("[{} redacted]", self.identifiers.len()),
            )
            .field("operation", &self.operation)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::pb;

    /// What is read of a batch, as prost has it.
    fn read(parts: Vec<Vec<u8>>) -> Result<pb::IdentifierBatch, EncodingError> {
        let batch = EncodedBatch(parts.into_iter().map(Bytes::from).collect());
        let mut read = pb::IdentifierBatch::default();
        for field in batch.fields() {
            match field? {
                BatchField::FirstSequence(first) => read.first_sequence = Some(first),
                BatchField::Record(record) => read.records.push(pb::IdentifierRecord {
                    identifiers: record
                        .identifiers
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                        .collect(),
                    operation: record.operation,
                }),
            }
        }
        Ok(read)
    }

    fn records() -> impl Strategy<Value = Vec<pb::IdentifierRecord>> {
        let identifiers = prop::collection::hash_map("[a-zé]{0,3}", "[a-z😀]{0,4}", 0..6);
        let record = (identifiers, prop_oneof![0..4i32, any::<i32>()]);
        let record = record.prop_map(|(identifiers, operation)| pb::IdentifierRecord {
            identifiers,
            operation,
        });
        prop::collection::vec(record, 0..6)
    }

    fn batches() -> impl Strategy<Value = pb::IdentifierBatch> {
        let first_sequence = prop::option::of(any::<i64>());
        (first_sequence, records()).prop_map(|(first_sequence, records)| pb::IdentifierBatch {
            first_sequence,
            records,
        })
    }

    /// What is done to the bytes of a good batch.
    #[derive(Debug, Clone)]
    enum Damage {
        None,
        Cut(prop::sample::Index),
        Change(prop::sample::Index, u8),
        Insert(prop::sample::Index, Vec<u8>),
    }

    fn damage() -> impl Strategy<Value = Damage> {
        // A field that the contract does not have, a group, and a field in a type of its own.
        let strange: Vec<Vec<u8>> = vec![
            vec![0x7a, 2, b'x', b'y'],
            vec![0x1b, 0x1c],
            vec![0x08, 0x05],
            vec![0x0d, 1, 2, 3, 4],
            vec![0x12, 0],
        ];
        let bytes = prop_oneof![
            prop::sample::select(strange),
            prop::collection::vec(any::<u8>(), 1..4)
        ];
        prop_oneof![
            1 => Just(Damage::None),
            1 => any::<prop::sample::Index>().prop_map(Damage::Cut),
            4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Change(at, byte)),
            4 => (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        ]
    }

    fn damaged(mut bytes: Vec<u8>, damage: Damage) -> Vec<u8> {
        match damage {
            Damage::Cut(at) if !bytes.is_empty() => bytes.truncate(at.index(bytes.len())),
            Damage::Change(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            Damage::Insert(at, more) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, more);
            }
            Damage::None | Damage::Cut(_) | Damage::Change(..) => {}
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        /// The same is accepted, the same refused, and the same values are read.
        #[test]
        fn a_batch_is_read_as_prost_reads_it(batch in batches(), first in damage(), second in damage()) {
            let bytes = damaged(damaged(batch.encode_to_vec(), first), second);
            let expected = pb::IdentifierBatch::decode(&*bytes).ok();
            let ours = read(vec![bytes.clone()]);
            prop_assert_eq!(ours.as_ref().ok(), expected.as_ref(), "{:?}: {:?}", bytes, ours);
        }

        #[test]
        fn parts_of_a_batch_are_joined_as_prost_joins_them(one in batches(), other in batches()) {
            let mut joined = one.encode_to_vec();
            joined.extend(other.encode_to_vec());
            let expected = pb::IdentifierBatch::decode(&*joined).unwrap();
            let parts = vec![one.encode_to_vec(), other.encode_to_vec()];
            prop_assert_eq!(read(parts).unwrap(), expected);
        }
    }

    #[test]
    fn nothing_of_a_record_is_shown() {
        let record = pb::IdentifierRecord {
            identifiers: [("user_id".to_owned(), "canary".to_owned())].into(),
            operation: 1,
        };
        let batch = pb::IdentifierBatch {
            first_sequence: None,
            records: vec![record],
        };
        let encoded = EncodedBatch(vec![batch.encode_to_vec().into()]);
        let fields: Vec<_> = encoded.fields().collect();
        assert!(!format!("{encoded:?} {fields:?}").contains("canary"));
    }
}
