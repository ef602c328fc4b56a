//! Segments, and how a segment-targets call updates them by the registered integration's manifest.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::hidden::Hidden;

/// The words that add; the manifest matches `^(members|add_members)$`.
const ADD_WORDS: [&str; 2] = ["members", "add_members"];

/// The cohort id of a call without members: LaunchDarkly's validation server reads the cohort
/// from the members it finds, and without any names the segment like this.
const NO_COHORT: &str = "undefined";

/// A synced segment of one environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Segment {
    /// `{integration}-{cohort id}`.
    pub key: String,
    /// The cohort's name, as last sent.
    pub name: String,
    /// Rises with every change; never falls, not even over a reset.
    pub version: u64,
    /// Keys of the contexts of kind `user` that are in.
    pub members: Hidden<BTreeSet<String>>,
}

/// What one call asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SegmentUpdate {
    pub(super) environment: String,
    pub(super) action: String,
    pub(super) keys: Hidden<Vec<String>>,
    pub(super) cohort_id: String,
    cohort_name: String,
}

#[derive(Deserialize)]
struct UpdateBody {
    action: String,
    parameters: UpdateParameters,
}

#[derive(Deserialize)]
struct UpdateParameters {
    integration_project_id: String,
    integration_cohort_id: String,
    integration_cohort_name: String,
    members: Vec<UpdateMember>,
}

#[derive(Deserialize)]
struct UpdateMember {
    integration_distinct_id: String,
}

/// Why a body is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidUpdate {
    #[error("the body is not the JSON that the integration's manifest describes")]
    Shape,
    #[error("a required part of the body is empty")]
    EmptyPart,
}

impl SegmentUpdate {
    pub(super) fn read(body: &[u8]) -> Result<Self, InvalidUpdate> {
        let body: UpdateBody = serde_json::from_slice(body).map_err(|_| InvalidUpdate::Shape)?;
        let update = SegmentUpdate::from(body);
        if update.has_empty_part() {
            return Err(InvalidUpdate::EmptyPart);
        }
        Ok(update)
    }

    pub(super) fn segment_key(&self, integration: &str) -> String {
        let cohort = if self.keys.is_empty() {
            NO_COHORT
        } else {
            &self.cohort_id
        };
        format!("{integration}-{cohort}")
    }

    fn segment_name(&self) -> &str {
        if self.keys.is_empty() {
            NO_COHORT
        } else {
            &self.cohort_name
        }
    }

    pub(super) fn adds(&self) -> bool {
        ADD_WORDS.contains(&self.action.as_str())
    }

    fn has_empty_part(&self) -> bool {
        [
            &self.environment,
            &self.action,
            &self.cohort_id,
            &self.cohort_name,
        ]
        .into_iter()
        .chain(self.keys.iter())
        .any(String::is_empty)
    }
}

impl From<UpdateBody> for SegmentUpdate {
    fn from(UpdateBody { action, parameters }: UpdateBody) -> Self {
        let keys = parameters
            .members
            .into_iter()
            .map(|member| member.integration_distinct_id);
        Self {
            environment: parameters.integration_project_id,
            action,
            keys: Hidden(keys.collect()),
            cohort_id: parameters.integration_cohort_id,
            cohort_name: parameters.integration_cohort_name,
        }
    }
}

/// The segments of every environment.
#[derive(Debug, Default)]
pub(super) struct Segments {
    environments: BTreeMap<String, BTreeMap<String, Segment>>,
    /// The highest version given to any segment. One counter for all, kept over `clear`, because
    /// an SDK ignores a segment whose version does not rise.
    version: u64,
}

impl Segments {
    /// Carries out one call, all of it.
    pub(super) fn apply(&mut self, integration: &str, update: &SegmentUpdate) {
        let key = update.segment_key(integration);
        let segments = self
            .environments
            .entry(update.environment.clone())
            .or_default();
        let segment = segments
            .entry(key.clone())
            .or_insert_with(|| Segment::new(key));
        if segment.follow(update) {
            self.version += 1;
            segment.version = self.version;
        }
    }

    pub(super) fn get(&self, environment: &str, key: &str) -> Option<&Segment> {
        self.environments.get(environment)?.get(key)
    }

    pub(super) fn within(&self, environment: &str) -> impl Iterator<Item = &Segment> {
        self.environments
            .get(environment)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    pub(super) fn by_environment(&self) -> impl Iterator<Item = (&str, &Segment)> {
        self.environments
            .iter()
            .flat_map(|(id, segments)| segments.values().map(|segment| (id.as_str(), segment)))
    }

    pub(super) fn clear(&mut self) {
        self.environments.clear();
    }
}

impl Segment {
    fn new(key: String) -> Self {
        Self {
            key,
            name: String::new(),
            version: 0,
            members: Hidden::default(),
        }
    }

    /// Answers whether anything changed: a new segment has no name yet, so it always does.
    fn follow(&mut self, update: &SegmentUpdate) -> bool {
        let renamed = self.name != update.segment_name();
        if renamed {
            update.segment_name().clone_into(&mut self.name);
        }
        let before = self.members.len();
        for key in update.keys.iter() {
            if update.adds() {
                self.members.insert(key.clone());
            } else {
                self.members.remove(key);
            }
        }
        renamed || before != self.members.len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(action: &str, name: &str, keys: &[&str]) -> Value {
        let members: Vec<_> = keys
            .iter()
            .map(|key| json!({ "integration_distinct_id": key }))
            .collect();
        json!({"action": action, "parameters": {
            "integration_project_id": "env", "integration_cohort_id": "vip",
            "integration_cohort_name": name, "members": members}})
    }

    fn read(body: &Value) -> Result<SegmentUpdate, InvalidUpdate> {
        SegmentUpdate::read(body.to_string().as_bytes())
    }

    fn apply(segments: &mut Segments, action: &str, name: &str, keys: &[&str]) -> Segment {
        let update = read(&body(action, name, keys)).unwrap();
        segments.apply("zeotap", &update);
        segments
            .get("env", &update.segment_key("zeotap"))
            .unwrap()
            .clone()
    }

    #[test]
    fn any_word_outside_the_manifest_pattern_removes() {
        let pattern = regex::Regex::new("^(members|add_members)$").unwrap();
        let words = [
            "members",
            "add_members",
            "remove_members",
            "add",
            "Add_members",
            " members",
            "members\n",
            "add_members2",
            "xadd_members",
            "remove",
            "0",
        ];
        for word in words {
            let update = read(&body(word, "VIP", &["a"])).unwrap();
            assert_eq!(update.adds(), pattern.is_match(word), "{word:?}");
        }
    }

    #[test]
    fn a_missing_or_empty_part_refuses_the_whole_call() {
        let whole = body("add_members", "VIP", &["a", "b"]);
        assert!(read(&whole).is_ok());
        let parts = [
            "/action",
            "/parameters",
            "/parameters/integration_project_id",
            "/parameters/integration_cohort_id",
            "/parameters/integration_cohort_name",
            "/parameters/members",
            "/parameters/members/1",
            "/parameters/members/1/integration_distinct_id",
        ];
        for part in parts {
            let mut without = whole.clone();
            *without.pointer_mut(part).unwrap() = Value::Null;
            assert_eq!(read(&without), Err(InvalidUpdate::Shape), "{part}");
            *without.pointer_mut(part).unwrap() = json!("");
            assert!(read(&without).is_err(), "{part}");
        }
        assert_eq!(SegmentUpdate::read(b"not json"), Err(InvalidUpdate::Shape));
    }

    #[test]
    fn adding_the_present_or_removing_the_absent_changes_nothing() {
        let mut segments = Segments::default();
        let first = apply(&mut segments, "add_members", "VIP", &["a", "b"]);
        assert_eq!(
            (first.key.as_str(), first.name.as_str()),
            ("zeotap-vip", "VIP")
        );
        assert_eq!(apply(&mut segments, "members", "VIP", &["b"]), first);
        assert_eq!(apply(&mut segments, "remove_members", "VIP", &["c"]), first);
        let third = apply(&mut segments, "remove_members", "VIP", &["a"]);
        assert!(third.version > first.version);
        assert_eq!(*third.members, BTreeSet::from(["b".to_owned()]));
    }

    #[test]
    fn a_new_cohort_name_renames_the_segment_under_its_key() {
        let mut segments = Segments::default();
        let first = apply(&mut segments, "add_members", "VIP", &["a"]);
        let renamed = apply(&mut segments, "add_members", "Very important", &["a"]);
        assert_eq!(
            (&renamed.key, renamed.name.as_str()),
            (&first.key, "Very important")
        );
        assert!(renamed.version > first.version);
    }

    #[test]
    fn a_call_without_members_makes_the_undefined_segment() {
        let mut segments = Segments::default();
        let made = apply(&mut segments, "add_members", "VIP", &[]);
        assert_eq!(made.key, "zeotap-undefined");
        assert!(segments.get("env", "zeotap-vip").is_none());
    }

    #[test]
    fn versions_go_on_rising_after_a_clear() {
        let mut segments = Segments::default();
        let before = apply(&mut segments, "add_members", "VIP", &["a"]);
        segments.clear();
        assert!(apply(&mut segments, "add_members", "VIP", &["a"]).version > before.version);
    }
}
