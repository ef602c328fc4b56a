//! What goes wrong, and when: faults as data, drawn from a seeded generator.

use std::{collections::BTreeSet, time::Duration};

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::hidden::Hidden;

/// Faults of the calls whose path starts with `path_prefix`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Which calls are harmed; segment-targets unless told.
    pub path_prefix: String,
    /// Seed of the generator that draws jitter and mishaps.
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
    /// What else may happen: the first that is drawn does.
    pub mishaps: Vec<Mishap>,
}

/// One way for a call to go wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mishap {
    /// What the caller meets.
    pub how: How,
    /// The share of calls that it hits, from 0 to 1; all of them unless told.
    #[serde(default = "every_call")]
    pub rate: f64,
    /// How many calls it hits before it is over; without end unless told. Counts down.
    #[serde(default)]
    pub calls: Option<u64>,
    /// Whether the call is carried out all the same.
    #[serde(default)]
    pub when: When,
    /// The ID of the account whose calls alone it hits; everyone's unless told.
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
pub enum How {
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

/// Whether a mishap spares the segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Nothing is applied.
    #[default]
    Instead,
    /// The call is applied first: an ambiguous failure.
    AfterApplying,
}

impl Default for Faults {
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
            mishaps: vec![],
        }
    }
}

impl Mishap {
    /// Hits every call, without end, and nothing is applied.
    pub fn new(how: How) -> Self {
        Self {
            how,
            rate: every_call(),
            calls: None,
            when: When::Instead,
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
            when: When::AfterApplying,
            ..self
        }
    }

    fn concerns(&self, aim: &Aim) -> bool {
        let is_meant =
            |asked: &Option<String>, seen: &Option<String>| asked.is_none() || asked == seen;
        self.calls != Some(0)
            && is_meant(&self.account, &aim.account)
            && is_meant(&self.environment, &aim.environment)
            && is_meant(&self.segment, &aim.segment)
    }

    fn looks_into_bodies(&self) -> bool {
        self.environment.is_some() || self.segment.is_some()
    }
}

impl How {
    /// The status that is logged, if one is sent.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            How::Status(status)
            | How::Page(status)
            | How::Text(status)
            | How::Json(status)
            | How::Empty(status)
            | How::Garbage(status)
            | How::Huge(status)
            | How::Drip(status) => Some(*status),
            How::Redirect(_) => Some(StatusCode::TEMPORARY_REDIRECT),
            How::Hang | How::Reset => None,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            How::Status(_) => "status",
            How::Hang => "hang",
            How::Reset => "reset",
            How::Redirect(_) => "redirect",
            How::Page(_) => "page",
            How::Text(_) => "text",
            How::Json(_) => "json",
            How::Empty(_) => "empty",
            How::Garbage(_) => "garbage",
            How::Huge(_) => "huge",
            How::Drip(_) => "drip",
        }
    }
}

fn every_call() -> f64 {
    1.0
}

/// What mishaps choose calls by.
#[derive(Clone, Debug, Default)]
pub(super) struct Aim {
    /// The account of the caller's token.
    pub(super) account: Option<String>,
    /// The client-side ID in the body.
    pub(super) environment: Option<String>,
    /// The cohort ID in the body.
    pub(super) segment: Option<String>,
}

/// What is in store for one call.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) delay: Duration,
    pub(super) mishap: Option<Mishap>,
}

/// Why the faults refuse a call by what it holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Objection {
    RefusedKey,
    TooLarge,
}

/// The faults with the generator that draws them.
#[derive(Debug)]
pub(super) struct Deck {
    faults: Faults,
    random: fastrand::Rng,
}

impl Deck {
    pub(super) fn new(faults: Faults) -> Self {
        Self {
            random: fastrand::Rng::with_seed(faults.seed),
            faults,
        }
    }

    /// The faults as they stand, mishaps counted down.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether a plan needs to know what the body names.
    pub(super) fn looks_into_bodies(&self) -> bool {
        self.faults.mishaps.iter().any(Mishap::looks_into_bodies)
    }

    /// What is in store for a call on `path`.
    pub(super) fn plan(&mut self, path: &str, aim: &Aim) -> Plan {
        if !self.covers(path) {
            return Plan::default();
        }
        let jitter = self.random.u64(0..=self.faults.jitter_ms);
        Plan {
            delay: Duration::from_millis(self.faults.latency_ms.saturating_add(jitter)),
            mishap: self.draw(aim),
        }
    }

    pub(super) fn weigh_body(&self, path: &str, bytes: usize) -> Result<(), Objection> {
        match self.faults.max_body_bytes {
            Some(most) if bytes > most && self.covers(path) => Err(Objection::TooLarge),
            _ => Ok(()),
        }
    }

    pub(super) fn weigh_members(&self, path: &str, keys: &[String]) -> Result<(), Objection> {
        if !self.covers(path) {
            return Ok(());
        }
        if self
            .faults
            .max_members
            .is_some_and(|most| keys.len() > most)
        {
            return Err(Objection::TooLarge);
        }
        if keys
            .iter()
            .any(|key| self.faults.refused_keys.contains(key))
        {
            return Err(Objection::RefusedKey);
        }
        Ok(())
    }

    fn covers(&self, path: &str) -> bool {
        path.starts_with(&self.faults.path_prefix)
    }

    fn draw(&mut self, aim: &Aim) -> Option<Mishap> {
        let random = &mut self.random;
        let mut live = self
            .faults
            .mishaps
            .iter_mut()
            .filter(|mishap| mishap.concerns(aim));
        let drawn = live.find(|mishap| random.f64() < mishap.rate)?;
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
