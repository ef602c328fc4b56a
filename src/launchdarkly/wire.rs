//! The JSON of LaunchDarkly's answers, as far as it is needed here. That of requests is in
//! [`integration`](super::integration).
//!
//! Replies hold SDK keys beside what is asked for; fields that are not named are never decoded.

use serde::{Deserialize, de::IgnoredAny};

/// Answer of `caller-identity`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CallerIdentity {
    pub(super) account_id: Option<String>,
    /// The environment that the credential belongs to; most access tokens belong to none.
    pub(super) environment_id: Option<String>,
    pub(super) environment_name: Option<String>,
    pub(super) project_name: Option<String>,
    pub(super) token_id: Option<String>,
    pub(super) token_name: Option<String>,
    pub(super) service_token: Option<bool>,
}

/// Answer of `tokens/{id}`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TokenDetails {
    pub(super) role: Option<String>,
    custom_role_ids: Option<Vec<IgnoredAny>>,
    inline_role: Option<Vec<IgnoredAny>>,
}

impl TokenDetails {
    /// Whether rights come from something finer than a base role.
    pub(super) fn is_custom(&self) -> bool {
        let some = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        some(&self.custom_role_ids) || some(&self.inline_role)
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CollectionRep<T> {
    pub(super) items: Vec<T>,
    total_count: Option<usize>,
    #[serde(rename = "_links", default)]
    links: Links,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Links {
    // Only whether there is one: an address that a server names is never called.
    next: Option<IgnoredAny>,
}

impl<T> CollectionRep<T> {
    /// Where the next page starts, if there is one after this, which starts at `offset`.
    pub(super) fn next_offset(&self, offset: usize) -> Option<usize> {
        let seen = offset + self.items.len();
        let more = self.links.next.is_some() || self.total_count.is_some_and(|all| seen < all);
        more.then_some(seen)
    }
}

/// A project, with the first page of its environments if that was asked for.
#[derive(Debug, Deserialize)]
pub(super) struct ProjectRep {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) environments: Option<CollectionRep<EnvironmentRep>>,
}

/// An environment.
#[derive(Debug, Deserialize)]
pub(super) struct EnvironmentRep {
    /// The client-side ID.
    #[serde(rename = "_id")]
    pub(super) id: String,
    pub(super) key: String,
    pub(super) name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_knows_whether_another_follows() {
        let next = |page: serde_json::Value, offset| {
            let page: CollectionRep<u8> = serde_json::from_value(page).unwrap();
            page.next_offset(offset)
        };
        assert_eq!(next(json!({"items": [1, 2], "totalCount": 5}), 2), Some(4));
        assert_eq!(next(json!({"items": [1], "totalCount": 5}), 4), None);
        assert_eq!(
            next(json!({"items": [1], "_links": {"next": {}}}), 0),
            Some(1)
        );
        assert_eq!(next(json!({"items": [1], "_links": {}}), 0), None);
        assert_eq!(next(json!({"items": [1]}), 0), None);
    }
}
