//! The JSON that LaunchDarkly takes and gives, as far as it is needed here.
//!
//! Replies hold SDK keys beside what is asked for; fields that are not named are never decoded.

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer, de::IgnoredAny};

use crate::domain::{ClientSideId, ContextKey, Operation, SegmentRef};

/// Body of a `segment-targets` call, in the shape that the registered manifest reads.
#[derive(Serialize)]
pub(super) struct SegmentTargets<'a> {
    action: ActionWord,
    parameters: SegmentParameters<'a>,
}

#[derive(Serialize)]
struct SegmentParameters<'a> {
    integration_project_id: &'a str,
    integration_cohort_id: &'a str,
    integration_cohort_name: &'a str,
    members: SegmentMembers<'a>,
}

/// What is done to the members. The manifest reads every word but its own for "add" as
/// "remove", so these two are the only ones that exist here.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum ActionWord {
    AddMembers,
    RemoveMembers,
}

impl From<Operation> for ActionWord {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Add => Self::AddMembers,
            Operation::Remove => Self::RemoveMembers,
        }
    }
}

/// At least one member: LaunchDarkly takes a call without members for a segment without an ID.
#[derive(Clone, Copy)]
pub(super) struct SegmentMembers<'a>(&'a [ContextKey]);

impl<'a> SegmentMembers<'a> {
    /// The members of a call; none if there are none.
    pub(super) fn new(keys: &'a [ContextKey]) -> Option<Self> {
        (!keys.is_empty()).then_some(Self(keys))
    }
}

#[derive(Serialize)]
struct SegmentMember<'a> {
    integration_distinct_id: &'a str,
}

impl Serialize for SegmentMembers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|key| SegmentMember {
            integration_distinct_id: key.as_str(),
        }))
    }
}

impl<'a> SegmentTargets<'a> {
    /// Asks for `operation` on these members of a segment.
    pub(super) fn new(
        environment: &'a ClientSideId,
        segment: &'a SegmentRef,
        operation: Operation,
        members: SegmentMembers<'a>,
    ) -> Self {
        Self {
            action: operation.into(),
            parameters: SegmentParameters {
                integration_project_id: environment.as_str(),
                integration_cohort_id: segment.id.as_str(),
                integration_cohort_name: segment.name(),
                members,
            },
        }
    }

    /// The bytes to send.
    pub(super) fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("strings under fixed names always encode")
            .into()
    }
}

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
    use crate::domain::SegmentId;

    fn encoded(operation: Operation, keys: &[&str]) -> serde_json::Value {
        let keys: Vec<_> = keys.iter().map(|k| ContextKey::new(k).unwrap()).collect();
        let segment = SegmentRef::new(SegmentId::new("vip").unwrap(), "VIP \"gold\"").unwrap();
        let environment = ClientSideId::new("5a01".into());
        let members = SegmentMembers::new(&keys).unwrap();
        let body = SegmentTargets::new(&environment, &segment, operation, members).encode();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn a_call_has_the_shape_of_the_manifest() {
        assert_eq!(
            encoded(Operation::Add, &["u-1", "é\"2"]),
            json!({
                "action": "add_members",
                "parameters": {
                    "integration_project_id": "5a01",
                    "integration_cohort_id": "vip",
                    "integration_cohort_name": "VIP \"gold\"",
                    "members": [
                        {"integration_distinct_id": "u-1"},
                        {"integration_distinct_id": "é\"2"},
                    ],
                },
            })
        );
    }

    #[test]
    fn only_an_addition_matches_the_pattern_by_which_the_manifest_adds() {
        let adds = regex::Regex::new("^(members|add_members)$").unwrap();
        let word = |operation| {
            encoded(operation, &["u"])["action"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert!(adds.is_match(&word(Operation::Add)));
        assert!(!adds.is_match(&word(Operation::Remove)));
        assert_eq!(word(Operation::Remove), "remove_members");
    }

    #[test]
    fn a_call_without_members_cannot_be_made() {
        assert!(SegmentMembers::new(&[]).is_none());
    }

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
