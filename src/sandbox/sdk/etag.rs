//! Conditional requests: a response that the client has already is answered 304.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;

/// The body under its ETag, or 304 if `If-None-Match` names that.
pub(super) fn json(headers: &HeaderMap, body: &Value) -> Response {
    let body = body.to_string();
    let etag = etag_of(&body);
    let tag = [(header::ETAG, etag.clone())];
    if is_known(headers, &etag) {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    (tag, content_type, body).into_response()
}

fn etag_of(body: &str) -> String {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|list| HeaderValue::to_str(list).ok())
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_not_sent_again() {
        let asked = |known: &str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, known.parse().unwrap());
            json(&headers, &body.into()).status().as_u16()
        };
        let first = json(&HeaderMap::new(), &"old".into());
        let etag = first.headers()[header::ETAG].to_str().unwrap();
        assert_eq!(first.status(), 200);
        assert_eq!(asked(etag, "old"), 304);
        assert_eq!(asked(&format!("W/{etag}"), "old"), 304);
        assert_eq!(asked(&format!("\"other\", {etag}"), "old"), 304);
        assert_eq!(asked("*", "old"), 304);
        assert_eq!(asked(etag, "new"), 200);
    }
}
