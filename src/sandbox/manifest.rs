//! Manifests: how LaunchDarkly reads the segment-targets calls of a registered integration.
//!
//! A manifest says by JSON pointers where a request holds what, and in which of three ways it says
//! whether members go in or out.

mod parser;
mod template;
#[cfg(test)]
pub(super) mod tests;

use regex::bytes::Regex;
use serde_json::Value;

use super::{
    context::{USER, is_kind},
    segments::{Cohort, MemberChange, SegmentUpdate},
};

pub(super) use self::template::{ResponseValues, Template};

/// An integration that is registered with LaunchDarkly.
#[derive(Clone, Debug)]
pub struct Integration {
    /// The last part of the path that its calls go to, and the start of its segments' keys.
    pub key: String,
    /// How its calls are read.
    pub manifest: Manifest,
}

/// How an integration's calls are read and answered.
#[derive(Clone, Debug)]
pub struct Manifest {
    environment_id: Pointer,
    context_kind: Option<Pointer>,
    cohort_id: Pointer,
    cohort_name: Pointer,
    membership: Membership,
    member: MemberParser,
    /// The body of the responses; none if they have none.
    response: Option<Template>,
}

/// How a request says whether its members go in or out.
#[derive(Clone, Debug)]
enum Membership {
    /// One list, and one word for all of it.
    Word {
        list: Pointer,
        word: Pointer,
        /// The words that add; every other one removes.
        adds: Regex,
    },
    /// One list, in which each member has a boolean.
    Boolean { list: Pointer, is_in: Pointer },
    /// A list of additions and one of removals.
    Lists { add: Pointer, remove: Pointer },
}

/// Where a member holds what.
#[derive(Clone, Debug)]
struct MemberParser {
    id: Pointer,
    cohort_id: Option<Pointer>,
    cohort_name: Option<Pointer>,
}

/// A JSON pointer to a value inside an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pointer(String);

/// Why a manifest cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// Something in it is missing or wrong.
    #[error("{pointer}: {problem}")]
    Field {
        /// A JSON pointer to it.
        pointer: String,
        /// What is wrong, and what is expected.
        problem: String,
    },
}

/// Why a request is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidUpdate {
    #[error("the body is not JSON")]
    NotJson,
    #[error("{0} must be a text that is not empty")]
    NoText(String),
    #[error("{0} must be true or false")]
    NoBoolean(String),
    #[error("{0} must be a list")]
    NoList(String),
    #[error("there must be a list at {0} or {1}")]
    NoLists(String, String),
    #[error("{0} must be a context kind: letters, digits, ._- and neither kind nor multi")]
    NoKind(String),
}

impl Integration {
    /// The one that every sandbox has.
    pub(super) fn zeotap() -> Self {
        Self {
            key: super::fixtures::INTEGRATION.into(),
            manifest: Manifest::read(include_str!("zeotap.json"))
                .expect("a manifest of the project's own"),
        }
    }
}

impl Manifest {
    /// Reads a manifest as LaunchDarkly registers it. Only its `capabilities.syncedSegment` counts.
    ///
    /// # Errors
    /// If it is not JSON, or its `requestParser` does not say how a request is read.
    pub fn read(json: &str) -> Result<Self, ManifestError> {
        let manifest: Value = serde_json::from_str(json)
            .map_err(|error| ManifestError::NotJson(error.to_string()))?;
        parser::manifest(&manifest)
    }

    pub(super) fn response(&self) -> Option<&Template> {
        self.response.as_ref()
    }

    /// What a request asks for: all of it, or nothing.
    pub(super) fn update(&self, body: &[u8]) -> Result<SegmentUpdate, InvalidUpdate> {
        let body: Value = serde_json::from_slice(body).map_err(|_| InvalidUpdate::NotJson)?;
        let environment = self.environment_id.text(&body, "")?;
        let kind = self.kind(&body)?;
        let cohort = Cohort {
            id: self.cohort_id.text(&body, "")?,
            name: self.cohort_name.text(&body, "")?,
        };
        let mut action = None;
        let members = match &self.membership {
            Membership::Word { list, word, adds } => {
                let word = action.insert(word.text(&body, "")?);
                let is_in = adds.is_match(word.as_bytes());
                self.members(&body, list, &cohort, |_, _| Ok(is_in))?
                    .ok_or_else(|| list.no_list())?
            }
            Membership::Boolean { list, is_in } => self
                .members(&body, list, &cohort, |member, at| is_in.boolean(member, at))?
                .ok_or_else(|| list.no_list())?,
            Membership::Lists { add, remove } => {
                let added = self.members(&body, add, &cohort, |_, _| Ok(true))?;
                let removed = self.members(&body, remove, &cohort, |_, _| Ok(false))?;
                // Assumption: either list may be left out, but not both.
                if added.is_none() && removed.is_none() {
                    return Err(InvalidUpdate::NoLists(add.0.clone(), remove.0.clone()));
                }
                added.into_iter().chain(removed).flatten().collect()
            }
        };
        Ok(SegmentUpdate::new(
            environment,
            kind,
            action,
            cohort,
            members,
        ))
    }

    fn kind(&self, body: &Value) -> Result<String, InvalidUpdate> {
        let Some(pointer) = &self.context_kind else {
            return Ok(USER.into());
        };
        match pointer.optional_text(body) {
            None => Ok(USER.into()),
            Some(Value::String(kind)) if is_kind(kind) => Ok(kind.clone()),
            Some(_) => Err(InvalidUpdate::NoKind(pointer.0.clone())),
        }
    }

    /// The members of one list, if it is there.
    fn members(
        &self,
        body: &Value,
        list: &Pointer,
        of_the_call: &Cohort,
        is_in: impl Fn(&Value, &str) -> Result<bool, InvalidUpdate>,
    ) -> Result<Option<Vec<(Cohort, MemberChange)>>, InvalidUpdate> {
        let Some(members) = list.list(body)? else {
            return Ok(None);
        };
        let read = members.iter().enumerate().map(|(index, member)| {
            let at = format!("{}/{index}", list.0);
            let cohort = Cohort {
                id: own(&self.member.cohort_id, member, &at, &of_the_call.id)?,
                name: own(&self.member.cohort_name, member, &at, &of_the_call.name)?,
            };
            let change = MemberChange {
                key: self.member.id.text(member, &at)?,
                adds: is_in(member, &at)?,
            };
            Ok((cohort, change))
        });
        read.collect::<Result<_, _>>().map(Some)
    }
}

/// A member's own value, or that of its call.
fn own(
    pointer: &Option<Pointer>,
    member: &Value,
    at: &str,
    of_the_call: &str,
) -> Result<String, InvalidUpdate> {
    match pointer {
        Some(pointer) if pointer.optional_text(member).is_some() => pointer.text(member, at),
        _ => Ok(of_the_call.to_owned()),
    }
}

impl Pointer {
    /// A required text. `at` is the place of `value` in the body.
    fn text(&self, value: &Value, at: &str) -> Result<String, InvalidUpdate> {
        match value.pointer(&self.0) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            _ => Err(InvalidUpdate::NoText(self.within(at))),
        }
    }

    /// What stands where a text may be; an empty one counts as none.
    fn optional_text<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        let found = value.pointer(&self.0)?;
        (!found.is_null() && found != "").then_some(found)
    }

    /// Assumption: false removes. LaunchDarkly's validation server takes it for a missing value.
    fn boolean(&self, value: &Value, at: &str) -> Result<bool, InvalidUpdate> {
        value
            .pointer(&self.0)
            .and_then(Value::as_bool)
            .ok_or_else(|| InvalidUpdate::NoBoolean(self.within(at)))
    }

    /// A list, if there is anything.
    fn list<'a>(&self, body: &'a Value) -> Result<Option<&'a [Value]>, InvalidUpdate> {
        match body.pointer(&self.0) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(members)) => Ok(Some(members)),
            Some(_) => Err(self.no_list()),
        }
    }

    fn no_list(&self) -> InvalidUpdate {
        InvalidUpdate::NoList(self.0.clone())
    }

    fn within(&self, at: &str) -> String {
        format!("{at}{}", self.0)
    }
}
