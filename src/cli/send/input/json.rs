//! JSON parser of one line: it returns duplicate members too, of which a map would hold the last
//! alone.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON value, as far as identifiers need it.
#[derive(Debug)]
pub(super) enum Node {
    Null,
    Truth,
    /// A number without a fraction, in digits.
    Whole(String),
    /// Any other number.
    Fraction,
    Text(String),
    /// A list; its elements are dropped.
    List,
    /// An object with its members; none below the needed depth.
    Object(Vec<(String, Node)>),
}

/// Depth of objects that are needed: identifiers are in the object, or in one inside it.
const DEPTH: usize = 2;

/// Reads one value.
///
/// # Errors
/// It is not JSON, or not one value alone.
pub(super) fn read(text: &str) -> serde_json::Result<Node> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let node = Within(DEPTH).deserialize(&mut reader)?;
    reader.end()?;
    Ok(node)
}

impl Node {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Truth => "true or false",
            Self::Whole(_) => "a number",
            Self::Fraction => "a fraction, or larger than 64 bits",
            Self::Text(_) => "a string",
            Self::List => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads a value, and nested objects down to a depth.
#[derive(Clone, Copy)]
struct Within(usize);

impl<'de> DeserializeSeed<'de> for Within {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Node, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Within {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Node, E> {
        Ok(Node::Truth)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Node, E> {
        Ok(Node::Whole(number.to_string()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Node, E> {
        Ok(Node::Whole(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Node, E> {
        Ok(Node::Fraction)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::List)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        let Some(inside) = self.0.checked_sub(1) else {
            while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Node::Object(members));
        };
        while let Some(name) = object.next_key::<String>()? {
            members.push((name, object.next_value_seed(Within(inside))?));
        }
        Ok(Node::Object(members))
    }
}
