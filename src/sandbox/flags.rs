//! What SDKs are told of an environment: its flags, its segments, and what they mean for a context.

use std::collections::BTreeMap;

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value, json};

use super::segments::{Segment, Segments};

/// SDKs write contexts with and without padding.
const CONTEXT_ENCODING: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A flag's own version; flags do not change, segments do.
const FLAG_VERSION: u64 = 1;

/// Boolean flags, each true for the members of one segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    /// Environment → flag → segment.
    environments: BTreeMap<String, BTreeMap<String, String>>,
}

impl Flags {
    pub(super) fn put(&mut self, environment: &str, flag: String, segment: String) {
        self.environments
            .entry(environment.to_owned())
            .or_default()
            .insert(flag, segment);
    }

    fn within(&self, environment: &str) -> impl Iterator<Item = (&String, &String)> {
        self.environments.get(environment).into_iter().flatten()
    }

    /// What a server-side SDK downloads.
    pub(super) fn everything(&self, environment: &str, segments: &Segments) -> Value {
        let flags: Map<_, _> = self
            .within(environment)
            .map(|(flag, segment)| (flag.clone(), flag_json(flag, segment)))
            .collect();
        let segments: Map<_, _> = segments
            .within(environment)
            .map(|segment| (segment.key.clone(), segment_json(segment)))
            .collect();
        json!({"flags": flags, "segments": segments})
    }

    /// What a client-side SDK is told: each flag's value for one person.
    pub(super) fn evaluate(
        &self,
        environment: &str,
        segments: &Segments,
        user: Option<&str>,
    ) -> Map<String, Value> {
        self.within(environment)
            .map(|(flag, key)| {
                let segment = segments.get(environment, key);
                (flag.clone(), evaluation(segment, user))
            })
            .collect()
    }
}

fn evaluation(segment: Option<&Segment>, user: Option<&str>) -> Value {
    let is_member = segment
        .zip(user)
        .is_some_and(|(segment, user)| segment.members.contains(user));
    json!({
        // SDKs ignore a patch whose version does not rise, and it is the segment that changes.
        "version": FLAG_VERSION + segment.map_or(0, |segment| segment.version),
        "flagVersion": FLAG_VERSION,
        "value": is_member,
        "variation": i32::from(!is_member),
        "trackEvents": false,
    })
}

fn flag_json(key: &str, segment: &str) -> Value {
    json!({
        "key": key, "version": FLAG_VERSION, "deleted": false, "on": true,
        "variations": [true, false], "offVariation": 1, "fallthrough": {"variation": 1},
        "targets": [], "contextTargets": [], "prerequisites": [], "salt": "f",
        "trackEvents": false, "clientSide": true,
        "clientSideAvailability": {"usingEnvironmentId": true, "usingMobileKey": true},
        "rules": [{"id": "members", "variation": 0, "trackEvents": false, "clauses": [{
            "contextKind": "user", "attribute": "", "op": "segmentMatch",
            "values": [segment], "negate": false}]}],
    })
}

pub(super) fn segment_json(segment: &Segment) -> Value {
    json!({
        "key": segment.key, "version": segment.version, "deleted": false,
        "included": segment.members, "excluded": [], "includedContexts": [],
        "excludedContexts": [], "rules": [], "salt": "s", "unbounded": false,
        "unboundedContextKind": "user", "generation": 1,
    })
}

/// The person in an encoded context, or `None` if there is none of kind `user` in it.
///
/// # Errors
/// If it is no context at all.
pub(super) fn user_key(encoded: &str) -> Result<Option<String>, NotAContext> {
    // Some SDKs use the standard alphabet: the two differ in two characters only.
    let encoded = encoded.replace('+', "-").replace('/', "_");
    let decoded = CONTEXT_ENCODING.decode(encoded).map_err(|_| NotAContext)?;
    let context: Value = serde_json::from_slice(&decoded).map_err(|_| NotAContext)?;
    let user = match context.get("kind") {
        // Contexts without a kind are the users of older SDKs.
        None => &context,
        Some(kind) if kind == "user" => &context,
        Some(kind) if kind == "multi" => match context.get("user") {
            Some(user) => user,
            None => return Ok(None),
        },
        Some(_) => return Ok(None),
    };
    match user.get("key") {
        Some(Value::String(key)) => Ok(Some(key.clone())),
        _ => Err(NotAContext),
    }
}

/// The text is not an encoded context.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAContext;

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    #[test]
    fn the_user_is_found_in_every_kind_of_context() {
        let cases = [
            (r#"{"kind":"user","key":"ann?>~"}"#, Ok(Some("ann?>~"))),
            (r#"{"key":"ann","custom":{}}"#, Ok(Some("ann"))),
            (
                r#"{"kind":"multi","user":{"key":"ann"},"org":{"key":"o"}}"#,
                Ok(Some("ann")),
            ),
            (r#"{"kind":"multi","org":{"key":"o"}}"#, Ok(None)),
            (r#"{"kind":"org","key":"ann"}"#, Ok(None)),
            (r#"{"kind":"user"}"#, Err(NotAContext)),
            ("[]", Err(NotAContext)),
        ];
        for (context, user) in cases {
            let user = user.map(|user| user.map(str::to_owned));
            let padded = URL_SAFE.encode(context);
            assert_eq!(user_key(padded.trim_end_matches('=')), user, "{context}");
            assert_eq!(user_key(&padded), user, "{context}");
            assert_eq!(user_key(&STANDARD.encode(context)), user, "{context}");
        }
        assert_eq!(user_key("!"), Err(NotAContext));
    }
}
