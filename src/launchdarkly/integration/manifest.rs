//! The manifest of an integration, as LaunchDarkly has registered it: where in a request it reads
//! what. Only `capabilities.syncedSegment.requestParser` matters here.

use serde_json::Value;

use super::{
    action_words::{ActionWords, ActionWordsError},
    pointer::{Pointer, PointerError},
};

/// Where a manifest says how requests are read.
const REQUEST_PARSER: &str = "/capabilities/syncedSegment/requestParser";

/// What a manifest says of requests.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) environment: Place,
    /// For the request as a whole, for each member, or both; the same holds for the name.
    pub(super) segment_id: Scoped,
    pub(super) segment_name: Scoped,
    pub(super) context_kind: Option<Place>,
    /// Within a member.
    pub(super) member_key: Place,
    pub(super) membership: Membership,
}

/// The place of a value in a request, and the field of the manifest that names it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) field: &'static str,
    pub(super) pointer: Pointer,
}

/// The places of a value that a request may hold once and again in each member.
#[derive(Debug)]
pub(super) struct Scoped {
    pub(super) request: Option<Place>,
    pub(super) member: Option<Place>,
}

/// How a request says whether a member enters or leaves.
#[derive(Debug)]
pub(super) enum Membership {
    /// One list, and one word for all of it.
    Word {
        members: Place,
        word: Place,
        words: ActionWords,
    },
    /// One list, and a boolean in each member.
    Boolean { members: Place, boolean: Place },
    /// A list of additions and a list of removals.
    Lists { add: Place, remove: Place },
}

/// Why a manifest cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{error}")]
pub struct ManifestError {
    /// In the manifest.
    place: String,
    error: Problem,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Problem {
    #[error("line {line}, column {column}: this is no JSON")]
    NotJson { line: usize, column: usize },
    #[error(
        "is missing: LaunchDarkly reads no `segment-targets` requests of an integration without it"
    )]
    NoCapability,
    #[error("must be {0}")]
    Type(&'static str),
    #[error(transparent)]
    Pointer(#[from] PointerError),
    #[error("the matcher {0}")]
    Matcher(#[from] ActionWordsError),
    #[error("is missing: requests could not name {0}")]
    Missing(&'static str),
    #[error("is missing: requests could not say that a member {0}")]
    OneWay(&'static str),
    #[error(
        "says in another way than {0} which members enter and which leave; a manifest may have one \
         of: arrayInclusion, booleanMembershipPath, or addMemberArrayPath with removeMemberArrayPath"
    )]
    SecondWay(&'static str),
    #[error("has the place of {0}: each value needs a place of its own")]
    Taken(&'static str),
    #[error(
        "leads into {0}, of which only the first member of a list for additions and removals is \
         sure to be there"
    )]
    InList(&'static str),
}

impl ManifestError {
    pub(super) fn of_field(field: &'static str, error: impl Into<Problem>) -> Self {
        Self {
            place: format!("{REQUEST_PARSER}/{field}: "),
            error: error.into(),
        }
    }
}

impl Manifest {
    /// Reads a `manifest.json`.
    pub(super) fn read(manifest: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Value = serde_json::from_slice(manifest).map_err(|error| ManifestError {
            place: String::new(),
            error: Problem::NotJson {
                line: error.line(),
                column: error.column(),
            },
        })?;
        let found = manifest.pointer(REQUEST_PARSER).unwrap_or(&Value::Null);
        let at_parser = |error| ManifestError {
            place: format!("{REQUEST_PARSER}: "),
            error,
        };
        match found {
            Value::Object(_) => Self::parse(&RequestParser(found)),
            Value::Null => Err(at_parser(Problem::NoCapability)),
            _ => Err(at_parser(Problem::Type("an object"))),
        }
    }

    fn parse(parser: &RequestParser<'_>) -> Result<Self, ManifestError> {
        const KEY: &str = "memberArrayParser/memberIdPath";
        parser.object("arrayInclusion")?;
        parser.object("memberArrayParser")?;
        Ok(Self {
            environment: parser.required("environmentIdPath", "an environment")?,
            segment_id: parser.scoped(
                "cohortIdPath",
                "memberArrayParser/cohortIdPath",
                "a segment's ID",
            )?,
            segment_name: parser.scoped(
                "cohortNamePath",
                "memberArrayParser/cohortNamePath",
                "a segment's name",
            )?,
            context_kind: parser.place("contextKindPath")?,
            member_key: parser.required(KEY, "a member")?,
            membership: Membership::parse(parser)?,
        })
    }
}

impl Membership {
    fn parse(parser: &RequestParser<'_>) -> Result<Self, ManifestError> {
        const MEMBERS: &str = "memberArrayPath";
        const WORD: &str = "arrayInclusion/path";
        const BOOLEAN: &str = "memberArrayParser/booleanMembershipPath";
        const ADD: &str = "addMemberArrayPath";
        const REMOVE: &str = "removeMemberArrayPath";

        let word = match parser.object("arrayInclusion")? {
            true => Some(parser.required(WORD, "what is done to members")?),
            false => None,
        };
        let boolean = parser.place(BOOLEAN)?;
        let (add, remove) = (parser.place(ADD)?, parser.place(REMOVE)?);
        let lists = add.as_ref().or(remove.as_ref());
        one_way([word.as_ref(), boolean.as_ref(), lists])?;
        let members = parser.place(MEMBERS)?;
        let missing = |field, problem| Err(ManifestError::of_field(field, problem));
        match (members, word, boolean, add, remove) {
            (Some(members), Some(word), ..) => Ok(Self::Word {
                members,
                word,
                words: parser.words()?,
            }),
            (Some(members), None, Some(boolean), ..) => Ok(Self::Boolean { members, boolean }),
            (None, None, None, Some(add), Some(remove)) => Ok(Self::Lists { add, remove }),
            (Some(members), None, None, Some(list), _)
            | (Some(members), None, None, None, Some(list)) => {
                missing(members.field, Problem::SecondWay(list.field))
            }
            (None, None, None, Some(_), None) => missing(REMOVE, Problem::OneWay("leaves")),
            (None, None, None, None, Some(_)) => missing(ADD, Problem::OneWay("enters")),
            (Some(_), None, None, None, None) => missing(BOOLEAN, Problem::OneWay("leaves")),
            (None, ..) => missing(MEMBERS, Problem::Missing("members")),
        }
    }
}

/// Checks that at most one of these places is named.
fn one_way(places: [Option<&Place>; 3]) -> Result<(), ManifestError> {
    let mut named = places.into_iter().flatten();
    match (named.next(), named.next()) {
        (Some(first), Some(second)) => Err(ManifestError::of_field(
            second.field,
            Problem::SecondWay(first.field),
        )),
        _ => Ok(()),
    }
}

/// The `requestParser`, an object. Fields are named by their path in it.
struct RequestParser<'a>(&'a Value);

impl<'a> RequestParser<'a> {
    /// A field; none if it is missing or null.
    fn field(&self, field: &str) -> Option<&'a Value> {
        let value = self.0.pointer(&format!("/{field}"))?;
        (!value.is_null()).then_some(value)
    }

    /// Whether there is an object.
    fn object(&self, field: &'static str) -> Result<bool, ManifestError> {
        match self.field(field) {
            None => Ok(false),
            Some(Value::Object(_)) => Ok(true),
            Some(_) => Err(ManifestError::of_field(field, Problem::Type("an object"))),
        }
    }

    fn text(&self, field: &'static str) -> Result<Option<&'a str>, ManifestError> {
        let text = |value: &'a Value| {
            let no_text = || ManifestError::of_field(field, Problem::Type("a text"));
            value.as_str().ok_or_else(no_text)
        };
        self.field(field).map(text).transpose()
    }

    fn place(&self, field: &'static str) -> Result<Option<Place>, ManifestError> {
        let place = |text| match Pointer::read(text) {
            Ok(pointer) => Ok(Place { field, pointer }),
            Err(error) => Err(ManifestError::of_field(field, error)),
        };
        self.text(field)?.map(place).transpose()
    }

    fn required(&self, field: &'static str, what: &'static str) -> Result<Place, ManifestError> {
        let missing = || ManifestError::of_field(field, Problem::Missing(what));
        self.place(field)?.ok_or_else(missing)
    }

    /// A value that stands in the request, in each member, or in both.
    fn scoped(
        &self,
        request: &'static str,
        member: &'static str,
        what: &'static str,
    ) -> Result<Scoped, ManifestError> {
        let places = Scoped {
            request: self.place(request)?,
            member: self.place(member)?,
        };
        if places.request.is_none() && places.member.is_none() {
            return Err(ManifestError::of_field(request, Problem::Missing(what)));
        }
        Ok(places)
    }

    fn words(&self) -> Result<ActionWords, ManifestError> {
        const MATCHER: &str = "arrayInclusion/matcher";
        let missing = || ManifestError::of_field(MATCHER, Problem::Missing("additions"));
        let matcher = self.text(MATCHER)?.ok_or_else(missing)?;
        ActionWords::choose(matcher).map_err(|error| ManifestError::of_field(MATCHER, error))
    }
}
