//! Segments, and how a segment-targets call updates them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use super::hidden::Hidden;

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
    /// The context kind of all its members, that of the first call.
    pub kind: String,
    /// Rises with every change; never falls, not even over a reset.
    pub version: u64,
    /// Keys of the contexts of its kind that are in.
    pub members: Hidden<BTreeSet<String>>,
}

/// What one call asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SegmentUpdate {
    pub(super) environment: String,
    /// The context kind of all members.
    pub(super) kind: String,
    /// The word that tells additions from removals, where the integration has one.
    pub(super) action: Option<String>,
    /// The cohort that the call names, for its members that name none.
    pub(super) cohort: Cohort,
    /// In the order in which members name them; never empty.
    cohorts: Vec<CohortUpdate>,
}

/// What becomes a segment: the sender's ID and name of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cohort {
    pub(super) id: String,
    pub(super) name: String,
}

/// The changes of one cohort.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CohortUpdate {
    cohort: Cohort,
    /// In the order sent.
    pub(super) changes: Hidden<Vec<MemberChange>>,
}

/// One member that goes in or out.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct MemberChange {
    pub(super) key: String,
    /// Whether it goes in; else it goes out.
    pub(super) adds: bool,
}

/// A call whose members are of another context kind than those of the segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the segment {segment} has contexts of kind {kind}, not {other}")]
pub(super) struct OtherKind {
    segment: String,
    kind: String,
    other: String,
}

impl SegmentUpdate {
    pub(super) fn new(
        environment: String,
        kind: String,
        action: Option<String>,
        cohort: Cohort,
        members: Vec<(Cohort, MemberChange)>,
    ) -> Self {
        Self {
            environment,
            kind,
            action,
            cohort,
            cohorts: by_cohort(members),
        }
    }

    /// The keys of the segments that it updates, with their changes.
    pub(super) fn segments(
        &self,
        integration: &str,
    ) -> impl Iterator<Item = (String, &CohortUpdate)> {
        let key = move |update: &CohortUpdate| format!("{integration}-{}", update.cohort.id);
        self.cohorts.iter().map(move |update| (key(update), update))
    }

    /// The IDs of the cohorts that it names.
    pub(super) fn cohort_ids(&self) -> BTreeSet<String> {
        let of_members = self.cohorts.iter().map(|update| &update.cohort);
        let all = of_members.chain([&self.cohort]);
        all.map(|cohort| cohort.id.clone()).collect()
    }

    pub(super) fn changes(&self) -> impl Iterator<Item = &MemberChange> {
        self.cohorts.iter().flat_map(|update| update.changes.iter())
    }
}

/// Cohorts in the order in which they are first named. The last name of each counts.
fn by_cohort(members: Vec<(Cohort, MemberChange)>) -> Vec<CohortUpdate> {
    let mut cohorts: Vec<CohortUpdate> = vec![];
    let mut places = HashMap::new();
    for (cohort, change) in members {
        let place = *places.entry(cohort.id.clone()).or_insert(cohorts.len());
        match cohorts.get_mut(place) {
            Some(known) => {
                known.cohort = cohort;
                known.changes.push(change);
            }
            None => cohorts.push(CohortUpdate {
                cohort,
                changes: Hidden(vec![change]),
            }),
        }
    }
    if cohorts.is_empty() {
        cohorts.push(CohortUpdate {
            cohort: Cohort {
                id: NO_COHORT.into(),
                name: NO_COHORT.into(),
            },
            changes: Hidden::default(),
        });
    }
    cohorts
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
    /// Carries out one call: all of it, or nothing.
    pub(super) fn apply(
        &mut self,
        integration: &str,
        update: &SegmentUpdate,
    ) -> Result<(), OtherKind> {
        let SegmentUpdate {
            environment, kind, ..
        } = update;
        for (key, _) in update.segments(integration) {
            if let Some(segment) = self.get(environment, &key)
                && segment.kind != *kind
            {
                return Err(OtherKind {
                    segment: key,
                    kind: segment.kind.clone(),
                    other: kind.clone(),
                });
            }
        }
        let segments = self.environments.entry(environment.clone()).or_default();
        for (key, cohort) in update.segments(integration) {
            let segment = segments
                .entry(key.clone())
                .or_insert_with(|| Segment::new(key, kind.clone()));
            if segment.follow(cohort) {
                self.version += 1;
                segment.version = self.version;
            }
        }
        Ok(())
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
    fn new(key: String, kind: String) -> Self {
        Self {
            key,
            name: String::new(),
            kind,
            version: 0,
            members: Hidden::default(),
        }
    }

    /// Answers whether anything changed: a new segment has no name yet, so it always does.
    fn follow(&mut self, update: &CohortUpdate) -> bool {
        let mut has_changed = self.name != update.cohort.name;
        if has_changed {
            self.name.clone_from(&update.cohort.name);
        }
        for MemberChange { key, adds } in update.changes.iter() {
            has_changed |= if *adds {
                self.members.insert(key.clone())
            } else {
                self.members.remove(key)
            };
        }
        has_changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "user";

    /// `+a` adds a, `-a` removes it; each belongs to the cohort before its colon, or to `vip`.
    fn update(kind: &str, name: &str, members: &[&str]) -> SegmentUpdate {
        let cohort = |id: &str| Cohort {
            id: id.into(),
            name: name.into(),
        };
        let members = members.iter().map(|member| {
            let (id, change) = member.split_once(':').unwrap_or(("vip", member));
            let change = MemberChange {
                key: change[1..].into(),
                adds: change.starts_with('+'),
            };
            (cohort(id), change)
        });
        let members = members.collect();
        SegmentUpdate::new("env".into(), kind.into(), None, cohort("vip"), members)
    }

    fn apply(segments: &mut Segments, name: &str, members: &[&str]) -> Segment {
        let update = update(USER, name, members);
        segments.apply("zeotap", &update).unwrap();
        let (key, _) = update.segments("zeotap").next().unwrap();
        segments.get("env", &key).unwrap().clone()
    }

    fn set(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|&key| key.to_owned()).collect()
    }

    #[test]
    fn adding_the_present_or_removing_the_absent_changes_nothing() {
        let mut segments = Segments::default();
        let first = apply(&mut segments, "VIP", &["+a", "+b"]);
        assert_eq!(
            (first.key.as_str(), first.name.as_str()),
            ("zeotap-vip", "VIP")
        );
        assert_eq!(apply(&mut segments, "VIP", &["+b"]), first);
        assert_eq!(apply(&mut segments, "VIP", &["-c"]), first);
        let third = apply(&mut segments, "VIP", &["-a"]);
        assert!(third.version > first.version);
        assert_eq!(*third.members, set(&["b"]));
    }

    #[test]
    fn one_call_may_add_and_remove_and_the_last_change_of_a_key_counts() {
        let mut segments = Segments::default();
        let first = apply(&mut segments, "VIP", &["+a", "+b"]);
        let second = apply(&mut segments, "VIP", &["-a", "+c", "+a", "-b"]);
        assert_eq!(*second.members, set(&["a", "c"]));
        // As many as before: the size alone would hide the change.
        assert!(second.version > first.version);
    }

    #[test]
    fn one_call_may_change_several_segments() {
        let mut segments = Segments::default();
        apply(&mut segments, "VIP", &["new:+a", "+b", "new:-c", "new:+d"]);
        let members = |key| segments.get("env", key).unwrap().members.0.clone();
        assert_eq!(members("zeotap-vip"), set(&["b"]));
        assert_eq!(members("zeotap-new"), set(&["a", "d"]));
    }

    #[test]
    fn a_segment_keeps_the_kind_of_its_first_call() {
        let mut segments = Segments::default();
        let account = update("account", "VIP", &["+a"]);
        segments.apply("zeotap", &account).unwrap();
        let before = segments.get("env", "zeotap-vip").unwrap().clone();
        assert_eq!(before.kind, "account");
        // Nothing of a call is carried out, the part for another segment neither.
        let other = update(USER, "VIP", &["new:+b", "+b"]);
        let refusal = segments.apply("zeotap", &other).unwrap_err();
        assert!(refusal.to_string().contains("zeotap-vip"), "{refusal}");
        assert_eq!(segments.get("env", "zeotap-vip"), Some(&before));
        assert_eq!(segments.get("env", "zeotap-new"), None);
    }

    #[test]
    fn a_new_cohort_name_renames_the_segment_under_its_key() {
        let mut segments = Segments::default();
        let first = apply(&mut segments, "VIP", &["+a"]);
        let renamed = apply(&mut segments, "Very important", &["+a"]);
        assert_eq!(
            (&renamed.key, renamed.name.as_str()),
            (&first.key, "Very important")
        );
        assert!(renamed.version > first.version);
    }

    #[test]
    fn a_call_without_members_makes_the_undefined_segment() {
        let mut segments = Segments::default();
        let made = apply(&mut segments, "VIP", &[]);
        assert_eq!(made.key, "zeotap-undefined");
        assert!(segments.get("env", "zeotap-vip").is_none());
    }

    #[test]
    fn versions_go_on_rising_after_a_clear() {
        let mut segments = Segments::default();
        let before = apply(&mut segments, "VIP", &["+a"]);
        segments.clear();
        assert!(apply(&mut segments, "VIP", &["+a"]).version > before.version);
    }
}
