//! Fault injection: faults as data, drawn from a seeded generator.

use std::{collections::BTreeSet, time::Duration};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::hidden::Hidden;

/// Faults of the calls whose path starts with `path_prefix`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FaultPlan {
    /// Which calls are harmed; segment-targets unless told.
    pub path_prefix: String,
    /// Seed of the generator that draws jitter and faults.
    pub seed: u64,
    /// Wait before a call is carried out, in milliseconds.
    pub latency_ms: u64,
    /// Up to so much is added to the latency, evenly drawn.
    pub jitter_ms: u64,
    /// LaunchDarkly's own clock is so much ahead of this machine's, or behind it if negative:
    /// `Date` and `X-Ratelimit-Reset` are by that clock, on every path.
    pub clock_ahead_ms: i64,
    /// Members that make LaunchDarkly refuse the whole call with 400.
    pub refused_keys: Hidden<BTreeSet<String>>,
    /// Longer bodies are answered 413.
    pub max_body_bytes: Option<usize>,
    /// Calls with more members are answered 413.
    pub max_members: Option<usize>,
    /// What else may happen: the first that is drawn does. In JSON they are called `mishaps`.
    #[serde(rename = "mishaps")]
    pub faults: Vec<Fault>,
}

/// One way for a call to go wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What the caller meets.
    pub how: FaultKind,
    /// The share of calls that it hits, from 0 to 1; all of them unless told.
    #[serde(default = "every_call")]
    pub rate: f64,
    /// How many calls it hits before it is over; without end unless told. Counts down.
    #[serde(default)]
    pub calls: Option<u64>,
    /// Whether the call is carried out all the same.
    #[serde(default)]
    pub when: FaultTiming,
    /// The ID of the account whose calls alone it hits; those of all accounts unless told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The client-side ID that a segment-targets call must name to be hit; any unless told. A body
    /// that cannot be read names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The cohort ID that a segment-targets call must name to be hit; any unless told. A body that
    /// cannot be read names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
}

/// What a caller meets instead of LaunchDarkly's answer. Where a status is asked for with a body,
/// the body comes under that status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// LaunchDarkly's error body under this status; under 2xx no body.
    Status(#[serde(with = "status_number")] StatusCode),
    /// No answer, ever.
    Hang,
    /// The connection is dropped without an answer.
    Reset,
    /// A 307 to this address.
    Redirect(String),
    /// An HTML page, as a captive portal or a block page sends.
    Page(#[serde(with = "status_number")] StatusCode),
    /// A line of plain text.
    Text(#[serde(with = "status_number")] StatusCode),
    /// A JSON object that is not LaunchDarkly's error.
    Json(#[serde(with = "status_number")] StatusCode),
    /// No body.
    Empty(#[serde(with = "status_number")] StatusCode),
    /// A body that is neither JSON nor text.
    Garbage(#[serde(with = "status_number")] StatusCode),
    /// A body of 100 MiB.
    Huge(#[serde(with = "status_number")] StatusCode),
    /// A body of one byte a second, for an hour.
    Drip(#[serde(with = "status_number")] StatusCode),
}

/// Whether a fault spares the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultTiming {
    /// Nothing is applied.
    #[default]
    Instead,
    /// The call is applied first: an ambiguous failure.
    AfterApplying,
}

impl Default for FaultPlan {
    fn default() -> Self {
        Self {
            path_prefix: "/api/v2/segment-targets/".into(),
            seed: 0,
            latency_ms: 0,
            jitter_ms: 0,
            clock_ahead_ms: 0,
            refused_keys: Hidden::default(),
            max_body_bytes: None,
            max_members: None,
            faults: vec![],
        }
    }
}

impl Fault {
    /// Hits every call, without end, and nothing is applied.
    pub fn new(how: FaultKind) -> Self {
        Self {
            how,
            rate: every_call(),
            calls: None,
            when: FaultTiming::Instead,
            account: None,
            environment: None,
            segment: None,
        }
    }

    /// Hits this share of the calls.
    #[must_use]
    pub fn at_rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// Is over after so many calls.
    #[must_use]
    pub fn for_calls(self, calls: u64) -> Self {
        Self {
            calls: Some(calls),
            ..self
        }
    }

    /// Spares the calls of other accounts.
    #[must_use]
    pub fn of_account(self, id: &str) -> Self {
        Self {
            account: Some(id.into()),
            ..self
        }
    }

    /// Spares the calls that name another client-side ID.
    #[must_use]
    pub fn of_environment(self, id: &str) -> Self {
        Self {
            environment: Some(id.into()),
            ..self
        }
    }

    /// Spares the calls that name another cohort ID.
    #[must_use]
    pub fn of_segment(self, id: &str) -> Self {
        Self {
            segment: Some(id.into()),
            ..self
        }
    }

    /// Comes after the call was carried out.
    #[must_use]
    pub fn after_applying(self) -> Self {
        Self {
            when: FaultTiming::AfterApplying,
            ..self
        }
    }

    fn concerns(&self, aim: &CallTraits) -> bool {
        let is_meant =
            |asked: &Option<String>, seen: &Option<String>| asked.is_none() || asked == seen;
        self.calls != Some(0)
            && is_meant(&self.account, &aim.account)
            && is_meant(&self.environment, &aim.environment)
            && (self.segment.as_ref()).is_none_or(|segment| aim.segments.contains(segment))
    }

    fn looks_into_bodies(&self) -> bool {
        self.environment.is_some() || self.segment.is_some()
    }
}

impl FaultKind {
    /// The status that is logged, if one is sent.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            FaultKind::Status(status)
            | FaultKind::Page(status)
            | FaultKind::Text(status)
            | FaultKind::Json(status)
            | FaultKind::Empty(status)
            | FaultKind::Garbage(status)
            | FaultKind::Huge(status)
            | FaultKind::Drip(status) => Some(*status),
            FaultKind::Redirect(_) => Some(StatusCode::TEMPORARY_REDIRECT),
            FaultKind::Hang | FaultKind::Reset => None,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            FaultKind::Status(_) => "status",
            FaultKind::Hang => "hang",
            FaultKind::Reset => "reset",
            FaultKind::Redirect(_) => "redirect",
            FaultKind::Page(_) => "page",
            FaultKind::Text(_) => "text",
            FaultKind::Json(_) => "json",
            FaultKind::Empty(_) => "empty",
            FaultKind::Garbage(_) => "garbage",
            FaultKind::Huge(_) => "huge",
            FaultKind::Drip(_) => "drip",
        }
    }
}

fn every_call() -> f64 {
    1.0
}

/// What faults choose calls by.
#[derive(Clone, Debug, Default)]
pub(super) struct CallTraits {
    /// The account of the caller's token.
    pub(super) account: Option<String>,
    /// The client-side ID in the body.
    pub(super) environment: Option<String>,
    /// The cohort IDs in the body.
    pub(super) segments: BTreeSet<String>,
}

/// What is in store for one call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CallFaults {
    pub(super) delay: Duration,
    pub(super) fault: Option<Fault>,
}

/// Why the faults refuse a call by what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ContentFault {
    RefusedKey,
    TooLarge,
}

/// The faults with the generator that draws them.
#[derive(Debug)]
pub(super) struct FaultInjector {
    plan: FaultPlan,
    random: fastrand::Rng,
}

impl FaultInjector {
    pub(super) fn new(plan: FaultPlan) -> Self {
        Self {
            random: fastrand::Rng::with_seed(plan.seed),
            plan,
        }
    }

    /// The plan as it stands, with the counts that are left.
    pub(super) fn plan(&self) -> &FaultPlan {
        &self.plan
    }

    /// Whether a plan needs to know what the body names.
    pub(super) fn looks_into_bodies(&self) -> bool {
        self.plan.faults.iter().any(Fault::looks_into_bodies)
    }

    /// Draws the faults of a call on `path`.
    pub(super) fn faults_of(&mut self, path: &str, aim: &CallTraits) -> CallFaults {
        if !self.covers(path) {
            return CallFaults::default();
        }
        let jitter = self.random.u64(0..=self.plan.jitter_ms);
        CallFaults {
            delay: Duration::from_millis(self.plan.latency_ms.saturating_add(jitter)),
            fault: self.draw(aim),
        }
    }

    pub(super) fn weigh_body(&self, path: &str, bytes: usize) -> Result<(), ContentFault> {
        match self.plan.max_body_bytes {
            Some(most) if bytes > most && self.covers(path) => Err(ContentFault::TooLarge),
            _ => Ok(()),
        }
    }

    pub(super) fn weigh_members(&self, path: &str, keys: &[&str]) -> Result<(), ContentFault> {
        if !self.covers(path) {
            return Ok(());
        }
        if self.plan.max_members.is_some_and(|most| keys.len() > most) {
            return Err(ContentFault::TooLarge);
        }
        if keys.iter().any(|&key| self.plan.refused_keys.contains(key)) {
            return Err(ContentFault::RefusedKey);
        }
        Ok(())
    }

    fn covers(&self, path: &str) -> bool {
        path.starts_with(&self.plan.path_prefix)
    }

    fn draw(&mut self, aim: &CallTraits) -> Option<Fault> {
        let random = &mut self.random;
        let mut live = self
            .plan
            .faults
            .iter_mut()
            .filter(|fault| fault.concerns(aim));
        let drawn = live.find(|fault| random.f64() < fault.rate)?;
        if let Some(calls) = &mut drawn.calls {
            *calls -= 1;
        }
        Some(drawn.clone())
    }
}

/// A status as its number; only those that can end an exchange.
mod status_number {
    use axum::http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(status: &StatusCode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(status.as_u16())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<StatusCode, D::Error> {
        let number = u16::deserialize(from)?;
        match StatusCode::from_u16(number) {
            Ok(status) if !status.is_informational() => Ok(status),
            _ => Err(D::Error::custom("a status is a number from 200 to 999")),
        }
    }
}

#[cfg(test)]
mod tests;
