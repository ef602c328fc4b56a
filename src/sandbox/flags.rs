//! Flags, and their evaluation for a context.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Flag,
    context::{ContextKeys, USER},
    segments::{Segment, Segments},
};

/// A flag's own version: SDKs get everything anew when a flag changes.
const FLAG_VERSION: u64 = 1;

/// The ID of the rule that makes a flag true.
const RULE: &str = "members";

/// Whether a client-side SDK asked why flags have their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reasons {
    Shown,
    Omitted,
}

/// Boolean flags, each true for the members of one segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    /// Environment → key → flag.
    environments: BTreeMap<String, BTreeMap<String, Flag>>,
}

impl Flags {
    pub(super) fn put(&mut self, environment: &str, flag: Flag) {
        self.environments
            .entry(environment.to_owned())
            .or_default()
            .insert(flag.key.clone(), flag);
    }

    fn within(&self, environment: &str) -> impl Iterator<Item = &Flag> {
        self.environments
            .get(environment)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    /// One flag as a server-side SDK reads it.
    pub(super) fn one(&self, environment: &str, key: &str) -> Option<Value> {
        Some(flag_json(self.environments.get(environment)?.get(key)?))
    }

    /// All flags as a server-side SDK reads them.
    pub(super) fn all(&self, environment: &str) -> Map<String, Value> {
        self.within(environment)
            .map(|flag| (flag.key.clone(), flag_json(flag)))
            .collect()
    }

    /// What a server-side SDK downloads.
    pub(super) fn everything(&self, environment: &str, segments: &Segments) -> Value {
        let segments: Map<_, _> = segments
            .within(environment)
            .map(|segment| (segment.key.clone(), segment_json(segment)))
            .collect();
        json!({"flags": self.all(environment), "segments": segments})
    }

    /// What a client-side SDK gets: each flag's value for one context.
    pub(super) fn evaluate(
        &self,
        environment: &str,
        segments: &Segments,
        context: &ContextKeys,
        reasons: Reasons,
    ) -> Map<String, Value> {
        self.within(environment)
            .map(|flag| {
                let segment = segments.get(environment, &flag.segment);
                (
                    flag.key.clone(),
                    evaluation(flag, segment, context, reasons),
                )
            })
            .collect()
    }
}

/// As LaunchDarkly's: a reason only if it was asked for; `trackReason` never, since it belongs to
/// experiments, of which there are none.
fn evaluation(
    flag: &Flag,
    segment: Option<&Segment>,
    context: &ContextKeys,
    reasons: Reasons,
) -> Value {
    let is_member = segment.is_some_and(|segment| {
        let key = context.of_kind(&segment.kind);
        key.is_some_and(|key| segment.members.contains(key))
    });
    let (value, reason) = match (flag.on, is_member) {
        (false, _) => (false, json!({"kind": "OFF"})),
        (true, false) => (false, json!({"kind": "FALLTHROUGH"})),
        (true, true) => (
            true,
            json!({"kind": "RULE_MATCH", "ruleIndex": 0, "ruleId": RULE}),
        ),
    };
    let mut evaluation = json!({
        // SDKs ignore a patch whose version does not rise, and it is the segment that changes.
        "version": FLAG_VERSION + segment.map_or(0, |segment| segment.version),
        "flagVersion": FLAG_VERSION,
        "value": value,
        "variation": i32::from(!value),
        "trackEvents": false,
    });
    if reasons == Reasons::Shown {
        evaluation["reason"] = reason;
    }
    evaluation
}

fn flag_json(Flag { key, segment, on }: &Flag) -> Value {
    json!({
        "key": key, "version": FLAG_VERSION, "deleted": false, "on": on,
        "variations": [true, false], "offVariation": 1, "fallthrough": {"variation": 1},
        "targets": [], "contextTargets": [], "prerequisites": [], "salt": "f",
        "trackEvents": false, "clientSide": true,
        "clientSideAvailability": {"usingEnvironmentId": true, "usingMobileKey": true},
        "rules": [{"id": RULE, "variation": 0, "trackEvents": false, "clauses": [{
            "contextKind": "user", "attribute": "", "op": "segmentMatch",
            "values": [segment], "negate": false}]}],
    })
}

/// Contexts of kind `user` have a list of their own, as in the time when there were only users.
pub(super) fn segment_json(segment: &Segment) -> Value {
    let (users, others) = if segment.kind == USER {
        (json!(segment.members), json!([]))
    } else {
        let others = json!([{"contextKind": segment.kind, "values": segment.members}]);
        (json!([]), others)
    };
    json!({
        "key": segment.key, "version": segment.version, "deleted": false,
        "included": users, "excluded": [], "includedContexts": others,
        "excludedContexts": [], "rules": [], "salt": "s", "unbounded": false,
        "unboundedContextKind": segment.kind, "generation": 1,
    })
}
