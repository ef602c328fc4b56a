//! Evaluation contexts, decoded from a path or a body.

use base64::{
    Engine,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

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

/// The person in a context, or `None` if there is none of kind `user` in it.
pub(super) fn user_key(json: &[u8]) -> Result<Option<String>, NotAContext> {
    let context: Value = serde_json::from_slice(json).map_err(|_| NotAContext)?;
    match context.get("kind").map(Value::as_str) {
        // Contexts without a kind are the users of older SDKs.
        None | Some(Some("user")) => key(&context).map(Some),
        Some(Some("multi")) => user_of_many(&context),
        Some(Some(_)) => key(&context).map(|_| None),
        Some(None) => Err(NotAContext),
    }
}

fn user_of_many(context: &Value) -> Result<Option<String>, NotAContext> {
    let mut user = None;
    for (kind, part) in context.as_object().into_iter().flatten() {
        if kind != "kind" {
            let key = key(part)?;
            user = user.or((kind == "user").then_some(key));
        }
    }
    Ok(user)
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

    fn decoded(encoded: &str) -> Result<Option<String>, NotAContext> {
        user_key(&decode(encoded)?)
    }

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
            (
                r#"{"kind":"multi","user":{"key":"ann"},"org":{}}"#,
                Err(NotAContext),
            ),
            (r#"{"kind":"org","key":"ann"}"#, Ok(None)),
            (r#"{"kind":"org"}"#, Err(NotAContext)),
            (r#"{"kind":5,"key":"ann"}"#, Err(NotAContext)),
            (r#"{"kind":"user"}"#, Err(NotAContext)),
            (r#"{"kind":"user","key":""}"#, Err(NotAContext)),
            ("[]", Err(NotAContext)),
        ];
        for (context, user) in cases {
            let user = user.map(|user| user.map(str::to_owned));
            let padded = URL_SAFE.encode(context);
            assert_eq!(user_key(context.as_bytes()), user, "{context}");
            assert_eq!(decoded(padded.trim_end_matches('=')), user, "{context}");
            assert_eq!(decoded(&padded), user, "{context}");
            assert_eq!(decoded(&STANDARD.encode(context)), user, "{context}");
        }
        assert_eq!(decoded("!"), Err(NotAContext));
    }
}
