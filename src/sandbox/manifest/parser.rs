//! Reads a manifest; what is wrong is named by a JSON pointer.

use regex::bytes::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::{Manifest, ManifestError, MemberParser, Membership, Pointer, template::Template};

const CAPABILITY: [&str; 2] = ["jsonResponseBody", "requestParser"];
const REQUEST_PARSER: [&str; 10] = [
    "environmentIdPath",
    "contextKindPath",
    "cohortIdPath",
    "cohortNamePath",
    "cohortUrlPath",
    "memberArrayPath",
    "addMemberArrayPath",
    "removeMemberArrayPath",
    "arrayInclusion",
    "memberArrayParser",
];
const ARRAY_INCLUSION: [&str; 2] = ["path", "matcher"];
const MEMBER_ARRAY_PARSER: [&str; 4] = [
    "memberIdPath",
    "booleanMembershipPath",
    "cohortIdPath",
    "cohortNamePath",
];

/// Any field, where those of others do not matter.
const ANY: [&str; 0] = [];

type Read<T> = Result<T, ManifestError>;

pub(super) fn manifest(manifest: &Value) -> Read<Manifest> {
    let manifest = Object::new("", manifest, &ANY)?;
    let capabilities = manifest.object("capabilities", &ANY)?;
    let capability = capabilities.object("syncedSegment", &CAPABILITY)?;
    let parser = capability.object("requestParser", &REQUEST_PARSER)?;
    let member = parser.object("memberArrayParser", &MEMBER_ARRAY_PARSER)?;
    // It is only shown as a link, but a wrong one is refused like the others.
    parser.optional_pointer("cohortUrlPath")?;
    Ok(Manifest {
        environment_id: parser.pointer("environmentIdPath")?,
        context_kind: parser.optional_pointer("contextKindPath")?,
        cohort_id: parser.pointer("cohortIdPath")?,
        cohort_name: parser.pointer("cohortNamePath")?,
        membership: membership(&parser, &member)?,
        member: MemberParser {
            id: member.pointer("memberIdPath")?,
            cohort_id: member.optional_pointer("cohortIdPath")?,
            cohort_name: member.optional_pointer("cohortNamePath")?,
        },
        response: response(&capability)?,
    })
}

fn membership(parser: &Object<'_>, member: &Object<'_>) -> Read<Membership> {
    let one_list = ["memberArrayPath", "arrayInclusion"];
    let two_lists = ["addMemberArrayPath", "removeMemberArrayPath"];
    let has = |names: [&str; 2]| names.into_iter().any(|name| parser.has(name));
    match (has(one_list), has(two_lists)) {
        (false, false) => Err(parser.problem(
            "has no members: give memberArrayPath, or addMemberArrayPath and removeMemberArrayPath",
        )),
        (true, true) => Err(parser.problem(
            "has memberArrayPath or arrayInclusion beside addMemberArrayPath or \
             removeMemberArrayPath: leave one of the two ways out",
        )),
        (false, true) => Ok(Membership::Lists {
            add: parser.pointer("addMemberArrayPath")?,
            remove: parser.pointer("removeMemberArrayPath")?,
        }),
        (true, false) if parser.has("arrayInclusion") => {
            let inclusion = parser.object("arrayInclusion", &ARRAY_INCLUSION)?;
            Ok(Membership::Word {
                list: parser.pointer("memberArrayPath")?,
                word: inclusion.pointer("path")?,
                adds: inclusion.matcher("matcher")?,
            })
        }
        (true, false) => Ok(Membership::Boolean {
            list: parser.pointer("memberArrayPath")?,
            is_in: member.pointer("booleanMembershipPath")?,
        }),
    }
}

fn response(capability: &Object<'_>) -> Read<Option<Template>> {
    const NAME: &str = "jsonResponseBody";
    if !capability.has(NAME) {
        return Ok(None);
    }
    let template = Template::read(capability.text(NAME)?);
    template
        .map(Some)
        .map_err(|problem| capability.problem_of(NAME, problem))
}

/// An object of the manifest, and where it stands.
struct Object<'a> {
    at: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// Refuses fields that are not `known`, unless any may be there: a typing error in the name of
    /// an optional field would go unseen.
    fn new(at: &str, value: &'a Value, known: &[&str]) -> Read<Self> {
        let at = at.to_owned();
        let Some(fields) = value.as_object() else {
            let problem = "must be an object".into();
            return Err(ManifestError::Field {
                pointer: at,
                problem,
            });
        };
        let object = Self { at, fields };
        let mut names = object.fields.keys();
        match names.find(|name| !known.is_empty() && !known.contains(&name.as_str())) {
            Some(name) => Err(object.problem_of(
                name,
                format!("is not known; known are {}", known.join(", ")),
            )),
            None => Ok(object),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    fn object(&self, name: &str, known: &[&str]) -> Read<Object<'a>> {
        Object::new(&format!("{}/{name}", self.at), self.field(name)?, known)
    }

    fn field(&self, name: &str) -> Read<&'a Value> {
        let field = self.fields.get(name);
        field.ok_or_else(|| self.problem_of(name, "is missing"))
    }

    fn text(&self, name: &str) -> Read<&'a str> {
        match self.field(name)?.as_str() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.problem_of(name, "must be a text that is not empty")),
        }
    }

    fn pointer(&self, name: &str) -> Read<Pointer> {
        let text = self.text(name)?;
        if text.starts_with('/') {
            Ok(Pointer(text.to_owned()))
        } else {
            Err(self.problem_of(name, "must be a JSON pointer, such as /cohortId"))
        }
    }

    fn optional_pointer(&self, name: &str) -> Read<Option<Pointer>> {
        if self.has(name) {
            self.pointer(name).map(Some)
        } else {
            Ok(None)
        }
    }

    /// LaunchDarkly's are JavaScript's, in which `\w` and the like know only ASCII.
    fn matcher(&self, name: &str) -> Read<Regex> {
        RegexBuilder::new(self.text(name)?)
            .unicode(false)
            .build()
            .map_err(|error| {
                self.problem_of(name, format!("must be a regular expression: {error}"))
            })
    }

    fn problem(&self, problem: impl ToString) -> ManifestError {
        ManifestError::Field {
            pointer: self.at.clone(),
            problem: problem.to_string(),
        }
    }

    fn problem_of(&self, name: &str, problem: impl ToString) -> ManifestError {
        ManifestError::Field {
            pointer: format!("{}/{name}", self.at),
            problem: problem.to_string(),
        }
    }
}
