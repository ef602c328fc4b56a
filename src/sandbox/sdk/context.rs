//! Evaluation contexts, decoded from a path or a body.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

use crate::sandbox::context::{ContextKeys, USER, is_kind};

/// SDKs write contexts with and without padding.
const ENCODING: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What was sent is no context.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotAContext;

/// The JSON that stands encoded in a path.
pub(super) fn decode(encoded: &str) -> Result<Vec<u8>, NotAContext> {
    // Some SDKs use the standard alphabet: the two differ in two characters only.
    let encoded = encoded.replace('+', "-").replace('/', "_");
    ENCODING.decode(encoded).map_err(|_| NotAContext)
}

/// The key of each context in it.
pub(super) fn keys(json: &[u8]) -> Result<ContextKeys, NotAContext> {
    let context: Value = serde_json::from_slice(json).map_err(|_| NotAContext)?;
    match context.get("kind").map(Value::as_str) {
        // Contexts without a kind are the users of older SDKs.
        None => one(USER, &context).map(|one| ContextKeys::from_iter([one])),
        Some(Some("multi")) => many(&context),
        Some(Some(kind)) => one(kind, &context).map(|one| ContextKeys::from_iter([one])),
        Some(None) => Err(NotAContext),
    }
}

fn many(context: &Value) -> Result<ContextKeys, NotAContext> {
    let parts = context.as_object().ok_or(NotAContext)?.iter();
    let kinds = parts.filter(|(name, _)| *name != "kind");
    kinds.map(|(kind, part)| one(kind, part)).collect()
}

fn one(kind: &str, context: &Value) -> Result<(String, String), NotAContext> {
    if is_kind(kind) {
        Ok((kind.to_owned(), key(context)?))
    } else {
        Err(NotAContext)
    }
}

fn key(context: &Value) -> Result<String, NotAContext> {
    match context.get("key") {
        Some(Value::String(key)) if !key.is_empty() => Ok(key.clone()),
        _ => Err(NotAContext),
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;

    fn decoded(encoded: &str) -> Result<ContextKeys, NotAContext> {
        keys(&decode(encoded)?)
    }

    #[test]
    fn each_context_is_found_by_its_kind() {
        let many = r#"{"kind":"multi","user":{"key":"ann"},"account":{"key":"acme"}}"#;
        let found: [(&str, &[(&str, &str)]); 7] = [
            (r#"{"kind":"user","key":"ann?>~"}"#, &[("user", "ann?>~")]),
            (r#"{"key":"ann","custom":{}}"#, &[("user", "ann")]),
            (r#"{"kind":"account","key":"acme"}"#, &[("account", "acme")]),
            (r#"{"kind":"A.b_c-1","key":"acme"}"#, &[("A.b_c-1", "acme")]),
            (many, &[("user", "ann"), ("account", "acme")]),
            (r#"{"kind":"multi","org":{"key":"o"}}"#, &[("org", "o")]),
            (r#"{"kind":"multi"}"#, &[]),
        ];
        for (context, expected) in found {
            let owned = |&(kind, key): &(&str, &str)| (kind.to_owned(), key.to_owned());
            assert_found(context, Ok(expected.iter().map(owned).collect()));
        }
        for context in [
            r#"{"kind":"multi","user":{"key":"ann"},"org":{}}"#,
            r#"{"kind":"multi","user":{"key":"ann"},"multi":{"key":"o"}}"#,
            r#"{"kind":"org"}"#,
            r#"{"kind":"kind","key":"ann"}"#,
            r#"{"kind":"","key":"ann"}"#,
            r#"{"kind":"a b","key":"ann"}"#,
            r#"{"kind":5,"key":"ann"}"#,
            r#"{"kind":"user"}"#,
            r#"{"kind":"user","key":""}"#,
            "[]",
        ] {
            assert_found(context, Err(NotAContext));
        }
        assert_eq!(decoded("!"), Err(NotAContext));
    }

    fn assert_found(context: &str, expected: Result<ContextKeys, NotAContext>) {
        let padded = URL_SAFE.encode(context);
        assert_eq!(keys(context.as_bytes()), expected, "{context}");
        assert_eq!(decoded(padded.trim_end_matches('=')), expected, "{context}");
        assert_eq!(decoded(&padded), expected, "{context}");
        assert_eq!(decoded(&STANDARD.encode(context)), expected, "{context}");
    }
}
